//! The log of one task: what it wrote, when, and on which stream, in the order in which it came.
//!
//! Two files, `log` and the older `log.1`, each at most half of the bound. A file begins with the
//! position of its first byte in everything ever written, so a reader never loses its place when
//! the older half is dropped. A frame is: wall clock in ms (8 bytes), stream (1), length (4), bytes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"rialtol1";
const HEAD: u64 = 16;
const FRAME_HEAD: usize = 13;
/// The longest run of bytes in one frame.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// Which of a task's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Something that a task wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub stream: Stream,
    pub bytes: Vec<u8>,
    /// Wall clock, ms.
    pub at: u64,
}

/// The one writer.
pub struct Writer {
    folder: PathBuf,
    file: File,
    base: u64,
    length: u64,
    half: u64,
}

impl Writer {
    /// Begins a new log in `folder`, of at most `bytes_max`.
    pub fn create(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        let half = (bytes_max / 2).max((FRAME_HEAD + FRAME_BYTES_MAX) as u64);
        let file = begin(folder, 0)?;
        Ok(Self { folder: folder.to_owned(), file, base: 0, length: 0, half })
    }

    /// Adds a frame of at most [`FRAME_BYTES_MAX`] bytes.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.length > 0 && self.length + (FRAME_HEAD + bytes.len()) as u64 > self.half {
            let next = self.base + self.length;
            // The new half is there before the old one makes way: a disk that is full changes nothing.
            let file = prepare(&self.folder, next)?;
            fs::rename(self.folder.join("log"), self.folder.join("log.1"))?;
            fs::rename(self.folder.join("log.new"), self.folder.join("log"))?;
            (self.file, self.base, self.length) = (file, next, 0);
        }
        let mut frame = Vec::with_capacity(FRAME_HEAD + bytes.len());
        frame.extend(at.to_le_bytes());
        frame.push(stream as u8);
        frame.extend((bytes.len() as u32).to_le_bytes());
        frame.extend(bytes);
        if let Err(error) = self.file.write_all(&frame) {
            // Half a frame would make those after it unreadable.
            self.file.set_len(HEAD + self.length)?;
            self.file.seek(SeekFrom::Start(HEAD + self.length))?;
            return Err(error);
        }
        self.length += frame.len() as u64;
        Ok(())
    }

    /// The position after the last frame.
    pub fn end(&self) -> u64 {
        self.base + self.length
    }
}

fn begin(folder: &Path, base: u64) -> io::Result<File> {
    let file = prepare(folder, base)?;
    fs::rename(folder.join("log.new"), folder.join("log"))?;
    Ok(file)
}

/// A reader must never meet a `log` without its head: it has another name until it has one.
fn prepare(folder: &Path, base: u64) -> io::Result<File> {
    let mut file = File::create(folder.join("log.new"))?;
    file.write_all(MAGIC)?;
    file.write_all(&base.to_le_bytes())?;
    Ok(file)
}

/// Reads what lies at and after `position`, at most about `bytes_max`; with it the position to go
/// on from. A log that does not exist is empty; what was dropped is skipped.
pub fn read(folder: &Path, position: u64, bytes_max: u64) -> io::Result<(Vec<Output>, u64)> {
    // The newer first: if the halves change places in between, the older is read twice, not never.
    let mut halves: Vec<(u64, File)> = Vec::new();
    for name in ["log", "log.1"] {
        let mut file = match File::open(folder.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut head = [0; HEAD as usize];
        file.read_exact(&mut head)?;
        if &head[..8] != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no log of a task"));
        }
        let base = u64::from_le_bytes(std::array::from_fn(|at| head[8 + at]));
        if halves.iter().all(|(other, _)| *other != base) {
            halves.push((base, file));
        }
    }
    halves.sort_unstable_by_key(|(base, _)| *base);
    let mut outputs = Vec::new();
    let mut next = position;
    let mut left = bytes_max;
    for (base, mut file) in halves {
        let end = base + file.metadata()?.len().saturating_sub(HEAD);
        next = next.max(base);
        if end <= next || left == 0 {
            continue;
        }
        file.seek(SeekFrom::Start(HEAD + next - base))?;
        let mut bytes = Vec::new();
        file.take(left.max((FRAME_HEAD + FRAME_BYTES_MAX) as u64)).read_to_end(&mut bytes)?;
        let read = frames(&bytes, &mut outputs)?;
        next += read;
        left = left.saturating_sub(read);
        if next < end {
            break;
        }
    }
    Ok((outputs, next))
}

/// Reads whole frames; how many bytes they took. A frame that is being written is left for later.
fn frames(mut bytes: &[u8], outputs: &mut Vec<Output>) -> io::Result<u64> {
    let all = bytes.len();
    while bytes.len() >= FRAME_HEAD {
        let at = u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        let stream = if bytes[8] == 0 { Stream::Stdout } else { Stream::Stderr };
        let length = u32::from_le_bytes(std::array::from_fn(|i| bytes[9 + i])) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this log is damaged"));
        }
        let Some(payload) = bytes.get(FRAME_HEAD..FRAME_HEAD + length) else { break };
        outputs.push(Output { stream, bytes: payload.to_vec(), at });
        bytes = &bytes[FRAME_HEAD + length..];
    }
    Ok((all - bytes.len()) as u64)
}

/// The last `lines` lines of what was written.
pub fn tail(mut outputs: Vec<Output>, lines: usize) -> Vec<Output> {
    if lines == 0 {
        return Vec::new();
    }
    let mut wanted = lines;
    for at in (0..outputs.len()).rev() {
        let bytes = &outputs[at].bytes;
        // The newline at the very end closes the last line, and begins none.
        let looked_at = if at + 1 == outputs.len() { bytes.len().saturating_sub(1) } else { bytes.len() };
        for index in (0..looked_at).rev() {
            if bytes[index] == b'\n' {
                wanted = wanted.saturating_sub(1);
                if wanted == 0 {
                    let kept = bytes[index + 1..].to_vec();
                    outputs[at].bytes = kept;
                    outputs.drain(..at);
                    outputs.retain(|output| !output.bytes.is_empty());
                    return outputs;
                }
            }
        }
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outputs: &[Output]) -> String {
        outputs.iter().map(|output| String::from_utf8_lossy(&output.bytes).into_owned()).collect()
    }

    #[test]
    fn what_is_written_is_read_from_any_place() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 0, 1000).unwrap(), (vec![], 0));
        let mut log = Writer::create(folder.path(), 1 << 20).unwrap();
        log.write(Stream::Stdout, b"one\n", 1).unwrap();
        let (first, next) = read(folder.path(), 0, 1000).unwrap();
        assert_eq!((text(&first).as_str(), next), ("one\n", log.end()));
        log.write(Stream::Stderr, b"two\n", 2).unwrap();
        let (second, next) = read(folder.path(), next, 1000).unwrap();
        assert_eq!(second, [Output { stream: Stream::Stderr, bytes: b"two\n".to_vec(), at: 2 }]);
        assert_eq!(read(folder.path(), next, 1000).unwrap(), (vec![], log.end()));
    }

    #[test]
    fn the_bound_holds_and_a_follower_keeps_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let bytes_max = 300_000;
        let mut log = Writer::create(folder.path(), bytes_max).unwrap();
        let mut seen = String::new();
        let mut next = 0;
        for count in 0..1000 {
            log.write(Stream::Stdout, format!("{count:0>1000}\n").as_bytes(), 0).unwrap();
            if count % 50 == 0 {
                let (outputs, to) = read(folder.path(), next, u64::MAX).unwrap();
                seen += &text(&outputs);
                next = to;
            }
        }
        seen += &text(&read(folder.path(), next, u64::MAX).unwrap().0);
        assert_eq!(seen.lines().count(), 1000);
        let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(size("log") + size("log.1") <= bytes_max + 2 * HEAD);
        let (all, end) = read(folder.path(), 0, u64::MAX).unwrap();
        assert_eq!(end, log.end());
        assert!(text(&all).ends_with("999\n") && text(&all).lines().count() < 300);
    }

    #[test]
    fn a_tail_counts_lines_over_frames() {
        let output = |text: &str| Output { stream: Stream::Stdout, bytes: text.into(), at: 0 };
        let all = vec![output("a\nb"), output("b\nc\n"), output("d")];
        assert_eq!(text(&tail(all.clone(), 0)), "");
        assert_eq!(text(&tail(all.clone(), 1)), "d");
        assert_eq!(text(&tail(all.clone(), 2)), "c\nd");
        assert_eq!(text(&tail(all.clone(), 3)), "bb\nc\nd");
        assert_eq!(text(&tail(all, 9)), "a\nbb\nc\nd");
    }

    #[test]
    fn a_damaged_log_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), b"short").unwrap();
        assert!(read(folder.path(), 0, 1000).is_err());
        let mut bytes = [&MAGIC[..], &[0; 8], &[0xff; 40]].concat();
        fs::write(folder.path().join("log"), &bytes).unwrap();
        assert!(read(folder.path(), 0, 1000).is_err());
        bytes.truncate(20);
        fs::write(folder.path().join("log"), &bytes).unwrap();
        assert_eq!(read(folder.path(), 0, 1000).unwrap(), (vec![], 0));
    }
}
