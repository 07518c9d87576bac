//! Digests, and bytes that are checked against them on their way to the disk.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use rialto_protocol::ids::{hex, unhex};
use sha2::{Digest as _, Sha256};

use super::ImageError;

/// A SHA-256 digest, in words `sha256:` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Reads `sha256:…`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_hex(text.strip_prefix("sha256:")?)
    }

    /// Reads the 64 digits, in lower case only: one digest has one name.
    pub fn from_hex(text: &str) -> Option<Self> {
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        lower.then(|| unhex(text)?.try_into().ok().map(Self)).flatten()
    }

    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its place among all digests.
    pub fn ring(&self) -> u64 {
        self.0.iter().take(8).fold(0, |ring, byte| ring << 8 | u64::from(*byte))
    }

    /// The 64 digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", &self.hex()[..12])
    }
}

/// Counts and hashes what is read or written through it.
pub struct Hashing<T> {
    pub inner: T,
    hash: Sha256,
    pub bytes: u64,
}

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// Of everything so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Copies at most `bytes_max` bytes into a new file, if they have the digest; how many they are.
pub fn receive(from: &mut dyn Read, to: &Path, digest: &Digest, bytes_max: u64) -> Result<u64, ImageError> {
    let mut file = Hashing::new(File::create(to)?);
    io::copy(&mut from.take(bytes_max.saturating_add(1)), &mut file)?;
    check(&file, digest, bytes_max)?;
    file.inner.sync_all()?;
    Ok(file.bytes)
}

/// Whether what came is what was promised.
pub fn check<T>(file: &Hashing<T>, digest: &Digest, bytes_max: u64) -> Result<(), ImageError> {
    if file.bytes > bytes_max {
        return Err(ImageError::Invalid(format!(
            "blob {digest} is larger than the {bytes_max} bytes that it may have"
        )));
    }
    let found = file.digest();
    if found != *digest {
        return Err(ImageError::Invalid(format!("blob {digest} has the digest {found}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_name() {
        let digest = Digest::of(b"");
        assert_eq!(digest.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest.clone()));
        for bad in ["", "sha256:", "sha512:00", "sha256:../../x", &digest.to_string().to_uppercase(), &digest.hex()] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_what_was_promised_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("blob");
        assert_eq!(receive(&mut &b"abc"[..], &to, &Digest::of(b"abc"), 3).unwrap(), 3);
        assert!(receive(&mut &b"abd"[..], &to, &Digest::of(b"abc"), 3).is_err());
        assert!(receive(&mut &b"abc"[..], &to, &Digest::of(b"abc"), 2).is_err());
    }
}
