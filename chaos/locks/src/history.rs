//! What clients did, and what they were told.

/// What was done to a key whose value is a number; 0: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Write(u64),
    Read(u64),
    /// If it was the first it becomes the second; whether it did.
    Swap(u64, u64, bool),
}

/// One act. Whoever was told nothing certain does not know whether it was done, or when: it has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    pub begun: u64,
    pub ended: Option<u64>,
    pub act: Act,
}

impl Act {
    /// The value that was there before it, where its answer tells.
    pub fn sees(self) -> Option<u64> {
        match self {
            Act::Read(seen) => Some(seen),
            Act::Swap(old, ..) => Some(old),
            Act::Write(_) => None,
        }
    }

    /// The value that it may leave.
    pub fn leaves(self) -> Option<u64> {
        match self {
            Act::Write(new) | Act::Swap(_, new, _) => Some(new),
            Act::Read(_) => None,
        }
    }

    /// What the value is afterwards, if this is what the act comes to on `value`. `known`: its answer is.
    pub fn on(self, value: u64, known: bool) -> Option<u64> {
        match self {
            Act::Write(new) => Some(new),
            Act::Read(seen) => (seen == value).then_some(value),
            Act::Swap(old, new, _) if !known => Some(if old == value { new } else { value }),
            Act::Swap(old, new, done) => {
                let does = old == value;
                (does == done).then_some(if does { new } else { value })
            }
        }
    }
}
