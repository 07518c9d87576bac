//! Why each machine does not take a task of one service; machines of one reason are told together.

use std::collections::BTreeMap;

use super::NAMES_MAX;
use super::words::{amount, dimension, of, time};
use crate::api::MachineReason;
use crate::brain::Efforts;
use crate::ids::{AppId, PeerId};
use crate::market::reasons::PassedOver;
use crate::market::wire::DeclineReason;
use crate::membership::State;
use crate::model::resources::PORT_PREFIX;
use crate::model::{Machine, Resources, ServiceSpec};
use crate::view::View;

/// The machines of one reason.
#[derive(Debug, Default)]
struct Group {
    peers: Vec<PeerId>,
    /// The most that one of them has free of what is short.
    most: u64,
}

/// A reason, before its machines are counted: they sort by how much a person can do about them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Full(String),
    TooSmall(String),
    Port { port: String, taker: String },
    Declined { code: &'static str, text: String },
    Fits,
    Bid,
    Silent,
    Away { code: &'static str, text: String },
}

impl View<'_> {
    pub(super) fn explain_machines(
        &self,
        app: &AppId,
        spec: &ServiceSpec,
        efforts: &Efforts<'_>,
    ) -> Vec<MachineReason> {
        let need = spec.need();
        let mut groups: BTreeMap<Why, Group> = BTreeMap::new();
        for (peer, machine) in self.brain.readings.machines.iter() {
            if self.brain.members.state(peer) == State::Left {
                continue;
            }
            let has = efforts.has.get(peer).copied().unwrap_or(0);
            let why = match self.brain.passed_over(app, peer, machine, spec, has) {
                Some(passed_over) => self.passed_over_words(peer, passed_over),
                None => self.answer_words(app, peer, machine, &need, efforts),
            };
            let free = match &why {
                Why::Full(dimension) => machine.capacity.free(self.brain.readings.used(peer), dimension),
                Why::TooSmall(dimension) => machine.capacity.free(&Resources::default(), dimension),
                _ => 0,
            };
            let group = groups.entry(why).or_default();
            group.peers.push(*peer);
            group.most = group.most.max(free);
        }
        let mut rows: Vec<MachineReason> =
            groups.into_iter().map(|(why, group)| self.reason_row(why, group, &need)).collect();
        // Sorting is stable: of as many machines the order of the reasons stands.
        rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        rows
    }

    fn passed_over_words(&self, peer: &PeerId, passed_over: PassedOver) -> Why {
        let since_ms = self.brain.members.since(peer).map_or(0, |since| self.now.ms.saturating_sub(since));
        let away = |code, text| Why::Away { code, text };
        match passed_over {
            PassedOver::Down => away("down", format!("down for {}", time(since_ms))),
            PassedOver::Suspect => away("suspect", "does not answer, and is about to be held for down".into()),
            PassedOver::Restarting => away("restarting", "about to be restarted".into()),
            PassedOver::Unfit(reason) => declined(reason),
        }
    }

    /// What the machine said in the last auction; of one that was not asked, what the choice goes by.
    fn answer_words(
        &self,
        app: &AppId,
        peer: &PeerId,
        machine: &Machine,
        need: &Resources,
        efforts: &Efforts<'_>,
    ) -> Why {
        let short = machine.capacity.lacks(self.brain.readings.used(peer), need);
        let too_small = machine.capacity.lacks(&Resources::default(), need);
        let why = match efforts.answers.and_then(|answers| answers.declines.get(peer)) {
            Some(reason) => declined(reason.clone()),
            None if efforts.answers.is_some_and(|answers| answers.silent.contains(peer)) => Why::Silent,
            None => match (too_small, short) {
                (Some(dimension), _) => Why::TooSmall(dimension),
                (None, Some(dimension)) => Why::Full(dimension),
                (None, None) if efforts.answers.is_some_and(|answers| answers.bids.contains(peer)) => Why::Bid,
                (None, None) => Why::Fits,
            },
        };
        match why {
            Why::Full(dimension) if dimension.starts_with(PORT_PREFIX) => {
                let taker = self.taker(app, peer, &dimension).unwrap_or_else(|| "a task".into());
                Why::Port { port: dimension.trim_start_matches(PORT_PREFIX).into(), taker }
            }
            other => other,
        }
    }

    /// The service whose task has a dimension of a machine for itself.
    fn taker(&self, app: &AppId, peer: &PeerId, dimension: &str) -> Option<String> {
        let takes = |entry: &&crate::ledger::readings::ClaimEntry| {
            entry.owner == *peer && !entry.claim.state.has_ended() && entry.claim.need.get(dimension) > 0
        };
        let task = &self.brain.readings.all_claims().find(takes)?.claim.task;
        let own = if task.app == *app { "this app's " } else { "" };
        Some(format!("{own}{}/{}", task.app.name, task.service))
    }

    fn reason_row(&self, why: Why, group: Group, need: &Resources) -> MachineReason {
        let short = |name: &str| amount(name, need.get(name));
        let (code, text) = match why {
            Why::Full(name) if group.most >= need.get(&name) => {
                ("reserved", format!("{} is reserved for other tasks at this moment", dimension(&name)))
            }
            Why::Full(name) => {
                let free = amount(&name, group.most);
                ("full", format!("not enough {}: needs {}, at most {free} free", dimension(&name), short(&name)))
            }
            Why::TooSmall(name) => {
                let has = amount(&name, group.most);
                ("too-small", format!("too small: needs {}, has at most {has}", of(&name, need.get(&name))))
            }
            Why::Port { port, taker } => ("port", format!("port {port} is taken by {taker}")),
            Why::Declined { code, text } | Why::Away { code, text } => (code, text),
            Why::Fits => ("fits", "has room; to be asked".into()),
            Why::Bid => ("bid", "bid, and was given other tasks of the service; to be asked again".into()),
            Why::Silent => ("silent", "was asked and did not answer in time".into()),
        };
        let mut machines: Vec<String> = group.peers.iter().map(|peer| self.brain.machine_name(peer)).collect();
        let count = machines.len() as u32;
        machines.sort();
        machines.truncate(NAMES_MAX);
        MachineReason { code: code.into(), text, count, machines }
    }
}

/// A machine's own word. What has a sentence of its own here is told with amounts; the others speak for themselves.
fn declined(reason: DeclineReason) -> Why {
    let say = |code, text: String| Why::Declined { code, text };
    match reason {
        DeclineReason::Full(dimension) if dimension.contains(' ') => say("reserved", dimension),
        DeclineReason::Full(dimension) => Why::Full(dimension),
        DeclineReason::TooSmall(dimension) => Why::TooSmall(dimension),
        DeclineReason::Constraint(constraint) => say("constraint", format!("{constraint} does not hold")),
        DeclineReason::Draining => Why::Away { code: "draining", text: "draining".into() },
        DeclineReason::NoExecutor(_) => Why::Away { code: "no-executor", text: reason.to_string() },
        DeclineReason::Crowded(_) => say("crowded", reason.to_string()),
        DeclineReason::Apart(other) => say("apart", format!("has a task of {other}, which it is to be apart from")),
        DeclineReason::Volume { .. } => say("volume", reason.to_string()),
        DeclineReason::Queued => say("queued", reason.to_string()),
        DeclineReason::Isolated => say("isolated", reason.to_string()),
        DeclineReason::Forbidden(ask) => {
            let text = format!("does not allow {ask}; 'allow' in its rialtod.toml says what it allows");
            say("forbidden", text)
        }
        DeclineReason::NoImage(_) => say("no-image", reason.to_string()),
        other => say("declined", other.to_string()),
    }
}
