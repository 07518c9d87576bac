//! The market's orders: who goes first, who has to leave, who starts together, and who may be beside whom.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::{AppSpec, OnHeal, Placement, Resources, Restart, ServiceSpec};
use rialto_protocol::view::TaskFilter;
use rialto_sim::World;
use rialto_sim::executor::Phase;
use rialto_sim::network::Weather;

/// A cluster that has been founded, and a person at its first machine.
struct Town {
    world: World,
    asked: u8,
}

impl Town {
    fn new(seed: u64, machines: usize) -> Self {
        let mut world = World::new(seed, machines);
        world.network.weather = Weather::FAIR;
        world.gather();
        let mut town = Self { world, asked: 0 };
        // Executors have been looked through, and everybody bids.
        town.run(5_000);
        town
    }

    fn change(&mut self) -> ChangeId {
        self.asked += 1;
        ChangeId([self.asked; 16])
    }

    fn ask(&mut self, request: Request) {
        let ticket = u64::from(self.asked);
        self.world.ask(0, ticket, request);
    }

    fn deploy(&mut self, app: &str, services: Vec<(&str, ServiceSpec)>) {
        for (name, service) in services.iter().filter(|(_, service)| service.gang) {
            self.world.promises.gangs.expect(app, name, service.replicas);
        }
        let services = services.into_iter().map(|(name, service)| (name.to_string(), service)).collect();
        let spec = AppSpec { services, single_run: false };
        let (change, author) = (self.change(), "test".to_string());
        self.ask(Request::Deploy { change, author, app: app.into(), spec });
    }

    fn scale(&mut self, app: &str, replicas: u32) {
        let (change, author) = (self.change(), "test".to_string());
        self.ask(Request::Scale { change, author, app: app.into(), service: None, replicas });
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

    /// What runs of an app by machine.
    fn by_machine(&self, app: &str) -> Vec<usize> {
        let of = |machine: &rialto_sim::machine::Machine| {
            let live = machine.executor.live.values();
            live.filter(|one| one.spec.task.app.name == app && one.phase == Phase::Running).count()
        };
        self.world.machines.iter().map(of).collect()
    }

    fn running(&self, app: &str) -> usize {
        self.by_machine(app).into_iter().sum()
    }

    fn all(&self) -> BTreeMap<String, usize> {
        let live = self.world.machines.iter().flat_map(|machine| machine.executor.live.values());
        let mut all = BTreeMap::new();
        live.for_each(|one| *all.entry(one.spec.task.app.name.clone()).or_default() += 1);
        all
    }
}

/// A service of so many tasks of so many thousandths of a core; a machine has 4,000.
fn service(replicas: u32, cpu_millis: u64) -> ServiceSpec {
    ServiceSpec {
        image: "host".into(),
        command: vec!["forever".into()],
        replicas,
        reservations: Resources::of(cpu_millis, 1 << 20),
        stop_grace_ms: Some(1_000),
        ..ServiceSpec::default()
    }
}

fn of_priority(priority: i32, service: ServiceSpec) -> ServiceSpec {
    ServiceSpec { priority, ..service }
}

#[test]
fn work_of_a_much_higher_priority_takes_the_room_of_what_runs_and_gives_it_back() {
    for seed in 1..=5 {
        let mut town = Town::new(seed, 3);
        town.deploy("low", vec![("web", service(12, 1_000))]);
        town.wait("the low ones", 10_000, |town| town.running("low") == 12);
        town.deploy("high", vec![("web", of_priority(10, service(3, 2_000)))]);
        let took = town.wait("the high ones", 15_000, |town| town.running("high") == 3);
        town.run(3_000);
        assert_eq!((town.running("low"), town.running("high")), (6, 3), "no more had to go, seed {seed}, {took} ms");
        town.scale("high", 0);
        town.wait("the low ones again", 30_000, |town| town.running("low") == 12);
    }
}

#[test]
fn who_waits_for_room_that_another_still_leaves_is_not_robbed_of_it() {
    for seed in 1..=10 {
        let mut town = Town::new(seed, 3);
        let slow = |priority| ServiceSpec { stop_grace_ms: Some(10_000), ..of_priority(priority, service(3, 4_000)) };
        town.deploy("low", vec![("web", slow(0))]);
        town.wait("the low ones", 10_000, |town| town.running("low") == 3);
        town.deploy("middle", vec![("web", slow(10))]);
        town.run(150 + 20 * seed);
        town.deploy("high", vec![("web", slow(20))]);
        town.wait("the high ones", 60_000, |town| town.running("high") == 3);
        assert_eq!((town.running("low"), town.running("middle")), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_little_more_priority_only_orders_the_queue() {
    for seed in 1..=5 {
        let mut town = Town::new(seed, 3);
        town.deploy("filler", vec![("web", service(12, 1_000))]);
        town.wait("the machines to be full", 10_000, |town| town.running("filler") == 12);
        town.deploy("first", vec![("web", service(2, 1_000))]);
        town.run(2_000);
        town.deploy("later", vec![("web", of_priority(9, service(2, 1_000)))]);
        town.run(12_000);
        assert_eq!((town.running("first"), town.running("later")), (0, 0), "nobody is ended for nine more");
        for (left, later, first) in [(11, 1, 0), (10, 2, 0), (9, 2, 1), (8, 2, 2)] {
            town.scale("filler", left);
            town.wait("the next", 5_000, |town| town.running("later") + town.running("first") == later + first);
            assert_eq!((town.running("later"), town.running("first")), (later, first), "seed {seed}");
        }
    }
}

#[test]
fn of_the_same_priority_who_waits_longer_goes_first() {
    let mut town = Town::new(3, 3);
    town.deploy("filler", vec![("web", service(12, 1_000))]);
    town.wait("the machines to be full", 10_000, |town| town.running("filler") == 12);
    for app in ["c", "a", "b"] {
        town.deploy(app, vec![("web", service(1, 1_000))]);
        town.run(2_000);
    }
    for (left, apps) in [(11, vec!["c"]), (10, vec!["a", "c"]), (9, vec!["a", "b", "c"])] {
        town.scale("filler", left);
        town.wait("the next", 5_000, |town| {
            ["a", "b", "c"].iter().map(|app| town.running(app)).sum::<usize>() == apps.len()
        });
        let run: Vec<&str> = ["a", "b", "c"].into_iter().filter(|app| town.running(app) == 1).collect();
        assert_eq!(run, apps);
    }
}

#[test]
fn a_gang_starts_whole_or_not_at_all() {
    for seed in 1..=5 {
        let mut town = Town::new(seed, 3);
        town.deploy("filler", vec![("web", service(4, 1_000))]);
        town.wait("the filler", 10_000, |town| town.running("filler") == 4);
        town.deploy("gang", vec![("work", ServiceSpec { gang: true, ..service(10, 1_000) })]);
        town.run(20_000);
        assert_eq!(town.all().get("gang"), None, "eight have room, ten are wanted");
        town.scale("filler", 2);
        town.wait("the gang", 15_000, |town| town.running("gang") == 10);
    }
}

#[test]
fn of_two_gangs_with_room_for_one_one_runs_and_then_the_other() {
    for seed in 1..=10 {
        let mut town = Town::new(seed, 4);
        for app in ["one", "two"] {
            town.deploy(app, vec![("work", ServiceSpec { gang: true, ..service(10, 1_000) })]);
        }
        town.wait("one of them", 30_000, |town| town.running("one") + town.running("two") == 10);
        town.run(10_000);
        assert_eq!(town.all().values().sum::<usize>(), 10);
        let (first, second) = if town.running("one") == 10 { ("one", "two") } else { ("two", "one") };
        town.scale(first, 0);
        town.wait("the other", 30_000, |town| town.running(second) == 10);
    }
}

#[test]
fn a_gang_of_higher_priority_takes_its_room_whole() {
    let mut town = Town::new(4, 3);
    town.deploy("low", vec![("web", service(12, 1_000))]);
    town.wait("the low ones", 10_000, |town| town.running("low") == 12);
    town.deploy("gang", vec![("work", ServiceSpec { gang: true, ..of_priority(50, service(6, 1_000)) })]);
    town.wait("the gang", 20_000, |town| town.running("gang") == 6);
    town.run(3_000);
    assert_eq!(town.running("low"), 6);
}

#[test]
fn a_member_that_is_lost_is_replaced_alone_and_a_new_revision_changes_all() {
    let mut town = Town::new(5, 4);
    let gang = ServiceSpec { gang: true, ..service(6, 1_000) };
    town.deploy("gang", vec![("work", gang.clone())]);
    town.wait("the gang", 10_000, |town| town.running("gang") == 6);
    let lost = town.by_machine("gang")[3];
    town.world.crash(3, true);
    town.wait("it to be whole again", 40_000, |town| town.by_machine("gang")[..3].iter().sum::<usize>() == 6);
    assert!(lost > 0 && town.by_machine("gang")[3] == 0);
    let changed = ServiceSpec { environment: BTreeMap::from([("V".into(), "2".into())]), ..gang };
    town.deploy("gang", vec![("work", changed)]);
    town.wait("the new one", 40_000, |town| {
        let live = town.world.machines.iter().flat_map(|machine| machine.executor.live.values());
        live.filter(|one| one.spec.environment.contains_key("V") && one.phase == Phase::Running).count() == 6
    });
}

#[test]
fn tasks_are_spread_over_labels_and_no_more_are_on_one_machine_than_may_be() {
    let mut town = Town::new(6, 6);
    let spread = Placement { spread: vec!["rack".into()], ..Placement::default() };
    town.deploy("spread", vec![("web", ServiceSpec { placement: spread, ..service(6, 100) })]);
    town.wait("the spread", 10_000, |town| town.running("spread") == 6);
    // Racks r0, r1 and r2 have two machines each.
    assert_eq!(town.by_machine("spread"), [1; 6]);
    let most = Placement { max_per_machine: 2, ..Placement::default() };
    town.deploy("most", vec![("web", ServiceSpec { placement: most, ..service(20, 100) })]);
    town.run(15_000);
    assert_eq!(town.by_machine("most"), [2; 6], "eight wait");
}

#[test]
fn services_that_are_to_be_apart_are_whoever_comes_first() {
    for order in [["db", "web"], ["web", "db"]] {
        let mut town = Town::new(7, 3);
        let apart = Placement { apart_from: vec!["db".into()], ..Placement::default() };
        let mut services =
            BTreeMap::from([("db", service(1, 100)), ("web", ServiceSpec { placement: apart, ..service(6, 100) })]);
        let first = services[order[0]].clone();
        town.deploy("shop", vec![(order[0], first)]);
        let count = if order[0] == "db" { 1 } else { 6 };
        town.wait("the first", 10_000, |town| town.running("shop") == count);
        if order[0] == "web" {
            // Where the others are everywhere, one has to go before the last can come.
            services.get_mut("web").unwrap().replicas = 2;
        }
        town.deploy("shop", services.clone().into_iter().collect());
        let all = 1 + services["web"].replicas as usize;
        town.wait("all", 20_000, |town| town.running("shop") == all);
        for machine in &town.world.machines {
            let live: BTreeSet<&str> =
                machine.executor.live.values().map(|one| one.spec.task.service.as_str()).collect();
            assert!(live.len() < 2, "{} has {live:?}", machine.name);
        }
    }
}

#[test]
fn the_replacement_stays_where_that_is_wanted() {
    for (on_heal, stays) in [(OnHeal::KeepOriginal, true), (OnHeal::KeepReplacement, false)] {
        let mut town = Town::new(8, 5);
        let one = ServiceSpec { on_heal, ..service(1, 100) };
        town.deploy("one", vec![("web", one)]);
        town.wait("it", 10_000, |town| town.running("one") == 1);
        let at = town.by_machine("one").iter().position(|count| *count == 1).unwrap();
        for other in (0..5).filter(|other| *other != at) {
            town.world.network.cut(at, other);
            town.world.network.cut(other, at);
        }
        town.world.notice_cuts();
        town.wait("the replacement", 60_000, |town| town.running("one") == 2);
        let before = town.by_machine("one");
        town.world.network.mend_all();
        town.wait("one of them to go", 60_000, |town| town.running("one") == 1);
        let after = town.by_machine("one");
        assert_eq!(after[at] == 1, stays, "{before:?} {after:?}");
    }
}

#[test]
fn a_task_ends_on_a_machine_that_hears_nobody_where_that_is_wanted() {
    let mut town = Town::new(9, 5);
    let wary = ServiceSpec { stop_when_isolated_ms: Some(20_000), ..service(5, 100) };
    town.deploy("wary", vec![("web", wary)]);
    town.deploy("brave", vec![("web", service(5, 100))]);
    town.wait("both", 10_000, |town| town.running("wary") == 5 && town.running("brave") == 5);
    (1..5).for_each(|other| {
        town.world.network.cut(0, other);
        town.world.network.cut(other, 0);
    });
    town.world.notice_cuts();
    town.run(15_000);
    assert!(town.by_machine("wary")[0] >= 1);
    town.wait("it to end", 30_000, |town| town.by_machine("wary")[0] == 0);
    town.run(70_000);
    assert_eq!(town.by_machine("wary")[0], 0, "nor does it come back while nobody is heard");
    assert!(town.by_machine("brave")[0] >= 1);
    town.world.network.mend_all();
    town.wait("as it was", 60_000, |town| town.running("wary") == 5 && town.running("brave") == 5);
}

#[test]
fn batches_of_all_priorities_are_done_in_the_end_however_often_they_preempt_each_other() {
    for seed in 1..=5 {
        let mut town = Town::new(seed, 3);
        town.world.network.weather.loss = 0.05;
        for (n, priority) in [0, 30, 10, 20, 0].into_iter().enumerate() {
            let work = ServiceSpec {
                command: vec!["sleep".into(), "3000".into()],
                restart: Restart::No,
                gang: n % 2 == 0,
                ..of_priority(priority, service(8, 1_000))
            };
            town.deploy(&format!("batch{n}"), vec![("work", work)]);
            town.run(700);
        }
        town.wait("the end of all", 180_000, |town| {
            let machine = &town.world.machines[0];
            let view = machine.brain.as_ref().unwrap().view(machine.now(town.world.now_us));
            let rows = view.tasks(&TaskFilter { all: true, ..TaskFilter::default() });
            let done = rows.iter().filter(|row| row.exit_code == Some(0)).map(|row| (&row.app, &row.slot));
            done.collect::<BTreeSet<_>>().len() == 40 && town.all().is_empty()
        });
    }
}

/// As where the image is only with machines that this one does not reach.
#[test]
fn what_a_machine_could_not_start_is_tried_on_another() {
    for able in 0..4 {
        let mut town = Town::new(11, 4);
        for (at, machine) in town.world.machines.iter_mut().enumerate() {
            machine.executor.failing = if at == able { 0.0 } else { 1.0 };
        }
        town.deploy("shop", vec![("web", service(1, 100))]);
        town.wait("the one that can", 15_000, |town| town.by_machine("shop")[able] == 1);
    }
}

#[test]
fn a_machine_without_room_on_its_disk_gets_nothing_until_it_has_some() {
    for seed in 1..=5 {
        let mut town = Town::new(seed, 2);
        town.world.machines[1].short = true;
        // It has measured that, and its steward knows no room elsewhere.
        town.run(6_000);
        town.deploy("shop", vec![("web", service(6, 1_000))]);
        town.wait("four run on the other", 10_000, |town| town.by_machine("shop") == [4, 0]);
        town.run(5_000);
        assert_eq!(town.by_machine("shop"), [4, 0], "seed {seed}");
        town.world.machines[1].short = false;
        town.wait("the rest has room", 10_000, |town| town.by_machine("shop") == [4, 2]);
    }
}
