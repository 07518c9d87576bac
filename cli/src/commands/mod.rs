//! The verbs, one file each.

mod deploy;
mod doctor;
mod events;
mod explain;
mod foresee;
mod history;
mod image;
mod invite;
mod logs;
mod machine;
mod ps;
mod rebalance;
mod rm;
mod rollback;
mod run;
mod scale;
mod status;
mod stop;
mod version;

use clap::CommandFactory;

use crate::args::{Args, Verb};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::peer;

/// Does what the command line asks for.
pub async fn perform(args: Args) -> Result<Exit, Failure> {
    let out = Output { format: args.output };
    if let Verb::Completion(completion) = &args.verb {
        let mut script = Vec::new();
        clap_complete::generate(completion.shell, &mut Args::command(), "rialto", &mut script);
        out.text(&String::from_utf8_lossy(&script))?;
        return Ok(Exit::Done);
    }
    let client = peer::client(&args.door)?;
    match args.verb {
        Verb::Run(run) => return run::run(&client, out, run).await,
        Verb::Deploy(deploy) => deploy::deploy(&client, out, deploy).await?,
        Verb::History(history) => history::history(&client, out, history).await?,
        Verb::Rollback(rollback) => rollback::rollback(&client, out, rollback).await?,
        Verb::Ps(ps) => ps::ps(&client, out, ps).await?,
        Verb::Logs(logs) => return logs::logs(&client, out, logs).await,
        Verb::Stop(stop) => stop::stop(&client, out, stop).await?,
        Verb::Rm(rm) => rm::rm(&client, out, rm).await?,
        Verb::Scale(scale) => scale::scale(&client, out, scale).await?,
        Verb::Explain(explain) => explain::explain(&client, out, explain).await?,
        Verb::Foresee(foresee) => foresee::foresee(&client, out, foresee).await?,
        Verb::Rebalance(rebalance) => rebalance::rebalance(&client, out, rebalance).await?,
        Verb::Status(_) => status::status(&client, out).await?,
        Verb::Machine(machine) => machine::machine(&client, out, machine).await?,
        Verb::Invite(invite) => invite::invite(&client, out, invite).await?,
        Verb::Image(image) => image::image(&client, out, image).await?,
        Verb::Events(events) => events::events(&client, out, events).await?,
        Verb::Doctor(_) => return doctor::doctor(&client, out).await,
        Verb::Version(_) => version::version(&client, out).await?,
        Verb::Completion(_) => {}
    }
    Ok(Exit::Done)
}
