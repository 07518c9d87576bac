//! Apps and images.

use std::collections::BTreeMap;

use super::View;
use crate::api::{App, ImageRow};
use crate::explain::{amount, of};
use crate::ids::{AppId, ChangeId};
use crate::ledger::Document;
use crate::membership::State;
use crate::model::{AppSpec, Executor};

impl View<'_> {
    /// Every app that lives.
    pub fn apps(&self) -> Vec<App> {
        self.living().map(|(app, document)| self.app_row(app, document)).collect()
    }

    /// One app that lives.
    pub fn app(&self, name: &str) -> Option<App> {
        let app = self.brain.app_named(name)?;
        Some(self.app_row(app, self.brain.documents.get(app)?))
    }

    /// How the last changes of an app's services stand; `None`: there is no such app.
    pub fn rollouts(&self, app: &str) -> Option<Vec<crate::api::RolloutRow>> {
        let app = self.brain.app_named(app)?;
        let services = self.brain.documents.get(app)?.spec.services.keys();
        let row = |service: &String| {
            let held = self.brain.progress_of(app, service)?;
            Some(crate::api::RolloutRow {
                service: service.clone(),
                phase: held.phase.word().into(),
                updated: held.updated,
                total: held.total,
                failed: held.failed,
                back: held.back,
                from: format!("{:016x}", held.from),
                to: format!("{:016x}", held.to),
                reason: held.reason,
            })
        };
        Some(services.filter_map(row).collect())
    }

    fn app_row(&self, app: &AppId, document: &Document) -> App {
        App {
            app: app.name.clone(),
            generation: app.generation,
            spec: AppSpec::clone(&document.spec),
            steward: self.brain.steward_of(app).map(|peer| self.brain.machine_name(&peer)),
            conflicts: document.conflicts.clone(),
        }
    }

    /// Whether the living app of this name has this change already.
    pub fn has_change(&self, app: &str, change: &ChangeId) -> bool {
        self.brain.app_named(app).is_some_and(|app| self.brain.is_made(app, change))
    }

    /// The manifest that an image's name means now.
    pub fn image_digest(&self, image: &str) -> Option<String> {
        self.brain.readings.image(image).map(|image| image.digest.clone())
    }

    /// The images that live machines have, under a name each.
    pub fn images(&self) -> Vec<ImageRow> {
        let mut rows: BTreeMap<(String, String), ImageRow> = BTreeMap::new();
        for (name, machines) in &self.brain.readings.images {
            for (peer, image) in machines {
                if self.brain.members.state(peer) > State::Suspect {
                    continue;
                }
                let row = rows.entry((name.clone(), image.digest.clone())).or_insert_with(|| ImageRow {
                    name: name.clone(),
                    digest: image.digest.clone(),
                    bytes: image.bytes,
                    machines: Vec::new(),
                });
                row.machines.push(self.brain.machine_name(peer));
            }
        }
        rows.into_values().collect()
    }

    /// The service and dimension in which no machine that is known could ever hold a task of this app.
    pub fn unplaceable(&self, spec: &AppSpec) -> Option<String> {
        let machines = || {
            let known = self.brain.readings.machines.iter();
            known.filter(|(_, machine)| !matches!(machine.executor, Executor::None(_))).map(|(_, machine)| machine)
        };
        for (name, service) in &spec.services {
            let need = service.need();
            let lacking: Vec<Option<String>> =
                machines().map(|machine| machine.capacity.lacks(&Default::default(), &need)).collect();
            if lacking.iter().any(Option::is_none) {
                continue;
            }
            return Some(match lacking.into_iter().flatten().next() {
                Some(dimension) => {
                    // Not what is listed: GPUs are listed one by one, and asked for together.
                    let all = machines().map(|machine| machine.capacity.free(&Default::default(), &dimension));
                    let (needs, most) = (of(&dimension, need.get(&dimension)), all.max().unwrap_or(0));
                    format!("{name} needs {needs}, and the largest machine has {}", amount(&dimension, most))
                }
                None => format!("{name} needs a machine that runs tasks, and there is none"),
            });
        }
        None
    }
}
