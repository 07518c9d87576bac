//! Keys of a service.

use super::Shape::{
    Any, Command, Dict, Duration, Either, Integer, List, Map, Named, Needs, OneOf, OneOrMore, OrNothing, Switch, Text,
    Words,
};
use super::build::{BLKIO, BUILD_SHAPE, DEVELOP, LOGGING};
use super::deploy::DEPLOY;
use super::mounts::{FILE, MOUNT, SECRET_FILE};
use super::resources::DEVICE;
use super::top::NETWORKS_OF_SERVICE;
use super::{Level, honoured, only, refused, warned};
use crate::compose::REPLICAS_MAX;
use crate::model::placement::PRIORITY_MAX;

pub const SERVICE: Level = Level {
    name: "a service",
    path: "services.NAME",
    keys: &[
        honoured("image", Text, "an imported image, `HOST/NAME` of a registry, or `host`, the machine's own programs"),
        honoured("command", Command, "replaces the image's own; a line is split into words, and no shell is started"),
        honoured("entrypoint", Command, "replaces the image's own, and goes without the image's command"),
        honoured("environment", Dict, "a name without a value is taken from the shell and `.env`"),
        honoured("env_file", Either(&[Text, List(&Either(&[Text, Map(&ENV_FILE)]))]), "`environment` goes over it"),
        honoured("extends", Either(&[Text, Map(&EXTENDS)]), "of the same file or another"),
        honoured(
            "depends_on",
            Either(&[Words, Named(&Needs(&DEPENDENCY, &["condition"]))]),
            "what has to be true of others before its tasks start",
        ),
        honoured("profiles", Words, "`rialto deploy --profile`, `COMPOSE_PROFILES`"),
        honoured("deploy", OrNothing(&Map(&DEPLOY)), ""),
        honoured("restart", Text, "`always` (the default), `unless-stopped` (the same), `on-failure`, `no`"),
        honoured("ports", List(&Either(&[Text, Map(&PORT)])), "published on every machine; see docs/app-file.md"),
        honoured("expose", Words, "tasks of an app reach each other's ports in any case"),
        honoured("network_mode", Text, "`bridge` or `host`"),
        honoured("networks", NETWORKS_OF_SERVICE, ""),
        honoured("user", Text, ""),
        honoured("group_add", Words, ""),
        honoured("working_dir", Text, ""),
        honoured("read_only", Switch, ""),
        honoured("tmpfs", OneOrMore, "`size` and `mode`"),
        honoured(
            "volumes",
            List(&Either(&[Text, Needs(&MOUNT, &["type"])])),
            "named volumes, folders of the machine where it allows them, memory; see docs/volumes.md",
        ),
        honoured("configs", List(&Either(&[Text, Map(&FILE)])), ""),
        honoured("secrets", List(&Either(&[Text, Map(&SECRET_FILE)])), ""),
        honoured("cap_add", Words, "what is not harmless needs the machine's leave"),
        honoured("cap_drop", Words, ""),
        honoured("security_opt", Words, "`seccomp`, `no-new-privileges`"),
        honoured("ulimits", Named(&Either(&[Text, Map(&ULIMIT)])), ""),
        honoured("sysctls", Dict, "those that are a task's own"),
        honoured("shm_size", Text, ""),
        honoured("pids_limit", Text, ""),
        honoured("init", Switch, ""),
        honoured("tty", Switch, ""),
        honoured("stdin_open", Switch, ""),
        honoured("privileged", Switch, "needs the machine's leave"),
        honoured("devices", List(&Either(&[Text, Map(&DEVICE_FILE)])), "needs the machine's leave"),
        honoured("healthcheck", Map(&HEALTHCHECK), ""),
        honoured("stop_signal", Text, ""),
        honoured("stop_grace_period", Text, "10 s unless given"),
        honoured("pre_stop", List(&Map(&HOOK)), "one hook, and of that the command"),
        honoured("scale", Text, "as `deploy.replicas`"),
        honoured("cpus", Text, "as `deploy.resources.limits.cpus`"),
        honoured("mem_limit", Text, "as `deploy.resources.limits.memory`"),
        honoured("mem_reservation", Text, "as `deploy.resources.reservations.memory`"),
        honoured("gpus", Either(&[Text, List(&Map(&DEVICE))]), "as `deploy.resources.reservations.devices`"),
        honoured("x-rialto", Map(&EXTENSION), "what Compose has no words for"),
        honoured("build", BUILD_SHAPE, "warned about beside `image`, which runs; refused without one"),
        only("cgroup", &["private"], "each task has cgroups of its own"),
        only("ipc", &["private", "shareable"], "each task has its own"),
        only("isolation", &["default"], ""),
        only("platform", &["linux", "linux/amd64", "linux/arm64"], "an image for several runs as each machine's own"),
        only("runtime", &["runc", "io.containerd.runc.v2"], "containers are made by Rialto itself"),
        only(
            "userns_mode",
            &["host"],
            "whether tasks have users of their own is the machine's to say (`userns-remap`)",
        ),
        warned("annotations", Dict, "nobody reads them"),
        warned("attach", Text, "'rialto logs -f' shows the output of any of the services"),
        warned("blkio_config", Map(&BLKIO), "reading and writing is not weighed"),
        warned("container_name", Text, "tasks are named APP.SERVICE.NUMBER, and services found by their own names"),
        warned("cpu_count", Text, "write deploy.resources.limits.cpus"),
        warned("cpu_percent", Text, "write deploy.resources.limits.cpus"),
        warned("cpu_shares", Text, "cores are shared by what tasks reserve: write deploy.resources.reservations.cpus"),
        warned("cpuset", Text, "the kernel chooses the cores"),
        warned("develop", OrNothing(&Map(&DEVELOP)), "it is for working on a program, not for running it"),
        warned("dns", OneOrMore, "tasks ask their own machine, and that asks the name servers it knows"),
        warned("dns_opt", Words, "tasks ask their own machine"),
        warned("domainname", Text, "a task's host name is given"),
        warned("hostname", Text, "a task's host name is given, and services are found by their own names"),
        warned("label_file", OneOrMore, "nobody reads labels of services"),
        warned("labels", Dict, "nobody reads labels of services"),
        warned("links", Words, "services of an app find each other by their names"),
        warned("logging", Map(&LOGGING), "machines keep what tasks write: see 'rialto logs'"),
        warned("mem_swappiness", Text, "tasks do not swap by themselves"),
        warned("memswap_limit", Text, "memory is limited by deploy.resources.limits.memory"),
        warned("oom_kill_disable", Text, "what needs more memory than its limit ends"),
        warned("oom_score_adj", Text, "what needs more memory than its limit ends"),
        warned("pull_policy", Text, "names of images become digests when the app is deployed; see deploy --resolve"),
        warned("pull_refresh_after", Text, "see deploy --resolve"),
        warned("storage_opt", Any, "what a task writes is not limited"),
        refused("cgroup_parent", "each task has cgroups of its own"),
        refused("cpu_period", "write deploy.resources.limits.cpus"),
        refused("cpu_quota", "write deploy.resources.limits.cpus"),
        refused("cpu_rt_period", "real-time scheduling is not given away"),
        refused("cpu_rt_runtime", "real-time scheduling is not given away"),
        refused("credential_spec", "it is for Windows"),
        refused("device_cgroup_rules", "name the devices themselves in devices"),
        refused("dns_search", "write names in full: NAME.APP.rialto.internal, or those of the outside"),
        refused("external_links", "services of other apps are SERVICE.APP.rialto.internal"),
        refused("extra_hosts", "names are DNS's: services of other apps are SERVICE.APP.rialto.internal"),
        refused("mac_address", "it is given by the machine"),
        refused("models", "run the model as a service, and give others its name"),
        refused("pid", "each task has its own processes; put those that belong together into one service"),
        refused("post_start", "let the command begin with it"),
        refused("provider", "nothing but containers is run"),
        refused("use_api_socket", "Rialto is no Docker engine"),
        refused("uts", "each task has its own host name"),
        refused("volumes_from", "containers share no file systems"),
    ],
};

pub const DEPENDENCY: Level = Level {
    name: "a dependency",
    path: "services.NAME.depends_on.SERVICE",
    keys: &[
        honoured("condition", OneOf(&["service_started", "service_healthy", "service_completed_successfully"]), ""),
        honoured("required", Switch, "`false`: the app need not have it"),
        warned("restart", Text, "who depends on a service is not restarted with it"),
    ],
};

pub const HEALTHCHECK: Level = Level {
    name: "healthcheck",
    path: "services.NAME.healthcheck",
    keys: &[
        honoured("test", Command, "a line for `/bin/sh`, or `[CMD, …]`, `[CMD-SHELL, LINE]`, `[NONE]`"),
        honoured("interval", Text, "30 s"),
        honoured("timeout", Text, "30 s"),
        honoured("retries", Text, "3"),
        honoured("start_period", Text, "0"),
        honoured("start_interval", Text, "5 s"),
        honoured("disable", Switch, ""),
    ],
};

pub const ULIMIT: Level = Level {
    name: "a limit",
    path: "services.NAME.ulimits.LIMIT",
    keys: &[honoured("soft", Text, ""), honoured("hard", Text, "")],
};

pub const PORT: Level = Level {
    name: "a port",
    path: "services.NAME.ports",
    keys: &[
        honoured("target", Text, ""),
        honoured("published", Text, ""),
        honoured("protocol", Text, "`tcp` or `udp`"),
        honoured("name", Text, "names it in SRV records, too"),
        honoured("mode", Text, "`ingress` on every machine, `host` where a task runs"),
        only("host_ip", &["0.0.0.0"], "a port is published on every address of a machine"),
        warned("app_protocol", Text, "what is spoken there is not looked at"),
    ],
};

pub const NETWORK_OF_SERVICE: Level = Level {
    name: "a network of a service",
    path: "services.NAME.networks.NETWORK",
    keys: &[
        refused("aliases", "a service is found by its own name; name it so, or add a service of that name"),
        refused("ipv4_address", "a task's address is given; use the service's name, which DNS knows"),
        refused("ipv6_address", "a task's address is given; use the service's name, which DNS knows"),
        refused("link_local_ips", "a task's address is given; use the service's name, which DNS knows"),
        refused("mac_address", "it is given by the machine"),
        warned("driver_opts", Named(&Text), "networks have no settings"),
        warned("gw_priority", Integer(i64::MIN, i64::MAX), "tasks have one way out"),
        warned("interface_name", Text, "a task has one interface"),
        warned("priority", Integer(i64::MIN, i64::MAX), "a task has one interface"),
    ],
};

pub const ENV_FILE: Level = Level {
    name: "an entry of env_file",
    path: "services.NAME.env_file",
    keys: &[
        honoured("path", Text, "from beside the app file"),
        honoured("required", Switch, "`false`: there need be none"),
        honoured("format", Text, "`raw`: nothing is filled in, quotation marks stay"),
    ],
};

pub const EXTENDS: Level = Level {
    name: "extends",
    path: "services.NAME.extends",
    keys: &[honoured("service", Text, ""), honoured("file", Text, "from beside the file that says it")],
};

/// A hook. All it may hold, and what of it is honoured.
pub const HOOK: Level = Level {
    name: "a hook",
    path: "services.NAME.pre_stop",
    keys: &[
        honoured("command", Command, ""),
        refused("user", "it runs as the service does"),
        refused("privileged", "it runs as the service does"),
        refused("working_dir", "it runs as the service does"),
        refused("environment", "it runs as the service does"),
    ],
};

pub const DEVICE_FILE: Level = Level {
    name: "a device file",
    path: "services.NAME.devices",
    keys: &[honoured("source", Text, ""), honoured("target", Text, ""), honoured("permissions", Text, "`rwm`")],
};

/// What Compose has no words for. `docs/x-rialto.schema.json` is made of this.
pub const EXTENSION: Level = Level {
    name: "x-rialto",
    path: "services.NAME.x-rialto",
    keys: &[
        honoured(
            "priority",
            Integer(-(PRIORITY_MAX as i64), PRIORITY_MAX as i64),
            "higher gets room first; 10 more may end what runs",
        ),
        honoured("gang", Switch, "all tasks start together, or none does"),
        honoured("apart_from", Words, "never on a machine with these services, `SERVICE` or `APP/SERVICE`"),
        honoured(
            "on_heal",
            OneOf(&["keep_original", "keep_replacement"]),
            "which of two copies stays after a partition",
        ),
        honoured("lost_after", Duration, "a task is replaced so long after its machine was seen down"),
        honoured("stop_when_isolated", Duration, "it ends on a machine that has heard no other for so long"),
        honoured(
            "singleton",
            OneOf(&["strict", "no"]),
            "`strict`: two of its tasks never run at once; without the lock group none does",
        ),
        honoured("drain", Duration, "before a task is stopped nobody new is sent to it for so long"),
        honoured("schedule", Either(&[Text, Map(&SCHEDULE)]), "it runs at these times: a cron expression"),
        honoured(
            "count",
            Integer(1, REPLICAS_MAX as i64),
            "an array of so many tasks, each with its `RIALTO_TASK_INDEX`",
        ),
        honoured("parallelism", Integer(0, u32::MAX as i64), "of an array so many run at once"),
        honoured("retries", Integer(0, u32::MAX as i64), "a task that fails is tried so often again"),
        honoured("deadline", Duration, "a run ends after so long"),
        honoured("canary", Integer(0, u32::MAX as i64), "so many new tasks first, until the rollout is promoted"),
        honoured("progress_deadline", Duration, "a rollout that gets no further for so long has failed"),
        honoured("health", Text, "`http://:80/healthz` or `tcp://:5432`, in place of `healthcheck.test`"),
        honoured("pre_stop", Command, "run in the container before the stop signal; the grace is for both"),
    ],
};

pub const SCHEDULE: Level = Level {
    name: "schedule",
    path: "services.NAME.x-rialto.schedule",
    keys: &[
        honoured("cron", Text, ""),
        honoured("time_zone", Text, "`Europe/Vienna`; UTC unless given"),
        honoured("overlap", Text, "`allow`, `forbid`, `replace`: what becomes of a run that is due while one runs"),
        honoured("catch_up", Text, "`skip`, `last`, `all`: what becomes of times that were missed"),
        honoured("starting_deadline", Duration, "a run that could not begin for so long is skipped"),
        honoured(
            "exactly_once",
            Switch,
            "each run is claimed in the lock group before it starts, and waits without it",
        ),
    ],
};
