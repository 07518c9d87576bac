//! Asking a person, where there is one.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::exit::{Exit, Failure};

/// Whether a question would be answered by a person.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a yes. Without a terminal nothing is asked and it goes on.
///
/// # Errors
///
/// The person said no.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes || !somebody_is_there() {
        return Ok(());
    }
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was done")),
    }
}
