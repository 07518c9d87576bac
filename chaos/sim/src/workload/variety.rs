//! What people of some worlds run besides: what runs at given times, what is changed step by step, and one on each
//! machine. Each seed has a few of these kinds or none, so that all stay as quick as they are.

use std::collections::BTreeMap;

use rialto_protocol::event::Request;
use rialto_protocol::model::{
    AppSpec, CatchUp, Condition, FailureAction, Mode, OrderWord, Overlap, Pace, Resources, Restart, RolloutPolicy,
    Schedule, Sequence, ServiceSpec, Singleton,
};

use super::{App, Workload, cost, service};
use crate::invariants::{rollout, settles};
use crate::oracle::Deed;
use crate::{Dice, World};

/// How many apps of a kind there are at most: each costs time.
const APPS_MAX: usize = 3;
/// So often somebody wants one of these instead of anything else.
const SHARE: f64 = 0.3;
/// It finds room on every machine: it may take that of anything else.
const EVERYWHERE_PRIORITY: i32 = 60;
/// A batch takes no longer than this when nothing breaks, ms.
const ARRAY_MS_MAX: u64 = 40_000;
/// What runs at given times and on each machine is small: it fits wherever there is a task less.
const SMALL_MILLIS: u64 = 10;
/// The variable that tells a task its version: one value, so that of two edits at once one wins whole.
const VERSION: &str = "VERSION";
/// A task of such a version ends at once, and badly.
const BAD: &str = "bad";

/// Which of them a world has.
#[derive(Debug)]
pub(super) struct Variety {
    /// Its own, so that worlds without any stay what they are.
    dice: Dice,
    schedules: bool,
    changes: bool,
    everywhere: bool,
    /// Arrays with bounds of their own, and graphs that fork and join.
    shapes: bool,
    versions: u64,
}

/// What an app is, where that decides how it is edited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Usual,
    Scheduled,
    Rolling,
    Everywhere,
}

impl Variety {
    /// None for those who follow a written story. Where clocks are wrong by an hour nobody can say which instants there
    /// were.
    pub fn draw(mut dice: Dice, on: bool, clocks_agree: bool) -> Self {
        let mut some = |probability: f64| dice.chance(probability) && on;
        let (schedules, changes) = (some(0.3) && clocks_agree, some(0.3));
        let (everywhere, shapes) = (some(0.2), some(0.4));
        Self { schedules, changes, everywhere, shapes, versions: 0, dice }
    }

    fn version(&mut self, is_bad: bool) -> String {
        self.versions += 1;
        if is_bad { format!("{}-{BAD}", self.versions) } else { self.versions.to_string() }
    }

    /// How large the pieces of a batch are, and how often it may fail.
    pub fn of_batch(&mut self, batch: &mut ServiceSpec) {
        if !self.shapes || batch.gang {
            return;
        }
        let dice = &mut self.dice;
        let ms = batch.command.get(1).and_then(|ms| ms.parse::<u64>().ok()).filter(|_| batch.command[0] == "sleep");
        let least = u64::from(batch.replicas) * ms.unwrap_or(0) / ARRAY_MS_MAX + 1;
        batch.batch.parallelism = dice.between(least, least + 3) as u32;
        if batch.restart == Restart::No && dice.chance(0.3) {
            batch.batch.retries = Some(dice.below(3) as u32);
        }
    }

    /// Between the first and the last two go side by side, and the first may fail at first.
    pub fn of_graph(&mut self, services: &mut Vec<(&'static str, ServiceSpec)>) {
        if !self.shapes {
            return;
        }
        let dice = &mut self.dice;
        if dice.chance(0.5) {
            let side = ServiceSpec { replicas: dice.between(1, 3) as u32, ..services[1].1.clone() };
            services[2].1.depends_on.insert("side".into(), Condition::ServiceCompletedSuccessfully);
            services.push(("side", side));
        }
        if dice.chance(0.5) {
            services[0].1.command = ["until", "3", "true"].map(String::from).to_vec();
        }
    }

    /// The second of two services starts when the first has.
    pub fn of_services(&mut self, services: &mut [(&str, ServiceSpec)]) {
        if let [(first, web), (_, side)] = services
            && self.shapes
            && web.replicas > 0
            // Where nobody grants leases it never starts.
            && web.singleton == Singleton::No
            && self.dice.chance(0.5)
        {
            side.depends_on.insert(first.to_string(), Condition::ServiceStarted);
        }
    }
}

impl Workload {
    /// Somebody wants one of these things; whether that is so.
    pub(super) fn vary(&mut self, world: &mut World) -> bool {
        let variety = &mut self.variety;
        let able = [
            (variety.schedules, Kind::Scheduled),
            (variety.changes, Kind::Rolling),
            (variety.everywhere, Kind::Everywhere),
        ];
        let able: Vec<Kind> = able.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect();
        let Some(kind) = variety.dice.pick(&able).copied().filter(|_| variety.dice.chance(SHARE)) else { return false };
        let of: Vec<String> =
            self.apps.iter().filter(|(_, app)| app.kind == kind).map(|(name, _)| name.clone()).collect();
        let is_new = of.is_empty() || of.len() < APPS_MAX && self.variety.dice.chance(0.3);
        match (kind, self.variety.dice.pick(&of).cloned()) {
            (Kind::Scheduled, _) if is_new => self.deploy_scheduled(world),
            (Kind::Rolling, _) if is_new => self.deploy_rolling(world),
            (Kind::Rolling, Some(app)) => self.roll(world, &app),
            (Kind::Everywhere, None) => self.deploy_everywhere(world),
            _ => return false,
        }
        true
    }

    fn deploy_scheduled(&mut self, world: &mut World) {
        let dice = &mut self.variety.dice;
        let catch_up = if dice.chance(0.6) { CatchUp::All } else { CatchUp::Last };
        let overlap = match dice.below(10) {
            0..6 => Overlap::Allow,
            6..8 => Overlap::Forbid,
            _ => Overlap::Replace,
        };
        let cron = format!("*/{} * * * * *", [4, 5, 10][dice.below(3) as usize]);
        let ms = dice.between(10, 1_000).to_string();
        let schedule = Schedule { cron, catch_up, overlap, ..Schedule::default() };
        let mut job = service(if dice.chance(0.2) { 2 } else { 1 }, &["sleep", &ms]);
        job.reservations = Resources::of(SMALL_MILLIS, 1 << 20);
        (job.restart, job.schedule) = (Restart::No, Some(schedule));
        self.deploy_kind(world, "cron", ("job", job), Kind::Scheduled);
    }

    fn deploy_everywhere(&mut self, world: &mut World) {
        let mut agent = service(1, &["forever"]);
        agent.reservations = Resources::of(SMALL_MILLIS, 1 << 20);
        (agent.mode, agent.priority) = (Mode::Global, EVERYWHERE_PRIORITY);
        self.deploy_kind(world, "agent", ("web", agent), Kind::Everywhere);
    }

    fn deploy_rolling(&mut self, world: &mut World) {
        let version = self.variety.version(false);
        let dice = &mut self.variety.dice;
        let mut web = service(dice.between(2, 6) as u32, &["version"]);
        web.environment.insert(VERSION.into(), version);
        web.drain_ms = Some(0).filter(|_| dice.chance(0.7));
        web.rollout = policy(dice);
        self.deploy_kind(world, "roll", ("web", web), Kind::Rolling);
    }

    fn deploy_kind(&mut self, world: &mut World, prefix: &str, (name, spec): (&str, ServiceSpec), kind: Kind) {
        let cost = cost(&spec) * if kind == Kind::Everywhere { world.machines.len() as u64 } else { 1 };
        if self.spent() + cost > self.budget {
            return;
        }
        // A change and what takes it back are edits of one app: who knows of both says which was the later.
        let Some(home) = self.someone(world) else { return };
        let app = self.name(prefix);
        let takes_back = |pace: &Pace| pace.failure_action == FailureAction::Rollback;
        if kind == Kind::Rolling {
            let is_taken_back = spec.rollout.update.as_ref().is_some_and(takes_back);
            self.oracle.may_come_back(&app, is_taken_back);
        }
        self.create(world, app.clone(), vec![(name, spec)], Some(home), cost);
        self.apps.entry(app).and_modify(|app| (app.scales, app.kind) = (false, kind));
    }

    /// A new version, or a word about the one that is on its way.
    fn roll(&mut self, world: &mut World, name: &str) {
        let Some(app) = self.apps.get(name).filter(|app| !app.removed).cloned() else { return };
        let Some(home) = app.home.filter(|home| world.machines[*home].answers()) else { return };
        if self.variety.dice.chance(0.4) {
            let words = [OrderWord::Promote, OrderWord::Promote, OrderWord::Pause, OrderWord::Resume, OrderWord::Back];
            let word = words[self.variety.dice.below(words.len() as u64) as usize];
            // Who has seen it fail does not say that it is to go on: it never would end.
            let is_bad = version_of(&app.spec).is_some_and(|version| version.ends_with(BAD));
            let word = if is_bad && word == OrderWord::Resume { OrderWord::Back } else { word };
            if word == OrderWord::Back {
                self.oracle.may_come_back(name, true);
            }
            let (author, app) = ("somebody".to_string(), name.to_string());
            return self.demand(world, home, |change| Request::Rollout { change, author, app, service: None, word });
        }
        let is_bad = can_fail(&app.spec) && self.is_as_wanted(world, name, &app) && self.variety.dice.chance(0.4);
        let version = self.variety.version(is_bad);
        let Some(app) = self.apps.get_mut(name) else { return };
        set_version(&mut app.spec, version);
        let deed = Deed::Deploy(app.spec.clone());
        self.wish(world, name, deed, None);
    }

    /// All its tasks run what was asked for last: so there is something that does well to go back to.
    fn is_as_wanted(&self, world: &World, name: &str, app: &App) -> bool {
        let reads = app.home.and_then(|home| settles::look(world, home)).and_then(|view| view.app(name));
        let version = reads.and_then(|app| version_of(&app.spec));
        let Some(version) = version.filter(|held| version_of(&app.spec).as_ref() == Some(held)) else { return false };
        let wanted = app.spec.services.get("web").map_or(0, |web| web.replicas as usize);
        let is_done = app.home.and_then(|home| settles::look(world, home)).and_then(|view| view.rollouts(name));
        let is_done = is_done.is_none_or(|rows| rows.iter().all(|row| row.phase == "done"));
        is_done && rollout::running_with(world, name, "web", &BTreeMap::from([(VERSION.into(), version)])) == wanted
    }

    /// An app that is made anew begins with a version that does well.
    pub(super) fn made_well(&mut self, name: &str) {
        if self.apps.get(name).is_none_or(|app| app.kind != Kind::Rolling) {
            return;
        }
        let version = self.variety.version(false);
        if let Some(app) = self.apps.get_mut(name) {
            set_version(&mut app.spec, version);
        }
    }

    /// The apps of a kind.
    fn of_kind(&self, kind: Kind) -> Vec<String> {
        self.apps.iter().filter(|(_, app)| app.kind == kind).map(|(name, _)| name.clone()).collect()
    }

    /// The apps that are changed step by step.
    pub fn rolling(&self) -> Vec<String> {
        self.of_kind(Kind::Rolling)
    }

    /// Whether anything runs at given times.
    pub fn has_schedules(&self) -> bool {
        self.apps.values().any(|app| app.kind == Kind::Scheduled && !app.removed)
    }

    /// The apps that run at given times.
    pub fn scheduled(&self) -> Vec<String> {
        self.of_kind(Kind::Scheduled)
    }

    /// The same app in a new version, that may be one that fails; and whether it is.
    pub fn changed(&mut self, spec: &AppSpec) -> (AppSpec, bool) {
        let is_bad = can_fail(spec) && self.variety.dice.chance(0.3);
        let mut spec = spec.clone();
        let version = self.variety.version(is_bad);
        set_version(&mut spec, version);
        (spec, is_bad)
    }
}

/// How a service is changed: anything that a file may say.
fn policy(dice: &mut Dice) -> RolloutPolicy {
    let mut pace = || Pace {
        parallelism: dice.below(4) as u32,
        delay_ms: if dice.chance(0.3) { dice.between(100, 1_500) } else { 0 },
        order: if dice.chance(0.4) { Sequence::StartFirst } else { Sequence::StopFirst },
        monitor_ms: dice.between(300, 2_000),
        failure_action: match dice.below(3) {
            0 => FailureAction::Pause,
            1 => FailureAction::Continue,
            _ => FailureAction::Rollback,
        },
        max_failure_ppm: 0,
    };
    let (update, rollback) = (pace(), pace());
    let (says, says_back) = (dice.chance(0.85), dice.chance(0.3));
    let canary = if dice.chance(0.25) { dice.between(1, 2) as u32 } else { 0 };
    RolloutPolicy {
        update: Some(update).filter(|_| says),
        rollback: Some(rollback).filter(|_| says && says_back),
        canary,
        ..RolloutPolicy::default()
    }
}

/// Whether a version that fails comes to rest: where it goes on whatever fails it never does.
fn can_fail(spec: &AppSpec) -> bool {
    let of = |web: &ServiceSpec| web.rollout.update.as_ref().map(|pace| pace.failure_action);
    matches!(spec.services.get("web").and_then(of), Some(FailureAction::Pause | FailureAction::Rollback))
}

fn version_of(spec: &AppSpec) -> Option<String> {
    spec.services.get("web").and_then(|web| web.environment.get(VERSION)).cloned()
}

fn set_version(spec: &mut AppSpec, version: String) {
    if let Some(web) = spec.services.get_mut("web") {
        web.environment.insert(VERSION.into(), version);
    }
}
