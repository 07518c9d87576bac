//! Bugs on purpose, which the simulator switches on to see that it finds them. No driver makes that call.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Reads are answered at once, from whatever this replica has applied.
    StaleRead,
    /// The leader ends leases after half their time.
    DoubleGrant,
    /// A renewal is granted by whoever believes to lead, without asking the others.
    BlindRenewal,
    /// Messages go out before what they promise is written down.
    HastyPromise,
}

impl Plant {
    pub const ALL: [Plant; 4] = [Plant::StaleRead, Plant::DoubleGrant, Plant::BlindRenewal, Plant::HastyPromise];

    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Plant::StaleRead => "stale-read",
            Plant::DoubleGrant => "double-grant",
            Plant::BlindRenewal => "blind-renewal",
            Plant::HastyPromise => "hasty-promise",
        }
    }
}
