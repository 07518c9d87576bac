//! Which registries are asked for an image, how, and with whose credentials: what a machine's
//! configuration and its `config.json` of Docker say.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::ImageError;
use super::name::{DOCKER_HUB, Reference};

/// Where Docker's own registry is served.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// What Docker calls it in its file of credentials.
const DOCKER_HUB_KEYS: [&str; 3] = ["index.docker.io", "docker.io", DOCKER_HUB_HOST];
/// The most bytes of a file of credentials.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The section `registries` of a machine's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Registries {
    /// Who is asked for a name without a registry, such as `docker.io`; without it nobody is.
    pub default: Option<String>,
    /// A file of credentials in the form of Docker's `config.json`.
    pub credentials: Option<PathBuf>,
    /// What is special about single registries, by `HOST[:PORT]`.
    pub host: BTreeMap<String, Host>,
}

/// What is special about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Host {
    /// Asked first, in this order: `HOST[:PORT]` each.
    pub mirrors: Vec<String>,
    /// Without TLS; by default only on this machine itself.
    pub plain_http: Option<bool>,
    /// A file with the certificates (PEM) that this registry's may come from, instead of the machine's own.
    pub ca: Option<PathBuf>,
    /// Instead of the general file of credentials.
    pub credentials: Option<PathBuf>,
}

/// One registry that may have an image.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `HOST[:PORT]`, for messages.
    pub host: String,
    /// `https://HOST[:PORT]`.
    pub base: String,
    pub ca: Option<PathBuf>,
    pub repository: String,
    /// A tag or a digest.
    pub version: String,
    pub credentials: Option<Credentials>,
}

/// What opens a registry. Never in a log.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// Exchanged for a token (OAuth 2).
    Identity(String),
    /// Shown as it is.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Registries {
    /// Whom to ask for an image, in order; empty for a bare name where no registry is the default.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, ImageError> {
        let Some(registry) = reference.registry.as_ref().or(self.default.as_ref()) else { return Ok(Vec::new()) };
        let there = reference.at(registry);
        let mirrors = self.host.get(registry).map(|host| host.mirrors.as_slice()).unwrap_or_default();
        mirrors.iter().chain([registry]).map(|host| self.endpoint(host, &there)).collect()
    }

    /// A registry, whatever it has.
    pub fn door(&self, registry: &str) -> Result<Endpoint, ImageError> {
        let nothing = Reference { registry: None, repository: String::new(), version: String::new(), digest: None };
        self.endpoint(registry, &nothing)
    }

    fn endpoint(&self, name: &str, there: &Reference) -> Result<Endpoint, ImageError> {
        let special = self.host.get(name).cloned().unwrap_or_default();
        let host = if name == DOCKER_HUB { DOCKER_HUB_HOST } else { name };
        let scheme = if special.plain_http.unwrap_or_else(|| is_loopback(host)) { "http" } else { "https" };
        let credentials = match special.credentials.as_ref().or(self.credentials.as_ref()) {
            Some(file) => credentials(file, name)?,
            None => None,
        };
        Ok(Endpoint {
            host: name.to_owned(),
            base: format!("{scheme}://{host}"),
            ca: special.ca,
            repository: there.repository.clone(),
            version: there.version.clone(),
            credentials,
        })
    }
}

/// Nobody listens in on a machine's conversation with itself.
fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.split(':').next().unwrap_or(host),
    };
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What the file has for a registry. A file that is not there has nothing.
fn credentials(file: &Path, registry: &str) -> Result<Option<Credentials>, ImageError> {
    let wrong = |reason: String| ImageError::Invalid(format!("the credentials in {}: {reason}", file.display()));
    let text = match fs::metadata(file).and_then(|found| {
        if found.len() > FILE_BYTES_MAX { Err(std::io::ErrorKind::FileTooLarge.into()) } else { fs::read(file) }
    }) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    // The parser's own words could quote the file.
    let stored: Stored = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("no JSON as Docker writes it, at line {}", error.line())))?;
    let is_it = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let key = key.split('/').next().unwrap_or(key);
        key == registry || (registry == DOCKER_HUB && DOCKER_HUB_KEYS.contains(&key))
    };
    let Some((_, entry)) = stored.auths.into_iter().find(|(key, _)| is_it(key)) else { return Ok(None) };
    entry.open().map_err(wrong)
}

#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Entry {
    fn open(self) -> Result<Option<Credentials>, String> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::Token(self.registrytoken)));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Identity(self.identitytoken)));
        }
        if !self.auth.is_empty() {
            let whole = BASE64_STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let (user, password) = whole
                .as_deref()
                .and_then(|whole| whole.split_once(':'))
                .ok_or("an `auth` is not `user:password` in base64")?;
            // Some writers end the password with a NUL.
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials::Password { user: user.to_owned(), password }));
        }
        // An entry without anything means that the secret is kept elsewhere.
        let is_there = !self.username.is_empty();
        Ok(is_there.then_some(Credentials::Password { user: self.username, password: self.password }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Registries {
        toml::from_str(toml).unwrap()
    }

    fn bases(registries: &Registries, name: &str) -> Vec<String> {
        let endpoints = registries.endpoints(&Reference::parse(name).unwrap()).unwrap();
        endpoints.into_iter().map(|endpoint| format!("{}/{}", endpoint.base, endpoint.repository)).collect()
    }

    #[test]
    fn a_name_says_whom_to_ask() {
        let none = Registries::default();
        assert!(bases(&none, "redis").is_empty());
        assert_eq!(bases(&none, "r.example/a/b"), ["https://r.example/a/b"]);
        assert_eq!(bases(&none, "127.0.0.1:5000/a"), ["http://127.0.0.1:5000/a"]);
        let own = read(
            "default = \"docker.io\"\n[host.\"docker.io\"]\nmirrors = [\"m.example:80\"]\n\
             [host.\"m.example:80\"]\nplain-http = true\n[host.localhost]\nplain-http = false",
        );
        assert_eq!(
            bases(&own, "redis:7"),
            ["http://m.example:80/library/redis", "https://registry-1.docker.io/library/redis"]
        );
        assert_eq!(bases(&own, "localhost/a"), ["https://localhost/a"]);
        assert!(toml::from_str::<Registries>("defualt = \"x\"").is_err());
    }

    #[test]
    fn credentials_are_found_as_docker_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let auth = BASE64_STANDARD.encode("ada:se:cret");
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}}, "r.example:5000": {{"identitytoken": "i"}},
               "empty.example": {{}}, "bad.example": {{"auth": "!"}}}}, "credsStore": "desktop"}}"#
        );
        fs::write(&file, text).unwrap();
        let of = |registry| credentials(&file, registry);
        let ada = Credentials::Password { user: "ada".into(), password: "se:cret".into() };
        assert_eq!(of(DOCKER_HUB).unwrap(), Some(ada.clone()));
        assert_eq!(of("r.example:5000").unwrap(), Some(Credentials::Identity("i".into())));
        assert_eq!((of("r.example").unwrap(), of("empty.example").unwrap()), (None, None));
        assert!(of("bad.example").is_err());
        assert_eq!(credentials(&folder.path().join("none"), "r.example").unwrap(), None);
        assert!(!format!("{ada:?}").contains("cret"));
    }
}
