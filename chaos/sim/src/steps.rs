//! What each step of a plan does to the world.

use rialto_protocol::event::Request;

use crate::faults::Step;
use crate::run::Run;

/// No clock is further from the truth than this, ms.
const CLOCK_MS_MAX: i64 = 7_200_000;

impl Run {
    /// Does what a step says. `founded`: when the cluster was, ms.
    pub(super) fn take(&mut self, founded: u64, step: Step) {
        let world = &mut self.world;
        world.trace.line(world.now_us, || format!("** {step:?}"));
        match step {
            Step::Weather(weather) => world.network.weather = weather,
            Step::Cut { from, to, one_way } => {
                for_each_way(&from, &to, one_way, |a, b| world.network.cut(a, b));
                world.notice_cuts();
            }
            Step::Mend { from, to, one_way } => for_each_way(&from, &to, one_way, |a, b| world.network.mend(a, b)),
            Step::Crash { machines, power } => machines.into_iter().for_each(|at| world.crash(at, power)),
            Step::Die { machine } => {
                world.crash(machine, true);
                world.machines[machine].dead = true;
            }
            Step::Announce { machine, back_ms } => {
                let until = world.machines[machine].wall(world.now_us) + back_ms + 10_000;
                world.ask(machine, u64::MAX, Request::Restarting { until });
            }
            Step::Start { machines } => machines.into_iter().for_each(|at| world.start(at)),
            Step::Pause { machine, ms } => world.pause(machine, ms),
            Step::Jump { machine, ms } => {
                let target = &mut world.machines[machine];
                // Nobody's clock is before the epoch.
                target.wall_offset_ms = (target.wall_offset_ms + ms).clamp(-CLOCK_MS_MAX, CLOCK_MS_MAX);
            }
            Step::Fill { machine } => world.fill(machine),
            Step::MakeRoom { machine } => world.make_room(machine),
            Step::Tear { machine, broken } => world.tear(machine, broken),
            Step::Snapshot { machine } => world.take_snapshot(machine),
            Step::PutBack { machine } => drop(world.put_back(machine)),
            Step::LoseDisk { machine, power } => world.lose_disk(machine, power),
            Step::Hole { owner, on } => {
                let id = world.machines[owner].id;
                if on {
                    world.network.holes.insert(id)
                } else {
                    world.network.holes.remove(&id)
                };
            }
            Step::Depart { machine } => world.depart(machine),
            Step::Turn { machine } => world.turn_hostile(machine),
            Step::Join { machine } => world.join(machine, world.now_ms()),
            Step::Calm => self.calm(),
            Step::Probe { within_ms } => self.probe(within_ms),
            Step::Demand { within_ms } => self.demands.push(self.world.now_ms() + within_ms),
            Step::Quiet { until_ms } => self.quiet = Some((founded + until_ms, self.numbers())),
            Step::Once => self.once(),
            Step::Steady { until_ms } => self.steady = Some((founded + until_ms, self.made())),
        }
    }
}

fn for_each_way(from: &[usize], to: &[usize], one_way: bool, mut each: impl FnMut(usize, usize)) {
    for a in from {
        for b in to {
            each(*a, *b);
            if !one_way {
                each(*b, *a);
            }
        }
    }
}
