//! When all is well what can be changed step by step is changed once more, and watched: how many tasks it takes away at
//! once, and where it ends. So a seed that has such apps tells of each what becomes of a change that nothing disturbs.

use rialto_protocol::event::Request;
use rialto_protocol::model::{AppSpec, FailureAction};

use crate::invariants::{ROLLOUT, ROLLOUT_ENDS, rollout, rollout_ends, settles};
use crate::run::Run;

/// A change of a few tasks ends in this time, ms: the longest delay and watch for each, and the time that it takes to stop
/// and start them.
const ENDS_MS_MAX: u64 = 120_000;
/// It has ended when it stays so for this long, ms.
const ENDED_MS: u64 = 2_000;
const STEP_MS: u64 = 50;

impl Run {
    pub(super) fn change_all(&mut self) {
        for name in self.work.rolling() {
            let Some(spec) = self.read(&name) else { continue };
            // What rests is a person's to bring to its end first.
            let phase = settles::reader(&self.world).and_then(|view| rollout_ends::phase(&view, &name, "web"));
            if self.world.promises.is_kept() && phase.is_none_or(|phase| phase == "done") {
                self.change(&name, &spec);
            }
        }
    }

    fn change(&mut self, name: &str, before: &AppSpec) {
        let (spec, is_bad) = self.work.changed(before);
        let Some(service) = spec.services.get("web").cloned() else { return };
        let wanted = service.replicas as usize;
        let at_once = rollout::at_once(&service.rollout, wanted, is_bad);
        // One whose number was wrong is not taken for the change's doing.
        if rollout::running(&self.world, name, "web") < wanted {
            return;
        }
        let (author, app) = ("somebody".to_string(), name.to_string());
        let deployed = spec.clone();
        self.demand(|change| Request::Deploy { change, author, app, spec: deployed });
        let until = self.world.now_ms() + ENDS_MS_MAX;
        let mut since = None;
        while self.world.promises.is_kept() {
            self.pass(STEP_MS);
            let now = self.world.now_ms();
            let result = rollout::too_few(&self.world, name, "web", wanted, at_once);
            self.world.promises.judge(ROLLOUT, now, result);
            match self.unfinished(name, before, &spec, is_bad) {
                None if since.is_some_and(|since| now >= since + ENDED_MS) => return,
                None => since = since.or(Some(now)),
                Some(why) if now >= until => self.world.promises.broken(ROLLOUT_ENDS, now, why),
                Some(_) => since = None,
            }
        }
    }

    /// Why a change has not come to where its policy leads; `None`: it has.
    fn unfinished(&self, name: &str, before: &AppSpec, after: &AppSpec, is_bad: bool) -> Option<String> {
        let service = after.services.get("web")?;
        let view = settles::reader(&self.world)?;
        let (phase, reads) = (rollout_ends::phase(&view, name, "web"), view.app(name));
        let phase = phase.as_deref().unwrap_or("not begun");
        let is_read = |spec: &AppSpec| reads.as_ref().is_some_and(|app| app.spec == *spec);
        let action = service.rollout.update.as_ref().map(|pace| pace.failure_action);
        let (comes_to, reading) = match (is_bad, action) {
            (true, Some(FailureAction::Rollback)) => ("done", before),
            (true, _) => ("failed", after),
            (false, _) if service.rollout.canary > 0 && service.rollout.canary < service.replicas => ("canary", after),
            (false, _) => ("done", after),
        };
        let wanted = reading.services.get("web")?;
        let running = rollout::running_with(&self.world, name, "web", &wanted.environment);
        let whole = comes_to != "done" || running == wanted.replicas as usize;
        let is_so = phase == comes_to && is_read(reading) && whole;
        (!is_so).then(|| {
            format!(
                "a change of {name} is {phase} and was to be {comes_to}; {running} of {} tasks run what is wanted, and it \
                 reads what it was before: {}, after: {}",
                wanted.replicas,
                is_read(before),
                is_read(after)
            )
        })
    }

    fn read(&self, name: &str) -> Option<AppSpec> {
        settles::reader(&self.world)?.app(name).map(|app| app.spec)
    }
}
