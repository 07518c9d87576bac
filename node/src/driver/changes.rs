//! Telling those who watch that something has changed, without letting them watch the brain to death.
//!
//! Whoever watches looks again, and looks on the brain's own thread. So the next word waits until the
//! looks that followed the last one are at most a tenth of the time since: cheap looks are never
//! slowed, and costly ones of thousands of tasks never crowd out the work that they look at. Other reads do not count:
//! each would put the next word off, and many of them for ever.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::news::{News, Scope};

/// Looking takes at most one part in so many of the brain's time.
const SHARE: u32 = 10;

pub struct Changes {
    news: watch::Sender<News>,
    /// What is to be told.
    pending: Option<Scope>,
    told: Instant,
    /// Time that watchers' looks took since then.
    looked: Duration,
}

impl Changes {
    pub fn new(news: watch::Sender<News>) -> Self {
        Self { news, pending: None, told: Instant::now(), looked: Duration::ZERO }
    }

    /// Something has changed.
    pub fn note(&mut self, scope: Scope) {
        match &mut self.pending {
            Some(pending) => pending.add(&scope),
            None => self.pending = Some(scope),
        }
    }

    /// A watcher has looked, and it took so long.
    pub fn looked(&mut self, took: Duration) {
        self.looked += took;
    }

    /// When watchers are to be told; `None`: there is nothing to tell.
    pub fn due(&self) -> Option<Instant> {
        self.pending.as_ref().map(|_| self.told + self.looked * SHARE)
    }

    /// Tells watchers, if it is time.
    pub fn tell(&mut self) {
        let now = Instant::now();
        if self.due().is_some_and(|due| due <= now)
            && let Some(scope) = self.pending.take()
        {
            (self.told, self.looked) = (now, Duration::ZERO);
            self.news.send_modify(|news| news.tell(scope));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costly_looks_delay_the_next_word() {
        let (news, seen) = watch::channel(News::default());
        let mut changes = Changes::new(news);
        changes.tell();
        assert_eq!(seen.borrow().count(), 0, "nothing has changed");
        changes.note(Scope::Everything);
        changes.tell();
        assert_eq!(seen.borrow().count(), 1);
        changes.note(Scope::Everything);
        changes.looked(Duration::from_secs(60));
        changes.tell();
        assert_eq!(seen.borrow().count(), 1);
        assert!(changes.due().unwrap() > Instant::now() + Duration::from_secs(500));
    }
}
