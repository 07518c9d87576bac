//! Why tasks wait: `rialto explain`.
//!
//! Nothing here decides anything. What the steward's filter says of each machine, what the machines
//! themselves answered in its last auction, and what the comparison of desired and actual makes of each
//! slot is put into words, and machines of one reason are told together.

mod machines;
mod tasks;
mod volumes;
mod words;

use crate::api::{Explanation, ServiceExplained};
use crate::ids::{AppId, PeerId};
use crate::ledger::Document;
use crate::view::View;

pub use volumes::{NoVolume, VolumeAt};
pub(crate) use words::{amount, of};

/// The most tasks of a service that are told of one by one.
pub const TASKS_MAX: usize = 100;
/// The most machines that are named for one reason.
pub const NAMES_MAX: usize = 64;

/// What is to be explained: `app`, `app.service` or `app.service.slot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub app: String,
    pub service: Option<String>,
    pub slot: Option<String>,
}

/// Why nothing can be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("app {0} not found")]
    NoApp(String),
    #[error("{app} has no service {service}; it has {has}")]
    NoService { app: String, service: String, has: String },
    #[error("{app}.{service} has no task {slot}: it wants {replicas}")]
    NoTask { app: String, service: String, slot: String, replicas: u32 },
}

impl Subject {
    /// Reads `APP[.SERVICE[.SLOT]]`.
    pub fn of(name: &str) -> Self {
        let mut parts = name.splitn(3, '.').map(str::to_string);
        Self { app: parts.next().unwrap_or_default(), service: parts.next(), slot: parts.next() }
    }
}

impl View<'_> {
    /// Why tasks wait, as this peer knows it. The app's steward knows what machines answered; another peer
    /// only what the ledger says.
    ///
    /// # Errors
    ///
    /// There is no such app, service or task.
    pub fn explain(&self, subject: &Subject) -> Result<Explanation, ExplainError> {
        let missing = || ExplainError::NoApp(subject.app.clone());
        let app = self.brain.app_named(&subject.app).ok_or_else(missing)?;
        let document = self.brain.documents.get(app).ok_or_else(missing)?;
        let services = &document.spec.services;
        if let Some(service) = &subject.service {
            let has = || services.keys().cloned().collect::<Vec<_>>().join(", ");
            let no_service = || ExplainError::NoService { app: app.name.clone(), service: service.clone(), has: has() };
            let spec = services.get(service).ok_or_else(no_service)?;
            let shown = self.brain.shown_slots(app, document, service, spec);
            let is_one = |slot: &String| shown.contains(slot);
            if let Some(slot) = subject.slot.as_ref().filter(|slot| !is_one(slot)) {
                let (app, service, replicas) = (app.name.clone(), service.clone(), spec.replicas);
                return Err(ExplainError::NoTask { app, service, slot: slot.clone(), replicas });
            }
        }
        let meant = services.keys().filter(|name| subject.service.as_ref().is_none_or(|service| service == *name));
        Ok(Explanation {
            app: app.name.clone(),
            generation: app.generation,
            steward: self.brain.steward_of(app).map(|peer| self.brain.machine_name(&peer)),
            told_by: self.brain.machine_name(&self.brain.me),
            by_steward: self.brain.steward_of(app) == Some(self.brain.me),
            services: meant
                .map(|service| self.explain_service(app, document, service, subject.slot.as_deref()))
                .collect(),
            remarks: self.remarks(),
        })
    }

    /// The peer that looks after the living app of this name.
    pub fn steward(&self, app: &str) -> Option<PeerId> {
        self.brain.steward_of(self.brain.app_named(app)?)
    }

    fn explain_service(&self, app: &AppId, document: &Document, name: &str, slot: Option<&str>) -> ServiceExplained {
        let spec = &document.spec.services[name];
        let efforts = self.brain.efforts(app, &document.spec, name);
        let mut told = ServiceExplained {
            service: name.to_string(),
            wanted: if slot.is_some() { 1 } else { self.brain.shown_slots(app, document, name, spec).len() as u32 },
            running: 0,
            finished: 0,
            waiting: 0,
            need: spec.need().0,
            volumes: self.held_by_volumes(app, spec),
            steward: Vec::new(),
            tasks: Vec::new(),
            machines: Vec::new(),
        };
        let placeless = self.explain_tasks(app, document, name, slot, &efforts, &mut told);
        if told.waiting > 0 {
            told.steward = self.explain_steward(&efforts, placeless);
        }
        if placeless > 0 {
            told.machines = self.explain_machines(app, spec, &efforts);
        }
        told
    }
}
