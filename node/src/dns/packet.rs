//! A question as it lies in a datagram: enough of it to know an answer again that was given a moment ago.

/// Bytes before the question (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// The longest name (RFC 1035, 3.1).
const NAME_MAX: usize = 255;
/// An OPT record with nothing in it: root, type, class, TTL, length (RFC 6891, 6.1).
const OPT: usize = 11;
/// What passes every network in one piece (DNS flag day 2020).
pub const UDP_BYTES_MAX: u16 = 1232;
/// What everybody takes (RFC 1035, 4.2.1).
pub const PLAIN_BYTES_MAX: u16 = 512;

/// A usual question: one, with an OPT record or without.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    /// Where the question ends.
    end: usize,
    /// What the asker takes over UDP, where it says so.
    payload: Option<u16>,
}

impl<'a> Packet<'a> {
    /// `None` where it is anything but usual: whoever takes care looks at it then.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let counts = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        // A query (no response, opcode 0), one question, no answers, at most one additional record.
        if bytes.len() < HEADER + 5 || bytes[2] & 0xf8 != 0 || counts(4) != 1 || counts(6) != 0 || counts(8) != 0 {
            return None;
        }
        let mut at = HEADER;
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1;
            match length {
                0 => break,
                // Pointers have no place in a question.
                1..=63 => at += length,
                _ => return None,
            }
            if at - HEADER > NAME_MAX {
                return None;
            }
        }
        let end = at + 4;
        let rest = bytes.get(end..)?;
        let payload = match counts(10) {
            0 if rest.is_empty() => None,
            1 if rest.len() >= OPT && rest[..3] == [0, 0, 41] && rest[6] == 0 => {
                let options = usize::from(u16::from_be_bytes([rest[9], rest[10]]));
                (rest.len() == OPT + options).then_some(Some(u16::from_be_bytes([rest[3], rest[4]])))?
            }
            _ => return None,
        };
        Some(Self { bytes, end, payload })
    }

    /// The most bytes of an answer.
    pub fn room(&self) -> u16 {
        self.payload.map_or(PLAIN_BYTES_MAX, |payload| payload.clamp(PLAIN_BYTES_MAX, UDP_BYTES_MAX))
    }

    /// What two questions share that have one answer: name without case, type and class, and how much is taken.
    pub fn key(&self, key: &mut Vec<u8>) {
        key.clear();
        // Lengths of labels are below any letter, and types are told by the end.
        key.extend(self.bytes[HEADER..self.end - 4].iter().map(u8::to_ascii_lowercase));
        key.extend_from_slice(&self.bytes[self.end - 4..self.end]);
        key.extend_from_slice(&self.room().to_be_bytes());
        key.push(u8::from(self.payload.is_some()));
    }

    /// Makes a given answer this question's: with its number, its wish for recursion and its capitals.
    pub fn address(&self, answer: &mut [u8]) {
        if answer.len() >= self.end {
            answer[..2].copy_from_slice(&self.bytes[..2]);
            answer[2] = answer[2] & !1 | self.bytes[2] & 1;
            answer[HEADER..self.end].copy_from_slice(&self.bytes[HEADER..self.end]);
        }
    }

    /// Where the answer's own records begin.
    pub fn end(&self) -> usize {
        self.end
    }
}

/// Answers of one length each, behind each other: what can be given in turn without being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    from: usize,
    step: usize,
    count: usize,
}

impl Turns {
    /// Those of an answer whose question ends at `end`. None, where the records differ in more than their data, or
    /// name anything but the question.
    pub fn of(answer: &[u8], end: usize) -> Self {
        // A pointer to the question's name, the type, class, TTL, and the length of an address.
        const FIXED: usize = 12;
        let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
        let Some(first) = answer.get(end..end + FIXED) else { return Self::default() };
        let step = match first[10..12] {
            [0, 4] => FIXED + 4,
            [0, 16] => FIXED + 16,
            _ => return Self::default(),
        };
        let Some(records) = answer.get(end..end + count * step) else { return Self::default() };
        let alike = records.chunks(step).all(|one| one[..FIXED] == *first && one[..2] == [0xc0, 12]);
        if count > 1 && alike { Self { from: end, step, count } } else { Self::default() }
    }

    /// Begins with another one.
    pub fn turn(&self, answer: &mut [u8], turn: usize) {
        if self.count > 1 {
            let end = self.from + self.step * self.count;
            answer[self.from..end].rotate_left(turn % self.count * self.step);
        }
    }

    /// Begins with the first, where it was given at this turn.
    pub fn undo(&self, answer: &mut [u8], turn: usize) {
        if self.count > 1 {
            self.turn(answer, self.count - turn % self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    use hickory_proto::op::{Edns, Message, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            query.set_edns(edns);
        }
        query.to_vec().unwrap()
    }

    #[test]
    fn one_question_in_other_capitals_is_the_same() {
        let key = |bytes: &[u8]| {
            let mut key = Vec::new();
            Packet::read(bytes).unwrap().key(&mut key);
            key
        };
        let one = question("web.shop.rialto.internal.", RecordType::A, None);
        assert_eq!(key(&one), key(&question("WEB.Shop.rialto.internal.", RecordType::A, None)));
        assert_ne!(key(&one), key(&question("web.shop.rialto.internal.", RecordType::SRV, None)));
        let large = question("web.shop.rialto.internal.", RecordType::A, Some(4096));
        assert_ne!(key(&one), key(&large));
        assert_eq!((Packet::read(&one).unwrap().room(), Packet::read(&large).unwrap().room()), (512, 1232));
    }

    #[test]
    fn what_is_unusual_is_left_to_who_takes_care() {
        let sound = question("a.rialto.internal.", RecordType::A, Some(1232));
        for length in 0..sound.len() {
            assert_eq!(Packet::read(&sound[..length]), None, "{length} bytes");
        }
        for (at, byte) in [(2, 0x80), (2, 0x10), (5, 2), (7, 1), (11, 2), (12, 0xc0)] {
            let mut other = sound.clone();
            other[at] = byte;
            assert_eq!(Packet::read(&other), None, "byte {at} is {byte}");
        }
    }

    /// Whatever is thrown at it, and whatever answer is at hand: neither is read beyond its end.
    #[test]
    fn mutilated_questions_are_read_or_left() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let name = Name::from_str("web.shop.rialto.internal.").unwrap();
        let mut answer = Message::from_vec(&question("web.shop.rialto.internal.", RecordType::A, None)).unwrap();
        for last in 1..=3 {
            answer.add_answer(Record::from_rdata(name.clone(), 1, RData::A(A::new(10, 0, 0, last))));
        }
        let answer = answer.to_vec().unwrap();
        let sound = [
            question("web.shop.rialto.internal.", RecordType::A, None),
            question("_http._tcp.web.shop.rialto.internal.", RecordType::SRV, Some(4096)),
            answer.clone(),
        ];
        let (mut usual, mut others) = (0, 0);
        for _ in 0..200_000 {
            let mut bytes = sound[random(sound.len())].clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                match random(5) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    // A pointer, most often to where it leads in a circle.
                    2 => bytes[at] = 0xc0,
                    3 => bytes.truncate(at.max(1)),
                    _ => bytes.extend_from_within(at..),
                }
            }
            let Some(packet) = Packet::read(&bytes) else {
                others += 1;
                continue;
            };
            usual += 1;
            let mut key = Vec::new();
            packet.key(&mut key);
            assert!(key.len() <= NAME_MAX + 8, "{bytes:?}");
            assert!((PLAIN_BYTES_MAX..=UDP_BYTES_MAX).contains(&packet.room()), "{bytes:?}");
            let mut given = answer.clone();
            packet.address(&mut given);
            assert_eq!(given.len(), answer.len());
            Turns::of(&given, packet.end()).turn(&mut given, random(usize::MAX));
            assert_eq!(given.len(), answer.len());
        }
        assert!(usual > 1_000 && others > 1_000, "{usual} were usual, {others} were not");
    }

    #[test]
    fn addresses_are_given_in_turn() {
        let name = Name::from_str("web.shop.rialto.internal.").unwrap();
        let asked = question("WEB.shop.rialto.internal.", RecordType::A, None);
        let mut answer = Message::from_vec(&question("web.shop.rialto.internal.", RecordType::A, None)).unwrap();
        for last in 1..=3 {
            answer.add_answer(Record::from_rdata(name.clone(), 1, RData::A(A::new(10, 0, 0, last))));
        }
        let bytes = answer.to_vec().unwrap();
        let packet = Packet::read(&asked).unwrap();
        let turns = Turns::of(&bytes, packet.end());
        for (turn, first) in [(0, 1), (1, 2), (2, 3), (3, 1)] {
            let mut given = bytes.clone();
            packet.address(&mut given);
            turns.turn(&mut given, turn);
            let read = Message::from_vec(&given).unwrap();
            assert_eq!(read.answers[0].data.to_string(), format!("10.0.0.{first}"));
            turns.undo(&mut given, turn);
            assert_eq!(Message::from_vec(&given).unwrap().answers[0].data.to_string(), "10.0.0.1");
            turns.turn(&mut given, turn);
            assert_eq!((read.answers.len(), read.metadata.id), (3, Message::from_vec(&asked).unwrap().metadata.id));
            assert_eq!(given[12..packet.end()], asked[12..packet.end()]);
        }
        assert_eq!(Turns::of(&asked, packet.end()), Turns::default());
    }
}
