//! Published ports of this machine. The kernel sends what comes from outside straight to a task; to hold the port
//! against other programs, and for what the kernel does not translate (IPv6, and the machine's own `localhost`), the
//! peer listens there too, and passes connections on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::rules;

/// Connections that one port passes on at once.
const CONNECTIONS_MAX: usize = 1_024;
/// A task that does not answer for so long is passed over.
const CONNECTING_MAX: Duration = Duration::from_secs(3);
/// After an accept that failed, most likely for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A port, and its protocol.
type Port = (u16, String);
type Tasks = Vec<(Ipv4Addr, u16)>;

/// The ports that are open here.
#[derive(Default)]
pub struct Doors {
    open: BTreeMap<Port, Door>,
    troubles: BTreeMap<Port, String>,
}

struct Door {
    tasks: watch::Sender<Tasks>,
    /// Ends with the door.
    holder: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.holder.abort();
    }
}

impl Doors {
    /// Opens the ports that are wanted, and closes all others.
    pub async fn open(&mut self, wanted: &rules::Doors) {
        self.open.retain(|port, _| wanted.contains_key(port));
        self.troubles.clear();
        for (port, tasks) in wanted {
            if let Some(door) = self.open.get(port) {
                door.tasks.send_if_modified(|held| {
                    let differs = held != tasks;
                    held.clone_from(tasks);
                    differs
                });
                continue;
            }
            match Door::at(port, tasks.clone()).await {
                Ok(door) => drop(self.open.insert(port.clone(), door)),
                Err(error) => {
                    let (number, protocol) = port;
                    let sentence = format!("port {number}/{protocol} is published and does not answer here: {error}");
                    self.troubles.insert(port.clone(), sentence);
                }
            }
        }
    }

    /// Those that are this peer's to give away.
    pub fn held(&self) -> BTreeSet<Port> {
        self.open.keys().cloned().collect()
    }

    /// What could not be opened, and why.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.values().cloned().collect()
    }
}

impl Door {
    async fn at((number, protocol): &Port, tasks: Tasks) -> io::Result<Self> {
        let (tell, told) = watch::channel(tasks);
        let holder = match protocol.as_str() {
            "udp" => {
                let socket = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *number)).await {
                    Err(error) if no_ipv6(&error) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *number)).await?,
                    socket => socket?,
                };
                // Held, and not read: datagrams are for the kernel to translate.
                tokio::spawn(async move {
                    let _held = socket;
                    std::future::pending::<()>().await;
                })
            }
            _ => tokio::spawn(pass_on(listen(*number)?, told)),
        };
        Ok(Self { tasks: tell, holder })
    }
}

fn listen(number: u16) -> io::Result<TcpListener> {
    let bind = |ip: SocketAddr| {
        let listener = StdListener::bind(ip)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    match bind((Ipv6Addr::UNSPECIFIED, number).into()) {
        Err(error) if no_ipv6(&error) => bind((Ipv4Addr::UNSPECIFIED, number).into()),
        listener => listener,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}

/// Passes each connection on to a task, the next one each time, and past those that do not answer.
async fn pass_on(listener: TcpListener, tasks: watch::Receiver<Tasks>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let mut from = match listener.accept().await {
            Ok((from, _)) => from,
            Err(error) => {
                tracing::debug!(%error, "a connection to a published port was not taken");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (tasks, turn) = (tasks.borrow().clone(), turn.clone());
        tokio::spawn(async move {
            let _permit = permit;
            for _ in 0..tasks.len() {
                let (address, port) = tasks[turn.fetch_add(1, Ordering::Relaxed) % tasks.len()];
                if let Ok(Ok(mut to)) = timeout(CONNECTING_MAX, TcpStream::connect((address, port))).await {
                    // However it ends, both ends know.
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_port_is_held_and_passed_on_and_a_taken_one_told_of() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = echo.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await.unwrap();
            stream.write_all(b"here").await.unwrap();
        });
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let port = |number: u16| (number, "tcp".to_string());
        let tasks = vec![(Ipv4Addr::LOCALHOST, behind)];
        let wanted = BTreeMap::from([(port(free), tasks.clone()), (port(taken_port), tasks)]);
        let mut doors = Doors::default();
        doors.open(&wanted).await;
        assert_eq!(doors.held(), BTreeSet::from([port(free)]));
        assert!(doors.troubles()[0].contains(&taken_port.to_string()), "{:?}", doors.troubles());
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, free)).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "here");
        drop(taken);
        doors.open(&wanted).await;
        assert!(doors.troubles().is_empty());
        doors.open(&rules::Doors::new()).await;
        assert!(doors.held().is_empty());
    }
}
