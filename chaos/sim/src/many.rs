//! Many seeds, on every core.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::run::{Outcome, Settings, run};

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What came of one seed.
#[derive(Debug)]
pub struct Ran {
    pub seed: u64,
    /// The words of the panic, where there was one.
    pub outcome: Result<Outcome, String>,
    /// Real time.
    pub took: Duration,
}

impl Ran {
    /// Whether no promise was broken.
    pub fn is_fine(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|outcome| outcome.violations.is_empty())
    }
}

/// Runs these seeds, each with `settings` but for the seed, and tells of each as it ends; how many
/// were not fine.
pub fn run_many(seeds: RangeInclusive<u64>, settings: &Settings, tell: impl Fn(&Ran) + Sync) -> u64 {
    panic::set_hook(Box::new(|info| LAST_PANIC.set(info.to_string())));
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let last = seeds.end() - seeds.start();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(last.saturating_add(1)) {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth > last {
                        return;
                    }
                    let settings = Settings { seed: seeds.start() + nth, ..settings.clone() };
                    let began = Instant::now();
                    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(&settings)));
                    let outcome = outcome.map_err(|_| LAST_PANIC.take());
                    let ran = Ran { seed: settings.seed, outcome, took: began.elapsed() };
                    failed.fetch_add(u64::from(!ran.is_fine()), Ordering::Relaxed);
                    tell(&ran);
                }
            });
        }
    });
    drop(panic::take_hook());
    failed.into_inner()
}
