//! Keys of the file itself, and of what it declares beside services.

use super::Shape::{Dict, List, Map, Named, OneOrMore, OrNothing, Text, Words};
use super::{Level, Shape, honoured, mounts, only, refused, service, warned};

pub const TOP: Level = Level {
    name: "an app file",
    path: "",
    keys: &[
        honoured("name", Text, "the app's name, a DNS label, unless `--app` gives another"),
        honoured("services", Named(&Map(&service::SERVICE)), "1 to 1,000 of them, each named by a DNS label"),
        honoured("networks", Named(&OrNothing(&Map(&NETWORK))), "the services of an app share one network of its own"),
        honoured(
            "include",
            List(&Shape::Either(&[Text, Map(&INCLUDE)])),
            "each file is read as an app of its own, and its parts are added; what both name is refused",
        ),
        warned("version", Text, "the format needs no version; delete the line"),
        honoured(
            "volumes",
            Named(&OrNothing(&Map(&mounts::VOLUME))),
            "each lies on one machine, and its tasks run there",
        ),
        honoured("configs", Named(&Map(&mounts::CONFIG)), "files that travel with the app"),
        honoured("secrets", Named(&Map(&mounts::SECRET)), "files that only the machines of their tasks can open"),
        refused("models", "run the model as a service, and give others its name"),
    ],
};

pub const INCLUDE: Level = Level {
    name: "an include",
    path: "include",
    keys: &[
        honoured("path", OneOrMore, "several are put together, the later over the earlier"),
        honoured("env_file", OneOrMore, "variables for these files alone, in place of the `.env` beside them"),
        refused("project_directory", "paths are taken from the file that names them"),
    ],
};

pub const NETWORK: Level = Level {
    name: "a network",
    path: "networks.NAME",
    keys: &[
        honoured(
            "external",
            Shape::Either(&[Text, Map(&EXTERNAL)]),
            "`true`: services of several apps share it by its name",
        ),
        honoured("name", Text, "the name of an external network in the cluster"),
        only("driver", &["bridge", "overlay", "default"], "every network reaches over all machines"),
        warned("driver_opts", Named(&Text), "networks have no settings"),
        warned("attachable", Text, "nothing outside of apps is attached"),
        warned("labels", Dict, "nobody reads them"),
        only("enable_ipv4", &["true"], "tasks have IPv4 addresses"),
        only("enable_ipv6", &["false"], "tasks have IPv4 addresses alone"),
        only("internal", &["false"], "tasks reach the outside; a firewall rule of the machine may forbid it"),
        warned("ipam", Map(&IPAM), "each machine has a subnet of its own for its tasks"),
    ],
};

/// As older files name an external network.
pub const EXTERNAL: Level =
    Level { name: "external", path: "networks.NAME.external", keys: &[honoured("name", Text, "")] };

const IPAM: Level = Level {
    name: "ipam",
    path: "networks.NAME.ipam",
    keys: &[
        warned("driver", Text, ""),
        warned("config", List(&Map(&IPAM_CONFIG)), ""),
        warned("options", Named(&Text), ""),
    ],
};

const IPAM_CONFIG: Level = Level {
    name: "a subnet",
    path: "networks.NAME.ipam.config",
    keys: &[
        warned("subnet", Text, ""),
        warned("ip_range", Text, ""),
        warned("gateway", Text, ""),
        warned("aux_addresses", Named(&Text), ""),
    ],
};

/// `networks` of a service: names, or names and what is wanted there.
pub const NETWORKS_OF_SERVICE: Shape = Shape::Either(&[Words, Named(&OrNothing(&Map(&service::NETWORK_OF_SERVICE)))]);
