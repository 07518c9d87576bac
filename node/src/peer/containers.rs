//! The executor's containers, as the API reaches them.

use std::io;
use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use rialto_protocol::ids::{ClaimId, VolumeId};
use rialto_protocol::model::Volume;

use crate::api::{self, Duplex};
use crate::executor::{Sessions, Usage};
use crate::handle::Handle;

/// The containers behind the API; none where nothing runs.
pub struct ContainersForApi(pub Option<Sessions>);

impl api::Containers for ContainersForApi {
    fn enter(&self, claim: ClaimId) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        async move { Ok(Box::new(self.sessions()?.enter(claim).await?) as Box<dyn Duplex>) }.boxed()
    }

    fn attach(&self, claim: ClaimId) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        async move { Ok(Box::new(self.sessions()?.attach(claim).await?) as Box<dyn Duplex>) }.boxed()
    }

    fn copy_volume(&self, volume: &Volume, user: Option<String>) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let opened =
            self.sessions().and_then(|sessions| sessions.copy_volume(volume.id, &volume.name, user.as_deref()));
        async move { Ok(Box::new(opened?) as Box<dyn Duplex>) }.boxed()
    }

    fn mark_volume(&self, id: VolumeId, leaving: bool) -> BoxFuture<'_, io::Result<()>> {
        async move {
            match &self.0 {
                Some(sessions) => sessions.mark_volume(id, leaving).await,
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn remove_volume(&self, id: VolumeId) -> BoxFuture<'_, io::Result<()>> {
        async move {
            match &self.0 {
                Some(sessions) => sessions.remove_volume(id).await,
                // Where nothing runs nothing has been written.
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn measure_volume(&self, id: VolumeId) -> BoxFuture<'_, io::Result<(u64, u64, PathBuf)>> {
        async move { self.sessions()?.measure_volume(id).await }.boxed()
    }

    fn usage(&self) -> BoxFuture<'_, Vec<Usage>> {
        async move {
            match &self.0 {
                Some(sessions) => sessions.usage().await,
                None => Vec::new(),
            }
        }
        .boxed()
    }
}

/// Has what earlier lives left of volumes deleted, in the background.
pub fn sweep_volumes(sessions: &Sessions, handle: Handle) {
    sessions.sweep_volumes(move || async move {
        let own = handle.read(|brain, now| brain.view(now).own_volumes()).await;
        own.map(|own| own.into_iter().map(|volume| volume.id).collect())
    });
}

impl ContainersForApi {
    fn sessions(&self) -> io::Result<&Sessions> {
        let none = || io::Error::new(io::ErrorKind::Unsupported, "this machine only pretends to run tasks");
        self.0.as_ref().ok_or_else(none)
    }
}
