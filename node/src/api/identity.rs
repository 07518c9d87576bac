//! Who asks, and what they may.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use rialto_protocol::api::ErrorCode;
use rialto_protocol::ids::PeerId;

use super::problem::Problem;

/// The only namespace until users make their own.
pub const NAMESPACE: &str = "default";

/// Who asks. Every call passes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Whoever may open the peer's Unix socket.
    Administrator,
    /// Whoever showed the API token over TCP.
    Token,
    /// An admitted peer, over the mesh: it speaks for people whom it has itself let in.
    Peer(PeerId),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Rows, status, documents, events, checks.
    Look,
    /// Why tasks wait: an app's steward is asked for it by the others.
    Explain,
    /// The ledger, whole.
    ReadLedger,
    /// What tasks print, and use.
    ReadLogs,
    /// Running commands in containers, and copying files out of them and into them.
    Enter,
    /// Making, scaling and removing apps.
    ChangeApps,
    /// Holding locks, and looking at them.
    Lock,
    /// Draining a machine.
    Operate,
    /// Letting newcomers in.
    Invite,
    ImportImage,
    /// A manifest or a blob.
    FetchImage,
}

/// Whether `identity` may do `verb` in `namespace`. People have every right in the one namespace there is; a peer
/// has those that forwarding needs: the logs of tasks here and entering them, why tasks wait, locks, draining this machine, and
/// images.
pub fn authorize(identity: Identity, verb: Verb, namespace: &str) -> Result<(), Problem> {
    let may = match identity {
        Identity::Administrator | Identity::Token => true,
        Identity::Peer(_) => {
            use Verb::{Enter, Explain, FetchImage, Lock, Operate, ReadLogs};
            matches!(verb, ReadLogs | Enter | Explain | Lock | Operate | FetchImage)
        }
    };
    if may && namespace == NAMESPACE {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::Denied, format!("{} may not do this in {namespace}", identity.name())))
}

impl Identity {
    /// [`authorize`] in the one namespace there is.
    pub fn may(self, verb: Verb) -> Result<(), Problem> {
        authorize(self, verb, NAMESPACE)
    }

    /// For the history of documents.
    pub fn name(self) -> String {
        match self {
            Identity::Administrator => "administrator".into(),
            Identity::Token => "token".into(),
            Identity::Peer(peer) => format!("peer {peer}"),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The guard put it there; a request that went around the guard is nobody's.
        let identity = parts.extensions.get::<Identity>().copied();
        identity.ok_or_else(|| Problem::new(ErrorCode::Unauthorized, "nobody vouches for this request"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_do_what_forwarding_needs_and_no_more() {
        let peer = Identity::Peer(PeerId([1; 32]));
        let all = [
            (Verb::Look, false),
            (Verb::Explain, true),
            (Verb::ReadLedger, false),
            (Verb::ReadLogs, true),
            (Verb::Enter, true),
            (Verb::ChangeApps, false),
            (Verb::Lock, true),
            (Verb::Operate, true),
            (Verb::Invite, false),
            (Verb::ImportImage, false),
            (Verb::FetchImage, true),
        ];
        for (verb, may) in all {
            assert_eq!(peer.may(verb).is_ok(), may, "{verb:?}");
            for person in [Identity::Administrator, Identity::Token] {
                assert!(person.may(verb).is_ok());
                assert!(authorize(person, verb, "other").is_err());
            }
        }
    }
}
