//! What comes out of an image is what other tools make of it: umoci's trees, skopeo's archives.

mod images_support;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use images_support::registry::is_there;
use images_support::*;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rialto_node::executor::images::{Images, Naming};
use serde_json::json;
use tar::EntryType;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// One thing in a tree, as far as programs can see it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    date: (i64, i64),
    /// A file's content, or where a link leads.
    content: Vec<u8>,
    attributes: BTreeMap<String, Vec<u8>>,
    links: u64,
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, found) = (entry.path(), entry.metadata().unwrap());
            assert!(!found.file_type().is_char_device(), "{}: a whiteout shows", path.display());
            let content = match found.file_type() {
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                kind if kind.is_file() => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            if found.is_dir() {
                folders.push(path.clone());
            }
            let node = Seen {
                mode: found.mode(),
                owner: (found.uid(), found.gid()),
                date: (found.mtime(), found.mtime_nsec()),
                attributes: if found.is_symlink() { BTreeMap::new() } else { attributes(&path) },
                // overlayfs counts folders otherwise.
                links: if found.is_dir() { 0 } else { found.nlink() },
                content,
            };
            seen.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    seen
}

/// Those that a container can see; what tools keep beside for themselves is none of them.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let mut names = vec![0_u8; 4096];
    // SAFETY: the buffers have the lengths that are given, and the names are C strings.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(length).unwrap());
    let names = names.split(|byte| *byte == 0).map(|name| String::from_utf8(name.to_vec()).unwrap());
    let names = names
        .filter(|name| name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.umoci"));
    let value = |name: &str| {
        let (name, mut value) = (CString::new(name).unwrap(), vec![0_u8; 4096]);
        // SAFETY: as above.
        let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(usize::try_from(length).unwrap());
        value
    };
    names.map(|name| (name.clone(), value(&name))).collect()
}

/// The store's layers of an image, stacked as a container sees them, in a mount namespace of their own.
fn stacked(data: &Path, ids: Vec<String>) -> BTreeMap<PathBuf, Seen> {
    let layers = data.join("executor/images/layers");
    let at = tempfile::tempdir().unwrap();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let lower: Vec<_> = ids.iter().rev().map(|id| layers.join(&id[7..39]).display().to_string()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        mount(Some("overlay"), at.path(), Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())).unwrap();
        look(at.path())
    });
    thread.join().unwrap()
}

/// An extended header of one attribute.
fn attribute(layer: Layer, name: &str, value: &[u8]) -> Layer {
    let rest = [format!(" SCHILY.xattr.{name}=").as_bytes(), value, b"\n"].concat();
    let mut length = rest.len() + 2;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    layer.entry(EntryType::XHeader, "pax", 0o644, 0, &[length.to_string().into_bytes(), rest].concat(), None)
}

fn everything() -> Vec<Vec<u8>> {
    let long = format!("long/{}", "x".repeat(90));
    let deep = "deep/".repeat(15) + "file";
    let mut first = Layer::new()
        .dir("bin")
        .entry(EntryType::Regular, "bin/su", 0o4755, 0, b"su", None)
        .entry(EntryType::Regular, "bin/owned", 0o640, 1000, b"owned", None)
        .entry(EntryType::Directory, "tmp", 0o1777, 0, b"", None)
        .entry(EntryType::Directory, "home", 0o2750, 1000, b"", None)
        .entry(EntryType::Regular, "bin/pair", 0o640, 1000, b"pair", None)
        .hard_link("bin/same", "bin/pair")
        .link("link", "/bin/owned")
        .link("dangling", "../../nowhere")
        .entry(EntryType::Symlink, "home/link", 0o777, 1000, b"", Some("x"))
        .entry(EntryType::Fifo, "fifo", 0o600, 7, b"", None)
        .dir("long")
        .file(&long, b"long");
    for count in 1..=15 {
        first = first.dir(&"deep/".repeat(count));
    }
    first = first.file(&deep, b"deep");
    for (folder, files) in [("gone", 3), ("opaque", 3), ("mixed", 3), ("replaced", 1), ("again", 2)] {
        first = first.dir(folder);
        for n in 0..files {
            first = first.file(&format!("{folder}/{n}"), folder.as_bytes());
        }
    }
    first = first.file("file-to-folder", b"file").dir("folder-to-file").file("folder-to-file/x", b"x");
    first = attribute(first, "user.note", b"two\nlines").file("noted", b"x");
    first = attribute(first, "security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .file("capable", b"x");
    let second = Layer::new()
        .file(".wh.gone", b"")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .dir("mixed")
        .file("mixed/.wh.1", b"")
        .file("mixed/2", b"changed")
        .entry(EntryType::Regular, "bin/owned", 0o600, 1001, b"another", None)
        // A whiteout is about the layers below, wherever it stands.
        .file("replaced", b"now a file")
        .file("again/.wh.0", b"")
        .file("again/0", b"again")
        .file(".wh.link", b"")
        // Folders that the layer says nothing about are as they were below.
        .file("tmp/left", b"x")
        .file("home/new", b"x")
        .dir("folder")
        .dir("file-to-folder")
        .file("file-to-folder/inside", b"inside")
        .file("folder-to-file", b"file");
    let third = Layer::new()
        .file(".wh.mixed", b"")
        .dir("mixed")
        .file("mixed/only", b"only")
        .file(".wh.never", b"")
        .entry(EntryType::Directory, "home", 0o700, 1002, b"", None);
    vec![first.done(), second.done(), third.done()]
}

fn ids(layers: &[Vec<u8>]) -> Vec<String> {
    layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect()
}

#[test]
fn a_tree_is_the_one_that_umoci_makes() {
    if !is_root() || !is_there("umoci") {
        eprintln!("skipped: it takes root and umoci");
        return;
    }
    let layers = everything();
    let layout = Layout::new().plain().image(&layers, json!({}));
    let bundle = tempfile::tempdir().unwrap();
    let image = format!("{}:latest", layout.path().display());
    let done = Command::new("umoci").args(["unpack", "--image", &image]).arg(bundle.path().join("b")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let theirs = look(&bundle.path().join("b/rootfs"));
    let data = tempfile::tempdir().unwrap();
    Images::open(data.path()).unwrap().import_folder(Naming::As("all"), layout.path()).unwrap();
    let ours = stacked(data.path(), ids(&layers));
    let paths = |tree: &BTreeMap<PathBuf, Seen>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&ours), paths(&theirs));
    for (path, ours) in &ours {
        assert_eq!(ours, &theirs[path], "{}", path.display());
    }
    assert!(ours.len() > 40 && !ours[Path::new("noted")].attributes.is_empty());
    assert!(!ours[Path::new("capable")].attributes.is_empty());
}

#[test]
fn archives_of_other_tools_are_read_as_they_come() {
    if !is_root() || !is_there("skopeo") {
        eprintln!("skipped: it takes root and skopeo");
        return;
    }
    let layer = |seed: u8| Layer::new().file(&format!("f{seed}"), &[seed; 10_000]).done();
    let layers = vec![layer(1), layer(2), layer(1)];
    let layout = Layout::new().plain().image(&layers, json!({"Cmd": ["x"]}));
    let folder = tempfile::tempdir().unwrap();
    let copy = |to: &str| {
        let file = folder.path().join(to.split([':', '.']).next().unwrap());
        let kind = to.split(':').next().unwrap();
        let target = match to.split_once("::") {
            Some((_, name)) => format!("{kind}:{}:{name}", file.display()),
            None => format!("{kind}:{}", file.display()),
        };
        let from = format!("oci:{}", layout.path().display());
        let done =
            Command::new("skopeo").args(["copy", "--quiet", "--insecure-policy", &from, &target]).output().unwrap();
        assert!(done.status.success(), "{target}: {}", String::from_utf8_lossy(&done.stderr));
        fs::read(file).unwrap()
    };
    let docker = copy("docker-archive::shop/web:7");
    let oci = copy("oci-archive::web");
    let zstd = zstd::encode_all(&docker[..], 1).unwrap();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("docker's", docker.clone(), "shop/web:7"),
        ("docker's by gzip", pack(0, &docker), "shop/web:7"),
        ("docker's by zstd", zstd, "shop/web:7"),
        ("OCI's", oci.clone(), "web"),
        ("OCI's by gzip", pack(0, &oci), "web"),
    ];
    for (what, archive, name) in cases {
        let data = tempfile::tempdir().unwrap();
        let images = Images::open(data.path()).unwrap();
        let info = images.import(Naming::OwnOr(None), Trickle(&archive)).unwrap();
        assert_eq!(info.name, name, "{what}");
        let tree = stacked(data.path(), ids(&layers[..2]));
        assert_eq!(tree[Path::new("f2")].content, [2; 10_000], "{what}");
        let config = images.configuration(&info.name).unwrap();
        assert_eq!((config.command, config.layers.len()), (vec!["x".to_owned()], 3), "{what}");
        assert_eq!(images.import(Naming::As("own:1"), &archive[..]).unwrap().digest, info.digest, "{what}");
    }
}

/// A pipe: it gives what it has, and never all at once.
struct Trickle<'a>(&'a [u8]);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.0.len()).min(777);
        (&mut buffer[..count]).write_all(&self.0[..count])?;
        self.0 = &self.0[count..];
        Ok(count)
    }
}
