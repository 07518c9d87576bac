//! One repository of one registry, by HTTP: the OCI distribution specification's pulls, and Docker's
//! token authentication. reqwest is known here alone.
//!
//! `oci-client` would speak the same protocol, but it reads manifests, tokens and refusals whole into
//! memory, however long they are, and sends credentials to whatever address a registry names, in the
//! clear too: what a person may name freely must not be able to fill a peer's memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use http_auth::ChallengeParser;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Deserialize;

use super::blob::Digest;
use super::fetch::Bytes;
use super::registries::{Credentials, Endpoint};
use super::{DOCUMENT_BYTES_MAX, ImageError};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The longest silence in the middle of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;
/// The most bytes of a token, and of a refusal.
const SMALL_BYTES_MAX: u64 = 256 << 10;
/// The most characters of a refusal that are passed on.
const WORDS_MAX: usize = 300;
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";

/// Why a registry does not give what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("it does not have it")]
    Missing,
    #[error("{0}")]
    Denied(String),
    /// It answered something else than what was asked for.
    #[error("{0}")]
    Refused(String),
    /// It could not be reached, broke off, or was busy: worth another try.
    #[error("{0}")]
    Unreachable(String),
}

impl From<RegistryError> for ImageError {
    fn from(error: RegistryError) -> Self {
        ImageError::Missing(error.to_string())
    }
}

/// The connections of one machine to registries, one pool for each kind of trust.
#[derive(Default)]
pub struct Connections(Mutex<BTreeMap<Trust, Client>>);

/// Whose certificates are believed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// Nobody's: plain HTTP.
    Nobody,
    Machine,
    File(PathBuf),
}

impl Connections {
    fn to(&self, endpoint: &Endpoint) -> Result<Client, RegistryError> {
        let trust = match &endpoint.ca {
            _ if endpoint.base.starts_with("http:") => Trust::Nobody,
            Some(file) => Trust::File(file.clone()),
            None => Trust::Machine,
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = client(&trust).map_err(|error| RegistryError::Refused(format!("{}: {error}", endpoint.host)))?;
        clients.insert(trust, client.clone());
        Ok(client)
    }
}

fn client(trust: &Trust) -> Result<Client, String> {
    // One cryptography in the whole process; a second call finds the first one's and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let follow = redirect::Policy::custom(|attempt| {
        let was_safe = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("it redirects without an end")
        } else if was_safe && attempt.url().scheme() != "https" {
            attempt.error("it redirects from HTTPS to plain HTTP")
        } else {
            attempt.follow()
        }
    });
    let mut builder = Client::builder()
        .user_agent(concat!("rialto/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(SILENCE_MAX)
        .redirect(follow);
    match trust {
        Trust::Nobody => builder = builder.tls_certs_only([]),
        Trust::Machine => {}
        Trust::File(file) => {
            let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&text)
                .map_err(|error| format!("{}: {}", file.display(), whole(&error)))?;
            builder = builder.tls_certs_only(certificates);
        }
    }
    builder.build().map_err(|error| whole(&error))
}

/// One repository of one registry.
pub struct Registry {
    http: Client,
    endpoint: Endpoint,
    /// What the registry let us in by, the last time.
    granted: Mutex<Option<HeaderValue>>,
}

impl Registry {
    pub fn new(connections: &Connections, endpoint: Endpoint) -> Result<Self, RegistryError> {
        Ok(Self { http: connections.to(&endpoint)?, endpoint, granted: Mutex::default() })
    }

    /// Its name, for people.
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// A manifest or an index, byte for byte, by a digest or else by the tag or digest that was asked for.
    pub async fn manifest(&self, digest: Option<&Digest>) -> Result<Vec<u8>, RegistryError> {
        let version = digest.map_or_else(|| self.endpoint.version.clone(), Digest::to_string);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
        let response = self.get(&format!("manifests/{version}"), headers).await?;
        let bytes = self.bounded(response, DOCUMENT_BYTES_MAX).await?;
        let promised = digest.cloned().or_else(|| Digest::parse(&version));
        match promised {
            Some(promised) if Digest::of(&bytes) != promised => {
                Err(self.refused(format!("its manifest {promised} has the digest {}", Digest::of(&bytes))))
            }
            _ => Ok(bytes),
        }
    }

    /// A blob from its byte `from` on, or from an earlier one: which it is, and what comes. The caller
    /// checks the digest.
    pub async fn blob(&self, digest: &Digest, from: u64) -> Result<(u64, Bytes), RegistryError> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            headers.insert(RANGE, range.map_err(|error| self.refused(error.to_string()))?);
        }
        let response = self.get(&format!("blobs/{digest}"), headers).await?;
        let from = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let begins = response.headers().get(CONTENT_RANGE).and_then(|range| first_of(range.to_str().ok()?));
                match begins {
                    Some(begins) if begins == from => begins,
                    _ => return Err(self.refused("it answers another range than was asked for".into())),
                }
            }
            _ => 0,
        };
        let data = response.bytes_stream().map(|chunk| chunk.map_err(|error| std::io::Error::other(whole(&error))));
        Ok((from, data.boxed()))
    }

    /// Whether it opens to the credentials.
    pub async fn enter(&self) -> Result<(), RegistryError> {
        self.ask(&format!("{}/v2/", self.endpoint.base), HeaderMap::new()).await.map(drop)
    }

    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response, RegistryError> {
        let Endpoint { base, repository, .. } = &self.endpoint;
        self.ask(&format!("{base}/v2/{repository}/{path}"), headers).await
    }

    /// An answer that is a success, once let in.
    async fn ask(&self, url: &str, headers: HeaderMap) -> Result<Response, RegistryError> {
        let ask = |granted: Option<HeaderValue>| {
            let request = self.http.request(Method::GET, url).headers(headers.clone());
            match granted {
                Some(granted) => request.header(AUTHORIZATION, granted),
                None => request,
            }
        };
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut response = self.send(ask(granted)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let granted = self.let_in(&response).await?;
            *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted.clone());
            response = self.send(ask(Some(granted))).await?;
        }
        self.success(response).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    /// What opens the door that has just been shut: RFC 9110's challenges, and Docker's token server.
    async fn let_in(&self, response: &Response) -> Result<HeaderValue, RegistryError> {
        let credentials = self.endpoint.credentials.as_ref();
        let given = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        for challenge in given.flat_map(|text| ChallengeParser::new(text).flatten()) {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(Credentials::Token(token)) = credentials {
                    return self.header("Bearer", token);
                }
                let realm = parameter("realm").ok_or_else(|| self.refused("it names no token server".into()))?;
                let token = self.token(&realm, parameter("service")).await?;
                return self.header("Bearer", &token);
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                return match credentials {
                    Some(Credentials::Password { user, password }) => self.header("Basic", &basic(user, password)),
                    _ => Err(self.no_credentials()),
                };
            }
        }
        Err(self.refused("it asks for credentials in a way that is not known here".into()))
    }

    /// A token of the server that the registry names.
    async fn token(&self, realm: &str, service: Option<String>) -> Result<String, RegistryError> {
        let url = Url::parse(realm).map_err(|_| self.refused("its token server has no sound address".into()))?;
        if self.endpoint.base.starts_with("https:") && url.scheme() != "https" {
            return Err(self.refused("its token server would have credentials sent in the clear".into()));
        }
        let scope = format!("repository:{}:pull", self.endpoint.repository);
        let service = service.unwrap_or_default();
        let mut fields = vec![("service", service.as_str())];
        if !self.endpoint.repository.is_empty() {
            fields.push(("scope", scope.as_str()));
        }
        let request = match &self.endpoint.credentials {
            Some(Credentials::Identity(token)) => {
                fields.extend([("grant_type", "refresh_token"), ("client_id", "rialto"), ("refresh_token", token)]);
                self.http.post(url).form(&fields)
            }
            Some(Credentials::Password { user, password }) => {
                self.http.get(url).query(&fields).basic_auth(user, Some(password))
            }
            Some(Credentials::Token(_)) | None => self.http.get(url).query(&fields),
        };
        let response = self.success(self.send(request).await?).await?;
        #[derive(Deserialize)]
        struct Granted {
            token: Option<String>,
            access_token: Option<String>,
        }
        let bytes = self.bounded(response, SMALL_BYTES_MAX).await?;
        let granted: Option<Granted> = serde_json::from_slice(&bytes).ok();
        let token = granted.and_then(|granted| granted.token.or(granted.access_token));
        token.ok_or_else(|| self.refused("its token server gave no token".into()))
    }

    async fn success(&self, response: Response) -> Result<Response, RegistryError> {
        let status = response.status();
        match status {
            _ if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::Missing),
            StatusCode::UNAUTHORIZED if self.endpoint.credentials.is_none() => Err(self.no_credentials()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let said = self.words(response).await;
                Err(RegistryError::Denied(format!("it denies it to the credentials that it was shown{said}")))
            }
            _ => {
                let said = format!("it answers {status}{}", self.words(response).await);
                let passes = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                Err(if passes { RegistryError::Unreachable(said) } else { RegistryError::Refused(said) })
            }
        }
    }

    /// The words of a refusal, in the form of the OCI specification; nothing where there are none.
    async fn words(&self, response: Response) -> String {
        #[derive(Deserialize)]
        struct Envelope {
            errors: Vec<Said>,
        }
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            message: String,
        }
        let Ok(bytes) = self.bounded(response, SMALL_BYTES_MAX).await else { return String::new() };
        let Ok(envelope) = serde_json::from_slice::<Envelope>(&bytes) else { return String::new() };
        let all: Vec<String> = envelope.errors.into_iter().map(|said| said.message).collect();
        let clean = all.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
        match clean {
            clean if String::is_empty(&clean) => clean,
            clean => format!(": {clean}"),
        }
    }

    async fn bounded(&self, response: Response, bytes_max: u64) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.unreachable(&error))?);
            if bytes.len() as u64 > bytes_max {
                return Err(self.refused(format!("it answers with more than {bytes_max} bytes")));
            }
        }
        Ok(bytes)
    }

    fn header(&self, scheme: &str, value: &str) -> Result<HeaderValue, RegistryError> {
        let header = HeaderValue::from_str(&format!("{scheme} {value}"));
        let mut header = header.map_err(|_| self.refused("its token cannot be a header".into()))?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn no_credentials(&self) -> RegistryError {
        RegistryError::Denied("it asks for credentials, and this machine has none for it".into())
    }

    fn refused(&self, reason: String) -> RegistryError {
        RegistryError::Refused(reason)
    }

    fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::Unreachable(whole(error))
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"))
}

/// Where `bytes 10-99/100` begins.
fn first_of(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The library's errors name their cause only in their sources, and addresses that may hold a secret.
fn whole(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut text = None;
    while let Some(cause) = source {
        text = Some(cause.to_string());
        source = cause.source();
    }
    text.unwrap_or_else(|| match () {
        () if error.is_timeout() => "it did not answer in time".into(),
        () if error.is_connect() => "no connection".into(),
        () => "the connection broke off".into(),
    })
}
