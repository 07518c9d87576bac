//! P2: nothing accepted is lost. An acknowledged change is found in what everybody believes in the
//! end, unless every disk that held it is lost.

use rialto_protocol::model::AppSpec;

use super::settles;
use crate::World;
use crate::oracle::Oracle;

/// What was acknowledged and is not found, in the belief of one machine that runs.
pub fn missing(world: &World, oracle: &Oracle, reader: usize) -> Vec<String> {
    let machine = &world.machines[reader];
    let Some(brain) = machine.brain.as_ref() else { return Vec::new() };
    let wanted = settles::wanted(&brain.view(machine.now(world.now_us)));
    let reads = |name: &str| -> Option<&AppSpec> { wanted.iter().find(|app| app.app == name).map(|app| &app.spec) };
    let mut found = Vec::new();
    for app in oracle.apps() {
        let possible = oracle.possible(app, |wish| wish.is_lost(world));
        // Since when a schedule holds is the peer's to say at which it was deployed.
        let actual = reads(app).cloned().map(|mut spec| {
            spec.services.values_mut().filter_map(|service| service.schedule.as_mut()).for_each(|one| one.since = 0);
            spec
        });
        let actual = actual.as_ref();
        if !possible.allows(actual) {
            let told = oracle.story(app);
            found.push(format!("{app} reads {actual:?}\n  and could only read {possible:?}\n  after {told}"));
        }
    }
    for app in &wanted {
        if !oracle.apps().any(|name| name == app.app) {
            found.push(format!("{} was never asked for", app.app));
        }
    }
    found
}
