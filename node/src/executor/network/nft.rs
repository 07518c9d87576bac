//! `nft`, the program that loads rules into the kernel.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Loading takes milliseconds; a program that hangs is not waited for.
const LOADING_MAX: Duration = Duration::from_secs(10);

/// Whether the program is here and may read rules.
pub fn probe() -> io::Result<()> {
    let output = Command::new("nft").args(["list", "tables"]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("nft: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Loads a script, wholly or not at all.
pub async fn run(script: &str) -> io::Result<()> {
    let mut child = tokio::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("nft has no input"))?;
    let loaded = async {
        stdin.write_all(script.as_bytes()).await?;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = timeout(LOADING_MAX, loaded).await.map_err(|_| io::Error::other("nft takes too long"))??;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft: {}", said.lines().take(4).collect::<Vec<_>>().join(" "))))
}

/// Whether a table is there: whoever loads a firewall anew may have swept it away.
pub async fn has_table(table: &str) -> bool {
    let mut list = tokio::process::Command::new("nft");
    let list = list.args(["list", "chain", "ip", table, "forward"]).stdin(Stdio::null()).stdout(Stdio::null());
    let ended = timeout(LOADING_MAX, list.stderr(Stdio::null()).kill_on_drop(true).status()).await;
    // What cannot be found out is not taken for gone.
    !matches!(ended, Ok(Ok(status)) if !status.success())
}
