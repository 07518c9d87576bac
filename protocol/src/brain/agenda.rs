//! When each app is to be looked at next.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::AppId;

/// Times by app, and apps by time: a peer that stewards thousands finds the few that are due.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    by_app: BTreeMap<AppId, u64>,
    by_time: BTreeSet<(u64, AppId)>,
}

impl Agenda {
    /// The app is looked at by then: monotonic, ms. Of two times the earlier stands.
    pub(super) fn look_by(&mut self, app: &AppId, ms: u64) {
        match self.by_app.get_mut(app) {
            Some(held) if *held <= ms => return,
            Some(held) => {
                self.by_time.remove(&(*held, app.clone()));
                *held = ms;
            }
            None => drop(self.by_app.insert(app.clone(), ms)),
        }
        self.by_time.insert((ms, app.clone()));
    }

    /// The app is nobody's to look at.
    pub(super) fn strike(&mut self, app: &AppId) {
        if let Some(ms) = self.by_app.remove(app) {
            self.by_time.remove(&(ms, app.clone()));
        }
    }

    /// The apps that are due, each to be put down anew by whoever looks at it.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<AppId> {
        let mut due = Vec::new();
        while self.next().is_some_and(|ms| ms <= now_ms) {
            let Some((_, app)) = self.by_time.pop_first() else { break };
            self.by_app.remove(&app);
            due.push(app);
        }
        due
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.by_time.first().map(|(ms, _)| *ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_time_stands_and_each_app_is_due_once() {
        let app = |name: &str| AppId { namespace: "default".into(), name: name.into(), generation: 1 };
        let mut agenda = Agenda::default();
        for (name, ms) in [("a", 9), ("b", 5), ("a", 3), ("b", 7), ("c", 4)] {
            agenda.look_by(&app(name), ms);
        }
        agenda.strike(&app("c"));
        assert_eq!(agenda.next(), Some(3));
        assert_eq!(agenda.take_due(5), [app("a"), app("b")]);
        assert_eq!((agenda.next(), agenda.take_due(u64::MAX)), (None, vec![]));
    }
}
