//! `rialto logs`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rialto_client::Client;
use rialto_protocol::api::LogLine;

use crate::args::{Format, Logs};
use crate::exit::{self, Exit, Failure};
use crate::human;
use crate::output::{Output, pass, say};

pub async fn logs(client: &Client, out: Output, logs: Logs) -> Result<Exit, Failure> {
    let many = out.format == Format::Table && shows_several(client, &logs.name).await?;
    let now = Timestamp::now().as_millisecond().unsigned_abs();
    let since = logs.since.map_or(0, |moment| moment.ms(now));
    let until = logs.until.map_or(u64::MAX, |moment| moment.ms(now));
    let mut lines = client.logs(&logs.name, logs.follow, logs.tail).await?;
    let mut shown = Shown { out, many, timestamps: logs.timestamps, named: Named::default() };
    let mut order = Order::default();
    let mut worst = Exit::Done;
    while let Some(line) = lines.next().await? {
        match line {
            LogLine::Output { at, .. } if !(since..until).contains(&at) => {}
            // What is followed comes as it is written; what is past can be put in order.
            LogLine::Output { .. } if !logs.follow => {
                for line in order.add(line) {
                    shown.show(&line)?;
                }
            }
            LogLine::Failed(problem) => {
                worst = exit::of_code(problem.code);
                say(format!("rialto: {}", problem.message));
            }
            line => shown.show(&line)?,
        }
    }
    for line in order.rest() {
        shown.show(&line)?;
    }
    for (stream, data) in shown.named.rest() {
        pass(&stream, &data)?;
    }
    Ok(worst)
}

/// How lines are shown.
struct Shown {
    out: Output,
    many: bool,
    timestamps: bool,
    named: Named,
}

impl Shown {
    fn show(&mut self, line: &LogLine) -> Result<(), Failure> {
        if self.out.format == Format::Json {
            return self.out.json_line(line);
        }
        let LogLine::Output { task, stream, at, data } = line else { return Ok(()) };
        let data = decode(data)?;
        let stamp = self.timestamps.then(|| human::stamp(*at));
        let data = match self.many || stamp.is_some() {
            true => self.named.add(self.many.then_some(task), task, stream, stamp.as_deref(), &data),
            false => data,
        };
        Ok(pass(stream, &data)?)
    }
}

/// The past of several tasks in the order of its times. Each task's own comes in order; machines' clocks may differ.
#[derive(Default)]
struct Order {
    held: Vec<LogLine>,
    bytes: usize,
}

impl Order {
    /// More than this is not held: what has come until then is shown.
    const BYTES_MAX: usize = 256 << 20;

    fn add(&mut self, line: LogLine) -> Vec<LogLine> {
        if let LogLine::Output { data, .. } = &line {
            self.bytes += data.len();
        }
        self.held.push(line);
        if self.bytes > Self::BYTES_MAX { self.rest() } else { Vec::new() }
    }

    fn rest(&mut self) -> Vec<LogLine> {
        self.bytes = 0;
        let mut held = std::mem::take(&mut self.held);
        held.sort_by_key(|line| match line {
            LogLine::Output { at, .. } => *at,
            _ => 0,
        });
        held
    }
}

/// Whether lines need the name of their task before them: one task's output is passed on as it is.
async fn shows_several(client: &Client, name: &str) -> Result<bool, Failure> {
    let (app, service) = match name.split_once('.') {
        None => (name, None),
        Some((app, service)) if !service.contains('.') => (app, Some(service)),
        Some(_) => return Ok(false),
    };
    let rows = client.tasks(Some(app), service, false).await?.data.tasks;
    Ok(rows.iter().map(|row| &row.task).collect::<BTreeSet<_>>().len() > 1)
}

/// The bytes of an output line.
pub fn decode(data: &str) -> Result<Vec<u8>, Failure> {
    STANDARD.decode(data).map_err(|error| Failure::new(Exit::Failed, format!("the output cannot be read: {error}")))
}

/// A line longer than this is passed on in parts.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Puts the task's name before each line. Pieces end anywhere, so what has no end yet is kept back.
#[derive(Default)]
struct Named {
    begun: BTreeMap<(String, String), Vec<u8>>,
    width: usize,
}

impl Named {
    /// `name`: what is put before each line, if anything is; `stamp`: its time.
    fn add(&mut self, name: Option<&String>, task: &str, stream: &str, stamp: Option<&str>, data: &[u8]) -> Vec<u8> {
        self.width = self.width.max(name.map_or(0, |name| name.len()));
        let width = self.width;
        let put = |out: &mut Vec<u8>, line: &[u8]| put(out, name.map(String::as_str), width, stamp, line);
        let begun = self.begun.entry((task.to_string(), stream.to_string())).or_default();
        begun.extend_from_slice(data);
        let mut out = Vec::new();
        while let Some(at) = begun.iter().position(|byte| *byte == b'\n') {
            let rest = begun.split_off(at + 1);
            put(&mut out, begun);
            *begun = rest;
        }
        if begun.len() > LINE_BYTES_MAX {
            begun.push(b'\n');
            put(&mut out, begun);
            begun.clear();
        }
        out
    }

    /// The last lines, which had no end.
    fn rest(self) -> Vec<(String, Vec<u8>)> {
        let unended = self.begun.into_iter().filter(|(_, line)| !line.is_empty());
        let whole = unended.map(|((task, stream), mut line)| {
            line.push(b'\n');
            let mut out = Vec::new();
            put(&mut out, (self.width > 0).then_some(task.as_str()), self.width, None, &line);
            (stream, out)
        });
        whole.collect()
    }
}

fn put(out: &mut Vec<u8>, name: Option<&str>, width: usize, stamp: Option<&str>, line: &[u8]) {
    if let Some(name) = name {
        out.extend_from_slice(format!("{name:width$} | ").as_bytes());
    }
    if let Some(stamp) = stamp {
        out.extend_from_slice(format!("{stamp} ").as_bytes());
    }
    out.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_wherever_pieces_end() {
        let mut named = Named::default();
        let mut add = |task: &str, data: &[u8]| named.add(Some(&task.to_string()), task, "stdout", None, data);
        let mut out = add("a.b.1", b"one\ntw");
        out.extend(add("a.b.10", b"x\n\ny"));
        out.extend(add("a.b.1", b"o\nthree"));
        out.extend(named.rest().into_iter().flat_map(|(_, line)| line));
        let want = "a.b.1 | one\na.b.10 | x\na.b.10 | \na.b.1  | two\na.b.1  | three\na.b.10 | y\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn the_past_is_in_the_order_of_its_times() {
        let line = |task: &str, at| LogLine::Output { task: task.into(), stream: "stdout".into(), at, data: "".into() };
        let mut order = Order::default();
        for (task, at) in [("a", 1), ("a", 5), ("b", 2), ("b", 5), ("c", 3)] {
            assert!(order.add(line(task, at)).is_empty());
        }
        assert_eq!(order.rest(), [line("a", 1), line("b", 2), line("c", 3), line("a", 5), line("b", 5)]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut named = Named::default();
        for _ in 0..100 {
            named.add(None, "a.b.1", "stdout", Some("now"), &[b'x'; 4096]);
        }
        assert!(named.begun.values().all(|line| line.len() <= LINE_BYTES_MAX));
    }
}
