//! Images that tests put together: OCI layouts of layers of any kind, hostile ones too.
#![allow(dead_code)]

pub mod registry;

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

/// A layout that is being put together.
pub struct Layout {
    folder: tempfile::TempDir,
    /// How each layer is packed, in turn: by gzip (0), zstd (1) or not at all (2).
    packing: Vec<usize>,
}

impl Layout {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, packing: vec![0, 1, 2] }
    }

    /// All layers are packed by gzip, as the oldest tools expect.
    pub fn plain(self) -> Self {
        Self { packing: vec![0], ..self }
    }

    fn packing(&self, number: usize) -> usize {
        self.packing[number % self.packing.len()]
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn blob(&self, bytes: &[u8]) -> String {
        let hex = hex(bytes);
        fs::write(self.path().join("blobs/sha256").join(&hex), bytes).unwrap();
        format!("sha256:{hex}")
    }

    /// Finishes it: layers are tar streams, packed by gzip, zstd and not at all in turn.
    pub fn image(self, layers: &[Vec<u8>], config: serde_json::Value) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let manifest = self.made_for(architecture, layers, config);
        self.named(&[manifest])
    }

    /// Finishes it as an index of images of one layer each, one for each architecture.
    pub fn index(self, images: &[(&str, Vec<u8>)]) -> Self {
        let all: Vec<_> = images
            .iter()
            .map(|(architecture, layer)| {
                let mut manifest = self.made_for(architecture, std::slice::from_ref(layer), json!({}));
                manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
                manifest
            })
            .collect();
        let index =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": all});
        let index = serde_json::to_vec(&index).unwrap();
        let index = json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": self.blob(&index), "size": index.len()});
        self.named(&[index])
    }

    fn named(self, manifests: &[serde_json::Value]) -> Self {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.path().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        self
    }

    /// The image's manifest.
    pub fn manifest(&self) -> serde_json::Value {
        let read =
            |path: std::path::PathBuf| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
        let index = read(self.path().join("index.json"));
        let digest = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        read(self.path().join("blobs/sha256").join(digest))
    }

    fn made_for(&self, architecture: &str, layers: &[Vec<u8>], config: serde_json::Value) -> serde_json::Value {
        let packed: Vec<Vec<u8>> =
            layers.iter().enumerate().map(|(number, layer)| pack(self.packing(number), layer)).collect();
        let descriptors: Vec<_> = packed
            .iter()
            .enumerate()
            .map(|(number, layer)| json!({"mediaType": media_type(self.packing(number)), "digest": self.blob(layer), "size": layer.len()}))
            .collect();
        let ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": self.blob(&config), "size": config.len()},
            "layers": descriptors,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.blob(&manifest), "size": manifest.len(), "annotations": {"org.opencontainers.image.ref.name": "latest"}})
    }

    pub fn archive(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", self.path()).unwrap();
        archive.into_inner().unwrap()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    rialto_protocol::ids::hex(&Sha256::digest(bytes))
}

fn media_type(number: usize) -> String {
    format!("application/vnd.oci.image.layer.v1.tar{}", ["+gzip", "+zstd", ""][number % 3])
}

pub fn pack(number: usize, layer: &[u8]) -> Vec<u8> {
    match number % 3 {
        0 => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(layer).unwrap();
            packed.finish().unwrap()
        }
        1 => zstd::encode_all(layer, 1).unwrap(),
        _ => layer.to_vec(),
    }
}

/// A layer that is being put together.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub fn entry(
        mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        owner: u64,
        bytes: &[u8],
        link: Option<&str>,
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_000_000_000);
        header.set_size(bytes.len() as u64);
        // Written as it is: the library would refuse the paths that a hostile archive has.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, 0o644, 0, bytes, None)
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, 0o755, 0, b"", None)
    }

    pub fn link(self, path: &str, to: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, 0o777, 0, b"", Some(to))
    }

    pub fn hard_link(self, path: &str, to: &str) -> Self {
        self.entry(tar::EntryType::Link, path, 0o644, 0, b"", Some(to))
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
