//! What people do while things break: they deploy, run, scale, remove, make again and drain, at
//! whatever peer is at hand.

mod orders;
mod variety;

use std::collections::BTreeMap;

use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::resources::CPU_MILLIS;
use rialto_protocol::model::volume::{Named, VolumeMount};
use rialto_protocol::model::{
    AppSpec, Batch, Condition, Dependencies, OnLost, Placement, PortMode, PortSpec, Resources, Restart, ServiceSpec,
    Singleton,
};

use crate::invariants::ACKNOWLEDGED;
use crate::oracle::{Deed, Fate, Oracle, Wish};
use crate::{Dice, World};
use orders::Orders;
use variety::{Kind, Variety};

/// Tickets from here on are not wishes about apps.
const ELSE: u64 = 1 << 40;

/// How often volumes of machines that are down are given up, ms.
const RELEASE_MS: u64 = 30_000;

/// What a person knows of an app of theirs.
#[derive(Clone, Debug)]
struct App {
    /// It is edited at this machine alone; `None`: anywhere.
    home: Option<usize>,
    spec: AppSpec,
    removed: bool,
    /// It may be given as many replicas as anybody likes.
    scales: bool,
    /// The most millicores that its services ever wanted.
    cost: u64,
    kind: Kind,
}

/// The people.
#[derive(Debug)]
pub struct Workload {
    dice: Dice,
    pub oracle: Oracle,
    apps: BTreeMap<String, App>,
    /// Millicores that services may want in all.
    budget: u64,
    orders: Orders,
    variety: Variety,
    machines: usize,
    /// The machines that were ever asked to drain, and whether the last order was to drain.
    drained: BTreeMap<usize, bool>,
    drains: bool,
    tickets: u64,
    next_port: u16,
    released_ms: u64,
    /// Its own, so that what else people want is the same; in some worlds nobody keeps anything.
    volumes: Option<Dice>,
    /// So are those who want only one of a kind.
    strict: Dice,
}

impl Workload {
    /// People who want no more than `survivors` machines of `machines` can give. `varies`: of all kinds of things;
    /// `clocks_agree`: they know what time it is.
    pub fn new(seed: u64, machines: usize, survivors: usize, (varies, clocks_agree): (bool, bool)) -> Self {
        let mut dice = Dice::new(seed, "workload");
        let drains = survivors > 2 && survivors == machines && dice.chance(0.4);
        let usable = if drains { survivors - 1 } else { survivors };
        // Some clusters are nearly full: what is left on each machine still holds any one task.
        let share = if dice.chance(0.3) { 85 } else { 45 };
        let mut volumes = Dice::new(seed, "volumes");
        // There is room for what is pinned on any machine that may be there in the end.
        let keeps = share < 50 && !drains && volumes.chance(0.4);
        let orders = Orders::draw(Dice::new(seed, "orders"), usable, share < 50);
        Self {
            dice,
            orders,
            variety: Variety::draw(Dice::new(seed, "variety"), varies, clocks_agree),
            oracle: Oracle::default(),
            apps: BTreeMap::new(),
            budget: usable as u64 * 4_000 * share / 100,
            machines: usable,
            drained: BTreeMap::new(),
            drains,
            tickets: ELSE,
            next_port: 8_000,
            released_ms: 0,
            volumes: Some(volumes).filter(|_| keeps),
            strict: Dice::new(seed, "strict"),
        }
    }

    /// How long until somebody wants something again, ms.
    pub fn pause_ms(&mut self) -> u64 {
        self.dice.exponential(1_500).max(20)
    }

    /// Somebody wants something.
    pub fn act(&mut self, world: &mut World) {
        if self.vary(world) {
            return;
        }
        let known: Vec<String> = self.apps.keys().cloned().collect();
        let some = self.dice.pick(&known).cloned();
        match (self.dice.below(100), some) {
            (0..25, _) => self.deploy_services(world),
            (25..40, _) => self.deploy_batch(world),
            (40..45, _) => self.deploy_graph(world),
            (45..58, _) => self.single_run(world),
            (58..73, Some(app)) => self.scale(world, &app),
            (73..80, Some(app)) => self.revise(world, &app),
            (80..88, Some(app)) => self.remove(world, &app),
            (88..93, Some(app)) => self.make_again(world, &app),
            (93..96, Some(app)) => self.repeat(world, &app),
            (96.., _) => self.drain(world),
            _ => {}
        }
    }

    /// Takes the answers that have come.
    pub fn hear(&mut self, world: &mut World) {
        while let Some(answer) = world.answers.pop_front() {
            let Some(wish) = self.oracle.wish(answer.ticket) else { continue };
            let fate = match answer.reply {
                // It read so already: there is no change to keep, and this machine knew.
                Ok(Reply::Changed { copies, changed: false, .. }) => {
                    Fate::Acknowledged { copies, holders: vec![answer.machine] }
                }
                Ok(Reply::Changed { copies, .. }) => {
                    let holders = answer.holders;
                    // A disk that was lost or put back since may have held it.
                    let lost = |ms: u64| ms >= wish.asked_ms;
                    let intact = !world.machines.iter().any(|machine| machine.disk_lost_ms.is_some_and(lost));
                    if (holders.len() as u32) < copies && intact {
                        let text = format!(
                            "m{} says that {copies} hold a change of {}, and it is on the disks of {holders:?}",
                            answer.machine, wish.app
                        );
                        world.promises.broken(ACKNOWLEDGED, world.now_ms(), text);
                    }
                    Fate::Acknowledged { copies, holders }
                }
                Ok(other) => Fate::Refused(format!("{other:?}")),
                // Nothing is said of whether it was done before.
                Err(Refusal::Busy) => Fate::Unknown,
                Err(refusal) => Fate::Refused(refusal.to_string()),
            };
            world.trace.mix(answer.ticket);
            let now_us = world.now_us;
            world.trace.line(now_us, || format!("m{} answers wish {}: {fate:?}", answer.machine, answer.ticket));
            self.oracle.told(answer.ticket, fate);
        }
    }

    /// The last orders about draining, given again to machines that may have missed them; the
    /// machine that stays drained, in some worlds.
    pub fn settle_drains(&mut self, world: &mut World) -> Option<usize> {
        // Of those that can be asked.
        self.drained.retain(|machine, _| world.machines[*machine].serves());
        let stays = self.drained.keys().next().copied().filter(|_| self.dice.chance(0.5));
        for machine in self.drained.keys().copied().collect::<Vec<_>>() {
            self.order(world, machine, stays == Some(machine));
        }
        stays
    }

    /// Whether a machine was ever asked to drain.
    pub fn is_drained(&self, machine: usize) -> bool {
        self.drained.contains_key(&machine)
    }

    /// Whether the app is a single run.
    pub fn is_single_run(&self, app: &str) -> bool {
        self.apps.get(app).is_some_and(|app| app.spec.single_run)
    }

    /// Asks a machine for one new task; the name of its app.
    pub fn probe(&mut self, world: &mut World, machine: usize) -> String {
        let mut service = service(1, &["true"]);
        service.restart = Restart::No;
        self.orders.protect(&mut service);
        let name = self.name("probe");
        self.create(world, name.clone(), vec![("probe", service)], Some(machine), 0);
        name
    }

    /// Somebody asks a machine for something of which the oracle keeps no account.
    pub fn demand(&mut self, world: &mut World, machine: usize, request: impl FnOnce(ChangeId) -> Request) {
        self.tickets += 1;
        let change = ChangeId(self.dice.bytes());
        world.ask(machine, self.tickets, request(change));
    }

    fn name(&mut self, kind: &str) -> String {
        format!("{kind}{}", self.apps.len() + 1)
    }

    fn deploy_services(&mut self, world: &mut World) {
        let replicas = self.dice.between(1, 20) as u32;
        let command: &[&str] = if self.dice.chance(0.1) { &["until", "2", "forever"] } else { &["forever"] };
        let mut web = service(replicas, command);
        if self.dice.chance(0.25) {
            // Every replica takes the port of a whole machine.
            web.replicas = replicas.min((self.machines as u32 / 2).max(1));
            self.next_port += 1;
            let host = Some(self.next_port);
            web.ports =
                vec![PortSpec { container: 80, host, mode: PortMode::Host, protocol: "tcp".into(), name: None }];
        } else if self.dice.chance(0.5) {
            web.ports = vec![PortSpec { container: 81, host: None, protocol: "tcp".into(), ..PortSpec::default() }];
        }
        let mut services = vec![("web", web)];
        if self.dice.chance(0.3) {
            services.push(("side", service(self.dice.between(1, 3) as u32, &["forever"])));
        }
        let large = self.dice.between(1, 4) * 100;
        if self.dice.chance(0.3) {
            services.iter_mut().for_each(|(_, service)| service.reservations = Resources::of(large, 64 << 20));
        }
        let mut scales = self.orders.of_service(&mut services) && !self.keep(&mut services);
        if self.strict.chance(0.4) {
            let (_, web) = &mut services[0];
            (web.replicas, web.singleton, scales) = (1, Singleton::Strict, false);
        }
        self.variety.of_services(&mut services);
        let cost = services.iter().map(|(_, service)| cost(service)).sum();
        if self.spent() + cost > self.budget {
            return;
        }
        let home = self.home(world);
        let name = self.name("app");
        self.create(world, name.clone(), services, home, cost);
        self.apps.entry(name).and_modify(|app| app.scales = scales);
    }

    /// Some services keep what they write, and so run where it is; whether this one does.
    fn keep(&mut self, services: &mut [(&str, ServiceSpec)]) -> bool {
        let Some(dice) = &mut self.volumes else { return false };
        let Some((_, web)) = services.first_mut() else { return false };
        if !dice.chance(0.5) || web.placement != Placement::default() || web.ports.iter().any(|p| p.host.is_some()) {
            return false;
        }
        web.replicas = web.replicas.min(2);
        let name = Some(Named::Own("data".into()));
        let volume = VolumeMount { path: "/srv".into(), name, read_only: false, no_copy: false };
        web.container.mounts.volumes.push(volume);
        true
    }

    /// When all is well again, people give up what lies on machines that will not be back.
    pub fn release_volumes(&mut self, world: &mut World) {
        let now_ms = world.now_ms();
        if self.volumes.is_none() || now_ms < self.released_ms + RELEASE_MS {
            return;
        }
        self.released_ms = now_ms;
        let Some(machine) = self.someone(world) else { return };
        let looked = world.machines[machine].now(world.now_us);
        let Some(brain) = &world.machines[machine].brain else { return };
        let down = brain.view(looked).volumes().into_iter().filter(|volume| volume.state == "down");
        for name in down.map(|volume| volume.name).collect::<Vec<_>>() {
            self.demand(world, machine, |_| Request::VolumeRelease { name });
        }
    }

    fn deploy_batch(&mut self, world: &mut World) {
        let replicas = self.dice.between(1, 20) as u32;
        let ms = self.dice.between(10, 20_000).to_string();
        let mut batch = match self.dice.below(4) {
            0 => service(replicas, &["true"]),
            1 => service(replicas, &["fail", "3"]),
            2 => service(replicas.min(5), &["until", "3", "true"]),
            _ => service(replicas, &["sleep", &ms]),
        };
        batch.restart = if batch.command[0] == "until" { Restart::OnFailure } else { Restart::No };
        self.orders.of_batch(&mut batch);
        self.variety.of_batch(&mut batch);
        let home = self.home(world);
        let name = self.name("batch");
        if batch.gang {
            world.promises.gangs.expect(&name, "work", batch.replicas);
        }
        self.create(world, name, vec![("work", batch)], home, 0);
    }

    /// One piece of work, some after it, and one after those.
    fn deploy_graph(&mut self, world: &mut World) {
        let ms = self.dice.between(10, 3_000).to_string();
        let middle = self.dice.between(1, 8) as u32;
        let done = |name: &str| Dependencies::from([(name.to_string(), Condition::ServiceCompletedSuccessfully)]);
        let step = |replicas, depends_on| ServiceSpec {
            restart: Restart::OnFailure,
            depends_on,
            batch: Batch { parallelism: 3, ..Batch::default() },
            ..service(replicas, &["sleep", &ms])
        };
        let mut services = vec![
            ("extract", step(1, Dependencies::new())),
            ("transform", step(middle, done("extract"))),
            ("load", step(1, done("transform"))),
        ];
        self.variety.of_graph(&mut services);
        let home = self.home(world);
        let name = self.name("graph");
        let named = services.iter().map(|(name, service)| (name.to_string(), service.clone())).collect();
        world.promises.graph.expect(&name, &AppSpec { services: named, single_run: false });
        self.create(world, name, services, home, 0);
    }

    fn single_run(&mut self, world: &mut World) {
        let ms = self.dice.between(1, 5_000).to_string();
        let mut run = service(1, &["sleep", &ms]);
        run.restart = Restart::No;
        if self.dice.chance(0.7) {
            run.on_lost = OnLost::Retry(self.dice.below(2) as u32);
        }
        self.orders.protect(&mut run);
        let Some(machine) = self.someone(world) else { return };
        let name = self.name("run");
        let spec = AppSpec { services: BTreeMap::from([("run".to_string(), run)]), single_run: true };
        self.apps.insert(
            name.clone(),
            App { home: Some(machine), spec: spec.clone(), removed: false, scales: true, cost: 0, kind: Kind::Usual },
        );
        self.wish(world, &name, Deed::Deploy(spec), Some(machine));
    }

    fn create(
        &mut self,
        world: &mut World,
        name: String,
        services: Vec<(&str, ServiceSpec)>,
        home: Option<usize>,
        cost: u64,
    ) {
        let services = services.into_iter().map(|(name, service)| (name.to_string(), service)).collect();
        let spec = AppSpec { services, single_run: false };
        let kind = Kind::Usual;
        self.apps.insert(name.clone(), App { home, spec: spec.clone(), removed: false, scales: true, cost, kind });
        self.wish(world, &name, Deed::Deploy(spec), None);
    }

    fn scale(&mut self, world: &mut World, name: &str) {
        let Some(app) = self.apps.get(name).filter(|app| !app.removed && app.scales && app.cost > 0) else { return };
        let replicas = self.dice.below(21) as u32;
        let mut spec = app.spec.clone();
        let Some(web) = spec.services.get_mut("web") else { return };
        if web.ports.iter().any(|port| port.host.is_some()) {
            return;
        }
        web.replicas = replicas;
        let cost = spec.services.values().map(cost).sum::<u64>().max(app.cost);
        if self.spent() + cost - app.cost > self.budget {
            return;
        }
        let app = self.apps.get_mut(name).expect("it was found above");
        app.spec = spec;
        app.cost = cost;
        self.wish(world, name, Deed::Scale { service: "web".into(), replicas }, None);
    }

    /// Deploys the app again with something changed that restarts its tasks.
    fn revise(&mut self, world: &mut World, name: &str) {
        let number = self.dice.number().to_string();
        let is_revised =
            |app: &&mut App| !app.removed && app.cost > 0 && matches!(app.kind, Kind::Usual | Kind::Everywhere);
        let Some(app) = self.apps.get_mut(name).filter(is_revised) else { return };
        for service in app.spec.services.values_mut() {
            service.environment.insert("REVISION".into(), number.clone());
        }
        let deed = Deed::Deploy(app.spec.clone());
        self.wish(world, name, deed, None);
    }

    fn remove(&mut self, world: &mut World, name: &str) {
        let Some(app) = self.apps.get_mut(name).filter(|app| !app.removed && !app.spec.single_run) else { return };
        app.removed = true;
        self.wish(world, name, Deed::Remove, None);
    }

    fn make_again(&mut self, world: &mut World, name: &str) {
        if self.apps.get(name).is_none_or(|app| !app.removed) {
            return;
        }
        self.made_well(name);
        let Some(app) = self.apps.get_mut(name) else { return };
        app.removed = false;
        let deed = Deed::Deploy(app.spec.clone());
        self.wish(world, name, deed, None);
    }

    /// Somebody has heard no answer and asks again: the same change, sent twice, is harmless.
    fn repeat(&mut self, world: &mut World, name: &str) {
        let Some((ticket, wish)) = self.oracle.last(name) else { return };
        if wish.fate != Fate::Unknown {
            return;
        }
        let request = wish.deed.request(wish.change, name);
        let machine = self.apps.get(name).and_then(|app| app.home).or_else(|| self.someone(world));
        if let Some(machine) = machine {
            world.ask(machine, ticket, request);
        }
    }

    fn drain(&mut self, world: &mut World) {
        if !self.drains {
            return;
        }
        let draining = self.drained.iter().find(|(_, on)| **on).map(|(machine, _)| *machine);
        if let Some(machine) = draining {
            self.order(world, machine, false);
        } else if let Some(machine) = self.someone(world) {
            self.order(world, machine, true);
        }
    }

    fn order(&mut self, world: &mut World, machine: usize, on: bool) {
        self.drained.insert(machine, on);
        self.tickets += 1;
        world.ask(machine, self.tickets, Request::Drain { on });
    }

    fn wish(&mut self, world: &mut World, name: &str, deed: Deed, at: Option<usize>) {
        let home = self.apps.get(name).and_then(|app| app.home);
        let Some(machine) = at.or(home).or_else(|| self.someone(world)) else { return };
        let change = ChangeId(self.dice.bytes());
        let request = deed.request(change, name);
        let (app, asked_ms, fate) = (name.to_string(), world.now_ms(), Fate::Unknown);
        if !world.machines[machine].answers() {
            // Nobody is there to ask: nothing was asked.
            return;
        }
        let ticket = self.oracle.asked(Wish { app, change, deed, machine, asked_ms, fate }, home.is_some());
        world.ask(machine, ticket, request);
    }

    fn home(&mut self, world: &World) -> Option<usize> {
        if self.dice.chance(0.6) { self.someone(world) } else { None }
    }

    fn someone(&mut self, world: &World) -> Option<usize> {
        let up: Vec<usize> = (0..world.machines.len()).filter(|at| world.machines[*at].serves()).collect();
        self.dice.pick(&up).copied()
    }

    fn spent(&self) -> u64 {
        self.apps.values().map(|app| app.cost).sum()
    }
}

/// Millicores that a service wants in all.
fn cost(service: &ServiceSpec) -> u64 {
    service.need().get(CPU_MILLIS) * u64::from(service.replicas)
}

fn service(replicas: u32, command: &[&str]) -> ServiceSpec {
    ServiceSpec {
        image: "host".into(),
        command: command.iter().map(ToString::to_string).collect(),
        replicas,
        reservations: Resources::of(100, 64 << 20),
        stop_grace_ms: Some(2_000),
        ..ServiceSpec::default()
    }
}
