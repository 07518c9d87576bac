//! Kinds of service and how they are changed: arrays, graphs, schedules, one on each machine, rollouts; and the death of
//! their stewards.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::{
    AppSpec, Batch, CatchUp, Condition, Dependencies, FailureAction, Mode, OrderWord, Overlap, Pace, Resources,
    Restart, RolloutPolicy, Schedule, Sequence, ServiceSpec,
};
use rialto_protocol::plant::Plant as Brained;
use rialto_protocol::view::{TaskFilter, View};
use rialto_sim::executor::Phase;
use rialto_sim::invariants::{cron, rollout};
use rialto_sim::network::Weather;
use rialto_sim::{Plant, World};

/// A cluster that has been founded, and a person at its first machine.
struct Town {
    world: World,
    asked: u64,
}

impl Town {
    fn new(seed: u64, machines: usize) -> Self {
        Self::planted(seed, machines, None)
    }

    fn planted(seed: u64, machines: usize, plant: Option<Brained>) -> Self {
        let mut world = World::new(seed, machines);
        world.plant = plant.map(Plant::Brain);
        world.network.weather = Weather::FAIR;
        world.gather();
        let mut town = Self { world, asked: 0 };
        town.run(5_000);
        town
    }

    fn view(&self, at: usize) -> Option<View<'_>> {
        let machine = &self.world.machines[at];
        machine.brain.as_ref().map(|brain| brain.view(machine.now(self.world.now_us)))
    }

    /// A machine that runs, for questions.
    fn reader(&self) -> View<'_> {
        (0..self.world.machines.len()).find_map(|at| self.view(at)).expect("some machine runs")
    }

    fn wall(&self) -> u64 {
        self.world.machines[0].now(self.world.now_us).wall
    }

    fn ask(&mut self, make: impl FnOnce(ChangeId, String) -> Request) {
        self.asked += 1;
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.asked.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let at = (0..self.world.machines.len()).find(|at| self.world.machines[*at].serves()).expect("one runs");
        let request = make(ChangeId(id), "test".into());
        self.world.ask(at, self.asked, request);
    }

    fn deploy(&mut self, app: &str, services: Vec<(&str, ServiceSpec)>) {
        let services = services.into_iter().map(|(name, service)| (name.to_string(), service)).collect();
        let spec = AppSpec { services, single_run: false };
        self.world.promises.graph.expect(app, &spec);
        let app = app.to_string();
        self.ask(|change, author| Request::Deploy { change, author, app, spec });
    }

    fn order(&mut self, word: OrderWord) {
        self.ask(|change, author| Request::Rollout { change, author, app: "shop".into(), service: None, word });
    }

    fn run(&mut self, ms: u64) {
        self.world.run_until(self.world.now_ms() + ms);
        assert_eq!(self.world.promises.violations(), [], "at {} ms", self.world.now_ms());
    }

    fn wait(&mut self, what: &str, within_ms: u64, is_so: impl Fn(&Town) -> bool) -> u64 {
        let began = self.world.now_ms();
        while !is_so(self) {
            assert!(self.world.now_ms() < began + within_ms, "{what}: not within {within_ms} ms: {:?}", self.all());
            self.run(20);
        }
        self.world.now_ms() - began
    }

    fn all(&self) -> Vec<String> {
        let rows = self.reader().tasks(&TaskFilter { all: true, ..TaskFilter::default() });
        let told = rows.iter().map(|row| format!("{} {} {:?} {:?}", row.task, row.state, row.exit_code, row.reason));
        told.take(40).collect()
    }

    fn running(&self, app: &str, service: &str) -> usize {
        rollout::running(&self.world, app, service)
    }

    /// How many containers each task of a service has had.
    fn runs(&self, app: &str, service: &str) -> BTreeMap<String, usize> {
        let all = self.world.promises.history.all();
        let of = all.filter(|(task, _)| task.app.name == app && task.service == service);
        of.map(|(task, runs)| (task.slot.clone(), runs.len())).collect()
    }

    fn ended(&self, app: &str, service: &str) -> usize {
        let all = self.world.promises.history.all();
        let of = all.filter(|(task, _)| task.app.name == app && task.service == service);
        of.filter(|(_, runs)| runs.iter().any(|run| matches!(run.ended, Some((_, Some(0)))))).count()
    }

    fn steward(&self, app: &str) -> usize {
        let name = self.reader().app(app).and_then(|app| app.steward).expect("it has one");
        self.world.machines.iter().position(|machine| machine.name == name).expect("it is one of them")
    }

    /// How many of a service's containers run a version.
    fn of_version(&self, version: &str) -> usize {
        let live = self.world.machines.iter().flat_map(|machine| machine.executor.live.values());
        let of = |one: &&rialto_sim::executor::Container| {
            one.phase == Phase::Running && one.spec.environment.get("VERSION").is_some_and(|held| held == version)
        };
        live.filter(of).count()
    }

    fn phase(&self) -> String {
        let rows = self.reader().rollouts("shop").unwrap_or_default();
        rows.first().map(|row| row.phase.clone()).unwrap_or_default()
    }
}

fn service(replicas: u32, command: &[&str]) -> ServiceSpec {
    ServiceSpec {
        image: "host".into(),
        command: command.iter().map(ToString::to_string).collect(),
        replicas,
        reservations: Resources::of(10, 1 << 20),
        stop_grace_ms: Some(500),
        drain_ms: Some(0),
        ..ServiceSpec::default()
    }
}

fn batch(replicas: u32, command: &[&str]) -> ServiceSpec {
    ServiceSpec { restart: Restart::No, ..service(replicas, command) }
}

fn after(names: &[&str]) -> Dependencies {
    names.iter().map(|name| (name.to_string(), Condition::ServiceCompletedSuccessfully)).collect()
}

#[test]
fn an_array_runs_so_many_at_once_and_each_task_once() {
    let mut town = Town::new(1, 3);
    let array = ServiceSpec { batch: Batch { parallelism: 4, ..Batch::default() }, ..batch(30, &["sleep", "400"]) };
    town.deploy("load", vec![("work", array)]);
    let mut most = 0;
    while town.ended("load", "work") < 30 {
        assert!(town.world.now_ms() < 120_000, "{:?}", town.all());
        town.run(20);
        most = most.max(town.running("load", "work"));
    }
    assert_eq!(most, 4);
    assert!(town.runs("load", "work").values().all(|count| *count == 1));
    let spec = town.world.promises.history.all().next().map(|(task, _)| task.slot.clone());
    assert!(spec.is_some());
}

#[test]
fn a_batch_that_is_deployed_again_runs_again() {
    let mut town = Town::new(16, 3);
    // The third is as the first was, whose run and outcome are still known.
    for (before, version) in ["1", "2", "1"].into_iter().enumerate() {
        let environment = [("VERSION".to_string(), version.to_string())].into();
        let work = ServiceSpec { environment, ..batch(1, &["sleep", "200"]) };
        town.deploy("load", vec![("work", work)]);
        let ran = |town: &Town| town.runs("load", "work").get("1").copied().unwrap_or(0);
        town.wait("another run", 20_000, |town| ran(town) == before + 1);
        town.run(10_000);
        assert_eq!((ran(&town), town.of_version(version)), (before + 1, 0));
    }
}

#[test]
fn what_fails_is_tried_so_often_and_a_deadline_is_a_failure() {
    let mut town = Town::new(2, 3);
    let retried = ServiceSpec { batch: Batch { retries: Some(2), ..Batch::default() }, ..batch(1, &["fail", "3"]) };
    let late = Batch { retries: Some(1), deadline_ms: Some(700), ..Batch::default() };
    let overdue = ServiceSpec { batch: late, ..batch(1, &["forever"]) };
    town.deploy("load", vec![("fails", retried), ("hangs", overdue)]);
    town.run(20_000);
    assert_eq!(town.runs("load", "fails")["1"], 3);
    assert_eq!(town.runs("load", "hangs")["1"], 2);
    let codes: BTreeSet<Option<i32>> =
        town.reader().tasks(&TaskFilter::default()).iter().map(|row| row.exit_code).collect();
    assert_eq!(codes, BTreeSet::from([Some(3), Some(124)]));
    // It has ended for good, whoever is the steward.
    let steward = town.steward("load");
    town.world.crash(steward, true);
    town.run(40_000);
    assert_eq!((town.runs("load", "fails")["1"], town.runs("load", "hangs")["1"]), (3, 2));
}

#[test]
fn a_graph_goes_on_under_the_next_steward() {
    let mut town = Town::new(3, 5);
    let services = vec![
        ("extract", batch(1, &["sleep", "1000"])),
        ("transform", ServiceSpec { depends_on: after(&["extract"]), ..batch(8, &["sleep", "6000"]) }),
        ("load", ServiceSpec { depends_on: after(&["transform"]), ..batch(1, &["sleep", "500"]) }),
    ];
    town.deploy("pipeline", services);
    town.wait("the transforms", 20_000, |town| town.running("pipeline", "transform") == 8);
    let steward = town.steward("pipeline");
    town.world.crash(steward, true);
    town.wait("the load", 120_000, |town| town.ended("pipeline", "load") == 1);
    town.run(2_000);
}

#[test]
fn a_graph_waits_for_what_failed_and_says_so() {
    let mut town = Town::new(4, 3);
    let load = ServiceSpec { depends_on: after(&["extract"]), ..batch(1, &["true"]) };
    town.deploy("pipeline", vec![("extract", batch(1, &["fail", "3"])), ("load", load)]);
    town.run(8_000);
    assert!(town.runs("pipeline", "load").is_empty());
    let told = (0..3).filter_map(|at| {
        let view = town.view(at)?;
        let explained = view.explain(&rialto_protocol::explain::Subject::of("pipeline.load")).ok()?;
        explained.services[0].tasks.first().map(|task| task.why.clone())
    });
    let told: Vec<String> = told.collect();
    assert!(told.iter().any(|why| why.contains("extract.1 ended with code 3")), "{told:?}");
}

/// Ten layers of ten services, of ten tasks each; each service waits for two of the layer before it.
#[test]
fn a_graph_of_a_thousand_tasks_costs_little() {
    let mut town = Town::new(5, 3);
    let name = |layer: u32, at: u32| format!("s{layer}-{at}");
    let mut services = BTreeMap::new();
    for layer in 0..10 {
        for at in 0..10 {
            let before = [name(layer.max(1) - 1, at), name(layer.max(1) - 1, (at + 1) % 10)];
            let depends_on = if layer == 0 { Dependencies::new() } else { after(&[&before[0], &before[1]]) };
            services.insert(name(layer, at), ServiceSpec { depends_on, ..batch(10, &["true"]) });
        }
    }
    let spec = AppSpec { services, single_run: false };
    town.world.promises.graph.expect("dag", &spec);
    let began = cpu_ms();
    town.ask(|change, author| Request::Deploy { change, author, app: "dag".into(), spec });
    let done =
        |town: &Town| town.world.promises.history.all().filter(|(task, _)| task.app.name == "dag").count() == 1_000;
    let took = town.wait("the last layer", 120_000, done);
    town.run(3_000);
    let spent = cpu_ms() - began;
    println!("1000 tasks in ten layers: {took} ms of virtual time, {spent} ms of processor time for three peers");
    assert!(town.world.promises.history.all().all(|(_, runs)| runs.len() == 1));
    // Machines that share their cores with others' builds take longer: the figure is what is printed.
    assert!(spent < 3_000, "{spent} ms for 1000 tasks");
}

/// Processor time of this thread, ms (proc(5)): other tests run beside it.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0) / 1_000_000
}

#[test]
fn one_runs_on_each_machine_new_ones_included() {
    let mut town = Town::new(6, 4);
    // The last machine leaves, and joins again later with an empty disk.
    let agent = ServiceSpec { mode: Mode::Global, ..service(1, &["forever"]) };
    town.deploy("agent", vec![("a", agent.clone())]);
    let each = |town: &Town, wanted: usize| {
        let on = |machine: &rialto_sim::machine::Machine| machine.executor.of_app("agent");
        let counts: Vec<usize> = town.world.machines.iter().map(on).collect();
        counts.iter().all(|count| *count <= 1) && counts.iter().sum::<usize>() == wanted
    };
    town.wait("one on each", 10_000, |town| each(town, 4));
    town.world.crash(3, true);
    town.run(20_000);
    assert!(each(&town, 3), "{:?}", town.all());
    town.world.start(3);
    town.wait("one on the machine that came back", 30_000, |town| each(town, 4));
    let scale = |town: &mut Town, replicas| {
        town.ask(|change, author| Request::Scale { change, author, app: "agent".into(), service: None, replicas });
    };
    scale(&mut town, 0);
    town.wait("it is stopped everywhere", 10_000, |town| each(town, 0));
    scale(&mut town, 1);
    town.wait("it is back", 10_000, |town| each(town, 4));
    let changed = ServiceSpec { environment: BTreeMap::from([("VERSION".into(), "2".into())]), ..agent };
    town.deploy("agent", vec![("a", changed)]);
    town.wait("all changed", 60_000, |town| town.of_version("2") == 4 && each(town, 4));
}

fn every_5_s(catch_up: CatchUp, overlap: Overlap) -> Schedule {
    Schedule { cron: "*/5 * * * * *".into(), catch_up, overlap, ..Schedule::default() }
}

#[test]
fn a_schedule_runs_each_instant_once() {
    let mut town = Town::new(7, 3);
    let schedule = every_5_s(CatchUp::All, Overlap::Allow);
    let from = town.wall() + 100;
    town.deploy(
        "nightly",
        vec![("job", ServiceSpec { schedule: Some(schedule.clone()), ..batch(1, &["sleep", "200"]) })],
    );
    town.run(300_000);
    let until = town.wall() - 2_000;
    let found = cron::faults(&town.world, town.reader(), ("nightly", "job"), &schedule, (from, until), &[]);
    assert_eq!(found, [""; 0]);
}

fn survives(plant: Option<Brained>) -> Vec<String> {
    let mut town = Town::planted(8, 5, plant);
    let schedule = every_5_s(CatchUp::All, Overlap::Allow);
    let from = town.wall() + 100;
    town.deploy(
        "nightly",
        vec![("job", ServiceSpec { schedule: Some(schedule.clone()), ..batch(1, &["sleep", "200"]) })],
    );
    let mut broken = Vec::new();
    for _ in 0..3 {
        town.run(40_000);
        let steward = town.steward("nightly");
        let began = town.wall();
        town.world.crash(steward, true);
        town.run(45_000);
        town.world.start(steward);
        town.run(15_000);
        broken.push((began - 1_000, town.wall()));
    }
    town.run(60_000);
    let until = town.wall() - 2_000;
    cron::faults(&town.world, town.reader(), ("nightly", "job"), &schedule, (from, until), &broken)
}

#[test]
fn no_instant_is_forgotten_when_stewards_die_and_the_plant_that_forgets_is_seen() {
    assert_eq!(survives(None), [""; 0]);
    assert!(survives(Some(Brained::ForgetInstants)).iter().any(|fault| fault.contains("was never run")));
}

#[test]
fn both_sides_of_a_split_run_their_instants_and_the_log_says_which_ran_twice() {
    let mut town = Town::new(9, 4);
    let schedule = every_5_s(CatchUp::All, Overlap::Allow);
    let from = town.wall() + 100;
    town.deploy(
        "nightly",
        vec![("job", ServiceSpec { schedule: Some(schedule.clone()), ..batch(1, &["sleep", "200"]) })],
    );
    town.run(30_000);
    let began = town.wall();
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        town.world.network.cut(one, other);
        town.world.network.cut(other, one);
    }
    town.world.notice_cuts();
    town.run(90_000);
    town.world.network.mend_all();
    town.run(60_000);
    let broken = [(began - 6_000, town.wall())];
    town.run(30_000);
    let until = town.wall() - 2_000;
    let found = cron::faults(&town.world, town.reader(), ("nightly", "job"), &schedule, (from, until), &broken);
    assert_eq!(found, [""; 0]);
}

#[test]
fn runs_that_overlap_are_let_be_passed_over_or_replaced() {
    for (overlap, most, least, live) in
        [(Overlap::Allow, 12, 10, 3), (Overlap::Forbid, 5, 3, 1), (Overlap::Replace, 12, 9, 1)]
    {
        let mut town = Town::new(10, 3);
        let schedule = every_5_s(CatchUp::Last, overlap);
        town.deploy(
            "nightly",
            vec![("job", ServiceSpec { schedule: Some(schedule), ..batch(1, &["sleep", "12000"]) })],
        );
        let mut seen = 0;
        for _ in 0..600 {
            town.run(100);
            seen = seen.max(town.running("nightly", "job"));
        }
        let runs = town.runs("nightly", "job");
        assert!((least..=most).contains(&runs.len()), "{overlap:?}: {runs:?}");
        assert_eq!(seen, live, "{overlap:?}");
        if overlap == Overlap::Forbid {
            let told = town.reader().events("nightly", None);
            assert!(told.iter().any(|event| event.what == "missed" && event.text.contains("went on")), "{told:?}");
        }
    }
}

#[test]
fn a_schedule_goes_on_without_the_machine_of_its_last_run() {
    let mut town = Town::new(17, 4);
    let job = ServiceSpec { schedule: Some(every_5_s(CatchUp::Last, Overlap::Replace)), ..batch(1, &["forever"]) };
    town.deploy("nightly", vec![("job", job)]);
    let holder = |town: &Town| town.world.machines.iter().position(|machine| !machine.executor.live.is_empty());
    town.wait("a run", 30_000, |town| holder(town).is_some());
    let machine = holder(&town).expect("one runs it");
    town.world.crash(machine, false);
    let before = town.runs("nightly", "job").len();
    town.run(120_000);
    assert!(town.runs("nightly", "job").len() > before + 5, "{:?}", town.all());
}

#[test]
fn what_may_not_start_yet_takes_nobodys_place() {
    let mut town = Town::new(18, 3);
    let web = |version: &str| ServiceSpec {
        depends_on: after(&["migrate"]),
        environment: [("VERSION".to_string(), version.to_string())].into(),
        ..service(3, &["forever"])
    };
    town.deploy("shop", vec![("migrate", batch(1, &["true"])), ("web", web("1"))]);
    town.wait("the first", 30_000, |town| town.of_version("1") == 3);
    town.deploy("shop", vec![("migrate", batch(1, &["fail", "3"])), ("web", web("2"))]);
    town.run(60_000);
    assert_eq!((town.of_version("1"), town.of_version("2")), (3, 0), "{:?}", town.all());
    town.deploy("shop", vec![("migrate", batch(1, &["sleep", "300"])), ("web", web("3"))]);
    town.wait("the third", 60_000, |town| town.of_version("3") == 3);
}

#[test]
fn a_run_can_be_asked_for_and_is_run_once() {
    let mut town = Town::new(11, 3);
    let nightly = Schedule { cron: "@yearly".into(), ..Schedule::default() };
    let report = ServiceSpec { schedule: Some(nightly), ..batch(2, &["sleep", "100"]) };
    town.deploy("shop", vec![("report", report), ("web", service(1, &["forever"]))]);
    town.run(3_000);
    assert!(town.runs("shop", "report").is_empty());
    town.ask(|change, author| Request::Run { change, author, app: "shop".into(), service: "report".into() });
    town.ask(|change, author| Request::Run { change, author, app: "shop".into(), service: "web".into() });
    town.wait("the run", 10_000, |town| town.ended("shop", "report") == 2);
    let steward = town.steward("shop");
    town.world.crash(steward, false);
    town.run(20_000);
    let runs = town.runs("shop", "report");
    assert!(runs.len() == 2 && runs.keys().all(|slot| slot.starts_with('r')) && runs.values().all(|count| *count == 1));
    assert!(town.runs("shop", "web").len() == 1, "what is kept up is not run once more");
}

#[test]
fn a_run_stays_as_large_as_it_began() {
    let mut town = Town::new(19, 3);
    let nightly = Schedule { since: town.wall(), ..every_5_s(CatchUp::All, Overlap::Allow) };
    let report = |replicas: u32| batch(replicas, &["sleep", "200"]);
    let job = |replicas: u32| ServiceSpec { schedule: Some(nightly.clone()), ..report(replicas) };
    town.deploy("shop", vec![("report", report(1)), ("job", job(1))]);
    town.ask(|change, author| Request::Run { change, author, app: "shop".into(), service: "report".into() });
    town.wait("the runs", 30_000, |town| town.ended("shop", "report") == 2 && town.ended("shop", "job") >= 2);
    let before = town.runs("shop", "job");
    town.deploy("shop", vec![("report", report(3)), ("job", job(2))]);
    town.wait("larger runs", 30_000, |town| {
        let jobs = town.runs("shop", "job");
        town.ended("shop", "report") == 4 && jobs.keys().filter(|slot| slot.ends_with("-2")).count() >= 2
    });
    let (reports, jobs) = (town.runs("shop", "report"), town.runs("shop", "job"));
    assert_eq!(reports.keys().filter(|slot| slot.starts_with('r')).count(), 1, "{reports:?}");
    assert!(reports.values().chain(jobs.values()).all(|count| *count == 1), "{reports:?} {jobs:?}");
    assert!(before.keys().all(|slot| !jobs.contains_key(&format!("{slot}-1"))), "{jobs:?}");
}

fn web(version: &str, policy: RolloutPolicy) -> ServiceSpec {
    let environment = BTreeMap::from([("VERSION".to_string(), version.to_string())]);
    ServiceSpec { environment, rollout: policy, ..service(6, &["forever"]) }
}

fn pace(pace: Pace) -> RolloutPolicy {
    RolloutPolicy { update: Some(Pace { monitor_ms: 1_000, ..pace }), ..RolloutPolicy::default() }
}

/// Changes six tasks, two at a time; whether ever fewer than four ran, and whether its steward may die.
fn changed(plant: Option<Brained>, order: Sequence, dies: bool) -> Result<(), String> {
    let mut town = Town::planted(12, 5, plant);
    let policy = pace(Pace { parallelism: 2, order, ..Pace::default() });
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("the first", 20_000, |town| town.of_version("1") == 6);
    let at_once = if order == Sequence::StartFirst { 0 } else { 2 };
    town.deploy("shop", vec![("web", web("2", policy))]);
    let mut died = false;
    let until = town.world.now_ms() + 120_000;
    while town.of_version("2") < 6 && town.world.now_ms() < until {
        town.run(10);
        if !died {
            rollout::too_few(&town.world, "shop", "web", 6, at_once)?;
        }
        if dies && !died && town.of_version("2") >= 2 {
            died = true;
            let steward = town.steward("shop");
            town.world.crash(steward, false);
        }
    }
    town.wait("it to be done", 60_000, |town| town.phase() == "done");
    match town.of_version("2") {
        6 => Ok(()),
        other => Err(format!("{other} are changed")),
    }
}

#[test]
fn a_change_never_leaves_too_few_and_the_plant_that_does_is_seen() {
    assert_eq!(changed(None, Sequence::StopFirst, false), Ok(()));
    assert_eq!(changed(None, Sequence::StartFirst, false), Ok(()));
    assert_eq!(changed(None, Sequence::StopFirst, true), Ok(()));
    assert!(changed(Some(Brained::RollAllAtOnce), Sequence::StopFirst, false).is_err());
}

#[test]
fn new_ones_that_are_not_fit_yet_are_no_more_than_may_change_at_once() {
    for order in [Sequence::StartFirst, Sequence::StopFirst] {
        let mut town = Town::new(15, 5);
        let policy = pace(Pace { parallelism: 2, order, ..Pace::default() });
        town.deploy("shop", vec![("web", web("1", policy.clone()))]);
        town.wait("the first", 20_000, |town| town.of_version("1") == 6);
        let ailing = ServiceSpec { command: vec!["ails".into()], ..web("2", policy) };
        town.deploy("shop", vec![("web", ailing)]);
        town.wait("two are new", 20_000, |town| town.of_version("2") == 2);
        town.run(30_000);
        let old = if order == Sequence::StartFirst { 6 } else { 4 };
        assert_eq!((town.of_version("2"), town.of_version("1")), (2, old), "{order:?}");
    }
}

#[test]
fn canaries_wait_for_a_word_and_a_pause_holds() {
    let mut town = Town::new(13, 3);
    let policy = RolloutPolicy { canary: 2, ..pace(Pace { parallelism: 3, ..Pace::default() }) };
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("the first", 20_000, |town| town.of_version("1") == 6);
    town.deploy("shop", vec![("web", web("2", policy))]);
    town.wait("canaries", 20_000, |town| town.phase() == "canary");
    // Longer than a change may go without headway: nobody makes any while a person thinks.
    town.run(700_000);
    assert_eq!((town.of_version("2"), town.of_version("1")), (2, 4));
    town.order(OrderWord::Pause);
    town.wait("a pause", 10_000, |town| town.phase() == "paused");
    town.order(OrderWord::Promote);
    town.wait("all", 40_000, |town| town.of_version("2") == 6 && town.phase() == "done");
    town.order(OrderWord::Back);
    town.wait("what was before", 60_000, |town| town.of_version("1") == 6 && town.phase() == "done");
}

#[test]
fn a_change_is_taken_back_before_its_steward_has_spoken_of_it() {
    let mut town = Town::new(24, 3);
    let policy = pace(Pace::default());
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("the first", 20_000, |town| town.of_version("1") == 6);
    town.run(5_000);
    // Of the first change nothing but the document tells, of the next the last change does.
    for _ in 0..2 {
        town.deploy("shop", vec![("web", web("2", policy.clone()))]);
        let (app, service) = ("shop".to_string(), Some("web".to_string()));
        town.ask(|change, author| Request::Rollout { change, author, app, service, word: OrderWord::Back });
        let reads =
            |town: &Town| town.reader().app("shop").unwrap().spec.services["web"].environment["VERSION"].clone();
        town.wait("what was before", 1_000, |town| reads(town) == "1");
        town.wait("all as before", 60_000, |town| town.of_version("1") == 6 && town.of_version("2") == 0);
        town.run(10_000);
        assert_eq!((town.of_version("1"), reads(&town)), (6, "1".to_string()));
    }
}

#[test]
fn what_is_lost_while_a_change_rests_comes_back_as_it_was() {
    let mut town = Town::new(20, 4);
    let policy = RolloutPolicy { canary: 1, ..pace(Pace::default()) };
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("the first", 20_000, |town| town.of_version("1") == 6);
    town.deploy("shop", vec![("web", web("2", policy))]);
    town.wait("a canary", 20_000, |town| town.phase() == "canary");
    let has_old = |town: &Town, at: usize| {
        let live = town.world.machines[at].executor.live.values();
        live.filter(|one| one.spec.environment.get("VERSION").is_some_and(|held| held == "1")).count()
    };
    let steward = town.steward("shop");
    let dies = (0..4).find(|at| *at != steward && has_old(&town, *at) > 0).expect("old ones are on several");
    let left = 5 - has_old(&town, dies);
    town.world.crash(dies, true);
    town.wait("them to be gone", 1_000, |town| town.of_version("1") <= left);
    town.wait("them to be back", 120_000, |town| town.of_version("1") + town.of_version("2") == 6);
    town.run(5_000);
    let (old, new) = (town.of_version("1"), town.of_version("2"));
    assert!(new <= 1 && old >= 5, "{old} old and {new} new");
    // Nor does the emptying of a machine wait for a person's word.
    let full = (0..4).find(|at| *at != steward && *at != dies && has_old(&town, *at) > 0).expect("some are there");
    town.world.ask(full, 1_000, Request::Drain { on: true });
    town.wait("an empty machine", 60_000, |town| has_old(town, full) == 0);
    town.wait("all to be elsewhere", 60_000, |town| town.of_version("1") + town.of_version("2") == 6);
    assert!(town.of_version("1") >= 5);
}

#[test]
fn a_machine_is_emptied_though_a_task_elsewhere_fails_again_and_again() {
    let mut town = Town::new(22, 4);
    let policy = pace(Pace { failure_action: FailureAction::Pause, ..Pace::default() });
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("the first", 20_000, |town| town.of_version("1") == 6);
    let command = ["fail", "3"].map(String::from).to_vec();
    town.deploy("shop", vec![("web", ServiceSpec { command, ..web("2", policy) })]);
    town.wait("a failure", 40_000, |town| town.phase() == "failed");
    town.run(20_000);
    let steward = town.steward("shop");
    let full = (0..4).find(|at| *at != steward && town.world.machines[*at].executor.of_app("shop") > 0);
    let full = full.expect("some are there");
    town.world.ask(full, 1_000, Request::Drain { on: true });
    town.wait("an empty machine", 120_000, |town| town.world.machines[full].executor.live.is_empty());
    town.wait("all but one elsewhere", 60_000, |town| town.of_version("1") == 5);
}

#[test]
fn of_two_stewards_the_one_that_stays_has_the_last_word_of_a_change() {
    let mut town = Town::new(23, 4);
    let policy = pace(Pace { delay_ms: 4_000, ..Pace::default() });
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("the first", 20_000, |town| town.of_version("1") == 6);
    town.deploy("shop", vec![("web", web("2", policy))]);
    town.wait("one", 20_000, |town| town.of_version("2") >= 1);
    // Both sides go on with it, each with a steward, and write how it stands.
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        town.world.network.cut(one, other);
        town.world.network.cut(other, one);
    }
    town.world.notice_cuts();
    for cycle in 0..4 {
        town.run(20_000);
        let at = if cycle % 2 == 0 { 0 } else { 2 };
        town.world.ask(
            at,
            2_000 + cycle,
            Request::Scale {
                change: ChangeId([cycle as u8 + 100; 16]),
                author: "test".into(),
                app: "shop".into(),
                service: None,
                replicas: 6 + cycle as u32 % 2,
            },
        );
    }
    town.world.network.mend_all();
    town.wait("one word of all", 120_000, |town| {
        (0..4).all(|at| {
            let rows = town.view(at).and_then(|view| view.rollouts("shop")).unwrap_or_default();
            rows.first().is_some_and(|row| row.phase == "done")
        })
    });
}

#[test]
fn a_schedule_holds_from_when_most_clocks_say_it_was_deployed() {
    let mut town = Town::new(24, 5);
    // Whoever is asked first has a clock that is an hour behind.
    let at = 0;
    town.world.machines[at].wall_offset_ms = -3_600_000;
    town.run(20_000);
    let job = ServiceSpec { schedule: Some(every_5_s(CatchUp::All, Overlap::Allow)), ..batch(1, &["true"]) };
    town.deploy("nightly", vec![("job", job)]);
    town.run(30_000);
    let runs = town.runs("nightly", "job").len();
    assert!((4..=8).contains(&runs), "{runs} runs in half a minute");
}

#[test]
fn what_is_deployed_again_has_a_change_of_its_own() {
    let mut town = Town::new(21, 3);
    let policy = pace(Pace { failure_action: FailureAction::Pause, ..Pace::default() });
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("the first", 20_000, |town| town.of_version("1") == 6);
    // It fails for a while, as what needs something that is not there yet does.
    let broken = |town: &mut Town, command: &[&str]| {
        let command = command.iter().map(ToString::to_string).collect();
        let broken = ServiceSpec { command, ..web("2", policy.clone()) };
        town.deploy("shop", vec![("web", broken)]);
    };
    broken(&mut town, &["fail", "3"]);
    town.wait("a failure", 40_000, |town| town.phase() == "failed");
    town.order(OrderWord::Pause);
    town.wait("a pause", 10_000, |town| town.phase() == "paused");
    town.deploy("shop", vec![("web", web("1", policy.clone()))]);
    town.wait("what was before", 60_000, |town| town.of_version("1") == 6 && town.phase() == "done");
    broken(&mut town, &["fail", "3"]);
    // Neither the pause nor the failures of the first time are taken for this one's.
    town.wait("a failure of its own", 40_000, |town| town.of_version("1") == 5 && town.phase() == "failed");
    town.run(5_000);
    assert_eq!((town.of_version("1"), town.phase().as_str()), (5, "failed"));
}

#[test]
fn what_fails_is_taken_back_or_stands_still() {
    for (failure_action, phase, back) in [(FailureAction::Rollback, "done", 6), (FailureAction::Pause, "failed", 5)] {
        let mut town = Town::new(14, 3);
        let policy = pace(Pace { failure_action, ..Pace::default() });
        town.deploy("shop", vec![("web", web("1", policy.clone()))]);
        town.wait("the first", 20_000, |town| town.of_version("1") == 6);
        let broken = ServiceSpec { command: vec!["fail".into(), "3".into()], ..web("2", policy) };
        town.deploy("shop", vec![("web", broken)]);
        let mut least = 6;
        let until = town.world.now_ms() + 40_000;
        while town.world.now_ms() < until {
            town.run(20);
            least = least.min(town.of_version("1"));
        }
        assert_eq!((town.phase().as_str(), town.of_version("1")), (phase, back), "{:?}", town.all());
        assert!(least >= 5, "only {least} ran");
        let told = town.reader().events("shop", None);
        assert!(
            told.iter().any(|event| event.what == "rollout" && event.text.contains("1 of 6 tasks failed")),
            "{told:?}"
        );
    }
}

#[test]
fn everybody_has_the_same_log_and_it_outlives_who_wrote_it() {
    let mut town = Town::new(15, 3);
    town.deploy("shop", vec![("web", web("1", RolloutPolicy::default()))]);
    town.run(10_000);
    let logs: Vec<_> = (0..3).map(|at| town.view(at).unwrap().events("shop", None)).collect();
    assert!(logs[0].iter().any(|event| event.what == "deployed" && event.text.contains("test")));
    assert_eq!((&logs[0], &logs[0]), (&logs[1], &logs[2]));
    town.world.crash(0, true);
    town.run(15_000);
    let later = town.reader().events("shop", None);
    assert!(logs[0].iter().all(|event| later.contains(event)));
    let last = &logs[0].last().unwrap().id;
    assert_eq!(town.reader().events("shop", Some(last)).len(), later.len() - logs[0].len());
}
