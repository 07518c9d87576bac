//! Pulling from a real registry, over wires that break, through doors that are shut, of blobs that rot.

mod images_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use images_support::registry::{Door, PASSWORD, Registry, USER, Wire, certificate, is_there, registry_runs};
use images_support::*;
use rialto_node::executor::images::{Host, ImageError, Images, LayerState, Login, Logins, Registries, Settings};
use serde_json::json;

const FOREVER: u64 = u64::MAX;

fn is_root() -> bool {
    let is = nix::unistd::geteuid().is_root();
    if !is {
        eprintln!("skipped: only root can unpack an image");
    }
    is
}

fn store(data: &Path, registries: Registries) -> Images {
    // However full the disk of this machine may be.
    Images::with(data, Settings { registries, free_bytes_min: Some(0), ..Default::default() }).unwrap()
}

/// Bytes that no packing makes smaller.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| step()).collect()
}

/// Three layers of half a megabyte each, all packed.
fn image() -> Layout {
    let layer = |seed: u64| Layer::new().dir("data").file(&format!("data/{seed}"), &noise(seed, 512 << 10)).done();
    Layout::new().image(&[layer(1), layer(2), layer(3)], json!({"Env": ["A=b"], "Cmd": ["/bin/x"]}))
}

fn partials(data: &Path) -> usize {
    fs::read_dir(data.join("executor/images/partial")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Open);
    registry.push(image().path(), "shop/web:1", false);
    let data = tempfile::tempdir().unwrap();
    let images = store(data.path(), Registries::default());
    let name = format!("{}/shop/web:1", registry.address);
    let progress = images.progress(&name);
    let mut watch = progress.watch();
    let info = images.pull(&name, &[], &()).await.unwrap();
    assert_eq!((images.get(&name), info.bytes > 3 * (512 << 10)), (Some(info.clone()), true));
    let layers = watch.borrow_and_update().layers.clone();
    assert_eq!(layers.len(), 3);
    assert!(
        layers.iter().all(|layer| layer.state == LayerState::Ready && layer.bytes == layer.bytes_total),
        "{layers:?}"
    );
    assert_eq!(partials(data.path()), 0);

    let wire = Wire::to(registry.address, FOREVER).await;
    let by_digest = format!("{}/shop/web@{}", wire.address, info.digest);
    assert_eq!(images.pull(&by_digest, &[], &()).await.unwrap().digest, info.digest);
    assert!(wire.answered() < 20_000, "everything but the manifest was here: {} bytes", wire.answered());

    for (missing, reason) in [("shop/web:2", "does not have it"), ("shop/none:1", "does not have it")] {
        let error = images.pull(&format!("{}/{missing}", registry.address), &[], &()).await.unwrap_err();
        assert!(matches!(&error, ImageError::Missing(text) if text.contains(reason)), "{error}");
    }
    let error = images.pull("shop/web:1", &[], &()).await.unwrap_err();
    assert!(error.to_string().contains("name a registry"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_name_is_asked_of_the_default_registry_and_its_mirrors() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Open);
    registry.push(image().path(), "web:latest", false);
    let data = tempfile::tempdir().unwrap();
    // The first mirror is nobody, the second has it, and the registry itself is never asked.
    let mirrors = vec!["127.0.0.1:1".to_owned(), registry.address.to_string()];
    let host = BTreeMap::from([("r.invalid".to_owned(), Host { mirrors, ..Default::default() })]);
    let images = store(data.path(), Registries { default: Some("r.invalid".into()), host, ..Default::default() });
    assert_eq!(images.pull("web", &[], &()).await.unwrap().name, "web");
    assert_eq!(images.list().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_for_this_machine_is_chosen_of_an_index() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Open);
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let layer = |text: &[u8]| Layer::new().file("which", text).done();
    let index = Layout::new().index(&[("s390x", layer(b"other")), (own, layer(b"own")), ("riscv64", layer(b"third"))]);
    registry.push(index.path(), "many:1", false);
    let data = tempfile::tempdir().unwrap();
    let images = store(data.path(), Registries::default());
    images.pull(&format!("{}/many:1", registry.address), &[], &()).await.unwrap();
    let layers: Vec<_> = fs::read_dir(data.path().join("executor/images/layers")).unwrap().flatten().collect();
    assert_eq!(layers.len(), 1);
    assert_eq!(fs::read(layers[0].path().join("which")).unwrap(), b"own");

    let foreign = Layout::new().index(&[("s390x", layer(b"other"))]);
    registry.push(foreign.path(), "foreign:1", false);
    let error = images.pull(&format!("{}/foreign:1", registry.address), &[], &()).await.unwrap_err();
    assert!(error.to_string().contains("not made for"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_opens_to_the_right_password_only() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Password);
    registry.push(image().path(), "web:1", true);
    let name = format!("{}/web:1", registry.address);
    for (user, password, reason) in
        [(USER, "wrong", Some("denies it")), (USER, PASSWORD, None), ("", "", Some("has none for it"))]
    {
        let data = tempfile::tempdir().unwrap();
        let images = store(
            data.path(),
            Registries { credentials: logins(data.path(), &registry, user, password), ..Default::default() },
        );
        match (images.pull(&name, &[], &()).await, reason) {
            (Ok(info), None) => assert_eq!(info.name, name),
            (Err(error), Some(reason)) => {
                assert!(
                    error.to_string().contains(reason)
                        && !error.to_string().contains(password.get(1..).unwrap_or("\0")),
                    "{error}"
                );
                assert!(images.list().is_empty());
            }
            (other, _) => panic!("{user}: {other:?}"),
        }
    }
}

/// What somebody has logged in with, wherever.
struct LoggedIn(&'static str, &'static str);

impl Logins for LoggedIn {
    fn login(&self, _: &str) -> BoxFuture<'_, Result<Option<Login>, String>> {
        let (user, password) = (self.0.into(), self.1.into());
        Box::pin(async { Ok(Some(Login { user, password })) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_opens_where_the_machine_has_nothing_of_its_own() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Password);
    registry.push(image().path(), "web:1", true);
    let (name, host) = (format!("{}/web:1", registry.address), registry.address.to_string());
    for (own, login, opens) in [
        (None, PASSWORD, true),
        (None, "wrong", false),
        (Some(PASSWORD), "wrong", true),
        (Some("wrong"), PASSWORD, false),
    ] {
        let data = tempfile::tempdir().unwrap();
        let credentials = own.and_then(|password| logins(data.path(), &registry, USER, password));
        let registries = Registries { credentials, ..Default::default() };
        let logins: Arc<dyn Logins> = Arc::new(LoggedIn(USER, login));
        let images = Images::with(data.path(), Settings { registries, logins: Some(logins), ..Default::default() });
        let pulled = images.unwrap().pull(&name, &[], &()).await;
        assert_eq!(pulled.is_ok(), opens, "{own:?} {login}: {pulled:?}");
    }
    let data = tempfile::tempdir().unwrap();
    let images = store(data.path(), Registries::default());
    let login = |password: &str| Login { user: USER.into(), password: password.into() };
    images.enter(&host, login(PASSWORD)).await.unwrap();
    let error = images.enter(&host, login("wrong")).await.unwrap_err().to_string();
    assert!(error.contains("denies it"), "{error}");
    assert!(images.enter("127.0.0.1:1", login(PASSWORD)).await.is_err());
}

/// A `config.json` as Docker and skopeo write it: by skopeo's own hand would ask the registry first.
fn logins(folder: &Path, registry: &Registry, user: &str, password: &str) -> Option<std::path::PathBuf> {
    use base64::Engine;
    let auth = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    let file = folder.join("config.json");
    let auths = if user.is_empty() { json!({}) } else { json!({registry.address.to_string(): {"auth": auth}}) };
    fs::write(&file, json!({"auths": auths}).to_string()).unwrap();
    Some(file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_asked_of_the_server_that_the_registry_names() {
    if !registry_runs() || !is_root() || !is_there("openssl") {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let certificate = certificate(keys.path());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let (asked, folder) = (Arc::new(AtomicUsize::new(0)), keys.path().to_owned());
    let counted = asked.clone();
    let serve = axum::Router::new().route(
        "/token",
        axum::routing::get(move |headers: axum::http::HeaderMap, query: axum::extract::RawQuery| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let expected = format!("Basic {}", encode(format!("{USER}:{PASSWORD}").as_bytes(), false));
            let is_known = headers.get("authorization").is_some_and(|value| value.as_bytes() == expected.as_bytes());
            let query = query.0.unwrap_or_default();
            assert!(query.contains("service=registry") && query.contains("scope=repository%3Aweb%3A"), "{query}");
            if is_known { Ok(token(&folder)) } else { Err(axum::http::StatusCode::UNAUTHORIZED) }
        }),
    );
    let server = tokio::spawn(async move { axum::serve(listener, serve).await });
    let registry = Registry::start(Door::Token { realm, certificate });
    let pushing = image();
    tokio::task::block_in_place(|| registry.push(pushing.path(), "web:1", true));
    let pushed = asked.swap(0, Ordering::SeqCst);
    assert!(pushed > 0);
    let name = format!("{}/web:1", registry.address);
    let data = tempfile::tempdir().unwrap();
    let settings =
        |password| Registries { credentials: logins(data.path(), &registry, USER, password), ..Default::default() };
    let wrong = store(data.path(), settings("wrong")).pull(&name, &[], &()).await.unwrap_err();
    assert!(wrong.to_string().contains("denies it"), "{wrong}");
    let images = store(data.path(), settings(PASSWORD));
    assert_eq!(images.pull(&name, &[], &()).await.unwrap().name, name);
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_believed_only_where_it_is_named() {
    if !registry_runs() || !is_root() || !is_there("openssl") {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let certificate = certificate(keys.path());
    let registry = Registry::start(Door::Tls { certificate: certificate.clone(), key: keys.path().join("key.pem") });
    registry.push(image().path(), "web:1", false);
    let name = format!("{}/web:1", registry.address);
    for (ca, believes) in [(Some(certificate), true), (None, false)] {
        let data = tempfile::tempdir().unwrap();
        let host = Host { plain_http: Some(false), ca, ..Default::default() };
        let host = BTreeMap::from([(registry.address.to_string(), host)]);
        let images = store(data.path(), Registries { host, ..Default::default() });
        let pulled = images.pull(&name, &[], &()).await;
        assert_eq!(pulled.is_ok(), believes, "{pulled:?}");
        assert!(believes || pulled.unwrap_err().to_string().contains("certificate"));
    }
}

/// A token that lets anybody do anything, in the form that docker-registry reads: RFC 7519, signed by RS256.
fn token(keys: &Path) -> String {
    let certificate = fs::read_to_string(keys.join("cert.pem")).unwrap();
    let chain: String = certificate.lines().filter(|line| !line.starts_with("---")).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let access = json!([{"type": "repository", "name": "web", "actions": ["pull", "push"]}]);
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]});
    let body = json!({"iss": "tests", "sub": USER, "aud": "registry", "exp": now + 60, "nbf": now - 60, "iat": now, "jti": "1", "access": access});
    let part = |value: &serde_json::Value| encode(value.to_string().as_bytes(), true);
    let signed = format!("{}.{}", part(&head), part(&body));
    let text = tempfile::NamedTempFile::new().unwrap();
    fs::write(text.path(), &signed).unwrap();
    let signature =
        Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(keys.join("key.pem")).arg(text.path()).output();
    json!({"token": format!("{signed}.{}", encode(&signature.unwrap().stdout, true)), "expires_in": 60}).to_string()
}

fn encode(bytes: &[u8], for_addresses: bool) -> String {
    use base64::Engine;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    if for_addresses { BASE64_URL_SAFE_NO_PAD.encode(bytes) } else { BASE64_STANDARD.encode(bytes) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_goes_on_where_its_wire_broke() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Open);
    registry.push(image().path(), "web:1", false);
    let data = tempfile::tempdir().unwrap();
    let images = store(data.path(), Registries::default());
    let wire = Wire::to(registry.address, 200 << 10).await;
    let name = format!("{}/web:1", wire.address);
    let info = images.pull(&name, &[], &()).await.unwrap();
    let (all, answered) = (info.bytes, wire.answered());
    assert!(answered < all + all / 5, "{answered} bytes were asked for of {all}");
    assert_eq!(partials(data.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_goes_on_after_a_restart() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Open);
    registry.push(image().path(), "web:1", false);
    let data = tempfile::tempdir().unwrap();
    let wire = Wire::to(registry.address, 300 << 10).await;
    let name = format!("{}/web:1", wire.address);
    {
        let images = store(data.path(), Registries::default());
        let mut watch = images.progress(&name).watch();
        let pull = images.pull(&name, &[], &());
        let some = watch.wait_for(|pulling| pulling.layers.iter().any(|layer| layer.bytes > 200 << 10));
        // Nobody waits for it any more: the pull ends in the middle.
        tokio::select! {
            done = pull => panic!("it was too quick: {done:?}"),
            seen = some => drop(seen.unwrap()),
        }
    }
    // The registry is gone for a while.
    wire.breaks_after(0);
    let images = store(data.path(), Registries::default());
    let error = images.pull(&name, &[], &()).await.unwrap_err();
    assert!(matches!(error, ImageError::Missing(_)), "{error:?}");
    assert!(images.list().is_empty());
    wire.breaks_after(FOREVER);
    let before = wire.answered();
    let info = images.pull(&name, &[], &()).await.unwrap();
    assert!(wire.answered() - before < info.bytes, "nothing was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_blob_is_refused_and_leaves_nothing() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Open);
    let layout = image();
    registry.push(layout.path(), "web:1", false);
    let manifest = layout.manifest();
    let digest = manifest["layers"][1]["digest"].as_str().unwrap();
    let file = registry.blob(digest);
    let good = fs::read(&file).unwrap();
    let data = tempfile::tempdir().unwrap();
    let images = store(data.path(), Registries::default());
    let name = format!("{}/web:1", registry.address);
    let mut other = good.clone();
    other[1000] ^= 1;
    let cases = [("has the digest", other), ("416", good[..good.len() / 2].to_vec())];
    for (reason, bytes) in cases {
        fs::write(&file, bytes).unwrap();
        let error = images.pull(&name, &[], &()).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert!(images.list().is_empty() && images.blob(digest).is_none());
    }
    fs::write(&file, good).unwrap();
    images.pull(&name, &[], &()).await.unwrap();
}
