//! Who believes to hold the lock: the promise that no two do at once, and that tokens rise.

/// A belief.
#[derive(Clone, Copy, Debug)]
struct Belief {
    client: usize,
    token: i64,
    /// By true time, µs.
    until: u64,
}

/// The lock as an onlooker sees it who knows the true time.
#[derive(Default)]
pub struct Lock {
    held: Option<Belief>,
    last_token: i64,
    pub grants: u64,
}

impl Lock {
    /// A client believes from now on, until then unless it renews.
    pub fn take(&mut self, now: u64, client: usize, token: i64, until: u64) -> Result<(), String> {
        if until <= now {
            return Ok(());
        }
        self.grants += 1;
        if let Some(other) = self.held.filter(|other| other.client != client && other.until > now) {
            return Err(format!(
                "the lock was granted to client {client} with token {token} at {now} µs, while client {} with token {} \
                 holds it until {} µs",
                other.client, other.token, other.until
            ));
        }
        if token <= self.last_token {
            return Err(format!("token {token} of client {client} comes after token {}", self.last_token));
        }
        self.last_token = token;
        self.held = Some(Belief { client, token, until });
        Ok(())
    }

    pub fn renew(&mut self, client: usize, until: u64) {
        if let Some(held) = self.held.as_mut().filter(|held| held.client == client) {
            held.until = held.until.max(until);
        }
    }

    pub fn release(&mut self, client: usize) {
        self.held = self.held.filter(|held| held.client != client);
    }
}
