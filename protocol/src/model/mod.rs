//! The plain nouns: what an app, a task, a machine and their resources are.

pub mod app;
pub mod container;
pub mod health;
pub mod kind;
pub mod machine;
pub mod network;
pub mod placement;
pub mod resources;
pub mod rollout;
pub mod schedule;
pub mod secret;
pub mod singleton;
pub mod task;
pub mod volume;

pub use app::{AppSpec, OnLost, PortSpec, Restart, ServiceSpec};
pub use container::Container;
pub use health::Health;
pub use kind::{Asked, Batch, Condition, Dependencies, Mode};
pub use machine::{Executor, Machine, Vitals};
pub use network::{NetworkMode, PortMode, Range, Subnet, TaskNetwork};
pub use placement::{OnHeal, Other, Placement};
pub use resources::Resources;
pub use rollout::{FailureAction, OrderWord, Pace, RolloutOrder, RolloutPolicy, Sequence};
pub use schedule::{CatchUp, Overlap, Schedule};
pub use singleton::{Guard, Singleton};
pub use task::{Claim, ClaimState, Outcome, PortBinding, TaskSpec};
pub use volume::{Mounts, Volume};
