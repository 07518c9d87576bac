//! What is on its way to one peer: a bounded queue, and the stream that empties it.
//!
//! Each peer that is spoken to has one task. It opens its stream when there is a reason: the link
//! is wanted, a message waits, or the peer has opened its own stream to us (so that the wish of
//! either end makes the link whole). It is also the only one that tells of the link's state, so
//! that this is told in order.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use libp2p::Stream;
use rialto_protocol::ids::PeerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::backoff::Backoff;
use super::context::Shared;
use super::doors::Door;
use super::frames::{HEADER_BYTES, Packet};
use super::{MeshEvent, OpenError};

/// The most messages that wait for one peer, and the most bytes of them.
const QUEUE_MAX: usize = 1024;
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// What is written at once, in bytes.
const WRITE_BYTES: usize = 64 << 10;
/// A buffer that one large message has blown up is given back.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// A stream that takes nothing for so long is dead.
const STALL_MAX: Duration = Duration::from_secs(5);
/// A stream that nobody wants to stand ends after so long without a message either way. Each peer compares with a random
/// one every ten seconds: with this and what an idle connection is kept, that makes seven connections beside the links.
const IDLE: Duration = Duration::from_secs(15);
/// Of two peers that want to link, the one with the higher key lets the other dial first.
const HEAD_START: Duration = Duration::from_millis(200);
/// A stream that lasted so long was no failed attempt.
const LASTING: Duration = Duration::from_secs(2);
/// What waits is still sent for so long when everything ends.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// From this failed attempt on it is told that the peer does not take our streams: before, it may
/// only not have heard of our admission.
const UNSUPPORTED_TOLD: u32 = 4;

/// The way to one peer.
pub(super) struct Outbox {
    queue: mpsc::Sender<Packet>,
    queued_bytes: AtomicUsize,
    wishes: Mutex<Wishes>,
    /// Something that the task looks at has changed.
    stir: Notify,
    /// When the last message went or came, ms after `born`.
    last_message: AtomicU64,
    born: Instant,
}

#[derive(Default)]
struct Wishes {
    /// The link is to stand.
    wanted: bool,
    /// The peer has opened a stream, and may be waiting for ours.
    called: bool,
    /// Streams of the peer's that are open.
    inbound: u32,
    /// At some time since this was last looked at there were none.
    inbound_lost: bool,
}

impl Outbox {
    /// The outbox of a peer; made, with its task, where there is none.
    pub(super) fn of(shared: &Arc<Shared>, peer: PeerId) -> Arc<Outbox> {
        let mut all = shared.outboxes.lock().expect("nobody panics with the lock");
        let make = || {
            let (queue, waiting) = mpsc::channel(QUEUE_MAX);
            let outbox = Arc::new(Outbox {
                queue,
                queued_bytes: AtomicUsize::new(0),
                wishes: Mutex::default(),
                stir: Notify::new(),
                last_message: AtomicU64::new(0),
                born: Instant::now(),
            });
            let carrier = Carrier {
                shared: shared.clone(),
                outbox: outbox.clone(),
                peer,
                waiting,
                first: None,
                outbound: false,
                told: false,
            };
            shared.spawn(carrier.run());
            outbox
        };
        all.entry(peer).or_insert_with(make).clone()
    }

    /// Queues a message; false where it was dropped instead.
    pub(super) fn send(shared: &Arc<Shared>, to: PeerId, packet: Packet) -> bool {
        // A task ends only when nobody but the map holds its outbox: the queue found here is served.
        let outbox = Outbox::of(shared, to);
        let size = packet.size();
        if outbox.queued_bytes.fetch_add(size, Relaxed) + size > QUEUE_BYTES_MAX
            || outbox.queue.try_send(packet).is_err()
        {
            outbox.queued_bytes.fetch_sub(size, Relaxed);
            return false;
        }
        true
    }

    pub(super) fn want(&self, wanted: bool) {
        self.change(|wishes| wishes.wanted = wanted);
    }

    /// The peer has opened a stream to us.
    pub(super) fn inbound_came(&self) {
        self.touch();
        self.change(|wishes| {
            wishes.inbound += 1;
            wishes.called = true;
        });
    }

    /// One of the peer's streams has ended.
    pub(super) fn inbound_went(&self) {
        self.change(|wishes| {
            wishes.inbound -= 1;
            wishes.inbound_lost |= wishes.inbound == 0;
        });
    }

    /// A message went or came.
    pub(super) fn touch(&self) {
        self.last_message.store(self.born.elapsed().as_millis() as u64, Relaxed);
    }

    /// A connection came or went.
    pub(super) fn stir(&self) {
        self.stir.notify_one();
    }

    fn change(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.wishes.lock().expect("nobody panics with the lock"));
        self.stir.notify_one();
    }

    fn idle_at(&self) -> Instant {
        self.born + Duration::from_millis(self.last_message.load(Relaxed)) + IDLE
    }
}

/// The task of an outbox.
struct Carrier {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    peer: PeerId,
    waiting: mpsc::Receiver<Packet>,
    /// A message that was taken from the queue before there was a stream.
    first: Option<Packet>,
    /// Our stream is open.
    outbound: bool,
    /// What the driver was told last of the link.
    told: bool,
}

impl Carrier {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        while self.rest().await {
            if self.first.is_none() {
                self.let_the_other_dial().await;
            }
            let opened = tokio::select! {
                opened = self.shared.open(self.peer, Door::Link, &[]) => opened,
                () = self.shared.stop.cancelled() => return,
            };
            match opened {
                Ok(stream) => {
                    let since = Instant::now();
                    self.carry(stream).await;
                    self.outbound = false;
                    self.tell_link().await;
                    if since.elapsed() > LASTING {
                        backoff = Backoff::default();
                    }
                }
                Err(error) => self.give_up(&error, backoff.attempts()),
            }
            if self.wanted() {
                self.pause(backoff.next()).await;
            }
        }
    }

    /// Waits for a reason to open a stream; false where the task is to end, for there will be none.
    async fn rest(&mut self) -> bool {
        loop {
            self.tell_link().await;
            {
                let mut all = self.shared.outboxes.lock().expect("nobody panics with the lock");
                let mut wishes = self.outbox.wishes.lock().expect("nobody panics with the lock");
                if self.shared.stop.is_cancelled() {
                    return false;
                }
                let called = std::mem::take(&mut wishes.called);
                if wishes.wanted || called || self.first.is_some() || !self.waiting.is_empty() {
                    return true;
                }
                // Three hold the outbox: the map, this task, and perhaps a sender or a stream.
                if wishes.inbound == 0 && Arc::strong_count(&self.outbox) <= 2 {
                    all.remove(&self.peer);
                    return false;
                }
            }
            tokio::select! {
                packet = self.waiting.recv() => self.first = packet,
                () = self.outbox.stir.notified() => {}
                () = self.shared.stop.cancelled() => {}
            }
        }
    }

    /// Two that dial each other at once end up with two connections, which does no harm but is
    /// waste.
    async fn let_the_other_dial(&self) {
        let until = Instant::now() + HEAD_START;
        while self.shared.me > self.peer && self.wanted() && !self.shared.doors.is_connected(&self.peer) {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.outbox.stir.notified() => {}
                () = self.shared.stop.cancelled() => return,
            }
        }
    }

    /// Carries messages until the stream is lost or has no reason to be.
    async fn carry(&mut self, stream: Stream) {
        let (mut reader, mut writer) = tokio::io::split(stream.compat());
        let mut buffer = BytesMut::new();
        self.outbox.touch();
        self.outbox.wishes.lock().expect("nobody panics with the lock").called = false;
        self.outbound = true;
        self.tell_link().await;
        if let Some(packet) = self.first.take()
            && !self.write(packet, &mut buffer, &mut writer).await
        {
            return;
        }
        loop {
            let idle_at = self.outbox.idle_at();
            tokio::select! {
                packet = self.waiting.recv() => {
                    let Some(packet) = packet else { return };
                    if !self.write(packet, &mut buffer, &mut writer).await {
                        return;
                    }
                }
                () = ended(&mut reader) => return,
                () = self.outbox.stir.notified() => self.tell_link().await,
                () = sleep_until(idle_at), if !self.wanted() => {
                    if self.outbox.idle_at() <= Instant::now() {
                        let _ = timeout(STALL_MAX, writer.shutdown()).await;
                        return;
                    }
                }
                () = self.shared.stop.cancelled() => {
                    let goodbye = async {
                        while let Ok(packet) = self.waiting.try_recv() {
                            if !self.write(packet, &mut buffer, &mut writer).await {
                                return;
                            }
                        }
                        let _ = writer.shutdown().await;
                    };
                    let _ = timeout(GOODBYE_MAX, goodbye).await;
                    return;
                }
            }
        }
    }

    /// Writes a message and whatever else waits; false where the stream takes nothing any more.
    async fn write(&mut self, first: Packet, buffer: &mut BytesMut, to: &mut WriteHalf<Compat<Stream>>) -> bool {
        let mut count = 0;
        let mut next = Some(first);
        while let Some(packet) = next {
            self.outbox.queued_bytes.fetch_sub(packet.size(), Relaxed);
            packet.write_to(buffer);
            self.shared.outgoing.add(packet.kind(), packet.size() + HEADER_BYTES);
            count += 1;
            next = if buffer.len() < WRITE_BYTES { self.waiting.try_recv().ok() } else { None };
        }
        let written = write_all(buffer, to).await;
        buffer.clear();
        if buffer.capacity() > BUFFER_BYTES_MAX {
            *buffer = BytesMut::new();
        }
        if written {
            self.outbox.touch();
            self.shared.counters.sent.add(count);
        } else {
            self.shared.counters.dropped.add(count);
        }
        written
    }

    /// The peer cannot be reached now: what waits is dropped, for it grows old.
    fn give_up(&mut self, error: &OpenError, attempts: u32) {
        let mut dropped = 0;
        while let Some(packet) = self.first.take().or_else(|| self.waiting.try_recv().ok()) {
            self.outbox.queued_bytes.fetch_sub(packet.size(), Relaxed);
            dropped += 1;
        }
        self.shared.counters.dropped.add(dropped);
        if let OpenError::Unsupported(protocol) = error {
            self.shared.counters.unsupported.add(1);
            if attempts == UNSUPPORTED_TOLD {
                let peer = self.peer;
                tracing::warn!(%peer, "the peer does not take {protocol}: it has another version, or does not know us");
            }
        }
        tracing::debug!(peer = %self.peer, %error, dropped, attempts, "no stream");
    }

    /// Waits before the next attempt; not longer than until the peer has come by itself.
    async fn pause(&self, time: Duration) {
        let over = sleep(time);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.shared.stop.cancelled() => return,
                () = self.outbox.stir.notified() => {
                    let called = self.outbox.wishes.lock().expect("nobody panics with the lock").called;
                    if called || !self.wanted() || self.shared.doors.is_connected(&self.peer) {
                        return;
                    }
                }
            }
        }
    }

    /// Tells the driver of the link where that has changed. A loss is told even when it is mended
    /// already: what was under way then is gone.
    async fn tell_link(&mut self) {
        let (up, lost) = {
            let mut wishes = self.outbox.wishes.lock().expect("nobody panics with the lock");
            let lost = std::mem::take(&mut wishes.inbound_lost);
            (self.outbound && wishes.wanted && wishes.inbound > 0, lost)
        };
        if self.told && (lost || !up) {
            self.told = false;
            self.shared.tell(MeshEvent::Link { peer: self.peer, up: false }).await;
        }
        if up && !self.told {
            self.told = true;
            self.shared.tell(MeshEvent::Link { peer: self.peer, up: true }).await;
        }
    }

    fn wanted(&self) -> bool {
        self.outbox.wishes.lock().expect("nobody panics with the lock").wanted
    }
}

/// Resolves when the peer has ended the stream. Nothing else comes back on it.
async fn ended(reader: &mut ReadHalf<Compat<Stream>>) {
    let _ = reader.read(&mut [0]).await;
}

/// Writes everything, however long it takes, as long as something is taken now and then.
async fn write_all(bytes: &[u8], to: &mut WriteHalf<Compat<Stream>>) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match timeout(STALL_MAX, to.write(rest)).await {
            Ok(Ok(taken)) if taken > 0 => rest = &rest[taken..],
            _ => return false,
        }
    }
    matches!(timeout(STALL_MAX, to.flush()).await, Ok(Ok(())))
}
