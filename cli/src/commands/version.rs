//! `rialto version`.

use rialto_client::Client;
use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;
use crate::table;

/// Succeeds without a peer, too: one's own version is no secret of the cluster's.
pub async fn version(client: &Client, out: Output) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let peer = client.version().await;
    let of_peer = peer.as_ref().ok().and_then(|answer| answer.get("version")?.as_str());
    let shown = json!({ "version": own, "peer_version": of_peer });
    out.data(&shown, || {
        let peer = match (&peer, of_peer) {
            (_, Some(version)) => version.to_string(),
            (Err(error), None) => format!("unknown: {error}"),
            (Ok(_), None) => "unknown".into(),
        };
        table::pairs(&[("rialto", own.into()), ("rialtod", peer)])
    })
}
