//! What never runs twice at once, and what runs once, in worlds that are broken on purpose. That nothing overlaps is
//! judged with every container that is made; these tests see to it that there is something to judge.

use rialto_protocol::effect::Reply;
use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::{AppSpec, CatchUp, Resources, Restart, Schedule, ServiceSpec, Singleton};
use rialto_protocol::plant::Plant as Brained;
use rialto_protocol::view::{TaskFilter, View};
use rialto_sim::executor::Phase;
use rialto_sim::invariants::{STRICT, settles};
use rialto_sim::network::Weather;
use rialto_sim::plants::Plant;
use rialto_sim::{Dice, World};

struct Town {
    world: World,
    asked: u64,
}

impl Town {
    fn new(seed: u64, machines: usize, plant: Option<Plant>) -> Self {
        let mut world = World::new(seed, machines);
        world.plant = plant;
        world.network.weather = Weather::FAIR;
        // The clocks of the first two differ as much as they may.
        (world.machines[0].drift_ppm, world.machines[1].drift_ppm) = (10_000, -10_000);
        world.gather();
        Self { world, asked: 0 }
    }

    fn view(&self, at: usize) -> View<'_> {
        settles::look(&self.world, at).expect("it runs")
    }

    fn ask(&mut self, at: usize, make: impl FnOnce(ChangeId, String) -> Request) -> u64 {
        self.asked += 1;
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.asked.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        self.world.ask(at, self.asked, make(ChangeId(id), "test".into()));
        self.asked
    }

    fn deploy(&mut self, service: ServiceSpec) {
        let spec = AppSpec { services: [("db".to_string(), service)].into(), single_run: false };
        self.ask(0, |change, author| Request::Deploy { change, author, app: "shop".into(), spec });
    }

    fn run(&mut self, ms: u64) {
        self.world.run_until(self.world.now_ms() + ms);
        assert_eq!(self.world.promises.violations(), [], "at {} ms", self.world.now_ms());
    }

    fn wait(&mut self, what: &str, within_ms: u64, is_so: impl Fn(&Town) -> bool) -> u64 {
        let began = self.world.now_ms();
        while !is_so(self) {
            assert!(self.world.now_ms() < began + within_ms, "{what}: not within {within_ms} ms: {:?}", self.told());
            self.run(20);
        }
        self.world.now_ms() - began
    }

    fn told(&self) -> Vec<String> {
        let up = (0..self.world.machines.len()).filter(|at| self.world.machines[*at].is_up());
        let all = up.flat_map(|at| self.view(at).tasks(&TaskFilter { all: true, ..TaskFilter::default() }));
        all.map(|row| format!("{} {} on {:?}: {:?}", row.task, row.state, row.machine, row.reason)).take(40).collect()
    }

    /// Where the task runs.
    fn place(&self) -> Option<usize> {
        let runs = |at: &usize| self.world.machines[*at].executor.live.values().any(|one| one.phase == Phase::Running);
        (0..self.world.machines.len()).find(runs)
    }

    fn runs(&self) -> u32 {
        self.world.promises.strict.runs("shop", "db")
    }

    fn isolate(&mut self, at: usize, on: bool) {
        for other in (0..self.world.machines.len()).filter(|other| *other != at) {
            for (from, to) in [(at, other), (other, at)] {
                if on { self.world.network.cut(from, to) } else { self.world.network.mend(from, to) }
            }
        }
    }
}

fn strict() -> ServiceSpec {
    ServiceSpec {
        image: "host".into(),
        command: vec!["forever".into()],
        replicas: 1,
        reservations: Resources::of(10, 1 << 20),
        drain_ms: Some(0),
        stop_grace_ms: Some(500),
        singleton: Singleton::Strict,
        ..ServiceSpec::default()
    }
}

#[test]
fn a_singleton_follows_its_lease() {
    for seed in 1..=8 {
        let mut town = Town::new(seed, 5, None);
        town.deploy(strict());
        town.wait("its first run", 10_000, |town| town.place().is_some());
        town.run(15_000);
        assert_eq!(town.runs(), 1, "it was renewed");

        // A machine is cut off: its task ends there, and then runs elsewhere.
        let first = town.place().unwrap();
        town.isolate(first, true);
        town.run(5_000);
        assert_eq!(town.place(), Some(first), "its lease goes on for a while");
        town.wait("a run elsewhere", 30_000, |town| town.place().is_some_and(|at| at != first));
        town.isolate(first, false);
        town.run(20_000);
        assert_eq!(town.runs(), 2, "{:?}", town.told());

        // A daemon stands still: its shim knows when to stop.
        let second = town.place().unwrap();
        town.world.pause(second, 40_000);
        town.wait("a run elsewhere", 30_000, |town| town.place().is_some_and(|at| at != second));
        town.run(40_000);

        // A daemon is killed, and comes back in time: nothing has happened.
        let third = town.place().unwrap();
        let runs = town.runs();
        town.world.crash(third, false);
        town.run(3_000);
        town.world.start(third);
        town.run(20_000);
        assert_eq!((town.place(), town.runs()), (Some(third), runs), "{:?}", town.told());

        // It is handed over at once.
        town.ask(third, |_, _| Request::Drain { on: true });
        let waited = town.wait("a run elsewhere", 20_000, |town| town.place().is_some_and(|at| at != third));
        assert!(waited < 3_000, "{waited} ms");
    }
}

#[test]
fn without_the_group_none_runs_and_each_says_why() {
    let mut town = Town::new(3, 5, None);
    town.deploy(strict());
    town.wait("its first run", 10_000, |town| town.place().is_some());
    let at = town.place().unwrap();
    let others: Vec<usize> = (0..5).filter(|other| *other != at).collect();
    others[..3].iter().for_each(|other| town.world.crash(*other, true));
    town.wait("its end", 12_000, |town| town.place().is_none());
    town.run(90_000);
    assert_eq!(town.place(), None);
    let told = town.view(at).tasks(&TaskFilter::default());
    let waits =
        told.iter().any(|row| row.reason.as_ref().is_some_and(|why| why.contains("waits for the lock group: too few")));
    assert!(waits, "{told:?}");
    others[..3].iter().for_each(|other| town.world.start(*other));
    town.wait("another run", 30_000, |town| town.place().is_some());
    assert_eq!(town.runs(), 2);
}

#[test]
fn a_singleton_is_changed_moved_and_never_scaled() {
    let mut town = Town::new(4, 4, None);
    town.deploy(strict());
    town.wait("its first run", 10_000, |town| town.place().is_some());
    town.run(3_000);
    let ticket =
        town.ask(1, |change, author| Request::Scale { change, author, app: "shop".into(), service: None, replicas: 2 });
    town.run(2_000);
    let answer = town.world.answers.iter().find(|answer| answer.ticket == ticket).expect("an answer");
    assert!(!matches!(answer.reply, Ok(Reply::Changed { .. })), "{:?}", answer.reply);

    let mut changed = strict();
    changed.environment.insert("REVISION".into(), "2".into());
    town.deploy(changed);
    town.wait("the change", 20_000, |town| town.runs() == 2 && town.place().is_some());
    town.run(5_000);

    let from = town.place().unwrap();
    let view = town.view(0);
    let row = view.tasks(&TaskFilter::default()).into_iter().find(|row| row.state == "running").unwrap();
    let claim = rialto_protocol::ids::ClaimId::from_hex(&row.claim.unwrap()).unwrap();
    let app = rialto_protocol::ids::AppId { namespace: "default".into(), name: "shop".into(), generation: 1 };
    let to = town.world.machines[(from + 1) % 4].id;
    let relocation = rialto_protocol::event::Relocation { app, claim, to };
    town.ask(0, |_, _| Request::Relocate(vec![relocation]));
    town.wait("the move", 20_000, |town| town.place() == Some((from + 1) % 4));
    assert_eq!(town.runs(), 3);
}

fn nightly(exactly_once: bool) -> ServiceSpec {
    let schedule =
        Schedule { cron: "*/20 * * * * *".into(), catch_up: CatchUp::All, exactly_once, ..Schedule::default() };
    ServiceSpec {
        command: vec!["sleep".into(), "1000".into()],
        restart: Restart::No,
        schedule: Some(schedule),
        singleton: Singleton::No,
        ..strict()
    }
}

/// How often each run was started, while machines are cut off and killed.
fn started(seed: u64, exactly_once: bool) -> Vec<usize> {
    let mut town = Town::new(seed, 5, None);
    town.world.minority_hold_ms = Some(5_000);
    let mut dice = Dice::new(seed, "test");
    town.deploy(nightly(exactly_once));
    town.run(5_000);
    for _ in 0..6 {
        let (cut, killed) = (dice.below(5) as usize, dice.below(5) as usize);
        town.isolate(cut, true);
        town.run(dice.between(1_000, 20_000));
        town.world.crash(killed, dice.chance(0.5));
        town.run(dice.between(10_000, 40_000));
        town.world.start(killed);
        town.isolate(cut, false);
        town.run(dice.between(1_000, 20_000));
    }
    town.run(120_000);
    let all = town.world.promises.history.all().filter(|(task, _)| task.app.name == "shop");
    all.map(|(_, runs)| runs.len()).collect()
}

#[test]
fn a_run_that_is_claimed_first_happens_once() {
    let mut twice = 0;
    for seed in 1..=6 {
        let runs = started(seed, true);
        assert!(runs.len() > 15, "seed {seed}: {} instants", runs.len());
        assert!(runs.iter().all(|count| *count == 1), "seed {seed}: {runs:?}");
        twice += started(seed, false).iter().filter(|count| **count > 1).count();
    }
    assert!(twice > 0, "nothing in this world makes a run happen twice");
}

#[test]
fn planted_bugs_are_caught() {
    for plant in [Plant::EndlessLeases, Plant::Brain(Brained::StartUnleased)] {
        let mut town = Town::new(5, 5, Some(plant));
        town.deploy(strict());
        town.world.run_until(town.world.now_ms() + 10_000);
        if let Some(first) = town.place() {
            // Its brain cannot end it, and knows nothing of others.
            town.world.pause(first, 60_000);
            town.world.run_until(town.world.now_ms() + 90_000);
        }
        let broken = town.world.promises.violations();
        assert!(broken.first().is_some_and(|one| one.promise == STRICT), "{plant:?}: {broken:?}");
    }
}
