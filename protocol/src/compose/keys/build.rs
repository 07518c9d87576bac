//! Keys that say how an image is built or worked on: nothing of it is done here.

use super::Shape::{Any, Dict, Either, List, Map, Named, Needs, OneOrMore, Text, Words};
use super::service::{HOOK, ULIMIT};
use super::{Level, Shape, warned};

/// What `build` may be.
pub const BUILD_SHAPE: Shape = Either(&[Text, Map(&BUILD)]);

const BUILD: Level = Level {
    name: "build",
    path: "services.NAME.build",
    keys: &[
        warned("context", Text, ""),
        warned("dockerfile", Text, ""),
        warned("dockerfile_inline", Text, ""),
        warned("entitlements", List(&Text), ""),
        warned("args", Dict, ""),
        warned("ssh", Dict, ""),
        warned("labels", Dict, ""),
        warned("cache_from", List(&Text), ""),
        warned("cache_to", List(&Text), ""),
        warned("no_cache", Text, ""),
        warned("additional_contexts", Dict, ""),
        warned("network", Text, ""),
        warned("provenance", Text, ""),
        warned("sbom", Text, ""),
        warned("pull", Text, ""),
        warned("target", Text, ""),
        warned("shm_size", Text, ""),
        warned("extra_hosts", HOSTS, ""),
        warned("isolation", Text, ""),
        warned("privileged", Text, ""),
        warned("secrets", List(&Either(&[Text, Map(&BUILD_SECRET)])), ""),
        warned("tags", List(&Text), ""),
        warned("ulimits", Named(&Either(&[Text, Map(&ULIMIT)])), ""),
        warned("platforms", List(&Text), ""),
    ],
};

/// `extra_hosts`.
pub const HOSTS: Shape = Either(&[Words, Named(&Either(&[Text, List(&Text)]))]);

const BUILD_SECRET: Level = Level {
    name: "a secret of a build",
    path: "services.NAME.build.secrets",
    keys: &[
        warned("source", Text, ""),
        warned("target", Text, ""),
        warned("uid", Text, ""),
        warned("gid", Text, ""),
        warned("mode", Text, ""),
    ],
};

pub const DEVELOP: Level = Level {
    name: "develop",
    path: "services.NAME.develop",
    keys: &[warned("watch", List(&Needs(&WATCH, &["path", "action"])), "")],
};

const WATCH: Level = Level {
    name: "a watch",
    path: "services.NAME.develop.watch",
    keys: &[
        warned("path", Text, ""),
        warned("action", Shape::OneOf(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]), ""),
        warned("ignore", OneOrMore, ""),
        warned("include", OneOrMore, ""),
        warned("target", Text, ""),
        warned("exec", Map(&HOOK), ""),
        warned("initial_sync", Any, ""),
    ],
};

pub const LOGGING: Level = Level {
    name: "logging",
    path: "services.NAME.logging",
    keys: &[warned("driver", Text, ""), warned("options", Named(&Shape::OrNothing(&Text)), "")],
};

pub const BLKIO: Level = Level {
    name: "blkio_config",
    path: "services.NAME.blkio_config",
    keys: &[
        warned("device_read_bps", List(&Map(&BLKIO_RATE)), ""),
        warned("device_read_iops", List(&Map(&BLKIO_RATE)), ""),
        warned("device_write_bps", List(&Map(&BLKIO_RATE)), ""),
        warned("device_write_iops", List(&Map(&BLKIO_RATE)), ""),
        warned("weight", Text, ""),
        warned("weight_device", List(&Map(&BLKIO_WEIGHT)), ""),
    ],
};

const BLKIO_RATE: Level =
    Level { name: "a rate", path: "", keys: &[warned("path", Text, ""), warned("rate", Text, "")] };

const BLKIO_WEIGHT: Level =
    Level { name: "a weight", path: "", keys: &[warned("path", Text, ""), warned("weight", Text, "")] };
