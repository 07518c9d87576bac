//! The plain nouns: what an app, a task, a machine and their resources are.

pub mod app;
pub mod machine;
pub mod placement;
pub mod resources;
pub mod task;

pub use app::{AppSpec, OnLost, PortSpec, Restart, ServiceSpec};
pub use machine::{Executor, Machine, Vitals};
pub use placement::{OnHeal, Other, Placement};
pub use resources::Resources;
pub use task::{Claim, ClaimState, Outcome, PortBinding, TaskSpec};
