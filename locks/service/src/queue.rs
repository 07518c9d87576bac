//! Queues: what locks and elections are made of. Everybody who waits has a key of his own under the name, on his own lease:
//! `NAME/` and the lease's number in hexadecimal digits, as etcd's clients have it. Whose key is the oldest holds the
//! lock, or leads; the revision at which it was made is the fencing token.

use std::collections::BTreeMap;

use rialto_locks::Store;
use rialto_locks::kv::{
    Answer, Applied, By, Compare, Delete, KeyValue, LeaseState, Op, Order, Put, Range, Refusal, Relation, Span, Target,
    Txn,
};
use rialto_locks::wire::Ask;

use crate::Group;

/// A place in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: Vec<u8>,
    pub key: Vec<u8>,
    /// The revision at which it was made: the fencing token.
    pub token: i64,
}

impl Place {
    /// The place of a lease, as it was told before.
    pub fn of(name: &[u8], lease: i64, token: i64) -> Self {
        Self { name: name.to_vec(), key: key_of(name, lease), token }
    }
}

fn key_of(name: &[u8], lease: i64) -> Vec<u8> {
    [prefix_of(name).as_slice(), format!("{lease:x}").as_bytes()].concat()
}

/// Whoever holds a place, as the store tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub lease: i64,
    pub token: i64,
    pub value: Vec<u8>,
    /// What the lease was granted for, seconds; 0: the key hangs on none.
    pub ttl_seconds: i64,
}

/// The keys of a queue begin so.
pub fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

impl Group {
    /// Grants a lease of that many seconds: its number, and for how long it is.
    pub async fn grant(&self, ttl_seconds: i64) -> Result<(i64, i64), Refusal> {
        match self.write(Op::Grant { id: self.random(), ttl_seconds }).await?.answer {
            Answer::Granted { id, ttl_seconds } => Ok((id, ttl_seconds)),
            _ => Err(Refusal::Unknown),
        }
    }

    /// Grants a lease that is called so.
    ///
    /// # Errors
    ///
    /// [`Refusal::LeaseExists`] where it was granted before.
    pub async fn grant_as(&self, id: i64, ttl_seconds: i64) -> Result<i64, Refusal> {
        match self.write(Op::Grant { id, ttl_seconds }).await?.answer {
            Answer::Granted { ttl_seconds, .. } => Ok(ttl_seconds),
            _ => Err(Refusal::Unknown),
        }
    }

    /// Gives a lease its whole time anew.
    pub async fn renew(&self, lease: i64) -> Result<LeaseState, Refusal> {
        state_of(self.ask(Ask::Renew(lease)).await?)
    }

    /// What is left of a lease.
    pub async fn look_at_lease(&self, lease: i64) -> Result<LeaseState, Refusal> {
        state_of(self.ask(Ask::Look(lease)).await?)
    }

    /// Ends a lease, and what hangs on it.
    pub async fn revoke(&self, lease: i64) -> Result<(), Refusal> {
        self.write(Op::Revoke { id: lease, expired: false }).await.map(drop)
    }

    /// Puts an operation into the log.
    pub(crate) async fn write(&self, op: Op) -> Result<Applied, Refusal> {
        self.ask(Ask::Write(op)).await
    }

    /// Takes a place, or finds the one that this lease has already.
    pub async fn enqueue(&self, name: &[u8], lease: i64, value: Vec<u8>) -> Result<Place, Refusal> {
        let key = key_of(name, lease);
        let compare = Compare { span: Span::one(key.clone()), relation: Relation::Equal, target: Target::Created(0) };
        let get = Op::Range(Range::of(Span::one(key.clone())));
        let put = Op::Put(Put { key: key.clone(), value, lease, ..Put::default() });
        let txn = Txn { compare: vec![compare], success: vec![put, get.clone()], failure: vec![get] };
        let Answer::Txn { answers, .. } = self.write(Op::Txn(txn)).await?.answer else { return Err(Refusal::Unknown) };
        match answers.last() {
            Some(Answer::Range(found)) if !found.keys.is_empty() => {
                Ok(Place { name: name.to_vec(), key, token: found.keys[0].create_revision })
            }
            _ => Err(Refusal::Unknown),
        }
    }

    /// Waits until nobody is before this place: the revision at which that was seen. `told` hears how many are before it,
    /// whenever that has changed. Whoever drops the future leaves the queue.
    ///
    /// That nobody is before stays so, as long as the place does: nothing is ever made with a lower revision. So what is
    /// here may be looked at while it waits, however old, and only the end needs to be certain.
    ///
    /// # Errors
    ///
    /// [`Refusal::LeaseNotFound`] where the place is gone, and with it its lease.
    pub async fn wait_at(&self, place: &Place, told: impl FnMut(usize)) -> Result<i64, Refusal> {
        let abandon = Abandon { group: self.clone(), place: Some(place.clone()) };
        let revision = self.until_first(place, told).await?;
        abandon.keep();
        Ok(revision)
    }

    /// The same; but whoever drops the future stays in the queue, and may wait again.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn until_first(&self, place: &Place, mut told: impl FnMut(usize)) -> Result<i64, Refusal> {
        let mut revisions = self.revisions();
        let mut last = 0;
        loop {
            revisions.borrow_and_update();
            let (prefix, token) = (prefix_of(&place.name), place.token);
            let look = self.look(move |replica| before(replica.store(), prefix, token)).await??;
            let Some(before) = look else {
                revisions.changed().await.map_err(|_| Refusal::NoLeader)?;
                continue;
            };
            if before > 0 {
                if std::mem::replace(&mut last, before) != before {
                    told(before);
                }
                revisions.changed().await.map_err(|_| Refusal::NoLeader)?;
                continue;
            }
            let Applied { revision, answer } = self.read(Range::of(Span::one(place.key.clone()))).await?;
            let is_mine = |key: &KeyValue| key.create_revision == place.token;
            if !matches!(&answer, Answer::Range(found) if found.keys.iter().any(|key| is_mine(key))) {
                return Err(Refusal::LeaseNotFound);
            }
            return Ok(revision);
        }
    }

    /// Gives a place up.
    pub async fn leave(&self, place: &Place) -> Result<(), Refusal> {
        let span = Span::one(place.key.clone());
        let is_there = Compare { span: span.clone(), relation: Relation::Equal, target: Target::Created(place.token) };
        let delete = Op::Delete(Delete { span, want_previous: false });
        self.write(Op::Txn(Txn { compare: vec![is_there], success: vec![delete], failure: Vec::new() })).await.map(drop)
    }

    /// Whoever holds, or leads; and the revision at which that was so.
    pub async fn oldest(&self, name: &[u8]) -> Result<(i64, Option<KeyValue>), Refusal> {
        let span = Span::prefix(prefix_of(name));
        let range = Range { limit: 1, by: By::Created, order: Order::Ascending, ..Range::of(span) };
        let Applied { revision, answer } = self.read(range).await?;
        let Answer::Range(found) = answer else { return Err(Refusal::Unknown) };
        Ok((revision, found.keys.first().map(|key| key.as_ref().clone())))
    }
}

fn state_of(applied: Applied) -> Result<LeaseState, Refusal> {
    match applied.answer {
        Answer::Lease(state) => Ok(state),
        _ => Err(Refusal::Unknown),
    }
}

/// How many are before a place; none: the store does not know of the place yet.
fn before(store: &Store, prefix: Vec<u8>, token: i64) -> Result<Option<usize>, Refusal> {
    if store.revision() < token {
        return Ok(None);
    }
    let range = Range { created_max: token - 1, keys_only: true, ..Range::of(Span::prefix(prefix)) };
    match store.range(&range)?.answer {
        Answer::Range(found) => Ok(Some(found.keys.len())),
        _ => Err(Refusal::Unknown),
    }
}

/// Everybody in a queue, whoever holds first.
pub fn queue(store: &Store, name: &[u8]) -> Vec<Taken> {
    let range = Range { by: By::Created, order: Order::Ascending, ..Range::of(Span::prefix(prefix_of(name))) };
    let Ok(Applied { answer: Answer::Range(found), .. }) = store.range(&range) else { return Vec::new() };
    let taken = found.keys.iter().map(|key| Taken {
        lease: key.lease,
        token: key.create_revision,
        value: key.value.clone(),
        ttl_seconds: store.lease(key.lease).map_or(0, |lease| lease.ttl_seconds),
    });
    taken.collect()
}

/// The names of all queues: of keys that are called as a place is, after the lease that they hang on.
pub fn names(store: &Store) -> Vec<Vec<u8>> {
    let mut names = BTreeMap::new();
    for (id, lease) in store.leases() {
        let digits = format!("/{id:x}");
        for name in lease.keys().filter_map(|key| key.strip_suffix(digits.as_bytes())) {
            names.insert(name.to_vec(), ());
        }
    }
    names.into_keys().collect()
}

/// Whoever stops waiting leaves the queue.
struct Abandon {
    group: Group,
    place: Option<Place>,
}

impl Abandon {
    fn keep(mut self) {
        self.place = None;
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let group = self.group.clone();
            // What is not deleted ends with its lease.
            tokio::spawn(async move { drop(group.leave(&place).await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, key: &str, lease: i64) {
        let put = Put { key: key.into(), value: b"v".to_vec(), lease, ..Put::default() };
        store.apply(&Op::Put(put)).unwrap();
    }

    #[test]
    fn a_queue_is_in_the_order_of_making_and_has_a_name() {
        let mut store = Store::default();
        for id in [0x2f, 0x1a, 7] {
            store.apply(&Op::Grant { id, ttl_seconds: 9 }).unwrap();
        }
        put(&mut store, "db/backup/2f", 0x2f);
        put(&mut store, "db/backup/1a", 0x1a);
        // No places: no lease, another lease's number, and no number at all.
        put(&mut store, "db/note", 0);
        put(&mut store, "db/1a", 7);
        put(&mut store, "leader", 7);
        assert_eq!(names(&store), [b"db/backup".to_vec()]);
        let queue = queue(&store, b"db/backup");
        assert_eq!(queue.iter().map(|taken| taken.lease).collect::<Vec<_>>(), [0x2f, 0x1a]);
        assert!(queue[0].token < queue[1].token && queue[0].ttl_seconds == 9);
        let second = queue[1].token;
        assert_eq!(before(&store, prefix_of(b"db/backup"), second), Ok(Some(1)));
        assert_eq!(before(&store, prefix_of(b"db/backup"), store.revision() + 1), Ok(None), "not yet known here");
    }
}
