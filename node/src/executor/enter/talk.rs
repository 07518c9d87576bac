//! The session's connection, at the container's end.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rialto_protocol::session::{Decoder, FRAME_BYTES_MAX, Frame};

/// Frames over a connection. Reading waits unless told otherwise; writing always does: whoever reads slowly slows
/// the process that writes, and nothing piles up.
pub struct Talk {
    connection: UnixStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

/// What came of looking for a frame.
pub enum Heard {
    Frame(Frame),
    /// Nothing whole is here yet.
    Nothing,
    /// The client has gone.
    Gone,
}

impl Talk {
    pub fn new(connection: UnixStream) -> Self {
        Self { connection, decoder: Decoder::default(), buffer: vec![0; FRAME_BYTES_MAX] }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// Waits for the first frame.
    pub fn hear_first(&mut self) -> io::Result<Frame> {
        loop {
            match self.hear()? {
                Heard::Frame(frame) => return Ok(frame),
                Heard::Nothing => {}
                Heard::Gone => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// A frame that has come already; else reads once, which waits where nothing is there to be read.
    pub fn hear(&mut self) -> io::Result<Heard> {
        if let Some(frame) = self.held()? {
            return Ok(Heard::Frame(frame));
        }
        match self.connection.read(&mut self.buffer) {
            Ok(0) => Ok(Heard::Gone),
            Ok(count) => {
                self.decoder.push(&self.buffer[..count]);
                Ok(self.held()?.map_or(Heard::Nothing, Heard::Frame))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Heard::Nothing),
            Err(_) => Ok(Heard::Gone),
        }
    }

    /// A frame that has come already.
    pub fn held(&mut self) -> io::Result<Option<Frame>> {
        self.decoder.pull().map_err(io::Error::other)
    }

    pub fn say(&mut self, frame: &Frame) -> io::Result<()> {
        self.connection.write_all(&frame.encode())
    }

    /// The last word; then everything that may still come is taken in until the client goes, so that the word is not
    /// lost with the connection.
    pub fn say_last(&mut self, frame: &Frame) -> io::Result<()> {
        self.say(frame)?;
        self.connection.shutdown(std::net::Shutdown::Write)?;
        self.connection.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        while !matches!(self.connection.read(&mut self.buffer), Ok(0) | Err(_)) {}
        Ok(())
    }
}
