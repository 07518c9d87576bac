//! The doors: the Unix socket, TCP, and streams of the mesh.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::serve::{Listener, ListenerExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rialto_protocol::ids::PeerId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::guard::Door;

/// The most connections that are open at one door.
const CONNECTIONS_MAX: usize = 1024;
/// A request's head must be complete within this; an idle connection is closed after it.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// Open answers may take so long when the peer goes down.
const FAREWELL: Duration = Duration::from_secs(5);

/// Binds the administrator's socket, mode 0660. A socket that a dead peer left is replaced; a living one's is not.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            let message = format!("{} is there, and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Ok(_) => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                let message = format!("another peer serves {}", path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound beside its place and moved there when its mode is right, so that no moment is too permissive.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    match std::fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(fresh)?;
    std::fs::set_permissions(fresh, std::fs::Permissions::from_mode(0o660))?;
    std::fs::rename(fresh, path)?;
    Ok(listener)
}

/// Serves the administrator, until `closing`.
pub async fn serve_socket(router: Router, listener: UnixListener, closing: CancellationToken) {
    serve(router, Door::Socket, listener, closing).await;
}

/// Serves whoever has the token, until `closing`.
pub async fn serve_tcp(router: Router, listener: TcpListener, closing: CancellationToken) {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small answers may be slow on this connection");
        }
    });
    serve(router, Door::Tcp, listener, closing).await;
}

/// Serves one stream that an admitted peer has opened, until it ends or `closing`.
pub async fn serve_stream<S>(router: Router, stream: S, peer: PeerId, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    converse(router, Door::Mesh(peer), stream, closing).await;
}

async fn serve<L>(router: Router, door: Door, mut listener: L, closing: CancellationToken)
where
    L: Listener,
    L::Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = TaskTracker::new();
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (listener.accept().await.0, place)
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => accepted,
            () = closing.cancelled() => break,
        };
        let talk = converse(router.clone(), door, stream, closing.clone());
        open.spawn(async move {
            talk.await;
            drop(place);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn converse<S>(router: Router, door: Door, stream: S, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(door);
        router.clone().oneshot(request.map(Body::new))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ?door, "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/rialto.sock");
        let first = bind_socket(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind_socket(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(bind_socket(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind_socket(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
