//! `rialto foresee`.

use std::time::{Duration, Instant};

use rialto_client::Client;
use rialto_sim::foresee::{ForeseeError, Move, Newcomers, Outlook, Questions};

use super::deploy::file;
use super::explain;
use crate::args::Foresee;
use crate::exit::{Exit, Failure};
use crate::output::{Output, one_line, say};
use crate::{human, table};

pub async fn foresee(client: &Client, out: Output, foresee: Foresee) -> Result<(), Failure> {
    let questions = questions(foresee)?;
    let snapshot = client.ledger().await?;
    let began = Instant::now();
    let outlook = rialto_sim::foresee::foresee(&snapshot, &questions).map_err(failure)?;
    let lived = human::seconds(outlook.simulated_ms / 1000);
    let machines = human::count((outlook.machines + outlook.added.len()) as u64, "machine");
    say(format!("simulated {lived} of {machines} in {}", time(began.elapsed())));
    outlook.remarks.iter().for_each(|remark| say(one_line(remark)));
    out.data(&outlook, || shown(&outlook))
}

fn questions(foresee: Foresee) -> Result<Questions, Failure> {
    let Foresee { lose, deploy, add, like, seed } = foresee;
    if add.len() != like.len() {
        let message =
            format!("{} times --add and {} times --like: each --add N has its --like MACHINE", add.len(), like.len());
        return Err(Failure::usage(message));
    }
    let add = add.into_iter().zip(like).map(|(count, like)| Newcomers { count: usize::from(count), like }).collect();
    let deploy = deploy.iter().map(|path| file::read_one(path)).collect::<Result<_, _>>()?;
    Ok(Questions { add, deploy, lose, seed })
}

fn failure(error: ForeseeError) -> Failure {
    let exit = match &error {
        ForeseeError::NoMachine(..) => Exit::NotFound,
        ForeseeError::NotInTime(..) | ForeseeError::Broken(_) => Exit::Failed,
        _ => Exit::Refused,
    };
    Failure::new(exit, error.to_string())
}

fn shown(outlook: &Outlook) -> String {
    let mut text = format!("{}\n", headline(outlook));
    if !outlook.under_way.is_empty() {
        let count = human::count(outlook.under_way.len() as u64, "task");
        text += &format!("\n{count} would move in any case:\n{}", moves(outlook, &outlook.under_way));
    }
    if !outlook.moves.is_empty() {
        text += &format!("\n{}", moves(outlook, &outlook.moves));
    }
    for told in &outlook.why {
        text.extend(told.services.iter().map(|service| explain::service(&told.app, service)));
    }
    text
}

/// What happens, and what it comes to, in one sentence.
fn headline(outlook: &Outlook) -> String {
    let happens = [
        (&outlook.added, "joins", "join"),
        (&outlook.deployed, "is deployed", "are deployed"),
        (&outlook.lost, "is lost", "are lost"),
    ];
    let happens: Vec<String> = happens
        .iter()
        .filter(|(what, ..)| !what.is_empty())
        .map(|(what, one, many)| format!("{} {}", what.join(", "), if what.len() == 1 { one } else { many }))
        .collect();
    let moved = outlook.moves.iter().filter(|one| one.from.is_some() && one.to.is_some()).count();
    let started = outlook.moves.iter().filter(|one| one.from.is_none()).count();
    let ended = |one: &&Move| one.from.is_some() && one.to.is_none() && !outlook.waiting.contains(&one.task);
    let ended = outlook.moves.iter().filter(ended).count();
    let new = outlook.waiting.len() - outlook.waited_before.len();
    let parts =
        [(moved, "moves", "move"), (started, "starts", "start"), (ended, "ends", "end"), (new, "waits", "wait")];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| {
            format!("{} {}", human::count(*count as u64, "task"), if *count == 1 { one } else { many })
        })
        .collect();
    let parts = if parts.is_empty() { "nothing moves".to_string() } else { parts.join(", ") };
    let settled = outlook.settled_ms.map(|ms| format!("; all is done after {}", time(Duration::from_millis(ms))));
    let waited = match outlook.waited_before.len() {
        0 => String::new(),
        1 => "; 1 task waits as before".into(),
        count => format!("; {count} tasks wait as before"),
    };
    format!("if {}: {parts}{}{waited}", happens.join(" and "), settled.unwrap_or_default())
}

fn moves(outlook: &Outlook, moves: &[Move]) -> String {
    let cells = |one: &Move| {
        let to = match &one.to {
            Some(machine) => machine.clone(),
            None if outlook.waiting.contains(&one.task) => "waits".into(),
            None => "ends".into(),
        };
        vec![one.task.clone(), one.from.clone().unwrap_or_else(|| "-".into()), to]
    };
    table::table(&["TASK", "FROM", "TO"], &[], &moves.iter().map(cells).collect::<Vec<_>>())
}

/// `0.8 s`, `12 s`, `2m`.
fn time(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{} s", time.as_secs()),
        more => human::seconds(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(task: &str, from: Option<&str>, to: Option<&str>) -> Move {
        Move { task: task.into(), from: from.map(Into::into), to: to.map(Into::into) }
    }

    #[test]
    fn an_outlook_is_a_sentence_and_a_table() {
        let outlook = Outlook {
            seed: 1,
            as_of: "2026-01-01T00:00:00Z".into(),
            machines: 3,
            lost: vec!["m3".into()],
            moves: vec![
                one("shop.db.1", Some("m3"), None),
                one("shop.web.2", Some("m3"), Some("m1")),
                one("shop.web.4", Some("m3"), Some("m2")),
            ],
            waiting: vec!["job.big.1".into(), "shop.db.1".into()],
            waited_before: vec!["job.big.1".into()],
            settled_ms: Some(4_630),
            ..Default::default()
        };
        insta::assert_snapshot!(shown(&outlook));
        let deploy = Outlook {
            lost: vec![],
            added: vec!["m1-like-1".into(), "m1-like-2".into()],
            deployed: vec!["shop".into()],
            moves: vec![one("shop.web.1", None, Some("m1-like-1"))],
            under_way: vec![one("old.web.1", Some("m2"), Some("m1"))],
            waiting: vec![],
            waited_before: vec![],
            settled_ms: Some(61_000),
            ..outlook.clone()
        };
        insta::assert_snapshot!(shown(&deploy));
        let nothing = Outlook { moves: vec![], waiting: vec![], waited_before: vec![], settled_ms: None, ..outlook };
        assert_eq!(shown(&nothing), "if m3 is lost: nothing moves\n");
    }
}
