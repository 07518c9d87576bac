//! What it costs to run tasks in order: a graph of 1,000 tasks, each waiting for tasks of the layer before it, in processor time
//! over as many tasks that wait for nothing. The null executor: the tasks themselves cost nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rialto_chaos::netns::Lab;
use rialto_client::{Client, Wait, new_change};
use rialto_protocol::model::{AppSpec, Condition};

use crate::figures::{Figures, Target};
use crate::placing::{client, spec};

const PEERS: usize = 3;
/// So many layers of so many services of so many tasks: a thousand services would be more than an app may say.
const LAYERS: usize = 25;
const WIDTH: usize = 20;
const EACH: usize = 2;
const TASKS: usize = LAYERS * WIDTH * EACH;
/// Services of the layer before that each task waits for.
const BEFORE: usize = 2;
/// A task starts when the machine that looks after the app knows the ends of those before.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `samples` graphs, and before each as many tasks of one service, all three peers' processor time taken together.
pub fn measure(figures: &mut Figures, samples: usize) -> Result<()> {
    let mut lab = Lab::new(PEERS)?;
    // Room is not what is measured here.
    lab.set_flags(&["--executor", "null", "--cpus", "1000", "--memory", "1024g"]);
    lab.found()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let client = client(lab.machine(0));
    let (mut plain, mut graphs, mut over, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // What is done for the first time costs more.
    runtime.block_on(run(&client, "warm", spec(TASKS as u32, false)))?;
    for sample in 0..samples {
        let cost = |name: &str, spec| -> Result<(f64, f64)> {
            let before = used(&lab)?;
            let took = runtime.block_on(run(&client, &format!("{name}-{sample}"), spec))?;
            Ok(((used(&lab)? - before).as_secs_f64() * 1e3 / TASKS as f64, took))
        };
        let (without, _) = cost("plain", spec(TASKS as u32, false))?;
        let (with, took) = cost("graph", graph())?;
        plain.push(without);
        graphs.push(with);
        over.push(with - without);
        times.push(took);
    }
    figures.add("1,000 null tasks of one service: processor time of three peers", "ms a task", plain, Target::None);
    figures.add("the same as a graph of 25 layers", "ms a task", graphs, Target::None);
    figures.add("a graph's processor time over the former", "ms a task", over, Target::AtMost(1.0));
    figures.add("the graph, from its deploy until its last end", "s", times, Target::None);
    Ok(())
}

/// Five hundred services of two tasks; each but those of the first layer waits for two of the layer before.
fn graph() -> AppSpec {
    let name = |layer: usize, number: usize| format!("l{layer}-{}", number % WIDTH);
    let one = spec(EACH as u32, false).services.into_values().next().unwrap_or_default();
    let services = (0..LAYERS).flat_map(|layer| (0..WIDTH).map(move |number| (layer, number)));
    let services = services.map(|(layer, number)| {
        let mut service = one.clone();
        if let Some(before) = layer.checked_sub(1) {
            let others = (0..BEFORE).map(|next| name(before, number + next));
            service.depends_on = others.map(|other| (other, Condition::ServiceCompletedSuccessfully)).collect();
        }
        (name(layer, number), service)
    });
    AppSpec { services: services.collect(), single_run: false }
}

/// Deploys it, waits for its last end, and removes it; seconds from the deploy to the last end.
async fn run(client: &Client, app: &str, spec: AppSpec) -> Result<f64> {
    let began = std::time::Instant::now();
    client.deploy(app, spec, false, new_change()).await?;
    let ended = client.wait(app, Wait::Finished, LIMIT).await.with_context(|| format!("waiting for {app}"))?;
    let took = began.elapsed().as_secs_f64();
    let well = ended.data.tasks.iter().filter(|row| row.exit_code == Some(0)).count();
    ensure!(well == TASKS, "{app}: {well} of {TASKS} tasks ended well");
    client.remove(app, new_change()).await?;
    Ok(took)
}

/// Processor time of all peers.
fn used(lab: &Lab) -> Result<Duration> {
    let of = |machine: &rialto_chaos::netns::Machine| machine.processor_time().context("a peer has gone");
    lab.machines().iter().map(of).sum()
}
