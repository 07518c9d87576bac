//! What must not happen twice: a service of which no two tasks ever run at once, and runs of a schedule that happen once.

use serde::{Deserialize, Serialize};

use super::{Mode, Restart, Sequence, ServiceSpec};

/// What a task must have of the lock group before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// A lease in its service's name, for as long as it runs.
    Lease,
    /// Its run's name, once and for all.
    Once,
}

/// `x-rialto.singleton`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Singleton {
    /// As many run as are wanted; while the network is split perhaps more.
    #[default]
    No,
    /// Never two at once, and none where the lock group cannot be asked.
    Strict,
}

impl ServiceSpec {
    /// What its tasks must have before they start.
    pub fn guard(&self) -> Option<Guard> {
        let once = || self.schedule.as_ref().is_some_and(|schedule| schedule.exactly_once);
        match self.singleton {
            Singleton::Strict => Some(Guard::Lease),
            Singleton::No => once().then_some(Guard::Once),
        }
    }

    /// What does not go with being a singleton, or with running once: the field, and what to say. What edits that were
    /// made at the same time add up to may still be so: then one runs, and the others wait.
    pub fn guard_fault(&self) -> Option<(&'static str, String)> {
        let wrong = |field, message: &str| Some((field, message.to_string()));
        match self.guard()? {
            Guard::Lease => {
                if self.replicas > 1 {
                    let message = format!("a strict singleton is one task, and {} are asked for", self.replicas);
                    return Some(("replicas", message));
                }
                if self.mode == Mode::Global {
                    return wrong("singleton", "a service on each machine is no singleton");
                }
                if self.gang {
                    return wrong("gang", "a strict singleton is one task, and starts with no other");
                }
                let paces = [&self.rollout.update, &self.rollout.rollback];
                if paces.into_iter().flatten().any(|pace| pace.order == Sequence::StartFirst) {
                    let message =
                        "start-first runs two at once, which a strict singleton never does: write order: stop-first";
                    return wrong("rollout", message);
                }
                if self.schedule.as_ref().is_some_and(|schedule| schedule.exactly_once) {
                    let message =
                        "exactly_once and a strict singleton do not go together: overlap: forbid keeps runs apart";
                    return wrong("schedule", message);
                }
            }
            Guard::Once if self.restart == Restart::OnFailure || self.batch.retries.is_some() => {
                return wrong(
                    "schedule",
                    "what runs exactly once is not tried again: leave out retries, and write restart: no",
                );
            }
            Guard::Once => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pace, Schedule};

    #[test]
    fn what_does_not_go_together_is_said() {
        let strict = || ServiceSpec { replicas: 1, singleton: Singleton::Strict, ..ServiceSpec::default() };
        let once = || ServiceSpec {
            schedule: Some(Schedule { cron: "@daily".into(), exactly_once: true, ..Schedule::default() }),
            restart: Restart::No,
            ..ServiceSpec::default()
        };
        let start_first = Some(Pace { order: Sequence::StartFirst, ..Pace::default() });
        let mut starts_first = strict();
        starts_first.rollout.update = start_first;
        for (spec, said) in [
            (strict(), None),
            (once(), None),
            (ServiceSpec { replicas: 2, ..ServiceSpec::default() }, None),
            (ServiceSpec { replicas: 0, ..strict() }, None),
            (ServiceSpec { replicas: 2, ..strict() }, Some("one task, and 2 are asked for")),
            (ServiceSpec { mode: Mode::Global, ..strict() }, Some("no singleton")),
            (ServiceSpec { gang: true, ..strict() }, Some("starts with no other")),
            (starts_first, Some("write order: stop-first")),
            (ServiceSpec { singleton: Singleton::Strict, ..once() }, Some("do not go together")),
            (ServiceSpec { restart: Restart::OnFailure, ..once() }, Some("is not tried again")),
        ] {
            let found = spec.guard_fault().map(|(_, message)| message);
            match said {
                None => assert_eq!(found, None),
                Some(said) => assert!(found.as_ref().is_some_and(|found| found.contains(said)), "{found:?}: {said}"),
            }
        }
        assert_eq!((strict().guard(), once().guard()), (Some(Guard::Lease), Some(Guard::Once)));
        assert_ne!(strict().revision(), ServiceSpec { singleton: Singleton::No, ..strict() }.revision());
    }
}
