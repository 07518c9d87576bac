//! The ledger on disk: what was told to be durable is there, also after `kill -9`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rialto_node::store::{Done, Job, Store, StoreError};
use rialto_protocol::effect::{Local, StoreOp};
use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{Draft, Kind, Record, RecordKey, SCHEMA, Signature, Stored};
use tokio::sync::mpsc;

const ME: PeerId = PeerId([7; 32]);
const OTHER: PeerId = PeerId([8; 32]);
/// Set in the child that is to be killed: where its ledger lies.
const CHILD: &str = "RIALTO_TEST_LEDGER";

fn record(owner: PeerId, seq: u64, id: &str) -> Arc<Record> {
    let key = RecordKey { kind: Kind::CLAIM, id: id.into() };
    Arc::new(Record { owner, key, seq, stamp: seq, schema: SCHEMA, value: Some(vec![seq as u8; 100]) })
}

fn stored(owner: PeerId, seq: u64, id: &str) -> Arc<Stored> {
    let draft = Draft { owner, prev: seq - 1, records: vec![record(owner, seq, id)] };
    draft.seal(Signature([1; 64])).1.remove(0)
}

fn start(store: Store) -> (rialto_node::store::Writer, mpsc::UnboundedReceiver<Done>) {
    let (done, words) = mpsc::unbounded_channel();
    let sign = |bytes: &[u8; 32]| Signature(std::array::from_fn(|n| bytes[n % 32]));
    (store.start(Arc::new(sign), done), words)
}

#[test]
fn what_was_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let (store, restored) = Store::open(&path).unwrap();
    assert!(restored.records.is_empty() && restored.owners.is_empty() && restored.local.is_empty());

    let (writer, mut words) = start(store);
    let records = (1..=3).map(|seq| record(ME, seq, &format!("task{seq}"))).collect();
    let local = vec![Local { key: "a".into(), value: Some(vec![1]) }];
    writer.write(Job::Store { ops: vec![StoreOp::Owner { owner: ME, complete: 0, floor: 9 }], token: None });
    writer.write(Job::Commit { commit: 5, drafts: Draft::cut(ME, 0, records), local });
    let ops = vec![
        StoreOp::Put(stored(OTHER, 4, "gone")),
        StoreOp::Put(stored(OTHER, 5, "stays")),
        StoreOp::Delete { owner: OTHER, key: RecordKey { kind: Kind::CLAIM, id: "gone".into() } },
        StoreOp::Owner { owner: OTHER, complete: 5, floor: 4 },
        StoreOp::Local(Local { key: "b".into(), value: Some(vec![2]) }),
        StoreOp::Local(Local { key: "a".into(), value: None }),
    ];
    writer.write(Job::Store { ops, token: Some(6) });
    // Nobody waits for this one; it is written all the same before the writer is gone.
    writer.write(Job::Store { ops: vec![StoreOp::Put(stored(OTHER, 6, "late"))], token: None });
    drop(writer);

    match words.try_recv().unwrap() {
        Done::Committed { commit: 5, signatures } => assert_eq!(signatures.len(), 1),
        other => panic!("{other:?}"),
    }
    assert!(matches!(words.try_recv().unwrap(), Done::Stored { token: 6 }));

    let (_, restored) = Store::open(&path).unwrap();
    let names: Vec<_> = restored.records.iter().map(|stored| stored.record.key.id.to_string()).collect();
    assert_eq!(names, ["task1", "task2", "task3", "late", "stays"]);
    assert_eq!(restored.owners, [(ME, 3, 9), (OTHER, 5, 4)]);
    assert_eq!(restored.local, [("b".to_owned(), vec![2])]);
    let mine = &restored.records[0];
    assert_eq!(mine.proof.signature.0[..32], mine.signed());
}

/// A small disk in memory.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this process may not mount one.
    fn of(bytes: u64) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at.path(), Some("tmpfs"), flags, Some(size.as_str())).ok()?;
        Some(Self(at))
    }

    /// Leaves no byte.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.path().join("ballast");
        let mut ballast = std::fs::File::create(&path).unwrap();
        while ballast.write(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        nix::mount::umount(self.0.path()).unwrap();
    }
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_promised_meanwhile() {
    let Some(disk) = Disk::of(8 << 20) else {
        return eprintln!("skipped: this process may not mount a small disk");
    };
    let path = disk.0.path().join("ledger.redb");
    let large = |key: &str| Job::Store {
        ops: vec![StoreOp::Local(Local { key: key.into(), value: Some(vec![7; 3 << 19]) })],
        token: Some(1),
    };
    let (writer, mut words) = start(Store::open(&path).unwrap().0);
    writer.write(large("before"));
    assert!(matches!(words.blocking_recv(), Some(Done::Stored { .. })));
    let ballast = disk.fill();
    writer.write(large("meanwhile"));
    let records = vec![record(ME, 1, "task")];
    writer.write(Job::Commit { commit: 2, drafts: Draft::cut(ME, 0, records), local: Vec::new() });
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(words.try_recv().is_err(), "there is no room for it");
    std::fs::remove_file(ballast).unwrap();
    assert!(matches!(words.blocking_recv(), Some(Done::Stored { .. })));
    assert!(matches!(words.blocking_recv(), Some(Done::Committed { commit: 2, .. })));

    // Who ends the peer waits for no room.
    disk.fill();
    writer.write(large("lost"));
    drop(writer);
    assert!(matches!(words.blocking_recv(), Some(Done::Failed(StoreError::Write(_)))));
    std::fs::remove_file(disk.0.path().join("ballast")).unwrap();
    let restored = Store::open(&path).unwrap().1;
    let keys: Vec<&str> = restored.local.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((keys, restored.records.len()), (vec!["before", "meanwhile"], 1));
}

#[test]
fn a_ledger_that_was_half_made_when_the_power_went_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ledger.making"), b"half of it").unwrap();
    let path = folder.path().join("ledger.redb");
    let (_, restored) = Store::open(&path).unwrap();
    assert!(restored.records.is_empty());
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ledger.redb"]);
}

#[test]
fn damage_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let (store, _) = Store::open(&path).unwrap();
    let (writer, _words) = start(store);
    writer.write(Job::Store { ops: vec![StoreOp::Put(stored(OTHER, 1, "web.1"))], token: Some(1) });
    drop(writer);

    const RECORDS: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("records");
    const META: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("meta");
    let damage = |value: &[u8], schema: u64| {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut key = OTHER.0.to_vec();
            key.push(Kind::CLAIM.0);
            key.extend(b"web.1");
            transaction.open_table(RECORDS).unwrap().insert(key.as_slice(), value).unwrap();
            transaction.open_table(META).unwrap().insert("schema", schema).unwrap();
        }
        transaction.commit().unwrap();
    };
    for value in [&b""[..], b"\x01", b"\x01garbage", b"\x09\xa0"] {
        damage(value, 1);
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("080808080808/claim/web.1"), "{error}");
    }
    damage(b"", 2);
    assert!(matches!(Store::open(&path).unwrap_err(), StoreError::Schema { found: 2, known: 1 }));

    std::fs::write(&path, b"this was never a ledger").unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), StoreError::Open { .. }));
}

/// Not a test of its own: the child of the next one, which writes until it is killed.
#[test]
fn child_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (store, restored) = Store::open(Path::new(&path)).unwrap();
    let mut seq = restored.owners.iter().find(|(owner, ..)| *owner == ME).map_or(0, |(_, complete, _)| *complete);
    let (writer, mut words) = start(store);
    let mut out = std::io::stdout().lock();
    loop {
        for commit in 1..=8 {
            let records: Vec<_> = (1..=3).map(|n| record(ME, seq + n, &format!("{}", (seq + n) % 50))).collect();
            writer.write(Job::Commit { commit, drafts: Draft::cut(ME, seq, records), local: Vec::new() });
            seq += 3;
            writer.write(Job::Store { ops: vec![StoreOp::Put(stored(OTHER, seq, "x"))], token: None });
        }
        for _ in 1..=8 {
            assert!(matches!(words.blocking_recv(), Some(Done::Committed { .. })));
        }
        writeln!(out, "durable {seq}").unwrap();
    }
}

#[test]
fn what_was_told_survives_kill_9_at_any_point() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        // Killed after another number of words each time, wherever the writer is then.
        for _ in 0..=round * 3 {
            let word = lines
                .by_ref()
                .map_while(Result::ok)
                .find_map(|line| line.split_once("durable ").map(|l| l.1.parse().unwrap()));
            told = word.expect("the child writes until it is killed");
        }
        std::thread::sleep(std::time::Duration::from_micros(round * 137));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(word) = line.split_once("durable ").and_then(|l| l.1.parse().ok()) {
                told = word;
            }
        }
        let (_, restored) = Store::open(&path).unwrap();
        let complete = restored.owners.iter().find(|(owner, ..)| *owner == ME).unwrap().1;
        assert!(complete >= told, "told {told}, found {complete}");
        let newest = restored.records.iter().filter(|s| s.record.owner == ME).map(|s| s.record.seq).max();
        assert_eq!(newest, Some(complete), "a transaction is whole or not there");
        assert_eq!(restored.records.iter().filter(|s| s.record.owner == ME).count(), (complete as usize).min(50));
    }
}
