//! Raft, by the library `raft` of TiKV: known here and nowhere else.
//!
//! It was chosen because it is a state machine that is stepped: no thread, no task and no clock of its own, so that the
//! simulator runs the very code that peers run. It has what a group of this kind needs (pre-vote, quorum checks, reads
//! by index, joint changes of voters, learners), and has carried TiKV for years. Of its two encodings the one by prost
//! is taken. Its only chance is the time until an election, which is given to it here from a seed.

mod log;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_of_raft as prost;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType, HardState, Message,
    MessageType, Snapshot,
};
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};

use log::Log;

/// How often [`Consensus::tick`] is to be called, ms.
pub const TICK_MS: u64 = 50;
/// A leader is heard so often, in ticks; who hears none for so long, and up to half as long again, wants to lead.
const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 8;
const ELECTION_TICKS_MAX: usize = 13;
/// A snapshot that was sent has so many ticks to arrive, before it is sent again.
const SNAPSHOT_TICKS: u32 = 60;
/// The most bytes of entries in one message, and of entries that are not committed yet.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;
/// The most messages with entries on their way to one voter.
const INFLIGHT_MAX: usize = 256;
/// A voter that lacks more entries than these is not ready to vote.
const LAG_MAX: u64 = 512;

/// What a disk has of a replica; every piece in the library's encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Term, vote and commit.
    pub hard: Option<Vec<u8>>,
    pub snapshot: Option<Vec<u8>>,
    /// By index.
    pub entries: BTreeMap<u64, Vec<u8>>,
}

impl Saved {
    /// The beginning of a group whose only voter is `node`, with this state.
    pub fn founding(node: u64, state: Vec<u8>) -> Self {
        let mut snapshot = Snapshot { data: state, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (1, 1);
        metadata.mut_conf_state().voters = vec![node];
        let hard = HardState { term: 1, vote: 0, commit: 1 };
        Self { hard: Some(hard.encode_to_vec()), snapshot: Some(snapshot.encode_to_vec()), entries: BTreeMap::new() }
    }

    /// Takes in what was written.
    pub fn write(&mut self, writes: &Writes) {
        if let Some(hard) = &writes.hard {
            self.hard = Some(hard.clone());
        }
        if let Some(snapshot) = &writes.snapshot {
            self.snapshot = Some(snapshot.clone());
        }
        if writes.reset {
            self.entries.clear();
        }
        if let Some((first, _)) = writes.entries.first() {
            self.entries.split_off(first);
            self.entries.extend(writes.entries.iter().cloned());
        }
        self.entries = self.entries.split_off(&(writes.trim_to + 1));
    }
}

/// What must be written, all of it at once, in the order given here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// What [`Consensus::persisted`] is to be told.
    pub number: u64,
    pub hard: Option<Vec<u8>>,
    pub snapshot: Option<Vec<u8>>,
    /// All entries go, before those here come.
    pub reset: bool,
    /// In order and without gaps; those of before that have the first one's index or a higher one go.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Entries up to this one go.
    pub trim_to: u64,
    /// Somebody waits until it is on the disk.
    pub must_sync: bool,
}

/// Something that the group has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// What somebody proposed.
    Data { context: Vec<u8>, data: Vec<u8> },
    /// The voters are others now.
    Voters,
}

/// What has come of what went in.
#[derive(Debug, Default)]
pub struct Step {
    pub writes: Option<Writes>,
    /// To be sent at once.
    pub sends: Vec<(u64, Vec<u8>)>,
    /// To be sent when the writes are on the disk, and not before.
    pub promises: Vec<(u64, Vec<u8>)>,
    /// The state machine is this now.
    pub state: Option<Vec<u8>>,
    pub decided: Vec<Decided>,
    /// The index that each read with this context has to wait for.
    pub reads: Vec<(Vec<u8>, u64)>,
}

/// Who leads, and who votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub term: u64,
    /// 0: nobody is known to.
    pub leader: u64,
    pub is_leader: bool,
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    /// A change of voters is under way.
    pub changing: bool,
    /// The last entry that was applied.
    pub applied: u64,
}

/// Why nothing was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProposed {
    #[error("another leads")]
    NotLeader,
    #[error("too much is under way")]
    Busy,
}

/// What cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock group's log is damaged: {0}")]
pub struct Damaged(String);

impl Damaged {
    /// For what only the reader of a state can see.
    pub fn of(why: String) -> Self {
        Self(why)
    }
}

/// One node of Raft.
pub struct Consensus {
    raw: RawNode<Log>,
    /// What elections' times are drawn from.
    seed: u64,
    /// The term and role that the present time until an election was drawn for, and that time.
    drawn: Option<(u64, u8, usize)>,
    /// The write of a snapshot that was received, until it is on the disk.
    snapshot_written: Option<u64>,
    /// For how many ticks each voter was waited for to take a snapshot.
    snapshots: BTreeMap<u64, u32>,
}

impl Consensus {
    /// Goes on from what a disk has; the state of its snapshot, where there is one, is in the answer.
    pub fn restore(node: u64, seed: u64, saved: &Saved) -> Result<(Self, Option<Vec<u8>>), Damaged> {
        let log = Log::restore(saved)?;
        let config = Config {
            id: node,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            max_election_tick: ELECTION_TICKS_MAX,
            applied: log.snapshot.get_metadata().index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let state = (!log.snapshot.is_empty()).then(|| log.snapshot.data.to_vec());
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &silent).map_err(|error| Damaged(error.to_string()))?;
        let (drawn, snapshot_written, snapshots) = (None, None, BTreeMap::new());
        let mut this = Self { raw, seed, drawn, snapshot_written, snapshots };
        this.draw();
        Ok((this, state))
    }

    /// So much time has passed: [`TICK_MS`].
    pub fn tick(&mut self) {
        self.raw.tick();
        self.draw();
        self.leave_joint();
        self.look_after_snapshots();
    }

    /// A message that `from` sent. What cannot be read, or is not its to say, counts as lost.
    pub fn message(&mut self, from: u64, bytes: &[u8]) {
        let Ok(message) = Message::decode(bytes) else { return };
        let is_for_me = message.from == from && message.to == self.raw.raft.id;
        // Writes are forwarded by us, who know whom to answer.
        if is_for_me && message.get_msg_type() != MessageType::MsgPropose {
            // An error says that the message is none for this node as it stands: lost, too.
            let _ = self.raw.step(message);
            self.draw();
        }
    }

    /// Nothing can be sent to a node at the moment.
    pub fn unreachable(&mut self, node: u64) {
        self.raw.report_unreachable(node);
    }

    /// This node stands for election now, without waiting.
    pub fn campaign(&mut self) {
        let _ = self.raw.campaign();
        self.draw();
    }

    /// Puts an entry into the log, if this node leads.
    pub fn propose(&mut self, context: Vec<u8>, data: Vec<u8>) -> Result<(), NotProposed> {
        if self.raw.raft.state != StateRole::Leader {
            return Err(NotProposed::NotLeader);
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Err(NotProposed::NotLeader);
        }
        self.raw.propose(context, data).map_err(|_| NotProposed::Busy)
    }

    /// Asks for the index that a read has to wait for; it comes with the context, or is lost.
    pub fn read(&mut self, context: Vec<u8>) {
        self.raw.read_index(context);
    }

    /// Proposes that these vote and those learn, if this node leads and no change is under way. Who is to vote has to
    /// learn first.
    pub fn change(&mut self, voters: &BTreeSet<u64>, learners: &BTreeSet<u64>) {
        let group = self.group();
        if !group.is_leader || group.changing {
            return;
        }
        let caught_up = |node: &u64| {
            let last = self.raw.raft.raft_log.last_index();
            // The library counts a newcomer as active until it finds out: only what it has taken shows that it is there.
            let has_enough = |matched: u64| matched > 0 && matched + LAG_MAX > last;
            self.raw.raft.prs().get(*node).is_some_and(|there| there.recent_active && has_enough(there.matched))
        };
        if !voters.contains(&self.raw.raft.id) {
            // Whoever is to go hands over first: the library does not bear a leader that is no voter.
            let heirs = group.voters.intersection(voters).copied().filter(caught_up);
            let progress = |node: &u64| self.raw.raft.prs().get(*node).map(|there| there.matched);
            if let Some(heir) = heirs.max_by_key(progress).filter(|_| self.raw.raft.lead_transferee.is_none()) {
                self.raw.transfer_leader(heir);
            }
            return;
        }
        let newcomers: BTreeSet<u64> = voters.difference(&group.voters).copied().collect();
        let ready = newcomers.iter().all(|node| group.learners.contains(node) && caught_up(node));
        let mut changes = Vec::new();
        let mut change = |node: &u64, kind: ConfChangeType| {
            let mut single = ConfChangeSingle { node_id: *node, ..ConfChangeSingle::default() };
            single.set_change_type(kind);
            changes.push(single);
        };
        let learning = newcomers.iter().chain(learners).filter(|node| !group.voters.contains(node));
        let learning: BTreeSet<u64> = learning.copied().collect();
        if ready {
            newcomers.iter().for_each(|node| change(node, ConfChangeType::AddNode));
            group.voters.difference(voters).for_each(|node| change(node, ConfChangeType::RemoveNode));
        } else {
            learning.difference(&group.learners).for_each(|node| change(node, ConfChangeType::AddLearnerNode));
        }
        let idle = group.learners.difference(&learning);
        idle.for_each(|node| change(node, ConfChangeType::RemoveNode));
        if changes.is_empty() {
            return;
        }
        let mut all = ConfChangeV2 { changes, ..ConfChangeV2::default() };
        all.set_transition(ConfChangeTransition::Auto);
        // Refused only while another change is under way: the next look asks again.
        let _ = self.raw.propose_conf_change(Vec::new(), all);
    }

    /// What there is to do; to be called until there is nothing more.
    pub fn step(&mut self) -> Option<Step> {
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let mut step = Step::default();
        let mut writes = Writes { number: ready.number(), must_sync: ready.must_sync(), ..Writes::default() };
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            step.state = Some(snapshot.data.to_vec());
            writes.snapshot = Some(snapshot.encode_to_vec());
            writes.reset = true;
            self.snapshot_written = Some(ready.number());
            self.raw.mut_store().install(snapshot);
        }
        let entries = ready.take_entries();
        writes.entries = entries.iter().map(|entry| (entry.index, entry.encode_to_vec())).collect();
        self.raw.mut_store().append(entries);
        if let Some(hard) = ready.hs() {
            writes.hard = Some(hard.encode_to_vec());
            self.raw.mut_store().hard = hard.clone();
        }
        step.sends = encoded(ready.take_messages());
        step.promises = encoded(ready.take_persisted_messages());
        step.reads = ready.take_read_states().into_iter().map(|read| (read.request_ctx, read.index)).collect();
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        step.writes = Some(writes);
        if !committed.is_empty() {
            step.decided = committed.into_iter().filter_map(|entry| self.decide(entry)).collect();
            self.raw.advance_apply();
        }
        self.draw();
        Some(step)
    }

    fn decide(&mut self, entry: Entry) -> Option<Decided> {
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => None,
            EntryType::EntryNormal => {
                Some(Decided::Data { context: entry.context.to_vec(), data: entry.data.to_vec() })
            }
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                // All replicas refuse the same: it is the log's, not this node's.
                let change = ConfChangeV2::decode(entry.data.as_ref()).ok()?;
                self.raw.apply_conf_change(&change).ok()?;
                let raft = &mut self.raw.raft;
                if raft.state == StateRole::Leader && raft.prs().get(raft.id).is_none() {
                    // The leader before began the change that took this one out.
                    raft.become_follower(raft.term, 0);
                }
                Some(Decided::Voters)
            }
        }
    }

    /// What had this number is on the disk, and everything before it.
    pub fn persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
        if self.snapshot_written.is_some_and(|snapshot| snapshot <= number) {
            self.snapshot_written = None;
            self.raw.advance_apply();
        }
        self.draw();
    }

    /// The state after everything that was applied is this: the log is cut behind it.
    pub fn compact(&mut self, state: Vec<u8>) -> Option<Writes> {
        let applied = self.raw.raft.raft_log.applied();
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let term = self.raw.raft.raft_log.term(applied).ok()?;
        if self.snapshot_written.is_some() || applied == 0 {
            return None;
        }
        let mut snapshot = Snapshot { data: state, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (applied, term);
        metadata.set_conf_state(conf);
        let trim_to = self.raw.store().keep_from(applied);
        let writes = Writes { snapshot: Some(snapshot.encode_to_vec()), trim_to, ..Writes::default() };
        let log = self.raw.mut_store();
        log.snapshot = snapshot;
        log.trim(trim_to);
        Some(writes)
    }

    /// How many entries have been applied since the last snapshot.
    pub fn since_snapshot(&self) -> u64 {
        let log = &self.raw.raft.raft_log;
        log.applied().saturating_sub(log.store.snapshot.get_metadata().index)
    }

    pub fn group(&self) -> Group {
        let raft = &self.raw.raft;
        let conf = raft.prs().conf().to_conf_state();
        Group {
            term: raft.term,
            leader: raft.leader_id,
            is_leader: raft.state == StateRole::Leader,
            voters: conf.voters.into_iter().collect(),
            learners: conf.learners.into_iter().chain(conf.learners_next).collect(),
            changing: raft.has_pending_conf() || !conf.voters_outgoing.is_empty(),
            applied: raft.raft_log.applied(),
        }
    }

    /// Nothing is known here of any group.
    pub fn is_blank(&self) -> bool {
        self.raw.raft.raft_log.last_index() == 0
    }

    /// Whether a node votes or learns.
    pub fn knows(&self, node: u64) -> bool {
        self.raw.raft.prs().get(node).is_some()
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub fn leader(&self) -> u64 {
        self.raw.raft.leader_id
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn applied(&self) -> u64 {
        self.raw.raft.raft_log.applied()
    }

    /// A leader whose predecessor went in the middle of a change ends it.
    fn leave_joint(&mut self) {
        let raft = &self.raw.raft;
        let is_joint = !raft.prs().conf().to_conf_state().voters_outgoing.is_empty();
        if is_joint && raft.state == StateRole::Leader && !raft.has_pending_conf() {
            let _ = self.raw.propose_conf_change(Vec::new(), ConfChangeV2::default());
        }
    }

    /// The library waits for ever for news of a snapshot that it has sent.
    fn look_after_snapshots(&mut self) {
        let waiting = self.raw.raft.prs().iter().filter(|(_, there)| there.state == ProgressState::Snapshot);
        let waiting: BTreeSet<u64> = waiting.map(|(node, _)| *node).collect();
        self.snapshots.retain(|node, _| waiting.contains(node));
        for node in waiting {
            let ticks = self.snapshots.entry(node).or_default();
            *ticks += 1;
            if *ticks >= SNAPSHOT_TICKS {
                self.snapshots.remove(&node);
                self.raw.report_snapshot(node, SnapshotStatus::Failure);
            }
        }
    }

    /// Gives the library the time until an election, from our seed: its own chance is nobody's to repeat.
    fn draw(&mut self) {
        let (term, role) = (self.raw.raft.term, self.raw.raft.state as u8);
        let ticks = match self.drawn {
            Some((of_term, of_role, ticks)) if (of_term, of_role) == (term, role) => ticks,
            _ => {
                self.seed = mixed(self.seed);
                let ticks = ELECTION_TICKS + (self.seed % (ELECTION_TICKS_MAX - ELECTION_TICKS) as u64) as usize;
                self.drawn = Some((term, role, ticks));
                ticks
            }
        };
        self.raw.raft.set_randomized_election_timeout(ticks);
    }
}

/// The next number of a sequence (splitmix64).
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn encoded(messages: Vec<Message>) -> Vec<(u64, Vec<u8>)> {
    messages.into_iter().map(|message| (message.to, message.encode_to_vec())).collect()
}
