//! Two hundred seeds of ten machines: no promise is broken, and every seed settles.

use rialto_chaos::sim::{Settings, run_many};

#[test]
fn two_hundred_seeds_keep_every_promise() {
    let settings = Settings { seed: 0, machines: 10, scenario: None, trace: false, plant: None };
    let failed = run_many(1..=200, &settings, |ran| {
        if !ran.is_fine() {
            let violations = ran.outcome.as_ref().map(|outcome| &outcome.violations);
            println!("SEED={}\n  {violations:#?}", ran.seed);
        }
    });
    assert_eq!(failed, 0, "replay one with: cargo run --release -p rialto-chaos --bin sim -- --seeds N..N --trace");
}
