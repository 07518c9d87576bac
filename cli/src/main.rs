//! `rialto`: the command line of a cluster.

mod args;
mod ask;
mod commands;
mod exit;
mod human;
mod output;
mod peer;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Format, Verb};
use exit::{Exit, Failure};
use output::Output;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody may be there to read it; the exit code says it all the same.
            let _ = error.print();
            return match error.use_stderr() {
                true if args::means_run(std::env::args_os()) => Exit::Own.into(),
                true => Exit::Usage.into(),
                false => Exit::Done.into(),
            };
        }
    };
    let of_run = matches!(args.verb, Verb::Run(_) | Verb::Exec(_) | Verb::Lock(_) | Verb::Elect(_));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return told(Failure::new(Exit::Failed, error.to_string()), of_run),
    };
    let out = Output { format: args.output };
    let result = runtime.block_on(commands::perform(args));
    // A blocked read (of an archive, of the terminal) must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if let (Some(data), Format::Json) = (&failure.data, out.format) {
                // Nobody may be there to read it.
                let _ = out.json(data);
            }
            told(failure, of_run)
        }
    }
}

/// Says what went wrong. Of the verbs that run something, every failure of Rialto's own has one code: the others are
/// those of what they run.
fn told(failure: Failure, of_run: bool) -> ExitCode {
    failure.tell();
    if of_run && !failure.exit.is_tasks() { Exit::Own.into() } else { failure.exit.into() }
}
