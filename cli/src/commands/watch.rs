//! `--watch`: the same again, whenever something has happened.

use std::io::{self, IsTerminal};
use std::time::Duration;

use rialto_client::Client;
use tokio::time::{Instant, sleep_until};

use crate::exit::{Exit, Failure};

/// Ages grow though nothing happens.
const REFRESH: Duration = Duration::from_secs(2);
/// What happens within this time is shown at once.
const TOGETHER: Duration = Duration::from_millis(100);

/// What puts a terminal's cursor where the first time began.
pub fn clear(watch: bool) -> String {
    if watch && io::stdout().is_terminal() { "\x1b[H\x1b[J".into() } else { String::new() }
}

/// Looks once; with `watch` again at each event of the peer that is asked, for ever.
pub async fn again(client: &Client, watch: bool, look: impl AsyncFn() -> Result<(), Failure>) -> Result<(), Failure> {
    if !watch {
        return look().await;
    }
    // From here on: what happened before is in the first look.
    let last = client.events(None).await?.data.events.last().map(|event| event.id);
    let mut events = client.follow_events(last).await?;
    loop {
        look().await?;
        let shown = Instant::now();
        tokio::select! {
            event = events.next() => {
                if event?.is_none() {
                    return Err(Failure::new(Exit::Failed, "the peer is going down"));
                }
                // More of them come together, as a rule.
                let end = shown.max(Instant::now()) + TOGETHER;
                while let Ok(Ok(Some(_))) = tokio::time::timeout_at(end, events.next()).await {}
            }
            () = sleep_until(shown + REFRESH) => {}
        }
    }
}
