//! Settings: who wins, what the defaults are, and that every mistake is named.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use rialto_node::config::{Advertise, Config, ConfigError, ExecutorKind, Surroundings};

/// Reads settings from flags and variables; `{file}` in a flag stands for a file with this text.
fn read(flags: &str, variables: &[(&str, &str)], toml: &str, is_root: bool) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let path = file.path().display().to_string();
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let args: Vec<String> =
        std::iter::once("rialtod").chain(flags.split_whitespace()).map(|arg| arg.replace("{file}", &path)).collect();
    let variable = |name: &str| variables.get(name).map(|value| value.to_string());
    Config::read(&args, &Surroundings { variable: &variable, is_root, host_name: "Node_7.example.org".into() })
}

#[test]
fn flag_over_variable_over_file_over_default() {
    let toml = "name = \"from-file\"\nmemory = \"1g\"\ndns = \"none\"\ncpus = 1.5\n[labels]\nzone = \"file\"\n";
    let variables = [("RIALTO_NAME", "from-variable"), ("RIALTO_MEMORY", "2g"), ("RIALTO_LISTEN", "")];
    let config = read("--config {file} --name from-flag", &variables, toml, true).unwrap();
    assert_eq!(config.name, "from-flag");
    assert_eq!(config.memory_bytes, Some(2 << 30));
    assert_eq!(config.dns, None);
    assert_eq!(config.cpu_millis, Some(1500));
    assert_eq!(config.labels, BTreeMap::from([("zone".into(), "file".into())]));
    assert_eq!(config.listen.to_string(), "0.0.0.0:7400");
}

#[test]
fn defaults_of_root_and_of_others() {
    let root = read("--config {file}", &[], "", true).unwrap();
    assert_eq!(root.data, PathBuf::from("/var/lib/rialto"));
    assert_eq!(root.socket, PathBuf::from("/run/rialto/rialto.sock"));
    assert_eq!(root.name, "node-7");
    assert_eq!(root.api, None);
    assert_eq!(root.dns, Some("127.0.0.1:7453".parse().unwrap()));
    assert_eq!(root.executor, ExecutorKind::Container);
    assert_eq!((root.minority_hold_ms, root.userns_remap), (Some(60_000), None));

    let home = [("HOME", "/home/ada"), ("XDG_RUNTIME_DIR", "/run/user/7")];
    let other = read("", &home, "", false).unwrap();
    assert_eq!(other.data, PathBuf::from("/home/ada/.local/share/rialto"));
    assert_eq!(other.socket, PathBuf::from("/run/user/7/rialto/rialto.sock"));
    let other = read("--data /srv/a", &[("HOME", "/home/ada")], "", false).unwrap();
    assert_eq!(other.socket, PathBuf::from("/srv/a/rialto.sock"));
}

#[test]
fn lists_and_addresses() {
    let variables = [("RIALTO_ADVERTISE", "192.0.2.1, [2001:db8::1]:70"), ("RIALTO_LABEL", "zone=a,disk=ssd=fast")];
    let config = read("--api 10.0.0.1:7401 --executor null", &variables, "", true).unwrap();
    let second = Advertise { ip: "2001:db8::1".parse().unwrap(), port: Some(70) };
    assert_eq!(config.advertise, [Advertise { ip: "192.0.2.1".parse().unwrap(), port: None }, second]);
    assert_eq!(config.labels["disk"], "ssd=fast");
    assert_eq!(config.executor, ExecutorKind::Null);
    let config = read("--config {file} --minority-hold forever", &[], "stop-tasks = true", true).unwrap();
    assert_eq!((config.minority_hold_ms, config.stop_tasks), (None, true));
}

#[test]
fn a_machine_says_what_it_has() {
    let flags = "--gpu 2:a100 --resource licence=3 --resource fpga=1 --label zone=a --label rack=r1 --label disk=ssd";
    let config = read(flags, &[], "", true).unwrap();
    let labels: Vec<(&str, &str)> = config.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("disk", "ssd"), ("gpu_spec", "a100"), ("rack", "r1"), ("zone", "a")]);
    let resources: Vec<(&str, u64)> = config.resources.0.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(resources, [("fpga", 1), ("gpu_milli:0", 1000), ("gpu_milli:1", 1000), ("licence", 3)]);
    let capacity = rialto_node::machine::capacity(&config);
    assert_eq!((capacity.get("licence"), capacity.free(&Default::default(), "gpu")), (3, 2));
    assert!(capacity.get("cpu_millis") > 0);

    let toml = "gpu = 4\n[resources]\nlicence = 2\n[labels]\ngpu_spec = \"v100\"\n";
    let config = read("--config {file} --resource a=1,b=2", &[("RIALTO_GPU", "1")], toml, true);
    assert!(config.is_err(), "one flag, one resource: {config:?}");
    let config = read("--config {file}", &[("RIALTO_GPU", "1"), ("RIALTO_RESOURCE", "a=1, b=2")], toml, true).unwrap();
    assert_eq!(config.resources.0.keys().collect::<Vec<_>>(), ["a", "b", "gpu_milli:0"]);
    assert_eq!(config.labels["gpu_spec"], "v100");
    let many: String = (0..65).map(|n| format!(" --label l{n}=x")).collect();
    assert!(read(&many, &[], "", true).unwrap_err().to_string().contains("65 labels are more than 64"));
    let long = format!("--label a={}", "x".repeat(256));
    assert!(read(&long, &[], "", true).unwrap_err().to_string().contains("256 bytes"));
}

/// Flags, variables, a file, and words that the error must have.
type Mistake = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);

#[test]
fn every_mistake_is_named() {
    let table: &[Mistake] = &[
        ("--memory lots", &[], "", &["--memory", "lots", "16GiB"]),
        ("--listen 7400", &[], "", &["--listen", "7400"]),
        ("--advertise 0.0.0.0", &[], "", &["--advertise", "no address"]),
        ("--name Big_Box", &[], "", &["name", "Big_Box"]),
        ("--label zone", &[], "", &["--label", "key=value"]),
        ("--label =a", &[], "", &["--label", "can name no label"]),
        ("--label zone=a --label zone=b", &[], "", &["zone", "twice", "\"a\"", "\"b\""]),
        ("--label zone=a|b", &[], "", &["--label", "zone", "no constraint"]),
        ("--gpu four", &[], "", &["--gpu", "4:MODEL"]),
        ("--gpu 65", &[], "", &["--gpu", "at most 64"]),
        ("--gpu 1:a100 --label gpu_spec=v100", &[], "", &["gpu_spec", "twice"]),
        ("--resource licence", &[], "", &["--resource", "name=count"]),
        ("--resource licence=0", &[], "", &["licence", "from 1"]),
        ("--resource licence=x", &[], "", &["no count"]),
        ("--resource memory=1", &[], "", &["--memory"]),
        ("--resource gpu=1", &[], "", &["--gpu"]),
        ("--resource Big=1", &[], "", &["can name no resource"]),
        ("--resource a=1 --resource a=2", &[], "", &["a is given twice"]),
        ("", &[("RIALTO_RESOURCE", "a=1,b")], "", &["RIALTO_RESOURCE", "name=count"]),
        ("--config {file}", &[], "gpu = -1", &["gpu", "at most 64"]),
        ("--config {file}", &[], "gpu = []", &["gpu", "such as 4"]),
        ("--config {file}", &[], "[resources]\nport = \"x\"", &["port", "u64"]),
        ("--config {file}", &[], "[labels]\n\"a b\" = \"x\"", &["labels", "can name no label"]),
        ("--cpus -1", &[], "", &["-1"]),
        ("--cpus=NaN", &[], "", &["--cpus", "NaN"]),
        ("--executor docker", &[], "", &["--executor", "docker"]),
        ("--userns-remap 0:65536", &[], "", &["--userns-remap", "machine's own users"]),
        ("--userns-remap 100000:65536 --allow privileged", &[], "", &["privileged", "userns-remap"]),
        ("--config {file}", &[], "userns-remap = \"100000\"", &["userns-remap", "FIRST:COUNT"]),
        ("--minority-hold soon", &[], "", &["--minority-hold", "forever"]),
        ("--frobnicate", &[], "", &["--frobnicate"]),
        ("", &[("RIALTO_MEMORY", "x")], "", &["RIALTO_MEMORY", "no size"]),
        ("", &[("RIALTO_API", "http://10.0.0.1:7401")], "", &["RIALTO_API", "URL"]),
        ("", &[("RIALTO_STOP_TASKS", "perhaps")], "", &["RIALTO_STOP_TASKS", "perhaps"]),
        ("--config {file}", &[], "colour = \"red\"", &["colour"]),
        ("--config {file}", &[], "memory = \"x\"", &["memory", "no size"]),
        ("--config {file}", &[], "memory = -5", &["memory", "size"]),
        ("--config {file}", &[], "listen = \"nowhere\"", &["listen"]),
        ("--config {file}", &[], "name = ", &["name"]),
        ("--config /does/not/exist", &[], "", &["/does/not/exist"]),
    ];
    for (flags, variables, toml, words) in table {
        let error = read(flags, variables, toml, true).expect_err(&format!("{flags:?} {variables:?} {toml:?}"));
        let text = error.to_string();
        for word in *words {
            assert!(text.contains(word), "{word:?} is missing from: {text}");
        }
    }
}

#[test]
fn help_names_every_setting_of_the_contract() {
    let help = read("--help", &[], "", true).unwrap_err().to_string();
    let flags = "gpu resource data name listen advertise join api socket dns label cpus memory executor config version stop-tasks";
    for flag in flags.split(' ') {
        assert!(help.contains(&format!("--{flag}")), "{flag} is missing from: {help}");
    }
    assert!(read("--version", &[], "", true).unwrap_err().to_string().starts_with("rialtod 0."));
}

#[test]
fn registries_are_set_by_the_file() {
    let toml = "[registries]\ndefault = \"r.example\"\n[registries.host.\"r.example\"]\nmirrors = [\"m.example:5000\"]\n\
                plain-http = true\nca = \"/etc/ca.pem\"\n";
    let config = read("--config {file}", &[("HOME", "/home/ada")], toml, true).unwrap();
    assert_eq!(config.registries.default.as_deref(), Some("r.example"));
    let host = &config.registries.host["r.example"];
    assert_eq!((host.mirrors.len(), host.plain_http, &host.ca), (1, Some(true), &Some("/etc/ca.pem".into())));
    assert_eq!(config.registries.credentials, Some("/home/ada/.docker/config.json".into()));
    let of =
        |variables: &[(&str, &str)], toml: &str| read("--config {file}", variables, toml, true).unwrap().registries;
    assert_eq!(of(&[], "").credentials, Some("/root/.docker/config.json".into()));
    assert_eq!(of(&[("DOCKER_CONFIG", "/d")], "").credentials, Some("/d/config.json".into()));
    assert_eq!(of(&[], "[registries]\ncredentials = \"/c\"").credentials, Some("/c".into()));
    assert!(read("--config {file}", &[], "[registries]\nmirrors = []", true).is_err());
}
