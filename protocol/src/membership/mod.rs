//! Who is there: observers, verdicts, and the storm gate.
//!
//! Every peer is watched by a few others, its *observers*: those of the members not down that weigh
//! most for it in rendezvous hashing, so that everybody computes the same ones. Observer and observed
//! keep a standing link, and heartbeats cross it both ways each second. Whichever end misses a few
//! writes a *verdict* against the other's present *life*; the verdict spreads like any record. (Were
//! it the observer alone, a peer that has lost all its observers would never learn of it, never draw
//! others, and so stay an island: found where ninety of a hundred die.) A subject that lives hears of it
//! over any of its links and raises its life, which makes the verdict void; one that does not is
//! *down* a little later, everywhere. Then the observers of those that are left are drawn anew, and
//! so the death of most of a cluster is found in a few rounds. (After SWIM, Das et al. 2002, the
//! multiplier after Lifeguard, Dadgar et al. 2018, and the fixed observers after Rapid, Suresh et
//! al. 2018.)
//!
//! Being down ends a machine's part in everything; whether its tasks are *lost* and are to be
//! replaced is the storm gate's to say: a peer that suddenly sees less than half of those it saw
//! suspects itself first.
//!
//! How it is used: tell everything that happens, then call [`Membership::tick`], and call that
//! again at [`Membership::next_deadline`]. At start: `new` with what was remembered, then every
//! `machine` record by [`Membership::upsert`], every verdict (one's own, too) by
//! [`Membership::verdict`], every departure by [`Membership::depart`], then the first `tick`.
//!
//! One thing is asked of the mesh: a link that is wanted is dialled again within seconds for as long
//! as it is wanted. A few of the members that are down are always wanted, and that is how the sides
//! of a split find each other when it heals. Two peers may disagree for a while on who observes
//! whom, and then only one of them wants the link: so heartbeats that come over no standing link of
//! this peer's own are answered, one for one.

mod detector;
mod gate;
mod judge;
mod links;
mod observers;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chunks::Chunks;
use crate::event::Now;
use crate::ids::PeerId;
use detector::Health;
use gate::{Gate, Remembered};
use links::Probes;
use observers::Draw;
use peer::{Accusation, Peer};

/// The numbers of the design. Durations are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    pub heartbeat_ms: u64,
    /// An observer accuses after so many heartbeats without a word, times its multiplier.
    pub misses: u64,
    /// How long the accused has to refute; a tenth of a millisecond more for each member.
    pub refute_ms: u64,
    /// How many observe each peer. Up to one more than this in all, everybody observes everybody.
    pub observers: usize,
    /// How long a minority holds replacing back; `None`: for ever.
    pub minority_hold_ms: Option<u64>,
    /// A loss goes on until so long after the last member that went down; and it is great when over
    /// a fifth of ten or more go down within this time.
    pub loss_ms: u64,
    /// After a great loss replacing waits until nobody has gone down for so long,
    pub quiet_ms: u64,
    /// and is then spread over so long.
    pub spread_ms: u64,
    /// The longest announced restart that is believed.
    pub restart_ms_max: u64,
    /// Other down members are tried each time this has passed.
    pub probe_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1000,
            misses: 3,
            refute_ms: 2000,
            observers: 5,
            minority_hold_ms: Some(60_000),
            loss_ms: 60_000,
            quiet_ms: 10_000,
            spread_ms: 10_000,
            restart_ms_max: 60_000,
            probe_ms: 5000,
        }
    }
}

/// What a `machine` record says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: PeerId,
    /// Observers are spread over these, where they are named.
    pub rack: Option<String>,
    pub life: u64,
    /// Wall clock, ms.
    pub restarting_until: Option<u64>,
    pub draining: bool,
}

/// What a peer holds of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Alive,
    /// Accused, and it may still refute.
    Suspect,
    Down,
    /// It departed, or nothing is known of it.
    Left,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send a heartbeat, over the standing link.
    Heartbeat { to: PeerId, life: u64 },
    /// Write a verdict against this life of the subject.
    Accuse { subject: PeerId, life: u64 },
    /// Delete one's own verdict against the subject: it is void.
    Withdraw { subject: PeerId },
    /// Raise one's own life to at least this, in one's machine record, at once.
    Refute { life: u64 },
    /// All the standing links that are wanted, sorted; they have changed.
    Links(Vec<PeerId>),
    /// A peer is in another state, or new.
    Changed { peer: PeerId, state: State },
    /// Replacing is held back, or differently, or no more: see [`Membership::held`].
    Held(Option<Held>),
    /// Keep these bytes on disk for [`Membership::new`], in place of the last.
    Remember(Vec<u8>),
}

/// Whether the tasks of a peer are lost and are to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The peer is not down.
    No,
    /// Not before this (monotonic, ms); then ask again.
    Waits {
        until_ms: u64,
    },
    /// The storm gate is shut; `None`: until others come back, or a person opens it.
    Held {
        until_ms: Option<u64>,
    },
    Lost,
}

/// The storm gate is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Members of the reference that are not down, this peer included.
    pub sees: u32,
    /// Members of the reference: those that were not down when the loss began.
    pub of: u32,
    /// Monotonic, ms; `None`: for ever.
    pub until_ms: Option<u64>,
}

/// One peer's belief about who is there. It knows no clock, no wire and no disk.
#[derive(Debug)]
pub struct Membership {
    tuning: Tuning,
    /// This peer's own index.
    me: u32,
    index: Arc<BTreeMap<PeerId, u32>>,
    /// By dense index. Nobody is ever taken out.
    peers: Chunks<Peer>,
    draw: Draw,
    /// To be judged at the next tick.
    touched: BTreeSet<u32>,
    /// To be judged again at this time.
    alarms: BTreeSet<(u64, u32)>,
    /// Those that this peer observes or is observed by, and since when.
    watched: BTreeMap<u32, u64>,
    /// The links that are up, and since when.
    linked: BTreeMap<u32, u64>,
    /// Those who are to hear a heartbeat at once: over a link that has come up, or in answer.
    greet: BTreeSet<u32>,
    /// The last [`Order::Links`], and whether another may be due.
    wanted: Vec<PeerId>,
    links_stale: bool,
    probes: Probes,
    health: Health,
    /// When this peer last woke from a pause: silence before that is its own.
    woke_ms: u64,
    last_ms: u64,
    beat_ms: u64,
    /// Nobody is accused before this; 0: to be reckoned anew.
    accuse_ms: u64,
    /// The highest life that [`Order::Refute`] named.
    refuted: u64,
    gate: Gate,
    gate_stale: bool,
    held: Option<Held>,
    /// Those that are down, and the highest life they were accused in.
    down: BTreeMap<PeerId, u64>,
    /// What an earlier run of this peer had in `down`, until their records are read.
    down_before: BTreeMap<PeerId, u64>,
    remember_stale: bool,
    known: usize,
    live: usize,
    epoch: u64,
    orders: Vec<Order>,
}

/// A verdict against a life so far above the last that is known is none: nobody can have seen that life, and above the
/// highest number there would be no other to refute it with.
const LIFE_LEAP_MAX: u64 = 1_000_000;

impl Membership {
    /// A peer that knows of itself alone. `remembered`: the bytes of the last [`Order::Remember`];
    /// what does not read is passed over.
    pub fn new(me: PeerId, tuning: Tuning, remembered: Option<&[u8]>, now: Now) -> Self {
        let remembered: Remembered = remembered.and_then(|bytes| crate::wire::decode(bytes).ok()).unwrap_or_default();
        let mut new = Self {
            tuning,
            me: 0,
            index: Arc::default(),
            peers: Chunks::default(),
            draw: Draw::new(tuning.observers),
            touched: BTreeSet::new(),
            alarms: BTreeSet::new(),
            watched: BTreeMap::new(),
            linked: BTreeMap::new(),
            greet: BTreeSet::new(),
            wanted: Vec::new(),
            links_stale: true,
            probes: Probes::new(me, now.ms),
            health: Health::new(now.ms),
            woke_ms: now.ms,
            last_ms: now.ms,
            beat_ms: now.ms,
            accuse_ms: 0,
            refuted: 0,
            gate: Gate::new(&tuning, remembered.reference, now.ms),
            gate_stale: true,
            held: None,
            down: BTreeMap::new(),
            down_before: remembered.down.into_iter().collect(),
            remember_stale: false,
            known: 1,
            live: 1,
            epoch: 1,
            orders: Vec::new(),
        };
        let at = new.intern(me);
        (new.peers[at as usize].known, new.peers[at as usize].state) = (true, State::Alive);
        new.draw.set(at, None, true);
        new
    }

    /// Another peer of the same members as this one knows, which has only just begun and heard of nobody yet: what
    /// both hold alike is held once.
    pub fn beside(&self, me: PeerId, tuning: Tuning, remembered: Option<&[u8]>, now: Now) -> Self {
        let mut new = Self::new(me, tuning, remembered, now);
        let Some(at) = self.index.get(&me) else { return new };
        debug_assert!(self.touched.is_empty() && self.orders.is_empty(), "the other's turn is over");
        new.me = *at;
        (new.index, new.peers, new.draw) = (self.index.clone(), self.peers.clone(), self.draw.clone());
        (new.alarms, new.down) = (self.alarms.clone(), self.down.clone());
        (new.known, new.live) = (self.known, self.live);
        new.touched.insert(new.me);
        new.watch(now);
        if let Some(accused) = new.peers[new.me as usize].accused.take() {
            new.refute(accused.life);
        }
        new
    }

    /// A member's `machine` record was read, new or changed; this peer's own, too.
    pub fn upsert(&mut self, now: Now, member: Member) {
        self.arrive(now);
        let at = self.intern(member.id);
        let peer = &mut self.peers[at as usize];
        let first = !peer.known;
        if peer.left_ms.is_some() {
            return;
        }
        peer.announced(now, member.restarting_until, self.tuning.restart_ms_max);
        self.gate_stale |= peer.draining != member.draining;
        peer.draining = member.draining;
        if first {
            peer.known = true;
            self.gate_stale = true;
            peer.life = member.life;
            peer.state = State::Alive;
            peer.since_ms = now.ms;
            self.known += 1;
            match self.down_before.remove(&member.id) {
                // It was down before this peer was restarted: no loss of today.
                Some(life) if life >= member.life && at != self.me => {
                    peer.accused = Some(Accusation { life, seen_ms: now.ms });
                    peer.state = State::Down;
                    self.down.insert(member.id, life);
                }
                _ => {
                    self.live += 1;
                    self.epoch += 1;
                }
            }
            let state = peer.state;
            self.orders.push(Order::Changed { peer: member.id, state });
        }
        let present = self.peers[at as usize].is_live();
        self.draw.set(at, member.rack.as_deref(), present);
        self.raise(now, at, member.life);
        self.touched.insert(at);
    }

    /// A departure was read: the peer is no member any more, and never will be again.
    pub fn depart(&mut self, now: Now, peer: &PeerId) {
        self.arrive(now);
        let at = self.intern(*peer);
        self.peers[at as usize].left_ms.get_or_insert(now.ms);
        self.touched.insert(at);
    }

    /// The standing link to a peer is up, or lost.
    pub fn link(&mut self, now: Now, peer: &PeerId, up: bool) {
        self.arrive(now);
        let at = self.intern(*peer);
        if at == self.me {
        } else if up {
            self.linked.entry(at).or_insert(now.ms);
            self.greet.insert(at);
        } else {
            self.linked.remove(&at);
            self.greet.remove(&at);
        }
    }

    /// A heartbeat came. Its life may be news before the record is.
    pub fn heard(&mut self, now: Now, from: &PeerId, life: u64) {
        self.arrive(now);
        let Some(&at) = self.index.get(from) else { return };
        if at != self.me && self.peers[at as usize].known {
            if self.peers[at as usize].heard(now.ms) {
                self.accuse_ms = 0;
            }
            // Not more than one a beat: two that no longer want each other soon fall silent.
            let answer = &mut self.peers[at as usize].answered_ms;
            if !self.linked.contains_key(&at) && now.ms >= *answer + self.tuning.heartbeat_ms * 3 / 4 {
                *answer = now.ms;
                self.greet.insert(at);
            }
            self.raise(now, at, life);
        }
    }

    /// A verdict was read: of whichever observer, one's own included, against whomever, oneself
    /// included.
    pub fn verdict(&mut self, now: Now, observer: &PeerId, subject: &PeerId, life: u64) {
        self.arrive(now);
        let at = self.intern(*subject);
        if observer == subject || life > self.peers[at as usize].life.saturating_add(LIFE_LEAP_MAX) {
            return;
        }
        if at == self.me {
            self.refute(life);
            return;
        }
        let by_me = self.peers[self.me as usize].id == *observer;
        let peer = &mut self.peers[at as usize];
        if peer.accused.is_none_or(|accused| accused.life < life) {
            peer.accused = Some(Accusation { life, seen_ms: now.ms });
            self.touched.insert(at);
        }
        if by_me && peer.mine < Some(life) {
            peer.mine = Some(life);
            self.touched.insert(at);
        }
    }

    /// Whether a verdict is the first against the present life of its subject, another peer.
    pub fn is_charge(&self, subject: &PeerId, life: u64) -> bool {
        self.index.get(subject).is_some_and(|at| {
            let peer = &self.peers[*at as usize];
            *at != self.me
                && peer.known
                && peer.left_ms.is_none()
                && life >= peer.life
                && peer.accused.is_none_or(|it| it.life < life)
        })
    }

    /// Whether this life of a peer's makes void what stands against it.
    pub fn is_relief(&self, peer: &PeerId, life: u64) -> bool {
        self.index.get(peer).is_some_and(|at| self.peers[*at as usize].standing().is_some_and(|it| it.life < life))
    }

    /// Does what is due. To be called after each of the above and at [`Membership::next_deadline`].
    pub fn tick(&mut self, now: Now) -> Vec<Order> {
        self.arrive(now);
        self.accuse(now);
        self.judge(now);
        self.redraw(now);
        self.review(now);
        self.want_links(now);
        self.beat(now);
        self.remember();
        self.reckon();
        std::mem::take(&mut self.orders)
    }

    /// When [`Membership::tick`] is due next: monotonic, ms.
    pub fn next_deadline(&self) -> u64 {
        if !self.touched.is_empty() || !self.orders.is_empty() || !self.greet.is_empty() {
            return self.last_ms;
        }
        let judge = self.alarms.first().map(|alarm| alarm.0);
        let others = judge.into_iter().chain(self.gate.deadline()).chain(self.probe_deadline());
        others.fold(self.beat_ms.min(self.accuse_ms), u64::min)
    }

    /// What this peer holds of another.
    pub fn state(&self, peer: &PeerId) -> State {
        self.index.get(peer).map_or(State::Left, |at| self.peers[*at as usize].state)
    }

    /// Since when this peer holds another for what it does: monotonic, ms.
    pub fn since(&self, peer: &PeerId) -> Option<u64> {
        self.index.get(peer).map(|at| self.peers[*at as usize].since_ms)
    }

    /// What [`Order::Remember`] would keep now.
    pub fn remembered(&self) -> Vec<u8> {
        let down = self.down.iter().map(|(id, life)| (*id, *life)).collect();
        crate::wire::encode(&Remembered { reference: self.gate.reference().cloned(), down })
    }

    /// The highest life that a peer is known to have, by record or by heartbeat; 0 of one unknown.
    pub fn life(&self, peer: &PeerId) -> u64 {
        self.index.get(peer).map_or(0, |at| self.peers[*at as usize].life)
    }

    /// The members that are alive or suspect, this peer included, in order.
    pub fn live(&self) -> impl Iterator<Item = PeerId> {
        self.index.iter().filter(|(_, at)| self.peers[**at as usize].is_live()).map(|(id, _)| *id)
    }

    /// One of those that are alive or suspect, but not this peer, as `draw` says.
    pub fn random(&self, draw: u64) -> Option<PeerId> {
        let peers = self.peers.len() as u64;
        let able = |at: &u64| *at != u64::from(self.me) && self.peers[*at as usize].is_live();
        // Where most are down, a few steps to the next one that is not.
        let at = (0..peers).map(|step| (draw % peers + step) % peers).find(able)?;
        Some(self.peers[at as usize].id)
    }

    /// How many [`Membership::live`] yields.
    pub fn live_count(&self) -> usize {
        self.live
    }

    /// The members, the down ones too; not the departed.
    pub fn known_count(&self) -> usize {
        self.known
    }

    /// Rises whenever [`Membership::live`] changes.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether tasks of `peer` that are lost `lost_after_ms` after its end are to be replaced.
    pub fn loss(&self, now: Now, peer: &PeerId, lost_after_ms: u64) -> Loss {
        let Some(&at) = self.index.get(peer) else { return Loss::No };
        let row = &self.peers[at as usize];
        if let Some(left_ms) = row.left_ms {
            // A departure is an order, and no gate stands before it.
            let until_ms = left_ms.saturating_add(lost_after_ms);
            return if now.ms < until_ms { Loss::Waits { until_ms } } else { Loss::Lost };
        }
        if row.state != State::Down {
            return Loss::No;
        }
        // One that has just woken may find in its sockets that the peer is back.
        let awake_ms = self.woke_ms + 2 * self.tuning.heartbeat_ms;
        let until_ms = row.since_ms.saturating_add(lost_after_ms).max(awake_ms);
        if now.ms < until_ms { Loss::Waits { until_ms } } else { self.gate.loss(now.ms, row.ring) }
    }

    /// What the storm gate holds back, if it is shut.
    pub fn held(&self, now: Now) -> Option<Held> {
        self.gate.held(now.ms)
    }

    /// A person opens the storm gate: what is down is lost, and a new loss is reckoned from now.
    pub fn unfreeze(&mut self, now: Now) {
        self.arrive(now);
        self.gate.open(now.ms);
        self.gate_stale = true;
        self.remember_stale = true;
    }

    /// The dense index of a peer, which is given one when it is first named.
    fn intern(&mut self, id: PeerId) -> u32 {
        if let Some(at) = self.index.get(&id) {
            return *at;
        }
        let at = self.peers.len() as u32;
        let peer = Peer::unknown(id);
        self.draw.push(peer.ring);
        self.peers.push(peer);
        Arc::make_mut(&mut self.index).insert(id, at);
        at
    }

    /// Draws observers anew where members have come or gone.
    fn redraw(&mut self, now: Now) {
        if self.draw.settle() {
            self.watch(now);
        }
    }

    /// Finds out whom this peer observes, and who observes it.
    fn watch(&mut self, now: Now) {
        let before = std::mem::take(&mut self.watched);
        let since = |at: u32| (at, before.get(&at).copied().unwrap_or(now.ms));
        self.watched = self.draw.observers(self.me).chain(self.draw.observed_by(self.me)).map(since).collect();
        self.accuse_ms = 0;
        self.links_stale = true;
    }

    /// Heartbeats: over every link each second; at once over one that has just come up, and to those
    /// who sent one over a link that is only theirs.
    fn beat(&mut self, now: Now) {
        let mut to = std::mem::take(&mut self.greet);
        if now.ms >= self.beat_ms {
            self.beat_ms = now.ms + self.tuning.heartbeat_ms;
            to.extend(self.linked.keys());
            self.remind(now);
        }
        let life = self.peers[self.me as usize].life;
        let order = |at: u32| Order::Heartbeat { to: self.peers[at as usize].id, life };
        self.orders.extend(to.into_iter().map(order));
    }

    fn remember(&mut self) {
        if std::mem::take(&mut self.remember_stale) {
            self.orders.push(Order::Remember(self.remembered()));
        }
    }
}
