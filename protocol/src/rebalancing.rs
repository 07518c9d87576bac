//! What `rialto rebalance` would do, as one peer sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{EvennessRow, MoveRow, Rebalance};
use crate::event::Relocation;
use crate::ids::PeerId;
use crate::market::rebalance::{Evenness, Movable, Place, evenness, plan};
use crate::membership::State;
use crate::model::{ClaimState, Executor, Machine, ServiceSpec};
use crate::view::View;

impl View<'_> {
    /// The moves that would pay, in words and as orders. Only tasks of services move: what a batch has done would be lost.
    pub fn rebalance(&self) -> (Rebalance, Vec<Relocation>) {
        let brain = self.brain;
        let mut places: BTreeMap<PeerId, Place> = BTreeMap::new();
        for (peer, machine) in brain.readings.machines.iter() {
            let runs = !matches!(machine.executor, Executor::None(_)) && !machine.draining;
            if runs && brain.members.state(peer) == State::Alive {
                let (capacity, used) = (machine.capacity.clone(), brain.readings.used(peer).clone());
                places.insert(*peer, Place { capacity, used, services: BTreeMap::new() });
            }
        }
        let mut tasks = Vec::new();
        for entry in brain.readings.all_claims().filter(|entry| !entry.claim.state.has_ended()) {
            let claim = &entry.claim;
            let Some(place) = places.get_mut(&entry.owner) else { continue };
            *place.services.entry((claim.task.app.name.clone(), claim.task.service.clone())).or_default() += 1;
            let Some(service) = self.service_of(&claim.task) else { continue };
            if claim.state == ClaimState::Running
                && !service.is_batch()
                && !service.gang
                && service.revision() == claim.revision
            {
                let (need, takes) = (service.need(), claim.need.clone());
                tasks.push(Movable { owner: entry.owner, claim: claim.id, task: claim.task.clone(), need, takes });
            }
        }
        let mix = brain.readings.mix_now();
        let before = evenness(&places, &mix);
        let may = |task: &Movable, to: &PeerId, has: u32| {
            let fits = |machine: &Arc<Machine>| {
                Some(brain.passed_over(&task.task.app, to, machine, self.service_of(&task.task)?, has).is_none())
            };
            brain.readings.machines.get(to).and_then(fits).unwrap_or(false)
        };
        let moves = plan(&mut places, tasks, &mix, may);
        let row = |evenness: Evenness| EvennessRow {
            fullest_permille: evenness.fullest,
            emptiest_permille: evenness.emptiest,
            stranded_gpu_milli: evenness.stranded,
        };
        let told = moves.iter().map(|one| MoveRow {
            task: one.task.to_string(),
            from: brain.machine_name(&one.from),
            to: brain.machine_name(&one.to),
            pays: one.pays,
        });
        let told =
            Rebalance { before: row(before), after: row(evenness(&places, &mix)), moves: told.collect(), begun: false };
        let orders = moves.iter().map(|one| Relocation { app: one.task.app.clone(), claim: one.claim, to: one.to });
        (told, orders.collect())
    }

    fn service_of(&self, task: &crate::ids::TaskId) -> Option<&ServiceSpec> {
        let document = self.brain.documents.get(&task.app).filter(|document| !document.deleted)?;
        document.spec.services.get(&task.service)
    }
}
