//! How a task with a network of its own finds names: what is in its `/etc/resolv.conf` and `/etc/hosts`.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rialto_protocol::model::{Subnet, TaskSpec};

/// Writes both into a folder of the task's; the folder.
pub fn write(folder: &Path, spec: &TaskSpec, hostname: &str, address: Ipv4Addr) -> io::Result<PathBuf> {
    let names = folder.join("names");
    fs::create_dir_all(&names)?;
    fs::write(names.join("resolv.conf"), resolv(&spec.task.app.name, Subnet::of(address).gateway()))?;
    let hosts = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n{address} {hostname}\n");
    fs::write(names.join("hosts"), hosts)?;
    Ok(names)
}

/// Its app's services by their bare names, those of others by `SERVICE.APP`; both are looked for before the world is
/// asked.
fn resolv(app: &str, server: Ipv4Addr) -> String {
    format!("nameserver {server}\nsearch {app}.rialto.internal rialto.internal\noptions ndots:2 timeout:2\n")
}
