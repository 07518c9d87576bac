//! Profiles of system calls that people bring: OCI's form, and Docker's, which has rules for
//! architectures, kernels and rights beside it.

use libcontainer::oci_spec::runtime::{Capabilities, LinuxSeccomp};
use serde_json::{Map, Value};

/// Reads a profile for a task with these rights.
///
/// # Errors
///
/// A sentence that says what cannot be read.
pub fn read(json: &str, rights: Option<&Capabilities>) -> Result<LinuxSeccomp, String> {
    let said = |error: serde_json::Error| format!("its seccomp profile cannot be read: {error}");
    let mut profile: Map<String, Value> = serde_json::from_str(json).map_err(said)?;
    // Docker lists architectures with their smaller sisters; the machine's own is what counts.
    profile.remove("archMap");
    profile.insert("architectures".into(), serde_json::json!(["SCMP_ARCH_NATIVE"]));
    let word = |right| serde_json::to_value(right).ok().and_then(|word| word.as_str().map(str::to_owned));
    let rights: Vec<String> = rights.into_iter().flatten().filter_map(word).collect();
    let holds = |name: &str| rights.iter().any(|right| same_right(right, name));
    let rules = match profile.remove("syscalls") {
        Some(Value::Array(rules)) => rules,
        None => Vec::new(),
        Some(_) => return Err("its seccomp profile cannot be read: syscalls is no list".into()),
    };
    let rules: Vec<Value> = rules.into_iter().filter_map(|rule| applies(rule, &holds)).collect();
    profile.insert("syscalls".into(), rules.into());
    serde_json::from_value(profile.into()).map_err(said)
}

/// A right by its name, with or without `CAP_`.
fn same_right(one: &str, other: &str) -> bool {
    let bare = |name: &str| name.to_ascii_uppercase().trim_start_matches("CAP_").replace('_', "");
    bare(one) == bare(other)
}

/// The rule in OCI's form, if it is meant for such a task on such a machine.
fn applies(mut rule: Value, holds: &impl Fn(&str) -> bool) -> Option<Value> {
    let object = rule.as_object_mut()?;
    let (includes, excludes) = (object.remove("includes"), object.remove("excludes"));
    let texts = |of: &Option<Value>, key: &str| -> Vec<String> {
        let list = of.as_ref().and_then(|of| of.get(key)?.as_array().cloned()).unwrap_or_default();
        list.iter().filter_map(|one| one.as_str().map(Into::into)).collect()
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let arches = texts(&includes, "arches");
    let included = texts(&includes, "caps").iter().all(|cap| holds(cap))
        && (arches.is_empty() || arches.iter().any(|arch| arch == architecture));
    let excluded = texts(&excludes, "caps").iter().any(|cap| holds(cap))
        || texts(&excludes, "arches").iter().any(|arch| arch == architecture);
    if !included || excluded {
        return None;
    }
    // Docker's older form has one name; OCI's has a list.
    if let Some(name) = object.remove("name") {
        object.insert("names".into(), Value::Array(vec![name]));
    }
    object.remove("comment");
    if object.get("args").is_some_and(Value::is_null) {
        object.remove("args");
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libcontainer::oci_spec::runtime::Capability;

    const DOCKER: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"name": "close", "action": "SCMP_ACT_ALLOW", "args": null, "comment": "x"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]},
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["s390_runtime_instr"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}}
        ]}"#;

    #[test]
    fn dockers_rules_are_for_those_they_are_meant_for() {
        let names = |rights: &Capabilities| -> Vec<String> {
            let read = read(DOCKER, Some(rights)).unwrap();
            read.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
        };
        assert_eq!(names(&Capabilities::default()), ["read", "write", "close", "clone"]);
        assert_eq!(names(&[Capability::SysAdmin].into_iter().collect()), ["read", "write", "close", "mount"]);
        assert!(read("{}", None).is_err() && read("[]", None).is_err());
    }
}
