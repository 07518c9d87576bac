//! The brain: one door in, a list of effects out.
//!
//! [`Brain::handle`] takes one event and takes its turn: membership, spreading, the machine's own
//! tasks, stewardship and requests each do what is due, and what was written leaves. Each concern
//! has a file of its own; this one only holds them together.

mod agenda;
mod announce;
mod auctioning;
mod clocks;
mod compare;
mod electing;
mod explaining;
mod forward;
mod isolation;
pub(crate) mod journal;
mod later;
mod leasing;
mod machine;
mod members;
mod moving;
mod offering;
mod ordering;
pub(crate) mod planning;
mod reading;
mod recording;
mod requests;
mod secrets;
mod spread;
mod stewarding;
mod stopping;
mod subnets;
mod tree;
mod vitals;
mod volumes;
mod winning;
pub(crate) mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::effect::{Bad, Effect, Note, StoreOp};
use crate::event::{Event, Now};
use crate::ids::{AppId, ClusterId, PeerId};
use crate::ledger::document::DocumentError;
use crate::ledger::readings::Readings;
use crate::ledger::record::{Edition, Kind, RecordKey, Stored};
use crate::ledger::{ChangeValue, Document, Ledger};
use crate::market::bidder::Bidder;
use crate::membership::{Membership, Tuning};
use crate::plant::Plant;
use crate::table::Table;
use crate::view::View;
use crate::wire::Message;
pub use clocks::Stamp;
pub(crate) use explaining::Efforts;
pub use requests::NAMESPACE;
use writer::{Urgency, Writer};

/// Who a brain is, and the only randomness it will ever have.
#[derive(Clone, Debug)]
pub struct Config {
    pub me: PeerId,
    pub cluster: ClusterId,
    /// Of the founder alone: what makes [`ClusterId::of_founder`] this cluster.
    pub founding: Option<[u8; 16]>,
    /// Of a newcomer: the admissions from the founder's to its own, as `hello` gave them.
    pub chain: Vec<Arc<Stored>>,
    pub seed: u64,
    /// How long a minority holds replacements back, ms; `None`: for ever.
    pub minority_hold_ms: Option<u64>,
}

/// What a store gives back when a peer starts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub records: Vec<Arc<Stored>>,
    /// Owner, complete through, floor.
    pub owners: Vec<(PeerId, u64, u64)>,
    pub local: Vec<(String, Vec<u8>)>,
}

/// One peer's beliefs and decisions.
#[derive(Debug)]
pub struct Brain {
    pub(crate) config: Config,
    pub(crate) me: PeerId,
    pub(crate) now: Now,
    rng: ChaCha8Rng,
    out: Vec<Effect>,
    /// What the disk is to take of others, this turn.
    store: Vec<StoreOp>,
    writer: Writer,
    pub(crate) ledger: Ledger,
    pub(crate) readings: Readings,
    pub(crate) documents: Table<AppId, Arc<Document>>,
    /// Documents that are open in memory, the longest ago used first.
    open: std::collections::VecDeque<AppId>,
    pub(crate) members: Membership,
    links: members::Links,
    pub(crate) clocks: clocks::Clocks,
    /// A life to be raised to, as soon as the machine knows its tasks.
    refuting: Option<u64>,
    spread: spread::Spread,
    pub(crate) bidder: Bidder,
    machine: machine::Own,
    pub(crate) stewards: stewarding::Stewards,
    requests: requests::Requests,
    journal: journal::Journal,
    /// Apps that a steward has to look at this turn.
    touched: BTreeSet<AppId>,
    /// What is being read came by anti-entropy: what belongs to it may still be on its way.
    syncing: bool,
    /// Apps that look different to people.
    changed: BTreeSet<AppId>,
    /// Machines look different to people.
    machines_changed: bool,
    /// The mesh is to hear anew who may speak to this peer.
    members_stale: bool,
    /// A later life of this identity wrote: this one must not.
    retired: bool,
    /// Others in this process hold the same, and what follows from it is held once.
    beside: bool,
    /// Of the simulator alone.
    planted: BTreeSet<Plant>,
}

/// The number of the last record that this identity wrote, by everything its disk tells.
fn last_own(me: &PeerId, restored: &Restored) -> u64 {
    let numbers =
        restored.owners.iter().filter(|(owner, ..)| owner == me).map(|(_, complete, floor)| *complete.max(floor));
    let records = restored.records.iter().filter(|one| one.record.owner == *me).map(|one| one.record.seq);
    numbers.chain(records).max().unwrap_or(0)
}

/// How many documents stay open in memory.
const OPEN_DOCUMENTS_MAX: usize = 64;

impl Brain {
    /// A brain with everything its disk remembers, and what it wants done first.
    pub fn new(config: Config, mut restored: Restored, now: Now) -> (Self, Vec<Effect>) {
        let last = last_own(&config.me, &restored);
        let local = std::mem::take(&mut restored.local);
        Self::start(config, last, local, now, Membership::new, |brain| brain.restore(restored))
    }

    /// Another peer's brain, whose disk remembers the same ledger as this brain holds: what both hold alike is held
    /// once, until either changes it. So a thousand peers live in one process. `local`: what that disk holds beside.
    pub fn beside(&self, config: Config, local: Vec<(String, Vec<u8>)>, now: Now) -> (Self, Vec<Effect>) {
        let last = self.ledger.owner(&config.me).map_or(0, crate::ledger::Owner::top);
        let members =
            |me, tuning, remembered: Option<&[u8]>, now| Membership::beside(&self.members, me, tuning, remembered, now);
        Self::start(config, last, local, now, members, |brain| brain.read_beside(self))
    }

    /// What this brain and another hold alike, though each has read it for itself, they hold once from now on.
    pub fn share(&mut self, other: &Brain) {
        self.close_documents();
        self.ledger.share(&other.ledger);
        self.readings.share(&other.readings);
        self.documents.share(&other.documents);
        self.stewards.share(&other.stewards);
    }

    fn start(
        config: Config,
        last: u64,
        local: Vec<(String, Vec<u8>)>,
        now: Now,
        members: impl FnOnce(PeerId, Tuning, Option<&[u8]>, Now) -> Membership,
        read: impl FnOnce(&mut Self),
    ) -> (Self, Vec<Effect>) {
        let me = config.me;
        let local: BTreeMap<String, Vec<u8>> = local.into_iter().collect();
        let tuning = Tuning { minority_hold_ms: config.minority_hold_ms, ..Tuning::default() };
        let members = members(me, tuning, local.get(members::REMEMBERED).map(Vec::as_slice), now);
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let spread = spread::Spread::new(now, rng.next_u64());
        let mut brain = Self {
            me,
            now,
            rng,
            out: Vec::new(),
            store: Vec::new(),
            writer: Writer::new(me, last, now),
            ledger: Ledger::default(),
            readings: Readings::default(),
            documents: Table::default(),
            open: Default::default(),
            members,
            links: members::Links::default(),
            clocks: clocks::Clocks::default(),
            refuting: None,
            syncing: false,
            spread,
            bidder: Bidder::default(),
            machine: machine::Own::default(),
            stewards: stewarding::Stewards::new(now),
            requests: requests::Requests::default(),
            journal: journal::Journal::default(),
            touched: BTreeSet::new(),
            changed: BTreeSet::new(),
            machines_changed: true,
            members_stale: true,
            retired: false,
            beside: false,
            planted: BTreeSet::new(),
            config,
        };
        read(&mut brain);
        brain.ledger.restore_own(me, last);
        if last > 0 && brain.has_company() {
            brain.writer.doubt(now.ms + spread::DOUBT_MS);
        }
        brain.restore_own(local);
        brain.found();
        brain.turn();
        brain.hear_oneself();
        let first = std::mem::take(&mut brain.out);
        (brain, first)
    }

    /// Takes one event; the effects are to be performed in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        self.now = Now { ms: now.ms.max(self.now.ms), wall: now.wall };
        if self.retired {
            return Vec::new();
        }
        if let Event::Received { from, message, .. } = &event
            && !self.is_news(message)
        {
            self.received_again(*from, message);
            return std::mem::take(&mut self.out);
        }
        match event {
            Event::Woke => {}
            Event::Link { peer, up } => self.linked(peer, up),
            Event::Received { from, message, verified } => self.received(from, message, verified),
            Event::Committed { commit, signatures } => self.committed(commit, &signatures),
            Event::Stored { token } => self.stored(token),
            Event::VitalsSigned { counter, signature } => self.vitals_signed(counter, signature),
            Event::Task { claim, report } => self.reported(claim, report),
            Event::TasksFound => self.tasks_found(),
            Event::Lease { claim, word } => self.lease_told(claim, word),
            Event::Measured { load_millis, images, disk_full } => self.measured(load_millis, images, disk_full),
            Event::Request { id, request } => self.requested(id, request),
        }
        self.turn();
        self.hear_oneself();
        std::mem::take(&mut self.out)
    }

    /// A steward's own machine bids like any other: what is sent to oneself is received at once.
    fn hear_oneself(&mut self) {
        // Solicit, bid, award and verdict are the longest conversation one has with oneself.
        for _ in 0..16 {
            let me = self.me;
            let is_own = |effect: &mut Effect| matches!(effect, Effect::Send { to, .. } if *to == me);
            let own: Vec<Effect> = self.out.extract_if(.., is_own).collect();
            if own.is_empty() {
                return;
            }
            for effect in own {
                if let Effect::Send { message, .. } = effect {
                    self.received(me, message, true);
                }
            }
            self.turn();
        }
    }

    /// The monotonic time, ms, at which [`Event::Woke`] is due; `None`: nothing is.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.retired {
            return None;
        }
        let deadlines = [
            self.writer.deadline(),
            Some(self.members.next_deadline()),
            Some(self.spread.deadline()),
            self.bidder.deadline(),
            self.machine.deadline(),
            self.isolation_deadline(),
            self.stewards.deadline(),
            self.requests.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Whether a message holds anything that is not known yet: asked before its signatures are
    /// checked, for that is what costs. What is no news is handed in unverified: it tells which links are of use.
    pub fn is_news(&self, message: &Message) -> bool {
        match message {
            Message::Frame(frame) => self.ledger.is_news(frame),
            // What others hold of this identity may be what an earlier life of it wrote: known or not, it is looked at.
            Message::Records(answer) => self.ledger.is_news_in(answer),
            Message::Vitals(all) => all.iter().any(|signed| self.is_newer(signed)),
            _ => true,
        }
    }

    /// Owners of whose writing something was refused lately, and how often.
    pub(crate) fn over_budget(&self, now: Now) -> impl Iterator<Item = (PeerId, u64)> {
        self.spread.budgets.refused(now.ms)
    }

    /// How many standing links bring everything, and how many only numbers.
    pub fn eager_and_lazy(&self) -> (usize, usize) {
        (self.spread.tree.eager().count(), self.spread.tree.lazy().count())
    }

    /// How many records and tombstones this peer holds, and roughly how many bytes they take.
    pub fn held(&self) -> (u64, u64) {
        let each = self.ledger.owners().map(|owner| (owner.len() as u64, owner.bytes));
        each.fold((0, 0), |(records, bytes), (more, size)| (records + more, bytes + size))
    }

    /// Hashes over everything that this peer holds: two with the same hold the same.
    pub fn sums(&self) -> Vec<u64> {
        self.ledger.sums()
    }

    /// The number through which this peer holds everything that `owner` wrote.
    pub fn complete(&self, owner: &PeerId) -> u64 {
        self.ledger.owner(owner).map_or(0, |held| held.complete)
    }

    /// Throws a switch of the simulator's, right after the brain was made.
    #[doc(hidden)]
    pub fn plant(&mut self, plant: Plant) {
        if plant == Plant::RewriteOnRestart {
            self.writer.rewind();
        }
        self.planted.insert(plant);
    }

    fn has(&self, plant: Plant) -> bool {
        self.planted.contains(&plant)
    }

    /// What this peer believes, for people and for DNS.
    pub fn view(&self, now: Now) -> View<'_> {
        View { brain: self, now }
    }

    fn turn(&mut self) {
        self.members_turn();
        self.spread_turn();
        self.subnets_turn();
        self.volumes_turn();
        self.secrets_turn();
        self.machine_turn();
        self.steward_turn();
        self.requests_turn();
        if !self.store.is_empty() {
            let ops = std::mem::take(&mut self.store);
            self.out.push(Effect::Store { ops, token: None });
        }
        self.writer.refill(self.now, self.members.live_count());
        let flush = self.writer.flush(self.now);
        self.out.extend(flush);
        if self.machines_changed || !self.changed.is_empty() {
            let apps = std::mem::take(&mut self.changed).into_iter().collect();
            let machines = std::mem::take(&mut self.machines_changed);
            self.out.push(Effect::Changed { apps, machines });
        }
    }

    /// Own records are durable: they join the ledger, are pushed, and free what waited for them.
    fn committed(&mut self, commit: u64, signatures: &[crate::ledger::record::Signature]) {
        let Some(durable) = self.writer.committed(commit, signatures) else { return };
        self.ledger.take_own(durable.stored.clone());
        for frame in durable.frames {
            self.push(&frame, &self.me.clone());
        }
        self.out.extend(durable.held);
        self.kept_here(&durable.stored);
        self.look_at_gangs();
    }

    /// Writes an own record.
    fn write(&mut self, kind: Kind, id: &str, mut value: Option<Vec<u8>>, urgency: Urgency) {
        if self.has(Plant::LaterVersion) {
            value = value.map(later::with_a_new_field);
            self.writer.write(self.now, later::new_record(kind, id), Some(vec![0xf6]), Urgency::Ordinary);
        }
        self.writer.write(self.now, RecordKey { kind, id: id.into() }, value, urgency);
    }

    /// Performs an effect when everything written so far is durable.
    fn hold(&mut self, effect: Effect) {
        let at_once = self.writer.hold(effect);
        self.out.extend(at_once);
    }

    fn send(&mut self, to: PeerId, message: Message) {
        self.out.push(Effect::Send { to, message });
    }

    fn report(&mut self, peer: Option<PeerId>, what: Bad) {
        self.out.push(Effect::Report { peer, what });
    }

    /// Tells people at this peer, and writes it down for all.
    fn note(&mut self, what: &'static str, subject: impl Into<String>, text: impl Into<String>) {
        let note = Note { what, subject: subject.into(), text: text.into() };
        self.write_down(&note);
        self.out.push(Effect::Note { note });
    }

    /// Tells people at this peer alone of what every peer sees for itself: were each to write it down, one change would
    /// be as many records as there are peers.
    fn note_here(&mut self, what: &'static str, subject: impl Into<String>, text: impl Into<String>) {
        self.out.push(Effect::Note { note: Note { what, subject: subject.into(), text: text.into() } });
    }

    fn draw16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A document, open or new, and room for it in memory.
    fn document(&mut self, app: &AppId) -> &mut Document {
        if let Some(at) = self.open.iter().position(|open| open == app) {
            self.open.remove(at);
        }
        self.open.push_back(app.clone());
        if self.open.len() > OPEN_DOCUMENTS_MAX
            && let Some(oldest) = self.open.pop_front()
            && let Some(document) = self.documents.get_mut(&oldest)
        {
            Arc::make_mut(document).close();
        }
        Arc::make_mut(self.documents.entry(app, || Arc::new(Document::new(app.clone()))))
    }

    /// Has a document take a change. Of the peers in one process that had the same document only the first works out
    /// what it becomes.
    fn change_document(&mut self, change: &ChangeValue, stored: Option<&Stored>) -> Result<bool, DocumentError> {
        let Some(stored) = stored.filter(|_| self.beside) else {
            return self.document(&change.app).apply(&change.bytes);
        };
        let before = self.documents.get(&change.app).cloned();
        let same = |edition: &&Edition| edition.before.as_ref().map(Arc::as_ptr) == before.as_ref().map(Arc::as_ptr);
        if let Some(edition) = stored.edition.known().filter(same) {
            self.open.retain(|open| *open != change.app);
            self.documents.insert(change.app.clone(), edition.after.clone());
            return Ok(true);
        }
        let moved = self.document(&change.app).apply(&change.bytes)?;
        if moved && stored.edition.known().is_none() {
            self.open.retain(|open| *open != change.app);
            let document = self.documents.entry(&change.app, || Arc::new(Document::new(change.app.clone())));
            Arc::make_mut(document).close();
            let after = document.clone();
            stored.edition.get(|| Edition { before, after });
        }
        Ok(moved)
    }

    /// Closes all: each is opened again when somebody looks at it.
    fn close_documents(&mut self) {
        for app in std::mem::take(&mut self.open) {
            self.documents.get_mut(&app).map(Arc::make_mut).into_iter().for_each(Document::close);
        }
    }

    /// The name people know a machine by.
    pub(crate) fn machine_name(&self, peer: &PeerId) -> String {
        self.readings.machines.get(peer).map_or_else(|| peer.to_string(), |machine| machine.name.clone())
    }
}
