//! What a peer believes, in the shapes that people, DNS and the API read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::api::{App, ImageRow, MachineRow, PortRow, ResourceRow, Status, TaskRow};
use crate::brain::{Brain, NAMESPACE};
use crate::event::Now;
use crate::explain::{amount, of};
use crate::ids::{AppId, ChangeId, ClaimId, PeerId};
use crate::ledger::Document;
use crate::ledger::readings::ClaimEntry;
use crate::membership::{Held, State};
use crate::model::resources::{CPU_MILLIS, GPU_PREFIX, GPUS, MEMORY_BYTES};
use crate::model::{AppSpec, ClaimState, Executor, Outcome, PortBinding, PortSpec, Resources};
use crate::rfc3339::rfc3339;
use crate::steward::array;

/// How many finished tasks are shown unless all are asked for.
const FINISHED_SHOWN: usize = 100;
/// Finished tasks are shown so long at most, ms.
const FINISHED_MS: u64 = 3_600_000;

/// A read-only look at a brain at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(crate) brain: &'a Brain,
    pub(crate) now: Now,
}

/// Which tasks are meant.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    pub app: Option<String>,
    pub service: Option<String>,
    pub slot: Option<String>,
    /// Finished ones beyond the last 100, too.
    pub all: bool,
}

/// Where a healthy task of a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub task: String,
    pub slot: String,
    pub machine: String,
    /// Without a port.
    pub address: String,
    /// The address is the task's own, and so are all its ports.
    pub own: bool,
    pub ports: Vec<PortBinding>,
}

/// A service as DNS names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// The virtual one, which stands for all tasks.
    pub address: Option<Ipv4Addr>,
    /// As its file names them.
    pub ports: Vec<PortSpec>,
    pub tasks: Vec<Endpoint>,
}

/// A claim, and who has it: what logs and stops need.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimAt {
    pub claim: ClaimId,
    pub owner: PeerId,
    pub owner_name: String,
    /// Whether the owner is held for alive.
    pub reachable: bool,
    pub row: TaskRow,
}

impl TaskFilter {
    fn takes(&self, app: &str, service: &str, slot: &str) -> bool {
        let is = |wanted: &Option<String>, held: &str| wanted.as_deref().is_none_or(|wanted| wanted == held);
        is(&self.app, app) && is(&self.service, service) && is(&self.slot, slot)
    }
}

impl View<'_> {
    /// Machines held for alive, this one included.
    pub fn members_seen(&self) -> u32 {
        self.brain.members.live_count() as u32
    }

    /// Rows for `ps`: live tasks, pending slots, and the last 100 finished. Sorted by task.
    pub fn tasks(&self, filter: &TaskFilter) -> Vec<TaskRow> {
        let mut live = Vec::new();
        let mut finished: Vec<(u64, TaskRow)> = Vec::new();
        let mut shown: BTreeSet<(AppId, String, String)> = BTreeSet::new();
        for entry in self.claims_of(filter.app.as_deref()) {
            let task = &entry.claim.task;
            if !filter.takes(&task.app.name, &task.service, &task.slot) {
                continue;
            }
            if entry.claim.state.has_ended() {
                finished.push((entry.claim.ended_at.unwrap_or(0), self.claim_row(entry)));
            } else if self.brain.members.state(&entry.owner) <= State::Suspect {
                live.push(self.claim_row(entry));
                shown.insert((task.app.clone(), task.service.clone(), task.slot.clone()));
            }
        }
        for (app, document) in self.living_of(filter.app.as_deref()) {
            for (name, service) in &document.spec.services {
                let revision = service.revision();
                let outcomes = document.outcomes.get(name);
                let reasons = match self.waits_for_volume(app, service) {
                    Some(volume) => vec![volume],
                    None => self.reasons(app, name),
                };
                for slot in self.brain.shown_slots(app, document, name, service) {
                    let key = (app.clone(), name.clone(), slot);
                    if !filter.takes(&app.name, name, &key.2) || shown.contains(&key) {
                        continue;
                    }
                    let outcome = outcomes
                        .and_then(|all| all.get(&key.2))
                        .filter(|one| one.revision == revision || is_apart(&key.2));
                    match outcome {
                        Some(outcome) => self.add_outcome(app, name, outcome, &mut finished),
                        None if !self.is_finished(app, name, &key.2, service) => {
                            live.push(self.pending_row(app, name, &key.2, &reasons));
                        }
                        None => {}
                    }
                }
            }
        }
        finished.sort_by(|(one, a), (two, b)| two.cmp(one).then_with(|| a.task.cmp(&b.task)));
        if !filter.all {
            finished.truncate(FINISHED_SHOWN);
            let now = self.now.wall;
            finished.retain(|(ended, _)| now.saturating_sub(*ended) < FINISHED_MS);
        }
        live.extend(finished.into_iter().map(|(_, row)| row));
        live.sort_by_cached_key(|row| {
            let slot = row.slot.parse::<u64>().unwrap_or(u64::MAX);
            (row.app.clone(), row.service.clone(), slot, row.slot.clone(), std::cmp::Reverse(row.attempt))
        });
        live
    }

    /// A claim that finishes its slot, though the document does not say so yet.
    pub(crate) fn is_finished(&self, app: &AppId, service: &str, slot: &str, spec: &crate::model::ServiceSpec) -> bool {
        let entries = self.brain.readings.slots(app, service).and_then(|slots| slots.get(slot));
        let revision = spec.revision();
        entries.into_iter().flatten().any(|entry| {
            let claim = &entry.claim;
            let is_meant = claim.revision == revision || is_apart(slot);
            claim.state == ClaimState::Exited && is_meant && spec.finishes(claim.exit_code)
        })
    }

    /// An outcome whose claim is forgotten, or was never seen to end, has a row of its own; one
    /// whose claim is shown says only that the task was lost.
    fn add_outcome(&self, app: &AppId, service: &str, outcome: &Outcome, finished: &mut Vec<(u64, TaskRow)>) {
        let task = format!("{}.{service}.{}", app.name, outcome.slot);
        // A copy of the same attempt may have been superseded: that is not how the task ended.
        let is_it = |row: &TaskRow| row.attempt == outcome.attempt && row.exit_code == outcome.exit_code;
        let shown = |row: &TaskRow| row.task == task && row.state != ClaimState::Superseded.word() && is_it(row);
        if let Some((_, row)) = finished.iter_mut().find(|(_, row)| shown(row)) {
            (row.lost, row.done) = (outcome.lost, true);
            return;
        }
        let mut row = self.row(app, service, &outcome.slot);
        row.machine = outcome.machine.map(|peer| self.brain.machine_name(&peer));
        row.state = if outcome.exit_code.is_some() { "exited" } else { "failed" }.into();
        row.attempt = outcome.attempt;
        row.exit_code = outcome.exit_code;
        (row.lost, row.done) = (outcome.lost, true);
        row.reason = if outcome.lost { Some("its machine was lost".into()) } else { outcome.reason.clone() };
        row.ended_at = outcome.ended_at.map(rfc3339);
        finished.push((outcome.ended_at.unwrap_or(self.now.wall), row));
    }

    fn row(&self, app: &AppId, service: &str, slot: &str) -> TaskRow {
        TaskRow {
            task: format!("{}.{service}.{slot}", app.name),
            app: app.name.clone(),
            service: service.into(),
            slot: slot.into(),
            machine: None,
            state: "pending".into(),
            address: None,
            ports: Vec::new(),
            attempt: 0,
            started_at: None,
            exit_code: None,
            claim: None,
            reason: None,
            oom_killed: false,
            health: None,
            lost: false,
            done: false,
            outdated: false,
            accepted_at: None,
            ended_at: None,
        }
    }

    fn pending_row(&self, app: &AppId, service: &str, slot: &str, reasons: &[String]) -> TaskRow {
        let absent = self.brain.readings.slots(app, service).and_then(|slots| slots.get(slot));
        let absent = absent.into_iter().flatten().filter_map(|entry| Some((self.absence(entry)?, entry.owner)));
        let reasons: Vec<String> = absent
            .map(|(why, owner)| format!("it ran on {}; {why}", self.brain.machine_name(&owner)))
            .chain(reasons.iter().cloned())
            .collect();
        let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        TaskRow { reason, ..self.row(app, service, slot) }
    }

    fn claim_row(&self, entry: &ClaimEntry) -> TaskRow {
        let claim = &entry.claim;
        let task = &claim.task;
        let ports = claim.ports.iter().map(|port| PortRow {
            name: port.name.clone(),
            host: port.host,
            container: port.container,
            protocol: port.protocol.clone(),
            ingress: port.ingress,
        });
        TaskRow {
            machine: Some(self.brain.machine_name(&entry.owner)),
            state: claim.state.word().into(),
            address: claim.address.map(|own| own.to_string()).or_else(|| self.brain.address_of(&entry.owner)),
            ports: ports.collect(),
            attempt: claim.attempt,
            started_at: claim.started_at.map(rfc3339),
            exit_code: claim.exit_code,
            claim: Some(claim.id.hex()),
            reason: claim.reason.clone().or_else(|| self.absence(entry)),
            oom_killed: claim.oom_killed,
            health: claim.health.word().filter(|_| claim.state == ClaimState::Running).map(Into::into),
            outdated: self.is_outdated(entry),
            accepted_at: Some(rfc3339(claim.accepted_at)),
            ended_at: claim.ended_at.map(rfc3339),
            ..self.row(&task.app, &task.service, &task.slot)
        }
    }

    /// Claims of the apps of one name, or of all.
    fn claims_of(&self, app: Option<&str>) -> impl Iterator<Item = &ClaimEntry> {
        let id = |name: &str, generation| AppId { namespace: NAMESPACE.into(), name: name.into(), generation };
        let named = app.map(|name| self.brain.readings.claims.range(id(name, 0)..=id(name, u32::MAX)));
        let all = app.is_none().then(|| self.brain.readings.claims.iter());
        let services = named.into_iter().flatten().chain(all.into_iter().flatten()).flat_map(|(_, held)| held.values());
        services.flat_map(|slots| slots.values()).flatten()
    }

    fn is_outdated(&self, entry: &ClaimEntry) -> bool {
        let task = &entry.claim.task;
        let document = self.brain.documents.get(&task.app);
        let service = document.and_then(|document| document.spec.services.get(&task.service));
        service.is_some_and(|service| service.revision() != entry.claim.revision)
    }

    /// What people should know of a task on a machine that is not heard.
    fn absence(&self, entry: &ClaimEntry) -> Option<String> {
        if entry.claim.state.has_ended() {
            return None;
        }
        match self.brain.members.state(&entry.owner) {
            State::Alive => None,
            State::Suspect => Some("its machine does not answer".into()),
            State::Down | State::Left => Some("its machine is down".into()),
        }
    }

    fn reasons(&self, app: &AppId, service: &str) -> Vec<String> {
        let steward = self.brain.steward_of(app);
        let all = self.brain.readings.stewardships.get(app);
        let record = all.and_then(|all| steward.and_then(|peer| all.get(&peer)).or_else(|| all.values().next()));
        let pending = record.and_then(|record| record.pending.iter().find(|pending| pending.service == service));
        pending.map(|pending| pending.reasons.clone()).unwrap_or_default()
    }

    /// The living app of one name, or all.
    fn living_of(&self, app: Option<&str>) -> impl Iterator<Item = (&AppId, &Arc<Document>)> {
        let named =
            app.and_then(|name| self.brain.app_named(name)).and_then(|app| self.brain.documents.get_key_value(app));
        let all = app.is_none().then(|| self.living());
        named.into_iter().chain(all.into_iter().flatten())
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = (&AppId, &Arc<Document>)> {
        self.brain.documents.iter().filter(|(_, document)| !document.deleted && !document.is_empty())
    }

    /// Sentences about what is held back.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.volume_remarks();
        let Some(Held { sees, of, until_ms }) = self.brain.members.held(self.now) else { return remarks };
        let held = self.held_back();
        if held == 0 {
            return remarks;
        }
        let time = match until_ms {
            Some(until) => format!("for {} s", until.saturating_sub(self.now.ms).div_ceil(1000)),
            None => "until more machines are seen".into(),
        };
        let plural = if held == 1 { "" } else { "s" };
        let way_out = "`rialto machine unfreeze` goes now";
        remarks.push(format!("holding back {held} replacement{plural} {time}: sees {sees} of {of}; {way_out}"));
        remarks
    }

    /// Live claims on machines that are down, whose replacing the gate holds back.
    fn held_back(&self) -> u32 {
        if self.brain.members.held(self.now).is_none() {
            return 0;
        }
        let down = |entry: &&ClaimEntry| {
            !entry.claim.state.has_ended() && self.brain.members.state(&entry.owner) == State::Down
        };
        let gone = self.brain.readings.all_claims().filter(down).count() as u32;
        gone.max(self.brain.stewards.held())
    }

    /// Claims of a task (`app.service.slot`), of a service (`app.service`), of an app (`app`), or
    /// by the claim's own hexadecimal id or a unique beginning of 8 digits; newest attempt first.
    pub fn claims(&self, name: &str) -> Vec<ClaimAt> {
        let mut parts = name.splitn(3, '.');
        let (app, service, slot) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let by_name = |entry: &&ClaimEntry| {
            let task = &entry.claim.task;
            task.app.name == app
                && service.is_none_or(|service| task.service == service)
                && slot.is_none_or(|slot| task.slot == slot)
        };
        let mut found: Vec<&ClaimEntry> = self.claims_of(Some(app)).filter(by_name).collect();
        if found.is_empty() && name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let readings = &self.brain.readings;
            found = match ClaimId::from_hex(name) {
                // Peers name claims whole, and often.
                Some(id) => readings.machines.keys().filter_map(|owner| readings.find(owner, &id)).collect(),
                None => readings.all_claims().filter(|entry| entry.claim.id.hex().starts_with(name)).collect(),
            };
            if found.len() > 1 {
                found.clear();
            }
        }
        found.sort_by_key(|entry| {
            let claim = &entry.claim;
            (std::cmp::Reverse((claim.task.app.generation, claim.attempt, claim.accepted_at)), entry.owner)
        });
        let at = |entry: &ClaimEntry| ClaimAt {
            claim: entry.claim.id,
            owner: entry.owner,
            owner_name: self.brain.machine_name(&entry.owner),
            reachable: matches!(self.brain.members.state(&entry.owner), State::Alive | State::Suspect),
            row: self.claim_row(entry),
        };
        found.into_iter().map(at).collect()
    }

    /// Every machine that is known, by name.
    pub fn machines(&self) -> Vec<MachineRow> {
        let mut rows: Vec<MachineRow> =
            self.brain.readings.machines.keys().filter_map(|peer| self.machine_row(peer)).collect();
        rows.sort_by(|one, two| (&one.name, &one.id).cmp(&(&two.name, &two.id)));
        rows
    }

    fn machine_row(&self, peer: &PeerId) -> Option<MachineRow> {
        let machine = self.brain.readings.machines.get(peer)?;
        let used = self.brain.readings.used(peer);
        let reason = match &machine.executor {
            Executor::None(reason) => Some(reason.clone()),
            _ => None,
        };
        let state = match self.brain.members.state(peer) {
            State::Left => "left",
            State::Down => "down",
            State::Suspect => "suspect",
            State::Alive if reason.is_some() => "no-executor",
            State::Alive if machine.draining => "draining",
            State::Alive => "alive",
        };
        Some(MachineRow {
            name: machine.name.clone(),
            id: peer.hex(),
            state: state.into(),
            address: machine.addresses.first().cloned(),
            cpu_millis: machine.capacity.get(CPU_MILLIS),
            memory_bytes: machine.capacity.get(MEMORY_BYTES),
            cpu_millis_free: machine.capacity.free(used, CPU_MILLIS),
            memory_bytes_free: machine.capacity.free(used, MEMORY_BYTES),
            resources: countable(&machine.capacity, used),
            labels: machine.labels.clone(),
            version: machine.version.clone(),
            age_seconds: self.now.wall.saturating_sub(machine.life_since) / 1000,
            clock_offset_ms: self.brain.clocks.offset_ms(peer),
            reason,
            this: *peer == self.brain.me,
            written: self.brain.complete(peer),
        })
    }

    /// A machine by name, by identity, or by a unique beginning of the identity. Of several of one
    /// name one that lives is meant, and this one before others.
    pub fn machine(&self, name: &str) -> Option<(PeerId, MachineRow)> {
        let machines = &self.brain.readings.machines;
        let rank = |peer: &PeerId| (self.brain.members.state(peer), *peer != self.brain.me, *peer);
        let named = machines.iter().filter(|(_, machine)| machine.name == name).map(|(peer, _)| *peer);
        let peer = named.min_by_key(rank).or_else(|| {
            let mut by_id = machines.keys().filter(|peer| name.len() >= 6 && peer.hex().starts_with(name));
            by_id.next().copied().filter(|_| by_id.next().is_none())
        })?;
        Some((peer, self.machine_row(&peer)?))
    }

    /// The cluster as this peer sees it. Warnings and counts of bad input are the driver's to add.
    pub fn status(&self) -> Status {
        let held = self.brain.members.held(self.now);
        let claims = self.brain.readings.all_claims();
        let running = claims.filter(|entry| entry.claim.state == ClaimState::Running && self.absence(entry).is_none());
        let until = held.and_then(|held| held.until_ms).map(|until| until.saturating_sub(self.now.ms));
        Status {
            cluster_id: self.brain.config.cluster.hex(),
            machine: self.brain.machine_name(&self.brain.me),
            version: self.brain.readings.machines.get(&self.brain.me).map_or(String::new(), |m| m.version.clone()),
            machines_alive: self.members_seen(),
            machines_known: self.brain.members.known_count() as u32,
            tasks_running: running.count() as u32,
            tasks_pending: self.pending(),
            holding_back: self.held_back(),
            holding_back_ms: until,
            warnings: self.remarks().into_iter().chain(self.namesakes()).chain(self.floods()).collect(),
            refused: BTreeMap::new(),
            subnet: self.network_machines().own.map(|(_, subnet)| subnet.to_string()),
            links: Vec::new(),
        }
    }

    /// Sentences about machines that write more than anybody takes of one.
    fn floods(&self) -> Vec<String> {
        let flood = |(peer, refused): (PeerId, u64)| {
            let name = self.brain.machine_name(&peer);
            format!(
                "{name} writes more than its budget: {refused} of its messages were refused lately, and not handed on"
            )
        };
        self.brain.over_budget(self.now).map(flood).collect()
    }

    /// Sentences about machines that nobody can tell apart by name.
    fn namesakes(&self) -> Vec<String> {
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        let members = self.brain.readings.machines.iter();
        for (_, machine) in members.filter(|(peer, _)| self.brain.members.state(peer) <= State::Suspect) {
            *names.entry(&machine.name).or_default() += 1;
        }
        let shared = names.into_iter().filter(|(_, count)| *count > 1);
        shared.map(|(name, count)| format!("{count} machines are called {name}: give each its own --name")).collect()
    }

    /// Slots that are wanted, not finished, and that no live claim holds.
    fn pending(&self) -> u32 {
        let mut pending = 0;
        for (app, document) in self.living() {
            for (name, service) in &document.spec.services {
                let revision = service.revision();
                let slots = self.brain.readings.slots(app, name);
                let outcomes = document.outcomes.get(name);
                let wanted = self.brain.shown_slots(app, document, name, service);
                pending += wanted
                    .into_iter()
                    .filter(|slot| {
                        let claims = slots.and_then(|slots| slots.get(slot));
                        let held = claims.into_iter().flatten().any(|entry| !entry.claim.state.has_ended());
                        let outcome = outcomes.and_then(|all| all.get(slot));
                        let done = outcome.is_some_and(|outcome| outcome.revision == revision || is_apart(slot));
                        !held && !done && !self.is_finished(app, name, slot, service)
                    })
                    .count() as u32;
            }
        }
        pending
    }

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

    /// The tasks of a service that DNS names: `None` where there is no such service. A suspect's
    /// tasks, and those that are not healthy, are named only while no others are.
    pub fn endpoints(&self, app: &str, service: &str) -> Option<Endpoints> {
        let app = self.brain.app_named(app)?;
        let spec = self.brain.documents.get(app)?.spec.services.get(service)?;
        let endpoint = |entry: &ClaimEntry| {
            let claim = &entry.claim;
            let machine = self.brain.machine_name(&entry.owner);
            let own = claim.address.map(|address| address.to_string());
            let address = own.or_else(|| self.brain.address_of(&entry.owner))?;
            let (task, slot) = (claim.task.to_string(), claim.task.slot.clone());
            Some(Endpoint { task, slot, machine, address, own: claim.address.is_some(), ports: claim.ports.clone() })
        };
        let tasks = self.answering(app, service).into_iter().filter_map(endpoint).collect();
        Some(Endpoints { address: spec.address, ports: spec.ports.clone(), tasks })
    }

    /// The address of a machine that DNS names; `None` where there is no such machine or it is down.
    pub fn machine_address(&self, name: &str) -> Option<String> {
        let (peer, row) = self.machine(name)?;
        (row.name == name && self.brain.members.state(&peer) <= State::Suspect)
            .then(|| self.brain.address_of(&peer))
            .flatten()
    }

    /// Whose address it is, as DNS names it, without the zone: a running task's, `1.web.shop`, a service's, `web.shop`, or
    /// a machine's, `m1.machine`.
    pub fn whose(&self, address: IpAddr) -> Option<String> {
        if let IpAddr::V4(own) = address {
            for (app, document) in self.living() {
                if let Some((name, _)) = document.spec.services.iter().find(|(_, spec)| spec.address == Some(own)) {
                    return Some(format!("{name}.{}", app.name));
                }
            }
            let runs = |entry: &&ClaimEntry| {
                entry.claim.address == Some(own)
                    && entry.claim.state == ClaimState::Running
                    && self.absence(entry).is_none()
            };
            if let Some(entry) = self.brain.readings.all_claims().find(runs) {
                let task = entry.claim.task.to_string();
                let labels: Vec<&str> = task.split('.').rev().collect();
                return Some(labels.join("."));
            }
        }
        let at = |peer: &&PeerId| {
            self.brain.members.state(peer) <= State::Suspect
                && self.brain.address_of(peer).and_then(|text| text.parse().ok()) == Some(address)
        };
        let peer = self.brain.readings.machines.keys().find(at)?;
        Some(format!("{}.machine", self.brain.machine_name(peer)))
    }

    /// The name people know a machine by.
    pub fn name_of(&self, peer: &PeerId) -> String {
        self.brain.machine_name(peer)
    }

    /// Whether a peer was a member and is none any more.
    pub fn has_departed(&self, peer: &PeerId) -> bool {
        self.brain.readings.departed.contains_key(peer)
    }

    /// The addresses (`IP:PORT`) of a peer, for the mesh.
    pub fn addresses(&self, peer: &PeerId) -> Vec<String> {
        self.brain.addresses(peer)
    }
}

/// Whether a slot is of a run of its own, which no newer revision of its service touches.
fn is_apart(slot: &str) -> bool {
    array::parts(slot).0.is_some()
}

/// What a machine has beside cores and memory: its GPUs, counted together, and what it counts itself.
fn countable(capacity: &Resources, used: &Resources) -> Vec<ResourceRow> {
    let row = |name: &str, total, free| ResourceRow { name: name.to_string(), total, free };
    let gpus = capacity.gpus(used).count() as u64;
    let own = capacity
        .0
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), CPU_MILLIS | MEMORY_BYTES) && !name.starts_with(GPU_PREFIX));
    let gpus = (gpus > 0).then(|| row(GPUS, gpus, capacity.free(used, GPUS)));
    gpus.into_iter().chain(own.map(|(name, total)| row(name, *total, capacity.free(used, name)))).collect()
}
