//! Who changed an app and when: its document's changes are records, and all of them are kept.

use crate::api::{History, RevisionRow};
use crate::brain::NAMESPACE;
use crate::ids::AppId;
use crate::ledger::Document;
use crate::ledger::document::ChangeValue;
use crate::rfc3339::rfc3339;
use crate::view::View;
use crate::wire::decode;

/// The author of what stewards write down: finished work, and the end of old runs.
pub const STEWARD: &str = "steward";

impl View<'_> {
    /// Who changed an app and when, the oldest first; `all`: what stewards wrote down as finished, too, and earlier
    /// generations. `None`: there never was such an app.
    pub fn history(&self, name: &str, all: bool) -> Option<History> {
        let id = |generation| AppId { namespace: NAMESPACE.into(), name: name.into(), generation };
        let generations = self.brain.documents.range(id(0)..=id(u32::MAX));
        let last = self.brain.app_named(name).or_else(|| generations.clone().next_back().map(|(app, _)| app))?;
        let mut rows = Vec::new();
        for (app, _) in generations.filter(|(app, _)| all || *app == last) {
            for (owner, key) in self.brain.readings.changes_of(app) {
                let Some(record) = self.brain.ledger.get(owner, key).map(|stored| &stored.record) else { continue };
                let value = record.value.as_ref();
                let Some(change) = value.and_then(|value| decode::<ChangeValue>(value).ok()) else { continue };
                if change.author == STEWARD && !all {
                    continue;
                }
                let row = RevisionRow {
                    revision: key.id.to_string(),
                    at: rfc3339(record.stamp),
                    author: change.author,
                    machine: self.brain.machine_name(owner),
                    summary: change.summary,
                    generation: app.generation,
                };
                rows.push((app.generation, Document::place(&change.bytes), record.stamp, row));
            }
        }
        rows.sort_by(|one, other| {
            (one.0, one.1, one.2, &one.3.revision).cmp(&(other.0, other.1, other.2, &other.3.revision))
        });
        Some(History {
            app: name.into(),
            generation: last.generation,
            revisions: rows.into_iter().map(|(_, _, _, row)| row).collect(),
            conflicts: self.brain.documents.get(last).map(|document| document.conflicts.clone()).unwrap_or_default(),
        })
    }
}
