//! Scheduling delay: from the moment at which a task is to be submitted until the machine that won it notes its end.
//!
//! Tasks are null, so that they end when they have begun. Both moments are of one machine's clock, to the
//! millisecond. A *closed* stream keeps so many deploys under way and finds the ceiling; an *open* one submits on time
//! at half of that, whatever became of the deploys before, and so tells what a user waits who knows nothing of others.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rialto_chaos::netns::Lab;
use rialto_client::{Client, new_change};
use tokio::sync::{Semaphore, mpsc, mpsc::UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::figures::{Figures, Target};
use crate::placing::{client, spec};

const PEERS: usize = 3;
/// Tasks of the one deploy.
const AT_ONCE: u32 = 1_000;
/// Tasks of each deploy of a stream.
const BATCH: u32 = 50;
/// Deploys under way in a closed stream of batches, and of single tasks.
const BATCHES_UNDER_WAY: usize = 8;
const SINGLES_UNDER_WAY: usize = 64;
/// Nothing ends for so long: something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// One deploy of 1,000; a stream of `tasks` in batches and one of `singles` one by one, each closed, then open at half
/// the rate.
pub fn measure(figures: &mut Figures, tasks: usize, singles: usize) -> Result<()> {
    let mut lab = Lab::new(PEERS)?;
    lab.set_flags(&["--executor", "null", "--cpus", "1000", "--memory", "1024g"]);
    lab.found()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut site = Site::open(lab.machines().iter().map(client).collect()).await?;
        // The first of all finds nothing in any cache.
        site.run("warm", &Load::closed(1, AT_ONCE, 1)).await?;
        let once = site.run("once", &Load::closed(1, AT_ONCE, 1)).await?;
        figures.add("1,000 null tasks in one deploy: delay of each", "ms", once.delays, Target::None);
        for (name, batch, deploys, under_way, promised, delay) in [
            ("50", BATCH, tasks / BATCH as usize, BATCHES_UNDER_WAY, Target::AtLeast(1500.0), 100.0),
            ("one", 1, singles, SINGLES_UNDER_WAY, Target::None, 100.0),
        ] {
            let closed = site.run(&format!("closed-{name}"), &Load::closed(deploys, batch, under_way)).await?;
            let what = format!("placements: a stream of {} in deploys of {name}", deploys * batch as usize);
            figures.add(what, "/s", closed.rates, promised);
            let half = Load { rate: Some(closed.rate / 2.0), ..Load::closed(deploys, batch, deploys) };
            let open = site.run(&format!("open-{name}"), &half).await?;
            let what = format!("scheduling delay at {:.0}/s, half of that, in deploys of {name}", open.rate);
            figures.add(what, "ms", open.delays, Target::NearlyAllAtMost(delay));
        }
        anyhow::Ok(())
    })
}

/// What is submitted, and how.
struct Load {
    deploys: usize,
    /// Tasks of each.
    batch: u32,
    /// Deploys that may be under way at once.
    under_way: usize,
    /// Tasks a second, on time; none: as fast as they end.
    rate: Option<f64>,
}

impl Load {
    fn closed(deploys: usize, batch: u32, under_way: usize) -> Self {
        Self { deploys, batch, under_way, rate: None }
    }
}

/// What came of it.
struct Outcome {
    /// Of each task, ms.
    delays: Vec<f64>,
    /// Tasks a second: in all, and in each tenth of the stream.
    rate: f64,
    rates: Vec<f64>,
}

/// Three peers, and what their machines tell of ended tasks: the app, and when, wall clock, ms.
struct Site {
    clients: Vec<Client>,
    ends: UnboundedReceiver<Result<(String, u64)>>,
}

impl Site {
    async fn open(clients: Vec<Client>) -> Result<Self> {
        let (told, ends) = mpsc::unbounded_channel();
        for client in &clients {
            let mut events = client.follow_events(None).await?;
            let told = told.clone();
            tokio::spawn(async move {
                let follow = async {
                    while let Some(event) = events.next().await? {
                        if event.what == "exited" {
                            let at = event.at.parse::<jiff::Timestamp>()?.as_millisecond() as u64;
                            let app = event.subject.split('.').next().unwrap_or_default().to_owned();
                            if told.send(Ok((app, at))).is_err() {
                                break;
                            }
                        }
                    }
                    anyhow::Ok(())
                };
                if let Err(error) = follow.await {
                    told.send(Err(error)).ok();
                }
            });
        }
        Ok(Self { clients, ends })
    }

    /// Submits a load, and follows it to its end.
    async fn run(&mut self, name: &str, load: &Load) -> Result<Outcome> {
        let total = load.deploys * load.batch as usize;
        let room = Semaphore::new(load.under_way);
        let app = |number: usize| format!("{name}-{number}");
        let (began, began_ms) = (Instant::now(), wall_ms());
        let (submitted, mut submissions) = mpsc::unbounded_channel();
        let mut deploys = JoinSet::new();
        let submit = async {
            for number in 0..load.deploys {
                let due = match load.rate {
                    Some(rate) => Duration::from_secs_f64(number as f64 * f64::from(load.batch) / rate),
                    None => {
                        room.acquire().await?.forget();
                        began.elapsed()
                    }
                };
                tokio::time::sleep_until(began + due).await;
                submitted.send((app(number), began_ms + due.as_millis() as u64))?;
                let (client, app, spec) = (self.clients[number % PEERS].clone(), app(number), spec(load.batch, false));
                deploys.spawn(async move { client.deploy(&app, spec, false, new_change()).await.map(drop) });
            }
            anyhow::Ok(())
        };
        let follow = async {
            let mut under_way: BTreeMap<String, (u64, u32)> = BTreeMap::new();
            let (mut delays, mut times) = (Vec::with_capacity(total), Vec::with_capacity(total));
            while delays.len() < total {
                let end = timeout(PATIENCE, self.ends.recv()).await;
                let end = end.with_context(|| format!("{name}: {} of {total} tasks have ended", delays.len()))?;
                let (app, at_ms) = end.context("nobody tells any more")??;
                while let Ok((app, since_ms)) = submissions.try_recv() {
                    under_way.insert(app, (since_ms, load.batch));
                }
                // What an earlier load left behind is not counted.
                let Some((since_ms, left)) = under_way.get_mut(&app) else { continue };
                delays.push(at_ms.saturating_sub(*since_ms) as f64);
                times.push(at_ms);
                *left -= 1;
                if *left == 0 {
                    under_way.remove(&app);
                    room.add_permits(1);
                }
            }
            anyhow::Ok((delays, times))
        };
        let ((), (delays, mut times)) = tokio::try_join!(submit, follow)?;
        while let Some(deployed) = deploys.join_next().await {
            deployed?.context("a deploy")?;
        }
        for number in 0..load.deploys {
            self.clients[number % PEERS].remove(&app(number), new_change()).await?;
        }
        times.sort_unstable();
        let Some(last) = times.last() else { bail!("{name}: no tasks") };
        let rate = |count: usize, from: u64, to: u64| count as f64 * 1000.0 / to.saturating_sub(from).max(1) as f64;
        let mut since = began_ms;
        let rates = times.chunks(total.div_ceil(10)).map(|tenth| {
            let end = *tenth.last().unwrap_or(&since);
            rate(tenth.len(), std::mem::replace(&mut since, end), end)
        });
        Ok(Outcome { delays, rates: rates.collect(), rate: rate(total, began_ms, *last) })
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
