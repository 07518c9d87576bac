//! Checks the signatures in a message: pure, and costly (some 40 µs each), so it is called off the
//! brain's thread and only for what is news.

use std::collections::HashSet;
use std::sync::Arc;

use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{Signature, Stored};
use rialto_protocol::wire::Message;

use crate::identity::Identity;

/// Whether every signature in the message is its owner's. True where there is none.
pub fn verify(message: &Message) -> bool {
    match message {
        Message::Frame(frame) => frame.is_sound() && Identity::verify(&frame.owner, &frame.signed(), &frame.signature),
        Message::Records(answer) => proved(&answer.records),
        Message::Keep { records, .. } | Message::Told(records) => proved(records),
        Message::Vitals(all) => all.iter().all(|one| Identity::verify(&one.owner, &one.signed(), &one.signature)),
        Message::Heartbeat { .. }
        | Message::Compare { .. }
        | Message::Digest { .. }
        | Message::Pull { .. }
        | Message::Prune
        | Message::Have(_)
        | Message::Graft { .. }
        | Message::Want(_)
        | Message::Kept { .. }
        | Message::Solicit(_)
        | Message::Bid(_)
        | Message::Move { .. }
        | Message::Decline(_)
        | Message::Release(_)
        | Message::Award(_)
        | Message::Verdict(_)
        | Message::Offer(_)
        | Message::Go { .. }
        | Message::Stop { .. }
        | Message::Unfreeze => true,
    }
}

/// Whether every record is proved. Records of one frame share a signature, which is checked once.
pub fn proved(records: &[Arc<Stored>]) -> bool {
    let mut seen: HashSet<(PeerId, [u8; 32], [u8; 64])> = HashSet::new();
    records.iter().all(|stored| {
        let (owner, signed) = (stored.record.owner, stored.signed());
        let Signature(signature) = stored.proof.signature;
        seen.contains(&(owner, signed, signature))
            || (Identity::verify(&owner, &signed, &stored.proof.signature) && seen.insert((owner, signed, signature)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::ledger::record::{Draft, Entry, Frame, Kind, Record, RecordKey, SCHEMA};
    use rialto_protocol::model::Vitals;
    use rialto_protocol::wire::{Records, SignedVitals, vitals_to_sign};

    fn sealed(owner: &Identity, count: u64) -> (Frame, Vec<Arc<Stored>>) {
        let record = |seq: u64| {
            let key = RecordKey { kind: Kind::EVENT, id: seq.to_string().into() };
            Arc::new(Record { owner: owner.peer(), key, seq, stamp: 0, schema: SCHEMA, value: Some(vec![1; 50]) })
        };
        let draft = Draft { owner: owner.peer(), prev: 0, records: (1..=count).map(record).collect() };
        let signature = owner.sign(&draft.to_sign());
        draft.seal(signature)
    }

    #[test]
    fn a_forged_record_spoils_its_message() {
        let owner = Identity::from_secret([1; 32]);
        let (frame, stored) = sealed(&owner, 5);
        let records = |records: Vec<Arc<Stored>>| {
            Message::Records(Records {
                owner: owner.peer(),
                after: 0,
                through: 5,
                replaces_below: 0,
                records,
                more: false,
                cut: false,
            })
        };
        assert!(verify(&Message::Frame(Arc::new(frame.clone()))));
        assert!(verify(&records(stored.clone())));
        assert!(verify(&Message::Told(stored.clone())));
        assert!(verify(&Message::Keep { token: 1, records: stored.clone() }));

        let mut changed = frame.clone();
        let Entry::Whole(record) = &mut changed.entries[2] else { panic!("small records are whole") };
        Arc::make_mut(record).value = Some(vec![2; 50]);
        assert!(!verify(&Message::Frame(Arc::new(changed))));
        let mut shifted = frame;
        shifted.prev = 9;
        assert!(!verify(&Message::Frame(Arc::new(shifted))));

        let mut forged = stored.clone();
        Arc::make_mut(&mut Arc::make_mut(&mut forged[4]).record).value = None;
        assert!(!verify(&records(forged.clone())));
        assert!(!verify(&Message::Told(forged)));
        let mut resigned = stored;
        Arc::make_mut(&mut resigned[4]).proof.signature = Signature([0; 64]);
        assert!(!verify(&records(resigned)), "a proof with another signature than its neighbours' is checked too");
    }

    #[test]
    fn vitals_are_their_owners() {
        let owner = Identity::from_secret([1; 32]);
        let vitals =
            Vitals { started: 1, counter: 2, at: 3, used: Default::default(), load_millis: 4, images: Vec::new() };
        let signature = owner.sign(&vitals_to_sign(&owner.peer(), &vitals));
        let signed = SignedVitals::new(owner.peer(), vitals.clone(), signature);
        let forged = SignedVitals::new(owner.peer(), Vitals { load_millis: 0, ..vitals }, signature);
        assert!(verify(&Message::Vitals(vec![Arc::new(signed.clone())])));
        assert!(!verify(&Message::Vitals(vec![Arc::new(signed), Arc::new(forged)])));
        assert!(verify(&Message::Heartbeat { life: 1, clock: Default::default() }));
    }
}
