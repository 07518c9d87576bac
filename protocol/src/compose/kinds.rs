//! What kind of work a service is: `deploy.mode`, and `count`, `parallelism`, `retries` and `deadline` of `x-rialto`.

use super::extension::duration;
use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::Entry;
use super::{REPLICAS_MAX, support};
use crate::model::{Mode, Restart, ServiceSpec};

use std::collections::BTreeMap;

/// Reads `deploy.mode`; `restart` stays what the file says, and of a job is `on-failure` where it says nothing.
pub fn mode(reader: &mut Reader, entry: Entry, path: &str, service: &mut ServiceSpec, restart_said: bool) {
    let read = |text: &str| match text {
        "replicated" => Ok((Mode::Replicated, false)),
        "global" => Ok((Mode::Global, false)),
        "replicated-job" => Ok((Mode::Replicated, true)),
        "global-job" => Ok((Mode::Global, true)),
        other => Err(support::none_of(other, &["replicated", "global", "replicated-job", "global-job"])),
    };
    let place = entry.value.place;
    let Some((mode, job)) = reader.value(&entry.value, path, read) else { return };
    service.mode = mode;
    match (job, service.restart) {
        (true, Restart::Always | Restart::UnlessStopped) if restart_said => {
            reader.wrong(place, path, "a job runs to its end: its restart is no or on-failure");
        }
        (true, Restart::Always | Restart::UnlessStopped) => service.restart = Restart::OnFailure,
        _ => {}
    }
}

/// Reads what `x-rialto` says of work that ends.
pub fn batch(reader: &mut Reader, level: &mut BTreeMap<&'static str, Entry>, path: &str, service: &mut ServiceSpec) {
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("'{}' is no number", shown(text)));
    let mut ends = false;
    if let Some(entry) = level.remove("count") {
        let read = |text: &str| match text.parse::<u32>() {
            Ok(count @ 1..=REPLICAS_MAX) => Ok(count),
            _ => Err(format!("'{}' is no number of tasks from 1 to {REPLICAS_MAX}", shown(text))),
        };
        service.replicas = reader.value(&entry.value, &join(path, "count"), read).unwrap_or(1);
        ends = true;
    }
    if let Some(entry) = level.remove("parallelism") {
        let most = reader.value(&entry.value, &join(path, "parallelism"), number);
        service.batch.parallelism = most.unwrap_or(0);
        ends = true;
    }
    if let Some(entry) = level.remove("retries") {
        service.batch.retries = reader.value(&entry.value, &join(path, "retries"), number);
        ends = true;
    }
    if let Some(entry) = level.remove("deadline") {
        service.batch.deadline_ms = reader.value(&entry.value, &join(path, "deadline"), duration);
        ends = true;
    }
    if ends || service.schedule.is_some() {
        runs_to_its_end(service);
    }
}

/// Where a file says nothing of `restart`, what it says of runs makes it work that ends.
fn runs_to_its_end(service: &mut ServiceSpec) {
    if matches!(service.restart, Restart::Always) {
        service.restart = Restart::No;
    }
}
