//! The yardstick: SWIM with suspicion, by the crate `foca`, in its own settings for local networks.
//!
//! `foca` is the wire, the timers and the members here as anywhere; this file only carries its
//! datagrams and calls it back. (Of Lifeguard, foca 2.0 has nothing: it multiplies no patience by its
//! own health, and suspicion lasts as long however many confirm it.)

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{Config, Foca, Identity, Member, NoCustomBroadcast, Notification, PostcardCodec, Runtime, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::air::Air;
use crate::detector::{Detector, Down};
use crate::queue::Queue;

/// What the kernel keeps for a process that does not read: some 200 KiB.
const DATAGRAMS_MAX: usize = 150;

/// A machine's number, and how often it has come back after it was held for down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Name {
    machine: u32,
    generation: u32,
}

impl Identity for Name {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation + 1, ..*self })
    }

    fn addr(&self) -> u32 {
        self.machine
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

fn name(machine: usize) -> Name {
    Name { machine: machine as u32, generation: 0 }
}

type Swim = Foca<Name, PostcardCodec, SmallRng, NoCustomBroadcast>;

struct Node {
    /// `None`: it is dead.
    swim: Option<Swim>,
    paused: bool,
    datagrams: Vec<Vec<u8>>,
    timers: Vec<Timer<Name>>,
    down: BTreeSet<usize>,
}

enum Happening {
    Begin { machine: usize },
    Datagram { to: usize, bytes: Vec<u8> },
    Timer { machine: usize, timer: Timer<Name> },
    Resume { machine: usize },
}

/// What one call of foca wants done.
#[derive(Default)]
struct Wanted {
    datagrams: Vec<(usize, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Name>)>,
    /// Members, and whether they are down.
    seen: Vec<(usize, bool)>,
}

impl Runtime<Name> for Wanted {
    fn notify(&mut self, notification: Notification<'_, Name>) {
        match notification {
            Notification::MemberUp(name) => self.seen.push((name.machine as usize, false)),
            Notification::MemberDown(name) => self.seen.push((name.machine as usize, true)),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Name, data: &[u8]) {
        self.datagrams.push((to.machine as usize, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Name>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// A cluster of foca.
pub struct Cluster {
    queue: Queue<Happening>,
    air: Air,
    nodes: Vec<Node>,
    downs: Vec<Down>,
    datagrams: u64,
}

impl Cluster {
    pub fn new(machines: usize, seed: u64) -> Self {
        let size = NonZeroU32::new(machines as u32).expect("a cluster has machines");
        let node = |machine: usize| {
            let rng = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(machine as u64));
            let swim = Some(Foca::new(name(machine), Config::new_lan(size), rng, PostcardCodec));
            Node { swim, paused: false, datagrams: Vec::new(), timers: Vec::new(), down: BTreeSet::new() }
        };
        let mut cluster = Self {
            queue: Queue::new(),
            air: Air::new(machines, seed, "datagrams"),
            nodes: (0..machines).map(node).collect(),
            downs: Vec::new(),
            datagrams: 0,
        };
        for machine in 0..machines {
            // In step with each other they would be kinder or crueller to the network than real ones.
            let at_us = cluster.queue.now_us() + cluster.air.dice.below(1_000_000);
            cluster.queue.schedule(at_us, Happening::Begin { machine });
        }
        cluster
    }

    /// A machine comes to know all others.
    fn begin(&mut self, machine: usize) {
        let all = 0..self.nodes.len();
        let others = all.filter(|other| *other != machine).map(|other| Member::alive(name(other)));
        self.call(machine, |swim, wanted| swim.apply_many(others, false, wanted));
    }

    /// Calls one machine's foca, and does what it wants.
    fn call(&mut self, machine: usize, call: impl FnOnce(&mut Swim, &mut Wanted) -> Result<(), foca::Error>) {
        let Some(swim) = self.nodes[machine].swim.as_mut() else { return };
        let mut wanted = Wanted::default();
        // What it refuses is a datagram of one that it holds for down: it says so to the sender itself.
        let _ = call(swim, &mut wanted);
        let now_us = self.queue.now_us();
        for (of, is_down) in wanted.seen {
            if !is_down {
                self.nodes[machine].down.remove(&of);
            } else if self.nodes[machine].down.insert(of) {
                self.downs.push(Down { at_us: now_us, by: machine, of });
            }
        }
        for (after, timer) in wanted.timers {
            self.queue.schedule(now_us + after.as_micros() as u64, Happening::Timer { machine, timer });
        }
        for (to, bytes) in wanted.datagrams {
            self.datagrams += 1;
            if !self.air.loses(to) {
                let at_us = now_us + self.air.delay_us();
                self.queue.schedule(at_us, Happening::Datagram { to, bytes });
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Begin { machine } => self.begin(machine),
            Happening::Datagram { to, bytes } if self.nodes[to].paused => {
                let kept = &mut self.nodes[to].datagrams;
                if kept.len() < DATAGRAMS_MAX {
                    kept.push(bytes);
                }
            }
            Happening::Datagram { to, bytes } => self.call(to, |swim, wanted| swim.handle_data(&bytes, wanted)),
            Happening::Timer { machine, timer } if self.nodes[machine].paused => self.nodes[machine].timers.push(timer),
            Happening::Timer { machine, timer } => {
                self.call(machine, |swim, wanted| swim.handle_timer(timer, wanted));
            }
            Happening::Resume { machine } => self.resume(machine),
        }
    }

    fn resume(&mut self, machine: usize) {
        let node = &mut self.nodes[machine];
        node.paused = false;
        let (datagrams, mut timers) = (std::mem::take(&mut node.datagrams), std::mem::take(&mut node.timers));
        // Its documentation asks that late timers be sorted.
        timers.sort();
        let timers_first = self.air.dice.chance(0.5);
        for timers_turn in [timers_first, !timers_first] {
            if timers_turn {
                for timer in timers.drain(..) {
                    self.call(machine, |swim, wanted| swim.handle_timer(timer, wanted));
                }
            } else {
                for bytes in &datagrams {
                    self.call(machine, |swim, wanted| swim.handle_data(bytes, wanted));
                }
            }
        }
    }
}

impl Detector for Cluster {
    fn now_us(&self) -> u64 {
        self.queue.now_us()
    }

    fn run_until(&mut self, until_us: u64) {
        while let Some(what) = self.queue.next(until_us) {
            self.happen(what);
        }
    }

    fn air(&mut self) -> &mut Air {
        &mut self.air
    }

    fn kill(&mut self, machine: usize) {
        self.nodes[machine].swim = None;
    }

    fn pause(&mut self, machine: usize, ms: u64) {
        if !std::mem::replace(&mut self.nodes[machine].paused, true) {
            let at_us = self.queue.now_us() + ms * 1000;
            self.queue.schedule(at_us, Happening::Resume { machine });
        }
    }

    fn holds_down(&self, by: usize, of: usize) -> bool {
        self.nodes[by].down.contains(&of)
    }

    fn downs(&mut self) -> Vec<Down> {
        std::mem::take(&mut self.downs)
    }

    fn links(&self) -> Option<(usize, f64, usize)> {
        None
    }

    fn costs(&self) -> Vec<(&'static str, u64)> {
        vec![("datagrams", self.datagrams)]
    }
}
