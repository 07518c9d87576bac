//! What `docker save` writes: `manifest.json` beside configurations and layers under names of their own.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::ImageError;
use super::manifest::Named;

/// One image of an archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images of an archive.
pub fn read(manifest: &[u8]) -> Result<Vec<Saved>, ImageError> {
    let all: Vec<Saved> = serde_json::from_slice(manifest)
        .map_err(|error| ImageError::Invalid(format!("the archive's manifest.json cannot be read: {error}")))?;
    if all.is_empty() {
        return Err(ImageError::Invalid("the archive's manifest.json names no image".into()));
    }
    Ok(all)
}

impl Saved {
    /// What the archive calls it.
    pub fn names(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }

    /// The same image as OCI describes it. `files` is what came, by its path.
    pub fn manifest(&self, files: &BTreeMap<String, Named>) -> Result<Vec<u8>, ImageError> {
        let find = |path: &String| {
            files
                .get(path)
                .ok_or_else(|| ImageError::Invalid(format!("the archive lacks {path}, which its image needs")))
        };
        let of = |kind: &str, blob: &Named| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": blob.digest.to_string(), "size": blob.bytes});
        let layers: Vec<_> =
            self.layers.iter().map(|path| Ok(of("layer.v1.tar", find(path)?))).collect::<Result<_, ImageError>>()?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": of("config.v1+json", find(&self.config)?), "layers": layers,
        });
        Ok(manifest.to_string().into_bytes())
    }
}

/// Whether a file may be a part of an image that `docker save` wrote: nothing else is kept.
pub fn is_part(path: &[&str]) -> bool {
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match path {
        [file] => file.strip_suffix(".json").or_else(|| file.strip_suffix(".tar")).is_some_and(is_hex),
        [folder, "layer.tar"] => is_hex(folder),
        _ => false,
    }
}
