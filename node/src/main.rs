//! `rialtod`: the peer. This file only decides which of its four lives the process leads: a task's
//! shim, a session with a container, a word to a peer that runs already, or a peer.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use rialto_node::config::{Config, ConfigError, Surroundings};
use rialto_node::invitation::Invitation;
use rialto_node::peer::folder::{self, Folder, FolderError};
use rialto_node::{executor, machine, peer, signals};
use tracing_subscriber::EnvFilter;

/// It did what it was asked to.
const DONE: u8 = 0;
/// It could not start, or could not go on; the log says why.
const FAILED: u8 = 1;
/// The command line, a variable or the file cannot be used.
const USAGE: u8 = 2;

/// What is logged unless RIALTO_LOG says otherwise: libraries say too much at this level.
const LOG: &str = "info,hickory_server=warn,hickory_proto=warn,libp2p_swarm=warn,netlink_packet_route=error";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let life = args.nth(1);
    // Before anything else: these have one thread, and no settings but their folder's.
    if life.as_ref().is_some_and(|life| life == "shim") {
        executor::shim_main(args);
    }
    if life.is_some_and(|life| life == "enter") {
        executor::enter_main(args);
    }
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let variable = |name: &str| std::env::var(name).ok();
    let around = Surroundings { variable: &variable, is_root: machine::is_root(), host_name: machine::host_name() };
    let config = match Config::read(&args, &around) {
        Ok(config) => config,
        Err(ConfigError::Flag(error)) => {
            let code = if error.use_stderr() { USAGE } else { DONE };
            let _ = error.print();
            return code.into();
        }
        Err(error) => {
            eprintln!("rialtod: {error}\n\nFor more information, try 'rialtod --help'.");
            return USAGE.into();
        }
    };
    if let Some(Err(error)) = config.join.as_deref().map(Invitation::parse) {
        eprintln!("rialtod: --join: {error}");
        return USAGE.into();
    }
    let filter = EnvFilter::try_from_env("RIALTO_LOG").unwrap_or_else(|_| EnvFilter::new(LOG));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    match run(config) {
        Ok(()) => DONE.into(),
        Err(error) => {
            eprintln!("rialtod: {}", sentence(&error));
            FAILED.into()
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    if config.stop_other {
        return stop_other(&config.data);
    }
    let folder = Folder::take(&config.data)?;
    // Two workers carry a peer; more would only cost memory.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .context("the threads of the peer cannot be started")?;
    let result = runtime.block_on(peer::run(config, folder));
    // What still blocks (a half-read image, say) is not waited for.
    runtime.shutdown_background();
    Ok(result?)
}

/// Ends the peer that has the folder, and its tasks. Where there is none, none is started for it.
fn stop_other(data: &Path) -> anyhow::Result<()> {
    if !data.exists() {
        println!("no peer has ever run in {}: there is nothing to stop", data.display());
        return Ok(());
    }
    match Folder::take(data) {
        Err(FolderError::Taken(path, pid)) if pid > 0 => {
            signals::stop_with_tasks(pid)
                .with_context(|| format!("the peer, process {pid}, cannot be told to stop"))?;
            folder::wait_until_free(&path).context("waiting for the peer to end")?;
            println!("the peer and its tasks have ended");
            return Ok(());
        }
        Ok(_) | Err(FolderError::Retired(..)) => {}
        Err(error) => return Err(error.into()),
    }
    println!("no peer runs in {}: there is none to stop", data.display());
    // The folder of a task that has ended stays for its log.
    let runs = |folder: &std::fs::DirEntry| !folder.path().join("exit.json").exists();
    let left = std::fs::read_dir(data.join("tasks")).map_or(0, |all| all.flatten().filter(runs).count());
    if left > 0 {
        println!(
            "tasks that an earlier peer left running run on; to end them, start it by \
             'RIALTO_STOP_TASKS=true rialtod --data {}' and stop it again",
            data.display()
        );
    }
    Ok(())
}

/// An error with its causes, each said once: many errors name their cause already.
fn sentence(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |said, cause| if said.contains(&cause) { said } else { format!("{said}: {cause}") })
}
