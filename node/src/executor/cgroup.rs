//! The cgroups of tasks: one path for each, the same in every hierarchy of the machine (v1, hybrid
//! or v2). The container library makes and fills them; here they are found, read and removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
        Ok(())
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
