//! One run: a cluster is founded, people work while things break, everything is mended, and then
//! all must be well.

use std::collections::BTreeSet;

use rialto_protocol::event::Request;
use rialto_protocol::ids::TaskId;

use crate::dice::Dice;
use crate::faults::{Plan, Step};
use crate::invariants::finished::Finished;
use crate::invariants::history::Run as Made;
use crate::invariants::resurrection::Gone;
use crate::invariants::survivors::Probe;
use crate::invariants::{
    ACKNOWLEDGED, ADDRESSES, CONVERGENCE, FINISHED, INSTANTS, OWNERS, RESURRECTION, ROLLOUT_ENDS, SETTLES, SURVIVORS,
    Violation, acknowledged, addresses, convergence, cron, rollout_ends, settles,
};
use crate::network::Weather;
use crate::plants::Plant;
use crate::scenario::Scenario;
use crate::workload::Workload;
use crate::world::{Counts, World};

/// A cluster has this long to be founded, ms.
const FOUNDING_MS_MAX: u64 = 60_000;
/// When all faults are gone everything settles in this time, ms: the longest hold of the storm gate,
/// what it takes to see that a machine is lost, and the queue of work that has gathered.
const SETTLING_MS_MAX: u64 = 180_000;
/// It has settled when it stays so for this long, ms.
const SETTLED_MS: u64 = 5_000;
/// New work runs in this time in a cluster without faults, ms.
const PROBE_MS: u64 = 5_000;
/// How often what runs is looked at, ms,
const LOOK_MS: u64 = 500;
/// and what everybody believes and holds, at most.
const THOROUGH_MS: u64 = 2_000;
/// What a restart undoes is made good after this.
const RESTARTED_MS: u64 = 60_000;
/// An instant's run is over after this long, ms.
const RUN_MS: u64 = 20_000;
/// In so long there is a moment at which no run of a schedule has just begun or ended, ms: runs each 4, 5 and 10 s come
/// together each 20.
const BETWEEN_MS_MAX: u64 = 20_000;
/// When nothing breaks, everybody knows after this long what happened before, ms.
const KNOWN_MS: u64 = 20_000;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    pub machines: usize,
    pub scenario: Option<Scenario>,
    pub trace: bool,
    pub plant: Option<Plant>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    /// The same for the same settings, always.
    pub trace_hash: u64,
    pub counts: Counts,
    /// Wishes, and those that were acknowledged.
    pub wishes: (usize, usize),
    /// How long it took to settle, ms; `None`: it never did.
    pub settled_ms: Option<u64>,
    /// How many tasks got room in the rush, each in its turn.
    pub rushed: usize,
    /// How long it lasted, ms of virtual time.
    pub lasted_ms: u64,
}

pub(super) struct Run {
    /// How many machines there are from the beginning.
    founders: usize,
    pub(super) world: World,
    pub(super) work: Workload,
    plan: Plan,
    pub(super) dice: Dice,
    probes: Vec<Probe>,
    /// The apps that were ever probed with.
    probed: BTreeSet<String>,
    pub(super) demands: Vec<u64>,
    /// No container may be started before this time; how many had been.
    pub(super) steady: Option<(u64, usize)>,
    /// Nobody may write a record before this time; the numbers that all had reached.
    pub(super) quiet: Option<(u64, Vec<u64>)>,
    settled_ms: Option<u64>,
    pub(super) rushed: usize,
    /// Those whom nobody knows any more were looked for.
    reminded: bool,
    /// When all faults were gone, ms; and what had finished and what was gone when everybody could know.
    mended_ms: u64,
    /// Times in which something may have broken: wall clock, ms.
    broken: Vec<(u64, u64)>,
    known: Option<(Finished, Gone)>,
}

/// Runs one seed.
pub fn run(settings: &Settings) -> Outcome {
    let Settings { seed, machines, scenario, trace, plant } = settings;
    let plan = match scenario {
        Some(scenario) => scenario.plan(*seed, *machines),
        None => Plan::draw(*seed, *machines),
    };
    let mut world = World::new(*seed, *machines + plan.late);
    world.trace.print = *trace;
    world.plant = *plant;
    world.minority_hold_ms = Some(plan.minority_hold_ms);
    for (machine, drift_ppm) in world.machines.iter_mut().zip(&plan.drifts_ppm) {
        machine.drift_ppm = *drift_ppm;
    }
    for later in &plan.later {
        world.machines[*later].later = true;
    }
    for (machine, offset) in world.machines.iter_mut().zip(&plan.clocks_ms) {
        machine.wall_offset_ms = *offset;
        machine.executor.blind = *plant == Some(Plant::BlindExecutors);
    }
    // People want no more than what is left when most is gone can give.
    let killed = |step: &Step| if let Step::Crash { machines, .. } = step { machines.len() } else { 0 };
    let gone = match scenario {
        Some(_) => plan.steps.iter().map(|(_, step)| killed(step)).max().unwrap_or(0).max(plan.spoilt.len()),
        None => plan.spoilt.len(),
    };
    let jumps = |(_, step): &(u64, Step)| matches!(step, Step::Jump { .. });
    // The clocks of newcomers are up to a minute ahead: where these are many, peers tell the time differently.
    let are_right = plan.late * 3 < *machines && plan.clocks_ms.iter().take(*machines).all(|ms| *ms == 0);
    let clocks_agree = !plan.steps.iter().any(jumps) && are_right;
    let varies = (scenario.is_none(), clocks_agree);
    let work = Workload::new(*seed, *machines, (*machines - gone).max(1), varies);
    let dice = Dice::new(*seed, "run");
    let (probes, demands) = (Vec::new(), Vec::new());
    let founders = *machines;
    let mut run = Run {
        founders,
        world,
        work,
        plan,
        dice,
        probes,
        probed: BTreeSet::new(),
        demands,
        steady: None,
        quiet: None,
        settled_ms: None,
        rushed: 0,
        reminded: false,
        mended_ms: 0,
        broken: Vec::new(),
        known: None,
    };
    if run.found() {
        run.break_things();
        if run.world.promises.is_kept() {
            run.mend();
            run.settle();
            run.shake();
        }
        if run.world.promises.is_kept() {
            run.judge_instants();
            run.change_all();
        }
        if run.world.promises.is_kept() {
            run.rush();
        }
    }
    Outcome {
        violations: run.world.promises.violations().to_vec(),
        trace_hash: run.world.trace.hash(),
        counts: run.world.counts.clone(),
        wishes: run.work.oracle.count(),
        settled_ms: run.settled_ms,
        rushed: run.rushed,
        lasted_ms: run.world.now_ms(),
    }
}

impl Run {
    /// Machine 0 founds a cluster and the others join; whether they all did.
    fn found(&mut self) -> bool {
        self.world.start(0);
        for newcomer in 1..self.founders {
            let at_ms = self.world.now_ms() + self.dice.between(200, 3_000);
            self.world.join(newcomer, at_ms);
        }
        let until = self.world.now_ms() + FOUNDING_MS_MAX;
        while self.world.promises.is_kept() && self.world.now_ms() < until {
            self.world.run_until(self.world.now_ms() + LOOK_MS);
            let all = self.founders;
            let sees_all = |at: usize| {
                let machine = &self.world.machines[at];
                let now = machine.now(self.world.now_us);
                machine.brain.as_ref().is_some_and(|brain| brain.view(now).members_seen() as usize == all)
            };
            if (0..all).all(sees_all) {
                return true;
            }
        }
        let joined = self.world.machines.iter().filter(|machine| machine.joined).count();
        let text = format!("after {FOUNDING_MS_MAX} ms {joined} machines have joined and not all see each other");
        self.world.promises.broken(SETTLES, self.world.now_ms(), text);
        false
    }

    /// Faults and work, as the plan says.
    fn break_things(&mut self) {
        let founded = self.world.now_ms();
        let mut steps = std::mem::take(&mut self.plan.steps).into_iter().peekable();
        for machine in &mut self.world.machines {
            machine.executor.failing = self.plan.failing;
        }
        let mut next_work = founded + self.work.pause_ms();
        let mut next_look = founded + LOOK_MS;
        let end = founded + self.plan.faults_ms;
        while self.world.promises.is_kept() && self.world.now_ms() < end {
            let next_step = steps.peek().map_or(u64::MAX, |(at, _)| founded + at);
            let next = next_step.min(next_work).min(next_look).min(end);
            self.world.run_until(next);
            self.work.hear(&mut self.world);
            while let Some((_, step)) = steps.next_if(|(at, _)| founded + at <= next) {
                self.take(founded, step);
            }
            if next_work <= next {
                self.work.act(&mut self.world);
                next_work = next + self.work.pause_ms();
                if next_work > founded + self.plan.work_ms {
                    next_work = u64::MAX;
                }
            }
            if next_look <= next {
                self.look();
                next_look = next + LOOK_MS;
            }
        }
    }

    pub(super) fn probe(&mut self, within_ms: u64) {
        let up: Vec<usize> = settles::honest(&self.world).collect();
        let Some(machine) = self.dice.pick(&up).copied() else { return };
        let app = self.work.probe(&mut self.world, machine);
        self.probed.insert(app.clone());
        let asked_ms = self.world.now_ms();
        self.probes.push(Probe { app, machine, asked_ms, due_ms: asked_ms + within_ms });
    }

    /// Looks at the costly promises.
    fn look(&mut self) {
        let now = self.world.now_ms();
        let world = &self.world;
        self.probes.retain(|probe| !probe.runs(world) && !probe.is_void(world));
        let overdue: Vec<String> =
            self.probes.iter().filter(|probe| probe.is_overdue(world)).map(|probe| probe.complaint(world)).collect();
        for text in overdue {
            self.world.promises.broken(SURVIVORS, now, text);
        }
        if !self.demands.is_empty() {
            let overdue = self.demands.iter().any(|due| *due <= now);
            let differences = settles::unsettled_work(&self.world, None);
            if differences.is_empty() {
                self.demands.clear();
            } else if overdue {
                self.world.promises.broken(SETTLES, now, format!("not as demanded: {}", differences.join("\n  ")));
            }
        }
        if let Some((until, count)) = self.steady {
            let made = self.made();
            if made != count {
                let text = format!("{} containers were made while nothing called for one", made - count);
                self.world.promises.broken(SETTLES, now, text);
            } else if until <= now {
                self.steady = None;
            }
        }
        if let Some((until, before)) = &self.quiet {
            let after = self.numbers();
            if let Some(at) = (0..after.len()).find(|at| before[*at] != after[*at]) {
                let text = format!("m{at} wrote {} records though nothing happened", after[at] - before[at]);
                self.world.promises.broken(OWNERS, now, text);
            } else if *until <= now {
                self.quiet = None;
            }
        }
    }

    /// How many containers were made but for probes.
    pub(super) fn made(&self) -> usize {
        let probed = |task: &TaskId| self.probed.contains(&task.app.name);
        self.world.promises.history.all().filter(|(task, _)| !probed(task)).map(|(_, runs)| runs.len()).sum()
    }

    /// While nothing breaks, nobody has a reason to start a single run twice.
    pub(super) fn once(&mut self) {
        let twice = |(task, runs): (&TaskId, &[Made])| {
            let made: Vec<_> = runs.iter().map(|run| (run.machine, run.made_ms)).collect();
            (self.work.is_single_run(&task.app.name) && made.len() > 1).then(|| format!("{task} ran at {made:?}"))
        };
        let found: Vec<String> = self.world.promises.history.all().filter_map(twice).collect();
        for text in found {
            self.world.promises.broken(SETTLES, self.world.now_ms(), text);
        }
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        (0..self.world.machines.len()).map(|at| self.world.promises.owners.last(&self.world.machines[at].id)).collect()
    }

    /// The network is well, and nobody is paused.
    pub(super) fn calm(&mut self) {
        self.world.network.weather = Weather::FAIR;
        self.world.network.mend_all();
        self.world.resume_all();
        for machine in &mut self.world.machines {
            machine.executor.failing = 0.0;
            machine.full = false;
        }
    }

    /// All faults are gone, and everything that is not dead runs.
    fn mend(&mut self) {
        self.calm();
        let world = &mut self.world;
        world.trace.line(world.now_us, || "** all faults are gone".into());
        (0..world.machines.len()).for_each(|machine| world.start(machine));
        self.mended_ms = self.world.now_ms();
        // An order that was lost with the machine at which it was given is given again.
        let expelled = |at: &usize| !self.world.machines[*at].dead && !self.world.machines[*at].belongs();
        let expelled: Vec<usize> = (0..self.world.machines.len()).filter(expelled).collect();
        expelled.into_iter().for_each(|machine| self.world.depart(machine));
    }

    /// Everything has to come right, and nothing acknowledged may be missing.
    fn settle(&mut self) {
        let drained = self.work.settle_drains(&mut self.world);
        let began = self.world.now_ms();
        if self.wait_settled(drained) {
            self.settled_ms = Some(self.world.now_ms() - began - SETTLED_MS);
            self.broken.push((0, self.world.wall_ms() + cron::AGREE_MS));
            self.judge_acknowledged();
            for text in convergence::forged(&self.world) {
                self.world.promises.broken(OWNERS, self.world.now_ms(), text);
            }
        }
    }

    fn wait_settled(&mut self, drained: Option<usize>) -> bool {
        let until = self.world.now_ms() + SETTLING_MS_MAX;
        let mut since = None;
        let mut thorough = 0;
        while self.world.promises.is_kept() {
            self.world.run_until(self.world.now_ms() + LOOK_MS);
            self.work.hear(&mut self.world);
            self.judge_known();
            if self.world.now_ms() >= self.mended_ms + KNOWN_MS {
                self.work.release_volumes(&mut self.world);
            }
            self.join_forgotten_anew();
            let now = self.world.now_ms();
            let over = since.is_some_and(|since| now - since >= SETTLED_MS);
            if !settles::unsettled_work(&self.world, drained).is_empty() {
                since = None;
            } else if over || since.is_none() && now >= thorough {
                // The costly look: at the beginning and at the end of the time in which all stays well.
                let work = settles::differences(&self.world, drained).is_empty()
                    && rollout_ends::going(&self.world).is_empty();
                let settled = work
                    && convergence::differences(&self.world).is_empty()
                    && addresses::shared(&self.world).is_empty();
                if settled && over {
                    return true;
                }
                // What runs every few seconds is news that some have not heard yet: there is a moment between two runs.
                let may_come = self.work.has_schedules() && work;
                let waits = may_come && since.is_some_and(|since| now < since + SETTLED_MS + BETWEEN_MS_MAX);
                since = if settled { Some(now) } else { since.filter(|_| waits) };
                thorough = now + if may_come { LOOK_MS } else { THOROUGH_MS };
            }
            if since.is_none() && now >= until {
                let all = [
                    (SETTLES, settles::differences(&self.world, drained)),
                    (ROLLOUT_ENDS, rollout_ends::going(&self.world)),
                    (CONVERGENCE, convergence::differences(&self.world)),
                    (ADDRESSES, addresses::shared(&self.world)),
                ];
                let first = all.into_iter().find(|(_, differs)| !differs.is_empty());
                let (promise, differs) = first.unwrap_or((SETTLES, Vec::new()));
                let text = format!("not settled after {SETTLING_MS_MAX} ms: {}", differs.join("\n  "));
                self.world.promises.broken(promise, now, text);
            }
        }
        false
    }

    /// The admission of a newcomer may have been on its introducer's disk alone, and lost with it: then nobody knows the
    /// newcomer but whom it introduced itself. People see that, and have them join anew.
    fn join_forgotten_anew(&mut self) {
        let now = self.world.now_ms();
        if self.mended_ms == 0 || now < self.mended_ms + KNOWN_MS || std::mem::replace(&mut self.reminded, true) {
            return;
        }
        let honest: Vec<usize> =
            settles::honest(&self.world).filter(|machine| self.world.machines[*machine].joined).collect();
        // Those that they introduced since are as unknown: whom most know is of the cluster, and tells who else is.
        let knows = |by: usize, of: usize| by == of || self.world.machines[by].members.contains(&of);
        let known = |of: &usize| honest.iter().filter(|by| knows(**by, *of)).count();
        let Some(reader) = honest.iter().copied().max_by_key(known) else { return };
        let forgotten: Vec<usize> = honest.into_iter().filter(|of| !knows(reader, *of)).collect();
        forgotten.into_iter().for_each(|machine| self.world.lose_disk(machine, false));
    }

    /// When everybody may know what has finished and what is gone, neither comes back.
    fn judge_known(&mut self) {
        let now = self.world.now_ms();
        if self.known.is_none() && now >= self.mended_ms + 2 * KNOWN_MS {
            let finished = Finished::look(&self.world, now - KNOWN_MS);
            self.known = finished.zip(Gone::look(&self.world));
        }
        let Some((finished, gone)) = &self.known else { return };
        let (again, risen) = (finished.again(&self.world), gone.risen(&self.world));
        for (promise, text) in
            again.map(|text| (FINISHED, text)).into_iter().chain(risen.map(|text| (RESURRECTION, text)))
        {
            self.world.promises.broken(promise, now, text);
        }
    }

    /// Every instant of every schedule had its run; then all of them end, and leave their room to others.
    fn judge_instants(&mut self) {
        let now = self.world.now_ms();
        let until = self.world.wall_ms().saturating_sub(RUN_MS);
        let mut found = Vec::new();
        for name in self.work.scheduled() {
            let Some(view) = settles::reader(&self.world) else { return };
            let Some(app) = view.app(&name) else { continue };
            for (service, spec) in &app.spec.services {
                let Some(schedule) = &spec.schedule else { continue };
                let (generation, span, broken) = (Some(app.generation), (schedule.since, until), &self.broken[..]);
                let times = cron::Times { app: &name, service, generation, schedule, span, broken };
                found.extend(cron::faults_of_any(&self.world, &view, &times, spec.run_size()));
            }
        }
        found.truncate(settles::DIFFERENCES_MAX);
        found.into_iter().for_each(|text| self.world.promises.broken(INSTANTS, now, text));
        for app in self.work.scheduled() {
            self.demand(|change| Request::Remove { change, author: "somebody".into(), app });
        }
    }

    fn judge_acknowledged(&mut self) {
        let readers: Vec<usize> = settles::honest(&self.world).collect();
        for reader in readers {
            for text in acknowledged::missing(&self.world, &self.work.oracle, reader) {
                self.world.promises.broken(ACKNOWLEDGED, self.world.now_ms(), format!("at m{reader}: {text}"));
            }
            if !self.world.promises.is_kept() {
                return;
            }
        }
    }

    /// A settled cluster takes new work at once; and when a daemon and a machine are restarted,
    /// finished work is not run again.
    fn shake(&mut self) {
        if !self.world.promises.is_kept() {
            return;
        }
        self.probe(PROBE_MS);
        while !self.probes.is_empty() && self.world.promises.is_kept() {
            self.world.run_until(self.world.now_ms() + LOOK_MS);
            self.work.hear(&mut self.world);
            self.look();
        }
        let drained = self.work.settle_drains(&mut self.world);
        self.wait_settled(drained);
        if self.world.promises.is_kept() {
            // It has settled: everybody knows.
            let now = self.world.now_ms();
            self.known = Finished::look(&self.world, now).zip(Gone::look(&self.world));
        }
        let able: Vec<usize> = settles::honest(&self.world).collect();
        for power in [false, true] {
            if let Some(machine) = self.dice.pick(&able).copied() {
                let began = self.world.wall_ms().saturating_sub(cron::AGREE_MS);
                self.world.crash(machine, power);
                self.broken.push((began, self.world.wall_ms() + RESTARTED_MS));
                self.world.run_until(self.world.now_ms() + self.dice.between(500, 5_000));
                self.world.start(machine);
            }
        }
        let drained = self.work.settle_drains(&mut self.world);
        self.wait_settled(drained);
        if self.world.promises.is_kept() {
            self.judge_acknowledged();
        }
    }
}
