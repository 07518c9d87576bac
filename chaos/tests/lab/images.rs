//! Images of real programs, made by `examples/images/build.sh` out of Debian's packages: once for all tests, and kept.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use rialto_chaos::netns::{Lab, example};

/// Brings images in, each at another machine; false, with the reason printed, where they cannot be had.
pub fn import(lab: &Lab, names: &[&str]) -> bool {
    let Some(images) = images(names) else { return false };
    for (at, image) in images.iter().enumerate() {
        lab.machine(at % 3).done(&["image", "import", &image.to_string_lossy()]).unwrap();
    }
    true
}

/// The archives of these images, made where they are not there or older than what makes them.
fn images(names: &[&str]) -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    let script = example("images/build.sh");
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let since = changed(&script).max(changed(&example("images/postgres-start"))).unwrap_or(SystemTime::UNIX_EPOCH);
    let archive = |name: &&str| folder.join(format!("{name}.tar"));
    let made = |name: &&str| changed(&archive(name)).is_some_and(|at| at > since);
    let missing: Vec<&str> = names.iter().copied().filter(|name| !made(name)).collect();
    if !missing.is_empty() {
        let built = Command::new(script).arg(&folder).args(&missing).output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        if built.status.code() == Some(3) {
            // Not `eprintln!`: the test runner hides what a passing test prints.
            writeln!(std::io::stderr(), "skipped: what {missing:?} are made of cannot be had here: {said}").ok();
            return None;
        }
        assert!(built.status.success(), "{said}");
    }
    Some(names.iter().map(archive).collect())
}
