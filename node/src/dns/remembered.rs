//! What the machine's name servers said, for as long as they allow.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{LowerName, RData, RecordType};

use super::zone::{Answer, Question};

/// The most answers that are remembered.
const ANSWERS_MAX: usize = 4_096;
/// Nothing is remembered for longer, whatever its owner says.
const LONGEST: u32 = 3_600;
/// That there is nothing is remembered for no longer than this (RFC 2308, 5).
const LONGEST_DENIAL: u32 = 60;

/// Answers by question.
#[derive(Debug, Default)]
pub struct Remembered(HashMap<(LowerName, RecordType), Kept>);

#[derive(Debug)]
struct Kept {
    answer: Answer,
    since: Instant,
    seconds: u32,
}

impl Remembered {
    /// What was said, with what is left of its time.
    pub fn get(&self, question: &Question, now: Instant) -> Option<Answer> {
        let kept = self.0.get(&key(question))?;
        let age = u32::try_from(now.saturating_duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        if age >= kept.seconds {
            return None;
        }
        let mut answer = kept.answer.clone();
        for record in answer.answers.iter_mut().chain(&mut answer.authority).chain(&mut answer.additional) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    /// Takes note of an answer that may be kept.
    pub fn put(&mut self, question: &Question, answer: &Answer, now: Instant) {
        let seconds = seconds(answer);
        if seconds == 0 {
            return;
        }
        if self.0.len() >= ANSWERS_MAX {
            let fresh =
                |kept: &Kept| now.saturating_duration_since(kept.since) < Duration::from_secs(kept.seconds.into());
            self.0.retain(|_, kept| fresh(kept));
            if self.0.len() >= ANSWERS_MAX {
                self.0.clear();
            }
        }
        self.0.insert(key(question), Kept { answer: answer.clone(), since: now, seconds });
    }
}

fn key(question: &Question) -> (LowerName, RecordType) {
    (LowerName::new(&question.name), question.kind)
}

/// For how long: the shortest time of any of its records; of a denial what the zone's own record says (RFC 2308, 3).
fn seconds(answer: &Answer) -> u32 {
    match answer.code {
        ResponseCode::NoError if !answer.answers.is_empty() => {
            answer.answers.iter().map(|record| record.ttl).min().unwrap_or(0).min(LONGEST)
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let of = answer.authority.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            });
            of.unwrap_or(0).min(LONGEST_DENIAL)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{DNSClass, Name, Record};

    fn question(name: &str) -> Question {
        Question { name: Name::from_str(name).unwrap(), kind: RecordType::A, class: DNSClass::IN }
    }

    fn answer(code: ResponseCode, answers: Vec<Record>, authority: Vec<Record>) -> Answer {
        Answer { code, answers, authority, additional: vec![] }
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_no_longer() {
        let (mut known, now) = (Remembered::default(), Instant::now());
        let name = Name::from_str("example.org.").unwrap();
        let record = Record::from_rdata(name.clone(), 10, RData::A(A::new(192, 0, 2, 1)));
        known.put(&question("example.org."), &answer(ResponseCode::NoError, vec![record], vec![]), now);
        let later = known.get(&question("EXAMPLE.org."), now + Duration::from_secs(4)).unwrap();
        assert_eq!(later.answers[0].ttl, 6);
        assert_eq!(known.get(&question("example.org."), now + Duration::from_secs(10)), None);

        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 5);
        let denial = answer(ResponseCode::NXDomain, vec![], vec![Record::from_rdata(name, 900, RData::SOA(soa))]);
        known.put(&question("no.example.org."), &denial, now);
        assert!(known.get(&question("no.example.org."), now + Duration::from_secs(4)).is_some());
        assert!(known.get(&question("no.example.org."), now + Duration::from_secs(5)).is_none());
        known.put(&question("fail.example.org."), &answer(ResponseCode::ServFail, vec![], vec![]), now);
        assert!(known.get(&question("fail.example.org."), now).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut known, now) = (Remembered::default(), Instant::now());
        for n in 0..=ANSWERS_MAX {
            let name = format!("n{n}.example.");
            let record = Record::from_rdata(Name::from_str(&name).unwrap(), 60, RData::A(A::new(192, 0, 2, 1)));
            known.put(&question(&name), &answer(ResponseCode::NoError, vec![record], vec![]), now);
        }
        assert!(known.0.len() <= ANSWERS_MAX);
    }
}
