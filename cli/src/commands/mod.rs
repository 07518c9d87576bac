//! The verbs, one file each.

mod cp;
mod deploy;
mod doctor;
mod elect;
mod events;
mod exec;
mod explain;
mod foresee;
mod history;
mod image;
mod invite;
mod lock;
mod lock_program;
mod lock_session;
mod locks;
mod login;
mod logs;
mod machine;
mod plan;
mod port;
mod ps;
mod rebalance;
mod restart;
mod rm;
mod rollback;
mod rollout;
mod run;
mod scale;
mod secret;
mod stats;
mod status;
mod stop;
mod version;
mod volume;
mod wait;
mod watch;

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
    if let Verb::Plan(plan) = &args.verb
        && plan.offline
    {
        return plan::offline(out, plan).map(|()| Exit::Done);
    }
    let client = peer::client(&args.door)?;
    match args.verb {
        Verb::Run(run) => return run::run(&client, out, run).await,
        Verb::Deploy(deploy) => deploy::deploy(&client, out, deploy).await?,
        Verb::Plan(plan) => plan::plan(&client, out, &plan).await?,
        Verb::Wait(wait) => return wait::wait(&client, out, wait).await,
        Verb::Restart(restart) => restart::restart(&client, out, restart).await?,
        Verb::Down(down) => rm::down(&client, out, down).await?,
        Verb::History(history) => history::history(&client, out, history).await?,
        Verb::Rollback(rollback) => rollback::rollback(&client, out, rollback).await?,
        Verb::Rollout(rollout) => rollout::rollout(&client, out, rollout).await?,
        Verb::Job(job) => rollout::job(&client, out, job).await?,
        Verb::Ps(ps) => ps::ps(&client, out, ps).await?,
        Verb::Logs(logs) => return logs::logs(&client, out, logs).await,
        Verb::Exec(exec) => return exec::exec(&client, exec).await,
        Verb::Attach(attach) => return exec::attach(&client, attach).await,
        Verb::Cp(cp) => cp::cp(&client, cp).await?,
        Verb::Port(port) => port::port(&client, out, port).await?,
        Verb::Stats(stats) => stats::stats(&client, out, stats).await?,
        Verb::Stop(stop) => stop::stop(&client, out, stop).await?,
        Verb::Rm(rm) => rm::rm(&client, out, rm).await?,
        Verb::Scale(scale) => scale::scale(&client, out, scale).await?,
        Verb::Explain(explain) => explain::explain(&client, out, explain).await?,
        Verb::Foresee(foresee) => foresee::foresee(&client, out, foresee).await?,
        Verb::Rebalance(rebalance) => rebalance::rebalance(&client, out, rebalance).await?,
        Verb::Lock(lock) => return lock::lock(&client, lock).await,
        Verb::Elect(elect) => return elect::elect(&client, out, elect).await,
        Verb::Locks(locks) => locks::locks(&client, out, locks).await?,
        Verb::Status(status) => status::status(&client, out, &status).await?,
        Verb::Machine(machine) => machine::machine(&client, out, machine).await?,
        Verb::Invite(invite) => invite::invite(&client, out, invite).await?,
        Verb::Image(image) => image::image(&client, out, image).await?,
        Verb::Login(login) => login::login(&client, out, login).await?,
        Verb::Logout(logout) => login::logout(&client, out, logout).await?,
        Verb::Volume(volume) => volume::volume(&client, out, volume).await?,
        Verb::Secret(secret) => secret::secret(&client, out, secret).await?,
        Verb::Events(events) => events::events(&client, out, events).await?,
        Verb::Doctor(_) => return doctor::doctor(&client, out).await,
        Verb::Version(_) => version::version(&client, out).await?,
        Verb::Completion(_) => {}
    }
    Ok(Exit::Done)
}
