//! `rialto image`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use rialto_client::Client;
use rialto_protocol::api::ImageRow;
use rialto_protocol::compose;
use tokio::sync::mpsc;

use crate::args::Image;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use crate::{human, table};

/// The archive is made no further ahead of the peer than this many pieces.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 256 << 10;

pub async fn image(client: &Client, out: Output, image: Image) -> Result<(), Failure> {
    match image {
        Image::Ls => {
            let images = client.images().await?.data.images;
            if images.is_empty() {
                say("no images yet; add one by 'rialto image import DIR', or use 'host'");
            }
            out.data(&images, || rows(&images))
        }
        Image::Import { path, name } => {
            let source = open(&path)?;
            let name = match name {
                Some(name) => name,
                None => name_of(&path)?,
            };
            let image = client.import(&name, archive(source)).await?.data;
            say(format!("{} is imported: {}, {}", image.name, human::bytes(image.bytes), short(&image.digest)));
            out.data(&image, String::new)
        }
    }
}

fn rows(images: &[ImageRow]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let cells = |image: &ImageRow| {
        let machines = image.machines.join(", ");
        vec![image.name.clone(), short(&image.digest), human::bytes(image.bytes), machines]
    };
    table::table(&["NAME", "DIGEST", "SIZE", "MACHINES"], &[], &images.iter().map(cells).collect::<Vec<_>>())
}

fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

/// The name that the layout's index gives its image, or else the folder's or file's own.
fn name_of(path: &Path) -> Result<String, Failure> {
    let annotated = || {
        let index: serde_json::Value = serde_json::from_slice(&fs::read(path.join("index.json")).ok()?).ok()?;
        let annotations = index.get("manifests")?.get(0)?.get("annotations")?;
        let named = |key: &str| annotations.get(key)?.as_str().filter(|name| compose::is_image_name(name));
        named("io.containerd.image.name").or_else(|| named("org.opencontainers.image.ref.name")).map(str::to_string)
    };
    let own = || {
        let whole = fs::canonicalize(path).ok()?;
        let name = whole.file_name()?.to_str()?.to_lowercase();
        let name = name.strip_suffix(".tar").unwrap_or(&name);
        compose::is_image_name(name).then(|| name.to_string())
    };
    // `latest` alone is a tag and names nothing.
    annotated().filter(|name| name != "latest").or_else(own).ok_or_else(|| {
        let message = format!("{} gives the image no name", path.display());
        Failure::new(Exit::Refused, message).hint("add --name NAME")
    })
}

/// What is imported.
enum Source {
    Folder(PathBuf),
    Archive(File),
}

fn open(path: &Path) -> Result<Source, Failure> {
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

fn copy(from: &mut File, to: &mut Pieces) -> io::Result<()> {
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
