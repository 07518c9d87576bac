//! `deploy.update_config` and `deploy.rollback_config`: how a service is changed that runs.

use super::extension::duration;
use super::keys;
use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::Node;
use crate::model::{FailureAction, Pace, Sequence};

/// Reads either; a rollback has nothing behind it to roll back to.
pub fn pace(reader: &mut Reader, node: Node, path: &str, back: bool) -> Option<Pace> {
    let mut level = reader.level(node, path, &keys::UPDATE)?;
    let mut pace = Pace::default();
    if let Some(entry) = level.remove("parallelism") {
        let read = |text: &str| text.parse::<u32>().map_err(|_| format!("'{}' is no number of tasks", shown(text)));
        pace.parallelism = reader.value(&entry.value, &join(path, "parallelism"), read).unwrap_or(1);
    }
    for (key, field) in [("delay", &mut pace.delay_ms), ("monitor", &mut pace.monitor_ms)] {
        if let Some(entry) = level.remove(key)
            && let Some(ms) = reader.value(&entry.value, &join(path, key), duration)
        {
            *field = ms;
        }
    }
    if let Some(entry) = level.remove("order") {
        let read = |text: &str| match text {
            "stop-first" => Ok(Sequence::StopFirst),
            "start-first" => Ok(Sequence::StartFirst),
            other => Err(format!("'{}' is neither stop-first nor start-first", shown(other))),
        };
        pace.order = reader.value(&entry.value, &join(path, "order"), read).unwrap_or_default();
    }
    if let Some(entry) = level.remove("failure_action") {
        let read = |text: &str| match text {
            "pause" => Ok(FailureAction::Pause),
            "continue" => Ok(FailureAction::Continue),
            "rollback" if !back => Ok(FailureAction::Rollback),
            "rollback" => Err("a rollback that fails has nothing to go back to: write pause or continue".into()),
            other => Err(format!("'{}' is none of pause, continue, rollback", shown(other))),
        };
        pace.failure_action = reader.value(&entry.value, &join(path, "failure_action"), read).unwrap_or_default();
    }
    if let Some(entry) = level.remove("max_failure_ratio") {
        pace.max_failure_ppm = reader.value(&entry.value, &join(path, "max_failure_ratio"), ratio).unwrap_or(0);
    }
    Some(pace)
}

/// Millionths of a share from 0 to 1.
fn ratio(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok((share * 1e6).round() as u32),
        _ => Err(format!("'{}' is no share from 0 to 1", shown(text))),
    }
}
