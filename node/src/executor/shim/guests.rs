//! Those who are attached to the task's own streams: they see what it writes from now on, and what
//! they say is its input. The shim waits for nobody: a guest that does not read is let go.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use rialto_protocol::session::{Decoder, Frame, Open, Size};

use crate::executor::log_file::Stream;
use crate::executor::process::Pidfd;

/// More than this is not kept for a guest that reads slowly.
const OUT_BYTES_MAX: usize = 1 << 20;
/// More than this is not kept for a task that does not read.
const INPUT_BYTES_MAX: usize = 256 << 10;
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Everybody who is attached, and the task's input.
pub struct Guests {
    present: Vec<Guest>,
    /// None where the task's input is nobody's.
    input: Option<File>,
    pending: Vec<u8>,
    /// The task's streams are this terminal.
    terminal: Option<OwnedFd>,
}

struct Guest {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    speaks: bool,
    gone: bool,
}

impl Guests {
    pub fn new(input: Option<OwnedFd>, terminal: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(input) = &input {
            fcntl(input.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { present: Vec::new(), input: input.map(File::from), pending: Vec::new(), terminal })
    }

    /// Takes in somebody who came through the control socket.
    pub fn admit(&mut self, stream: UnixStream) {
        self.present.push(Guest { stream, decoder: Decoder::default(), out: Vec::new(), speaks: false, gone: false });
    }

    /// What to wait for, and whether it is only for room to write.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool, bool)> {
        let listens = self.pending.len() < INPUT_BYTES_MAX;
        let guests = self.present.iter().map(move |guest| (guest.stream.as_fd(), listens, !guest.out.is_empty()));
        let input = self.input.iter().filter(|_| !self.pending.is_empty()).map(|input| (input.as_fd(), false, true));
        guests.chain(input)
    }

    /// Shows everybody what the task wrote.
    pub fn show(&mut self, stream: Stream, bytes: &[u8]) {
        if self.present.is_empty() {
            return;
        }
        let bytes = bytes.to_vec();
        let frame = match stream {
            Stream::Stdout => Frame::Output(bytes),
            Stream::Stderr => Frame::ErrorOutput(bytes),
        };
        let said = frame.encode();
        self.present.iter_mut().for_each(|guest| guest.say(&said));
    }

    /// Hears everybody, and carries what they said.
    pub fn serve(&mut self, task: &Pidfd) {
        let mut present = std::mem::take(&mut self.present);
        for guest in &mut present {
            guest.flush();
            if self.pending.len() < INPUT_BYTES_MAX {
                for frame in guest.hear() {
                    self.take(guest, frame, task);
                }
            }
        }
        present.retain(|guest| !guest.gone);
        self.present = present;
        self.give();
    }

    fn take(&mut self, guest: &mut Guest, frame: Frame, task: &Pidfd) {
        match frame {
            Frame::Open(Open::Attach { input, size }) => {
                guest.speaks = input;
                size.iter().for_each(|size| self.resize(*size));
            }
            Frame::Resize(size) => self.resize(size),
            Frame::Input(bytes) if guest.speaks && self.input.is_some() => self.pending.extend(bytes),
            Frame::Signal(number) => drop(task.signal(i32::from(number.min(64)))),
            // The task's input stays open for the next one.
            Frame::Input(_) | Frame::InputEnd => {}
            _ => guest.gone = true,
        }
    }

    fn resize(&self, size: Size) {
        let Some(terminal) = &self.terminal else { return };
        let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the request reads one structure of that type.
        let _ = Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) });
    }

    /// Gives the task its input, as far as it takes it.
    fn give(&mut self) {
        while let Some(input) = self.input.as_mut().filter(|_| !self.pending.is_empty()) {
            match input.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It has closed its input.
                Err(_) => (self.input, self.pending) = (None, Vec::new()),
            }
        }
    }

    /// The task has ended with this code.
    pub fn farewell(&mut self, code: i32) {
        let said = Frame::Ended(code).encode();
        for guest in &mut self.present {
            guest.out.extend(&said);
            let _ = guest.stream.set_nonblocking(false);
            let _ = guest.stream.set_write_timeout(Some(FAREWELL));
            let _ = guest.stream.write_all(&guest.out);
        }
        self.present.clear();
    }
}

impl Guest {
    fn hear(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => self.decoder.push(&buffer[..count]),
            Err(error) => self.gone |= !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
        loop {
            match self.decoder.pull() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(_) => {
                    self.gone = true;
                    return frames;
                }
            }
        }
    }

    fn say(&mut self, said: &[u8]) {
        if self.out.len() + said.len() > OUT_BYTES_MAX {
            self.gone = true;
            return;
        }
        self.out.extend_from_slice(said);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}
