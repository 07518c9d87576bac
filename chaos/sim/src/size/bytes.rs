//! How long a message is on the wire. Nothing is encoded to be sent: peers in one process share it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use rialto_protocol::ledger::record::Frame;
use rialto_protocol::wire::{self, Have, Message, SignedVitals};

/// What the mesh puts before each message.
const HEADER: usize = 4;
/// Lengths that are remembered; then all are forgotten.
const KNOWN_MAX: usize = 20_000;

/// Measures messages; what travels unchanged through many hands is measured once.
#[derive(Debug, Default)]
pub struct Scales {
    frames: HashMap<usize, (Arc<Frame>, usize)>,
    vitals: HashMap<usize, (Arc<SignedVitals>, usize)>,
    /// The last announcement, which goes over several links.
    have: Option<(Arc<Have>, usize)>,
    scratch: Counter,
}

#[derive(Debug, Default)]
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Scales {
    /// The bytes of a message with its header.
    pub fn weigh(&mut self, message: &Message) -> usize {
        if self.frames.len() + self.vitals.len() > KNOWN_MAX {
            self.frames.clear();
            self.vitals.clear();
        }
        HEADER
            + match message {
                Message::Frame(frame) => {
                    let at = Arc::as_ptr(frame) as usize;
                    if let Some((_, length)) = self.frames.get(&at) {
                        return HEADER + *length;
                    }
                    let length = self.encoded(message);
                    self.frames.insert(at, (frame.clone(), length));
                    length
                }
                Message::Have(have) => match &self.have {
                    Some((last, length)) if Arc::ptr_eq(last, have) => *length,
                    _ => {
                        let length = self.encoded(message);
                        self.have = Some((have.clone(), length));
                        length
                    }
                },
                // A map of one field, and a list of so many.
                Message::Vitals(all) => 10 + all.iter().map(|one| self.weigh_vitals(one)).sum::<usize>(),
                other => self.encoded(other),
            }
    }

    fn weigh_vitals(&mut self, one: &Arc<SignedVitals>) -> usize {
        let at = Arc::as_ptr(one) as usize;
        if let Some((_, length)) = self.vitals.get(&at) {
            return *length;
        }
        let length = self.encoded(one.as_ref());
        self.vitals.insert(at, (one.clone(), length));
        length
    }

    fn encoded<T: serde::Serialize>(&mut self, value: &T) -> usize {
        self.scratch.0 = 0;
        wire::encode_to(&mut self.scratch, value);
        self.scratch.0
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::ids::PeerId;
    use rialto_protocol::ledger::record::Signature;
    use rialto_protocol::model::Vitals;

    use super::*;

    #[test]
    fn the_weight_is_the_length_of_what_would_be_sent() {
        let mut scales = Scales::default();
        let vitals =
            Vitals { started: 1, counter: 2, at: 3, used: Default::default(), load_millis: 4, images: Vec::new() };
        let one = Arc::new(SignedVitals::new(PeerId([1; 32]), vitals, Signature([2; 64])));
        for message in [
            Message::Heartbeat {
                life: 7,
                clock: rialto_protocol::brain::Stamp(1_750_000_000_000, 1_000_000, Some((900_000, 400))),
            },
            Message::Pull { after: vec![(PeerId([1; 32]), 1)], on: false },
            Message::Vitals(vec![one.clone(), one]),
        ] {
            let length = wire::encode(&message).len() + HEADER;
            assert!(scales.weigh(&message).abs_diff(length) <= 4, "{message:?}");
            assert_eq!(scales.weigh(&message), scales.weigh(&message));
        }
    }
}
