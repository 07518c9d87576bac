//! Ctrl-C: a lab is cleared away when the program that made it is told to go.

use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// From now on SIGINT, SIGTERM and SIGHUP clear away this process's labs and end it. For programs with a
/// `main` of their own; tests are ended by their runner, and the next lab sweeps after them.
pub fn clear_on_interrupt() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listen = |kind| signal(kind).ok();
            let (Some(mut interrupt), Some(mut terminate), Some(mut hangup)) =
                (listen(SignalKind::interrupt()), listen(SignalKind::terminate()), listen(SignalKind::hangup()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            eprintln!("\nclearing up …");
            super::site::clear_own();
            std::process::exit(INTERRUPTED);
        });
    });
    Ok(())
}
