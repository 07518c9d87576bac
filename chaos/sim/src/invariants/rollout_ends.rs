//! A change ends: when nothing breaks, a service runs its newest revision, or rests where its policy or a person has put
//! it: at its canaries, paused, or failed.

use rialto_protocol::model::ServiceSpec;
use rialto_protocol::view::View;

use super::rollout::at_once;
use super::settles;
use crate::World;
use crate::executor::Container;

/// Where the change of a service stands, if it ever was changed; in the words of the API.
pub fn phase(view: &View<'_>, app: &str, service: &str) -> Option<String> {
    view.rollouts(app)?.into_iter().find(|row| row.service == service).map(|row| row.phase)
}

/// How many slots of a service may be empty, and whether what runs may be of an older revision, where its change has come
/// to an end; `None`: it has not.
pub fn rests(service: &ServiceSpec, phase: Option<&str>) -> Option<(usize, bool)> {
    match phase {
        None | Some("done") => Some((0, false)),
        Some("canary") if service.rollout.canary > 0 => Some((0, true)),
        // What fails is started again ever more seldom, and what was stopped before a pause stays so.
        Some("paused" | "failed") => Some((at_once(&service.rollout, service.replicas as usize, true), true)),
        Some(_) => None,
    }
}

/// The services that are wanted and still being changed.
pub fn going(world: &World) -> Vec<String> {
    let Some(view) = settles::reader(world) else { return Vec::new() };
    let mut found = Vec::new();
    for app in view.apps() {
        // Of what is not wanted at all nothing is changed, and a batch begins anew.
        let kept_up = |(_, service): &(&String, &ServiceSpec)| service.replicas > 0 && !service.is_batch();
        for (name, service) in app.spec.services.iter().filter(kept_up) {
            let phase = phase(&view, &app.app, name);
            if rests(service, phase.as_deref()).is_none() {
                found.push(format!("{}.{name} is still being changed: {}", app.app, phase.unwrap_or_default()));
            }
        }
    }
    found
}

/// Whether a container runs what is wanted now, as far as it was told.
pub fn is_newest(container: &Container, service: &ServiceSpec) -> bool {
    service.environment.iter().all(|(key, value)| container.spec.environment.get(key) == Some(value))
}
