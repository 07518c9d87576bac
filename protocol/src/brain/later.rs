//! How a later version might speak: for the simulator, which has some peers speak so.

use crate::ledger::record::{Kind, RecordKey};

/// A kind that no version knows yet.
const NEW_KIND: Kind = Kind(200);
/// The CBOR head of a map of few fields is this and their number (RFC 8949, section 3).
const MAP: u8 = 0xa0;
const MAP_FIELDS_MAX: u8 = 23;

/// A value with one more field than this version knows; what is no map of few fields stays as it is.
pub(super) fn with_a_new_field(mut value: Vec<u8>) -> Vec<u8> {
    if let Some(head) = value.first_mut().filter(|head| (MAP..MAP + MAP_FIELDS_MAX).contains(*head)) {
        *head += 1;
        // "later": [1, null]
        value.extend([0x65, b'l', b'a', b't', b'e', b'r', 0x82, 0x01, 0xf6]);
    }
    value
}

/// The record of a kind that is not known here which goes with a record.
pub(super) fn new_record(kind: Kind, id: &str) -> RecordKey {
    let id = id.get(..2).unwrap_or(id);
    RecordKey { kind: NEW_KIND, id: format!("{}/{id}", kind.name()).into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PeerId;
    use crate::ledger::readings::Verdict;
    use crate::wire::{decode, encode};

    #[test]
    fn a_new_field_is_passed_over() {
        let verdict = Verdict { subject: PeerId([7; 32]), life: 3 };
        let later = with_a_new_field(encode(&verdict));
        assert_ne!(later, encode(&verdict));
        assert_eq!(decode::<Verdict>(&later).unwrap(), verdict);
    }
}
