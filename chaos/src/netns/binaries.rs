//! The programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{LabError, Result, run_within};

/// A first build compiles some six hundred crates.
const BUILDING: Duration = Duration::from_secs(1800);

/// Where `rialtod` and `rialto` are.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub rialtod: PathBuf,
    pub rialto: PathBuf,
}

impl Binaries {
    /// Those that were built with this program. Under `cargo test` they are brought up to date
    /// first, so that a test never meets yesterday's peer.
    pub fn find() -> Result<Self> {
        let me = std::env::current_exe().map_err(LabError::io("finding this program"))?;
        let beside = me.parent().unwrap_or(Path::new("."));
        // A test lies in a folder of its own, beneath the programs'.
        let folder = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
        if let Some(cargo) = std::env::var_os("CARGO")
            && beside.ends_with("deps")
        {
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_this_test(&name.to_string_lossy())) {
                build.env_remove(name);
            }
            if folder.ends_with("release") {
                build.arg("--release");
            }
            run_within(&mut build, BUILDING)?.ok()?;
        }
        let found = Self { rialtod: folder.join("rialtod"), rialto: folder.join("rialto") };
        for program in [&found.rialtod, &found.rialto] {
            if !program.is_file() {
                let hint = "build it first: cargo build --release --workspace";
                return Err(LabError::Impossible(format!("{} is missing; {hint}", program.display())));
            }
        }
        Ok(found)
    }
}

/// Whether cargo has set this variable for the test that it runs. To some build scripts another value is
/// another build: a dozen crates would be compiled anew here, and once more the next time.
fn is_of_this_test(name: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_TARGET_TMPDIR"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || ["OUT_DIR", "LD_LIBRARY_PATH"].contains(&name)
}
