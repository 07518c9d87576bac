//! Watching apps: one look at the brain per change, however many watch.
//!
//! One task waits for the brain to change and then looks at those watched apps that may show something else, in a
//! single read, so that a thousand waiting runs cost the brain one visit and not a thousand. Looks are numbered on the
//! brain's thread: who begins to watch looks once by itself, and is never shown anything older than that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rialto_protocol::api::{App, TaskRow};
use rialto_protocol::view::{ClaimAt, TaskFilter, View};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::progress::{has_ended, is_wanted};
use crate::handle::Handle;
use crate::news::Scope;

/// An app as the brain shows it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// None where there is no such app (any more).
    pub app: Option<App>,
    /// Also of earlier generations; newest first.
    pub rows: Vec<TaskRow>,
    /// The same: of the newest generation the newest attempt first.
    pub claims: Vec<ClaimAt>,
    /// The number of the look.
    pub at: u64,
}

impl Seen {
    fn of(view: View<'_>, app: &str, at: u64) -> Self {
        let filter = TaskFilter { app: Some(app.to_string()), all: true, ..Default::default() };
        let claims = view.claims(app);
        let mut rows = view.tasks(&filter);
        // Attempts are counted anew in each generation; only the order of claims knows of those.
        let places: HashMap<String, usize> =
            claims.iter().enumerate().map(|(place, claim)| (claim.claim.hex(), place)).collect();
        let app = view.app(app);
        let absent: HashSet<String> =
            claims.iter().filter(|claim| !claim.reachable).map(|claim| claim.claim.hex()).collect();
        for row in rows.iter_mut().filter(|row| row.claim.as_ref().is_some_and(|claim| absent.contains(claim))) {
            // Nobody waits for word of a task that nobody wants, from a machine that nobody hears.
            row.lost |= !has_ended(row) && !is_wanted(row, app.as_ref());
        }
        rows.sort_by_key(|row| row.claim.as_ref().and_then(|claim| places.get(claim)).copied().unwrap_or(usize::MAX));
        Self { app, rows, claims, at }
    }
}

type Shown = Option<Arc<Seen>>;

/// All apps that are watched.
pub struct Watches {
    inner: Arc<Inner>,
    task: AbortHandle,
}

struct Inner {
    handle: Handle,
    apps: Mutex<BTreeMap<String, watch::Sender<Shown>>>,
    looks: Arc<AtomicU64>,
    /// Somebody began to watch.
    began: Notify,
}

/// One who watches an app.
#[derive(Clone)]
pub struct Watching {
    /// What was last seen.
    pub seen: Arc<Seen>,
    shown: watch::Receiver<Shown>,
}

impl Watching {
    /// Waits until something else is to be seen; `false`: the peer is going down.
    pub async fn changed(&mut self) -> bool {
        loop {
            if self.shown.changed().await.is_err() {
                return false;
            }
            if let Some(news) = self.shown.borrow_and_update().clone().filter(|news| news.at > self.seen.at) {
                self.seen = news;
                return true;
            }
        }
    }
}

impl Watches {
    /// Starts the task that looks.
    pub fn new(handle: Handle) -> Self {
        let inner = Inner { handle, apps: Mutex::default(), looks: Arc::default(), began: Notify::new() };
        let inner = Arc::new(inner);
        let task = tokio::spawn(inner.clone().keep_looking()).abort_handle();
        Self { inner, task }
    }

    /// Watches an app from now on; `None`: the peer is going down.
    pub async fn watch(&self, app: &str) -> Option<Watching> {
        let shown = {
            let mut apps = self.inner.apps.lock().expect("no holder panics");
            let sender = apps.entry(app.to_string()).or_insert_with(|| watch::channel(None).0);
            sender.subscribe()
        };
        self.inner.began.notify_one();
        let mut looks = self.inner.look(vec![app.to_string()]).await?;
        looks.pop().map(|seen| Watching { seen: Arc::new(seen), shown })
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    async fn look(&self, apps: Vec<String>) -> Option<Vec<Seen>> {
        let looks = self.looks.clone();
        let look = move |brain: &rialto_protocol::Brain, now| {
            let at = looks.fetch_add(1, Ordering::Relaxed) + 1;
            apps.iter().map(|app| Seen::of(brain.view(now), app, at)).collect()
        };
        self.handle.watch(look).await
    }

    async fn keep_looking(self: Arc<Self>) {
        let mut changes = self.handle.changes();
        let mut heard = 0;
        loop {
            let (scope, count) = {
                let news = changes.borrow_and_update();
                (news.since(heard), news.count())
            };
            heard = count;
            let (idle, stirred) = self.watched(&scope);
            if !stirred.is_empty() {
                let Some(looks) = self.look(stirred.clone()).await else { break };
                self.show(stirred, looks);
            }
            tokio::select! {
                // Who begins has looked by itself: only what changes from then on is news.
                () = self.began.notified() => {}
                changed = changes.changed(), if !idle => if changed.is_err() { break },
            }
        }
        // Whoever still watches learns by the end of the channel that nothing more will come.
        self.apps.lock().expect("no holder panics").clear();
    }

    /// Whether nobody watches anything, and those watched apps that may show something else.
    fn watched(&self, scope: &Scope) -> (bool, Vec<String>) {
        let mut apps = self.apps.lock().expect("no holder panics");
        apps.retain(|_, sender| sender.receiver_count() > 0);
        (apps.is_empty(), apps.keys().filter(|app| scope.holds(app)).cloned().collect())
    }

    fn show(&self, watched: Vec<String>, looks: Vec<Seen>) {
        let apps = self.apps.lock().expect("no holder panics");
        for (app, now) in watched.iter().zip(looks) {
            if let Some(sender) = apps.get(app) {
                sender.send_replace(Some(Arc::new(now)));
            }
        }
    }
}
