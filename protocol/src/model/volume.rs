//! What lies in a container beside its image: volumes, folders of the machine, and files that come with the app.
//!
//! A named volume lies on one machine, and its tasks run there and nowhere else. Its name is the cluster's:
//! `shop/pgdata` is the app's own, `pgdata` one that apps share.

use serde::{Deserialize, Serialize};

use super::container::{OPTIONS_MAX, VALUE_BYTES_MAX, path_fault};
use crate::ids::{AppId, PeerId, VolumeId};

/// The longest name of a volume, a config or a secret, without its app's, bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// The longest config, bytes of text: it travels with its service.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// The longest secret, bytes.
pub const SECRET_BYTES_MAX: usize = 64 << 10;

/// The latest stamp of a record of a volume or a secret, wall clock in ms, in the year 10889: sums of it do not overflow.
pub const STAMP_MS_MAX: u64 = 1 << 48;

/// The mounts of a service's containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mounts {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<Bind>,
    /// Configs and secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileMount>,
}

/// A name, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// The app's own: `APP/NAME` in the cluster.
    Own(String),
    /// One that apps share. `external`: it has to be there before.
    Shared { name: String, external: bool },
}

impl Named {
    /// What the cluster calls it.
    pub fn of(&self, app: &str) -> String {
        match self {
            Named::Own(name) => format!("{app}/{name}"),
            Named::Shared { name, .. } => name.clone(),
        }
    }

    /// Whether it has to be there before.
    pub fn is_external(&self) -> bool {
        matches!(self, Named::Shared { external: true, .. })
    }

    fn name(&self) -> &str {
        match self {
            Named::Own(name) | Named::Shared { name, .. } => name,
        }
    }
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Absolute, in the container.
    pub path: String,
    /// `None`: it ends with the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Named>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// It begins empty, whatever the image has at the path.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_copy: bool,
}

/// A folder or file of the machine in a container: only where the machine allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute, on the machine.
    pub host: String,
    /// Absolute, in the container.
    pub path: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// A folder is made where there is nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub create: bool,
}

/// A file of the app's in a container, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// Absolute, in the container.
    pub path: String,
    pub content: Content,
    #[serde(default, skip_serializing_if = "is_default")]
    pub uid: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A config.
    Text(String),
    /// A config in a file that the client reads, beside the app file; never sent.
    File(String),
    /// A config in a variable that the client reads; never sent.
    Variable(String),
    /// A secret or config that is kept sealed: whoever runs the task opens it.
    Sealed(Named),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Mounts {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Mounts::default()
    }

    /// The named volumes of a service of this app, as the cluster calls them, and whether each has to be there before.
    pub fn names<'a>(&'a self, app: &'a AppId) -> impl Iterator<Item = (String, bool)> + 'a {
        let named = self.volumes.iter().filter_map(|volume| volume.name.as_ref());
        named.map(|name| (name.of(&app.name), name.is_external()))
    }

    /// Whether a volume has a name.
    pub fn has_named(&self) -> bool {
        self.volumes.iter().any(|volume| volume.name.is_some())
    }

    /// What a machine must allow, in the words of its setting `allow`.
    pub fn asks(&self) -> impl Iterator<Item = String> {
        let word = |bind: &Bind| format!("bind={}{}", bind.host, if bind.read_only { ":ro" } else { "" });
        self.binds.iter().map(word)
    }

    /// What is wrong with them: the field, and what to say.
    pub fn fault(&self) -> Option<(String, String)> {
        let fault = |field: &str, message: String| Some((field.to_string(), message));
        if [self.volumes.len(), self.binds.len(), self.files.len()].into_iter().any(|length| length > OPTIONS_MAX) {
            return fault("volumes", format!("a list of more than {OPTIONS_MAX} entries"));
        }
        let volumes = self.volumes.iter().map(|volume| ("volumes", &volume.path));
        let binds = self.binds.iter().flat_map(|bind| [("volumes", &bind.host), ("volumes", &bind.path)]);
        let files = self.files.iter().map(|file| ("secrets", &file.path));
        for (field, path) in volumes.chain(binds).chain(files) {
            if let Some(message) = path_fault(path) {
                return fault(field, message);
            }
        }
        let mounted = self.volumes.iter().map(|volume| &volume.path).chain(self.binds.iter().map(|bind| &bind.path));
        if mounted.into_iter().any(|path| path.trim_matches('/').is_empty()) {
            return fault("volumes", "nothing can be mounted over the whole container".into());
        }
        for name in self.volumes.iter().filter_map(|volume| volume.name.as_ref()) {
            if let Some(message) = name_fault(name.name()) {
                return fault("volumes", message);
            }
        }
        for file in &self.files {
            let wrong = match &file.content {
                Content::Text(text) if text.len() > CONFIG_BYTES_MAX => {
                    Some(format!("a config of more than {} KiB", CONFIG_BYTES_MAX >> 10))
                }
                Content::Text(_) => None,
                Content::File(name) => Some(format!("the file {name} was not sent along")),
                Content::Variable(name) => Some(format!("the variable {name} was not sent along")),
                Content::Sealed(name) => name_fault(name.name()),
            };
            if let Some(message) = wrong.or_else(|| (file.mode > 0o7777).then(|| "no such mode".into())) {
                return fault("secrets", message);
            }
        }
        None
    }
}

/// Why a name can be none of a volume, config or secret; none where it can.
pub fn name_fault(name: &str) -> Option<String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_one = begins && name.len() <= NAME_BYTES_MAX && name.chars().all(sound);
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    let most = NAME_BYTES_MAX.min(VALUE_BYTES_MAX);
    (!is_one).then(|| format!("'{shown}' is no name: at most {most} letters, digits, dots, hyphens and underscores"))
}

/// Why a name as the cluster calls it, `NAME` or `APP/NAME`, can be none; none where it can.
pub fn whole_name_fault(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.splitn(2, '/').collect();
    match parts[..] {
        [app, name] if super::app::is_dns_label(app) => name_fault(name),
        [name] => name_fault(name),
        _ => Some(format!("'{}' is no name: write NAME or APP/NAME", name.chars().take(99).collect::<String>())),
    }
}

/// The value of a `volume` record; its owner is the machine that holds the volume, its key the volume's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: VolumeId,
    /// As the cluster calls it.
    pub name: String,
    /// Wall clock of its machine, ms. Of two that were made under one name while the cluster was split the older
    /// counts, then that of the lower owner: facts that never change.
    pub made_at: u64,
    /// It counts no more: somebody has released it, or another of its name counts. Its data lies where it lay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub given_up: bool,
}

impl Volume {
    /// What is wrong with one that somebody else tells of.
    pub fn fault(&self) -> Option<String> {
        let late = (self.made_at > STAMP_MS_MAX).then(|| "made later than any clock can say".into());
        whole_name_fault(&self.name).or(late)
    }
}

/// The value of a `release` record: somebody gives up a volume whose machine cannot be asked. The key is its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub id: VolumeId,
    pub name: String,
    /// The machine that held it.
    pub holder: PeerId,
    /// Wall clock of whoever was asked, ms.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_an_apps_or_everybodys() {
        assert_eq!(Named::Own("data".into()).of("shop"), "shop/data");
        assert_eq!(Named::Shared { name: "data".into(), external: true }.of("shop"), "data");
        for (name, is_one) in [
            ("data", true),
            ("shop/data", true),
            ("shop/My.data_1", true),
            ("", false),
            ("shop/", false),
            ("a/b/c", false),
            ("../x", false),
            ("Shop/data", false),
            (".x", false),
            ("-x", false),
        ] {
            assert_eq!(whole_name_fault(name).is_none(), is_one, "{name}");
        }
    }

    #[test]
    fn volumes_that_no_honest_machine_tells_of_are_not_believed() {
        let volume =
            |name: &str, made_at| Volume { id: VolumeId([1; 16]), name: name.into(), made_at, given_up: false };
        assert!(volume("shop/data", 1).fault().is_none() && volume("media", STAMP_MS_MAX).fault().is_none());
        for (name, made_at) in [("shop/data", u64::MAX), ("../../etc", 1), ("shop/data\n", 1), ("", 1)] {
            assert!(volume(name, made_at).fault().is_some(), "{name:?} {made_at}");
        }
    }

    #[test]
    fn what_was_not_sent_along_is_refused() {
        let file = |content| FileMount { path: "/x".into(), content, uid: 0, gid: 0, mode: 0o444 };
        let of = |content| Mounts { files: vec![file(content)], ..Mounts::default() }.fault().is_some();
        assert!(!of(Content::Text("a".into())));
        assert!(of(Content::Text("a".repeat(CONFIG_BYTES_MAX + 1))));
        assert!(of(Content::File("a".into())) && of(Content::Variable("A".into())));
        assert!(of(Content::Sealed(Named::Own("../a".into()))) && !of(Content::Sealed(Named::Own("a".into()))));
        let bind = |host: &str, path: &str| Bind { host: host.into(), path: path.into(), ..Bind::default() };
        for (bind, refused) in
            [(bind("/a", "/b"), false), (bind("a", "/b"), true), (bind("/a/../b", "/b"), true), (bind("/a", "/"), true)]
        {
            assert_eq!(
                Mounts { binds: vec![bind.clone()], ..Mounts::default() }.fault().is_some(),
                refused,
                "{bind:?}"
            );
        }
    }
}
