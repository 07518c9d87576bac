//! Which keys are honoured, and what to say about the others.

/// What a level of the file is made of.
pub struct Level {
    /// What the level is called in messages.
    pub name: &'static str,
    /// Keys that are honoured.
    pub honoured: &'static [&'static str],
    /// Keys of the Compose specification that are not honoured yet.
    pub compose: &'static [&'static str],
}

pub const TOP: Level = Level {
    name: "an app file",
    honoured: &["name", "services"],
    compose: &["networks", "volumes", "configs", "secrets", "include", "models"],
};

pub const SERVICE: Level = Level {
    name: "a service",
    honoured: &["image", "command", "environment", "deploy", "restart", "ports", "x-rialto"],
    compose: &[
        "annotations",
        "attach",
        "build",
        "blkio_config",
        "cap_add",
        "cap_drop",
        "cgroup",
        "cgroup_parent",
        "configs",
        "container_name",
        "cpu_count",
        "cpu_percent",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpus",
        "cpuset",
        "credential_spec",
        "depends_on",
        "develop",
        "device_cgroup_rules",
        "devices",
        "dns",
        "dns_opt",
        "dns_search",
        "domainname",
        "driver_opts",
        "entrypoint",
        "env_file",
        "expose",
        "extends",
        "external_links",
        "extra_hosts",
        "gpus",
        "group_add",
        "healthcheck",
        "hostname",
        "init",
        "ipc",
        "isolation",
        "labels",
        "label_file",
        "links",
        "logging",
        "mac_address",
        "mem_limit",
        "mem_reservation",
        "mem_swappiness",
        "memswap_limit",
        "models",
        "network_mode",
        "networks",
        "oom_kill_disable",
        "oom_score_adj",
        "pid",
        "pids_limit",
        "platform",
        "post_start",
        "pre_stop",
        "privileged",
        "profiles",
        "provider",
        "pull_policy",
        "read_only",
        "runtime",
        "scale",
        "secrets",
        "security_opt",
        "shm_size",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "storage_opt",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "use_api_socket",
        "user",
        "userns_mode",
        "uts",
        "volumes",
        "volumes_from",
        "working_dir",
    ],
};

pub const DEPLOY: Level = Level {
    name: "deploy",
    honoured: &["replicas", "resources", "placement"],
    compose: &["endpoint_mode", "labels", "mode", "restart_policy", "rollback_config", "update_config"],
};

pub const PLACEMENT: Level = Level {
    name: "deploy.placement",
    honoured: &["constraints", "preferences", "max_replicas_per_node"],
    compose: &[],
};

pub const PREFERENCE: Level = Level { name: "a preference", honoured: &["spread"], compose: &[] };

pub const EXTENSION: Level = Level {
    name: "x-rialto",
    honoured: &["priority", "gang", "apart_from", "on_heal", "lost_after", "stop_when_isolated"],
    compose: &[],
};

pub const RESOURCES: Level = Level { name: "deploy.resources", honoured: &["limits", "reservations"], compose: &[] };

pub const LIMITS: Level = Level { name: "limits", honoured: &["cpus", "memory", "pids"], compose: &["devices"] };

pub const RESERVATIONS: Level =
    Level { name: "reservations", honoured: &["cpus", "memory", "devices", "generic_resources"], compose: &["pids"] };

pub const DEVICE: Level =
    Level { name: "a device", honoured: &["capabilities", "count"], compose: &["driver", "device_ids", "options"] };

pub const GENERIC: Level = Level { name: "a generic resource", honoured: &["discrete_resource_spec"], compose: &[] };

pub const DISCRETE: Level = Level { name: "discrete_resource_spec", honoured: &["kind", "value"], compose: &[] };

pub const PORT: Level = Level {
    name: "a port",
    honoured: &["target", "published", "protocol", "name"],
    compose: &["host_ip", "app_protocol", "mode"],
};

/// What to say of a key that is not honoured: a message and, where there is one, a way out.
pub fn refusal(level: &Level, key: &str) -> (String, Option<String>) {
    let hint = match (level.name, key) {
        ("an app file", "version") => {
            return (
                "this key is obsolete in Compose, and not read".into(),
                Some("delete the line; the format needs no version".into()),
            );
        }
        ("a service", "scale") => Some("write deploy.replicas".into()),
        ("a service", "cpus") => Some("write deploy.resources.limits.cpus".into()),
        ("a service", "mem_limit") => Some("write deploy.resources.limits.memory".into()),
        ("a service", "mem_reservation") => Some("write deploy.resources.reservations.memory".into()),
        ("a service", "pids_limit") => Some("write deploy.resources.limits.pids".into()),
        ("a service", "entrypoint") => Some("write the whole command line into command".into()),
        ("a service", "build") => {
            Some("build the image elsewhere, import it by 'rialto image import DIR', and name it in image".into())
        }
        ("deploy", "restart_policy") => Some("write restart beside image".into()),
        ("reservations", "pids") => Some("write it under limits: processes are limited, not reserved".into()),
        _ => None,
    };
    if level.compose.contains(&key) {
        return ("Compose knows this key, Rialto does not yet".into(), hint);
    }
    if key.starts_with("x-") {
        return ("extensions are not read yet".into(), None);
    }
    let near = nearest(key, level.honoured).or_else(|| nearest(key, level.compose));
    let hint = match near {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("{} takes {}", level.name, level.honoured.join(", ")),
    };
    ("unknown key".into(), Some(hint))
}

/// The candidate that is nearest to what was written, where one is near enough to be meant.
pub fn nearest<'a>(written: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // Long keys come from no slip of a finger, and the distance costs their product.
    if written.chars().count() > 40 {
        return None;
    }
    let near = |candidate: &&str| {
        let most = if candidate.len() <= 4 { 1 } else { 2 };
        let steps = distance(&written.to_lowercase(), candidate);
        (steps <= most).then_some(steps)
    };
    candidates.iter().filter_map(|c| near(c).map(|steps| (steps, *c))).min().map(|(_, candidate)| candidate)
}

/// Edit distance where two neighbours that changed places count as one step (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_guessed() {
        for (written, meant) in [
            ("imgae", Some("image")),
            ("Image", Some("image")),
            ("comand", Some("command")),
            ("enviroment", Some("environment")),
            ("port", Some("ports")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, SERVICE.honoured), meant, "{written}");
        }
    }
}
