//! What is counted: messages and bytes by kind, and what each kind of event costs on the process's
//! clock. The brain knows of none of this.

use std::collections::BTreeMap;
use std::time::Duration;

use rialto_protocol::Event;
use rialto_protocol::wire::Message;

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
}

/// Events and what they took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub events: u64,
    pub took: Duration,
    pub most: Duration,
}

/// Everything that was counted since the last [`Tally::default`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub traffic: BTreeMap<&'static str, Traffic>,
    pub costs: BTreeMap<&'static str, Cost>,
    /// Records of others that came in frames and were news, and those that were not.
    pub news: u64,
    pub duplicates: u64,
    /// The same of vitals.
    pub vitals_news: u64,
    pub vitals_duplicates: u64,
    pub reports: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn sent(&mut self, message: &Message, bytes: usize) {
        let traffic = self.traffic.entry(word(message)).or_default();
        traffic.messages += 1;
        traffic.bytes += bytes as u64;
    }

    pub fn handled(&mut self, kind: &'static str, took: Duration) {
        let cost = self.costs.entry(kind).or_default();
        cost.events += 1;
        cost.took += took;
        cost.most = cost.most.max(took);
    }

    pub fn total(&self) -> Traffic {
        let add = |sum: Traffic, one: &Traffic| Traffic {
            messages: sum.messages + one.messages,
            bytes: sum.bytes + one.bytes,
        };
        self.traffic.values().fold(Traffic::default(), add)
    }

    pub fn cost(&self) -> Cost {
        let add = |sum: Cost, one: &Cost| Cost {
            events: sum.events + one.events,
            took: sum.took + one.took,
            most: sum.most.max(one.most),
        };
        self.costs.values().fold(Cost::default(), add)
    }
}

/// The kind of an event, for people.
pub fn kind(event: &Event, is_news: bool) -> &'static str {
    match event {
        Event::Woke => "woke",
        Event::Received { message: Message::Frame(_), .. } if !is_news => "frame again",
        Event::Received { message: Message::Vitals(_), .. } if !is_news => "vitals again",
        Event::Received { message, .. } => word(message),
        Event::Link { .. } => "link",
        Event::Committed { .. } => "committed",
        Event::VitalsSigned { .. } => "vitals signed",
        Event::Request { .. } => "request",
        _ => "machine",
    }
}

fn word(message: &Message) -> &'static str {
    match message {
        Message::Heartbeat { .. } => "heartbeat",
        Message::Frame(_) => "frame",
        Message::Vitals(_) => "vitals",
        Message::Have(_) => "have",
        Message::Want(_) => "want",
        Message::Graft { .. } => "graft",
        Message::Prune => "prune",
        Message::Compare { .. } => "compare",
        Message::Digest { .. } => "digest",
        Message::Pull { .. } => "pull",
        Message::Records(_) => "records",
        Message::Keep { .. } | Message::Kept { .. } | Message::Told(_) => "copies",
        _ => "market",
    }
}
