//! Volumes: one task makes each, whoever shares it; what was given up is written to by nobody; and people mean one of
//! several by its machine or its id.

use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::Request;
use rialto_protocol::explain::NoVolume;
use rialto_protocol::ids::{ChangeId, PeerId};
use rialto_protocol::market::constraint::Constraint;
use rialto_protocol::model::volume::{Named, VolumeMount};
use rialto_protocol::model::{AppSpec, Resources, ServiceSpec};
use rialto_protocol::view::{TaskFilter, View};
use rialto_sim::World;
use rialto_sim::network::Weather;

/// A cluster in which all see each other.
struct Town {
    world: World,
    asked: u64,
}

impl Town {
    fn new(seed: u64, machines: usize) -> Self {
        let mut world = World::new(seed, machines);
        world.network.weather = Weather::FAIR;
        world.gather();
        let mut town = Self { world, asked: 0 };
        town.run(5_000);
        town
    }

    fn view(&self, at: usize) -> View<'_> {
        let machine = &self.world.machines[at];
        machine.brain.as_ref().expect("it runs").view(machine.now(self.world.now_us))
    }

    fn run(&mut self, ms: u64) {
        self.world.run_until(self.world.now_ms() + ms);
        assert_eq!(self.world.promises.violations(), [], "at {} ms", self.world.now_ms());
    }

    fn wait(&mut self, what: &str, is_so: impl Fn(&Town) -> bool) {
        let until = self.world.now_ms() + 60_000;
        while !is_so(self) {
            let rows = self.view(0).tasks(&TaskFilter { all: true, ..TaskFilter::default() });
            assert!(self.world.now_ms() < until, "{what}: {rows:?} {:?}", self.view(0).volumes());
            self.run(20);
        }
    }

    fn ask(&mut self, at: usize, request: Request) -> u64 {
        self.asked += 1;
        self.world.ask(at, self.asked, request);
        self.asked
    }

    /// Asks, and hears what comes of it.
    fn answer(&mut self, at: usize, request: Request) -> Result<Reply, Refusal> {
        let ticket = self.ask(at, request);
        loop {
            if let Some(answer) = self.world.answers.iter().find(|answer| answer.ticket == ticket) {
                return answer.reply.clone();
            }
            self.run(20);
        }
    }

    fn deploy(&mut self, at: usize, app: &str, service: ServiceSpec) {
        let spec = AppSpec { services: [("web".to_string(), service)].into(), single_run: false };
        let change = ChangeId([self.asked as u8 + 1; 16]);
        self.ask(at, Request::Deploy { change, author: "test".into(), app: app.into(), spec });
    }

    /// The machine that runs a task of an app.
    fn home(&self, app: &str) -> Option<usize> {
        self.world.machines.iter().position(|machine| machine.executor.of_app(app) > 0)
    }

    fn volumes(&self, state: &str) -> usize {
        self.view(0).volumes().iter().filter(|row| row.state == state).count()
    }

    fn cut_off(&mut self, machine: usize) {
        for other in (0..self.world.machines.len()).filter(|other| *other != machine) {
            self.world.network.cut(machine, other);
            self.world.network.cut(other, machine);
        }
        self.world.notice_cuts();
    }
}

fn keeping(name: Named) -> ServiceSpec {
    let mut service = ServiceSpec {
        image: "host".into(),
        command: vec!["forever".into()],
        replicas: 1,
        reservations: Resources::of(10, 1 << 20),
        stop_grace_ms: Some(500),
        drain_ms: Some(0),
        ..ServiceSpec::default()
    };
    let volume = VolumeMount { path: "/srv".into(), name: Some(name), read_only: false, no_copy: false };
    service.container.mounts.volumes.push(volume);
    service
}

fn shared() -> Named {
    Named::Shared { name: "media".into(), external: false }
}

#[test]
fn apps_that_share_a_new_volume_make_one() {
    for seed in 1..=4 {
        let mut town = Town::new(seed, 4);
        let apps: Vec<String> = (0..6).map(|number| format!("app{number}")).collect();
        for (at, app) in apps.iter().enumerate() {
            town.deploy(at % 4, app, keeping(shared()));
        }
        town.wait("all to run", |town| apps.iter().all(|app| town.home(app).is_some()));
        town.run(5_000);
        let stewards = apps.iter().map(|app| town.view(0).app(app).unwrap().steward).collect::<Vec<_>>();
        assert!(stewards.iter().any(|one| *one != stewards[0]), "several stewards: {stewards:?}");
        let volumes = town.view(0).volumes();
        assert_eq!(volumes.len(), 1, "seed {seed}: {volumes:?}");
        let home = town.home("app0");
        assert!(apps.iter().all(|app| town.home(app) == home), "seed {seed}");
    }
}

#[test]
fn who_goes_first_and_has_no_room_is_not_waited_for() {
    let mut town = Town::new(5, 3);
    let nowhere = Constraint { label: Some("zone".into()), equal: true, values: vec!["moon".into()] };
    town.deploy(0, "aaa", ServiceSpec { constraints: vec![nowhere], ..keeping(shared()) });
    town.run(1_000);
    let began = town.world.now_ms();
    town.deploy(1, "zzz", keeping(shared()));
    town.wait("the second", |town| town.home("zzz").is_some());
    let waited = town.world.now_ms() - began;
    assert!((9_000..20_000).contains(&waited), "{waited}");
}

#[test]
fn a_task_does_not_go_on_in_what_was_given_up() {
    const NAME: &str = "shop/data";
    let mut town = Town::new(6, 4);
    let machine = town.world.machines[2].name.clone();
    let peer: PeerId = town.world.machines[2].id;
    let there = Constraint { label: None, equal: true, values: vec![machine] };
    town.deploy(0, "shop", ServiceSpec { constraints: vec![there], ..keeping(Named::Own("data".into())) });
    town.wait("the task", |town| town.home("shop") == Some(2));
    let first = town.view(0).volume(NAME, None).unwrap();
    for round in 1..=2 {
        town.run(5_000);
        let before = town.view(0).volume(NAME, None).unwrap().volume.id;
        town.cut_off(2);
        town.wait("it to be held for down", |town| town.volumes("down") == 1);
        assert_eq!(town.answer(0, Request::VolumeRelease { name: NAME.into() }), Ok(Reply::Done));
        town.world.network.mend_all();
        town.wait("another volume", |town| {
            let now = town.view(0).volume(NAME, None);
            now.is_ok_and(|now| now.owner == peer && now.volume.id != before)
        });
        town.run(5_000);
        let live: Vec<_> = town.world.machines[2].executor.live.values().map(|one| one.spec.volumes.clone()).collect();
        let counts = town.view(0).volume(NAME, None).unwrap().volume.id;
        assert_eq!(live, [[(NAME.to_string(), counts)].into()], "round {round}");
        let rows = town.view(0).tasks(&TaskFilter { all: true, ..TaskFilter::default() });
        let why =
            |row: &rialto_protocol::api::TaskRow| row.reason.as_deref().is_some_and(|why| why.contains("was given up"));
        assert!(rows.iter().any(why), "{rows:?}");
    }

    // On that machine are two that were given up, and the one that counts.
    let view = town.view(0);
    let meant = view.volume(NAME, None).unwrap();
    let all: Vec<_> = view.volumes().into_iter().map(|row| (row.id, row.state)).collect();
    assert_eq!((all.len(), meant.counts), (3, true), "{all:?}");
    assert!(matches!(view.volume(NAME, Some(&peer)), Err(NoVolume::Several { all, .. }) if all.len() == 2));
    let by_id = view.volume(&first.volume.id.hex(), Some(&peer)).unwrap();
    assert_eq!((by_id.volume.id, by_id.counts), (first.volume.id, false));
    assert!(matches!(view.volume("shop/other", None), Err(NoVolume::Missing(_))));
    let removal = |id| Request::VolumeRemove { id, force: false };
    assert!(matches!(town.answer(2, removal(first.volume.id)), Ok(Reply::Volume(gone)) if gone.id == first.volume.id));
    town.run(2_000);
    // Now one is left that was given up: with its machine it is that one, and never the one in use.
    let given_up = town.view(0).volume(NAME, Some(&peer)).unwrap();
    assert!(!given_up.counts && given_up.volume.id != meant.volume.id);
    assert!(matches!(town.answer(2, removal(meant.volume.id)), Err(Refusal::Denied(_))), "it is in use");
    town.answer(2, removal(given_up.volume.id)).unwrap();
    town.run(2_000);
    let last = town.view(0).volume(NAME, Some(&peer)).unwrap();
    assert_eq!((last.counts, last.volume.id), (true, meant.volume.id));

    // The app is gone, and its machine comes to nothing: what is left was given up, and is found with a machine or an id.
    town.cut_off(2);
    town.wait("it to be held for down", |town| town.volumes("down") == 1);
    town.answer(0, Request::VolumeRelease { name: NAME.into() }).unwrap();
    assert!(matches!(town.view(0).volume(NAME, None), Err(NoVolume::GivenUp { all, .. }) if all.len() == 1));
    assert!(town.view(0).volume(&meant.volume.id.hex(), None).is_ok());
}
