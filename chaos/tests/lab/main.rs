//! The lab: three real peers, each on a machine of its own in network namespaces, real containers,
//! and everything that can go wrong with them. Needs root; says so and passes where it is not.
//!
//! Tests run one after another whatever the number of threads: they promise times, and two clusters
//! that share two cores keep no promise.

mod images;
mod lab_clients;
mod lab_death;
mod lab_dns;
mod lab_examples;
mod lab_examples_load;
mod lab_examples_spark;
mod lab_foresee;
mod lab_hands;
mod lab_histories;
mod lab_join;
mod lab_kinds;
mod lab_locks;
mod lab_network;
mod lab_partition;
mod lab_programs;
mod lab_quorum;
mod lab_refusals;
mod lab_restart;
mod lab_run;
mod lab_singleton;
mod lab_verbs;
mod lab_volumes;
mod lab_wires;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rialto_chaos::netns::{Lab, can_build};
use rialto_protocol::api::TaskRow;

static TURN: Mutex<()> = Mutex::new(());

/// The right to run now. Tells how long it was held: these tests are the slow ones.
pub struct Turn {
    began: Instant,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        writeln!(std::io::stderr(), "    {:5.1} s  {name}", self.began.elapsed().as_secs_f64()).ok();
    }
}

/// Long enough for anything that has no promise of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for its turn; none, with the reason printed, where no lab can be.
pub fn turn() -> Option<Turn> {
    // A test that failed has cleaned up after itself: the next one may go on.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match can_build() {
        Ok(()) => Some(Turn { began: Instant::now(), _turn: turn }),
        Err(reason) => {
            // Not `eprintln!`: the test runner hides what a passing test prints.
            writeln!(std::io::stderr(), "skipped: {reason}").ok();
            None
        }
    }
}

/// `count` machines with nothing on them.
pub fn bare(count: usize) -> Option<(Turn, Lab)> {
    let turn = turn()?;
    Some((turn, Lab::bare(count).expect("machines")))
}

/// `count` machines with a peer on each of the first `peers`, all in one cluster.
pub fn cluster_of(peers: usize, count: usize) -> Option<(Turn, Lab)> {
    let turn = turn()?;
    let mut lab = Lab::new(count).expect("machines");
    lab.found_with(peers).expect("a cluster");
    Some((turn, lab))
}

/// Three peers.
pub fn three() -> Option<(Turn, Lab)> {
    cluster_of(3, 3)
}

/// Three peers, and `examples/web` running on them.
pub fn three_with_web() -> Option<(Turn, Lab)> {
    let (turn, lab) = three()?;
    lab.import_web(0).expect("the image");
    lab.deploy_web(1).expect("the app");
    Some((turn, lab))
}

/// An app file in the lab's folder.
pub fn app_file(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let file = lab.folder().join(format!("{name}.yaml"));
    std::fs::write(&file, text).expect("an app file");
    file
}

/// The app's tasks that run or may still come to run.
pub fn live<'a>(rows: &'a [TaskRow], app: &str) -> Vec<&'a TaskRow> {
    let ended = ["exited", "failed", "stopped", "preempted", "superseded"];
    rows.iter().filter(|row| row.app == app && !row.lost && !ended.contains(&row.state.as_str())).collect()
}

/// Whether exactly the slots 1 to `count` of the app run, once each.
pub fn exactly(rows: &[TaskRow], app: &str, count: usize) -> bool {
    let mut slots: Vec<&str> = live(rows, app).iter().map(|row| row.slot.as_str()).collect();
    slots.sort();
    let mut wanted: Vec<String> = (1..=count).map(|slot| slot.to_string()).collect();
    wanted.sort();
    slots == wanted && live(rows, app).iter().all(|row| row.state == "running")
}

/// The name of the machine whose peer looks after the app.
pub fn steward(lab: &Lab, at: usize, app: &str) -> String {
    let app: rialto_protocol::api::App = lab.machine(at).api(&format!("/v1/apps/{app}")).expect("the app");
    app.steward.expect("a steward")
}
