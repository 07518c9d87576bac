//! How news spreads: frames are pushed once over each standing link, and anti-entropy with one
//! random peer makes whole what the push has missed. Correctness never depends on the push.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use crate::effect::{Bad, Effect, StoreOp};
use crate::event::Now;
use crate::ids::PeerId;
use crate::ledger::readings::Heard;
use crate::ledger::record::{Entry, Frame, Kind, RecordKey, Signature, Stored, VALUE_BYTES_MAX};
use crate::ledger::replica::{EXCHANGE_BYTES_MAX, Taken};
use crate::model::Vitals;
use crate::plant::Plant;
use crate::wire::{Mark, Message, Records, SignedVitals};

/// Anti-entropy with one random peer, this often on average, ms.
const COMPARE_MS: u64 = 10_000;
/// One peer is compared with at most this often, ms.
const COMPARE_AGAIN_MS: u64 = 250;
/// Vitals are made at most this often, ms; in large clusters less, see [`VITALS_MS_PER_PEER`].
const VITALS_MS: u64 = 2_000;
/// Vitals of N peers are made every N × this, ms.
const VITALS_MS_PER_PEER: u64 = 20;
/// A peer that starts writes nothing before another has compared with it, or this has passed, ms.
pub(super) const DOUBT_MS: u64 = 3_000;
/// A gap is asked about at most this often, ms.
const PULL_AGAIN_MS: u64 = 300;
/// A peer that is a member no more is told so at most this often, ms.
const TELL_AGAIN_MS: u64 = 1_000;
/// A tombstone is forgotten after this, ms.
const TOMBSTONE_MS: u64 = 3_600_000;
/// How many vitals go with an anti-entropy exchange.
const VITALS_EXCHANGED: usize = 64;
/// The most vitals in one message.
const VITALS_MAX: usize = 256;

/// Where spreading stands.
#[derive(Debug)]
pub(super) struct Spread {
    links: BTreeSet<PeerId>,
    compare_ms: u64,
    vitals_ms: u64,
    vitals: Option<Vitals>,
    vitals_counter: u64,
    /// Wall clock, ms.
    started: u64,
    /// Owners whose gap was asked about, and until when nobody asks again.
    asked: BTreeMap<PeerId, u64>,
    /// Peers to compare with in this turn.
    compare: BTreeSet<PeerId>,
    /// Tombstones by the time at which they were seen.
    tombstones: std::collections::VecDeque<(u64, PeerId, crate::ledger::record::RecordKey, u64)>,
    /// What is being made durable for others: own token to (asker, its token, applicable).
    keeping: BTreeMap<u64, (PeerId, u64, bool)>,
    /// By owner, the last frame with a record apart that was handed on.
    apart: BTreeMap<PeerId, u64>,
    /// The departed that were told so, and until when they are not told again.
    told_departed: BTreeMap<PeerId, u64>,
    /// When each peer was last compared with.
    compared: BTreeMap<PeerId, u64>,
    next_token: u64,
}

impl Spread {
    pub(super) fn new(now: Now, draw: u64) -> Self {
        Self {
            links: BTreeSet::new(),
            compare_ms: now.ms + draw % COMPARE_MS,
            vitals_ms: now.ms,
            vitals: None,
            vitals_counter: 0,
            started: now.wall,
            asked: BTreeMap::new(),
            compare: BTreeSet::new(),
            tombstones: Default::default(),
            keeping: BTreeMap::new(),
            apart: BTreeMap::new(),
            told_departed: BTreeMap::new(),
            compared: BTreeMap::new(),
            next_token: 1,
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        let oldest = self.tombstones.front().map_or(u64::MAX, |(seen, ..)| seen + TOMBSTONE_MS);
        let compare = self.compare.iter().map(|peer| self.comparable_ms(peer)).min().unwrap_or(u64::MAX);
        self.compare_ms.min(self.vitals_ms).min(oldest).min(compare)
    }

    /// When a peer may be compared with again.
    fn comparable_ms(&self, peer: &PeerId) -> u64 {
        self.compared.get(peer).map_or(0, |last| last + COMPARE_AGAIN_MS)
    }

    fn comparable(&self, now_ms: u64) -> impl Iterator<Item = PeerId> {
        self.compare.iter().filter(move |peer| self.comparable_ms(peer) <= now_ms).copied()
    }

    pub(super) fn links(&self) -> &BTreeSet<PeerId> {
        &self.links
    }

    /// From now on somebody should compare with `peer`.
    pub(super) fn compare_with(&mut self, peer: PeerId) {
        self.compare.insert(peer);
    }
}

impl Brain {
    pub(super) fn linked(&mut self, peer: PeerId, up: bool) {
        self.members.link(self.now, &peer, up);
        if self.readings.departed.contains(&peer) {
            if up {
                self.tell_of_departure(peer);
            }
        } else if up {
            self.spread.links.insert(peer);
            self.spread.compare_with(peer);
            self.spread.compared.remove(&peer);
        } else {
            self.spread.links.remove(&peer);
        }
    }

    pub(super) fn received(&mut self, from: PeerId, message: Message, verified: bool) {
        if !self.ledger.is_admitted(&from) {
            return self.report(Some(from), Bad::Unadmitted);
        }
        if self.readings.departed.contains(&from) {
            return self.tell_of_departure(from);
        }
        if !self.is_news(&message) {
            return;
        }
        if !verified && !self.has(Plant::TrustUnverified) {
            return self.report(Some(from), Bad::Signature);
        }
        match message {
            Message::Heartbeat { life } => self.members.heard(self.now, &from, life),
            Message::Frame(frame) => self.take_frame(from, &frame),
            Message::Vitals(vitals) => self.take_vitals(from, vitals),
            Message::Compare { sum, yours } => {
                self.look_at_mark(from, yours);
                if sum != self.ledger.sum() {
                    let owners = self.ledger.digest();
                    self.send(from, Message::Digest { owners });
                }
            }
            Message::Digest { owners } => self.take_digest(from, &owners),
            Message::Pull { after } => self.answer_pull(from, &after),
            Message::Records(records) => self.take_records(from, &records),
            Message::Keep { token, records } => self.keep(from, token, &records),
            Message::Kept { token, applicable } => self.kept_there(from, token, applicable),
            Message::Told(records) => self.take_told(&records),
            Message::Solicit(solicit) => self.solicited(from, &solicit),
            Message::Release(release) => self.released(&release),
            Message::Award(award) => self.awarded(from, &award),
            Message::Stop { claim, why, .. } => self.stop_asked(claim, why),
            Message::Unfreeze => self.unfreeze(),
            Message::Bid(bid) => self.bid_came(from, bid),
            Message::Decline(decline) => self.decline_came(from, decline),
            Message::Verdict(verdict) => self.verdict_came(from, verdict),
        }
    }

    pub(super) fn spread_turn(&mut self) {
        if self.spread.compare_ms <= self.now.ms {
            self.spread.compare_ms = self.now.ms + COMPARE_MS * 4 / 5 + self.rng.next_u64() % (COMPARE_MS * 2 / 5);
            let live: Vec<PeerId> = self.members.live().filter(|peer| *peer != self.me).collect();
            if !live.is_empty() {
                let peer = live[(self.rng.next_u64() % live.len() as u64) as usize];
                self.spread.compare_with(peer);
            }
        }
        let due: Vec<PeerId> = self.spread.comparable(self.now.ms).collect();
        let sum = if due.is_empty() { 0 } else { self.ledger.sum() };
        for peer in due {
            self.spread.compare.remove(&peer);
            self.spread.compared.insert(peer, self.now.ms);
            let yours = self.ledger.mark(&peer);
            self.send(peer, Message::Compare { sum, yours });
            self.send_vitals(peer);
        }
        if self.spread.vitals_ms <= self.now.ms {
            let members = self.members.live_count() as u64;
            self.spread.vitals_ms = self.now.ms + VITALS_MS.max(members * VITALS_MS_PER_PEER);
            self.make_vitals();
        }
        while let Some((seen, ..)) = self.spread.tombstones.front()
            && seen + TOMBSTONE_MS <= self.now.ms
            && let Some((_, owner, key, seq)) = self.spread.tombstones.pop_front()
        {
            let ops = self.ledger.forget(&owner, &key, seq);
            self.store.extend(ops);
        }
    }

    /// Pushes a frame over every standing link but the one it came by.
    pub(super) fn push(&mut self, frame: &Arc<Frame>, from: &PeerId) {
        let links = self.spread.links.iter().filter(|peer| *peer != from && **peer != frame.owner);
        let sends = links.map(|peer| Effect::Send { to: *peer, message: Message::Frame(frame.clone()) });
        self.out.extend(sends.collect::<Vec<_>>());
    }

    fn take_frame(&mut self, from: PeerId, frame: &Arc<Frame>) {
        let too_large = |entry: &Entry| matches!(entry, Entry::Whole(record) if record.size() > VALUE_BYTES_MAX);
        if !frame.is_sound() || frame.entries.iter().any(too_large) {
            return self.report(Some(from), Bad::Malformed);
        }
        if frame.owner == self.me {
            return self.heard_own(&frame.stored());
        }
        if !self.ledger.is_admitted(&frame.owner) {
            self.report(Some(from), Bad::Unadmitted);
            return self.spread.compare_with(from);
        }
        if !self.ledger.is_news(frame) {
            return;
        }
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
            return self.spread.compare_with(from);
        }
        let taken = self.ledger.take_records(answer);
        let gap = taken.gap;
        self.syncing = true;
        self.digest_taken(&answer.owner, taken, Some(from));
        self.syncing = false;
        if gap {
            self.pull_gap(from, answer.owner);
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
        if !fits || !self.ledger.is_admitted(&owner) || !self.ledger.take_alone(one) {
            return false;
        }
        self.digest_taken(&owner, Taken { news: vec![one.clone()], ..Taken::default() }, None);
        true
    }

    /// A peer that is a member no more hears why nobody listens to it, with what proves the order to it.
    fn tell_of_departure(&mut self, to: PeerId) {
        let again = self.spread.told_departed.get(&to).copied().unwrap_or(0);
        let key = RecordKey { kind: Kind::DEPARTURE, id: to.hex().into() };
        let order = self.ledger.owners().find_map(|owner| self.ledger.get(&owner.id, &key)).cloned();
        let Some(order) = order.filter(|_| again <= self.now.ms) else { return };
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
            self.read(*owner, &key, None, from);
        }
        self.store.extend(taken.news.iter().cloned().map(StoreOp::Put));
        for one in taken.news {
            if one.record.value.is_none() {
                self.spread.tombstones.push_back((self.now.ms, *owner, one.record.key.clone(), one.record.seq));
            }
            self.read(*owner, &one.record.key, one.record.value.as_deref(), from);
        }
        self.store.extend(self.ledger.numbers(owner));
    }

    /// Own tombstones are forgotten in their time, too.
    pub(super) fn buried(&mut self, stored: &[Arc<Stored>]) {
        for one in stored.iter().filter(|one| one.record.value.is_none()) {
            let record = &one.record;
            self.spread.tombstones.push_back((self.now.ms, record.owner, record.key.clone(), record.seq));
        }
    }

    fn pull_gap(&mut self, from: PeerId, owner: PeerId) {
        let again = self.spread.asked.get(&owner).copied().unwrap_or(0);
        if again <= self.now.ms {
            self.spread.asked.retain(|_, until| *until > self.now.ms);
            self.spread.asked.insert(owner, self.now.ms + PULL_AGAIN_MS);
            let after = self.ledger.owner(&owner).map_or(0, |held| held.complete);
            self.send(from, Message::Pull { after: vec![(owner, after)] });
        }
    }

    fn take_digest(&mut self, from: PeerId, theirs: &[(PeerId, u64, u64)]) {
        let mut pull = Vec::new();
        for (owner, complete, loose) in theirs {
            if *owner == self.me {
                // A number alone proves nothing: the record itself would.
                if *complete > self.writer.last() {
                    pull.push((self.me, self.writer.last()));
                }
                continue;
            }
            let Some(held) = self.ledger.owner(owner).filter(|held| held.admitted) else { continue };
            if held.complete < *complete || *loose != 0 && *loose != held.loose() {
                pull.push((*owner, held.complete));
            }
        }
        if !pull.is_empty() {
            self.send(from, Message::Pull { after: pull });
        }
        let theirs: BTreeMap<PeerId, (u64, u64)> =
            theirs.iter().map(|(owner, complete, loose)| (*owner, (*complete, *loose))).collect();
        let mut behind: Vec<(PeerId, u64)> = Vec::new();
        for held in self.ledger.owners().filter(|held| held.id != from) {
            let (complete, loose) = theirs.get(&held.id).copied().unwrap_or_default();
            let mine = held.loose();
            if complete < held.complete || mine != 0 && mine != loose {
                behind.push((held.id, complete));
            }
        }
        self.answer_pull(from, &behind);
    }

    fn answer_pull(&mut self, to: PeerId, wanted: &[(PeerId, u64)]) {
        let mut bytes = EXCHANGE_BYTES_MAX;
        // Where little is missing comes first: nobody starves the others by writing much.
        let above = |(owner, after): &&(PeerId, u64)| self.ledger.owner(owner).map_or(0, |held| held.above(*after));
        let mut wanted: Vec<&(PeerId, u64)> = wanted.iter().collect();
        wanted.sort_by_cached_key(above);
        for (owner, after) in wanted {
            for part in self.ledger.answer(owner, *after, &mut bytes) {
                self.send(to, Message::Records(part));
            }
        }
    }

    /// Somebody holds this of this identity's writes. That proves nothing: the record itself would.
    fn look_at_mark(&mut self, from: PeerId, yours: Mark) {
        if yours.seq > self.writer.last() || self.writer.wrote_otherwise(yours) {
            self.send(from, Message::Pull { after: vec![(self.me, yours.seq - 1)] });
        } else if yours.seq > 0 {
            self.writer.trust();
        }
    }

    /// Whether there are others that may know what this peer wrote.
    pub(super) fn has_company(&self) -> bool {
        let departed = &self.readings.departed;
        self.ledger.owners().any(|owner| owner.admitted && owner.id != self.me && !departed.contains(&owner.id))
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

    /// The newest vitals of some, beside every anti-entropy exchange.
    fn send_vitals(&mut self, peer: PeerId) {
        let known = self.readings.vitals.len();
        let skip = if known > VITALS_EXCHANGED { self.rng.next_u64() as usize % known } else { 0 };
        let some = self.readings.vitals.values().cycle().skip(skip).take(VITALS_EXCHANGED.min(known));
        let some: Vec<_> = some.map(|heard| heard.signed.clone()).collect();
        if !some.is_empty() {
            self.send(peer, Message::Vitals(some));
        }
    }

    fn make_vitals(&mut self) {
        if self.bidder.capacity.0.is_empty() {
            return;
        }
        self.spread.vitals_counter += 1;
        let vitals = Vitals {
            started: self.spread.started,
            counter: self.spread.vitals_counter,
            at: self.now.wall,
            used: self.bidder.used().clone(),
            load_millis: self.machine.load_millis,
            images: self.machine.images.iter().cloned().collect(),
        };
        self.spread.vitals = Some(vitals.clone());
        self.out.push(Effect::SignVitals { vitals });
    }

    pub(super) fn vitals_signed(&mut self, counter: u64, signature: Signature) {
        let Some(vitals) = self.spread.vitals.take_if(|vitals| vitals.counter == counter) else { return };
        let signed = Arc::new(SignedVitals { owner: self.me, vitals, signature });
        self.hear_vitals(signed.clone());
        self.push_vitals(vec![signed], &self.me.clone());
    }

    fn hear_vitals(&mut self, signed: Arc<SignedVitals>) {
        self.readings.vitals.insert(signed.owner, Heard { signed, read_ms: self.now.ms });
    }

    pub(super) fn is_newer(&self, signed: &SignedVitals) -> bool {
        let age = |vitals: &Vitals| (vitals.started, vitals.counter);
        let held = self.readings.vitals.get(&signed.owner);
        signed.owner != self.me && held.is_none_or(|held| age(&held.signed.vitals) < age(&signed.vitals))
    }

    fn take_vitals(&mut self, from: PeerId, all: Vec<Arc<SignedVitals>>) {
        let news: Vec<_> = all
            .into_iter()
            .take(VITALS_MAX)
            .filter(|signed| self.is_newer(signed) && self.ledger.is_admitted(&signed.owner))
            .collect();
        for signed in &news {
            self.hear_vitals(signed.clone());
        }
        if !news.is_empty() {
            self.push_vitals(news, &from);
        }
    }

    fn push_vitals(&mut self, vitals: Vec<Arc<SignedVitals>>, from: &PeerId) {
        let links: Vec<PeerId> = self.spread.links.iter().filter(|peer| *peer != from).copied().collect();
        for peer in links {
            self.send(peer, Message::Vitals(vitals.clone()));
        }
    }
}
