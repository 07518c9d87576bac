//! `rialto image import`: a folder, a file or a pipe, sent while it is read.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use rialto_client::{Client, Naming};
use rialto_protocol::api::ImageRow;
use rialto_protocol::compose;
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure};

/// The archive is made no further ahead of the peer than this many pieces.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 256 << 10;

/// Sends an image to the peer.
pub async fn import(client: &Client, path: &Path, name: Option<String>) -> Result<ImageRow, Failure> {
    let source = open(path)?;
    let own = match &source {
        Source::Pipe => None,
        Source::Archive(_) | Source::Folder(_) => own_name(path),
    };
    // What the archive says of itself the peer reads, and refuses where nobody gives a name.
    let naming = name.as_deref().map_or(Naming::OwnOr(own.as_deref()), Naming::As);
    Ok(client.import(naming, archive(source)).await?.data)
}

/// The name of a folder or a file, if an image can have it.
fn own_name(path: &Path) -> Option<String> {
    let whole = fs::canonicalize(path).ok()?;
    let name = whole.file_name()?.to_str()?.to_lowercase();
    let endings = [".tar.gz", ".tar.zst", ".tgz", ".tar"];
    let name = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    compose::is_image_name(name).then(|| name.to_string())
}

/// What is imported.
enum Source {
    Folder(PathBuf),
    Archive(File),
    Pipe,
}

fn open(path: &Path) -> Result<Source, Failure> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            let failure = Failure::usage("nothing is piped in");
            return Err(failure.hint("for example: docker save web:1 | rialto image import -"));
        }
        return Ok(Source::Pipe);
    }
    let unreadable = |error: io::Error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Failure::new(exit, format!("{}: {error}", path.display()))
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(Source::Archive(File::open(path).map_err(unreadable)?));
    }
    if path.join("oci-layout").is_file() && path.join("index.json").is_file() {
        return Ok(Source::Folder(path.to_path_buf()));
    }
    let failure = Failure::new(Exit::Refused, format!("{} is no OCI image layout", path.display()));
    Err(failure.hint("a layout holds oci-layout, index.json and blobs/; 'skopeo copy' and 'buildah' make one"))
}

/// The image as a tar archive, made while it is sent.
fn archive(source: Source) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    // Reading files blocks, so a thread does it.
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, piece: Vec::new() };
        let made = match source {
            Source::Archive(mut file) => copy(&mut file, &mut pieces),
            Source::Pipe => copy(&mut io::stdin().lock(), &mut pieces),
            Source::Folder(folder) => pack(&folder, &mut pieces),
        };
        match made.and_then(|()| pieces.flush()) {
            Ok(()) => {}
            // The peer stopped listening, and its answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => drop(pieces.sender.blocking_send(Err(error))),
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) })
}

fn copy(from: &mut impl Read, to: &mut Pieces) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            read => to.write_all(&piece[..read])?,
        }
    }
}

fn pack(folder: &Path, to: &mut Pieces) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    // What is sent are contents: links would name files of this machine.
    archive.follow_symlinks(true);
    // Holes of files go as the zeros that they read as: a peer takes no sparse files.
    archive.sparse(false);
    archive.append_dir_all(".", folder)?;
    archive.finish()
}

/// A writer whose pieces go to the request.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece).into();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
