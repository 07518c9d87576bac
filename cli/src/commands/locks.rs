//! `rialto locks`.

use rialto_client::Client;
use rialto_protocol::api::{self, LockPlace, LockQueue};
use serde::Serialize;

use crate::args::Locks;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use crate::{ask, human, table};

pub async fn locks(client: &Client, out: Output, locks: Locks) -> Result<(), Failure> {
    match locks {
        Locks::Status => {
            let told = client.locks().await?.data;
            out.data(&told, || shown(&told))
        }
        Locks::Voters => {
            let told = client.locks().await?.data;
            let voters = Voters { leader: told.leader.clone(), voters: told.voters.clone(), quorum: told.quorum };
            out.data(&voters, || voters_shown(&told))
        }
        Locks::Ls => {
            let queues = client.lock_queues().await?.data;
            if queues.queues.is_empty() {
                say("nobody holds a lock");
            }
            out.data(&queues, || listed(&queues.queues))
        }
        Locks::Show { name } => {
            let queue = client.lock_queue(&name).await?.data;
            if queue.holder.is_none() {
                return Err(Failure::new(Exit::NotFound, format!("nobody holds {name}")));
            }
            out.data(&queue, || queue_shown(&queue))
        }
        Locks::Break(broken) => {
            let queue = client.lock_queue(&broken.name).await?.data;
            let Some(holder) = queue.holder else {
                return Err(Failure::new(Exit::NotFound, format!("nobody holds {}", broken.name)));
            };
            let question = format!("take {} from {}, which may go on for a moment?", broken.name, who(&holder));
            ask::confirm(&question, broken.yes)?;
            let holder = client.break_lock(&broken.name).await?.data;
            say(format!("{} was taken from {}", broken.name, who(&holder)));
            out.data(&holder, String::new)
        }
        Locks::ForceNewGroup(force) if !force.yes_i_lose_leases => {
            let message = "a new group forgets what the old one granted and this peer has not seen";
            Err(Failure::new(Exit::Refused, message)
                .hint("if the other voters are gone for good, say --yes-i-lose-leases"))
        }
        Locks::ForceNewGroup(_) => {
            client.force_new_lock_group().await?;
            say("the lock group begins anew here");
            Ok(())
        }
    }
}

fn who(place: &LockPlace) -> String {
    match place.value.as_str() {
        "" => format!("session {}", place.session),
        value => format!("{value} (session {})", place.session),
    }
}

fn left(place: &LockPlace) -> String {
    place.left_ms.map(|ms| human::seconds(ms.div_ceil(1000))).unwrap_or_default()
}

fn listed(queues: &[LockQueue]) -> String {
    let row = |queue: &LockQueue| {
        let holder = queue.holder.as_ref()?;
        let token = holder.token.to_string();
        let waiting = if queue.waiting.is_empty() { String::new() } else { queue.waiting.len().to_string() };
        Some(vec![queue.name.clone(), holder.session.clone(), token, holder.value.clone(), left(holder), waiting])
    };
    let rows: Vec<Vec<String>> = queues.iter().filter_map(row).collect();
    table::table(&["NAME", "HOLDER", "TOKEN", "VALUE", "LEFT", "WAITING"], &["VALUE", "WAITING"], &rows)
}

fn queue_shown(queue: &LockQueue) -> String {
    let row = |place: &LockPlace, part: &str| {
        vec![part.to_owned(), place.session.clone(), place.token.to_string(), place.value.clone(), left(place)]
    };
    let holder = queue.holder.iter().map(|place| row(place, "holds"));
    let rows: Vec<Vec<String>> = holder.chain(queue.waiting.iter().map(|place| row(place, "waits"))).collect();
    table::table(&["PART", "SESSION", "TOKEN", "VALUE", "LEFT"], &["VALUE"], &rows)
}

#[derive(Serialize)]
struct Voters {
    leader: Option<String>,
    voters: Vec<String>,
    quorum: bool,
}

fn shown(told: &api::Locks) -> String {
    let can = match (told.quorum, told.voters.is_empty()) {
        (true, _) => "locks can be had",
        (false, true) => "this peer has no part in the lock group: ask another, such as the oldest",
        (false, false) => "no locks can be had: too few voters can be reached",
    };
    let leader = told.leader.as_deref().unwrap_or("nobody");
    let voters = human::count(told.voters.len() as u64, "voter");
    let keys = human::count(told.keys, "key");
    let leases = human::count(told.leases, "lease");
    format!(
        "{can}\n{voters}, led by {leader} (term {}, epoch {})\n{keys} of {} bytes, {leases}, revision {}\n",
        told.term, told.epoch, told.bytes, told.revision
    )
}

fn voters_shown(told: &api::Locks) -> String {
    let row = |name: &String, votes: &str| {
        let leads = if told.leader.as_ref() == Some(name) { "leads" } else { "" };
        vec![name.clone(), votes.to_owned(), leads.to_owned()]
    };
    let voters = told.voters.iter().map(|name| row(name, "votes"));
    let rows: Vec<Vec<String>> = voters.chain(told.learners.iter().map(|name| row(name, "learns"))).collect();
    table::table(&["MACHINE", "PART", ""], &[], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_told_in_order() {
        let place = |session: &str, token, left_ms| LockPlace {
            session: session.into(),
            token,
            value: String::new(),
            ttl_seconds: 15,
            left_ms,
        };
        let (holder, waiting) = (Some(place("1f", 4, Some(9_001))), vec![place("2a", 7, None)]);
        let queue = LockQueue { name: "nightly".into(), holder, waiting };
        let shown = queue_shown(&queue);
        assert_eq!(shown, "PART   SESSION  TOKEN  LEFT\nholds  1f       4      10s\nwaits  2a       7\n");
        let shown = listed(&[queue]);
        assert_eq!(shown, "NAME     HOLDER  TOKEN  LEFT  WAITING\nnightly  1f      4      10s   1\n");
    }

    #[test]
    fn a_group_is_told_in_words() {
        let told = api::Locks {
            leader: Some("m1".into()),
            voters: vec!["m1".into(), "m2".into(), "m3".into()],
            quorum: true,
            epoch: 1,
            term: 3,
            keys: 1,
            bytes: 70,
            revision: 9,
            ..api::Locks::default()
        };
        let text = shown(&told);
        assert!(text.starts_with("locks can be had\n3 voters, led by m1 (term 3, epoch 1)\n1 key"), "{text}");
        assert!(voters_shown(&told).contains("leads"));
        assert!(shown(&api::Locks::default()).contains("no part"));
        let lost = api::Locks { leader: None, quorum: false, ..told };
        assert!(shown(&lost).contains("no locks can be had"));
    }
}
