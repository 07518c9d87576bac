//! The event log of each app: what this peer saw happen to it, as records that all peers hold.
//!
//! Each peer keeps the last [`EVENTS_MAX`] events of an app, one record for each place in a ring, so that the log is
//! bounded whatever happens; what comes faster than it may be written is counted and told of with the next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Brain;
use super::writer::Urgency;
use crate::api::AppEvent;
use crate::effect::Note;
use crate::ids::PeerId;
use crate::ledger::record::Kind;
use crate::rfc3339::rfc3339;
use crate::view::View;
use crate::wire::encode;

/// The most events of one app that one peer keeps.
pub const EVENTS_MAX: u64 = 100;
/// Events that may be written at once, and how many more each second.
const BURST: u64 = 100;
const PER_SECOND: u64 = 5;
/// Events of apps that are gone are kept so long, ms.
const GONE_MS: u64 = 86_400_000;

/// The value of an `event` record; its key is the app and the place in the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    pub app: String,
    /// Counts this owner's events of the app, from 1.
    pub number: u64,
    /// Wall clock of the owner, ms.
    pub at: u64,
    pub what: String,
    pub subject: String,
    pub text: String,
}

/// By app, everything that is known to have happened to it: by wall clock, owner and number.
pub(crate) type Happenings = BTreeMap<String, BTreeMap<(u64, PeerId, u64), Happening>>;

/// How much this peer may write.
#[derive(Debug, Default)]
pub(super) struct Journal {
    last: BTreeMap<String, u64>,
    /// Thousandths of an event, and when they were counted: monotonic, ms.
    tokens: Option<(u64, u64)>,
    unwritten: u64,
}

impl Brain {
    /// Writes down what happened to an app; what is of machines alone is no app's.
    pub(super) fn write_down(&mut self, note: &Note) {
        let app = note.subject.split('.').next().unwrap_or_default();
        if self.generations_of(app).next().is_none() {
            return;
        }
        let (app, now) = (app.to_string(), self.now);
        let (tokens, at_ms) = self.journal.tokens.unwrap_or((BURST * 1000, now.ms));
        let tokens = (tokens + now.ms.saturating_sub(at_ms).saturating_mul(PER_SECOND)).min(BURST * 1000);
        if tokens < 1000 {
            self.journal.tokens = Some((tokens, now.ms));
            self.journal.unwritten += 1;
            return;
        }
        self.journal.tokens = Some((tokens - 1000, now.ms));
        let own = |events: &BTreeMap<(u64, PeerId, u64), Happening>| {
            events.keys().filter(|(_, owner, _)| *owner == self.me).map(|(.., number)| *number).max()
        };
        let held = self.journal.last.get(&app).copied();
        let held = held.or_else(|| self.readings.happenings.get(&app).and_then(own));
        let number = held.unwrap_or(0) + 1;
        self.journal.last.insert(app.clone(), number);
        let text = match std::mem::take(&mut self.journal.unwritten) {
            0 => note.text.clone(),
            more => format!("{} (and {more} events before it that came too fast to be kept)", note.text),
        };
        let id = format!("{app}/{}", number % EVENTS_MAX);
        let (what, subject) = (note.what.to_string(), note.subject.clone());
        let value = encode(&Happening { app, number, at: now.wall, what, subject, text });
        self.read_own(Kind::EVENT, &id, Some(&value));
        self.write(Kind::EVENT, &id, Some(value), Urgency::Ordinary);
    }

    /// Reads what somebody saw happen.
    pub(super) fn read_event(&mut self, owner: PeerId, id: &str, happening: Option<Happening>) {
        let Some((app, place)) = id.rsplit_once('/') else { return };
        let place: u64 = place.parse().unwrap_or(0);
        let events = self.readings.happenings.entry(app.to_string()).or_default();
        events.retain(|(_, of, number), _| *of != owner || number % EVENTS_MAX != place);
        if let Some(happening) = happening.filter(|one| one.app == app && one.number % EVENTS_MAX == place) {
            events.insert((happening.at, owner, happening.number), happening);
        }
        if events.is_empty() {
            self.readings.happenings.remove(app);
        }
        let app = self.generations_of(app).next_back().cloned();
        self.changed.extend(app);
    }

    /// What happened to apps that are long gone is forgotten by whoever wrote it.
    pub(super) fn tidy_journal(&mut self) {
        let (me, wall) = (self.me, self.now.wall);
        let gone = |app: &&String| self.app_named(app).is_none();
        let mut old: Vec<String> = Vec::new();
        for app in self.readings.happenings.keys().filter(gone) {
            let events = self.readings.happenings[app].keys();
            let own = events.filter(|(at, owner, _)| *owner == me && wall.saturating_sub(*at) > GONE_MS);
            old.extend(own.map(|(.., number)| format!("{app}/{}", number % EVENTS_MAX)));
        }
        for id in old {
            self.read_own(Kind::EVENT, &id, None);
            self.write(Kind::EVENT, &id, None, Urgency::Ordinary);
        }
    }
}

impl View<'_> {
    /// What happened to an app, the oldest first; `after`: what comes behind the event of this id. By the wall clocks of
    /// those who saw it.
    pub fn events(&self, app: &str, after: Option<&str>) -> Vec<AppEvent> {
        let all = self.brain.readings.happenings.get(app).into_iter().flatten();
        let row = |((at, owner, number), one): (&(u64, PeerId, u64), &Happening)| AppEvent {
            id: format!("{at:013}-{}-{number:08}", &owner.hex()[..8]),
            at: rfc3339(*at),
            machine: self.brain.machine_name(owner),
            what: one.what.clone(),
            subject: one.subject.clone(),
            text: one.text.clone(),
        };
        all.map(row).filter(|row| after.is_none_or(|after| row.id.as_str() > after)).collect()
    }
}
