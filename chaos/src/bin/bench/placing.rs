//! Placements per second: the null executor behind the real network, disk, ledger and market.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rialto_chaos::netns::{Lab, Machine};
use rialto_client::{Client, Endpoint, RunBody, Wait, new_change};
use rialto_protocol::api::LogLine;
use rialto_protocol::model::{AppSpec, OnLost, Resources, Restart, ServiceSpec};

use crate::figures::{Figures, Target};

const PEERS: usize = 3;
/// Tasks of one deploy, and single runs in all.
const TASKS: u32 = 2000;
const IN_FLIGHT: usize = 32;
/// Single runs that make one sample.
const WINDOW: usize = 100;
const LIMIT: Duration = Duration::from_secs(120);
/// One single run, from its submission to its end.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// Deploys `samples` apps of 2,000 tasks one after the other, then makes single runs, 32 in flight.
pub fn measure(figures: &mut Figures, samples: usize) -> Result<()> {
    let mut lab = Lab::new(PEERS)?;
    // Room is not what is measured here.
    lab.set_flags(&["--executor", "null", "--cpus", "1000", "--memory", "1024g"]);
    lab.found()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clients: Vec<Arc<Client>> = lab.machines().iter().map(|machine| Arc::new(client(machine))).collect();

    let deploys = runtime.block_on(async {
        let mut rates = Vec::new();
        for sample in 0..samples {
            rates.push(deploy(&clients[sample % PEERS], &format!("batch-{sample}")).await?);
        }
        anyhow::Ok(rates)
    })?;
    figures.add("placements: one deploy of 2,000 tasks", "/s", deploys, Target::AtLeast(500.0));

    let rates = runtime.block_on(runs(&clients, samples.min(TASKS as usize / WINDOW)))?;
    figures.add("placements: single runs, 32 in flight", "/s", rates, Target::AtLeast(100.0));
    Ok(())
}

/// A client that asks this machine's peer alone.
pub fn client(machine: &Machine) -> Client {
    Client::new(vec![Endpoint::Socket(machine.socket())], None)
}

/// A service of tasks that end at once and are finished then.
pub fn spec(replicas: u32, single_run: bool) -> AppSpec {
    let service = ServiceSpec {
        image: "host".into(),
        command: vec!["true".into()],
        replicas,
        restart: Restart::No,
        on_lost: if single_run { OnLost::Retry(0) } else { OnLost::Replace },
        reservations: Resources::of(10, 1 << 20),
        ..Default::default()
    };
    AppSpec { services: [("run".to_owned(), service)].into(), single_run }
}

/// One deploy, from sending it until its last task is finished: tasks per second.
async fn deploy(client: &Client, app: &str) -> Result<f64> {
    let began = Instant::now();
    client.deploy(app, spec(TASKS, false), false, new_change()).await?;
    client.wait(app, Wait::Finished, LIMIT).await.with_context(|| format!("waiting for {app}"))?;
    let rate = f64::from(TASKS) / began.elapsed().as_secs_f64();
    client.remove(app, new_change()).await?;
    Ok(rate)
}

/// Single runs through all peers in turn, followed to their ends: a rate for each hundred.
async fn runs(clients: &[Arc<Client>], windows: usize) -> Result<Vec<f64>> {
    let total = windows * WINDOW;
    let next = Arc::new(AtomicUsize::new(0));
    let (ended, mut ends) = tokio::sync::mpsc::channel(IN_FLIGHT);
    let mut workers = tokio::task::JoinSet::new();
    let mut mark = Instant::now();
    for worker in 0..IN_FLIGHT {
        let (client, next, ended) = (clients[worker % clients.len()].clone(), next.clone(), ended.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(());
                }
                let run = tokio::time::timeout(RUN_LIMIT, run(&client, number));
                let outcome = run.await.unwrap_or_else(|_| bail!("nobody told of its end within {RUN_LIMIT:?}"));
                outcome.with_context(|| format!("single run {number}"))?;
                ended.send(Instant::now()).await?;
            }
        });
    }
    drop(ended);
    let mut rates = Vec::new();
    let mut done = 0;
    loop {
        tokio::select! {
            Some(at) = ends.recv() => {
                done += 1;
                if done % WINDOW == 0 {
                    rates.push(WINDOW as f64 / at.duration_since(mark).as_secs_f64());
                    mark = at;
                }
            }
            // One that failed ends the bench: a rate of what is left would mean nothing.
            Some(worker) = workers.join_next() => worker??,
            else => break,
        }
    }
    ensure!(done == total, "{done} of {total} single runs ended");
    Ok(rates)
}

/// One single run, followed until it has exited.
async fn run(client: &Client, number: usize) -> Result<()> {
    let body = RunBody { change: new_change().hex(), app: format!("run-{number}"), spec: spec(1, true) };
    let mut lines = client.run(&body).await?;
    let mut last = None;
    while let Some(line) = lines.next().await? {
        match line {
            LogLine::State(row) => last = Some(row),
            LogLine::Failed(error) => bail!("{}", error.message),
            LogLine::Output { .. } => {}
        }
    }
    let row = last.context("it ended without a state")?;
    ensure!(row.exit_code == Some(0), "{} ended as {}: {:?}", row.task, row.state, row.reason);
    Ok(())
}
