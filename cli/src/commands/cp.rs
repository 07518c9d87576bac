//! `rialto cp`: files out of a container, and into it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rialto_client::{Client, Hearing, Saying};
use rialto_protocol::session::{FRAME_BYTES_MAX, Frame, Open};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use crate::args::Cp;
use crate::exit::{self, Exit, Failure};

/// Before the name of an extended attribute in an archive, as GNU tar writes it.
const ATTRIBUTE: &str = "SCHILY.xattr.";
/// Pieces of an archive between the thread that makes or reads it and the connection.
const PIECES: usize = 8;

pub async fn cp(client: &Client, cp: Cp) -> Result<(), Failure> {
    match (remote(&cp.from), remote(&cp.to)) {
        (Some((task, path)), None) => out_of(client, task, path, &cp.to, cp.archive).await,
        (None, Some((task, path))) => into(client, &cp.from, task, path, cp.archive).await,
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

async fn out_of(client: &Client, task: &str, path: &str, to: &str, kept: bool) -> Result<(), Failure> {
    let (mut hearing, _saying) = client.session(task, Open::Read { path: path.into() }).await?;
    if to == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::usage("an archive does not belong on a terminal: redirect it"));
        }
        return pour(&mut hearing, |bytes| async move { io::stdout().lock().write_all(&bytes) }).await;
    }
    let (send, pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let to = PathBuf::from(to);
    let unpacking = tokio::task::spawn_blocking(move || unpack(Pieces { pieces, held: Vec::new(), at: 0 }, &to, kept));
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
fn unpack(archive: impl Read, to: &Path, kept: bool) -> io::Result<()> {
    let into_folder = to.is_dir();
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(kept);
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
    // Where a name in the archive lies here; none: the folder itself.
    let target = |path: &Path| {
        let inner: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        if path.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(io::Error::other(format!("{}: leads out of the archive", path.display())));
        }
        let target = match &rename {
            Some(name) => name.join(inner.components().skip(1).collect::<PathBuf>()),
            None => inner,
        };
        // A link that the archive itself has laid must not lead anywhere either.
        let mut above = folder.clone();
        for part in target.parent().into_iter().flat_map(Path::components) {
            above.push(part);
            if fs::symlink_metadata(&above)?.is_symlink() {
                return Err(io::Error::other(format!("{}: a link is in the way", above.display())));
            }
        }
        let whole: PathBuf = folder.join(&target).components().collect();
        Ok((!target.as_os_str().is_empty()).then_some(whole))
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(whole) = target(&entry.path()?)? else { continue };
        let first = match entry.link_name()? {
            Some(first) if entry.header().entry_type().is_hard_link() => target(&first)?,
            _ => None,
        };
        if first.as_ref() == Some(&whole) {
            continue;
        }
        if first.is_some() || fs::symlink_metadata(&whole).is_ok_and(|found| found.is_symlink()) {
            match fs::remove_file(&whole) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match first {
            // Another name of a file that was copied before.
            Some(first) => fs::hard_link(first, &whole)?,
            None => {
                let attributes = attributes(&mut entry);
                entry.unpack(&whole)?;
                // Not every file system has them, nor may everybody set them all.
                attributes.iter().for_each(|(name, value)| drop(xattr::set(&whole, name, value)));
            }
        }
    }
    Ok(())
}

/// The extended attributes that belong to an entry wherever it goes.
fn attributes(entry: &mut tar::Entry<'_, impl Read>) -> Vec<(String, Vec<u8>)> {
    if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Directory) {
        return Vec::new();
    }
    let said = entry.pax_extensions().ok().flatten().into_iter().flatten().flatten();
    let named =
        said.filter_map(|one| Some((one.key().ok()?.strip_prefix(ATTRIBUTE)?.to_string(), one.value_bytes().to_vec())));
    named.filter(|(name, _)| travels(name)).collect()
}

fn travels(name: &str) -> bool {
    name.starts_with("user.") || name == "security.capability"
}

async fn into(client: &Client, from: &str, task: &str, path: &str, kept: bool) -> Result<(), Failure> {
    if from != "-" && fs::symlink_metadata(from).is_err() {
        return Err(Failure::new(Exit::NotFound, format!("{from}: there is no such file")));
    }
    let (hearing, saying) = client.session(task, Open::Write { path: path.into(), kept }).await?;
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
    let mut archive = Builder::new(outlet);
    // What is named may be a link; of what lies in it links stay links.
    add(&mut archive, path, &fs::metadata(path)?, &name, &mut HashMap::new())?;
    archive.into_inner()?.flush()
}

/// Adds a file, or a folder and all that is in it. `links`: files of several names, with the first.
fn add(
    archive: &mut Builder<Outlet>,
    from: &Path,
    found: &fs::Metadata,
    as_path: &Path,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let said = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    let mut header = Header::new_gnu();
    header.set_metadata(found);
    header.set_size(0);
    if found.is_dir() {
        add_attributes(archive, from)?;
        archive.append_data(&mut header, as_path, io::empty())?;
        for entry in fs::read_dir(from).map_err(said)? {
            let (name, path) = entry.map(|entry| (entry.file_name(), entry.path())).map_err(said)?;
            add(archive, &path, &fs::symlink_metadata(&path)?, &as_path.join(name), links)?;
        }
        return Ok(());
    }
    if found.nlink() > 1 {
        match links.entry((found.dev(), found.ino())) {
            Entry::Occupied(first) => {
                header.set_entry_type(EntryType::Link);
                return archive.append_link(&mut header, as_path, first.get());
            }
            Entry::Vacant(new) => drop(new.insert(as_path.to_owned())),
        }
    }
    if found.is_symlink() {
        return archive.append_link(&mut header, as_path, fs::read_link(from)?);
    }
    // What else there is holds no data.
    if found.is_file() {
        let file = File::open(from).map_err(said)?;
        let bytes = file.metadata()?.len();
        header.set_size(bytes);
        add_attributes(archive, from)?;
        // As long as its head says, however it grows or shrinks meanwhile.
        archive.append_data(&mut header, as_path, file.chain(io::repeat(0)).take(bytes))?;
    }
    Ok(())
}

fn add_attributes(archive: &mut Builder<Outlet>, from: &Path) -> io::Result<()> {
    // A file system may have none.
    let names = xattr::list(from).into_iter().flatten().filter_map(|name| name.into_string().ok());
    let named: Vec<(String, Vec<u8>)> = (names.filter(|name| travels(name)))
        .filter_map(|name| Some((format!("{ATTRIBUTE}{name}"), xattr::get(from, &name).ok()??)))
        .collect();
    match named.is_empty() {
        true => Ok(()),
        false => archive.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), value.as_slice()))),
    }
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
        unpack(&file[..], folder.path(), false).unwrap();
        unpack(&file[..], &folder.path().join("other"), false).unwrap();
        for name in ["hosts", "other"] {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "x");
        }
        assert!(unpack(&file[..], &folder.path().join("no/such"), false).is_err());
        std::os::unix::fs::symlink("/tmp", folder.path().join("link")).unwrap();
        assert!(unpack(&archive(&[("link/evil", "x")])[..], folder.path(), false).is_err());
    }

    #[test]
    fn a_folder_comes_back_as_it_was() {
        let from = tempfile::tempdir().unwrap();
        let site = from.path().join("site");
        fs::create_dir(&site).unwrap();
        fs::write(site.join("a"), "one").unwrap();
        fs::hard_link(site.join("a"), site.join("b")).unwrap();
        std::os::unix::fs::symlink("a", site.join("c")).unwrap();
        let attributes = xattr::set(site.join("a"), "user.who", b"me").is_ok();
        let (send, mut pieces) = mpsc::channel(PIECES);
        pack(&site.to_string_lossy(), Outlet { send, held: Vec::new() }).unwrap();
        let mut archive = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            archive.extend(piece);
        }
        let to = tempfile::tempdir().unwrap();
        let copy = to.path().join("copy");
        // The second time over the first.
        for _ in 0..2 {
            unpack(&archive[..], &copy, false).unwrap();
            let of = |name: &str| fs::metadata(copy.join(name)).unwrap().ino();
            assert_eq!((of("a"), fs::metadata(copy.join("a")).unwrap().nlink()), (of("b"), 2));
            assert_eq!(fs::read_link(copy.join("c")).unwrap(), Path::new("a"));
            assert!(!attributes || xattr::get(copy.join("b"), "user.who").unwrap().as_deref() == Some(b"me"));
        }
        // A hostile one names a file of this machine.
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, "x", "../secret").unwrap();
        fs::write(to.path().join("secret"), "s").unwrap();
        assert!(unpack(&builder.into_inner().unwrap()[..], &copy, false).is_err() && !copy.join("x").exists());
    }
}
