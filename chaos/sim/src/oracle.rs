//! What people asked for and what they were told: the memory that the promises are judged by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::AppSpec;

use crate::World;

/// The most states of one app that are followed; an app with more is not judged.
const STATES_MAX: usize = 64;

/// What may be read of an app in the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Possible {
    Anything,
    /// It is there, however it reads.
    Something,
    /// One of these; `None`: there is no such app.
    OneOf(Vec<Option<AppSpec>>),
}

impl Possible {
    /// Whether this may be read.
    pub fn allows(&self, read: Option<&AppSpec>) -> bool {
        match self {
            Possible::Anything => true,
            Possible::Something => read.is_some(),
            Possible::OneOf(states) => states.iter().any(|state| state.as_ref() == read),
        }
    }
}

/// What somebody wanted done to an app.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    Deploy(AppSpec),
    Scale { service: String, replicas: u32 },
    Remove,
}

impl Deed {
    /// The request that asks for it.
    pub fn request(&self, change: ChangeId, app: &str) -> Request {
        let (author, app) = ("somebody".to_string(), app.to_string());
        match self.clone() {
            Deed::Deploy(spec) => Request::Deploy { change, author, app, spec },
            Deed::Scale { service, replicas } => {
                Request::Scale { change, author, app, service: Some(service), replicas }
            }
            Deed::Remove => Request::Remove { change, author, app },
        }
    }

    /// What the app reads after it; `None`: there is no such app.
    fn apply(&self, before: &Option<AppSpec>) -> Option<AppSpec> {
        match self {
            Deed::Deploy(spec) => Some(spec.clone()),
            Deed::Scale { service, replicas } => {
                let mut spec = before.clone()?;
                if let Some(service) = spec.services.get_mut(service) {
                    service.replicas = *replicas;
                }
                Some(spec)
            }
            Deed::Remove => None,
        }
    }
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// No answer came, or none yet: it may have been done.
    Unknown,
    /// It was acknowledged, and these machines held it on disk then.
    Acknowledged { copies: u32, holders: Vec<usize> },
    /// It was refused: it has not been done.
    Refused(String),
}

/// One thing that somebody wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    pub app: String,
    pub change: ChangeId,
    pub deed: Deed,
    pub machine: usize,
    pub asked_ms: u64,
    pub fate: Fate,
}

impl Wish {
    /// Whether every disk that is known to have held it is gone.
    pub fn is_lost(&self, world: &World) -> bool {
        match &self.fate {
            Fate::Acknowledged { holders, .. } => holders.iter().all(|at| {
                let machine = &world.machines[*at];
                machine.dead || machine.disk_lost_ms.is_some_and(|lost| lost >= self.asked_ms)
            }),
            _ => false,
        }
    }
}

/// Everything that was ever wanted.
#[derive(Debug, Default)]
pub struct Oracle {
    wishes: Vec<Wish>,
    /// By app: its wishes in the order in which they were asked, and whether all were asked at one
    /// machine, so that each knew of the ones before.
    apps: BTreeMap<String, (Vec<usize>, bool)>,
    /// Apps whose stewards or people may bring back what they were before.
    come_back: BTreeSet<String>,
}

impl Oracle {
    /// Remembers a wish; its ticket. `ordered`: the app is only ever edited at one machine.
    pub fn asked(&mut self, wish: Wish, ordered: bool) -> u64 {
        let ticket = self.wishes.len();
        let (wishes, all_ordered) = self.apps.entry(wish.app.clone()).or_insert((Vec::new(), true));
        wishes.push(ticket);
        *all_ordered &= ordered;
        self.wishes.push(wish);
        ticket as u64
    }

    /// What an app was before may come back without anybody's wish.
    pub fn may_come_back(&mut self, app: &str, may: bool) {
        if may {
            self.come_back.insert(app.into());
        }
    }

    /// The wish of a ticket.
    pub fn wish(&self, ticket: u64) -> Option<&Wish> {
        self.wishes.get(ticket as usize)
    }

    /// The last wish about an app, with its ticket.
    pub fn last(&self, app: &str) -> Option<(u64, &Wish)> {
        let ticket = *self.apps.get(app)?.0.last()?;
        Some((ticket as u64, &self.wishes[ticket]))
    }

    /// Notes what became of a wish. What was acknowledged once stays so.
    pub fn told(&mut self, ticket: u64, fate: Fate) {
        if let Some(wish) = self.wishes.get_mut(ticket as usize)
            && !matches!(wish.fate, Fate::Acknowledged { .. })
        {
            wish.fate = fate;
        }
    }

    /// The apps that were ever asked for.
    pub fn apps(&self) -> impl Iterator<Item = &str> {
        self.apps.keys().map(String::as_str)
    }

    /// What an app may read in the end. `lost`: wishes that were acknowledged and need not be found.
    pub fn possible(&self, app: &str, lost: impl Fn(&Wish) -> bool) -> Possible {
        let Some((tickets, ordered)) = self.apps.get(app) else { return Possible::Anything };
        let mut states: Vec<Option<AppSpec>> = vec![None];
        for wish in tickets.iter().map(|ticket| &self.wishes[*ticket]) {
            let sure = matches!(wish.fate, Fate::Acknowledged { .. }) && !lost(wish) && *ordered;
            if matches!(wish.fate, Fate::Refused(_)) {
                continue;
            }
            let after: Vec<_> = states.iter().map(|state| wish.deed.apply(state)).collect();
            if sure {
                states.clear();
            }
            for state in after {
                if !states.contains(&state) {
                    states.push(state);
                }
            }
            if states.len() > STATES_MAX {
                return Possible::Anything;
            }
        }
        if !ordered {
            // Concurrent edits merge: any of them may win, but somebody's must.
            return self.merged(tickets, states, lost);
        }
        if self.come_back.contains(app) && states.iter().any(Option::is_some) {
            let wishes = tickets.iter().map(|ticket| &self.wishes[*ticket]);
            for wish in wishes.filter(|wish| !matches!(wish.fate, Fate::Refused(_))) {
                if let Deed::Deploy(spec) = &wish.deed {
                    states.push(Some(spec.clone()));
                }
            }
        }
        Possible::OneOf(states)
    }

    /// Of an app that was edited at several machines only this is sure: if something was
    /// acknowledged and nobody ever removed it, it is there.
    fn merged(&self, tickets: &[usize], states: Vec<Option<AppSpec>>, lost: impl Fn(&Wish) -> bool) -> Possible {
        let wishes = || tickets.iter().map(|ticket| &self.wishes[*ticket]);
        let deployed = wishes().any(|wish| {
            matches!((&wish.deed, &wish.fate), (Deed::Deploy(_), Fate::Acknowledged { .. })) && !lost(wish)
        });
        let removed = wishes().any(|wish| wish.deed == Deed::Remove && !matches!(wish.fate, Fate::Refused(_)));
        let merges = wishes().filter(|wish| !matches!(wish.fate, Fate::Refused(_))).count() > 1;
        match (deployed && !removed, merges) {
            (true, true) => Possible::Something,
            (false, true) => Possible::Anything,
            (true, false) => Possible::OneOf(states.into_iter().filter(Option::is_some).collect()),
            (false, false) => Possible::OneOf(states),
        }
    }

    /// An app's wishes, for people.
    pub fn story(&self, app: &str) -> String {
        let mut text = String::new();
        for wish in self.apps.get(app).into_iter().flat_map(|(tickets, _)| tickets).map(|at| &self.wishes[*at]) {
            let deed = match &wish.deed {
                Deed::Deploy(spec) => {
                    let of = |(name, service): (&String, &rialto_protocol::model::ServiceSpec)| {
                        format!("{name}×{}", service.replicas)
                    };
                    format!("deploy {}", spec.services.iter().map(of).collect::<Vec<_>>().join(" "))
                }
                Deed::Scale { service, replicas } => format!("scale {service} to {replicas}"),
                Deed::Remove => "remove".into(),
            };
            let _ = write!(text, "\n    {} ms, at m{}: {deed}: {:?}", wish.asked_ms, wish.machine, wish.fate);
        }
        text
    }

    /// How many wishes there were, and how many of them were acknowledged.
    pub fn count(&self) -> (usize, usize) {
        let acknowledged = self.wishes.iter().filter(|wish| matches!(wish.fate, Fate::Acknowledged { .. })).count();
        (self.wishes.len(), acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::model::ServiceSpec;

    use super::*;

    fn spec(replicas: u32) -> AppSpec {
        let service = ServiceSpec { image: "host".into(), replicas, ..ServiceSpec::default() };
        AppSpec { services: BTreeMap::from([("web".into(), service)]), single_run: false }
    }

    fn wish(oracle: &mut Oracle, deed: Deed, fate: Fate) {
        let (app, change) = ("shop".to_string(), ChangeId([0; 16]));
        oracle.asked(Wish { app, change, deed, machine: 0, asked_ms: 0, fate }, true);
    }

    #[test]
    fn an_unanswered_wish_may_have_been_done_and_an_acknowledged_one_was() {
        let yes = || Fate::Acknowledged { copies: 3, holders: vec![0, 1, 2] };
        let mut oracle = Oracle::default();
        wish(&mut oracle, Deed::Deploy(spec(1)), yes());
        wish(&mut oracle, Deed::Scale { service: "web".into(), replicas: 2 }, Fate::Unknown);
        wish(&mut oracle, Deed::Remove, Fate::Refused("no".into()));
        let possible = |oracle: &Oracle| oracle.possible("shop", |_| false);
        assert_eq!(possible(&oracle), Possible::OneOf(vec![Some(spec(1)), Some(spec(2))]));
        wish(&mut oracle, Deed::Scale { service: "web".into(), replicas: 5 }, yes());
        assert_eq!(possible(&oracle), Possible::OneOf(vec![Some(spec(5))]));
        wish(&mut oracle, Deed::Remove, yes());
        assert_eq!(possible(&oracle), Possible::OneOf(vec![None]));
    }
}
