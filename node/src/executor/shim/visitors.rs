//! The shim's side of the control socket: daemons of any version, and readers of the log.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::executor::control::{Answer, Ask, LINE_BYTES_MAX, State, line};
use crate::executor::folder::VERSION;

/// More than every daemon, and reader of the log, that can be of use.
const VISITORS_MAX: usize = 128;

/// Everybody at the socket.
pub struct Visitors {
    door: UnixListener,
    present: Vec<Visitor>,
    state: State,
}

struct Visitor {
    stream: UnixStream,
    read: Vec<u8>,
    watches: bool,
    /// Wants to know when the log reaches beyond this.
    awaits: Option<u64>,
    /// Wants to be attached to the task's streams.
    attaches: bool,
    gone: bool,
}

/// What a visitor wants of the container.
pub enum Order {
    Stop { grace_ms: u64 },
    Kill { signal: i32 },
    Renew { until_ms: u64 },
}

impl Visitors {
    pub fn new(door: UnixListener) -> Self {
        Self { door, present: Vec::new(), state: State::Starting }
    }

    /// What to wait for: the door first.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.door.as_fd()).chain(self.present.iter().map(|visitor| visitor.stream.as_fd()))
    }

    /// Tells those who watch how the task fares now. Those still at the door are let in first.
    pub fn set(&mut self, state: State) {
        self.state = state;
        let said = line(&Answer::State { state: self.state.clone() });
        for visitor in self.present.iter_mut().filter(|visitor| visitor.watches) {
            visitor.say(&said);
        }
        // Whoever has asked and was not heard yet hears of the end, too.
        drop(self.serve(None));
    }

    /// Lets in who waits, and hears everybody.
    pub fn serve(&mut self, log_end: Option<u64>) -> Vec<Order> {
        while let Ok((stream, _)) = self.door.accept() {
            // Root alone can reach the socket; anybody who was handed a connection is not root.
            let is_root =
                getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw());
            if is_root && self.present.len() < VISITORS_MAX && stream.set_nonblocking(true).is_ok() {
                self.present.push(Visitor {
                    stream,
                    read: Vec::new(),
                    watches: false,
                    awaits: None,
                    attaches: false,
                    gone: false,
                });
            }
        }
        let mut orders = Vec::new();
        for visitor in &mut self.present {
            for ask in visitor.hear() {
                orders.extend(visitor.answer(ask, &self.state));
            }
            visitor.tell_of_output(log_end);
        }
        self.present.retain(|visitor| !visitor.gone);
        orders
    }

    /// Those who are to be attached leave the others.
    pub fn leaving(&mut self) -> Vec<UnixStream> {
        let (leaving, staying) = std::mem::take(&mut self.present).into_iter().partition(|visitor| visitor.attaches);
        self.present = staying;
        leaving.into_iter().map(|visitor: Visitor| visitor.stream).collect()
    }

    /// Tells those who wait for output that there is some.
    pub fn tell_of_output(&mut self, log_end: u64) {
        self.present.iter_mut().for_each(|visitor| visitor.tell_of_output(Some(log_end)));
    }
}

impl Visitor {
    fn hear(&mut self) -> Vec<Ask> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.gone = true,
                Ok(count) => {
                    self.read.extend(&buffer[..count]);
                    if self.read.len() < LINE_BYTES_MAX {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => self.gone = true,
            }
            break;
        }
        let Some(last) = self.read.iter().rposition(|byte| *byte == b'\n') else {
            self.gone |= self.read.len() >= LINE_BYTES_MAX;
            return Vec::new();
        };
        let lines: Vec<u8> = self.read.drain(..=last).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap_or(Ask::Unknown)).collect()
    }

    fn answer(&mut self, ask: Ask, state: &State) -> Option<Order> {
        let ended = matches!(state, State::Ended { .. });
        let (answer, order) = match ask {
            Ask::Hello { version } => (Answer::Hello { version: version.min(VERSION) }, None),
            Ask::Status => (Answer::State { state: state.clone() }, None),
            Ask::Watch => {
                self.watches = true;
                (Answer::State { state: state.clone() }, None)
            }
            Ask::Output { after } => {
                self.awaits = Some(after);
                return None;
            }
            Ask::Attach if matches!(state, State::Running { .. }) => {
                self.attaches = true;
                (Answer::Done, None)
            }
            Ask::Attach => (Answer::Refused { reason: "the task does not run".into() }, None),
            Ask::Stop { .. } | Ask::Kill { .. } | Ask::Renew { .. } if ended => (Answer::Done, None),
            Ask::Stop { grace_ms } => (Answer::Done, Some(Order::Stop { grace_ms })),
            Ask::Renew { until_ms } => (Answer::Done, Some(Order::Renew { until_ms })),
            Ask::Kill { signal } if (1..=64).contains(&signal) => (Answer::Done, Some(Order::Kill { signal })),
            Ask::Kill { signal } => (Answer::Refused { reason: format!("there is no signal {signal}") }, None),
            Ask::Unknown => (Answer::Refused { reason: "this shim does not know that verb".into() }, None),
        };
        self.say(&line(&answer));
        order
    }

    fn tell_of_output(&mut self, log_end: Option<u64>) {
        if let (Some(after), Some(end)) = (self.awaits, log_end)
            && end > after
        {
            self.awaits = None;
            self.say(&line(&Answer::Output { end }));
        }
    }

    /// Whoever does not read what is said is let go: nobody makes a shim wait.
    fn say(&mut self, said: &[u8]) {
        self.gone |= !matches!(self.stream.write(said), Ok(count) if count == said.len());
    }
}
