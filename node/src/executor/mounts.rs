//! What is mounted into a container beside its image: decided by the daemon, where volumes and folders are found and
//! checked, and carried out by the shim, in whose own mount namespace the image can be seen.

mod bind;
mod fill;
mod hold;
pub mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rialto_protocol::ids::VolumeId;
use rialto_protocol::model::Mounts;
use rialto_protocol::model::volume::{Content, FileMount, VolumeMount};
use serde::{Deserialize, Serialize};

use super::folder::{Folder, Image, Plan};
use super::userns::{Remap, Users, outside};
use super::volumes::VolumeStore;
pub use fill::{clear, dress};
pub use hold::{Held, alone};

/// The most bytes that a shim takes of secrets.
const GIFT_BYTES_MAX: u64 = 16 << 20;

/// One folder or file of the machine in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    pub from: PathBuf,
    /// In the container.
    pub at: String,
    pub read_only: bool,
    /// Where it is empty it begins with what the image has there.
    pub fill: bool,
    #[serde(default)]
    pub source: Source,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The machine's, which allows it.
    #[default]
    Machine,
    /// A volume: the folder around it says who uses it.
    Volume,
    /// A file of the task's own, which its shim has written.
    Own,
}

/// What is mounted into a container, and its volumes, held for as long as this is.
pub struct Laid {
    /// Before all others: a folder that a task has at `/etc` covers them.
    pub names: Vec<Mounted>,
    pub mounts: Vec<Mounted>,
    pub held: Vec<Held>,
}

/// Finds everything that is to be mounted, and makes what is to be made. `volumes`: by their names in the cluster;
/// `hidden`: folders that no task may see; `remap`: who tasks are.
#[expect(clippy::too_many_arguments, reason = "all that a machine knows of its mounts")]
pub fn find(
    mounts: &Mounts,
    app: &str,
    volumes: &BTreeMap<String, VolumeId>,
    image: &Image,
    folder: &Folder,
    store: &VolumeStore,
    allows: &[String],
    hidden: &[PathBuf],
    remap: Option<Remap>,
) -> io::Result<Vec<Mounted>> {
    let mut found = Vec::new();
    for bind in &mounts.binds {
        found.push(bind::find(bind, allows, hidden, remap)?);
    }
    for VolumeMount { path, name, read_only, no_copy } in &mounts.volumes {
        let from = match name {
            Some(name) => {
                let name = name.of(app);
                let missing = || io::Error::other(format!("volume {name} is not on this machine"));
                store.make(*volumes.get(&name).ok_or_else(missing)?, &name)?
            }
            None => anonymous(folder, found.len())?,
        };
        let (at, read_only) = (path.clone(), *read_only);
        found.push(Mounted { from, at, read_only, fill: !no_copy, source: Source::Volume });
    }
    if let Image::Layers(image) = image {
        for path in &image.volumes {
            let same = |mounted: &Mounted| clean(&mounted.at) == clean(path);
            if !found.iter().any(same) && rialto_protocol::model::container::path_fault(path).is_none() {
                let from = anonymous(folder, found.len())?;
                let at = path.clone();
                found.push(Mounted { from, at, read_only: false, fill: true, source: Source::Volume });
            }
        }
    }
    Ok(found)
}

fn clean(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// A volume of the task's own: it goes with the task's folder.
fn anonymous(folder: &Folder, number: usize) -> io::Result<PathBuf> {
    let path = folder.volumes().join(number.to_string()).join("data");
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Secrets on their way to a shim, by the places of their files: in memory alone.
pub fn gift(secrets: &BTreeMap<usize, Vec<u8>>) -> io::Result<OwnedFd> {
    let mut file = fs::File::from(memfd_create(c"secrets", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(secrets)?)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// Whether a plan's files come with a gift.
pub fn has_gift(plan: &Plan) -> bool {
    plan.container.mounts.files.iter().any(|file| matches!(file.content, Content::Sealed(_)))
}

/// What the daemon gave along as descriptor 1, which becomes what a program expects there. In the shim.
pub fn take_gift(plan: &Plan) -> io::Result<BTreeMap<usize, Vec<u8>>> {
    if !has_gift(plan) {
        return Ok(BTreeMap::new());
    }
    let given = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    nix::unistd::dup2_stdout(fs::File::options().write(true).open("/dev/null")?)?;
    let mut bytes = Vec::new();
    given.take(GIFT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Holds and fills volumes and writes files, on the shim's own bench, which is memory; then everything that is to be
/// mounted, as it is to be seen. In the shim, in a mount namespace of its own.
pub fn lay(plan: &Plan, root: &Path, users: Option<&Users>, mut gift: BTreeMap<usize, Vec<u8>>) -> io::Result<Laid> {
    let (mut all, mut held) = (Vec::new(), Vec::new());
    let places = plan.bench.join("mounts");
    fs::create_dir_all(&places)?;
    let mut names = names(plan);
    for (number, name) in names.iter_mut().enumerate() {
        let place = places.join(format!("name-{number}"));
        bind::place(&name.from, name.source, true, users, &place)?;
        name.from = place;
    }
    for (number, mounted) in plan.mounts.iter().enumerate() {
        let Mounted { from, at, read_only, fill, source } = mounted;
        let said = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what} {at}: {error}"));
        if *source == Source::Volume {
            let volume = from.parent().ok_or(io::ErrorKind::InvalidInput)?;
            let ready = || if *fill { fill::fill(root, at, from, plan.remap) } else { Ok(()) };
            held.push(hold::shared(volume, ready).map_err(|error| said("what the image has at", error))?);
        }
        let place = places.join(number.to_string());
        bind::place(from, *source, *read_only, users, &place).map_err(|error| said("what is mounted at", error))?;
        all.push(Mounted { from: place, ..mounted.clone() });
    }
    let folder = plan.bench.join("files");
    fs::create_dir_all(&folder)?;
    for (number, FileMount { path, content, uid, gid, mode }) in plan.container.mounts.files.iter().enumerate() {
        let bytes = match content {
            Content::Text(text) => text.clone().into_bytes(),
            Content::Sealed(_) => {
                gift.remove(&number).ok_or_else(|| io::Error::other(format!("{path} was not given")))?
            }
            Content::File(name) | Content::Variable(name) => {
                return Err(io::Error::other(format!("{name} was not sent along")));
            }
        };
        let from = folder.join(number.to_string());
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&from)?;
        file.write_all(&bytes)?;
        let said = |error: io::Error| io::Error::other(format!("the owner of {path}: {error}"));
        let (uid, gid) = (outside(plan.remap, *uid).map_err(said)?, outside(plan.remap, *gid).map_err(said)?);
        chown(&from, Some(uid), Some(gid))?;
        fs::set_permissions(&from, std::os::unix::fs::PermissionsExt::from_mode(*mode))?;
        all.push(Mounted { from, at: path.clone(), read_only: true, fill: false, source: Source::Own });
    }
    Ok(Laid { names, mounts: all, held })
}

/// The files that say how a task finds names: its own, or on the machine's network the machine's.
fn names(plan: &Plan) -> Vec<Mounted> {
    if plan.digest().is_none() && plan.names.is_none() {
        return Vec::new();
    }
    let file = |name: &str| Mounted {
        from: plan.names.as_ref().unwrap_or(&plan.etc).join(name),
        at: format!("/etc/{name}"),
        read_only: true,
        fill: false,
        source: Source::Own,
    };
    ["hosts", "resolv.conf"].map(file).into_iter().filter(|mounted| mounted.from.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gift_is_memory() {
        let secrets = BTreeMap::from([(0, vec![0, 255]), (3, b"x".to_vec())]);
        let mut text = Vec::new();
        fs::File::from(gift(&secrets).unwrap()).read_to_end(&mut text).unwrap();
        assert_eq!(serde_json::from_slice::<BTreeMap<usize, Vec<u8>>>(&text).unwrap(), secrets);
    }
}
