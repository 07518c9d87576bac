//! The ledger on a disk that fails: power is lost at every single write, writes are torn, dropped and reordered, the
//! disk is full. What was acknowledged must be there, what is there must be a beginning of what was ordered, and
//! nothing may panic.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, StorageBackend};
use rialto_protocol::Restored;
use rialto_protocol::effect::{Local, StoreOp};
use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{Draft, Kind, Record, RecordKey, SCHEMA, Signature, Stored};
use tokio::sync::mpsc;

use super::{CACHE_BYTES, Done, Job, Store, StoreError};

const ME: PeerId = PeerId([7; 32]);
const OTHER: PeerId = PeerId([8; 32]);
/// What a disk writes at once, bytes: a torn write breaks between two of these.
const SECTOR: usize = 512;

/// A disk in memory that loses what was not synced.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// As programs see it.
    seen: Vec<u8>,
    /// As it was when it was last synced, and what was asked for since.
    synced: Vec<u8>,
    waiting: Vec<Change>,
    /// Changes and syncs so far, and at which one the power goes.
    steps: usize,
    dies_at: Option<usize>,
    /// The most bytes that fit.
    room: Option<usize>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

fn apply(change: &Change, to: &mut Vec<u8>) {
    match change {
        Change::Length(length) => to.resize(*length, 0),
        Change::Write(offset, data) => {
            if to.len() < offset + data.len() {
                to.resize(offset + data.len(), 0);
            }
            to[*offset..offset + data.len()].copy_from_slice(data);
        }
    }
}

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        if self.dies_at.is_some_and(|at| self.steps >= at) {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let end = match &change {
            Change::Write(offset, data) => offset + data.len(),
            Change::Length(length) => *length,
        };
        if self.room.is_some_and(|room| end > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // The write during which the power goes may have come through, or half of it.
        let alive = self.step();
        apply(&change, &mut self.seen);
        self.waiting.push(change);
        alive
    }
}

impl Disk {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter { seen: bytes.clone(), synced: bytes, ..Platter::default() })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn dying_at(self, step: usize) -> Self {
        self.platter().dies_at = Some(step);
        self
    }

    /// What is found when power is back. Of what was not synced, each change came through by the dice of `seed`, whole
    /// or torn, and in any order; 0: nothing of it did, 1: everything.
    fn after_the_crash(&self, seed: u64) -> Vec<u8> {
        let platter = self.platter();
        let mut found = platter.synced.clone();
        let mut dice = seed;
        let mut roll = |sides: usize| {
            // splitmix64: the test's own dice, the same on every machine.
            dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % sides as u64) as usize
        };
        let mut waiting = platter.waiting.clone();
        if seed > 1 {
            for at in (1..waiting.len()).rev() {
                waiting.swap(at, roll(at + 1));
            }
        }
        for change in &waiting {
            match (seed, change) {
                (0, _) => {}
                (1, change) => apply(change, &mut found),
                (_, Change::Length(length)) => {
                    // A file system never shortens a file by what is written to it later.
                    if roll(2) == 0 || *length > found.len() {
                        found.resize(*length, 0);
                    }
                }
                (_, Change::Write(offset, data)) => {
                    for (at, sector) in data.chunks(SECTOR).enumerate() {
                        if roll(2) == 0 {
                            apply(&Change::Write(offset + at * SECTOR, sector.to_vec()), &mut found);
                        }
                    }
                }
            }
        }
        found
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let from = platter.seen.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.platter().change(Change::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        platter.synced = platter.seen.clone();
        platter.waiting.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.platter().change(Change::Write(offset as usize, data.to_vec()))
    }
}

fn open(disk: &Disk) -> Result<(Store, Restored), StoreError> {
    let opened = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(disk.clone());
    Store::of(opened.map_err(|error| StoreError::Open { path: "memory".into(), reason: error.to_string() })?)
}

/// A ledger that was made and closed: until then it has another name, and a crash leaves nothing to be opened.
fn prepared() -> Disk {
    let disk = Disk::default();
    drop(open(&disk).expect("nothing fails here"));
    let bytes = disk.platter().synced.clone();
    Disk::of(bytes)
}

/// What a ledger holds: numbers of records by owner and name, owners' numbers, and what is the peer's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holding {
    records: BTreeMap<(PeerId, String), u64>,
    owners: BTreeMap<PeerId, (u64, u64)>,
    local: BTreeMap<String, Vec<u8>>,
}

impl Holding {
    fn of(restored: Restored) -> Self {
        let record = |one: Arc<Stored>| ((one.record.owner, one.record.key.id.to_string()), one.record.seq);
        Self {
            records: restored.records.into_iter().map(record).collect(),
            owners: restored.owners.into_iter().map(|(owner, complete, floor)| (owner, (complete, floor))).collect(),
            local: restored.local.into_iter().collect(),
        }
    }
}

fn record(owner: PeerId, seq: u64, id: &str) -> Arc<Record> {
    let key = RecordKey { kind: Kind::EVENT, id: id.into() };
    // Longer than a page now and then, so that a commit is many writes.
    let value = Some(vec![seq as u8; 100 + (seq as usize % 3) * 5_000]);
    Arc::new(Record { owner, key, seq, stamp: seq, schema: SCHEMA, value })
}

/// A peer's life: each job, and what the ledger holds when it is done. Own records and what goes with them, others'
/// records with their numbers, overwriting and forgetting.
fn life(rounds: u64) -> Vec<(Job, Holding)> {
    let mut holding = Holding::default();
    let mut jobs = Vec::new();
    for round in 0..rounds {
        let (first, id) = (round * 2 + 1, format!("own{}", round % (rounds / 2)));
        let drafts = Draft::cut(ME, first - 1, vec![record(ME, first, &id), record(ME, first + 1, "newest")]);
        let local = vec![Local { key: "count".into(), value: Some(vec![round as u8]) }];
        holding.records.extend([((ME, id), first), ((ME, "newest".into()), first + 1)]);
        holding.owners.insert(ME, (first + 1, 0));
        holding.local.insert("count".into(), vec![round as u8]);
        jobs.push((Job::Commit { commit: round, drafts, local }, holding.clone()));

        let (seq, id) = (round + 1, format!("theirs{}", round % (rounds * 2 / 3)));
        let draft = Draft { owner: OTHER, prev: seq - 1, records: vec![record(OTHER, seq, &id)] };
        let stored = draft.seal(Signature([1; 64])).1.remove(0);
        let mut ops = vec![StoreOp::Put(stored)];
        holding.records.insert((OTHER, id), seq);
        if round % 4 == 3 {
            let key = RecordKey { kind: Kind::EVENT, id: "theirs0".into() };
            ops.push(StoreOp::Delete { owner: OTHER, key });
            holding.records.remove(&(OTHER, "theirs0".into()));
        }
        ops.push(StoreOp::Owner { owner: OTHER, complete: seq, floor: round / 4 });
        holding.owners.insert(OTHER, (seq, round / 4));
        jobs.push((Job::Store { ops, token: Some(round) }, holding.clone()));
    }
    jobs
}

/// Lives on a disk until it dies: how many jobs were acknowledged, and whether a failure was told.
fn live(disk: &Disk, rounds: u64) -> (usize, bool) {
    let Ok((store, _)) = open(disk) else { return (0, true) };
    let (done, mut words) = mpsc::unbounded_channel();
    let writer = store.start(Arc::new(|_: &[u8; 32]| Signature([2; 64])), done);
    let mut acknowledged = 0;
    for (job, _) in life(rounds) {
        // One at a time: each is a transaction of its own.
        writer.write(job);
        match words.blocking_recv() {
            Some(Done::Failed(_)) | None => return (acknowledged, true),
            Some(_) => acknowledged += 1,
        }
    }
    (acknowledged, false)
}

/// Power is back: the ledger opens and holds what was acknowledged, and perhaps the job that was under way.
fn survives(found: Vec<u8>, acknowledged: usize, rounds: u64, when: &str) -> Disk {
    let disk = Disk::of(found);
    let restored = match open(&disk) {
        Ok((_, restored)) => Holding::of(restored),
        Err(error) => panic!("{when}: {error}"),
    };
    let states: Vec<Holding> =
        std::iter::once(Holding::default()).chain(life(rounds).into_iter().map(|(_, holding)| holding)).collect();
    let allowed = &states[acknowledged..(acknowledged + 2).min(states.len())];
    assert!(allowed.contains(&restored), "{when}: {acknowledged} jobs were acknowledged; there is {restored:?}");
    disk
}

const ROUNDS: u64 = 6;
/// How what was not synced came through: not at all, wholly, and by three throws of the dice.
const SEEDS: std::ops::Range<u64> = 0..5;

#[test]
fn power_may_go_at_every_write() {
    let whole = prepared();
    assert_eq!(live(&whole, ROUNDS), (2 * ROUNDS as usize, false));
    let steps = whole.platter().steps;
    assert!(steps > 50, "{steps}");
    let mut reached = BTreeSet::new();
    for step in 1..=steps {
        let disk = prepared().dying_at(step);
        let (acknowledged, _) = live(&disk, ROUNDS);
        reached.insert(acknowledged);
        for seed in SEEDS {
            survives(disk.after_the_crash(seed), acknowledged, ROUNDS, &format!("step {step}, seed {seed}"));
        }
    }
    assert_eq!(reached.len(), 2 * ROUNDS as usize + 1, "every number of acknowledged jobs was tried: {reached:?}");
}

#[test]
fn power_may_go_again_while_the_ledger_is_mended() {
    let disk = prepared();
    live(&disk, ROUNDS);
    let late = disk.platter().steps - 3;
    let disk = prepared().dying_at(late);
    let (acknowledged, _) = live(&disk, ROUNDS);
    for seed in SEEDS {
        let found = disk.after_the_crash(seed);
        let steps = survives(found.clone(), acknowledged, ROUNDS, "mended").platter().steps;
        for step in 1..=steps {
            let again = Disk::of(found.clone()).dying_at(step);
            drop(open(&again));
            for seed in SEEDS {
                survives(again.after_the_crash(seed), acknowledged, ROUNDS, &format!("mending, step {step}"));
            }
        }
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_that_was_acknowledged_is_lost() {
    const LONG: u64 = 400;
    let whole = prepared();
    let at_first = whole.platter().seen.len();
    live(&whole, LONG);
    let needed = whole.platter().seen.len();
    assert!(needed > at_first, "a long life takes more room than an empty ledger: {needed} bytes and {at_first}");
    for room in [at_first, (at_first + needed) / 2, needed - 1] {
        let disk = prepared();
        disk.platter().room = Some(room);
        let (acknowledged, told) = live(&disk, LONG);
        assert!(told && acknowledged < 2 * LONG as usize, "with room for {room} bytes");
        for seed in SEEDS {
            survives(disk.after_the_crash(seed), acknowledged, LONG, &format!("room for {room}, seed {seed}"));
        }
    }
}

#[test]
fn a_disk_without_room_for_anything_is_an_error() {
    let disk = Disk::default();
    disk.platter().room = Some(1_000);
    assert!(matches!(open(&disk), Err(StoreError::Open { .. })));
}
