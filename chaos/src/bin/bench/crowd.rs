//! Many real peers on the loopback interface: how soon all know what one was told, and what they cost at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rialto_chaos::netns::{Lab, Machine};
use rialto_client::{Client, new_change};
use tokio::sync::mpsc;

use crate::figures::{Figures, Target};
use crate::placing::{client, spec};

/// What one peer was told must be known to all within this, or the bench has found a fault.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks at each resting peer; each is a sample.
const LOOKS: u32 = 10;
/// A new cluster has joined, linked and pruned its links after this: what is measured is what lasts.
const SETTLING: Duration = Duration::from_secs(20);

/// `peers` peers: `samples` changes, each to be known to all; then they rest, and are looked at for as long again.
pub fn measure(figures: &mut Figures, peers: usize, samples: usize, rest: Option<Duration>) -> Result<()> {
    let mut lab = Lab::on_loopback(peers)?;
    let took = lab.found()?;
    println!("{peers} peers on loopback see each other after {:.1} s", took.as_secs_f64());
    std::thread::sleep(SETTLING);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clients: Vec<Client> = lab.machines().iter().map(client).collect();
    let (mut each, mut last) = (Vec::new(), Vec::new());
    runtime.block_on(spread(&clients, samples, &mut each, &mut last))?;
    figures.add(format!("a change → known to one of {peers} peers"), "ms", each, Target::None);
    figures.add(format!("a change → known to all {peers} peers"), "ms", last, Target::None);
    drop(runtime);
    if let Some(rest) = rest {
        cost(figures, &lab, rest)?;
    }
    Ok(())
}

/// Deploys apps of nothing, at each peer in turn, and waits until the event stream of every other peer has told of it.
async fn spread(clients: &[Client], samples: usize, each: &mut Vec<f64>, last: &mut Vec<f64>) -> Result<()> {
    let (told, mut tellings) = mpsc::channel(clients.len());
    for (peer, client) in clients.iter().enumerate() {
        // What happens before a stream is open is not told by it.
        let mut events = client.follow_events(None).await?;
        let told = told.clone();
        tokio::spawn(async move {
            let told_of = async {
                while let Some(event) = events.next().await? {
                    if event.what == "changed" && told.send(Ok((peer, event.subject, Instant::now()))).await.is_err() {
                        break;
                    }
                }
                anyhow::Ok(())
            };
            if let Err(error) = told_of.await {
                told.send(Err(error)).await.ok();
            }
        });
    }
    // The first warms what is used for the first time; nobody counts it.
    for sample in 0..=samples {
        let app = format!("probe-{sample}");
        let began = Instant::now();
        let deploy = clients[sample % clients.len()].deploy(&app, spec(0, false), false, new_change());
        let deploy = async { deploy.await.map(drop).context("a deploy") };
        let hear = async {
            let mut heard = BTreeMap::new();
            let others = (0..clients.len()).filter(|peer| *peer != sample % clients.len());
            let mut waited: BTreeSet<usize> = others.collect();
            while !waited.is_empty() {
                let telling = tokio::time::timeout(PATIENCE, tellings.recv()).await;
                match telling.with_context(|| format!("{app} is not known to {waited:?}, counted from 0"))? {
                    Some(Ok((peer, subject, at))) if subject == app && waited.remove(&peer) => {
                        heard.insert(peer, milliseconds(at.duration_since(began)));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => bail!("nobody tells any more"),
                }
            }
            Ok(heard.into_values().collect::<Vec<f64>>())
        };
        let ((), heard) = tokio::try_join!(deploy, hear)?;
        if sample > 0 {
            last.push(heard.iter().copied().fold(0.0, f64::max));
            each.extend(heard);
        }
    }
    Ok(())
}

/// What a peer has used, counted and holds at one moment.
struct Look {
    at: Instant,
    used: Duration,
    resident: f64,
    counted: BTreeMap<String, f64>,
}

fn look(machine: &Machine) -> Result<Look> {
    let gone = || format!("the peer of {} has gone", machine.name());
    let (used, (resident, _)) = (machine.processor_time().with_context(gone)?, machine.memory().with_context(gone)?);
    Ok(Look { at: Instant::now(), used, resident: resident as f64, counted: machine.metrics()? })
}

impl Look {
    /// The sum of all metrics whose name and labels begin so.
    fn sum(&self, prefix: &str) -> f64 {
        self.counted.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix)).map(|(_, n)| n).sum()
    }

    /// By how much that has grown a second since.
    fn rate(&self, since: &Look, prefix: &str) -> f64 {
        (self.sum(prefix) - since.sum(prefix)) / self.at.duration_since(since.at).as_secs_f64()
    }
}

const SENT: &str = "rialto_link_bytes_total{way=\"sent\",kind=\"";
const SENT_MESSAGES: &str = "rialto_link_messages_total{way=\"sent\"";

fn cost(figures: &mut Figures, lab: &Lab, rest: Duration) -> Result<()> {
    let peers = lab.len();
    println!("{peers} peers rest for {rest:?}, and are looked at for as long again …");
    std::thread::sleep(rest);
    let first: Vec<Look> = lab.machines().iter().map(look).collect::<Result<_>>()?;
    let (mut before, mut samples) = (None, [const { Vec::new() }; 4]);
    for _ in 0..LOOKS {
        std::thread::sleep(rest / LOOKS);
        let now: Vec<Look> = lab.machines().iter().map(look).collect::<Result<_>>()?;
        for (now, before) in now.iter().zip(before.as_ref().unwrap_or(&first)) {
            let (seconds, used) = (now.at.duration_since(before.at), now.used.saturating_sub(before.used));
            samples[0].push(now.rate(before, SENT) * 8.0 / 1000.0);
            samples[1].push(now.rate(before, SENT_MESSAGES));
            samples[2].push(used.as_secs_f64() / seconds.as_secs_f64() * 100.0);
            samples[3].push(now.resident / 1e6);
        }
        before = Some(now);
    }
    let last = before.context("it was looked at")?;
    let [bytes, messages, busy, resident] = samples;
    figures.add(format!("idle peer of {peers}: sends, before encryption"), "kb/s", bytes, Target::AtMost(1000.0));
    figures.add(format!("idle peer of {peers}: sends"), "messages/s", messages, Target::None);
    figures.add(format!("idle peer of {peers}: processor"), "% of a core", busy, Target::AtMost(2.0));
    figures.add(format!("idle peer of {peers}: memory (RSS)"), "MB", resident, Target::AtMost(100.0));
    let of_each = |name: &str| last.iter().map(|look| look.sum(name)).collect();
    figures.add(format!("peer of {peers}: connections"), "", of_each("rialto_mesh_connections"), Target::AtMost(20.0));
    figures.add(format!("peer of {peers}: standing links"), "", of_each("rialto_links"), Target::None);
    let mut kinds: BTreeMap<&str, f64> = BTreeMap::new();
    for (last, first) in last.iter().zip(&first) {
        for name in last.counted.keys().filter_map(|name| name.strip_prefix(SENT)) {
            let rate = last.rate(first, &format!("{SENT}{name}"));
            *kinds.entry(name.trim_end_matches("\"}")).or_default() += rate * 8.0 / 1000.0 / peers as f64;
        }
    }
    let mut kinds: Vec<_> = kinds.into_iter().filter(|(_, rate)| *rate > 0.0).collect();
    kinds.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let kinds: Vec<String> = kinds.into_iter().map(|(kind, rate)| format!("{kind} {rate:.2}")).collect();
    println!("  kb/s that a resting peer sends, by kind: {}", kinds.join(", "));
    Ok(())
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
