//! `rialto logs`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rialto_client::Client;
use rialto_protocol::api::LogLine;

use crate::args::{Format, Logs};
use crate::exit::{self, Exit, Failure};
use crate::output::{Output, pass, say};

pub async fn logs(client: &Client, out: Output, logs: Logs) -> Result<Exit, Failure> {
    let many = out.format == Format::Table && shows_several(client, &logs.name).await?;
    let mut lines = client.logs(&logs.name, logs.follow, logs.tail).await?;
    let mut named = Named::default();
    let mut worst = Exit::Done;
    while let Some(line) = lines.next().await? {
        if out.format == Format::Json {
            out.json_line(&line)?;
        }
        match line {
            LogLine::Output { task, stream, data } if out.format == Format::Table => {
                let data = decode(&data)?;
                let data = if many { named.add(&task, &stream, &data) } else { data };
                pass(&stream, &data)?;
            }
            LogLine::Failed(problem) => {
                worst = exit::of_code(problem.code);
                say(format!("rialto: {}", problem.message));
            }
            _ => {}
        }
    }
    for (stream, data) in named.rest() {
        pass(&stream, &data)?;
    }
    Ok(worst)
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
    fn add(&mut self, task: &str, stream: &str, data: &[u8]) -> Vec<u8> {
        self.width = self.width.max(task.len());
        let begun = self.begun.entry((task.to_string(), stream.to_string())).or_default();
        begun.extend_from_slice(data);
        let mut out = Vec::new();
        while let Some(at) = begun.iter().position(|byte| *byte == b'\n') {
            let rest = begun.split_off(at + 1);
            put(&mut out, task, self.width, begun);
            *begun = rest;
        }
        if begun.len() > LINE_BYTES_MAX {
            begun.push(b'\n');
            put(&mut out, task, self.width, begun);
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
            put(&mut out, &task, self.width, &line);
            (stream, out)
        });
        whole.collect()
    }
}

fn put(out: &mut Vec<u8>, task: &str, width: usize, line: &[u8]) {
    out.extend_from_slice(format!("{task:width$} | ").as_bytes());
    out.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_wherever_pieces_end() {
        let mut named = Named::default();
        let mut out = named.add("a.b.1", "stdout", b"one\ntw");
        out.extend(named.add("a.b.10", "stdout", b"x\n\ny"));
        out.extend(named.add("a.b.1", "stdout", b"o\nthree"));
        out.extend(named.rest().into_iter().flat_map(|(_, line)| line));
        let want = "a.b.1 | one\na.b.10 | x\na.b.10 | \na.b.1  | two\na.b.1  | three\na.b.10 | y\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut named = Named::default();
        for _ in 0..100 {
            named.add("a.b.1", "stdout", &[b'x'; 4096]);
        }
        assert!(named.begun.values().all(|line| line.len() <= LINE_BYTES_MAX));
    }
}
