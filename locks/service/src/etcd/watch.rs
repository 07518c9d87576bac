//! Watching keys: each watcher has a revision up to which it has seen everything, and takes what came behind it from
//! the store. Nothing queues for a watcher that is slow; one that is slower than the store forgets is told so.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, StreamExt};
use rialto_locks::Refusal;
use rialto_locks::kv::Span;
use rialto_locks::store::Change;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::kv::key_of;
use super::messages::*;
use super::{Answers, header};
use crate::Group;

/// The most changes in one answer.
const CHANGES_MAX: usize = 256;
/// The most watchers of one stream.
const WATCHERS_MAX: usize = 1024;
/// Answers that wait for the client.
const ANSWERS_MAX: usize = 64;
/// A watcher that asked for it is told so often that nothing has happened.
const PROGRESS_EVERY: Duration = Duration::from_secs(600);

struct Watcher {
    span: Span,
    /// The first revision that it has not seen.
    next: i64,
    wants_puts: bool,
    wants_deletes: bool,
    wants_previous: bool,
    wants_progress: bool,
    quiet_until: Instant,
}

/// Serves one stream of watchers.
pub fn watch<S>(group: Group, asked: S) -> Answers<WatchResponse>
where
    S: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
{
    let (answers, answered) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        let mut watching = Watching { group, watchers: BTreeMap::new(), last_id: 0, answers };
        // None: the client is gone.
        let _ = watching.run(asked).await;
    });
    Answers::of(ReceiverStream::new(answered))
}

struct Watching {
    group: Group,
    watchers: BTreeMap<i64, Watcher>,
    last_id: i64,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
}

impl Watching {
    async fn run<S>(&mut self, mut asked: S) -> Option<()>
    where
        S: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin,
    {
        let mut revisions = self.group.revisions();
        loop {
            let quiet = self.watchers.values().filter(|watcher| watcher.wants_progress);
            let quiet = quiet.map(|watcher| watcher.quiet_until).min();
            tokio::select! {
                request = asked.next() => self.hear(request?.ok()?).await?,
                changed = revisions.changed() => {
                    changed.ok()?;
                    revisions.borrow_and_update();
                    self.catch_up().await?;
                }
                () = sleep_until(quiet.unwrap_or_else(Instant::now)), if quiet.is_some() => self.tell_progress().await?,
                () = self.answers.closed() => return None,
            }
        }
    }

    async fn hear(&mut self, request: WatchRequest) -> Option<()> {
        match request.request? {
            AnyWatch::Create(create) => self.create(create).await,
            AnyWatch::Cancel(WatchCancelRequest { watch_id }) => {
                if self.watchers.remove(&watch_id).is_some() {
                    self.tell(WatchResponse { watch_id, canceled: true, ..self.plain() }).await?;
                }
                Some(())
            }
            AnyWatch::Progress(_) => {
                self.catch_up().await?;
                // To the stream as a whole.
                self.tell(WatchResponse { watch_id: -1, ..self.plain() }).await
            }
        }
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Option<()> {
        let taken = self.watchers.contains_key(&create.watch_id);
        let refusal = match create.watch_id {
            _ if self.watchers.len() >= WATCHERS_MAX => Some("too many watchers on one stream"),
            id if id != 0 && taken => Some("etcdserver: duplicate watch ID"),
            _ if create.key.is_empty() && create.range_end.is_empty() => Some("etcdserver: key is not provided"),
            _ => None,
        };
        if let Some(reason) = refusal {
            let answer = WatchResponse { watch_id: -1, created: true, canceled: true, ..self.plain() };
            return self.tell(WatchResponse { cancel_reason: reason.into(), ..answer }).await;
        }
        let watch_id = if create.watch_id == 0 { self.free_id() } else { create.watch_id };
        let now = self.group.look(|replica| replica.store().revision()).await.ok()?;
        let watcher = Watcher {
            span: Span { key: create.key, end: create.range_end },
            next: if create.start_revision > 0 { create.start_revision } else { now + 1 },
            wants_puts: !create.filters.contains(&0),
            wants_deletes: !create.filters.contains(&1),
            wants_previous: create.prev_kv,
            wants_progress: create.progress_notify,
            quiet_until: Instant::now() + PROGRESS_EVERY,
        };
        self.watchers.insert(watch_id, watcher);
        self.tell(WatchResponse { watch_id, created: true, header: header(&self.group, now), ..Default::default() })
            .await?;
        self.catch_up_one(watch_id).await
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.last_id) {
            self.last_id += 1;
        }
        self.last_id
    }

    fn plain(&self) -> WatchResponse {
        WatchResponse { header: header(&self.group, self.group.told().revision), ..WatchResponse::default() }
    }

    async fn tell(&self, answer: WatchResponse) -> Option<()> {
        self.answers.send(Ok(answer)).await.ok()
    }

    async fn tell_progress(&mut self) -> Option<()> {
        let now = Instant::now();
        let due: Vec<i64> = self
            .watchers
            .iter()
            .filter(|(_, one)| one.wants_progress && one.quiet_until <= now)
            .map(|(id, _)| *id)
            .collect();
        for watch_id in due {
            self.tell(WatchResponse { watch_id, ..self.plain() }).await?;
            if let Some(watcher) = self.watchers.get_mut(&watch_id) {
                watcher.quiet_until = now + PROGRESS_EVERY;
            }
        }
        Some(())
    }

    async fn catch_up(&mut self) -> Option<()> {
        for id in self.watchers.keys().copied().collect::<Vec<_>>() {
            self.catch_up_one(id).await?;
        }
        Some(())
    }

    /// Tells one watcher everything that has happened since it was last told.
    async fn catch_up_one(&mut self, watch_id: i64) -> Option<()> {
        loop {
            let Some(watcher) = self.watchers.get_mut(&watch_id) else { return Some(()) };
            let from = watcher.next;
            let look = self.group.look(move |replica| {
                let store = replica.store();
                (store.changes(from, CHANGES_MAX), store.compacted(), store.revision())
            });
            let (changes, compacted, revision) = look.await.ok()?;
            let changes = match changes {
                Ok(changes) => changes,
                Err(Refusal::Compacted) => {
                    self.watchers.remove(&watch_id);
                    let reason = Refusal::Compacted.to_string();
                    let answer = WatchResponse { watch_id, canceled: true, ..self.plain() };
                    let answer = WatchResponse { compact_revision: compacted + 1, cancel_reason: reason, ..answer };
                    return self.tell(answer).await;
                }
                Err(_) => return None,
            };
            let Some(last) = changes.last().map(|change| change.revision) else {
                watcher.next = watcher.next.max(revision + 1);
                return Some(());
            };
            watcher.next = last + 1;
            let events: Vec<Event> = changes.iter().filter_map(|change| event(watcher, change)).collect();
            if !events.is_empty() {
                watcher.quiet_until = Instant::now() + PROGRESS_EVERY;
                let header = header(&self.group, last);
                self.tell(WatchResponse { header, watch_id, events, ..WatchResponse::default() }).await?;
            }
        }
    }
}

/// What a watcher is told of a change.
fn event(watcher: &Watcher, change: &Change) -> Option<Event> {
    const PUT: i32 = 0;
    const DELETE: i32 = 1;
    if !watcher.span.contains(change.name()) {
        return None;
    }
    let prev_kv = change.previous.as_deref().filter(|_| watcher.wants_previous).map(key_of);
    match &change.key {
        Some(key) => watcher.wants_puts.then(|| Event { r#type: PUT, kv: Some(key_of(key)), prev_kv }),
        None => {
            let kv = KeyValue { key: change.name().to_vec(), mod_revision: change.revision, ..KeyValue::default() };
            watcher.wants_deletes.then_some(Event { r#type: DELETE, kv: Some(kv), prev_kv })
        }
    }
}
