//! A network namespace for one task. Nothing names it: it lives for as long as a process in it does.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::Handle;

use super::netlink::Netlink;

/// What is different in a task's namespace from what the kernel gives. There is no IPv6 on its link: the addresses that
/// the kernel would give by itself are in no app's network.
const SETTINGS: [(&str, &str); 5] = [
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
];

/// A namespace, held open.
pub struct Namespace(OwnedFd);

impl Namespace {
    /// The one of this thread.
    pub fn own() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// A new one, with a link whose other end is in `machine`.
    pub async fn with_link(machine: &Namespace, outer: &str, address: Ipv4Addr, gateway: Ipv4Addr) -> io::Result<Self> {
        let runtime = Handle::current();
        let made = thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            for (name, value) in SETTINGS {
                // A kernel without the setting has nothing to be changed.
                let _ = fs::write(format!("/proc/sys/net/{name}"), value);
            }
            let _entered = runtime.enter();
            Ok((Self::own()?, Netlink::open()?))
        });
        let (namespace, inside) = made.await?;
        inside.task_link(outer, machine.0.as_fd(), address, gateway).await?;
        Ok(namespace)
    }

    /// Does something in it; processes that are started meanwhile live there.
    pub async fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespace = self.0.try_clone()?;
        let runtime = Handle::current();
        thread(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let _entered = runtime.enter();
            work()
        })
        .await
    }
}

/// A thread that enters a namespace leads no other life: it ends afterwards.
async fn thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("namespace".into()).spawn(move || done.send(work()).map_err(drop))?;
    result.await.map_err(|_| io::Error::other("a thread has panicked"))?
}
