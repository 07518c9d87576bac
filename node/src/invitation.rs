//! Invitations: the token that a person carries from a member to a newcomer.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rialto_protocol::ids::{ClusterId, InvitationId, PeerId};
use rialto_protocol::wire;
use serde::{Deserialize, Serialize};

/// What every token of this version begins with.
pub const PREFIX: &str = "rialto1.";
/// The most characters of a token.
pub const TOKEN_CHARS_MAX: usize = 4096;
/// Bytes of the checksum at a token's end.
const CHECKSUM_BYTES: usize = 4;
/// The most addresses in one.
pub const ADDRESSES_MAX: usize = 16;

/// What only the inviter and whoever holds the token know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl Secret {
    /// What the inviter keeps in the secret's place: it proves the secret and does not give it away.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("rialto invitation secret 1", &self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An invitation to join a cluster, as its token carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    pub cluster: ClusterId,
    /// The member that knows of the invitation and answers to it.
    pub inviter: PeerId,
    pub invitation: InvitationId,
    pub secret: Secret,
    /// Where the inviter listens, `IP:PORT`, the likeliest first.
    pub addresses: Vec<String>,
}

/// Why a text is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is no invitation: a token begins with `{PREFIX}`; `rialto invite` on a member prints one")]
    NotAToken,
    #[error(
        "the token begins with `{0}.`, and this version reads only `{PREFIX}`: use the same version on both machines"
    )]
    Version(String),
    #[error("the token has more than {TOKEN_CHARS_MAX} characters")]
    TooLong,
    #[error("the token has the character {0:?}, which no token has: was it copied whole, and nothing else with it?")]
    Character(char),
    #[error("the token is cut short or damaged: copy it again, whole")]
    Damaged,
    #[error("the token names the address {0:?}, which is not IP:PORT")]
    Address(String),
    #[error("the token names {0} addresses; 1 to {ADDRESSES_MAX} are allowed")]
    Addresses(usize),
}

/// What a slip of the hand is found by: tokens are copied by people.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut first = [0; CHECKSUM_BYTES];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    first
}

impl Invitation {
    /// The token.
    pub fn encode(&self) -> String {
        let mut bytes = wire::encode(self);
        let check = checksum(&bytes);
        bytes.extend(check);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a token; space around it is passed over.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::TooLong);
        }
        let Some(body) = text.strip_prefix(PREFIX) else {
            let version = text.split_once('.').map(|(version, _)| version).filter(|version| {
                let number = version.strip_prefix("rialto").unwrap_or_default();
                !number.is_empty() && number.len() <= 4 && number.bytes().all(|digit| digit.is_ascii_digit())
            });
            return Err(version.map_or(TokenError::NotAToken, |version| TokenError::Version(version.to_string())));
        };
        let stray = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if let Some(stray) = body.chars().find(stray) {
            return Err(TokenError::Character(stray));
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?;
        let (bytes, check) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if *check != checksum(bytes) {
            return Err(TokenError::Damaged);
        }
        let invitation: Invitation = wire::decode(bytes).map_err(|_| TokenError::Damaged)?;
        if !(1..=ADDRESSES_MAX).contains(&invitation.addresses.len()) {
            return Err(TokenError::Addresses(invitation.addresses.len()));
        }
        match invitation.addresses.iter().find(|address| address.parse::<SocketAddr>().is_err()) {
            Some(address) => Err(TokenError::Address(address.clone())),
            None => Ok(invitation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invitation() -> Invitation {
        Invitation {
            cluster: ClusterId([1; 16]),
            inviter: PeerId([2; 32]),
            invitation: InvitationId([3; 16]),
            secret: Secret([0xab; 32]),
            addresses: vec!["10.0.0.1:7400".into(), "[fd00::1]:7400".into()],
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let token = invitation().encode();
        assert_eq!(Invitation::parse(&format!("  {token}\n")), Ok(invitation()));
        for cut in PREFIX.len()..token.len() {
            assert_eq!(Invitation::parse(&token[..cut]), Err(TokenError::Damaged), "cut at {cut}");
        }
        let bad = |text: &str| Invitation::parse(text).unwrap_err();
        assert_eq!(bad(""), TokenError::NotAToken);
        assert_eq!(bad("hello.world"), TokenError::NotAToken);
        assert_eq!(bad("rialto.x"), TokenError::NotAToken);
        assert_eq!(bad("rialto2.abc"), TokenError::Version("rialto2".into()));
        assert_eq!(bad(&format!("{token}!")), TokenError::Character('!'));
        assert_eq!(bad(&format!("{PREFIX}{}", "A".repeat(TOKEN_CHARS_MAX))), TokenError::TooLong);
        let with = |addresses: Vec<String>| bad(&Invitation { addresses, ..invitation() }.encode());
        assert_eq!(with(vec![]), TokenError::Addresses(0));
        assert_eq!(with(vec!["host:1".into()]), TokenError::Address("host:1".into()));
    }

    #[test]
    fn the_secret_is_never_shown() {
        let shown = format!("{:?}", invitation());
        assert!(!shown.contains("171") && !shown.contains("ab, ab") && shown.contains("Secret(…)"), "{shown}");
        assert_ne!(Secret([1; 32]).hash(), Secret([2; 32]).hash());
    }

    proptest! {
        #[test]
        fn any_invitation_reads_back(
            cluster: [u8; 16], inviter: [u8; 32], id: [u8; 16], secret: [u8; 32],
            addresses in prop::collection::vec(any::<SocketAddr>(), 1..=ADDRESSES_MAX),
        ) {
            let invitation = Invitation {
                cluster: ClusterId(cluster),
                inviter: PeerId(inviter),
                invitation: InvitationId(id),
                secret: Secret(secret),
                addresses: addresses.iter().map(|address| address.to_string()).collect(),
            };
            prop_assert_eq!(Invitation::parse(&invitation.encode()), Ok(invitation));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
            let _ = Invitation::parse(&text);
            let _ = Invitation::parse(&format!("{PREFIX}{text}"));
            let _ = Invitation::parse(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)));
        }

        #[test]
        fn every_flipped_byte_is_found(at in 0usize..400, with: u8, more in prop::collection::vec(any::<u8>(), 0..4)) {
            let token = invitation().encode();
            let mut bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX).unwrap()).unwrap();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != with || !more.is_empty());
            bytes[at] = with;
            bytes.extend(more);
            let damaged = Invitation::parse(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)));
            prop_assert_eq!(damaged, Err(TokenError::Damaged));
        }
    }
}
