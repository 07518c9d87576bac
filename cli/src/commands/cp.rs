//! `rialto cp`: files out of a container, and into it.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Component, Path, PathBuf};

use rialto_client::{Client, Hearing, Saying};
use rialto_protocol::session::{FRAME_BYTES_MAX, Frame, Open};
use tokio::sync::mpsc;

use crate::args::Cp;
use crate::exit::{self, Exit, Failure};

/// Pieces of an archive between the thread that makes or reads it and the connection.
const PIECES: usize = 8;

pub async fn cp(client: &Client, cp: Cp) -> Result<(), Failure> {
    match (remote(&cp.from), remote(&cp.to)) {
        (Some((task, path)), None) => out_of(client, task, path, &cp.to).await,
        (None, Some((task, path))) => into(client, &cp.from, task, path).await,
        (None, None) => Err(Failure::usage("neither side is in a container: write TASK:PATH for one of them")),
        (Some(_), Some(_)) => {
            let failure = Failure::usage("both sides are in containers: one has to be here");
            Err(failure.hint("rialto cp A:/x - | rialto cp - B:/y"))
        }
    }
}

/// `TASK:PATH`; a path of this machine that has a colon is written with a `./` before it.
fn remote(text: &str) -> Option<(&str, &str)> {
    let (task, path) = text.split_once(':')?;
    (!task.is_empty() && !task.contains('/')).then_some((task, path))
}

async fn out_of(client: &Client, task: &str, path: &str, to: &str) -> Result<(), Failure> {
    let (mut hearing, _saying) = client.session(task, Open::Read { path: path.into() }).await?;
    if to == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::usage("an archive does not belong on a terminal: redirect it"));
        }
        return pour(&mut hearing, |bytes| async move { io::stdout().lock().write_all(&bytes) }).await;
    }
    let (send, pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let to = PathBuf::from(to);
    let unpacking = tokio::task::spawn_blocking(move || unpack(Pieces { pieces, held: Vec::new(), at: 0 }, &to));
    let poured = pour(&mut hearing, |bytes| {
        let send = send.clone();
        // Who unpacks has failed, and says why below.
        async move { send.send(bytes).await.map_err(|_| io::ErrorKind::BrokenPipe.into()) }
    })
    .await;
    drop(send);
    let unpacked = unpacking.await.map_err(io::Error::other)?;
    match (poured, unpacked) {
        (Err(failure), _) if !failure.message.is_empty() => Err(failure),
        (_, Err(error)) => Err(Failure::new(Exit::Failed, error.to_string())),
        (poured, Ok(())) => poured,
    }
}

/// Everything that is heard until the end.
pub(super) async fn pour<F: Future<Output = io::Result<()>>>(
    hearing: &mut Hearing,
    mut put: impl FnMut(Vec<u8>) -> F,
) -> Result<(), Failure> {
    loop {
        match hearing.hear().await? {
            Some(Frame::Output(bytes)) => put(bytes).await?,
            Some(Frame::Ended(_)) => return Ok(()),
            Some(Frame::Failed(failed)) => return Err(Failure::new(exit::of_code(failed.code), failed.message)),
            Some(_) => {}
            None => return Err(Failure::new(Exit::Failed, "the connection broke off before everything was copied")),
        }
    }
}

/// Puts an archive's one top entry at `to`, or into it where it is a folder.
fn unpack(archive: impl Read, to: &Path) -> io::Result<()> {
    let into_folder = to.is_dir();
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    let (folder, rename) = match (into_folder, to.file_name()) {
        (false, Some(name)) => {
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (parent.to_path_buf(), Some(PathBuf::from(name)))
        }
        _ => (to.to_path_buf(), None),
    };
    if !folder.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{}: there is no such folder", folder.display())));
    }
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let inner: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        if path.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(io::Error::other(format!("{}: leads out of the archive", path.display())));
        }
        let target = match &rename {
            Some(name) => name.join(inner.components().skip(1).collect::<PathBuf>()),
            None => inner,
        };
        let target: PathBuf = target.components().collect();
        if target.as_os_str().is_empty() {
            continue;
        }
        // A link that the archive itself has laid must not lead anywhere either.
        let mut above = folder.clone();
        for part in target.parent().into_iter().flat_map(Path::components) {
            above.push(part);
            if fs::symlink_metadata(&above)?.is_symlink() {
                return Err(io::Error::other(format!("{}: a link is in the way", above.display())));
            }
        }
        let whole = folder.join(&target);
        if fs::symlink_metadata(&whole).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(&whole)?;
        }
        entry.unpack(&whole)?;
    }
    Ok(())
}

async fn into(client: &Client, from: &str, task: &str, path: &str) -> Result<(), Failure> {
    if from != "-" && fs::symlink_metadata(from).is_err() {
        return Err(Failure::new(Exit::NotFound, format!("{from}: there is no such file")));
    }
    let (hearing, saying) = client.session(task, Open::Write { path: path.into() }).await?;
    let from = from.to_string();
    push(hearing, saying, move |outlet| pack(&from, outlet)).await
}

/// Sends an archive as it is made, and waits until it is taken.
pub(super) async fn push(
    mut hearing: Hearing,
    mut saying: Saying,
    pack: impl FnOnce(Outlet) -> io::Result<()> + Send + 'static,
) -> Result<(), Failure> {
    let (send, mut pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let packing = tokio::task::spawn_blocking(move || pack(Outlet { send, held: Vec::new() }));
    let mut broken = None;
    loop {
        tokio::select! {
            piece = pieces.recv(), if broken.is_none() => match piece {
                Some(bytes) => {
                    if let Err(error) = saying.say(&Frame::Input(bytes)).await {
                        // The other side says why it reads no more, if it can.
                        broken = Some(error);
                    }
                }
                None => break,
            },
            frame = hearing.hear() => match frame? {
                Some(Frame::Failed(failed)) => return Err(Failure::new(exit::of_code(failed.code), failed.message)),
                Some(_) => {}
                None => {
                    let why = broken.map_or_else(|| "the connection broke off".to_string(), |error| error.to_string());
                    return Err(Failure::new(Exit::Failed, why));
                }
            },
        }
    }
    packing.await.map_err(io::Error::other)?.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    saying.say(&Frame::InputEnd).await?;
    pour(&mut hearing, |_| async { Ok(()) }).await
}

/// An archive of one file or folder under its own name; of `-` what comes on stdin.
fn pack(from: &str, mut outlet: Outlet) -> io::Result<()> {
    if from == "-" {
        io::copy(&mut io::stdin().lock(), &mut outlet)?;
        return outlet.flush();
    }
    let path = Path::new(from);
    let whole = path.canonicalize()?;
    let name = path.file_name().or_else(|| whole.file_name()).map(PathBuf::from).unwrap_or_else(|| "root".into());
    let mut archive = tar::Builder::new(outlet);
    archive.follow_symlinks(false);
    match path.is_dir() {
        true => archive.append_dir_all(&name, path)?,
        false => archive.append_file(&name, &mut File::open(path)?)?,
    }
    archive.into_inner()?.flush()
}

/// An archive on its way to the connection.
pub(super) struct Outlet {
    send: mpsc::Sender<Vec<u8>>,
    held: Vec<u8>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME_BYTES_MAX - self.held.len());
        self.held.extend_from_slice(&bytes[..count]);
        if self.held.len() == FRAME_BYTES_MAX {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.send.blocking_send(held).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// An archive on its way from the connection.
struct Pieces {
    pieces: mpsc::Receiver<Vec<u8>>,
    held: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.held.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.held, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.held.len() - self.at);
        buffer[..count].copy_from_slice(&self.held[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_with_a_task_before_the_colon_is_far_away() {
        assert_eq!(remote("shop.web.1:/etc"), Some(("shop.web.1", "/etc")));
        for here in ["file", "./a:b", "/a:b", ":x", "-"] {
            assert_eq!(remote(here), None, "{here}");
        }
    }

    #[test]
    fn an_archive_is_put_beside_or_into() {
        let archive = |entries: &[(&str, &str)]| {
            let mut builder = tar::Builder::new(Vec::new());
            for (name, text) in entries {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o644);
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, name, text.as_bytes()).unwrap();
            }
            builder.into_inner().unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let file = archive(&[("hosts", "x")]);
        unpack(&file[..], folder.path()).unwrap();
        unpack(&file[..], &folder.path().join("other")).unwrap();
        for name in ["hosts", "other"] {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "x");
        }
        assert!(unpack(&file[..], &folder.path().join("no/such")).is_err());
        std::os::unix::fs::symlink("/tmp", folder.path().join("link")).unwrap();
        assert!(unpack(&archive(&[("link/evil", "x")])[..], folder.path()).is_err());
    }
}
