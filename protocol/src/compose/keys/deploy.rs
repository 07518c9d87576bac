//! Keys of `deploy`.

use super::Shape::{Dict, List, Map, OneOf, Text};
use super::resources::RESOURCES;
use super::{Level, honoured, only, warned};

pub const DEPLOY: Level = Level {
    name: "deploy",
    path: "services.NAME.deploy",
    keys: &[
        honoured("replicas", Text, "1 unless given; up to 100,000"),
        honoured("resources", Map(&RESOURCES), ""),
        honoured("placement", Map(&PLACEMENT), ""),
        honoured("restart_policy", Map(&RESTART_POLICY), "beside `restart` it has the last word"),
        only("endpoint_mode", &["vip"], "tasks.SERVICE.APP.rialto.internal are the tasks themselves, in DNS"),
        warned("labels", Dict, "nobody reads them; machines have labels, and placement asks for those"),
        honoured("mode", Text, "`replicated`, `global` (one on each machine), `replicated-job`, `global-job`"),
        honoured("update_config", Map(&UPDATE), "how a change is brought about"),
        honoured("rollback_config", Map(&UPDATE), "how it is taken back"),
    ],
};

pub const PLACEMENT: Level = Level {
    name: "deploy.placement",
    path: "services.NAME.deploy.placement",
    keys: &[
        honoured("constraints", List(&Text), "`node.hostname` or `node.labels.NAME`, `==` or `!=`"),
        honoured("preferences", List(&Map(&PREFERENCE)), ""),
        honoured("max_replicas_per_node", Text, ""),
    ],
};

pub const PREFERENCE: Level = Level {
    name: "a preference",
    path: "services.NAME.deploy.placement.preferences",
    keys: &[honoured("spread", Text, "`node.labels.NAME`")],
};

pub const RESTART_POLICY: Level = Level {
    name: "restart_policy",
    path: "services.NAME.deploy.restart_policy",
    keys: &[
        honoured(
            "condition",
            Text,
            "`none`, `on-failure`: its tasks run to their end, the latter until they end well; `any` (the default)",
        ),
        warned("delay", Text, "when an ended task starts again is the steward's to say"),
        honoured(
            "max_attempts",
            Text,
            "with `on-failure`, as `x-rialto.retries`; else it is passed over, with a warning",
        ),
        warned("window", Text, "when an ended task starts again is the steward's to say"),
    ],
};

pub const UPDATE: Level = Level {
    name: "update_config",
    path: "services.NAME.deploy.update_config",
    keys: &[
        honoured("parallelism", Text, "1; 0 is all at once"),
        honoured("delay", Text, "between one batch of tasks and the next"),
        honoured("order", OneOf(&["stop-first", "start-first"]), ""),
        honoured("monitor", Text, "so long a new task is watched"),
        honoured("failure_action", Text, "`pause`, `continue`, `rollback`"),
        honoured("max_failure_ratio", Text, "the share of tasks that may fail"),
    ],
};
