//! Switches that nothing but the simulator throws: bugs that are planted in a brain, each to be
//! caught by one of the simulator's invariants, and the speech of a later version.
//!
//! A brain has none of them unless [`crate::Brain::plant`] is called, and no driver calls it.

/// One switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// No bug: the peer speaks as a later version might, with fields and kinds that are not known.
    LaterVersion,
    /// A change is answered before it is durable anywhere.
    AnswerEarly,
    /// A peer that starts uses the number of its last record again.
    RewriteOnRestart,
    /// The room of a claim is free as soon as its stop is ordered.
    FreeRoomEarly,
    /// A claim is said to have ended as soon as its stop is ordered.
    EndEarly,
    /// Of two live claims of one task both stay.
    KeepDuplicates,
    /// When a peer starts, claims that have ended are said to run.
    ReviveEnded,
    /// Finished claims are dropped at once, and outcomes are not looked at.
    ForgetFinished,
    /// A frame after a gap moves `complete` as if it joined.
    JumpGaps,
    /// Records of kinds that are not known are passed over.
    DropUnknown,
    /// A message counts whoever signed it.
    TrustUnverified,
    /// Free room is offered to what waits from its end.
    JumpTheQueue,
    /// The tasks of a gang start as they are claimed.
    StartHalfGangs,
    /// A steward that sees no majority of the members places nothing.
    NeedMajority,
    /// Of two machines with one subnet both keep it.
    KeepSubnet,
    /// What another says to be complete is held for complete.
    TrustThrough,
    /// Ledgers are compared by their numbers, and not by what they hold.
    NumbersAlone,
    /// A claim ends on the word of whoever says so.
    AnyoneStops,
    /// Where volumes lie is forgotten when tasks are placed.
    ForgetVolumes,
    /// A task starts without what it needs of the lock group.
    StartUnleased,
    /// A service starts whatever it waits for.
    JumpGates,
    /// A changed service's tasks are all ended at once.
    RollAllAtOnce,
    /// A changed service waits for a word after its first task, though nobody asked it to.
    HoldChanges,
    /// What ran twice at one instant is not written down.
    HushOverlaps,
    /// Instants that come while there is no steward are never run.
    ForgetInstants,
}
