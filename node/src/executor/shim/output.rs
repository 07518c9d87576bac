//! What the container writes, on its way into the log.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::executor::folder::Folder;
use crate::executor::log_file::{FRAME_BYTES_MAX, Stream, Writer};
use crate::executor::process::wall_ms;

/// The reading ends of both streams, and the log.
pub struct Outputs {
    open: Vec<(Stream, std::fs::File)>,
    log: Writer,
    buffer: Vec<u8>,
}

impl Outputs {
    /// `streams`: what is read, and as which stream it is written down.
    pub fn new(folder: &Folder, bytes_max: u64, streams: Vec<(Stream, OwnedFd)>) -> io::Result<Self> {
        for (_, end) in &streams {
            fcntl(end.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            open: streams.into_iter().map(|(stream, end)| (stream, end.into())).collect(),
            log: Writer::create(folder.path(), bytes_max)?,
            buffer: vec![0; FRAME_BYTES_MAX],
        })
    }

    /// What to wait for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|(_, pipe)| pipe.as_fd())
    }

    /// Copies what is there now, by at most `reads_max` reads of each stream: a task that never
    /// pauses must not keep the shim from everything else.
    pub fn copy(&mut self, reads_max: usize, mut show: impl FnMut(Stream, &[u8])) {
        let Self { open, log, buffer } = self;
        open.retain_mut(|(stream, pipe)| {
            for _ in 0..reads_max {
                match pipe.read(buffer) {
                    // Nobody holds the other end any more.
                    Ok(0) => return false,
                    // A full disk loses output; the task goes on.
                    Ok(count) => {
                        let _ = log.write(*stream, &buffer[..count], wall_ms());
                        show(*stream, &buffer[..count]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
            true
        });
    }

    /// The log's end.
    pub fn end(&self) -> u64 {
        self.log.end()
    }
}
