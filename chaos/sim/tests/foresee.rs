//! What is foreseen comes true: the same cluster, asked what would happen and then made to go through it.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::event::Request;
use rialto_protocol::explain::Subject;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::{AppSpec, Resources, ServiceSpec};
use rialto_protocol::snapshot::Snapshot;
use rialto_protocol::view::{TaskFilter, View};
use rialto_sim::World;
use rialto_sim::foresee::{ForeseeError, Newcomers, Outlook, Questions, foresee};

const GIB: u64 = 1 << 30;

/// A cluster of machines of so many GiB each, all of which see each other.
fn cluster(seed: u64, gib: &[u64]) -> World {
    let mut world = World::new(seed, gib.len());
    for (machine, gib) in world.machines.iter_mut().zip(gib) {
        machine.capacity = Resources::of(16_000, gib * GIB);
    }
    world.start(0);
    (1..gib.len()).for_each(|newcomer| world.join(newcomer, 1_000));
    until(&mut world, |world| {
        let all = world.machines.len();
        (0..all).all(|at| world.machines[at].is_up() && view(world, at, |view| view.members_seen() as usize) == all)
    });
    world
}

fn view<T>(world: &World, at: usize, look: impl FnOnce(View<'_>) -> T) -> T {
    let machine = &world.machines[at];
    look(machine.brain.as_ref().unwrap().view(machine.now(world.now_us)))
}

fn until(world: &mut World, is_so: impl Fn(&World) -> bool) {
    let end = world.now_ms() + 200_000;
    while !is_so(world) {
        assert!(world.now_ms() < end, "it never came to that");
        world.run_until(world.now_ms() + 250);
        assert_eq!(world.promises.violations(), []);
    }
}

fn service(replicas: u32, gib: u64) -> ServiceSpec {
    ServiceSpec { image: "host".into(), replicas, reservations: Resources::of(100, gib * GIB), ..Default::default() }
}

fn app(services: &[(&str, ServiceSpec)]) -> AppSpec {
    let services = services.iter().map(|(name, service)| (name.to_string(), service.clone())).collect();
    AppSpec { services, single_run: false }
}

fn deploy(world: &mut World, name: &str, spec: &AppSpec) {
    let mut change = [0; 16];
    change[..name.len()].copy_from_slice(name.as_bytes());
    let request =
        Request::Deploy { change: ChangeId(change), author: "test".into(), app: name.into(), spec: spec.clone() };
    world.ask(0, 0, request);
    let end = world.now_ms() + 30_000;
    world.run_until(end);
}

/// Where each task runs, by the machine that is asked, and those that wait.
fn placed(world: &World, at: usize) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let rows = view(world, at, |view| view.tasks(&TaskFilter::default()));
    let (running, waiting): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.state == "running");
    let waiting = waiting.into_iter().filter(|row| row.state == "pending").map(|row| row.task);
    (running.into_iter().map(|row| (row.task, row.machine.unwrap())).collect(), waiting.collect())
}

fn snapshot(world: &World, at: usize) -> Snapshot {
    let taken = view(world, at, |view| view.snapshot());
    // As the client gets it.
    Snapshot::from_bytes(&taken.to_bytes()).unwrap()
}

fn moved(outlook: &Outlook) -> BTreeSet<String> {
    outlook.moves.iter().map(|one| one.task.clone()).collect()
}

fn lose(machine: &str) -> Questions {
    Questions { lose: vec![machine.into()], seed: 1, ..Default::default() }
}

#[test]
fn what_is_foreseen_of_a_loss_comes_true() {
    for seed in 1..=4 {
        // Full enough that not all of what is lost finds room: each task takes 1 or 2 GiB of 20.
        let mut world = cluster(seed, &[4, 4, 4, 4, 4]);
        deploy(&mut world, "shop", &app(&[("web", service(10, 1)), ("db", service(3, 2))]));
        let (before, none) = placed(&world, 0);
        assert_eq!((before.len(), none.len()), (13, 0), "SEED={seed}");
        let outlook = foresee(&snapshot(&world, 1), &lose("m3")).unwrap();
        assert_eq!(outlook.under_way, [], "SEED={seed}");
        assert_eq!((outlook.machines, &outlook.lost[..]), (5, &["m3".to_string()][..]));
        assert!(outlook.moves.iter().all(|one| one.from.as_deref() == Some("m3")), "{:?}", outlook.moves);

        world.crash(3, true);
        world.machines[3].dead = true;
        let end = world.now_ms() + 90_000;
        world.run_until(end);
        let (after, waiting) = placed(&world, 0);
        let lost: BTreeSet<String> =
            before.iter().filter(|(_, at)| *at == "m3").map(|(task, _)| task.clone()).collect();
        assert!(!lost.is_empty());
        assert_eq!(moved(&outlook), lost, "SEED={seed}");
        let waits: BTreeSet<String> = outlook.waiting.iter().cloned().collect();
        // Which of two tasks that do not both fit is placed first is chance; how much waits is not.
        assert_eq!(waits.len(), waiting.len(), "SEED={seed}: {waits:?} {waiting:?}");
        assert_eq!(outlook.unmoved, after.iter().filter(|(task, at)| before.get(*task) == Some(at)).count());
        let settled = outlook.settled_ms.unwrap();
        assert!((2_000..20_000).contains(&settled), "SEED={seed}: {settled} ms");
    }
}

#[test]
fn the_same_question_has_the_same_answer() {
    let mut world = cluster(7, &[4, 4, 4]);
    deploy(&mut world, "shop", &app(&[("web", service(6, 1))]));
    let taken = snapshot(&world, 0);
    let questions = Questions {
        add: vec![Newcomers { count: 2, like: "m1".into() }],
        deploy: vec![("blog".into(), app(&[("page", service(4, 2))]))],
        ..lose("m2")
    };
    let once = foresee(&taken, &questions).unwrap();
    assert_eq!(once, foresee(&taken, &questions).unwrap());
    assert_eq!(once.added, ["m1-like-1", "m1-like-2"]);
    assert_eq!(once.waiting, Vec::<String>::new(), "{once:#?}");
    let pages = once.moves.iter().filter(|one| one.task.starts_with("blog.page.") && one.from.is_none());
    assert_eq!(pages.count(), 4);
    // What the live cluster has is as it was: a look changes nothing.
    assert_eq!(taken, snapshot(&world, 0));
}

#[test]
fn what_would_wait_is_told_with_the_reasons_of_explain() {
    let mut world = cluster(3, &[4, 4, 8]);
    deploy(&mut world, "shop", &app(&[("web", service(3, 1))]));
    let big = app(&[("big", service(2, 6))]);
    let outlook = foresee(&snapshot(&world, 2), &Questions { deploy: vec![("job".into(), big)], ..Default::default() });
    let outlook = outlook.unwrap();
    assert_eq!(outlook.waiting, ["job.big.2"]);
    let told = &outlook.why[0].services[0];
    let rows: Vec<(&str, &str, Vec<&str>)> = told
        .machines
        .iter()
        .map(|row| (row.code.as_str(), row.text.as_str(), row.machines.iter().map(String::as_str).collect()))
        .collect();
    let small = "too small: needs 6 GiB of memory, has at most 4 GiB";
    let full = "not enough memory: needs 6 GiB, at most 1 GiB free";
    assert_eq!(rows, [("too-small", small, vec!["m0", "m1"]), ("full", full, vec!["m2"])]);
    assert!(outlook.why[0].by_steward);

    // With room for it nothing waits.
    let questions = Questions {
        deploy: vec![("job".into(), app(&[("big", service(2, 6))]))],
        add: vec![Newcomers { count: 1, like: "m2".into() }],
        ..Default::default()
    };
    assert_eq!(foresee(&snapshot(&world, 2), &questions).unwrap().waiting, Vec::<String>::new());
}

#[test]
fn a_minority_is_foreseen_to_hold_back_first() {
    let mut world = cluster(5, &[8, 8, 8]);
    deploy(&mut world, "shop", &app(&[("web", service(3, 1))]));
    let questions = Questions { lose: vec!["m1".into(), "m2".into()], seed: 1, ..Default::default() };
    let outlook = foresee(&snapshot(&world, 0), &questions).unwrap();
    assert_eq!(outlook.waiting, Vec::<String>::new());
    assert!(outlook.settled_ms.unwrap() > 60_000, "the storm gate's hold comes first: {outlook:?}");
}

#[test]
fn a_machine_that_is_down_already_is_left_alone() {
    let mut world = cluster(11, &[8, 8, 8, 8]);
    deploy(&mut world, "shop", &app(&[("web", service(4, 1))]));
    world.crash(3, true);
    world.machines[3].dead = true;
    let end = world.now_ms() + 40_000;
    world.run_until(end);
    let taken = snapshot(&world, 0);
    let outlook = foresee(&taken, &lose("m2")).unwrap();
    assert_eq!(outlook.under_way, []);
    assert!(outlook.moves.iter().all(|one| one.from.as_deref() == Some("m2")), "{:?}", outlook.moves);
    assert_eq!(foresee(&taken, &lose("m3")), Err(ForeseeError::Down("m3".into())));
}

#[test]
fn wrong_questions_are_refused() {
    let world = cluster(13, &[4, 4, 4]);
    let taken = snapshot(&world, 0);
    let add = |count, like: &str| Questions { add: vec![Newcomers { count, like: like.into() }], ..Default::default() };
    let all = Questions { lose: ["m0", "m1", "m2"].map(String::from).into(), ..Default::default() };
    let many = app(&[("web", ServiceSpec { replicas: 50_000, ..service(1, 1) })]);
    for (questions, error) in [
        (lose("m9"), ForeseeError::NoMachine("m9".into(), "m0, m1, m2".into())),
        (add(1, ""), ForeseeError::NoMachine("".into(), "m0, m1, m2".into())),
        (add(900, "m1"), ForeseeError::TooManyMachines(903)),
        (all, ForeseeError::NobodyLeft("m0, m1, m2".into())),
        (Questions { deploy: vec![("a".into(), many)], ..Default::default() }, ForeseeError::TooManyTasks(50_000)),
    ] {
        match (foresee(&taken, &questions).unwrap_err(), error) {
            // The order of names is that of identities.
            (ForeseeError::NoMachine(name, _), ForeseeError::NoMachine(wanted, _)) => assert_eq!(name, wanted),
            (found, wanted) => assert_eq!(found, wanted),
        }
    }
    let empty = Snapshot { records: Vec::new(), ..taken };
    assert_eq!(foresee(&empty, &lose("m1")), Err(ForeseeError::Nobody));
}

#[test]
fn fifty_machines_are_foreseen() {
    let mut world = cluster(17, &[8; 50]);
    deploy(&mut world, "shop", &app(&[("web", service(200, 1))]));
    let began = std::time::Instant::now();
    let outlook = foresee(&snapshot(&world, 9), &lose("m7")).unwrap();
    println!("50 machines: {:?} for {} ms of virtual time", began.elapsed(), outlook.simulated_ms);
    assert_eq!(outlook.waiting, Vec::<String>::new());
    let there = placed(&world, 0).0.into_values().filter(|machine| machine == "m7").count();
    assert_eq!(outlook.moves.len(), there, "{:?}", outlook.moves);
}

#[test]
fn another_peer_explains_what_the_ledger_says() {
    let mut world = cluster(19, &[4, 4, 4]);
    deploy(&mut world, "job", &app(&[("big", service(1, 9))]));
    for at in 0..3 {
        let told = view(&world, at, |view| view.explain(&Subject::of("job"))).unwrap();
        assert_eq!(told.services[0].waiting, 1);
        let row = &told.services[0].machines[0];
        assert_eq!((row.code.as_str(), row.count), ("too-small", 3), "at m{at}: {told:#?}");
        assert_eq!(told.by_steward, told.steward.as_deref() == Some(&*format!("m{at}")));
    }
}
