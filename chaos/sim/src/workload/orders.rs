//! What people say of a service beside what it runs: who goes first, who starts together, and who may be beside whom.
//!
//! Never more than a settled cluster can give: whatever is asked for here has to run in the end.

use rialto_protocol::model::{Placement, ServiceSpec};

use crate::Dice;

/// Ten more may take the room of what runs, less only goes before it in the queue.
const PRIORITIES: [i32; 5] = [-5, 3, 9, 20, 50];

#[derive(Debug)]
pub(super) struct Orders {
    /// Its own, so that what people want is the same whether they say anything of it or not.
    dice: Dice,
    /// In some worlds nobody says anything.
    on: bool,
    /// There is room on every machine for much more than what is wanted.
    roomy: bool,
    /// The machines that will be there in the end.
    machines: u32,
}

impl Orders {
    pub fn draw(mut dice: Dice, machines: usize, roomy: bool) -> Self {
        Self { on: dice.chance(0.5), dice, roomy, machines: machines as u32 }
    }

    /// Of work that is not to be disturbed: nothing takes its room.
    pub fn protect(&self, service: &mut ServiceSpec) {
        if self.on {
            service.priority = PRIORITIES[PRIORITIES.len() - 1];
        }
    }

    /// How a service that is kept up may be placed; whether it may be scaled as anybody likes.
    pub fn of_service(&mut self, services: &mut [(&str, ServiceSpec)]) -> bool {
        if !self.on {
            return true;
        }
        let dice = &mut self.dice;
        services.iter_mut().for_each(|(_, service)| rank(dice, service));
        let Some((_, web)) = services.first_mut() else { return true };
        if dice.chance(0.3) {
            web.placement = Placement { spread: vec!["rack".into()], ..Placement::default() };
        }
        let most = dice.between(1, 3) as u32;
        if dice.chance(0.2) {
            web.placement.max_per_machine = most;
            web.replicas = web.replicas.min((most * self.machines / 2).max(1));
            return false;
        }
        let third = self.machines / 3;
        if services.len() > 1 && self.roomy && third > 0 && dice.chance(0.5) {
            services.iter_mut().for_each(|(_, service)| service.replicas = service.replicas.min(third));
            services[0].1.placement.apart_from = vec![services[1].0.into()];
            return false;
        }
        true
    }

    /// Whether a batch goes first, and whether its tasks start together.
    pub fn of_batch(&mut self, batch: &mut ServiceSpec) {
        if self.on {
            let dice = &mut self.dice;
            rank(dice, batch);
            batch.gang = dice.chance(0.4);
            if batch.gang {
                // There is never less than that free at once.
                batch.replicas = batch.replicas.min(self.machines);
            }
        }
    }
}

fn rank(dice: &mut Dice, service: &mut ServiceSpec) {
    if dice.chance(0.5) {
        service.priority = *dice.pick(&PRIORITIES).unwrap_or(&0);
    }
}
