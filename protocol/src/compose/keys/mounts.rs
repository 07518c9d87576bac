//! Keys of volumes, configs and secrets, at the top of a file and of a service.

use super::Shape::{Dict, Either, Map, OneOf, Switch, Text};
use super::{Key, Level, honoured, only, refused, warned};

pub const VOLUME: Level = Level {
    name: "a volume",
    path: "volumes.NAME",
    keys: &[
        honoured("external", Either(&[Switch, Map(&VOLUME_EXTERNAL)]), "`true`: it has to be there before"),
        honoured("name", Text, "what the cluster calls it: apps that name it share it"),
        only("driver", &["local"], "volumes are local to a machine"),
        refused("driver_opts", "volumes are folders of a machine: bind a folder that machines have mounted already"),
        warned("labels", Dict, "nobody reads them"),
    ],
};

pub const CONFIG: Level = Level {
    name: "a config",
    path: "configs.NAME",
    keys: &[
        honoured("file", Text, "from beside the app file; text of at most 64 KiB"),
        honoured("environment", Text, "a variable of the shell or of `.env`"),
        honoured("content", Text, ""),
        honoured("external", Either(&[Switch, Map(&CONFIG_EXTERNAL)]), "`true`: it is kept by `rialto secret set`"),
        honoured("name", Text, "what the cluster calls one that is external"),
        warned("labels", Dict, "nobody reads them"),
        refused("template_driver", "what it says is taken as it is"),
    ],
};

pub const SECRET: Level = Level {
    name: "a secret",
    path: "secrets.NAME",
    keys: &[
        honoured("file", Text, "from beside the app file; at most 64 KiB; sealed before it is sent"),
        honoured("environment", Text, "a variable of the shell or of `.env`"),
        honoured("external", Either(&[Switch, Map(&SECRET_EXTERNAL)]), "`true`: `rialto secret set` has set it"),
        honoured("name", Text, "what the cluster calls it: apps that name it share it"),
        warned("labels", Dict, "nobody reads them"),
        refused("driver", "secrets are sealed for the machines that run who needs them, and kept by all"),
        refused("driver_opts", "secrets have no settings"),
        refused("template_driver", "what it says is taken as it is"),
    ],
};

/// As older files name what is external.
pub const VOLUME_EXTERNAL: Level = external("volumes.NAME.external");
pub const CONFIG_EXTERNAL: Level = external("configs.NAME.external");
pub const SECRET_EXTERNAL: Level = external("secrets.NAME.external");

const fn external(path: &'static str) -> Level {
    Level { name: "external", path, keys: EXTERNAL_KEYS }
}

const EXTERNAL_KEYS: &[Key] = &[honoured("name", Text, "")];

/// One of `volumes` of a service, in its long form.
pub const MOUNT: Level = Level {
    name: "a mount",
    path: "services.NAME.volumes",
    keys: &[
        honoured("type", OneOf(&["volume", "bind", "tmpfs"]), ""),
        honoured("source", Text, "a volume of the file, or an absolute path that machines have and allow"),
        honoured("target", Text, ""),
        honoured("read_only", Switch, ""),
        honoured("volume", Map(&MOUNT_VOLUME), ""),
        honoured("bind", Map(&MOUNT_BIND), ""),
        honoured("tmpfs", Map(&MOUNT_TMPFS), ""),
        warned("consistency", Text, "containers and machines see the same files"),
        refused("image", "run the image as a service, or copy from it in a build"),
    ],
};

pub const MOUNT_VOLUME: Level = Level {
    name: "volume",
    path: "services.NAME.volumes.volume",
    keys: &[
        honoured("nocopy", Switch, "it begins empty, whatever the image has there"),
        refused("subpath", "mount the volume whole"),
        warned("labels", Dict, "nobody reads them"),
    ],
};

pub const MOUNT_BIND: Level = Level {
    name: "bind",
    path: "services.NAME.volumes.bind",
    keys: &[
        honoured("create_host_path", Switch, "`true`: a folder is made where there is nothing"),
        refused("propagation", "what is mounted later is not passed on"),
        refused("recursive", "mounts under the folder are there as they are on the machine"),
        warned("selinux", OneOf(&["z", "Z"]), "files are not labelled"),
    ],
};

pub const MOUNT_TMPFS: Level = Level {
    name: "tmpfs",
    path: "services.NAME.volumes.tmpfs",
    keys: &[honoured("size", Text, "of the machine's memory, if nothing is said"), honoured("mode", Text, "octal")],
};

/// One of `configs` or `secrets` of a service, in its long form.
pub const FILE: Level = Level { name: "a file", path: "services.NAME.configs", keys: FILE_KEYS };
pub const SECRET_FILE: Level = Level { name: "a file", path: "services.NAME.secrets", keys: FILE_KEYS };

const FILE_KEYS: &[Key] = &[
    honoured("source", Text, "a name from the top of the file"),
    honoured("target", Text, "`/NAME` for a config, `/run/secrets/NAME` for a secret"),
    honoured("uid", Text, "a number; 0"),
    honoured("gid", Text, "a number; 0"),
    honoured("mode", Text, "octal; 0444"),
];
