//! What happens in the virtual world: it comes to rest, what is asked about happens, and it comes to rest again.

use std::collections::BTreeMap;

use rialto_protocol::event::Request;
use rialto_protocol::ids::{ChangeId, ClaimId};
use rialto_protocol::snapshot::Snapshot;
use rialto_protocol::view::View;

use super::report::{Outlook, Placement, differences, outlook};
use super::revive::{places, revive};
use super::{ForeseeError, Questions, TASKS_MAX};
use crate::dice::Dice;
use crate::executor::Phase;
use crate::world::World;

/// How often it is looked whether anything moves, ms.
const LOOK_MS: u64 = 250;
/// Brains that begin have heard of each other, and of the tasks that run, in this time, ms.
const GATHERING_MS_MAX: u64 = 60_000;
/// It rests when no container has come, gone or changed for so long, ms: longer than the sweep of the stewards, the
/// longest pause between two tries of what does not fit, and the patience with a lost machine that has batches.
const REST_MS: u64 = 35_000;
/// At first nothing of that is expected, and less will do, ms: a steward that has just begun listens for 4 s.
const FIRST_REST_MS: u64 = 12_000;
/// The longest that the storm gate is waited for, ms;
const HOLD_MS_MAX: u64 = 900_000;
/// and so long after that what there is is told, though it does not rest.
const RESTLESS_MS_MAX: u64 = 300_000;

/// Every container: its machine and phase.
type Containers = BTreeMap<(usize, ClaimId), Phase>;

/// A world in which something is about to happen.
#[derive(Debug)]
pub struct Story {
    world: World,
    dice: Dice,
    lose: Vec<usize>,
    newcomers: Vec<usize>,
    as_of: u64,
    /// Where each task was when the snapshot was taken.
    initial: Placement,
    /// Tasks still came and went when it was given up waiting for them to rest.
    restless: bool,
}

impl Story {
    /// Brings the snapshot to life, and waits until all see each other.
    pub fn begin(snapshot: &Snapshot, questions: &Questions) -> Result<Self, ForeseeError> {
        let mut world = revive(snapshot, &questions.add, questions.seed)?;
        let lose = places(&world, snapshot, &questions.lose)?;
        let members: Vec<usize> =
            (0..world.machines.len()).filter(|at| world.machines[*at].joined && !world.machines[*at].dead).collect();
        if lose.len() == members.len() && questions.add.is_empty() {
            return Err(ForeseeError::NobodyLeft(questions.lose.join(", ")));
        }
        let added: usize = questions.add.iter().map(|some| some.count).sum();
        let newcomers = (world.machines.len() - added..world.machines.len()).collect();
        members.iter().for_each(|at| world.start(*at));
        let initial = look(&world, Placement::of).unwrap_or_default();
        let deployed = questions.deploy.iter().flat_map(|(_, spec)| spec.services.values());
        let tasks = initial.wanted + deployed.map(|service| service.replicas as usize).sum::<usize>();
        if tasks > TASKS_MAX {
            return Err(ForeseeError::TooManyTasks(tasks));
        }
        let dice = Dice::new(questions.seed, "questions");
        let mut story = Self { world, dice, lose, newcomers, as_of: snapshot.as_of, initial, restless: false };
        story.gather(members.len())?;
        story.rest(FIRST_REST_MS)?;
        Ok(story)
    }

    /// Has everything happen that is asked about, and tells what came of it.
    pub fn tell(mut self, questions: &Questions) -> Result<Outlook, ForeseeError> {
        let before = look(&self.world, Placement::of).unwrap_or_default();
        let under_way = differences(&self.initial, &before);
        let began_ms = self.world.now_ms();
        let mut last_ms = None;
        for newcomer in self.newcomers.clone() {
            self.world.join(newcomer, self.world.now_ms());
        }
        if !self.newcomers.is_empty() {
            let all = self.up().len() + self.newcomers.len();
            self.gather(all)?;
        }
        if !questions.deploy.is_empty() {
            self.deploy(questions)?;
            last_ms = self.rest(REST_MS)?;
        }
        let lost_ms = self.world.now_ms();
        for at in self.lose.clone() {
            self.world.crash(at, true);
            self.world.machines[at].dead = true;
        }
        if !self.lose.is_empty() {
            last_ms = self.rest(REST_MS)?.or(last_ms);
        } else if questions.deploy.is_empty() {
            last_ms = self.rest(REST_MS)?;
        }
        // What the deploy took before the loss is no part of how long the loss takes.
        let since = if self.lose.is_empty() { began_ms } else { lost_ms };
        let settled_ms = last_ms.map(|last| last.saturating_sub(since));
        let name = |at: &usize| self.world.machines[*at].name.clone();
        let names = |places: &[usize]| {
            let mut names: Vec<String> = places.iter().map(name).collect();
            names.sort();
            names
        };
        let mut told = outlook(&self.world, &before, under_way);
        if self.restless {
            let minutes = (RESTLESS_MS_MAX + HOLD_MS_MAX) / 60_000;
            told.remarks.push(format!("after {minutes} minutes tasks still come and go: this never comes to rest"));
        }
        Ok(Outlook {
            seed: questions.seed,
            as_of: rialto_protocol::rfc3339::rfc3339(self.as_of),
            lost: names(&self.lose),
            added: names(&self.newcomers),
            deployed: questions.deploy.iter().map(|(app, _)| app.clone()).collect(),
            settled_ms: settled_ms.filter(|_| !self.restless),
            simulated_ms: self.world.now_ms() - 1_000,
            ..told
        })
    }

    fn up(&self) -> Vec<usize> {
        (0..self.world.machines.len()).filter(|at| self.world.machines[*at].is_up()).collect()
    }

    /// Waits until so many machines run and each sees all of them.
    fn gather(&mut self, count: usize) -> Result<(), ForeseeError> {
        let until = self.world.now_ms() + GATHERING_MS_MAX;
        loop {
            self.pass(LOOK_MS)?;
            let up = self.up();
            let sees_all = |at: &usize| {
                let machine = &self.world.machines[*at];
                let now = machine.now(self.world.now_us);
                machine.brain.as_ref().is_some_and(|brain| brain.view(now).members_seen() as usize == count)
            };
            if up.len() == count && up.iter().all(sees_all) {
                return Ok(());
            }
            if self.world.now_ms() >= until {
                return Err(ForeseeError::NotInTime("that all machines see each other", GATHERING_MS_MAX / 1000));
            }
        }
    }

    fn deploy(&mut self, questions: &Questions) -> Result<(), ForeseeError> {
        for (ticket, (app, spec)) in questions.deploy.iter().enumerate() {
            let Some(at) = self.up().first().copied() else { return Err(ForeseeError::Nobody) };
            let change = ChangeId(self.dice.bytes());
            let (author, app, spec) = ("foresee".to_string(), app.clone(), spec.clone());
            let request = Request::Deploy { change, author, app: app.clone(), spec };
            self.world.ask(at, ticket as u64, request);
            let until = self.world.now_ms() + GATHERING_MS_MAX;
            loop {
                self.pass(LOOK_MS)?;
                match self.world.answers.pop_front().map(|answer| answer.reply) {
                    Some(Ok(_)) => break,
                    Some(Err(refusal)) => return Err(ForeseeError::Refused(app, refusal.to_string())),
                    None if self.world.now_ms() >= until => {
                        return Err(ForeseeError::NotInTime("the deploy", GATHERING_MS_MAX / 1000));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Waits until nothing moves any more; when the last thing moved, if anything did.
    fn rest(&mut self, quiet_ms: u64) -> Result<Option<u64>, ForeseeError> {
        let began = self.world.now_ms();
        let mut seen = self.containers();
        let (mut last, mut stirred) = (None, began);
        loop {
            self.pass(LOOK_MS)?;
            let now = self.world.now_ms();
            let containers = self.containers();
            if containers != seen {
                (seen, last, stirred) = (containers, Some(now), now);
            }
            let passed = now - began;
            if passed < HOLD_MS_MAX && self.up().iter().any(|at| is_held(&self.world, *at)) {
                // Much is about to move.
                stirred = now;
            } else if now - stirred >= quiet_ms {
                return Ok(last);
            } else if passed >= RESTLESS_MS_MAX + HOLD_MS_MAX {
                self.restless = true;
                return Ok(None);
            }
        }
    }

    fn containers(&self) -> Containers {
        let of = |at: usize| {
            let live = self.world.machines[at].executor.live.iter();
            live.map(move |(claim, container)| ((at, *claim), container.phase))
        };
        (0..self.world.machines.len()).flat_map(of).collect()
    }

    fn pass(&mut self, ms: u64) -> Result<(), ForeseeError> {
        self.world.run_until(self.world.now_ms() + ms);
        match self.world.promises.violations().first() {
            Some(violation) => Err(ForeseeError::Broken(format!("{}: {}", violation.promise, violation.text))),
            None => Ok(()),
        }
    }
}

/// Whether the storm gate of a machine will open by itself.
fn is_held(world: &World, at: usize) -> bool {
    let machine = &world.machines[at];
    let now = machine.now(world.now_us);
    machine.brain.as_ref().is_some_and(|brain| {
        let view = brain.view(now);
        // The cheap look comes first: mostly nothing is held.
        !view.remarks().is_empty() && view.status().holding_back_ms.is_some()
    })
}

/// What the first machine that runs believes.
pub fn look<T>(world: &World, read: impl FnOnce(View<'_>) -> T) -> Option<T> {
    let machine = world.machines.iter().find(|machine| machine.is_up())?;
    Some(read(machine.brain.as_ref()?.view(machine.now(world.now_us))))
}
