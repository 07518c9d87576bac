//! Which peer is asked.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use rialto_client::{Client, Endpoint};

use crate::args::Door;
use crate::exit::Failure;

const ROOT_SOCKET: &str = "/run/rialto/rialto.sock";

/// A client for the peers that a flag names, or else RIALTO_API, or else RIALTO_SOCKET; without any of
/// them for this machine's.
///
/// # Errors
///
/// An address that is none.
pub fn client(door: &Door) -> Result<Client, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let token = set("RIALTO_API_TOKEN").and_then(|token| token.into_string().ok());
    let endpoints = if let Some(socket) = &door.socket {
        vec![Endpoint::Socket(socket.clone())]
    } else if let Some(api) = &door.api {
        named(api)?
    } else if let Some(api) = set("RIALTO_API") {
        named(&api.to_string_lossy())?
    } else if let Some(socket) = set("RIALTO_SOCKET") {
        vec![Endpoint::Socket(socket.into())]
    } else {
        local(set("XDG_RUNTIME_DIR"), set("XDG_DATA_HOME"), set("HOME"))
    };
    Ok(Client::new(endpoints, token))
}

fn named(api: &str) -> Result<Vec<Endpoint>, Failure> {
    let addresses = api.split(',').map(str::trim).filter(|address| !address.is_empty());
    let read: Result<Vec<Endpoint>, _> = addresses.map(str::parse).collect();
    match read {
        Ok(endpoints) if endpoints.is_empty() => Err(Failure::usage("no peer is named").hint("write http://HOST:PORT")),
        read => read.map_err(|error| Failure::usage(error.to_string())),
    }
}

/// A person's own peer comes before the machine's; root has but the machine's. Where there is no runtime folder a
/// peer's socket lies in its data folder.
fn local(runtime: Option<OsString>, data: Option<OsString>, home: Option<OsString>) -> Vec<Endpoint> {
    let home = home.map(|home| PathBuf::from(home).join(".local/share"));
    let folder = runtime.or(data).map(PathBuf::from).or(home).filter(|folder| folder.is_absolute());
    let own = folder.map(|folder| folder.join("rialto/rialto.sock"));
    let own = own.filter(|_| !nix::unistd::geteuid().is_root());
    own.into_iter().chain([ROOT_SOCKET.into()]).map(Endpoint::Socket).collect()
}
