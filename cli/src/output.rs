//! Writing: data to stdout, talk to stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Format;
use crate::exit::Failure;

/// Where a verb's data goes, and in what form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: Format,
}

impl Output {
    /// Prints a value as JSON, or else the text that `table` makes of it.
    pub fn data<T: Serialize + ?Sized>(&self, value: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.text(&table()),
        }
    }

    /// Prints a value as JSON: indented for a person, on one line for a program.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        let text =
            if io::stdout().is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.text(&text.map_err(io::Error::from)?)
    }

    /// Prints a value as one line of JSON.
    pub fn json_line<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        self.text(&serde_json::to_string(value).map_err(io::Error::from)?)
    }

    /// Prints text, which ends its last line; nothing where there is none.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }
}

/// Says something to the person. Nobody may be there to read it.
pub fn say(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Writes a task's output as it is.
pub fn pass(stream: &str, data: &[u8]) -> io::Result<()> {
    if stream == "stderr" {
        let mut err = io::stderr().lock();
        err.write_all(data)?;
        err.flush()
    } else {
        let mut out = io::stdout().lock();
        out.write_all(data)?;
        out.flush()
    }
}

/// Text of others, on one line and without anything that moves a terminal's cursor.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
