//! `rialto scale`.

use rialto_client::{Client, new_change};
use rialto_protocol::compose::REPLICAS_MAX;

use crate::args::Scale;
use crate::exit::Failure;
use crate::human;
use crate::output::{Output, say};

/// One service, or all of an app's, and how many replicas.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    app: String,
    service: Option<String>,
    replicas: u32,
}

pub async fn scale(client: &Client, out: Output, scale: Scale) -> Result<(), Failure> {
    let wishes = read(&scale.words)?;
    let mut changes = Vec::new();
    for Wish { app, service, replicas } in wishes {
        let changed = client.scale(&app, service.as_deref(), replicas, new_change()).await?.data;
        let name = service.map_or_else(|| app.clone(), |service| format!("{app}.{service}"));
        let count = human::count(u64::from(replicas), "replica");
        say(if changed.changed { format!("{name}: {count}") } else { format!("{name} has {count} already") });
        changes.push(changed);
    }
    out.data(&changes, String::new)
}

/// Reads `APP.SERVICE=N …`, `APP.SERVICE N` and `APP SERVICE N`.
fn read(words: &[String]) -> Result<Vec<Wish>, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [name, count] if !name.contains('=') && !count.contains('=') => Ok(vec![wish(name, count)?]),
        [app, service, count] if words.iter().all(|word| !word.contains('=')) => {
            Ok(vec![wish(&format!("{app}.{service}"), count)?])
        }
        _ => words
            .iter()
            .map(|word| word.split_once('=').map_or_else(|| Err(bad(word)), |(name, n)| wish(name, n)))
            .collect(),
    }
}

fn wish(name: &str, count: &str) -> Result<Wish, Failure> {
    let replicas = count.parse().ok().filter(|count| *count <= REPLICAS_MAX);
    let replicas = replicas
        .ok_or_else(|| Failure::usage(format!("'{count}' is no number of replicas from 0 to {REPLICAS_MAX}")))?;
    let (app, service) = match name.split_once('.') {
        Some((app, service)) => (app, Some(service.to_string())),
        None => (name, None),
    };
    if app.is_empty() || service.as_ref().is_some_and(|service| service.is_empty() || service.contains('.')) {
        return Err(bad(name));
    }
    Ok(Wish { app: app.into(), service, replicas })
}

fn bad(word: &str) -> Failure {
    Failure::usage(format!("'{word}' names no service and number")).hint("write rialto scale APP.SERVICE=N")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_written_in_three_ways() {
        let read = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(Into::into).collect();
            read(&words).map_err(|failure| failure.exit.code())
        };
        let web = |replicas| Wish { app: "shop".into(), service: Some("web".into()), replicas };
        for line in ["shop.web=3", "shop.web 3", "shop web 3"] {
            assert_eq!(read(line), Ok(vec![web(3)]), "{line}");
        }
        let all = Wish { app: "shop".into(), service: None, replicas: 2 };
        assert_eq!(read("shop.web=0 shop=2"), Ok(vec![web(0), all]));
        for line in [
            "shop",
            "shop.web",
            "shop.web=",
            "shop.web=-1",
            "shop.web=100001",
            "=3",
            "a.b.c=3",
            ".web=1",
            "shop web db 3",
            "shop.web=1 5",
            "shop. 3",
        ] {
            assert_eq!(read(line), Err(2), "{line}");
        }
    }
}
