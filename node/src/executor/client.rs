//! The daemon's side of a shim's control socket.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::control::{Answer, Ask, LINE_BYTES_MAX, line};
use super::folder::{Folder, VERSION};

/// Asks for the task's own streams: what follows on the connection is a session's.
pub async fn begin_attach(stream: &UnixStream) -> io::Result<()> {
    let ask = line(&Ask::Attach);
    write_whole(stream, &ask).await?;
    // Byte by byte: what follows the answer is not ours.
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.readable().await?;
        match stream.try_read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if answer.len() < LINE_BYTES_MAX => answer.push(byte[0]),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    match serde_json::from_slice(&answer)? {
        Answer::Done => Ok(()),
        Answer::Refused { reason } => Err(io::Error::new(io::ErrorKind::NotConnected, reason)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn write_whole(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A connection to one shim.
pub struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    /// A line that has not come whole yet: reading may be given up at any moment and gone on with.
    partial: Vec<u8>,
}

impl Client {
    /// Connects and agrees on a version.
    pub async fn connect(folder: &Folder) -> io::Result<Self> {
        let mut client = Self::over(folder.connect()?)?;
        client.say(&Ask::Hello { version: VERSION }).await?;
        Ok(client)
    }

    /// Takes a connection over; the greeting must follow.
    pub fn over(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        Ok(Self { read: BufReader::new(read), write, partial: Vec::new() })
    }

    /// Says something.
    pub async fn say(&mut self, ask: &Ask) -> io::Result<()> {
        self.write.write_all(&line(ask)).await
    }

    /// Hears the next answer, the greeting aside; `None` when the shim is gone. Giving up in
    /// between loses nothing.
    pub async fn hear(&mut self) -> io::Result<Option<Answer>> {
        loop {
            let left = (LINE_BYTES_MAX - self.partial.len().min(LINE_BYTES_MAX)) as u64;
            let count = (&mut self.read).take(left).read_until(b'\n', &mut self.partial).await?;
            if count == 0 {
                return match left {
                    0 => Err(io::Error::new(io::ErrorKind::InvalidData, "the shim's line has no end")),
                    _ => Ok(None),
                };
            }
            if self.partial.last() != Some(&b'\n') {
                continue;
            }
            let line = std::mem::take(&mut self.partial);
            match serde_json::from_slice(&line)? {
                Answer::Hello { .. } | Answer::Unknown => {}
                answer => return Ok(Some(answer)),
            }
        }
    }

    /// Asks and hears the answer.
    pub async fn ask(&mut self, ask: &Ask) -> io::Result<Answer> {
        self.say(ask).await?;
        self.hear().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
