//! `rialto rm`.

use rialto_client::{Client, new_change};

use crate::args::Rm;
use crate::exit::Failure;
use crate::output::{Output, say};
use crate::{ask, human};

pub async fn rm(client: &Client, out: Output, rm: Rm) -> Result<(), Failure> {
    let mut changes = Vec::new();
    for app in &rm.apps {
        if ask::somebody_is_there() && !rm.yes {
            let services = client.app(app).await?.data.spec.services;
            let tasks: u64 = services.values().map(|service| u64::from(service.replicas)).sum();
            ask::confirm(&format!("remove {app} and end its {}?", human::count(tasks, "task")), rm.yes)?;
        }
        changes.push(client.remove(app, new_change()).await?.data);
        say(format!("{app} is removed"));
    }
    out.data(&changes, String::new)
}
