//! How a service is changed that runs: `deploy.update_config`, `deploy.rollback_config` and what Compose lacks of them.

use serde::{Deserialize, Serialize};

use super::placement::TIME_MS_MAX;

/// A changed service that makes no headway for so long has failed to change, ms.
pub const PROGRESS_MS: u64 = 600_000;
/// How long a new task is watched, ms: Swarm's own.
pub const MONITOR_MS: u64 = 5_000;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How a service is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPolicy {
    /// `update_config`; `None`: one after the other, for as long as all others run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Pace>,
    /// `rollback_config`; `None`: as the update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Pace>,
    /// So many tasks are changed first, and the others when somebody says so; 0: no such pause.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canary: u32,
    /// Milliseconds without headway after which it counts as failed; [`PROGRESS_MS`] where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_ms: Option<u64>,
}

/// One of `update_config` and `rollback_config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How many tasks at once; 0: all.
    pub parallelism: u32,
    /// Between one batch and the next, ms.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delay_ms: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: Sequence,
    /// How long a new task is watched, ms.
    pub monitor_ms: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure_action: FailureAction,
    /// Millionths of the tasks that may fail while they are watched.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_failure_ppm: u32,
}

/// Whether the old task ends before the new one starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sequence {
    #[default]
    StopFirst,
    StartFirst,
}

/// What becomes of a change too many of whose tasks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// It stands still until somebody looks.
    #[default]
    Pause,
    Continue,
    /// The last revision that ran well comes back.
    Rollback,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay_ms: 0,
            order: Sequence::default(),
            monitor_ms: MONITOR_MS,
            failure_action: FailureAction::default(),
            max_failure_ppm: 0,
        }
    }
}

impl Pace {
    /// Of a service whose file says nothing: what fails is started again, and the next waits until it runs.
    pub fn unsaid() -> Self {
        Self { failure_action: FailureAction::Continue, ..Self::default() }
    }
}

impl RolloutPolicy {
    /// Whether nothing is said.
    pub fn is_usual(&self) -> bool {
        *self == RolloutPolicy::default()
    }

    /// How it goes; `back`: to what ran before.
    pub fn pace(&self, back: bool) -> Pace {
        let update = || self.update.clone().unwrap_or_else(Pace::unsaid);
        if !back {
            return update();
        }
        let mut pace = self.rollback.clone().unwrap_or_else(update);
        if pace.failure_action == FailureAction::Rollback {
            // There is nothing behind it to go back to.
            pace.failure_action = FailureAction::Pause;
        }
        pace
    }

    pub fn progress_deadline_ms(&self) -> u64 {
        self.progress_deadline_ms.unwrap_or(PROGRESS_MS)
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let paces = [&self.update, &self.rollback];
        let times = paces.iter().filter_map(|pace| pace.as_ref()).flat_map(|pace| [pace.delay_ms, pace.monitor_ms]);
        times.chain(self.progress_deadline_ms).any(|ms| ms > TIME_MS_MAX).then(|| "more than thirty days".into())
    }
}

/// What a person said of a rollout: it holds for the revision that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutOrder {
    /// [`crate::model::ServiceSpec::revision`] that is being brought about.
    pub revision: u64,
    pub word: OrderWord,
}

/// What to do about a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderWord {
    /// It stands still.
    Pause,
    /// It goes on, whatever has failed so far.
    Resume,
    /// It goes on, beyond its canaries.
    Promote,
    /// It is a way back to what ran before.
    Back,
}

impl OrderWord {
    pub fn name(self) -> &'static str {
        match self {
            OrderWord::Pause => "pause",
            OrderWord::Resume => "resume",
            OrderWord::Promote => "promote",
            OrderWord::Back => "roll back",
        }
    }
}
