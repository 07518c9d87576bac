//! What Compose has no words for: `x-rialto` of a service.

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::Node;
use super::{container, keys, kinds, schedule, service};
use crate::model::health::HealthCheck;
use crate::model::placement::{ENTRIES_MAX, OnHeal, Other, PRIORITY_MAX, TIME_MS_MAX};
use crate::model::{ServiceSpec, Singleton};

/// Reads `x-rialto`.
pub fn read(reader: &mut Reader, node: Node, path: &str, service: &mut ServiceSpec) {
    let Some(mut level) = reader.level(node, path, &keys::EXTENSION) else { return };
    if let Some(entry) = level.remove("priority") {
        let read = |text: &str| match text.parse::<i32>() {
            Ok(priority) if priority.abs() <= PRIORITY_MAX => Ok(priority),
            _ => Err(format!("'{}' is no priority from -{PRIORITY_MAX} to {PRIORITY_MAX}", shown(text))),
        };
        service.priority = reader.value(&entry.value, &join(path, "priority"), read).unwrap_or(0);
    }
    if let Some(entry) = level.remove("gang") {
        service.gang = reader.value(&entry.value, &join(path, "gang"), container::switch).unwrap_or(false);
    }
    if let Some(entry) = level.remove("singleton") {
        let read = |text: &str| match text {
            "strict" => Ok(Singleton::Strict),
            "no" | "false" => Ok(Singleton::No),
            other => Err(format!("'{}' is neither strict nor no", shown(other))),
        };
        service.singleton = reader.value(&entry.value, &join(path, "singleton"), read).unwrap_or_default();
    }
    if let Some(entry) = level.remove("pre_stop") {
        service.container.pre_stop = Some(service::command(reader, entry.value, &join(path, "pre_stop")));
    }
    if let Some(entry) = level.remove("health") {
        let (place, path) = (entry.value.place, join(path, "health"));
        let test = reader.value(&entry.value, &path, HealthCheck::address);
        let check = service.container.health.get_or_insert_default();
        if check.test.is_some() {
            reader.wrong(place, &path, "healthcheck.test says already what is to be tried");
        }
        check.test = test;
    }
    if let Some(entry) = level.remove("apart_from") {
        let path = join(path, "apart_from");
        let read = |text: &str| match Other::read("self", text) {
            Some(_) => Ok(text.to_string()),
            None => Err(format!("'{}' is neither SERVICE nor APP/SERVICE", shown(text))),
        };
        let items = reader.items(entry.value, &path, ENTRIES_MAX);
        service.placement.apart_from = items.iter().filter_map(|item| reader.value(item, &path, read)).collect();
    }
    if let Some(entry) = level.remove("schedule") {
        service.schedule = schedule::read(reader, entry.value, &join(path, "schedule"));
    }
    kinds::batch(reader, &mut level, path, service);
    if let Some(entry) = level.remove("canary") {
        let read = |text: &str| text.parse::<u32>().map_err(|_| format!("'{}' is no number of tasks", shown(text)));
        service.rollout.canary = reader.value(&entry.value, &join(path, "canary"), read).unwrap_or(0);
    }
    if let Some(entry) = level.remove("progress_deadline") {
        let path = join(path, "progress_deadline");
        service.rollout.progress_deadline_ms = reader.value(&entry.value, &path, duration);
    }
    if let Some(entry) = level.remove("on_heal") {
        let read = |text: &str| match text {
            "keep_original" => Ok(OnHeal::KeepOriginal),
            "keep_replacement" => Ok(OnHeal::KeepReplacement),
            other => Err(format!("'{}' is neither keep_original nor keep_replacement", shown(other))),
        };
        service.on_heal = reader.value(&entry.value, &join(path, "on_heal"), read).unwrap_or_default();
    }
    if let Some(entry) = level.remove("lost_after") {
        service.lost_after_ms = reader.value(&entry.value, &join(path, "lost_after"), duration);
    }
    if let Some(entry) = level.remove("drain") {
        service.drain_ms = reader.value(&entry.value, &join(path, "drain"), duration);
    }
    if let Some(entry) = level.remove("stop_when_isolated") {
        service.stop_when_isolated_ms = reader.value(&entry.value, &join(path, "stop_when_isolated"), duration);
    }
}

/// Milliseconds of a duration as Compose writes it: `10m`, `1h30m`, `500ms`.
pub fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{}' is no duration like 30s, 10m or 1h30m", shown(text));
    let (mut rest, mut sum) = (text, 0u64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        sum = number.checked_mul(ms).and_then(|ms| sum.checked_add(ms)).ok_or_else(wrong)?;
        rest = after;
    }
    if sum > TIME_MS_MAX {
        return Err(format!("'{}' is more than thirty days", shown(text)));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_compose_writes_them() {
        for (text, ms) in [("500ms", Some(500)), ("10m", Some(600_000)), ("1h30m", Some(5_400_000)), ("0s", Some(0))] {
            assert_eq!(duration(text).ok(), ms, "{text}");
        }
        for text in ["", "10", "s", "1y", "-1s", "1.5s", "99999999999999999999s", "31d", "10m 5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
