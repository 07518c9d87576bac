//! Joining: the newcomer shows its invitation until it is admitted.

use std::time::Duration;

use rialto_protocol::ids::ClusterId;

use super::PeerError;
use super::folder::Folder;
use crate::config::Config;
use crate::identity::Belonging;
use crate::invitation::Invitation;
use crate::mesh::Mesh;
use crate::verify::proved;

/// Asks the inviter for ever; what it is given is on disk before this returns.
pub async fn join(mesh: &Mesh, invitation: &Invitation, folder: &Folder) -> Result<Belonging, PeerError> {
    tracing::info!(cluster = %invitation.cluster, inviter = %invitation.inviter, "joining");
    let mut attempt = 0;
    let chain = loop {
        let why = match mesh.hello(invitation).await {
            Ok(answer) if proved(&answer.chain) && !answer.chain.is_empty() => break answer.chain,
            Ok(_) => "the admissions that it sent prove nothing".to_owned(),
            Err(error) => error.to_string(),
        };
        if attempt == 0 {
            // It is up, as far as whoever started it is concerned, and goes on trying.
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        }
        let wait = patience(attempt);
        attempt += 1;
        tracing::warn!(cluster = %invitation.cluster, attempt, again_in_ms = wait.as_millis() as u64, "not admitted yet: {why}");
        tokio::time::sleep(wait).await;
    };
    let belonging = Belonging { cluster: invitation.cluster, founding: None, chain };
    belonging.save(folder.path())?;
    mesh.set_cluster(belonging.cluster);
    tracing::info!(cluster = %belonging.cluster, "admitted");
    Ok(belonging)
}

/// How long to wait before the next attempt: half a second, doubling, at most half a minute.
fn patience(attempt: u32) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << attempt.min(6)).min(Duration::from_secs(30))
}

/// How a cluster of one machine grows: for whoever founded it.
pub fn greeting(config: &Config, cluster: ClusterId) -> String {
    let default = "/run/rialto/rialto.sock";
    let socket = match config.socket.to_str() {
        Some(path) if path != default => format!(" --socket {path}"),
        _ => String::new(),
    };
    format!(
        "Cluster {cluster} is founded; {} is its only machine.\n\
         To add one: `rialto{socket} invite` here prints a token, and `rialtod --join TOKEN` there joins with it.",
        config.name
    )
}
