//! P4: ordinary work settles. When the faults are gone, exactly the wanted tasks run, once each, and
//! every batch has finished.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::api::{App, TaskRow};
use rialto_protocol::ids::{AppId, TaskId};
use rialto_protocol::model::schedule::instant_of;
use rialto_protocol::model::{Guard, Mode, Restart, ServiceSpec};
use rialto_protocol::view::{TaskFilter, View};

use super::rollout_ends;
use crate::World;
use crate::executor::{Container, Phase};

/// The most differences that are told.
pub const DIFFERENCES_MAX: usize = 12;

/// What a peer believes that people want.
pub fn wanted(view: &View<'_>) -> Vec<App> {
    let mut apps = view.apps();
    for app in &mut apps {
        // Who looks after an app is an opinion, not a wish.
        app.steward = None;
    }
    apps
}

/// What of the containers is not as it should be: the cheap look, which needs no view but one.
/// `drained`: a machine that has to be empty.
pub fn unsettled_work(world: &World, drained: Option<usize>) -> Vec<String> {
    let Some(reader) = honest(world).next() else { return vec!["nobody runs".into()] };
    let absent = |at: &usize| world.machines[*at].belongs() && !world.machines[*at].joined;
    if let Some(at) = (0..world.machines.len()).find(absent) {
        return vec![format!("m{at} has not joined")];
    }
    let mut found = containers(world, reader, drained);
    if let Some(at) = drained
        && !world.machines[at].executor.live.is_empty()
    {
        found.push(format!("m{at} drains and still has {} containers", world.machines[at].executor.live.len()));
    }
    found
}

/// What is not as it should be: empty when everything has settled among the machines that run.
pub fn differences(world: &World, drained: Option<usize>) -> Vec<String> {
    let mut found = unsettled_work(world, drained);
    if found.is_empty() {
        found = honest(world).next().map(|reader| batches(world, reader)).unwrap_or_default();
    }
    if found.is_empty() {
        return found;
    }
    found.truncate(DIFFERENCES_MAX);
    found.push(stewards(world));
    found
}

/// The machines that run and are held to the promises.
pub fn honest(world: &World) -> impl Iterator<Item = usize> {
    (0..world.machines.len()).filter(|at| world.machines[*at].serves() && world.machines[*at].belongs())
}

/// What the first of them believes.
pub fn reader(world: &World) -> Option<View<'_>> {
    honest(world).next().and_then(|at| look(world, at))
}

/// The apps that are wanted, as the first of them believes.
pub fn wanted_apps(world: &World) -> Option<BTreeSet<AppId>> {
    let view = reader(world)?;
    Some(wanted(&view).iter().map(app_id).collect())
}

/// What a machine believes.
pub fn look(world: &World, at: usize) -> Option<View<'_>> {
    let machine = &world.machines[at];
    machine.brain.as_ref().map(|brain| brain.view(machine.now(world.now_us)))
}

/// The containers on the machines are exactly those that are wanted.
fn containers(world: &World, reader: usize, drained: Option<usize>) -> Vec<String> {
    let mut found = Vec::new();
    let Some(view) = look(world, reader) else { return found };
    let mut live: BTreeMap<TaskId, Vec<(usize, &Container)>> = BTreeMap::new();
    for (at, machine) in world.machines.iter().enumerate().filter(|(_, machine)| !machine.dead) {
        for container in machine.executor.live.values() {
            live.entry(container.spec.task.clone()).or_default().push((at, container));
        }
    }
    let mut expected = BTreeSet::new();
    let mut come_and_go = BTreeSet::new();
    let grants = world.grants_leases();
    for app in wanted(&view) {
        let id = app_id(&app);
        for (name, service) in &app.spec.services {
            if service.schedule.is_some() {
                // What runs at given times is judged by those.
                come_and_go.insert((id.clone(), name.clone()));
                continue;
            }
            if service.mode == Mode::Global {
                found.extend(everywhere(world, &id, name, service, drained, &mut live));
                continue;
            }
            let phase = rollout_ends::phase(&view, &id.name, name).filter(|_| !service.is_batch());
            let rests = rollout_ends::rests(service, phase.as_deref());
            let (mut may_be_missing, may_be_older) = rests.unwrap_or((0, true));
            for slot in 1..=service.replicas {
                let task = TaskId { app: id.clone(), service: name.clone(), slot: slot.to_string() };
                let containers = live.get(&task).map_or(&[][..], Vec::as_slice);
                if containers.is_empty() && service.guard() == Some(Guard::Lease) && !grants {
                    // Nobody can say that it may run.
                } else if !service.is_batch() {
                    if containers.is_empty() && may_be_missing > 0 {
                        may_be_missing -= 1;
                    } else if let Some(what) = kept_up(containers) {
                        found.push(format!("{task} (generation {}) {what}", id.generation));
                    } else if !may_be_older && !containers.iter().all(|(_, one)| rollout_ends::is_newest(one, service))
                    {
                        found.push(format!("{task} (generation {}) runs what it was before", id.generation));
                    }
                } else if !containers.is_empty() {
                    found.push(format!("{task} is a batch and still has {}", told(containers)));
                }
                expected.insert(task);
            }
        }
    }
    let comes_and_goes = |task: &TaskId| {
        let run = task.slot.split('-').next().unwrap_or_default();
        come_and_go.contains(&(task.app.clone(), task.service.clone())) && instant_of(run).is_some()
    };
    for (task, containers) in live.iter().filter(|(task, _)| !expected.contains(task) && !comes_and_goes(task)) {
        let generation = task.app.generation;
        found.push(format!("{task} (generation {generation}) is not wanted and runs on {}", told(containers)));
    }
    found
}

/// Of a service on each machine one runs on each; what is so is taken out of `live`.
fn everywhere(
    world: &World,
    app: &AppId,
    name: &str,
    service: &ServiceSpec,
    drained: Option<usize>,
    live: &mut BTreeMap<TaskId, Vec<(usize, &Container)>>,
) -> Vec<String> {
    let is_of = |task: &TaskId| task.app == *app && task.service == name;
    let mut on: BTreeMap<usize, Vec<(usize, &Container)>> = BTreeMap::new();
    live.retain(|task, containers| {
        if is_of(task) {
            std::mem::take(containers).into_iter().for_each(|(at, one)| on.entry(at).or_default().push((at, one)));
        }
        !is_of(task)
    });
    let mut found = Vec::new();
    for at in honest(world).filter(|at| drained != Some(*at)) {
        let containers = on.remove(&at).unwrap_or_default();
        if let Some(what) = kept_up(&containers) {
            found.push(format!("{app}.{name} on m{at} {what}"));
        } else if !containers.iter().all(|(_, one)| rollout_ends::is_newest(one, service)) {
            found.push(format!("{app}.{name} on m{at} runs what it was before"));
        }
    }
    // What lives elsewhere is on machines that are to have none.
    found.extend(on.values().map(|containers| format!("{app}.{name} is not wanted and runs on {}", told(containers))));
    found
}

/// Every task of every batch has finished.
fn batches(world: &World, reader: usize) -> Vec<String> {
    let mut found = Vec::new();
    let Some(view) = look(world, reader) else { return found };
    let mut rows: BTreeMap<String, Vec<TaskRow>> = BTreeMap::new();
    for row in view.tasks(&TaskFilter { all: true, ..TaskFilter::default() }) {
        rows.entry(row.task.clone()).or_default().push(row);
    }
    for (task, service) in batch_tasks(&view) {
        let rows = rows.get(&task.to_string()).map_or(&[][..], Vec::as_slice);
        found.extend(unfinished(world, &task, &service, rows).map(|what| format!("{task} is a batch and {what}")));
    }
    found
}

/// The tasks of all batches that are wanted.
pub fn batch_tasks(view: &View<'_>) -> Vec<(TaskId, ServiceSpec)> {
    let mut tasks = Vec::new();
    for app in wanted(view) {
        let id = app_id(&app);
        for (name, service) in
            app.spec.services.iter().filter(|(_, service)| service.is_batch() && service.schedule.is_none())
        {
            for slot in 1..=service.replicas {
                let task = TaskId { app: id.clone(), service: name.clone(), slot: slot.to_string() };
                tasks.push((task, service.clone()));
            }
        }
    }
    tasks
}

fn app_id(app: &App) -> AppId {
    AppId { namespace: "default".into(), name: app.app.clone(), generation: app.generation }
}

/// Who looks after the apps, as each machine sees it, and what waits there: for people who look for
/// the cause.
pub fn stewards(world: &World) -> String {
    let mut opinions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for at in 0..world.machines.len() {
        let Some(view) = look(world, at) else { continue };
        let apps: Vec<String> =
            view.apps().iter().map(|app| format!("{} {}", app.app, app.steward.as_deref().unwrap_or("-"))).collect();
        let odd: Vec<String> = view
            .tasks(&TaskFilter::default())
            .into_iter()
            .filter(|row| row.ended_at.is_none() && row.state != "running")
            .map(|row| format!("{} {} {}", row.task, row.state, row.reason.unwrap_or_default()))
            .take(10)
            .collect();
        let opinion = format!("{} | {} | {:?}", apps.join(", "), odd.join(", "), view.remarks());
        opinions.entry(opinion).or_default().push(format!("m{at}"));
    }
    let lines = opinions.into_iter().map(|(opinion, of)| format!("\n    {}: {opinion}", of.join(" ")));
    format!("stewards:{}", lines.collect::<String>())
}

fn kept_up(containers: &[(usize, &Container)]) -> Option<String> {
    match containers {
        [(_, one)] if one.phase == Phase::Running => None,
        [] => Some("does not run".into()),
        other => Some(format!("should run once and has {}", told(other))),
    }
}

fn told(containers: &[(usize, &Container)]) -> String {
    let all: Vec<(usize, Phase)> = containers.iter().map(|(at, one)| (*at, one.phase)).collect();
    format!("{all:?}")
}

/// Why a batch's task is not finished: some attempt of it must be shown as ended for good, and some
/// container must really have ended so.
fn unfinished(world: &World, task: &TaskId, service: &ServiceSpec, rows: &[TaskRow]) -> Option<String> {
    if world.promises.forged.contains(task) {
        return None;
    }
    let runs = world.promises.history.of(task);
    let ended = |code: i32| runs.iter().any(|run| run.ended.is_some_and(|(_, ended)| ended == Some(code)));
    let finishes = |row: &&TaskRow| match row.exit_code {
        Some(code) => row.state == "exited" && service.finishes(Some(code)) && ended(code),
        None => row.state == "failed" && service.finishes(None),
    };
    // What may fail so often and no more has ended when its last try failed.
    let most = service.batch.retries.filter(|_| service.restart == Restart::No);
    let failed =
        runs.iter().filter(|run| run.ended.is_some_and(|(_, code)| code.is_some_and(|code| code != 0))).count();
    let unmade = rows.iter().filter(|row| row.state == "failed" && row.exit_code.is_none()).count();
    let is_over = |row: &TaskRow| matches!(row.state.as_str(), "exited" | "failed");
    if most.is_some_and(|most| failed + unmade > most as usize) && rows.iter().all(is_over) {
        return None;
    }
    if rows.iter().any(|row| finishes(&row)) {
        return None;
    }
    let shown: Vec<_> = rows.iter().map(|row| (row.state.as_str(), row.exit_code, row.attempt)).collect();
    let ran: Vec<_> = runs.iter().map(|run| (run.attempt, run.ended.map(|(_, code)| code))).collect();
    Some(format!("is shown as {shown:?} and ran {ran:?}"))
}
