//! How news spreads: frames are pushed once over each standing link, and anti-entropy with one
//! random peer makes whole what the push has missed. Correctness never depends on the push.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use super::announce::Announcements;
use super::compare::Comparing;
use super::forward::Forwarding;
use super::reading::Value;
use super::tree::Tree;
use super::vitals::Spreading;
use crate::effect::{Bad, Effect, StoreOp};
use crate::event::Now;
use crate::history::STEWARD;
use crate::ids::PeerId;
use crate::ledger::Teller;
use crate::ledger::record::{Entry, Frame, Kind, RecordKey, Stored, VALUE_BYTES_MAX};
use crate::ledger::replica::Taken;
use crate::ledger::{Budgets, ChangeValue};
use crate::plant::Plant;
use crate::wire::{Mark, Message, Records, decode};

/// A peer that starts writes nothing before another has compared with it, or this has passed, ms.
pub(super) const DOUBT_MS: u64 = 3_000;
/// A peer that is a member no more is told so at most this often, ms.
const TELL_AGAIN_MS: u64 = 1_000;
/// So often another peer is drawn, where the one that is known does not do.
const ANOTHER_TRIES: usize = 4;
/// A tombstone is forgotten after this, ms.
const TOMBSTONE_MS: u64 = 3_600_000;
/// A change made so long ago at most is news, though it was asked for rather than pushed, ms of wall clock.
const RECENT_MS: u64 = 60_000;
/// Vitals are gathered on each hop for two milliseconds for each member, within these, ms.
const GATHER_MS: (u64, u64) = (20, 500);
/// Announcements of frames are gathered for no longer than this, ms, and under load than that: whoever has missed a
/// push asks for it by these.
const ANNOUNCE_MS: (u64, u64) = (50, 200);

/// Where spreading stands.
#[derive(Debug)]
pub(super) struct Spread {
    pub tree: Tree,
    pub comparing: Comparing,
    pub vitals: Spreading,
    pub announcements: Announcements,
    pub forwarding: Forwarding,
    pub budgets: Budgets,
    /// When what was gathered goes out,
    flush_ms: Option<u64>,
    /// and when what tells of frames does.
    announce_ms: Option<u64>,
    /// Tombstones by the time at which they were seen.
    tombstones: std::collections::VecDeque<(u64, PeerId, crate::ledger::record::RecordKey, u64)>,
    /// What is being made durable for others: own token to (asker, its token, applicable).
    keeping: BTreeMap<u64, (PeerId, u64, bool)>,
    /// By owner, the last frame with a record apart that was handed on.
    apart: BTreeMap<PeerId, u64>,
    /// The departed that were told so, and until when they are not told again.
    told_departed: BTreeMap<PeerId, u64>,
    next_token: u64,
}

impl Spread {
    /// Another peer buried the same.
    pub fn buried_beside(&mut self, other: &Self) {
        self.tombstones = other.tombstones.clone();
    }

    pub(super) fn new(now: Now, draw: u64) -> Self {
        Self {
            tree: Tree::default(),
            comparing: Comparing::new(now.ms, draw),
            vitals: Spreading::new(now.wall, now.ms),
            announcements: Announcements::default(),
            forwarding: Forwarding::default(),
            budgets: Budgets::default(),
            flush_ms: None,
            announce_ms: None,
            tombstones: Default::default(),
            keeping: BTreeMap::new(),
            apart: BTreeMap::new(),
            told_departed: BTreeMap::new(),
            next_token: 1,
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        let oldest = self.tombstones.front().map(|(seen, ..)| seen + TOMBSTONE_MS);
        let gathered = [self.flush_ms, self.announce_ms, self.forwarding.deadline()];
        let optional = [oldest, self.announcements.deadline()].into_iter().chain(gathered);
        optional.flatten().fold(self.comparing.deadline().min(self.vitals.deadline()), u64::min)
    }

    /// Vitals are to be announced with the next flush.
    pub(super) fn gather(&mut self, now_ms: u64, members: usize) {
        self.flush_ms.get_or_insert(now_ms + gather_ms(members));
    }

    /// Frames are to be announced soon.
    fn gather_frames(&mut self, now_ms: u64, members: usize) {
        let most_ms = if self.forwarding.is_loaded(now_ms) { ANNOUNCE_MS.1 } else { ANNOUNCE_MS.0 };
        self.announce_ms.get_or_insert(now_ms + gather_ms(members).min(most_ms));
    }

    pub(super) fn links(&self) -> impl Iterator<Item = PeerId> {
        self.tree.links()
    }
}

fn gather_ms(members: usize) -> u64 {
    (members as u64 * 2).clamp(GATHER_MS.0, GATHER_MS.1)
}

impl Brain {
    pub(super) fn linked(&mut self, peer: PeerId, up: bool) {
        if !up {
            self.clocks.forget(&peer);
        }
        self.members.link(self.now, &peer, up);
        if self.readings.departed.contains_key(&peer) {
            if up {
                self.tell_of_departure(peer);
            }
            return;
        }
        if up {
            self.spread.tree.up(peer);
            self.spread.comparing.with_at_once(peer);
        } else if let Some(spare) = self.spread.tree.down(self.now.ms, &peer) {
            self.send(spare, Message::Graft { after: Vec::new() });
        }
    }

    /// A message that holds nothing new: all it says is something about its link, and nothing else
    /// of the brain takes a turn.
    pub(super) fn received_again(&mut self, from: PeerId, message: &Message) {
        match message {
            // This comes over every link by design.
            Message::Frame(frame) if frame.tells_of_life() => {}
            Message::Frame(frame) => {
                self.spread.forwarding.has(from, frame);
                self.brought(from, false);
            }
            _ => {}
        }
    }

    /// A link has brought a frame; the least useful turns lazy.
    fn brought(&mut self, from: PeerId, is_news: bool) {
        if let Some(useless) = self.spread.tree.brought(self.now.ms, &from, is_news) {
            self.send(useless, Message::Prune);
        }
    }

    /// The other end wants only numbers; it is asked to think again where this end cannot spare the link.
    fn pruned(&mut self, by: PeerId) {
        if !self.spread.tree.pruned(self.now.ms, &by) {
            self.send(by, Message::Graft { after: Vec::new() });
        }
    }

    pub(super) fn received(&mut self, from: PeerId, message: Message, verified: bool) {
        if !self.ledger.is_admitted(&from) {
            return self.report(Some(from), Bad::Unadmitted);
        }
        if self.readings.departed.contains_key(&from) {
            return self.tell_of_departure(from);
        }
        if !verified && !self.has(Plant::TrustUnverified) {
            return self.report(Some(from), Bad::Signature);
        }
        match message {
            Message::Heartbeat { life, clock } => {
                self.clocks.heard(self.now, from, &clock);
                self.members.heard(self.now, &from, life);
            }
            Message::Frame(frame) => self.take_frame(from, &frame),
            Message::Vitals(vitals) => self.take_vitals(from, vitals),
            Message::Prune => self.pruned(from),
            Message::Have(have) => self.take_have(from, &have),
            Message::Graft { after } => self.take_graft(from, &after),
            Message::Want(rings) => self.vitals_wanted(from, &rings),
            Message::Compare { sums, yours } => self.take_compare(from, &sums, yours),
            Message::Digest { of, ranges, owners } => self.take_digest(from, of, &ranges, &owners),
            Message::Pull { after, on } => self.answer_pull(from, &after, on),
            Message::Records(records) => self.take_records(from, &records),
            Message::Keep { token, records } => self.keep(from, token, &records),
            Message::Kept { token, applicable } => self.kept_there(from, token, applicable),
            Message::Told(records) => self.take_told(&records),
            Message::Solicit(solicit) => self.solicited(from, &solicit),
            Message::Release(release) => self.released(&release),
            Message::Award(award) => self.awarded(from, &award),
            Message::Offer(offer) => self.offered(from, offer),
            Message::Go { claim, .. } => self.gang_goes(claim),
            Message::Stop { claim, why, .. } => self.stop_told(from, claim, why),
            Message::Move { app, claim, to } => self.move_asked(app, claim, to),
            Message::Unfreeze => self.unfreeze(),
            Message::Bid(bid) => self.bid_came(from, bid),
            Message::Decline(decline) => self.decline_came(from, decline),
            Message::Verdict(verdict) => self.verdict_came(from, verdict),
        }
    }

    pub(super) fn spread_turn(&mut self) {
        self.compare_turn();
        self.vitals_turn();
        for (frame, by) in self.spread.forwarding.due(self.now.ms) {
            self.hand_on(&frame, &by);
        }
        let flush = self.spread.flush_ms.take_if(|ms| *ms <= self.now.ms).is_some();
        if self.spread.announce_ms.take_if(|ms| *ms <= self.now.ms || flush).is_some() || flush {
            self.flush_news(flush);
        }
        self.graft_overdue();
        while let Some((seen, ..)) = self.spread.tombstones.front()
            && seen + TOMBSTONE_MS <= self.now.ms
            && let Some((_, owner, key, seq)) = self.spread.tombstones.pop_front()
        {
            if self.ledger.is_last(&owner, seq) {
                self.spread.tombstones.push_back((self.now.ms, owner, key, seq));
            } else {
                let ops = self.ledger.forget(&owner, &key, seq);
                self.store.extend(ops);
            }
        }
    }

    /// Pushes a frame over every eager link but the one it came by, and announces it to the others: its own at once,
    /// another's when there are few, and what tells of life and death at once in any case.
    pub(super) fn push(&mut self, frame: &Arc<Frame>, from: &PeerId) {
        if frame.tells_of_life() {
            // The frames of one owner keep their order.
            for (waiting, by) in self.spread.forwarding.all() {
                self.hand_on(&waiting, &by);
            }
            self.hand_on(frame, &[*from]);
        } else if *from == self.me || self.spread.forwarding.goes(self.now.ms, frame, from) {
            self.hand_on(frame, &[*from]);
        }
        self.spread.announcements.pushed(&frame.owner, frame.last());
        self.spread.gather_frames(self.now.ms, self.members.live_count());
    }

    /// Sends a frame over every eager link but to those who have it. What tells of life and death goes over all links:
    /// an accused has 2 s to be heard everywhere, and the tree may hang on the very link over which nothing comes.
    fn hand_on(&mut self, frame: &Arc<Frame>, by: &[PeerId]) {
        let everywhere = frame.tells_of_life();
        let tree = &self.spread.tree;
        let links = tree.eager().chain(tree.lazy().filter(|_| everywhere));
        let links = links.filter(|peer| !by.contains(peer) && *peer != frame.owner);
        self.out.reserve(tree.eager().count());
        self.out.extend(links.map(|to| Effect::Send { to, message: Message::Frame(frame.clone()) }));
    }

    fn take_frame(&mut self, from: PeerId, frame: &Arc<Frame>) {
        let too_large = |entry: &Entry| matches!(entry, Entry::Whole(record) if record.size() > VALUE_BYTES_MAX);
        if !frame.is_sound() || frame.entries.iter().any(too_large) {
            return self.report(Some(from), Bad::Malformed);
        }
        if frame.owner == self.me {
            return self.heard_own(frame.stored());
        }
        if !self.ledger.is_admitted(&frame.owner) {
            self.report(Some(from), Bad::Unadmitted);
            return self.spread.comparing.with(from);
        }
        if !self.ledger.is_news(frame) {
            return;
        }
        if !self.is_within_budget(&frame.owner, frame.stored()) {
            return;
        }
        self.brought(from, true);
        let taken = self.ledger.take_frame(frame);
        // A frame that brings a record, or the first word of one that travels apart, is handed on.
        let apart = self.spread.apart.get(&frame.owner).copied().unwrap_or(0) < frame.last()
            && frame.entries.iter().any(|entry| matches!(entry, Entry::Apart(_)));
        if apart {
            self.spread.apart.insert(frame.owner, frame.last());
        }
        if apart || !taken.news.is_empty() {
            self.push(frame, &from);
        }
        let gap = taken.gap;
        if gap && self.has(Plant::JumpGaps) {
            self.ledger.restore_owner(frame.owner, frame.last(), 0);
        }
        self.digest_taken(&frame.owner, taken, Some(from));
        if gap {
            self.pull_gap(from, frame.owner);
            // Whoever pushed it may have the same gap, and learn what is missing in a moment.
            self.await_frame(frame.owner, frame.last(), from);
        }
    }

    fn take_records(&mut self, from: PeerId, answer: &Records) {
        if answer.owner == self.me {
            return self.heard_own(&answer.records);
        }
        let unfit = |one: &Arc<Stored>| one.record.owner != answer.owner || one.record.size() > VALUE_BYTES_MAX;
        if answer.through < answer.after || answer.records.iter().any(unfit) {
            return self.report(Some(from), Bad::Malformed);
        }
        if !self.ledger.is_admitted(&answer.owner) {
            return self.spread.comparing.with(from);
        }
        if !self.is_within_budget(&answer.owner, &answer.records) {
            return;
        }
        let blindly = self.has(Plant::TrustThrough);
        let teller = Teller { peer: from, sole: self.members.live_count() <= 2, blindly };
        let taken = self.ledger.take_records(answer, teller);
        let gap = taken.gap;
        if taken.doubt {
            let others = (0..ANOTHER_TRIES).filter_map(|_| self.members.random(self.rng.next_u64()));
            others.filter(|peer| *peer != from).take(1).for_each(|peer| self.spread.comparing.with(peer));
        }
        if !taken.news.is_empty() {
            let complete = self.ledger.owner(&answer.owner).map_or(0, |held| held.complete);
            self.spread.announcements.pulled(&answer.owner, complete);
            self.spread.gather_frames(self.now.ms, self.members.live_count());
        }
        let brought = !taken.news.is_empty();
        self.syncing = true;
        self.digest_taken(&answer.owner, taken, Some(from));
        self.syncing = false;
        if gap {
            self.pull_gap(from, answer.owner);
        } else {
            self.pull_rest(from, answer, brought);
        }
    }

    fn take_told(&mut self, records: &[Arc<Stored>]) {
        for one in records {
            self.take_alone(one);
        }
    }

    /// Holds one record that came by itself; `true` where it is news.
    fn take_alone(&mut self, one: &Arc<Stored>) -> bool {
        let owner = one.record.owner;
        if owner == self.me {
            self.heard_own(std::slice::from_ref(one));
            return false;
        }
        let fits = one.record.size() <= VALUE_BYTES_MAX;
        let fits = fits && self.ledger.is_admitted(&owner) && self.is_within_budget(&owner, std::slice::from_ref(one));
        if !fits || !self.ledger.take_alone(one) {
            return false;
        }
        self.digest_taken(&owner, Taken { news: vec![one.clone()], ..Taken::default() }, None);
        true
    }

    /// Whether an owner may have written so much that is new here; if not, it is counted, and goes no
    /// further. What is sent again costs its owner nothing, whoever sends it.
    fn is_within_budget(&mut self, owner: &PeerId, records: &[Arc<Stored>]) -> bool {
        let held = self.ledger.owner(owner);
        let new = records.iter().filter(|one| held.is_none_or(|held| held.wants(one, false)));
        let (bytes, count) = new.fold((0, 0), |(bytes, count), one| (bytes + one.record.size(), count + 1));
        let new = records.iter().filter(|one| held.is_none_or(|held| held.wants(one, false)));
        let replaced = |one: &Arc<Stored>| held.map_or(0, |held| held.bytes_of(&one.record.key));
        let more: u64 = new.map(|one| (one.record.size() as u64).saturating_sub(replaced(one))).sum();
        // What makes nothing larger is taken however much is held: an owner has to be able to shrink, and to say that it lives.
        let in_all = if more == 0 { 0 } else { held.map_or(0, |held| held.bytes) + more };
        let granted = count == 0 || self.spread.budgets.spend(self.now.ms, owner, bytes, count, in_all);
        if !granted {
            self.report(Some(*owner), Bad::OverBudget);
        }
        granted
    }

    /// A peer that is a member no more hears why nobody listens to it, with what proves the order to it.
    fn tell_of_departure(&mut self, to: PeerId) {
        if self.spread.told_departed.get(&to).is_some_and(|again| *again > self.now.ms) {
            return;
        }
        let key = RecordKey { kind: Kind::DEPARTURE, id: to.hex().into() };
        let order = self.ledger.owners().find_map(|owner| self.ledger.get(&owner.id, &key)).cloned();
        let Some(order) = order else { return };
        self.spread.told_departed.insert(to, self.now.ms + TELL_AGAIN_MS);
        let mut proof = self.chain_of(&order.record.owner).unwrap_or_default();
        proof.push(order);
        self.send(to, Message::Told(proof));
    }

    /// What was taken goes to disk and is read.
    fn digest_taken(&mut self, owner: &PeerId, mut taken: Taken, from: Option<PeerId>) {
        if self.has(Plant::DropUnknown) {
            taken.news.retain(|one| one.record.key.kind.name() != "unknown");
        }
        for key in taken.dropped {
            self.store.push(StoreOp::Delete { owner: *owner, key: key.clone() });
            self.read(*owner, &key, Value::Gone, from);
        }
        self.store.extend(taken.news.iter().cloned().map(StoreOp::Put));
        for one in taken.news {
            if one.record.value.is_none() {
                self.spread.tombstones.push_back((self.now.ms, *owner, one.record.key.clone(), one.record.seq));
            }
            self.read(*owner, &one.record.key, Value::Stored(&one), from);
            // What people change elsewhere is told as it comes; not what a peer that was away catches up with.
            let is_recent = self.now.wall.saturating_sub(one.record.stamp) < RECENT_MS;
            if one.record.key.kind == Kind::CHANGE && (is_recent || !self.syncing) {
                self.tell_of_change(&one);
            }
        }
        self.store.extend(self.ledger.numbers(owner));
    }

    fn tell_of_change(&mut self, one: &Stored) {
        let change = one.record.value.as_deref().and_then(|value| decode::<ChangeValue>(value).ok());
        if let Some(change) = change.filter(|change| change.author != STEWARD) {
            let at = self.machine_name(&one.record.owner);
            self.note_here("changed", change.app.name, format!("{} at {at}: {}", change.author, change.summary));
        }
    }

    /// Own tombstones are forgotten in their time, too.
    pub(super) fn buried(&mut self, stored: &[Arc<Stored>]) {
        for one in stored.iter().filter(|one| one.record.value.is_none()) {
            let record = &one.record;
            self.spread.tombstones.push_back((self.now.ms, record.owner, record.key.clone(), record.seq));
        }
    }

    /// Somebody holds this of this identity's writes. That proves nothing: the record itself would.
    pub(super) fn look_at_mark(&mut self, from: PeerId, yours: Mark) {
        if yours.seq > self.writer.last() || self.writer.wrote_otherwise(yours) {
            self.send(from, Message::Pull { after: vec![(self.me, yours.seq - 1)], on: false });
        } else if yours.seq > 0 {
            self.writer.trust();
        }
    }

    /// Whether there are others that may know what this peer wrote.
    pub(super) fn has_company(&self) -> bool {
        let departed = &self.readings.departed;
        self.ledger.owners().any(|owner| owner.admitted && owner.id != self.me && !departed.contains_key(&owner.id))
    }

    /// Records of this identity came from elsewhere: this life wrote them, or an earlier one did.
    fn heard_own(&mut self, records: &[Arc<Stored>]) {
        let other = |one: &&Arc<Stored>| {
            self.writer.wrote_otherwise(Mark { seq: one.record.seq, head: one.proof.signature.head() })
        };
        if let Some(other) = records.iter().find(other) {
            return self.retire(format!(
                "others hold another record {} of this peer than it wrote: the data folder is an old copy",
                other.record.seq
            ));
        }
        self.heard_of_own(records.iter().map(|one| one.record.seq).max().unwrap_or(0));
    }

    fn retire(&mut self, reason: String) {
        self.retired = true;
        self.out.push(Effect::Retire { reason });
    }

    /// Somebody holds records of this identity up to `seq`. A number that was never written here
    /// means that this disk is an old one: a later life wrote, and this one must stop.
    fn heard_of_own(&mut self, seq: u64) {
        if seq > self.writer.last() {
            self.retire(format!(
                "others hold record {seq} of this peer, which has written only {}: the data folder is an old copy",
                self.writer.last()
            ));
        }
    }

    /// Another peer asks that records be durable here.
    fn keep(&mut self, from: PeerId, token: u64, records: &[Arc<Stored>]) {
        for one in records {
            self.take_alone(one);
        }
        let applicable = records.iter().filter(|one| one.record.key.kind == Kind::CHANGE).all(|one| {
            let app = one.record.value.as_deref().and_then(super::reading::app_of_change);
            app.and_then(|app| self.documents.get(&app)).is_some_and(|document| !document.has_waiting())
        });
        // What was refused, because its owner wrote too much, is not kept.
        let kept = |one: &Arc<Stored>| {
            let held = self.ledger.get(&one.record.owner, &one.record.key);
            held.is_some_and(|held| held.record.seq >= one.record.seq)
        };
        let applicable = applicable && records.iter().all(kept);
        let own = self.spread.next_token;
        self.spread.next_token += 1;
        self.spread.keeping.insert(own, (from, token, applicable));
        let ops = std::mem::take(&mut self.store);
        self.out.push(Effect::Store { ops, token: Some(own) });
    }

    pub(super) fn stored(&mut self, token: u64) {
        if let Some((to, token, applicable)) = self.spread.keeping.remove(&token) {
            self.send(to, Message::Kept { token, applicable });
        }
    }
}
