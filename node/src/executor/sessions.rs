//! The daemon's side of sessions with containers: it starts the process that enters, and hands its
//! connection to whoever asked. What is said on it is theirs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use rialto_protocol::ids::{ClaimId, VolumeId};
use tokio::net::UnixStream;

use super::containers::Containers;
use super::enter::VOLUME;
use super::roll::Phase;
use super::stats::{self, Usage};

/// Opens sessions with the tasks of this machine.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Containers>);

impl Sessions {
    /// A connection to a new process that serves one session with a container: commands and copies. It ends with
    /// the connection. `NotFound` where the task does not run here.
    pub async fn enter(&self, claim: ClaimId) -> io::Result<UnixStream> {
        self.check(claim)?;
        enter(&self.0, claim)
    }

    /// A connection to the streams of the container's first process.
    pub async fn attach(&self, claim: ClaimId) -> io::Result<UnixStream> {
        self.check(claim)?;
        let folder = self.0.folder(claim);
        let stream = tokio::task::spawn_blocking(move || folder.connect()).await.map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        super::client::begin_attach(&stream).await?;
        Ok(stream)
    }

    /// A connection to a new process that serves one copy out of a volume, or into it. `name`: what the volume is
    /// called; `user`: the task that has it, if one does.
    pub fn copy_volume(&self, id: VolumeId, name: &str, user: Option<&str>) -> io::Result<UnixStream> {
        // One that was made by an order no task has used yet.
        let folder = self.0.volumes.around(id, name)?;
        spawn(&self.0, &[VOLUME.as_ref(), folder.as_os_str(), user.unwrap_or_default().as_ref()])
    }

    /// Writes down that a volume is about to be deleted, or that it stays: what a life that ends in between leaves is
    /// found by the next.
    pub async fn mark_volume(&self, id: VolumeId, leaving: bool) -> io::Result<()> {
        let store = self.0.volumes.clone();
        tokio::task::spawn_blocking(move || store.mark(id, leaving)).await.map_err(io::Error::other)?
    }

    /// Deletes the data of a volume that is no more.
    pub async fn remove_volume(&self, id: VolumeId) -> io::Result<()> {
        let store = self.0.volumes.clone();
        tokio::task::spawn_blocking(move || store.remove(id)).await.map_err(io::Error::other)?
    }

    /// Goes on with what earlier lives have left of volumes, on a thread of its own: that takes as long as it takes, and
    /// nobody waits for it, not even who ends the peer. `known` tells of the volumes that there are, if that can be told.
    pub fn sweep_volumes<K>(&self, known: impl FnOnce() -> K + Send + 'static)
    where
        K: Future<Output = Option<BTreeSet<VolumeId>>>,
    {
        let (store, runtime) = (self.0.volumes.clone(), self.0.runtime.clone());
        std::thread::spawn(move || {
            if let Err(error) = store.sweep(|| runtime.block_on(known())) {
                tracing::warn!(%error, "what was left of volumes cannot be deleted");
            }
        });
    }

    /// The bytes of a volume, how many files it has, and where it lies.
    pub async fn measure_volume(&self, id: VolumeId) -> io::Result<(u64, u64, PathBuf)> {
        let store = self.0.volumes.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let path = store.data(id);
            let (bytes, files) = if path.is_dir() { store.measure(id)? } else { (0, 0) };
            Ok((bytes, files, path))
        });
        measured.await.map_err(io::Error::other)?
    }

    /// What running tasks use.
    pub async fn usage(&self) -> Vec<Usage> {
        let containers = self.0.clone();
        tokio::task::spawn_blocking(move || stats::read_all(&containers)).await.unwrap_or_default()
    }

    fn check(&self, claim: ClaimId) -> io::Result<()> {
        match self.0.roll.phase(claim) {
            Some(Phase::Live) => Ok(()),
            Some(Phase::Starting) => Err(io::Error::new(io::ErrorKind::NotConnected, "the task has not started yet")),
            Some(Phase::Ended) => Err(io::Error::new(io::ErrorKind::NotConnected, "the task has ended")),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "this machine has no such task")),
        }
    }
}

/// Starts a process that enters a container. It has its end of the connection before it lives.
pub(super) fn enter(containers: &Containers, claim: ClaimId) -> io::Result<UnixStream> {
    spawn(containers, &[containers.folder(claim).path().as_os_str()])
}

fn spawn(containers: &Containers, arguments: &[&OsStr]) -> io::Result<UnixStream> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut process = tokio::process::Command::new(&containers.config.shim)
        .arg("enter")
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    containers.runtime.spawn(async move { process.wait().await });
    UnixStream::from_std(ours)
}
