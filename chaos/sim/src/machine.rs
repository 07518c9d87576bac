//! One virtual machine: its brain, its disk, its containers and its clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rialto_protocol::event::Description;
use rialto_protocol::ids::{ChangeId, ClusterId, PeerId};
use rialto_protocol::ledger::record::Stored;
use rialto_protocol::model::Resources;
use rialto_protocol::model::machine::Executor;
use rialto_protocol::{Brain, Config, Event, Now};

use crate::dice::Dice;
use crate::disk::Disk;
use crate::executor::VirtualExecutor;
use crate::hostile::Hostile;
use crate::leases::Keepers;

/// Of whose addresses tasks have theirs: few subnets, so that several machines take the same one now and then.
const RANGE: &str = "10.208.0.0/14";
/// Wall clock at the beginning of the virtual world, ms since 1970.
pub(super) const EPOCH_MS: i64 = 1_750_000_000_000;

/// Who asked a brain for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The machine's own driver, which waits for nothing.
    Driver,
    /// A newcomer's invitation.
    Invitation { newcomer: usize, secret_hash: [u8; 32], invitation: [u8; 16] },
    /// A newcomer at `hello`.
    Hello { newcomer: usize },
    /// Somebody outside, under a ticket; the change that is asked for.
    Outside { ticket: u64, change: Option<ChangeId> },
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    pub id: PeerId,
    pub name: String,
    /// `None`: the daemon does not run.
    pub brain: Option<Brain>,
    /// Counts lives of the daemon: what was meant for an earlier one is dropped.
    pub process: u64,
    /// Counts lives of the machine: its containers belong to one.
    pub boot: u64,
    /// It is a member, with a chain of admissions.
    pub joined: bool,
    /// It will never come back.
    pub dead: bool,
    /// An administrator has ordered that it is a member no more.
    pub departed: bool,
    /// It belongs to somebody else now, and says what it likes.
    pub hostile: Option<Hostile>,
    /// It runs a later version: its records and fields are not all known to the others.
    pub later: bool,
    pub paused: bool,
    /// What came while it was paused.
    pub waiting: VecDeque<Event>,
    pub wall_offset_ms: i64,
    /// How much too fast its clocks run, millionths.
    pub drift_ppm: i64,
    pub disk: Disk,
    /// Nothing more can be written.
    pub full: bool,
    /// There is hardly any room left on it: enough for the ledger, and not for tasks.
    pub short: bool,
    /// The disk as it was once.
    pub snapshot: Option<Disk>,
    /// When its disk was last lost, or put back to an earlier state, ms of the world.
    pub disk_lost_ms: Option<u64>,
    pub executor: VirtualExecutor,
    /// Of leases that the daemon keeps.
    pub keepers: Keepers,
    /// The machines that may speak to this one.
    pub members: BTreeSet<usize>,
    /// The machines that this one keeps links with.
    pub wants: BTreeSet<usize>,
    pub capacity: Resources,
    pub labels: BTreeMap<String, String>,
    /// What the driver tells of it, where it is not a machine like all others.
    pub own: Option<Description>,
    /// The images that it has.
    pub images: Vec<String>,
    pub chain: Vec<Arc<Stored>>,
    pub founding: Option<[u8; 16]>,
    /// The commit that is under way: there is one at most.
    pub commit: Option<u64>,
    pub asked: BTreeMap<u64, Asker>,
    pub next_request: u64,
    /// When the machine was switched on, µs of the world: its monotonic clock counts from there.
    pub booted_us: u64,
    /// The deadline that a wake-up is scheduled for, ms of the daemon's clock.
    pub armed: Option<u64>,
    /// Wake-ups in a row within one millisecond.
    pub spins: u32,
    seed: u64,
}

impl Machine {
    /// A machine that has never run.
    pub fn new(seed: u64, at: usize, dice: &mut Dice) -> Self {
        let gib = 1 << 30;
        Self {
            id: PeerId(dice.bytes()),
            name: format!("m{at}"),
            brain: None,
            process: 0,
            boot: 0,
            joined: false,
            dead: false,
            departed: false,
            hostile: None,
            later: false,
            paused: false,
            waiting: VecDeque::new(),
            wall_offset_ms: 0,
            drift_ppm: 0,
            disk: Disk::default(),
            full: false,
            short: false,
            snapshot: None,
            disk_lost_ms: None,
            executor: VirtualExecutor::new(seed, at),
            keepers: Keepers::default(),
            members: BTreeSet::new(),
            wants: BTreeSet::new(),
            capacity: Resources::of(4_000, 8 * gib),
            labels: BTreeMap::from([("rack".into(), format!("r{}", at % 3))]),
            own: None,
            images: Vec::new(),
            chain: Vec::new(),
            founding: None,
            commit: None,
            asked: BTreeMap::new(),
            next_request: 0,
            booted_us: 0,
            armed: None,
            spins: 0,
            seed: dice.number(),
        }
    }

    /// Whether the daemon runs.
    pub fn is_up(&self) -> bool {
        self.brain.is_some()
    }

    /// Whether the daemon runs and answers.
    pub fn answers(&self) -> bool {
        self.is_up() && !self.paused
    }

    /// Whether it is an honest member that answers: one that people turn to, and that is held to the promises.
    pub fn serves(&self) -> bool {
        self.answers() && !self.departed
    }

    /// Whether it is to be an honest member when all is well again.
    pub fn belongs(&self) -> bool {
        !self.dead && !self.departed && self.hostile.is_none()
    }

    /// What this machine's clocks show at `world_us`.
    pub fn now(&self, world_us: u64) -> Now {
        Now { ms: self.drifted(world_us.saturating_sub(self.booted_us)) / 1000, wall: self.wall(world_us) }
    }

    /// The wall clock, ms since 1970.
    pub fn wall(&self, world_us: u64) -> u64 {
        (EPOCH_MS + (self.drifted(world_us) / 1000) as i64 + self.wall_offset_ms) as u64
    }

    /// Has the wall clock show `wall` at `world_us`.
    pub fn set_wall(&mut self, world_us: u64, wall: u64) {
        self.wall_offset_ms = wall as i64 - EPOCH_MS - (world_us / 1000) as i64;
    }

    /// The time of the world, µs, at which the daemon's clock shows `ms`.
    pub fn world_us(&self, ms: u64) -> u64 {
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let passed = (u128::from(ms) * 1_000_000_000).div_ceil(rate);
        self.booted_us.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// What the machine's crystal makes of so many µs.
    fn drifted(&self, us: u64) -> u64 {
        (u128::from(us) * (1_000_000 + self.drift_ppm) as u128 / 1_000_000) as u64
    }

    /// What the brain is made with.
    pub fn config(&self, cluster: ClusterId, minority_hold_ms: Option<u64>) -> Config {
        Config {
            me: self.id,
            cluster,
            founding: self.founding,
            chain: self.chain.clone(),
            // Each life has other dice: a brain must not lean on drawing the same again.
            seed: self.seed ^ self.process,
            minority_hold_ms,
        }
    }

    /// What the driver tells the brain about the machine.
    pub fn description(&self) -> Description {
        self.own.clone().unwrap_or_else(|| Description {
            name: self.name.clone(),
            addresses: vec![format!("10.0.0.{}:7400", self.name.trim_start_matches('m'))],
            labels: self.labels.clone(),
            capacity: self.capacity.clone(),
            allows: Vec::new(),
            version: "0.1.0".into(),
            executor: Executor::Null,
            network: RANGE.parse().ok(),
        })
    }
}
