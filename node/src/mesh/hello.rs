//! `hello`: a newcomer shows its invitation, and is given what proves its membership.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use libp2p::Stream;
use rialto_protocol::ids::{ClusterId, InvitationId, PeerId};
use rialto_protocol::ledger::record::Stored;
use rialto_protocol::wire;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::context::Shared;
use super::doors::{Door, Ticket};
use super::frames::framed;
use super::{MeshEvent, OpenError};
use crate::invitation::{Invitation, Secret};

/// A hello that takes longer has failed. The introducer answers when the admission is durable.
const HELLO_MAX: Duration = Duration::from_secs(15);
/// How long an introducer waits for the newcomer's question, and for it to take the answer.
const READ_MAX: Duration = Duration::from_secs(5);

/// What a newcomer is given.
#[derive(Clone, Debug, PartialEq)]
pub struct HelloAnswer {
    /// The admissions from the founder's to its own.
    pub chain: Vec<Arc<Stored>>,
}

/// Why a hello came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("the inviter cannot be reached: {0}")]
    Unreachable(String),
    #[error("the inviter does not speak {0}: use the same version on both machines")]
    Version(&'static str),
    #[error("the inviter refused: {0}")]
    Refused(String),
    #[error("the inviter went away before it answered")]
    Lost,
    #[error("the inviter's answer does not read: {0}")]
    Malformed(String),
    #[error("the inviter did not answer within {} s", HELLO_MAX.as_secs())]
    TimedOut,
}

/// The newcomer's question. The stream is encrypted, and the inviter has proved its key.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    cluster: ClusterId,
    invitation: InvitationId,
    secret: Secret,
    /// The versions of the protocol that the newcomer speaks.
    versions: Vec<u32>,
}

/// The introducer's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Admitted { chain: Vec<Arc<Stored>> },
    Refused { reason: String },
}

/// The newcomer's side.
pub(super) async fn greet(shared: &Shared, invitation: &Invitation) -> Result<HelloAnswer, HelloError> {
    timeout(HELLO_MAX, ask(shared, invitation)).await.unwrap_or(Err(HelloError::TimedOut))
}

async fn ask(shared: &Shared, invitation: &Invitation) -> Result<HelloAnswer, HelloError> {
    let opened = shared.open(invitation.inviter, Door::Hello, &invitation.addresses).await;
    let stream = opened.map_err(|error| match error {
        OpenError::Unsupported(protocol) => HelloError::Version(protocol),
        other => HelloError::Unreachable(other.to_string()),
    })?;
    let mut frames = framed(stream);
    let hello = Hello {
        cluster: invitation.cluster,
        invitation: invitation.invitation,
        secret: invitation.secret.clone(),
        versions: vec![wire::PROTOCOL],
    };
    frames.send(Bytes::from(wire::encode(&hello))).await.map_err(|_| HelloError::Lost)?;
    let bytes = frames.next().await.and_then(Result::ok).ok_or(HelloError::Lost)?;
    match wire::decode(&bytes).map_err(|error| HelloError::Malformed(error.to_string()))? {
        Answer::Admitted { chain } => Ok(HelloAnswer { chain }),
        Answer::Refused { reason } => Err(HelloError::Refused(reason)),
    }
}

/// The introducer's side: asks the driver, and answers the newcomer.
pub(super) async fn introduce(shared: Arc<Shared>, from: PeerId, stream: Stream, ticket: Option<Ticket>) {
    let mut frames = framed(stream);
    let answer = match &ticket {
        None => Err("too many newcomers are being admitted; try again in a moment".to_string()),
        Some(_) => match timeout(READ_MAX, frames.next()).await {
            Ok(Some(Ok(bytes))) => match wire::decode::<Hello>(&bytes) {
                Ok(hello) => decide(&shared, from, hello).await,
                Err(error) => Err(format!("the hello does not read: {error}")),
            },
            _ => Err("no hello came".to_string()),
        },
    };
    let answer = match answer {
        Ok(chain) => {
            shared.counters.hello_admitted.add(1);
            tracing::info!(peer = %from, "admitted by an invitation");
            Answer::Admitted { chain }
        }
        Err(reason) => {
            shared.counters.hello_refused.add(1);
            if shared.log_limits.hello.allows() {
                tracing::warn!(peer = %from, reason, "a newcomer was refused");
            }
            Answer::Refused { reason }
        }
    };
    // The newcomer ends the stream when it has read the answer; to drop it before could reset it.
    let _ = timeout(READ_MAX, async {
        frames.send(Bytes::from(wire::encode(&answer))).await.ok()?;
        SinkExt::<Bytes>::close(&mut frames).await.ok()?;
        frames.next().await
    })
    .await;
}

async fn decide(shared: &Shared, from: PeerId, hello: Hello) -> Result<Vec<Arc<Stored>>, String> {
    if !hello.versions.contains(&wire::PROTOCOL) {
        return Err(format!("version {} of the protocol is spoken here, not {:?}", wire::PROTOCOL, hello.versions));
    }
    let cluster = *shared.cluster.read().expect("nobody panics with the lock");
    match cluster {
        None => return Err("this peer is a newcomer itself and belongs to no cluster yet".into()),
        Some(ours) if ours != hello.cluster => {
            return Err(format!("the invitation is to cluster {}, and this is {ours}", hello.cluster));
        }
        Some(_) => {}
    }
    let (reply, answer) = oneshot::channel();
    let (cluster, invitation, secret_hash) = (hello.cluster, hello.invitation, hello.secret.hash());
    shared.tell(MeshEvent::Hello { from, cluster, invitation, secret_hash, reply }).await;
    match timeout(HELLO_MAX - Duration::from_secs(1), answer).await {
        Ok(Ok(decided)) => decided,
        _ => Err("the peer is too busy to answer; try again in a moment".into()),
    }
}
