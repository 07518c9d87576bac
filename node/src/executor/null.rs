//! The executor that does nothing: a task ends at once, or after the time that its command names
//! (`sleep 5`, `5s`, `250ms`), or never (`forever`). For simulation and benchmarks.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::{Health, TaskSpec};
use tokio::sync::mpsc;
use tokio_util::time::{DelayQueue, delay_queue::Key};

use super::process::wall_ms;
use super::{Order, Told};

/// What a shell reports of a program that SIGTERM ended.
const TERMINATED: i32 = 128 + 15;

/// Serves orders until there can be no more.
pub(super) async fn run(mut orders: mpsc::UnboundedReceiver<Order>, reports: mpsc::Sender<Told>) {
    let mut tasks: BTreeMap<ClaimId, Task> = BTreeMap::new();
    let mut ends: DelayQueue<ClaimId> = DelayQueue::new();
    if reports.send(Told::Found).await.is_err() {
        return;
    }
    loop {
        let (claim, told) = tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Start { claim, spec }) => (claim, start(&mut tasks, &mut ends, claim, &spec)),
                Some(Order::Stop { claim, .. }) => (claim, stop(&mut tasks, &mut ends, claim)),
                Some(Order::Forget { claim }) => {
                    stop(&mut tasks, &mut ends, claim);
                    tasks.remove(&claim);
                    continue;
                }
            },
            Some(expired) = ends.next() => {
                let claim = expired.into_inner();
                let Some(task) = tasks.get_mut(&claim) else { continue };
                task.end = None;
                task.last = exited(0);
                (claim, vec![task.last.clone()])
            }
        };
        for report in told {
            if reports.send(Told::Task { claim, report }).await.is_err() {
                return;
            }
        }
    }
}

struct Task {
    last: TaskReport,
    /// Its place among the ends to come.
    end: Option<Key>,
}

fn start(
    tasks: &mut BTreeMap<ClaimId, Task>,
    ends: &mut DelayQueue<ClaimId>,
    claim: ClaimId,
    spec: &TaskSpec,
) -> Vec<TaskReport> {
    if let Some(task) = tasks.get(&claim) {
        return vec![task.last.clone()];
    }
    let running = TaskReport::Running { image_digest: None, started_at: wall_ms(), health: Health::None };
    let (last, end, told) = match lifetime(&spec.command) {
        Lifetime::Ends(after) if after.is_zero() => (exited(0), None, vec![running, exited(0)]),
        Lifetime::Ends(after) => (running.clone(), Some(ends.insert(claim, after)), vec![running]),
        Lifetime::Forever => (running.clone(), None, vec![running]),
    };
    tasks.insert(claim, Task { last, end });
    told
}

fn stop(tasks: &mut BTreeMap<ClaimId, Task>, ends: &mut DelayQueue<ClaimId>, claim: ClaimId) -> Vec<TaskReport> {
    let Some(task) = tasks.get_mut(&claim) else {
        return vec![TaskReport::Failed { reason: super::NOTHING_HERE.into() }];
    };
    if let Some(key) = task.end.take() {
        ends.remove(&key);
    }
    if !matches!(task.last, TaskReport::Exited { .. }) {
        task.last = exited(TERMINATED);
    }
    vec![task.last.clone()]
}

fn exited(exit_code: i32) -> TaskReport {
    TaskReport::Exited { exit_code, oom_killed: false, ended_at: wall_ms() }
}

#[derive(Debug, PartialEq)]
enum Lifetime {
    Ends(Duration),
    Forever,
}

fn lifetime(command: &[String]) -> Lifetime {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let named = match words[..] {
        ["forever"] => return Lifetime::Forever,
        ["sleep", time] | [time] => duration(time),
        _ => None,
    };
    Lifetime::Ends(named.unwrap_or_default())
}

/// `5`, `5s` or `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds: f64 = digits.parse().ok()?;
    // A timer reaches about two years; what is longer is as good as for ever.
    const SECONDS_MAX: f64 = 86_400.0 * 365.0;
    (seconds >= 0.0).then(|| Duration::from_secs_f64((seconds * unit).min(SECONDS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_its_time() {
        let of = |words: &[&str]| lifetime(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&[]), Lifetime::Ends(Duration::ZERO));
        assert_eq!(of(&["true"]), Lifetime::Ends(Duration::ZERO));
        assert_eq!(of(&["sleep", "5"]), Lifetime::Ends(Duration::from_secs(5)));
        assert_eq!(of(&["sleep", "0.5s"]), Lifetime::Ends(Duration::from_millis(500)));
        assert_eq!(of(&["250ms"]), Lifetime::Ends(Duration::from_millis(250)));
        assert_eq!(of(&["forever"]), Lifetime::Forever);
        for odd in ["-1s", "nans", "infs", "1e400", "ms"] {
            assert!(matches!(of(&[odd]), Lifetime::Ends(_)), "{odd}");
        }
    }
}
