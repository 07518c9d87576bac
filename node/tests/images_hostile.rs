//! Archives made to do harm: each is refused, says why, and leaves nothing behind, here or anywhere.

mod images_support;

use std::fs;
use std::io::Write;
use std::path::Path;

use images_support::*;
use rialto_node::executor::images::{ImageError, Images, Naming, Settings};
use serde_json::json;
use tar::EntryType;

/// What one image may unpack to here.
const BYTES_MAX: u64 = 8 << 20;
const ENTRIES_MAX: u64 = 500;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Imports what must be refused; nothing may be left of it.
fn refused(what: &str, archive: &[u8], wanted: &str) {
    let data = tempfile::tempdir().unwrap();
    let settings = Settings { bytes_max: Some(BYTES_MAX), entries_max: Some(ENTRIES_MAX), ..Default::default() };
    let images = Images::with(data.path(), settings).unwrap();
    let error = images.import(Naming::As("bad"), archive).unwrap_err();
    assert!(matches!(error, ImageError::Invalid(_)), "{what}: {error:?}");
    assert!(error.to_string().contains(wanted), "{what}: {wanted:?} in {error}");
    assert!(images.list().is_empty(), "{what}");
    for left in ["incoming", "layers", "names", "unsettled", "partial"] {
        let left_over = fs::read_dir(data.path().join("executor/images").join(left)).unwrap().count();
        assert_eq!(left_over, 0, "{what}: {left}");
    }
}

fn image_of(layer: Vec<u8>) -> Vec<u8> {
    Layout::new().image(&[layer], json!({})).archive()
}

fn good() -> Layout {
    Layout::new().image(&[Layer::new().file("a", b"x").done()], json!({}))
}

/// A good layout with something else in place of one of its files.
fn with(path: &str, bytes: Option<&[u8]>) -> Vec<u8> {
    let layout = good();
    match bytes {
        Some(bytes) => fs::write(layout.path().join(path), bytes).unwrap(),
        None => fs::remove_file(layout.path().join(path)).unwrap(),
    }
    layout.archive()
}

fn cut(mut archive: Vec<u8>, of: usize) -> Vec<u8> {
    archive.truncate(archive.len() / of);
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    pack(0, bytes)
}

/// So many zeros, as gzip makes them small.
fn zeros(bytes: usize) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![0; 1 << 20];
    (0..bytes >> 20).for_each(|_| packed.write_all(&block).unwrap());
    packed.finish().unwrap()
}

/// A header and nothing of what it promises.
fn header(kind: EntryType, name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// An extended header that says one thing of the next member.
fn says(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}").into_bytes()
}

#[test]
fn archives_that_are_no_images() {
    if !is_root() {
        return;
    }
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", hex(bytes));
    let docker = |manifest: serde_json::Value| Layer::new().file("manifest.json", manifest.to_string().as_bytes());
    let id = "0".repeat(64);
    let a_blob = |layout: &Layout| {
        let first = fs::read_dir(layout.path().join("blobs/sha256")).unwrap().flatten().next().unwrap();
        format!("blobs/sha256/{}", first.file_name().to_str().unwrap())
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("rubbish", b"rubbish".to_vec(), "cannot be read"),
        ("nothing", Vec::new(), "oci-layout"),
        ("upwards", Layer::new().file("../oci-layout", b"{}").done(), "leads out"),
        ("absolute", Layer::new().file("/etc/oci-layout", b"{}").done(), "leads out"),
        ("link", Layer::new().link("index.json", "/etc/shadow").done(), "link"),
        ("hard link", Layer::new().hard_link("index.json", "/etc/shadow").done(), "link"),
        ("device", Layer::new().entry(EntryType::Char, "index.json", 0o666, 0, b"", None).done(), "no file"),
        ("fifo", Layer::new().entry(EntryType::Fifo, "index.json", 0o666, 0, b"", None).done(), "no file"),
        ("no digest", Layer::new().file("blobs/sha256/x", b"{}").done(), "no digest"),
        ("a digest upwards", Layer::new().file("blobs/sha256/..", b"{}").done(), "leads out"),
        ("wrong digest", Layer::new().file(&blob(b"a"), b"b").done(), "has the digest"),
        ("torn index", with("index.json", Some(b"{")), "index"),
        ("no layout", with("oci-layout", None), "oci-layout"),
        ("other layout", with("oci-layout", Some(br#"{"imageLayoutVersion":"2.0"}"#)), "version"),
        ("endless document", with("index.json", Some(&vec![b' '; 5 << 20])), "larger"),
        (
            "missing blob",
            {
                let layout = good();
                let blob = a_blob(&layout);
                fs::remove_file(layout.path().join(blob)).unwrap();
                layout.archive()
            },
            "",
        ),
        ("half", cut(good().archive(), 2), ""),
        ("half of a gzip", cut(gzip(&good().archive()), 2), ""),
        (
            "too many",
            {
                let mut layer = Layer::new();
                for n in 0..10_001 {
                    layer = layer.file(&format!("x{n}"), b"");
                }
                layer.done()
            },
            "more than",
        ),
        ("docker without its files", docker(json!([{"Config": format!("{id}.json"), "Layers": []}])).done(), "lacks"),
        ("docker by a path", docker(json!([{"Config": "../../etc/shadow", "Layers": []}])).done(), "lacks"),
        ("docker of nothing", docker(json!([])).done(), "no image"),
        ("docker's link outside", docker(json!([])).link(&format!("{id}/layer.tar"), "/etc/shadow").done(), "link"),
        (
            "docker's link to nothing",
            docker(json!([{"Config": format!("{id}.json"), "Layers": [format!("{id}/layer.tar")]}]))
                .file(&format!("{id}.json"), b"{}")
                .link(&format!("{id}/layer.tar"), &format!("../{id}.tar"))
                .done(),
            "lacks",
        ),
    ];
    for (what, archive, wanted) in cases {
        refused(what, &archive, wanted);
    }
}

#[test]
fn layers_that_reach_out() {
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), b"kept").unwrap();
    let target = outside.path().to_str().unwrap();
    let up = "../../../../../../../..";
    let pax = |key: &str, value: &str| Layer::new().entry(EntryType::XHeader, "pax", 0o644, 0, &says(key, value), None);
    let cases: Vec<(&str, Layer, &str)> = vec![
        ("upwards", Layer::new().file("../../escaped", b"x"), "leads out"),
        ("absolute", Layer::new().file("/escaped", b"x"), "leads out"),
        ("down and up", Layer::new().file("a/../../escaped", b"x"), "leads out"),
        ("upwards by an extension", pax("path", "../escaped").file("a", b"x"), "leads out"),
        (
            "absolute by a long name",
            Layer::new().entry(EntryType::GNULongName, "l", 0, 0, b"/escaped\0", None).file("a", b"x"),
            "leads out",
        ),
        // Through a link that an earlier entry made: nothing is there within the layer.
        ("link, then file", Layer::new().link("door", target).file("door/escaped", b"x"), "door"),
        ("link upwards, then folder", Layer::new().link("door", &format!("{up}/tmp")).dir("door/escaped"), "door"),
        ("link of a link", Layer::new().link("one", target).link("two", "one").file("two/escaped", b"x"), "two"),
        ("link through a folder", Layer::new().dir("a").link("a/b", target).file("a/b/escaped", b"x"), "a/b"),
        ("magic link", Layer::new().link("proc", "/proc/self/root").file("proc/tmp/escaped", b"x"), "proc"),
        ("circle", Layer::new().link("a", "b").link("b", "a").file("a/x", b"x"), "a/x"),
        ("whiteout through a link", Layer::new().link("door", target).file("door/.wh.kept", b""), "door"),
        ("opaque through a link", Layer::new().link("door", target).file("door/.wh..wh..opq", b""), "door"),
        ("hard link outside", Layer::new().hard_link("shadow", "/etc/shadow"), "leads out"),
        ("hard link upwards", Layer::new().hard_link("shadow", &format!("{up}/etc/shadow")), "leads out"),
        ("hard link through a link", Layer::new().link("etc", "/etc").hard_link("shadow", "etc/shadow"), "shadow"),
        ("hard link of a folder", Layer::new().dir("dir").hard_link("dir2", "dir"), "folder"),
        ("hard link to nothing", Layer::new().hard_link("a", "b"), "a:"),
        ("hard link without a target", Layer::new().entry(EntryType::Link, "a", 0o644, 0, b"", None), "nowhere"),
        ("linkpath by an extension", pax("linkpath", "/etc/shadow").hard_link("a", "b"), "leads out"),
        ("owner beyond numbers", pax("uid", "4294967295").file("a", b"x"), "owner"),
        ("a size that lies", pax("size", "5").file("a", b"x"), "larger than its header"),
        ("sparse", Layer::new().entry(EntryType::GNUSparse, "a", 0o644, 0, b"", None), "sparse"),
        ("sparse by an extension", pax("GNU.sparse.realsize", "99999999999").file("a", b"x"), "sparse"),
        ("an extension of nothing", pax("path", "a"), "ends before"),
    ];
    for (what, layer, wanted) in cases {
        refused(what, &image_of(layer.done()), wanted);
        let left: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["kept"], "{what}");
    }
    refused("no tar", &image_of(vec![0x41; 4096]), "");
    refused("torn", &image_of(cut(Layer::new().file("a", &[7; 4096]).done(), 3)), "");
    refused("torn in a header", &image_of(header(EntryType::Regular, "a", 0)[..100].to_vec()), "");
}

#[test]
fn layers_that_are_bombs() {
    if !is_root() {
        return;
    }
    let many = |count: u64| {
        let layer = (0..count).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), b""));
        layer.done()
    };
    // A layer's own packing: what unpacks to more than its image may have, whoever promises what.
    let bomb = |mut head: Vec<u8>, tail: usize| {
        head.extend(vec![0; tail]);
        head
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("one large file", bomb(header(EntryType::Regular, "a", 64 << 20), 64 << 20), "more bytes"),
        ("bytes behind the end", bomb(Layer::new().file("a", b"x").done(), 16 << 20), "more bytes"),
        ("more entries than may be", many(ENTRIES_MAX + 1), "more entries"),
        ("a long name without an end", bomb(header(EntryType::GNULongName, "l", 2 << 20), 4 << 20), "than is sane"),
        ("a long link without an end", bomb(header(EntryType::GNULongLink, "l", 2 << 20), 4 << 20), "than is sane"),
        ("an extension without an end", bomb(header(EntryType::XHeader, "x", 2 << 20), 4 << 20), "than is sane"),
        ("a global one", bomb(header(EntryType::XGlobalHeader, "g", 2 << 20), 4 << 20), "than is sane"),
        ("an extension of exabytes", header(EntryType::XHeader, "x", 1 << 60), "than is sane"),
        (
            "many extensions of one member",
            {
                let one = bomb(header(EntryType::XHeader, "x", 512 << 10), 512 << 10);
                [one.clone(), one.clone(), one].concat()
            },
            "",
        ),
    ];
    for (what, layer, wanted) in cases {
        refused(what, &image_of(layer), wanted);
    }
    // The sum over all layers counts.
    let layers: Vec<_> = (0..3).map(|seed| Layer::new().file("a", &vec![seed; 3 << 20]).done()).collect();
    refused("three layers", &Layout::new().image(&layers, json!({})).archive(), "more bytes");
    let layers: Vec<_> = (0..3)
        .map(|seed| {
            let layer = Layer::new().dir(&format!("d{seed}"));
            (0..200).fold(layer, |layer, n| layer.file(&format!("f{n}"), b"")).done()
        })
        .collect();
    refused("three layers of entries", &Layout::new().image(&layers, json!({})).archive(), "more entries");
    // The archive itself: a gigabyte in a megabyte, of which nothing is an image.
    refused("zeros", &zeros(1 << 30), "oci-layout");
}

/// A layer whose bytes are right and whose image promises another one.
#[test]
fn a_layer_that_is_another_one() {
    if !is_root() {
        return;
    }
    let layout = good();
    let read = |path: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let mut manifest = layout.manifest();
    let layer = Layer::new().file("a", b"not what was promised").done();
    manifest["layers"][0]["digest"] = layout.blob(&layer).into();
    manifest["layers"][0]["size"] = layer.len().into();
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut index = read(&layout.path().join("index.json"));
    index["manifests"][0]["digest"] = layout.blob(&manifest).into();
    index["manifests"][0]["size"] = manifest.len().into();
    fs::write(layout.path().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    refused("another layer", &layout.archive(), "not to sha256");
}

/// Devices are no harm and no use: a task has its devices from its container.
#[test]
fn devices_are_left_out() {
    if !is_root() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let layer = Layer::new()
        .dir("dev")
        .entry(EntryType::Char, "dev/mem", 0o666, 0, b"", None)
        .entry(EntryType::Block, "dev/sda", 0o666, 0, b"", None)
        .file("dev/file", b"x");
    images.import(Naming::As("devices"), &image_of(layer.done())[..]).unwrap();
    let layers = fs::read_dir(data.path().join("executor/images/layers")).unwrap().flatten();
    let names: Vec<_> = layers
        .flat_map(|layer| fs::read_dir(layer.path().join("dev")).unwrap().flatten())
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["file"]);
}
