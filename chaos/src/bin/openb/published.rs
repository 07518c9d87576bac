//! The published results that a replay is shown beside.

use std::path::Path;

/// One row: a policy with full knowledge of the cluster.
#[derive(Clone, Debug)]
pub struct Published {
    pub policy: String,
    pub mean: f64,
    pub stdev: f64,
}

/// The rows for a list of tasks, by its file's name; none where there is no table beside the list.
pub fn published(tasks: &Path) -> Vec<Published> {
    let (Some(folder), Some(workload)) = (tasks.parent(), tasks.file_stem().and_then(|stem| stem.to_str())) else {
        return Vec::new();
    };
    let text = std::fs::read_to_string(folder.join("published_at_full_load.csv")).unwrap_or_default();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [of, policy, _seeds, mean, stdev] = fields[..] else { return None };
        let policy = policy.split_once('-').map_or(policy, |(_, name)| name).to_string();
        (of == workload).then_some(Published { policy, mean: mean.parse().ok()?, stdev: stdev.parse().ok()? })
    };
    text.lines().filter_map(row).collect()
}
