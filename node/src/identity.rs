//! Who this peer is: its key, and the cluster that it belongs to. Both live in the data folder and
//! are lost with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rialto_protocol::ids::{ClusterId, PeerId};
use rialto_protocol::ledger::record::{Signature, Stored};
use rialto_protocol::wire;
use serde::{Deserialize, Serialize};

const KEY_FILE: &str = "identity.key";
const CLUSTER_FILE: &str = "cluster.cbor";

/// Why an identity could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    #[error("{0} is no identity key: it has {1} bytes and not 32")]
    Length(PathBuf, usize),
    #[error("{0} does not read: {1}")]
    Unreadable(PathBuf, String),
}

/// A peer's ed25519 key pair.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    peer: PeerId,
}

impl Identity {
    /// The identity that belongs to 32 secret bytes.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&secret);
        let peer = PeerId(key.verifying_key().to_bytes());
        Self { key, peer }
    }

    /// Reads `identity.key` in the data folder; makes one where there is none.
    pub fn load_or_create(data: &Path) -> Result<Self, IdentityError> {
        let path = data.join(KEY_FILE);
        let failed = |error| IdentityError::Io(path.clone(), error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = random().map_err(failed)?;
                write_durably(&path, &secret, 0o600).map_err(failed)?;
                return Ok(Self::from_secret(secret));
            }
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others could read the identity key: its mode is 0600 from now on");
            file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let secret = bytes.as_slice().try_into().map_err(|_| IdentityError::Length(path, bytes.len()))?;
        Ok(Self::from_secret(secret))
    }

    /// The public half, which is the peer's name.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Signs a hash.
    pub fn sign(&self, hash: &[u8; 32]) -> Signature {
        Signature(self.key.sign(hash).to_bytes())
    }

    /// Whether `peer` signed `hash`. Weak keys and malleable signatures are refused, so that every
    /// peer comes to the same verdict (RFC 8032 leaves that open).
    pub fn verify(peer: &PeerId, hash: &[u8; 32], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        VerifyingKey::from_bytes(&peer.0).is_ok_and(|key| key.verify_strict(hash, &signature).is_ok())
    }

    /// The same key in the form that others seal to.
    pub(crate) fn agreement_key(&self) -> crypto_box::SecretKey {
        crypto_box::SecretKey::from(self.key.to_scalar_bytes())
    }

    /// What is sealed to a peer with; `None`: its name is no key.
    pub(crate) fn agreement_key_of(peer: &PeerId) -> Option<crypto_box::PublicKey> {
        let key = VerifyingKey::from_bytes(&peer.0).ok()?;
        Some(crypto_box::PublicKey::from(key.to_montgomery().to_bytes()))
    }

    /// The secret half, for the handshake of the mesh.
    pub(crate) fn secret(&self) -> [u8; 32] {
        self.key.to_bytes()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "identity of {:?}", self.peer)
    }
}

/// `cluster.cbor`: the cluster that this data folder belongs to, and how that is proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Belonging {
    pub cluster: ClusterId,
    /// Of the founder alone: with its key it makes the cluster's id.
    #[serde(default)]
    pub founding: Option<[u8; 16]>,
    /// Of a newcomer: the admissions from the founder's to its own.
    #[serde(default)]
    pub chain: Vec<Arc<Stored>>,
}

impl Belonging {
    /// Founds a cluster in the name of `founder`.
    pub fn found(founder: &PeerId) -> io::Result<Self> {
        let nonce = random()?;
        Ok(Self { cluster: ClusterId::of_founder(founder, &nonce), founding: Some(nonce), chain: Vec::new() })
    }

    /// Reads the file in the data folder; `None` where there is none.
    pub fn load(data: &Path) -> Result<Option<Self>, IdentityError> {
        let path = data.join(CLUSTER_FILE);
        match fs::read(&path) {
            Ok(bytes) => match wire::decode(&bytes) {
                Ok(belonging) => Ok(Some(belonging)),
                Err(error) => Err(IdentityError::Unreadable(path, error.to_string())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IdentityError::Io(path, error)),
        }
    }

    /// Writes the file: after this it is on disk, whole, or as it was before.
    pub fn save(&self, data: &Path) -> Result<(), IdentityError> {
        let path = data.join(CLUSTER_FILE);
        write_durably(&path, &wire::encode(self), 0o600).map_err(|error| IdentityError::Io(path, error))
    }
}

/// Bytes that nobody can foretell, from the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file so that a crash at any point leaves the old one or the new one, whole.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    // A draft that an earlier crash left behind keeps its old mode unless it is set.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let made = Identity::load_or_create(data.path()).unwrap();
        let read = Identity::load_or_create(data.path()).unwrap();
        assert_eq!(made.peer(), read.peer());
        let path = data.path().join(KEY_FILE);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Identity::load_or_create(data.path()).unwrap();
        assert_eq!(mode(), 0o600, "a key that others could read is closed");
        fs::write(&path, b"short").unwrap();
        assert!(matches!(Identity::load_or_create(data.path()), Err(IdentityError::Length(_, 5))));
    }

    #[test]
    fn a_signature_is_its_owners_and_its_hashs() {
        let one = Identity::from_secret([1; 32]);
        let other = Identity::from_secret([2; 32]);
        let signature = one.sign(&[7; 32]);
        assert!(Identity::verify(&one.peer(), &[7; 32], &signature));
        assert!(!Identity::verify(&one.peer(), &[8; 32], &signature));
        assert!(!Identity::verify(&other.peer(), &[7; 32], &signature));
        assert!(!Identity::verify(&PeerId([0xff; 32]), &[7; 32], &signature), "no point of the curve");
        assert!(!Identity::verify(&PeerId([0; 32]), &[7; 32], &Signature([0; 64])), "a point of small order");
    }

    #[test]
    fn a_belonging_reads_back_and_a_torn_one_is_told() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Belonging::load(data.path()).unwrap(), None);
        let founder = Identity::from_secret([1; 32]).peer();
        let belonging = Belonging::found(&founder).unwrap();
        assert_eq!(belonging.cluster, ClusterId::of_founder(&founder, &belonging.founding.unwrap()));
        belonging.save(data.path()).unwrap();
        assert_eq!(Belonging::load(data.path()).unwrap(), Some(belonging));
        fs::write(data.path().join(CLUSTER_FILE), [0xff]).unwrap();
        assert!(matches!(Belonging::load(data.path()), Err(IdentityError::Unreadable(..))));
    }
}
