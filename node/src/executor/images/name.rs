//! Names of images, and what they mean to registries.

use rialto_protocol::model::app::registry_of;

use super::ImageError;
use super::blob::Digest;

/// Name, tag and digest together; a file of that name with an ending must be possible.
const BYTES_MAX: usize = 240;
/// The registry that bare names mean to people, and where its images really are.
pub const DOCKER_HUB: &str = "docker.io";

/// Names as registries have them: words with `.`, `_`, `-`, `/` and `:`, capitals only in the tag,
/// and at the end perhaps `@` and a digest.
pub fn check_name(name: &str) -> Result<(), ImageError> {
    let (bare, digest) = name.split_once('@').map_or((name, None), |(bare, digest)| (bare, Some(digest)));
    let (path, tag) = split_tag(bare);
    let in_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
    let in_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_good = name.len() <= BYTES_MAX
        && path.chars().all(in_path)
        && tag.is_none_or(|tag| !tag.is_empty() && tag.chars().all(in_tag))
        && digest.is_none_or(|digest| Digest::parse(digest).is_some())
        && path.starts_with(|c: char| c.is_ascii_alphanumeric())
        && path.split('/').all(|word| !word.is_empty() && word != "." && word != "..");
    match name {
        "host" => Err(ImageError::Invalid("`host` is the machine itself and no image".into())),
        _ if is_good => Ok(()),
        _ => Err(ImageError::Invalid(format!("{name:?} is no name of an image: a-z, 0-9 and . _ - / : make one"))),
    }
}

/// A name as people write it: other tools put Docker's own registry before what has none.
pub fn familiar(name: &str) -> &str {
    let bare = name.strip_prefix(DOCKER_HUB).and_then(|rest| rest.strip_prefix('/'));
    bare.map_or(name, |bare| bare.strip_prefix("library/").unwrap_or(bare))
}

/// An image as a registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `HOST[:PORT]`; none for a bare name.
    pub registry: Option<String>,
    pub repository: String,
    /// A tag, or a digest where one is named.
    pub version: String,
    /// The digest that is named.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`. The first word is a host where it has a dot or
    /// a port or is `localhost`, as everywhere.
    pub fn parse(name: &str) -> Result<Self, ImageError> {
        check_name(name)?;
        let (bare, digest) = name.split_once('@').map_or((name, None), |(bare, digest)| (bare, Digest::parse(digest)));
        let (path, tag) = split_tag(bare);
        let (registry, repository) = match registry_of(path) {
            Some(host) => (Some(host.to_owned()), &path[host.len() + 1..]),
            None => (None, path),
        };
        if repository.contains(':') {
            return Err(ImageError::Invalid(format!("{name:?} has a colon where a registry takes none")));
        }
        let version = digest.as_ref().map_or_else(|| tag.unwrap_or("latest").to_owned(), Digest::to_string);
        Ok(Self { registry, repository: repository.to_owned(), version, digest })
    }

    /// The same at a registry; Docker's own keeps its official images in a folder.
    pub fn at(&self, registry: &str) -> Self {
        let mut there = Self { registry: Some(registry.to_owned()), ..self.clone() };
        if registry == DOCKER_HUB && !there.repository.contains('/') {
            there.repository = format!("library/{}", there.repository);
        }
        there
    }
}

/// A colon behind the last slash begins the tag.
fn split_tag(bare: &str) -> (&str, Option<&str>) {
    match bare.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (bare, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_anywhere() {
        let digest = Digest::of(b"");
        for good in ["web", "web:1", "registry.example/shop/web:1.2-RC_3", &format!("web@{digest}")] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "host",
            "../x",
            "a/../b",
            "/a",
            "a//b",
            "A",
            "a b",
            "a+b",
            ".",
            "a/.",
            "web:",
            "web@",
            "web@sha256:1",
            "web@../../x",
            &"a".repeat(300),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dockers_own_registry_goes_without_saying() {
        for (name, short) in [
            ("docker.io/library/redis:7", "redis:7"),
            ("docker.io/a/b", "a/b"),
            ("r.example/library/x", "r.example/library/x"),
        ] {
            assert_eq!(familiar(name), short);
        }
    }

    #[test]
    fn a_host_has_a_dot_or_a_port() {
        let digest = Digest::of(b"").to_string();
        let read = |name: &str| {
            let Reference { registry, repository, version, .. } = Reference::parse(name).unwrap();
            (registry.unwrap_or_default(), repository, version)
        };
        let is = |host: &str, repository: &str, version: &str| (host.into(), repository.into(), version.into());
        assert_eq!(read("web"), is("", "web", "latest"));
        assert_eq!(read("shop/web:1"), is("", "shop/web", "1"));
        assert_eq!(read("localhost/web"), is("localhost", "web", "latest"));
        assert_eq!(read("r.example:5000/a/b:V2"), is("r.example:5000", "a/b", "V2"));
        assert_eq!(read(&format!("r.example/a:1@{digest}")), is("r.example", "a", &digest));
        assert!(Reference::parse("a:1/b:2").is_ok() && Reference::parse("a/b:1:2").is_err());
        let hub = Reference::parse("redis:7").unwrap().at(DOCKER_HUB);
        assert_eq!((hub.registry.as_deref(), hub.repository.as_str()), (Some("docker.io"), "library/redis"));
    }
}
