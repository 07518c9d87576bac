//! The time of day of one machine, which can be set while its peer runs, as people and time servers set clocks.
//!
//! All machines of a lab have one kernel, and so one clock. libfaketime stands between a peer and that clock; clocks
//! that only run (`CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`) stay as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{LabError, Result};

/// Debian's libfaketime, in the folder of the processor's kind.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// A clock that was set is seen within this, seconds.
const SEEN_WITHIN: &str = "1";

/// Where a machine's clock is set.
fn setting(folder: &Path) -> PathBuf {
    folder.join("clock")
}

fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").map_err(LabError::io("looking for libfaketime"))?;
    let mut found = folders.flatten().map(|folder| folder.path().join(LIBRARY)).filter(|path| path.exists());
    found.next().ok_or_else(|| LabError::Impossible("libfaketime is missing: scripts/setup installs it".into()))
}

/// Sets a machine's clock so many seconds ahead of the true time.
pub(super) fn set(folder: &Path, ahead_seconds: i64) -> Result<()> {
    // Whole at any moment: peers read it whenever they like.
    let new = folder.join("clock.new");
    std::fs::write(&new, format!("{ahead_seconds:+}\n")).map_err(LabError::io("setting a clock"))?;
    std::fs::rename(&new, setting(folder)).map_err(LabError::io("setting a clock"))
}

/// Lets a command see the machine's clock, if it was ever set.
pub(super) fn show(folder: &Path, command: &mut Command) -> Result<()> {
    if setting(folder).exists() {
        command
            .env("LD_PRELOAD", library()?)
            .env("FAKETIME_TIMESTAMP_FILE", setting(folder))
            .env("FAKETIME_CACHE_DURATION", SEEN_WITHIN)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    Ok(())
}
