//! Which peer is asked.

use std::env;
use std::path::PathBuf;

use rialto_client::{Client, Endpoint};

use crate::args::Door;
use crate::exit::Failure;

const ROOT_SOCKET: &str = "/run/rialto/rialto.sock";

/// A client for the peers that the flags name (clap has read RIALTO_API and RIALTO_SOCKET into
/// them), or else for this machine's.
///
/// # Errors
///
/// An address that is none.
pub fn client(door: &Door) -> Result<Client, Failure> {
    let token = env::var("RIALTO_API_TOKEN").ok().filter(|token| !token.is_empty());
    let endpoints = match (&door.socket, &door.api) {
        (Some(socket), _) => vec![Endpoint::Socket(socket.clone())],
        (None, Some(api)) => {
            let addresses = api.split(',').map(str::trim).filter(|address| !address.is_empty());
            let read: Result<Vec<Endpoint>, _> = addresses.map(str::parse).collect();
            let endpoints = read.map_err(|error| Failure::usage(error.to_string()))?;
            if endpoints.is_empty() {
                return Err(Failure::usage("--api names no peer").hint("write http://HOST:PORT"));
            }
            endpoints
        }
        (None, None) => local(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)),
    };
    Ok(Client::new(endpoints, token))
}

/// A person's own peer comes before the machine's; root has but the machine's.
fn local(runtime: Option<PathBuf>) -> Vec<Endpoint> {
    let own = runtime.filter(|folder| folder.is_absolute()).map(|folder| folder.join("rialto/rialto.sock"));
    let own = own.filter(|_| !nix::unistd::geteuid().is_root());
    own.into_iter().chain([ROOT_SOCKET.into()]).map(Endpoint::Socket).collect()
}
