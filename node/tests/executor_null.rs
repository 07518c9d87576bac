//! The executor that does nothing, fast.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rialto_node::executor::{Executor, Order, Told};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::{AppId, ClaimId, TaskId};
use rialto_protocol::model::TaskSpec;
use tokio::sync::mpsc;

fn spec(command: &[&str]) -> Arc<TaskSpec> {
    let app = AppId { namespace: "default".into(), name: "test".into(), generation: 1 };
    Arc::new(TaskSpec {
        task: TaskId { app, service: "main".into(), slot: "1".into() },
        attempt: 1,
        image: "host".into(),
        command: command.iter().map(|word| word.to_string()).collect(),
        grace_ms: 0,
        ..TaskSpec::default()
    })
}

fn claim(number: u32) -> ClaimId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    ClaimId(id)
}

async fn next(told: &mut mpsc::Receiver<Told>) -> TaskReport {
    match told.recv().await.unwrap() {
        Told::Task { report, .. } => report,
        Told::Found => panic!("nothing was to be found twice"),
    }
}

#[tokio::test]
async fn tasks_end_when_their_command_says() {
    let (reports, mut told) = mpsc::channel(64);
    let executor = Executor::null(reports);
    assert_eq!(told.recv().await, Some(Told::Found));
    let begun = Instant::now();
    executor.order(Order::Start { claim: claim(1), spec: spec(&["150ms"]) });
    assert!(matches!(next(&mut told).await, TaskReport::Running { .. }));
    executor.order(Order::Start { claim: claim(1), spec: spec(&["forever"]) });
    assert!(matches!(next(&mut told).await, TaskReport::Running { .. }));
    assert!(matches!(next(&mut told).await, TaskReport::Exited { exit_code: 0, .. }));
    assert!(begun.elapsed() >= Duration::from_millis(150));
    executor.order(Order::Start { claim: claim(2), spec: spec(&["forever"]) });
    assert!(matches!(next(&mut told).await, TaskReport::Running { .. }));
    for _ in 0..2 {
        executor.order(Order::Stop { claim: claim(2), grace_ms: 0 });
        assert!(matches!(next(&mut told).await, TaskReport::Exited { exit_code: 143, .. }));
    }
    executor.order(Order::Stop { claim: claim(3), grace_ms: 0 });
    assert!(matches!(next(&mut told).await, TaskReport::Failed { .. }));
}

#[tokio::test]
async fn thousands_a_second() {
    const TASKS: u32 = 20_000;
    let (reports, mut told) = mpsc::channel(64);
    let executor = Executor::null(reports);
    let begun = Instant::now();
    for number in 0..TASKS {
        executor.order(Order::Start { claim: claim(number), spec: spec(&["true"]) });
    }
    let mut ended = 0;
    while ended < TASKS {
        if let Some(Told::Task { report: TaskReport::Exited { .. }, .. }) = told.recv().await {
            ended += 1;
        }
    }
    let rate = f64::from(TASKS) / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} tasks a second");
    assert!(rate > 5_000.0, "{rate}");
}
