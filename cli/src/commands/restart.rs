//! `rialto restart`: the tasks of a service or of an app anew, or one of them.

use rialto_client::{Client, new_change};
use rialto_protocol::model::AppSpec;

use super::deploy::{settled, settling};
use crate::args::Restart;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};

pub async fn restart(client: &Client, out: Output, restart: Restart) -> Result<(), Failure> {
    let name = restart.name.clone();
    let words: Vec<&str> = name.splitn(3, '.').collect();
    let app = words[0];
    let mut spec = client.app(app).await?.data.spec;
    if let Some(service) = words.get(1)
        && !spec.services.contains_key(*service)
    {
        let known: Vec<&str> = spec.services.keys().map(String::as_str).collect();
        let failure = Failure::new(Exit::NotFound, format!("{app} has no service {service}"));
        return Err(failure.hint(format!("it has {}", known.join(", "))));
    }
    if words.len() == 3 {
        return one(client, out, restart, app, &spec).await;
    }
    let meant = |name: &String| words.get(1).is_none_or(|service| service == name);
    for (_, spec) in spec.services.iter_mut().filter(|(name, _)| meant(name)) {
        spec.restarts += 1;
    }
    let before = settling(client, app, &spec).await?;
    let changed = client.deploy(app, spec.clone(), false, new_change()).await?.data;
    say(format!("{} starts anew", restart.name));
    if !restart.detach {
        settled(client, app, &spec, before, None, restart.timeout).await?;
    }
    out.data(&changed, String::new)
}

/// The app stays as it is: its machine ends the task, and its steward has it started.
async fn one(client: &Client, out: Output, restart: Restart, app: &str, spec: &AppSpec) -> Result<(), Failure> {
    let before = settling(client, app, spec).await?;
    let ended = client.restart(&restart.name).await?.data;
    say(format!("{} starts anew", ended.task));
    if !restart.detach {
        settled(client, app, spec, before, None, restart.timeout).await?;
    }
    out.data(&ended, String::new)
}
