//! The members of a tar archive, one after the other, with what their extensions say of them.
//!
//! The library would read a long name or an extended header whole into memory, however long it is,
//! and expand sparse files without a bound: here the raw entries are put together under bounds.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use tar::{Entry, EntryType, Header};

use super::ImageError;

/// The most bytes of all that is said of one member beside its header: a path and some attributes.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// No image has one; `tar` makes them when it is told to.
const SPARSE: &str = "it holds a file in sparse form: make it without --sparse";

/// What an archive says of one member.
#[derive(Clone, Debug)]
pub struct Member {
    pub path: PathBuf,
    /// Of links only.
    pub link: Option<PathBuf>,
    pub kind: EntryType,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since 1970, and nanoseconds.
    pub date: (i64, i64),
    /// Extended attributes, in the archive's order.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// What comes before a member and is about it.
#[derive(Default)]
struct Said {
    bytes: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    date: Option<(i64, i64)>,
    attributes: Vec<(String, Vec<u8>)>,
}

/// Goes through an archive. `each` may read as much of the member as it likes.
pub fn each<R: Read, E: From<ImageError>>(
    archive: &mut tar::Archive<R>,
    mut each: impl FnMut(Member, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut said = Said::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => said.path = Some(said.name(&mut entry)?),
            EntryType::GNULongLink => said.link = Some(said.name(&mut entry)?),
            EntryType::XHeader => said.extend(&mut entry)?,
            EntryType::XGlobalHeader => drop(said.read(&mut entry)?),
            EntryType::GNUSparse => return Err(invalid(SPARSE).into()),
            _ => {
                let member = std::mem::take(&mut said).member(entry.header())?;
                each(member, &mut entry)?;
            }
        }
    }
    match said.bytes {
        0 => Ok(()),
        _ => Err(invalid("it ends before the member that its last header is about").into()),
    }
}

impl Said {
    fn read(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, ImageError> {
        self.bytes = self.bytes.saturating_add(entry.size()).saturating_add(1);
        if self.bytes > EXTENSION_BYTES_MAX {
            return Err(invalid("it says more about one member than is sane"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }

    fn name(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, ImageError> {
        let mut name = self.read(entry)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// A header of POSIX's extended form.
    fn extend(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), ImageError> {
        let bytes = self.read(entry)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (key, value, further) = record(rest).ok_or_else(|| invalid("an extended header is malformed"))?;
            rest = further;
            let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"uid" => self.uid = Some(number().ok_or_else(|| invalid("an owner is no number"))?),
                b"gid" => self.gid = Some(number().ok_or_else(|| invalid("a group is no number"))?),
                b"size" => self.size = Some(number().ok_or_else(|| invalid("a size is no number"))?),
                b"mtime" => self.date = std::str::from_utf8(value).ok().and_then(date),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(invalid(SPARSE));
                }
                _ => {
                    let attribute = key.strip_prefix(b"SCHILY.xattr.").and_then(|key| std::str::from_utf8(key).ok());
                    if let Some(attribute) = attribute {
                        self.attributes.push((attribute.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    fn member(self, header: &Header) -> Result<Member, ImageError> {
        // The library reads on by the header's size: another one would have the archive read differently elsewhere.
        if self.size.is_some_and(|size| header.entry_size().ok() != Some(size)) {
            return Err(invalid("a member is larger than its header can say (8 GiB)"));
        }
        let kind = header.entry_type();
        let link = self.link.or_else(|| header.link_name_bytes().map(Into::into));
        let is_link = kind.is_symlink() || kind.is_hard_link();
        let seconds = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
        Ok(Member {
            path: path(&self.path.unwrap_or_else(|| header.path_bytes().into()))?,
            link: link.filter(|_| is_link).map(|link| path(&link)).transpose()?,
            kind,
            mode: header.mode().map_err(broken)?,
            uid: self.uid.map_or_else(|| header.uid(), Ok).map_err(broken)?,
            gid: self.gid.map_or_else(|| header.gid(), Ok).map_err(broken)?,
            date: self.date.unwrap_or((seconds, 0)),
            attributes: self.attributes,
        })
    }
}

fn path(bytes: &[u8]) -> Result<PathBuf, ImageError> {
    if bytes.contains(&0) {
        return Err(invalid("a path holds a NUL"));
    }
    Ok(OsStr::from_bytes(bytes).into())
}

/// The first record of an extended header, `LENGTH KEY=VALUE` and a line's end, and what follows it. The
/// length counts: a value may hold anything, ends of lines too, which the library's own reader does not know.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
    let (record, further) = bytes.split_at_checked(length)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], further))
}

/// `1700000000.123456789`, or without the part behind the point.
fn date(text: &str) -> Option<(i64, i64)> {
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let nanos: String = rest.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some((seconds.parse().ok()?, nanos.parse::<u32>().ok()?.into()))
}

fn invalid(what: &str) -> ImageError {
    ImageError::Invalid(format!("the archive cannot be read: {what}"))
}

fn broken(error: io::Error) -> ImageError {
    ImageError::Invalid(format!("the archive cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says() {
        assert_eq!(record(b"8 a=b\nc\n5 x=\n"), Some((&b"a"[..], &b"b\nc"[..], &b"5 x=\n"[..])));
        for bad in ["", "x", "5", "5 a=b", "99 a=b\n", "0 a=b\n", "3 \n", "6 ab\n\n", "99999999999999999999 a=b\n"] {
            assert_eq!(record(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn dates_have_fractions() {
        assert_eq!(date("17"), Some((17, 0)));
        assert_eq!(date("17.5"), Some((17, 500_000_000)));
        assert_eq!(date("17.0000000019"), Some((17, 1)));
        assert_eq!(date("-3.25"), Some((-3, 250_000_000)));
        assert_eq!((date("x"), date("1.x")), (None, None));
    }
}
