//! Planted bugs: what proves that the promises can be seen to break. Those of the world are here,
//! those of the brain in [`rialto_protocol::plant`]; nothing but the simulator switches them on.

use rialto_protocol::plant::Plant as Brained;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Now and then a disk says that a commit is durable, and it is not.
    ForgetCommits,
    /// A driver says that its machine has twice the room that it has.
    BoastRoom,
    /// Executors do not stop what they are told to stop.
    IgnoreStops,
    /// Executors do not find what earlier lives of the daemon left behind.
    BlindExecutors,
    /// Nobody ends a task when its lease ends.
    EndlessLeases,
    /// The brain itself is wrong.
    Brain(Brained),
}

/// Every plant: its name, the plant, the invariant that must catch it, and what it does.
pub const PLANTS: [(&str, Plant, &str, &str); 29] = [
    ("boast-room", Plant::BoastRoom, "capacity", "a driver says that its machine has twice its room"),
    ("blind-executors", Plant::BlindExecutors, "room-freed-last", "executors do not find what earlier lives left"),
    ("free-room-early", Plant::Brain(Brained::FreeRoomEarly), "capacity", "room is free when a stop is ordered"),
    ("end-early", Plant::Brain(Brained::EndEarly), "room-freed-last", "a claim ends when its stop is ordered"),
    ("answer-early", Plant::Brain(Brained::AnswerEarly), "acknowledged-kept", "a change is answered before it is kept"),
    ("forget-commits", Plant::ForgetCommits, "owners-only", "a disk says that a commit is durable, and it is not"),
    (
        "rewrite-on-restart",
        Plant::Brain(Brained::RewriteOnRestart),
        "owners-only",
        "a peer that starts uses its last number again",
    ),
    ("ignore-stops", Plant::IgnoreStops, "settles", "executors do not stop what they are told to"),
    ("keep-duplicates", Plant::Brain(Brained::KeepDuplicates), "settles", "of two live copies of a task both stay"),
    ("revive-ended", Plant::Brain(Brained::ReviveEnded), "no-resurrection", "ended claims live when a peer starts"),
    (
        "forget-finished",
        Plant::Brain(Brained::ForgetFinished),
        "finished-stays-finished",
        "finished work is dropped and not looked up",
    ),
    ("jump-gaps", Plant::Brain(Brained::JumpGaps), "convergence", "a frame after a gap counts as if it joined"),
    ("drop-unknown", Plant::Brain(Brained::DropUnknown), "convergence", "records of unknown kinds are not kept"),
    (
        "trust-unverified",
        Plant::Brain(Brained::TrustUnverified),
        "owners-only",
        "what is signed wrongly is taken all the same",
    ),
    ("jump-the-queue", Plant::Brain(Brained::JumpTheQueue), "priority-order", "free room goes to what comes last"),
    (
        "start-half-gangs",
        Plant::Brain(Brained::StartHalfGangs),
        "gang-atomic",
        "a gang's tasks do not wait for the others",
    ),
    ("need-a-majority", Plant::Brain(Brained::NeedMajority), "survivors", "a minority places nothing"),
    (
        "keep-subnet",
        Plant::Brain(Brained::KeepSubnet),
        "addresses-apart",
        "of two machines with one subnet both keep it",
    ),
    ("trust-through", Plant::Brain(Brained::TrustThrough), "settles", "what others call complete is believed"),
    ("numbers-alone", Plant::Brain(Brained::NumbersAlone), "settles", "what is held is not compared, numbers are"),
    (
        "forget-volumes",
        Plant::Brain(Brained::ForgetVolumes),
        "volumes-pinned",
        "tasks are placed wherever there is room, whatever volumes they have",
    ),
    ("jump-gates", Plant::Brain(Brained::JumpGates), "graph-order", "a service starts whatever it waits for"),
    (
        "forget-instants",
        Plant::Brain(Brained::ForgetInstants),
        "instants-run",
        "instants that come while there is no steward are never run",
    ),
    (
        "hush-overlaps",
        Plant::Brain(Brained::HushOverlaps),
        "instants-run",
        "what ran twice at one instant is not written down",
    ),
    ("roll-all-at-once", Plant::Brain(Brained::RollAllAtOnce), "rollout-spares", "a change ends all tasks at once"),
    (
        "hold-changes",
        Plant::Brain(Brained::HoldChanges),
        "rollout-ends",
        "a change waits for a word after its first task, though nobody asked it to",
    ),
    ("endless-leases", Plant::EndlessLeases, "strict-apart", "nobody ends a task when its lease ends"),
    (
        "start-unleased",
        Plant::Brain(Brained::StartUnleased),
        "strict-apart",
        "a task starts without what it needs of the lock group",
    ),
    ("anyone-stops", Plant::Brain(Brained::AnyoneStops), "stewards-only", "a claim ends on anybody's word"),
];

impl Plant {
    /// The plant of this name.
    pub fn named(name: &str) -> Option<Self> {
        PLANTS.iter().find(|(known, ..)| *known == name).map(|(_, plant, ..)| *plant)
    }
}
