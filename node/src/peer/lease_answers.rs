//! What a keeper of leases asks is answered by a peer that votes: here, or there over the mesh.

use std::io;
use std::time::Duration;

use rialto_locks::kv::Refusal;
use rialto_locks_service::Group;
use rialto_locks_service::once::Claimed;
use rialto_locks_service::queue::{Place, queue};
use rialto_protocol::ids::PeerId;
use rialto_protocol::lease::{Answer, Ask};
use rialto_protocol::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::locks::{ANSWER_WITHIN, KEEPER, Locks};
use crate::mesh::PeerStream;

/// The longest question or answer, bytes.
const BYTES_MAX: u64 = 64 << 10;
/// Nobody is let wait longer for its turn than this, ms: whoever wants to asks again.
const WAIT_MS_MAX: u64 = 10_000;
/// Where the leases of singletons lie among the locks, and the runs that were claimed among the keys.
const SINGLETONS: &str = "_rialto/singleton/";
const ONCE: &str = "_rialto/once/";

type Told = Result<Answer, String>;

impl Locks {
    /// Asks the lock group, wherever it is.
    pub async fn tend(&self, ask: Ask) -> Told {
        let waits =
            if let Ask::Await { wait_ms, .. } = &ask { Duration::from_millis(*wait_ms) } else { Duration::ZERO };
        let late = |_| Err("nobody answered in time".to_string());
        timeout(ANSWER_WITHIN + waits, self.tend_somewhere(&ask)).await.unwrap_or_else(late)
    }

    async fn tend_somewhere(&self, ask: &Ask) -> Told {
        if self.group.told().votes() {
            return answer(&self.group, ask).await;
        }
        let mut why = "no voter can be reached".to_string();
        let known = self.heard_of();
        let mut voters = if known.is_empty() { self.voting().await } else { known };
        for again in [true, false] {
            for voter in voters {
                match self.tend_at(voter, ask).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    // What it says of the group another would say as well; but it may vote no more.
                    Ok(Err(said)) => why = said,
                    Err(error) => why = format!("no voter can be reached: {error}"),
                }
            }
            if !again {
                break;
            }
            voters = self.voting().await;
        }
        Err(why)
    }

    async fn tend_at(&self, voter: PeerId, ask: &Ask) -> io::Result<Told> {
        let waits = if let Ask::Await { wait_ms, .. } = ask { Duration::from_millis(*wait_ms) } else { Duration::ZERO };
        let talk = async {
            let mut stream = self.open(voter).await?;
            let question = wire::encode(ask);
            stream.write_all(&[KEEPER]).await?;
            stream.write_all(&(question.len() as u32).to_be_bytes()).await?;
            stream.write_all(&question).await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            stream.take(BYTES_MAX).read_to_end(&mut answer).await?;
            wire::decode(&answer).map_err(io::Error::other)
        };
        timeout(ANSWER_WITHIN / 2 + waits, talk).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// A peer that does not vote asks for one of its tasks.
    pub async fn hear_keeper(&self, mut stream: PeerStream) -> io::Result<()> {
        let length = u64::from(stream.read_u32().await?);
        if length > BYTES_MAX {
            return Err(io::Error::other(format!("a question of {length} bytes")));
        }
        let mut question = vec![0; length as usize];
        stream.read_exact(&mut question).await?;
        let ask: Ask = wire::decode(&question).map_err(io::Error::other)?;
        let told: Told = match self.group.told().votes() {
            true => answer(&self.group, &ask).await,
            false => Err("this peer does not vote".into()),
        };
        stream.write_all(&wire::encode(&told)).await?;
        stream.shutdown().await
    }
}

/// Asks this peer's own replica.
async fn answer(group: &Group, ask: &Ask) -> Told {
    match tried(group, ask).await {
        Ok(answer) => Ok(answer),
        Err(Refusal::LeaseNotFound) => Ok(Answer::Gone),
        Err(Refusal::LeaseExists) => Ok(Answer::Exists),
        Err(Refusal::NoLeader | Refusal::NotLeader) => Err("too few of its voters can be reached".into()),
        Err(Refusal::Unknown) => Err("its leader was lost".into()),
        Err(other) => Err(other.to_string()),
    }
}

async fn tried(group: &Group, ask: &Ask) -> Result<Answer, Refusal> {
    match ask {
        Ask::Grant { lease, ttl_seconds } => group.grant_as(*lease, *ttl_seconds).await.map(|_| Answer::Lives),
        Ask::Renew { lease } => group.renew(*lease).await.map(|_| Answer::Lives),
        Ask::Enqueue { name, lease, holder } => {
            let place = group.enqueue(&named(name), *lease, holder.clone().into_bytes()).await?;
            Ok(Answer::Placed { token: place.token })
        }
        Ask::Await { name, lease, token, wait_ms } => {
            let place = Place::of(&named(name), *lease, *token);
            let wait = Duration::from_millis((*wait_ms).min(WAIT_MS_MAX));
            match timeout(wait, group.until_first(&place, |_| {})).await {
                Ok(first) => first.map(|_| Answer::First),
                Err(_) => before(group, place).await,
            }
        }
        Ask::Revoke { lease } => group.revoke(*lease).await.map(|()| Answer::Gone),
        Ask::Claim { name, run, floor, holder } => {
            let claimed = group.claim_once(&[ONCE, name].concat(), run, floor.as_deref(), holder).await?;
            Ok(match claimed {
                Claimed::Mine(token) => Answer::Mine { token },
                Claimed::Taken(by) => Answer::Taken { by },
            })
        }
    }
}

/// Who holds what somebody has waited for in vain.
async fn before(group: &Group, place: Place) -> Result<Answer, Refusal> {
    let token = place.token;
    let taken = group.look(move |replica| queue(replica.store(), &place.name)).await?;
    match taken.into_iter().next() {
        Some(first) if first.token != token => {
            Ok(Answer::Behind { holder: String::from_utf8_lossy(&first.value).into_owned() })
        }
        // It is its turn, and nobody is there to say so for certain.
        _ => Err(Refusal::NoLeader),
    }
}

fn named(name: &str) -> Vec<u8> {
    [SINGLETONS, name].concat().into_bytes()
}
