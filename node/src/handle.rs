//! The way from everything that serves people (API, DNS, mesh admission) to the brain.

use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::Request;
use rialto_protocol::{Brain, Now};
use tokio::sync::{mpsc, oneshot, watch};

use crate::news::News;

/// A look at the brain as it stands.
pub type Look = Box<dyn FnOnce(&Brain, Now) + Send>;

/// What comes in by the door that is not the mesh's or the executor's.
pub enum Ask {
    /// To be answered by the brain, perhaps much later.
    Request(Request, oneshot::Sender<Result<Reply, Refusal>>),
    /// To be read from the brain as it stands.
    Read(Look),
    /// The same, for watchers: what their looks cost delays the next word that something has changed.
    Watch(Look),
}

/// A cheap, cloneable door to the brain's thread.
#[derive(Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    changes: watch::Receiver<News>,
}

impl Handle {
    /// Made by the driver alone.
    pub fn new(asks: mpsc::Sender<Ask>, changes: watch::Receiver<News>) -> Self {
        Self { asks, changes }
    }

    /// Asks the brain for something.
    pub async fn request(&self, request: Request) -> Result<Reply, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Request(request, answer)).await.map_err(|_| Refusal::Busy)?;
        answered.await.unwrap_or(Err(Refusal::Busy))
    }

    /// Reads from the brain; `None` where the peer is going down.
    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&Brain, Now) -> T + Send + 'static) -> Option<T> {
        self.look(look, Ask::Read).await
    }

    /// The same, by whoever looks again after each change.
    pub async fn watch<T: Send + 'static>(&self, look: impl FnOnce(&Brain, Now) -> T + Send + 'static) -> Option<T> {
        self.look(look, Ask::Watch).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Brain, Now) -> T + Send + 'static,
        kind: impl FnOnce(Look) -> Ask,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |brain: &Brain, now: Now| drop(answer.send(look(brain, now))));
        self.asks.send(kind(look)).await.ok()?;
        answered.await.ok()
    }

    /// Tells whenever what people see may have changed.
    pub fn changes(&self) -> watch::Receiver<News> {
        self.changes.clone()
    }
}
