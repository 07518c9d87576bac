//! The person's own terminal, while something far away runs on it.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rialto_protocol::session::{FRAME_BYTES_MAX, Size};
use tokio::sync::mpsc;

/// Whether both ends of what a person sees are one.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// How large it is; 80 by 24 where it does not say.
pub fn size() -> Size {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills one structure of that type.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match asked == 0 && size.ws_col > 0 {
        true => Size { columns: size.ws_col, rows: size.ws_row },
        false => Size { columns: 80, rows: 24 },
    }
}

/// Every key goes to the other side. Dropping it gives the terminal back as it was.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    pub fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}

/// Asks on stderr for a line that is typed without being shown.
pub fn unseen_line(question: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(stdin.as_fd())?;
    let mut unseen = before.clone();
    unseen.local_flags.remove(LocalFlags::ECHO);
    unseen.local_flags.insert(LocalFlags::ECHONL);
    eprint!("{question}");
    tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &unseen)?;
    let _restored = Raw(before);
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    Ok(line)
}

/// What comes on stdin, piece by piece, until its end. The thread that reads is never waited for.
pub fn input() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if send.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receive
}
