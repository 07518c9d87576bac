//! What running tasks use: read here, and asked of every other machine.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::http::Request;
use futures::stream::{self, StreamExt};
use rialto_protocol::api::{Answer, Stats, StatsRow, TaskRow};
use rialto_protocol::ids::PeerId;
use rialto_protocol::view::TaskFilter;
use serde::Deserialize;

use super::extract::{Options, switch};
use super::forward::{encode, refusal};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::{Api, Shared};
use crate::executor::Usage;

/// Machines asked at once.
const ASKED_AT_ONCE: usize = 32;
/// The most bytes of a machine's answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOptions {
    app: Option<String>,
    service: Option<String>,
    /// This machine's tasks alone.
    #[serde(default, deserialize_with = "switch")]
    here: bool,
}

pub async fn read(
    api: Shared,
    identity: Identity,
    Options(options): Options<ReadOptions>,
) -> Result<Json<Answer<Stats>>, Problem> {
    identity.may(Verb::ReadLogs)?;
    let ReadOptions { app, service, here } = options;
    if service.is_some() && app.is_none() {
        return Err(Problem::invalid("`service` needs an `app`").at("query"));
    }
    let filter = TaskFilter { app, service, slot: None, all: false };
    let mut stats = own(&api, filter.clone()).await?;
    if !here {
        if let Identity::Peer(_) = identity {
            return Err(Problem::invalid("a peer asks for what this machine has: here=true").at("query"));
        }
        others(&api, filter, &mut stats).await?;
    }
    stats.stats.sort_by_cached_key(|row| {
        (row.app.clone(), row.service.clone(), row.slot.parse::<u64>().unwrap_or(u64::MAX), row.slot.clone())
    });
    api.answer_with(stats).await
}

async fn own(api: &Api, filter: TaskFilter) -> Result<Stats, Problem> {
    let usage = api.containers.usage().await;
    let rows = api.handle.read(move |brain, now| brain.view(now).tasks(&filter));
    let rows = rows.await.ok_or_else(Problem::going_down)?;
    let by_claim: BTreeMap<String, TaskRow> =
        rows.into_iter().filter_map(|row| Some((row.claim.clone()?, row))).collect();
    let known = usage.into_iter().filter_map(|usage| {
        let row = by_claim.get(&usage.claim.hex())?;
        Some(stats_row(row, &usage, &api.machine))
    });
    Ok(Stats { stats: known.collect(), remarks: Vec::new() })
}

fn stats_row(row: &TaskRow, usage: &Usage, machine: &str) -> StatsRow {
    StatsRow {
        task: row.task.clone(),
        app: row.app.clone(),
        service: row.service.clone(),
        slot: row.slot.clone(),
        machine: machine.into(),
        claim: usage.claim.hex(),
        at: usage.at,
        cpu_us: usage.cpu_us,
        cpu_millis: usage.cpu_us / usage.ran_ms.max(1),
        cpu_limit_millis: usage.cpu_limit_millis,
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
        received_bytes: usage.network.map(|(received, _)| received),
        sent_bytes: usage.network.map(|(_, sent)| sent),
    }
}

async fn others(api: &Api, filter: TaskFilter, stats: &mut Stats) -> Result<(), Problem> {
    let me = api.me.hex();
    let machines = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        let alive = view.machines().into_iter().filter(|row| !["down", "left", "no-executor"].contains(&&*row.state));
        let others = alive.filter(|row| row.id != me);
        others
            .filter_map(|row| {
                let peer = PeerId::from_hex(&row.id)?;
                Some((peer, row.name, view.addresses(&peer)))
            })
            .collect::<Vec<_>>()
    });
    let machines = machines.await.ok_or_else(Problem::going_down)?;
    let mut path = "/v1/stats?here=true".to_string();
    for (key, value) in [("app", &filter.app), ("service", &filter.service)] {
        path += &value.as_ref().map(|value| format!("&{key}={}", encode(value))).unwrap_or_default();
    }
    let asked = machines.into_iter().map(|(peer, name, addresses)| {
        let path = path.clone();
        async move { ask(api, peer, addresses, path).await.map_err(|why| format!("{name} does not answer: {why}")) }
    });
    let mut answers = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(theirs) => stats.stats.extend(theirs.stats),
            Err(remark) => stats.remarks.push(remark),
        }
    }
    stats.remarks.sort();
    Ok(())
}

async fn ask(api: &Api, peer: PeerId, addresses: Vec<String>, path: String) -> Result<Stats, String> {
    let request = Request::get(path).body(Body::empty()).map_err(|error| error.to_string())?;
    let response = api.peers.call(peer, addresses, request).await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(refusal(response).await.body().message.clone());
    }
    let bytes =
        axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())?;
    let answer: Answer<Stats> = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok(answer.data)
}
