//! `healthcheck:`, and the addresses of `x-rialto: health`.

use super::extension::duration;
use super::keys;
use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::{Node, Value};
use crate::model::health::{HealthCheck, HealthTest};

/// Reads `healthcheck`.
pub fn read(reader: &mut Reader, node: Node, path: &str) -> Option<HealthCheck> {
    let place = node.place;
    let mut level = reader.level(node, path, &keys::HEALTHCHECK)?;
    let mut check = HealthCheck::default();
    if let Some(entry) = level.remove("test") {
        check.test = test(reader, entry.value, &join(path, "test"));
    }
    if let Some(entry) = level.remove("disable")
        && reader.value(&entry.value, &join(path, "disable"), super::container::switch) == Some(true)
    {
        check.test = Some(HealthTest::Nothing);
    }
    if let Some(entry) = level.remove("retries") {
        let read = |text: &str| text.parse::<u32>().map_err(|_| format!("'{}' is no number of retries", shown(text)));
        check.retries = reader.value(&entry.value, &join(path, "retries"), read);
    }
    for (key, field) in [
        ("interval", &mut check.interval_ms),
        ("timeout", &mut check.timeout_ms),
        ("start_period", &mut check.start_period_ms),
        ("start_interval", &mut check.start_interval_ms),
    ] {
        if let Some(entry) = level.remove(key) {
            *field = reader.value(&entry.value, &join(path, key), duration);
        }
    }
    if let Some(message) = check.fault() {
        reader.wrong(place, path, message);
    }
    Some(check)
}

/// A line for the shell, or `[NONE]`, `[CMD, WORD…]`, `[CMD-SHELL, LINE]`.
fn test(reader: &mut Reader, node: Node, path: &str) -> Option<HealthTest> {
    let place = node.place;
    let Value::List(items) = node.value else {
        return reader.text(&node, path).map(HealthTest::Shell);
    };
    let words: Vec<String> = items.iter().filter_map(|item| reader.text(item, path)).collect();
    match words.first().map(String::as_str) {
        Some("NONE") => Some(HealthTest::Nothing),
        Some("CMD") if words.len() > 1 => Some(HealthTest::Command(words[1..].to_vec())),
        Some("CMD-SHELL") if words.len() == 2 => Some(HealthTest::Shell(words[1].clone())),
        _ => {
            let hint =
                "write a line for the shell, or [CMD, curl, -f, \"http://localhost\"], [CMD-SHELL, LINE], [NONE]";
            reader.wrong_with(place, path, "a list here begins with CMD, CMD-SHELL or NONE", Some(hint.into()));
            None
        }
    }
}
