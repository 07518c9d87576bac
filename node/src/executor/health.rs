//! Looking after running tasks: each with a check has a job of its own here, in the daemon. It
//! outlives no daemon; the next one goes on from what was written down last.

use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::Health;
use rialto_protocol::model::health::{HealthCheck, HealthTest};
use rialto_protocol::session::{Decoder, Exec, Frame, Open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::containers::Containers;
use super::folder::{Image, Plan};
use super::process::wall_ms;
use super::sessions;

const INTERVAL_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 30_000;
const RETRIES: u32 = 3;
const START_INTERVAL_MS: u64 = 5_000;
/// Nothing is checked more often.
const INTERVAL_MS_MIN: u64 = 50;
/// The head of an answer is shorter, or it is none.
const ANSWER_BYTES_MAX: usize = 4096;

/// How a task is looked after, everything decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    test: HealthTest,
    interval: Duration,
    timeout: Duration,
    retries: u32,
    start_period: Duration,
    start_interval: Duration,
}

impl Check {
    /// What the service says goes before what the image says; none where neither says what to try.
    pub fn of(plan: &Plan) -> Option<Self> {
        let image = match &plan.image {
            Image::Host => None,
            Image::Layers(layers) => layers.health.as_ref(),
        };
        Self::over(plan.container.health.as_ref(), image)
    }

    fn over(own: Option<&HealthCheck>, image: Option<&HealthCheck>) -> Option<Self> {
        let test = own.and_then(|own| own.test.clone()).or_else(|| image?.test.clone());
        let test = test.filter(|test| *test != HealthTest::Nothing)?;
        let time = |field: fn(&HealthCheck) -> Option<u64>, usual: u64| {
            let said = own.and_then(field).or_else(|| field(image?));
            Duration::from_millis(said.unwrap_or(usual))
        };
        let least = Duration::from_millis(INTERVAL_MS_MIN);
        Some(Self {
            test,
            interval: time(|check| check.interval_ms, INTERVAL_MS).max(least),
            timeout: time(|check| check.timeout_ms, TIMEOUT_MS).max(least),
            retries: own.and_then(|own| own.retries).or_else(|| image?.retries).unwrap_or(RETRIES).max(1),
            start_period: time(|check| check.start_period_ms, 0),
            start_interval: time(|check| check.start_interval_ms, START_INTERVAL_MS).max(least),
        })
    }
}

/// What many checks come to. Pure: the job below only tells it of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    health: Health,
    failures: u32,
}

impl Verdict {
    fn after(self, succeeded: bool, counts: bool, retries: u32) -> Self {
        match (succeeded, self.health) {
            (true, _) => Self { health: Health::Healthy, failures: 0 },
            // While it starts, and until it has been healthy once.
            (false, Health::Starting) if !counts => self,
            (false, health) => {
                let failures = self.failures.saturating_add(1);
                Self { health: if failures >= retries { Health::Unhealthy } else { health }, failures }
            }
        }
    }
}

/// Looks after a task for as long as somebody listens; `said` is what an earlier life of the daemon found.
pub fn watch(
    containers: &Arc<Containers>,
    claim: ClaimId,
    plan: Plan,
    check: Check,
    started_at: u64,
) -> watch::Receiver<Health> {
    let folder = containers.folder(claim);
    let before = folder.read_health().unwrap_or(Health::Starting);
    let (tell, told) = watch::channel(before);
    let background = containers.clone();
    containers.job(async move {
        let mut verdict = Verdict { health: before, failures: 0 };
        let ran = Duration::from_millis(wall_ms().saturating_sub(started_at));
        let begun = Instant::now().checked_sub(ran).unwrap_or_else(Instant::now);
        let mut next = Instant::now() + first_wait(&check, verdict.health);
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                () = tell.closed() => return,
            }
            let counts = begun.elapsed() >= check.start_period;
            let succeeded = tokio::select! {
                succeeded = try_once(&background, claim, &plan, &check) => succeeded,
                () = tell.closed() => return,
            };
            let now = verdict.after(succeeded, counts, check.retries);
            if now.health != verdict.health {
                if let Err(error) = folder.write_health(now.health) {
                    tracing::debug!(%claim, %error, "the health of a task cannot be written down");
                }
                let _ = tell.send(now.health);
            }
            verdict = now;
            let starts = verdict.health == Health::Starting && begun.elapsed() < check.start_period;
            next = Instant::now() + if starts { check.start_interval } else { check.interval };
        }
    });
    told
}

/// A task that starts is looked at soon: who waits for it need not wait an interval more.
fn first_wait(check: &Check, health: Health) -> Duration {
    const SOON: Duration = Duration::from_millis(500);
    match health {
        Health::Starting if check.start_period > Duration::ZERO => check.start_interval.min(SOON),
        Health::Starting => check.interval.min(SOON),
        _ => check.interval.min(Duration::from_secs(1)),
    }
}

async fn try_once(containers: &Arc<Containers>, claim: ClaimId, plan: &Plan, check: &Check) -> bool {
    let tried = async {
        match &check.test {
            HealthTest::Nothing => true,
            HealthTest::Command(words) => run(containers, claim, words.clone()).await == Some(0),
            HealthTest::Shell(line) => {
                let words = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
                run(containers, claim, words).await == Some(0)
            }
            HealthTest::Tcp { port } => connect(containers, claim, plan, *port).await.is_some(),
            HealthTest::Http { port, path } => match connect(containers, claim, plan, *port).await {
                Some(stream) => answers(stream, path).await.is_some_and(|status| (200..400).contains(&status)),
                None => false,
            },
        }
    };
    timeout(check.timeout, tried).await.unwrap_or(false)
}

/// Runs a command in the container; its code. Whoever gives up waiting ends it: the session goes with the connection.
pub(super) async fn run(containers: &Containers, claim: ClaimId, command: Vec<String>) -> Option<i32> {
    let mut session = sessions::enter(containers, claim).ok()?;
    let exec = Exec { command, ..Exec::default() };
    session.write_all(&Frame::Open(Open::Exec(exec)).encode()).await.ok()?;
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; 8192]);
    loop {
        let count = session.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        decoder.push(&buffer[..count]);
        while let Some(frame) = decoder.pull().ok()? {
            match frame {
                Frame::Ended(code) => return Some(code),
                Frame::Failed(_) => return None,
                _ => {}
            }
        }
    }
}

/// Connects to a port of the task, in its own network.
async fn connect(containers: &Arc<Containers>, claim: ClaimId, plan: &Plan, port: u16) -> Option<TcpStream> {
    // Where tasks share the machine's network, a port of the app file is another on the machine.
    let port = plan.environment.get(&format!("RIALTO_PORT_{port}")).and_then(|text| text.parse().ok()).unwrap_or(port);
    let mut hosts = vec!["127.0.0.1".to_owned()];
    hosts.extend(plan.environment.get("RIALTO_ADDRESS").cloned());
    let folder = containers.folder(claim);
    let (send, receive) = tokio::sync::oneshot::channel();
    // A thread of its own: one that has changed its network is of no use to anybody else.
    let spawned = std::thread::Builder::new().name("health".into()).stack_size(128 << 10).spawn(move || {
        let _ = send.send(connect_inside(&folder, &hosts, port));
    });
    spawned.ok()?;
    let stream = receive.await.ok()??;
    stream.set_nonblocking(true).ok()?;
    TcpStream::from_std(stream).ok()
}

fn connect_inside(folder: &super::folder::Folder, hosts: &[String], port: u16) -> Option<std::net::TcpStream> {
    const CONNECT_MAX: Duration = Duration::from_secs(5);
    let init = folder.read_life().ok()?.init?.open()?;
    nix::sched::setns(&init.0, nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
    let addresses = hosts.iter().filter_map(|host| Some(std::net::SocketAddr::new(host.parse().ok()?, port)));
    addresses.into_iter().find_map(|address| std::net::TcpStream::connect_timeout(&address, CONNECT_MAX).ok())
}

/// Asks for a path; the status.
async fn answers(mut stream: TcpStream, path: &str) -> Option<u16> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: rialto-health\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        let mut buffer = [0; 512];
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        answer.extend_from_slice(&buffer[..count]);
    }
    status(&answer)
}

/// `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.trim().parse().ok()
}

/// Runs what a service wants run before the stop signal, for as long as the grace allows.
pub(super) async fn pre_stop(containers: &Containers, claim: ClaimId, command: Vec<String>, grace: Duration) {
    tokio::select! {
        code = run(containers, claim, command) => if code != Some(0) {
            tracing::info!(%claim, ?code, "what was to be run before the stop did not succeed");
        },
        () = sleep(grace) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_goes_before_its_image() {
        let image = HealthCheck {
            test: Some(HealthTest::Shell("a".into())),
            interval_ms: Some(5_000),
            retries: Some(7),
            ..HealthCheck::default()
        };
        let own = HealthCheck { interval_ms: Some(1_000), ..HealthCheck::default() };
        let check = Check::over(Some(&own), Some(&image)).unwrap();
        assert_eq!((check.interval.as_millis(), check.retries), (1_000, 7));
        assert_eq!(check.timeout.as_millis() as u64, TIMEOUT_MS);
        let none = HealthCheck { test: Some(HealthTest::Nothing), ..HealthCheck::default() };
        assert_eq!(Check::over(Some(&none), Some(&image)), None);
        assert_eq!(Check::over(Some(&own), None), None);
    }

    #[test]
    fn it_takes_several_failures_and_one_success() {
        let start = Verdict { health: Health::Starting, failures: 0 };
        assert_eq!(start.after(false, false, 1).health, Health::Starting, "it may still take its time");
        let failing = start.after(false, true, 2);
        assert_eq!(failing.health, Health::Starting);
        assert_eq!(failing.after(false, true, 2).health, Health::Unhealthy);
        let healthy = failing.after(true, true, 2);
        assert_eq!(healthy, Verdict { health: Health::Healthy, failures: 0 });
        assert_eq!(healthy.after(false, false, 2).health, Health::Healthy);
        assert_eq!(healthy.after(false, false, 2).after(false, false, 2).health, Health::Unhealthy);
    }

    #[test]
    fn the_status_is_in_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nA: b\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        for wrong in [&b"SSH-2.0\r\n"[..], b"", b"HTTP/1.1\r\n", b"\xff\xfe\n"] {
            assert_eq!(status(wrong), None);
        }
    }
}
