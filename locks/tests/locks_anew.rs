//! A group that is made anew when most of its voters are gone: it grows again, and whoever comes back follows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rialto_locks::consensus::{Saved, TICK_MS};
use rialto_locks::kv::{Op, Put, Refusal};
use rialto_locks::voters::{Candidate, Standing};
use rialto_locks::wire::Ask;
use rialto_locks::{Config, Input, Output, Replica, Store};

const FIRST_EPOCH: u64 = 1;

/// Replicas whose disks and wires take no time.
#[derive(Default)]
struct Hall {
    now_ms: u64,
    replicas: BTreeMap<u64, Replica>,
    disks: BTreeMap<u64, (u64, Saved)>,
    letters: VecDeque<(u64, u64, Vec<u8>)>,
    answers: BTreeMap<u64, Result<(), Refusal>>,
    /// News say that they live, and they hear nothing.
    deaf: BTreeSet<u64>,
}

impl Hall {
    fn start(&mut self, node: u64) {
        let (epoch, saved) = self.disks.entry(node).or_insert_with(|| {
            let founds = node == 1;
            (FIRST_EPOCH, if founds { Replica::founding(1, &Store::default()) } else { Saved::default() })
        });
        let config = Config { node, epoch: *epoch, seed: node * 7919 + self.now_ms };
        self.replicas.insert(node, Replica::restore(config, saved).unwrap());
    }

    fn input(&mut self, node: u64, input: Input) {
        let Some(replica) = self.replicas.get_mut(&node) else { return };
        replica.handle(self.now_ms, input);
        for output in replica.flush(self.now_ms) {
            match output {
                Output::Send { to, bytes } => self.letters.push_back((node, to, bytes)),
                Output::Answer { ticket, answer } => drop(self.answers.insert(ticket, answer.map(drop))),
                Output::Replace { epoch, saved } => drop(self.disks.insert(node, (epoch, saved))),
                Output::Write(writes) => {
                    let (epoch, disk) = self.disks.get_mut(&node).unwrap();
                    disk.write(&writes);
                    let (epoch, number) = (*epoch, writes.number);
                    self.input(node, Input::Persisted { epoch, number });
                }
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.now_ms += TICK_MS;
            let news: Vec<Candidate> = (1..=5)
                .map(|node| {
                    let is_up = self.replicas.contains_key(&node) || self.deaf.contains(&node);
                    // Whoever is up has been so for long enough to be one of three, and not of five.
                    let standing = if is_up { Standing::Alive(5_000) } else { Standing::Down(5_000) };
                    Candidate { node, standing, since_ms: node, rack: None }
                })
                .collect();
            for node in self.replicas.keys().copied().collect::<Vec<_>>() {
                self.input(node, Input::Candidates(news.clone()));
                self.input(node, Input::Tick);
            }
            while let Some((from, to, bytes)) = self.letters.pop_front() {
                self.input(to, Input::Parcel { from, bytes });
            }
        }
    }

    /// What comes of a write.
    fn put(&mut self, node: u64, ticket: u64) -> Option<Result<(), Refusal>> {
        let put = Op::Put(Put { key: b"key".to_vec(), value: ticket.to_string().into_bytes(), ..Put::default() });
        self.input(node, Input::Ask { ticket, ask: Ask::Write(put) });
        self.pass(6_000);
        self.answers.remove(&ticket)
    }

    fn voters(&self, node: u64) -> Vec<u64> {
        self.replicas[&node].group().voters.into_iter().collect()
    }
}

#[test]
fn a_group_that_is_made_anew_grows_again_and_whoever_comes_back_follows_it() {
    let mut hall = Hall::default();
    for node in 1..=3 {
        hall.start(node);
    }
    hall.pass(5_000);
    assert_eq!(hall.voters(1), [1, 2, 3]);
    for node in 4..=5 {
        hall.start(node);
    }
    assert_eq!(hall.put(2, 1), Some(Ok(())));
    // Who has no part in the group has nothing to make one of.
    hall.input(4, Input::ForceNew);
    assert!(hall.voters(4).is_empty() && hall.replicas[&4].epoch() == FIRST_EPOCH);

    for node in [2, 3] {
        hall.replicas.remove(&node);
    }
    assert!(matches!(hall.put(1, 2), Some(Err(Refusal::NoLeader | Refusal::Unknown))));
    let revision = hall.replicas[&1].store().revision();
    hall.input(1, Input::ForceNew);
    assert_eq!(hall.put(1, 3), Some(Ok(())));
    assert_eq!(hall.voters(1), [1, 4, 5], "others take the places");
    assert_eq!((hall.voters(4), hall.voters(5)), (vec![1, 4, 5], vec![1, 4, 5]));
    assert!(hall.replicas[&1].store().revision() > revision + 1, "revisions go on far above");
    let epoch = hall.replicas[&1].epoch();
    assert!(epoch > FIRST_EPOCH && hall.replicas[&4].epoch() == epoch);
    // The new group bears a loss, and a start from the disk.
    hall.start(4);
    hall.replicas.remove(&5);
    assert_eq!(hall.put(4, 4), Some(Ok(())));
    hall.start(5);

    // Most of the old group comes back; they could go on among themselves.
    for node in [2, 3] {
        hall.start(node);
    }
    hall.pass(5_000);
    for node in [2, 3] {
        assert_eq!((hall.replicas[&node].epoch(), hall.voters(node)), (epoch, Vec::new()), "{node}");
        hall.start(node);
        assert_eq!(hall.replicas[&node].epoch(), epoch, "{node} knows it from its disk");
    }
    hall.pass(2_000);
    assert_eq!(hall.put(5, 5), Some(Ok(())));
    assert_eq!(hall.voters(1), [1, 4, 5]);
    // Of strangers nobody takes a word.
    hall.input(1, Input::Parcel { from: 9, bytes: anew(u64::MAX) });
    assert_eq!(hall.replicas[&1].epoch(), epoch);
}

fn anew(epoch: u64) -> Vec<u8> {
    rialto_locks::wire::Parcel { epoch, body: rialto_locks::wire::Body::Anew }.encode()
}

/// News may say that somebody lives whom no message reaches.
#[test]
fn nobody_votes_who_was_never_heard() {
    let mut hall = Hall { deaf: [2, 3].into(), ..Hall::default() };
    hall.start(1);
    hall.pass(5_000);
    assert_eq!(hall.put(1, 1), Some(Ok(())));
    assert_eq!(hall.voters(1), [1]);
    for node in [2, 3] {
        hall.start(node);
    }
    hall.pass(5_000);
    assert_eq!(hall.voters(1), [1, 2, 3]);
}
