//! The secret that opens the API over TCP.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The name of the token's file in the data folder.
pub const TOKEN_FILE: &str = "api-token";

/// The API token, kept as its hash.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl Token {
    /// `None` where the text is no token: empty, or with characters that a header cannot carry.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then(|| Self(blake3::hash(text.as_bytes())))
    }

    /// Takes the same time whether it is or not: hashes are compared so.
    pub fn is(&self, shown: &str) -> bool {
        self.0 == blake3::hash(shown.as_bytes())
    }

    /// The token in `given` (`RIALTO_API_TOKEN`), else the one in the data folder's file, which is made, with mode
    /// 0600, where there is none.
    pub fn load(data: &Path, given: Option<&str>) -> io::Result<Self> {
        let unsound = |whence: String| io::Error::new(io::ErrorKind::InvalidData, format!("{whence} is no token"));
        if let Some(given) = given {
            return Self::of(given).ok_or_else(|| unsound("RIALTO_API_TOKEN".into()));
        }
        let path = data.join(TOKEN_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                Self::of(&text).ok_or_else(|| unsound(path.display().to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                File::open("/dev/urandom")?.read_exact(&mut secret)?;
                let text = URL_SAFE_NO_PAD.encode(secret);
                let fresh = path.with_extension("new");
                let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&fresh, &path)?;
                Ok(Self(blake3::hash(text.as_bytes())))
            }
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_for_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let made = Token::load(data.path(), None).unwrap();
        let path = data.path().join(TOKEN_FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(made.is(&text) && text.len() == 43);
        assert!(Token::load(data.path(), None).unwrap().is(&text));
        assert!(Token::load(data.path(), Some("other")).unwrap().is("other"));
    }

    #[test]
    fn what_is_no_token_opens_nothing() {
        let data = tempfile::tempdir().unwrap();
        for bad in ["", "  ", "two words", "naïve"] {
            assert!(Token::load(data.path(), Some(bad)).is_err(), "{bad:?}");
        }
        fs::write(data.path().join(TOKEN_FILE), "\n").unwrap();
        assert!(Token::load(data.path(), None).is_err());
    }
}
