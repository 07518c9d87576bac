//! Debian's docker-registry on a loopback port, skopeo that pushes to it, and a wire between that can break.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const USER: &str = "ada";
pub const PASSWORD: &str = "secret";
/// The password's bcrypt, which is all that the registry takes.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// Whether the programs are there; says what is missing.
pub fn registry_runs() -> bool {
    let missing: Vec<_> = ["docker-registry", "skopeo"].into_iter().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: there is no {}", missing.join(" and no "));
    }
    missing.is_empty()
}

pub fn is_there(program: &str) -> bool {
    std::env::var("PATH").unwrap_or_default().split(':').any(|folder| Path::new(folder).join(program).exists())
}

/// Who is let in.
pub enum Door {
    Open,
    /// [`USER`] with [`PASSWORD`].
    Password,
    /// Who has a token of this server; its certificate.
    Token {
        realm: String,
        certificate: PathBuf,
    },
    /// Everybody, by TLS.
    Tls {
        certificate: PathBuf,
        key: PathBuf,
    },
}

/// A key and a certificate for this machine, `key.pem` and `cert.pem`, that nobody else vouches for.
pub fn certificate(folder: &Path) -> PathBuf {
    let certificate = folder.join("cert.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=tests"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    certificate
}

/// A registry of its own, with its own folder.
pub struct Registry {
    pub folder: tempfile::TempDir,
    pub address: SocketAddr,
    process: Child,
}

impl Registry {
    pub fn start(door: Door) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let mut tls = String::new();
        let auth = match door {
            Door::Open => String::new(),
            Door::Tls { certificate, key } => {
                tls = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
                String::new()
            }
            Door::Password => {
                fs::write(folder.path().join("htpasswd"), format!("{USER}:{HASH}\n")).unwrap();
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}/htpasswd\n")
            }
            Door::Token { realm, certificate } => format!(
                "auth:\n  token:\n    realm: {realm}\n    service: registry\n    issuer: tests\n    rootcertbundle: {}\n",
                certificate.display()
            ),
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {path}/data\n{auth}http:\n  addr: 127.0.0.1:0\n{tls}"
        );
        fs::write(folder.path().join("config.yml"), config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        // It says which port the kernel gave it.
        let address = lines.find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split(['"', ',', ' ']).next()?.parse().ok()
        });
        // What it says further is read away, or it would stand still.
        std::thread::spawn(move || lines.for_each(drop));
        Self { folder, address: address.expect("it listens"), process }
    }

    /// Pushes a layout as `repository:tag`, with every platform of its index.
    pub fn push(&self, layout: &Path, repository: &str, credentials: bool) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--all", "--insecure-policy", "--dest-tls-verify=false"]);
        if credentials {
            skopeo.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        let to = format!("docker://{}/{repository}", self.address);
        let done = skopeo.arg(format!("oci:{}", layout.display())).arg(to).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// The file of a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.folder.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A wire to a registry: it counts what goes through, and breaks when it is told to.
pub struct Wire {
    pub address: SocketAddr,
    /// Bytes of answers, so far.
    pub answered: Arc<AtomicU64>,
    /// How many bytes each connection may still answer in all; then it breaks.
    left: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// Each connection breaks after so many bytes of answers.
    pub async fn to(registry: SocketAddr, breaks_after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answered, left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(breaks_after)));
        let (counted, limit) = (answered.clone(), left.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (counted, limit) = (counted.clone(), limit.load(Ordering::SeqCst));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(registry).await else { return };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                    let (mut buffer, mut left) = (vec![0; 16 << 10], limit);
                    while left > 0 {
                        let count = from_server.read(&mut buffer).await.unwrap_or(0).min(left as usize);
                        if count == 0 || to_client.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                        counted.fetch_add(count as u64, Ordering::SeqCst);
                        left -= count as u64;
                    }
                    asking.abort();
                });
            }
        });
        Self { address, answered, left, accepting }
    }

    /// From now on connections break after so many bytes.
    pub fn breaks_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
