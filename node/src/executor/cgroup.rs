//! The cgroups of tasks: one path for each, the same in every hierarchy of the machine (v1, hybrid
//! or v2). The container library makes and fills them; here they are found, read and removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What limits tasks, and counts what they use.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// The hierarchies of this machine.
pub struct Hierarchies {
    /// Mount points with the names of their controllers; v2 has no names here.
    v1: Vec<(PathBuf, Vec<String>)>,
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Reads which hierarchies are mounted under `/sys/fs/cgroup`.
    pub fn find() -> io::Result<Self> {
        let mut found = Self { v1: Vec::new(), v2: None };
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(at), Some(kind), Some(options)) = (words.next(), words.next(), words.next()) else { continue };
            if !at.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match kind {
                "cgroup" => found.v1.push((at.into(), options.split(',').map(str::to_owned).collect())),
                "cgroup2" => found.v2 = Some(at.into()),
                _ => {}
            }
        }
        Ok(found)
    }

    /// The hierarchy that enforces `controller`, if any does.
    pub fn of(&self, controller: &str) -> Option<&Path> {
        let v1 = self.v1.iter().find(|(_, names)| names.iter().any(|name| name == controller));
        v1.map(|(at, _)| at.as_path()).or_else(|| {
            let v2 = self.v2.as_deref()?;
            let listed = fs::read_to_string(v2.join("cgroup.controllers")).ok()?;
            listed.split_ascii_whitespace().any(|name| name == controller).then_some(v2)
        })
    }

    /// Whether the whole machine is on v2.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// The folder of a cgroup in version 2 where no hierarchy of version 1 has a controller.
    pub fn alone(&self, cgroup: &str, controller: &str) -> Option<PathBuf> {
        let held = self.v1.iter().any(|(_, names)| names.iter().any(|name| name == controller));
        self.v2.as_ref().filter(|_| !held).map(|at| at.join(cgroup.trim_start_matches('/')))
    }

    fn paths<'a>(&'a self, cgroup: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        let cgroup = cgroup.trim_start_matches('/');
        self.v1.iter().map(|(at, _)| at).chain(&self.v2).map(move |at| at.join(cgroup))
    }

    /// Makes the parents of `cgroup` last until it is removed: neighbours remove empty parents at
    /// any time, so the path is made again until the leaf itself exists.
    pub fn hold(&self, cgroup: &str) -> io::Result<()> {
        const TRIES: u32 = 100;
        // The hierarchy that nothing of ours is enforced by gets no directories.
        let unused = (!self.is_unified()).then_some(self.v2.as_ref()).flatten();
        for path in self.paths(cgroup) {
            if unused.is_some_and(|v2| path.starts_with(v2)) {
                continue;
            }
            let mut tries = 0;
            while let Err(error) = fs::create_dir_all(&path) {
                tries += 1;
                if error.kind() != io::ErrorKind::NotFound || tries == TRIES {
                    return Err(error);
                }
            }
        }
        match &self.v2 {
            // Only now: with the leaf in them the parents stay.
            Some(v2) if self.is_unified() => enable(v2, cgroup),
            _ => Ok(()),
        }
    }

    /// Whether memory in `cgroup`, which exists, can be limited together with swap.
    pub fn counts_swap(&self, cgroup: &str) -> bool {
        let file = if self.is_unified() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
        self.of("memory").is_some_and(|at| at.join(cgroup.trim_start_matches('/')).join(file).exists())
    }

    /// Moves the calling process into it.
    pub fn join(&self, cgroup: &str) -> io::Result<()> {
        let mut any = false;
        for path in self.paths(cgroup).filter(|path| path.is_dir()) {
            fs::write(path.join("cgroup.procs"), "0")?;
            any = true;
        }
        if any { Ok(()) } else { Err(io::Error::new(io::ErrorKind::NotFound, "it is gone")) }
    }

    /// How many processes the kernel killed there for want of memory.
    pub fn oom_kills(&self, cgroup: &str) -> u64 {
        let Some(memory) = self.of("memory") else { return 0 };
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(memory.join(cgroup.trim_start_matches('/')).join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// The processes in it, in any hierarchy.
    pub fn processes(&self, cgroup: &str) -> Vec<i32> {
        let lists = self.paths(cgroup).filter_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok());
        let mut pids: Vec<i32> =
            lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Removes it and what tasks made below it; `false` where something still holds it.
    pub fn remove(&self, cgroup: &str) -> bool {
        // All of them, whatever becomes of one.
        let refused = self.paths(cgroup).filter(|path| !remove_tree(path)).count();
        refused == 0
    }

    /// Removes the parents of `cgroup` that hold nothing any more.
    pub fn remove_parents(&self, cgroup: &str) {
        for path in self.paths(cgroup) {
            let depth = cgroup.trim_matches('/').split('/').count();
            let mut parents = path.ancestors().skip(1).take(depth.saturating_sub(1));
            // A parent with other children refuses, and so do those above it.
            while parents.next().is_some_and(|parent| fs::remove_dir(parent).is_ok()) {}
        }
    }
}

/// Has the controllers reach `cgroup`: under v2 a group has those alone that all groups above it hand down. The container
/// library sees to that only where it makes the group itself.
fn enable(v2: &Path, cgroup: &str) -> io::Result<()> {
    let Some(parents) = Path::new(cgroup.trim_matches('/')).parent() else { return Ok(()) };
    let mut path = v2.to_owned();
    let steps = parents.components().map(Some);
    for step in std::iter::once(None).chain(steps) {
        path.extend(step);
        let words = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        let (offered, handed_down) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
        let listed = |list: &str, name: &str| list.split_ascii_whitespace().any(|one| one == name);
        let missing = CONTROLLERS.iter().filter(|name| listed(&offered, name) && !listed(&handed_down, name));
        let missing: Vec<String> = missing.map(|name| format!("+{name}")).collect();
        if missing.is_empty() {
            continue;
        }
        let file = path.join("cgroup.subtree_control");
        fs::write(&file, missing.join(" ")).map_err(|error| {
            io::Error::new(error.kind(), format!("{} to {}: {error}", missing.join(" "), file.display()))
        })?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(_) => {
            let Ok(entries) = fs::read_dir(path) else { return true };
            let children = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            children.for_each(|child| {
                let _ = remove_tree(&child.path());
            });
            fs::remove_dir(path).is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files stand in for the kernel's: what is written to them is seen, and nothing follows from it.
    #[test]
    fn controllers_are_handed_down_to_the_leaf_and_no_further() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("rialto/peer")).unwrap();
        fs::write(at("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::write(at("cgroup.subtree_control"), "cpu memory\n").unwrap();
        fs::write(at("rialto/cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(at("rialto/cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        fs::write(at("rialto/peer/cgroup.controllers"), "cpu memory pids\n").unwrap();

        let hierarchies = Hierarchies { v1: Vec::new(), v2: Some(root.path().to_owned()) };
        hierarchies.hold("/rialto/peer/task").unwrap();

        let written = |path: &str| fs::read_to_string(at(path).join("cgroup.subtree_control")).ok();
        assert_eq!(written("").as_deref(), Some("+pids +io"), "what was missing");
        assert_eq!(written("rialto").as_deref(), Some("cpu memory pids\n"), "nothing was missing");
        assert_eq!(written("rialto/peer").as_deref(), Some("+cpu +memory +pids"));
        assert!(at("rialto/peer/task").is_dir());
        assert_eq!(written("rialto/peer/task"), None, "processes and controllers for children exclude each other");
    }
}
