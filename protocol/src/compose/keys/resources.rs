//! Keys that say how much a task uses.

use super::Shape::{Dict, List, Map, Text, Words};
use super::{Level, honoured, refused, warned};

pub const RESOURCES: Level = Level {
    name: "deploy.resources",
    path: "services.NAME.deploy.resources",
    keys: &[
        honoured("limits", Map(&LIMITS), "what the kernel enforces"),
        honoured("reservations", Map(&RESERVATIONS), "what a machine sets aside"),
    ],
};

pub const LIMITS: Level = Level {
    name: "limits",
    path: "services.NAME.deploy.resources.limits",
    keys: &[
        honoured("cpus", Text, "cores, `0.5`"),
        honoured("memory", Text, "from 6 MiB"),
        honoured("pids", Text, "processes"),
    ],
};

pub const RESERVATIONS: Level = Level {
    name: "reservations",
    path: "services.NAME.deploy.resources.reservations",
    keys: &[
        honoured("cpus", Text, ""),
        honoured("memory", Text, ""),
        honoured("devices", List(&Map(&DEVICE)), "whole GPUs"),
        honoured("generic_resources", List(&Map(&GENERIC)), "a share of a GPU as `gpu_milli`, or anything counted"),
    ],
};

pub const DEVICE: Level = Level {
    name: "a device",
    path: "services.NAME.deploy.resources.reservations.devices",
    keys: &[
        honoured("capabilities", Words, "`[gpu]`"),
        honoured("count", Text, "a number"),
        warned("driver", Text, "machines say which GPUs they have"),
        warned("options", Dict, "machines say which GPUs they have"),
        refused("device_ids", "write count: which of its GPUs it gives is the machine's to say"),
    ],
};

pub const GENERIC: Level = Level {
    name: "a generic resource",
    path: "services.NAME.deploy.resources.reservations.generic_resources",
    keys: &[honoured("discrete_resource_spec", Map(&DISCRETE), "")],
};

pub const DISCRETE: Level = Level {
    name: "discrete_resource_spec",
    path: "services.NAME.deploy.resources.reservations.generic_resources.discrete_resource_spec",
    keys: &[honoured("kind", Text, ""), honoured("value", Text, "")],
};
