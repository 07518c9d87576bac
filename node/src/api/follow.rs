//! Following tasks: their states and what they print, on whatever machine they run.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::StreamExt;
use rialto_protocol::api::{ErrorCode, LogLine, TaskRow};
use rialto_protocol::ids::ClaimId;
use rialto_protocol::view::ClaimAt;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::logs::print;
use super::problem::Problem;
use super::progress::{Target, has_ended, is_finished, present};
use super::watch::{Seen, Watching};

/// The most lines that wait for a slow reader.
pub const LINES_MAX: usize = 64;

/// The lines of an answer, on their way to whoever follows.
#[derive(Clone)]
pub struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    /// A way in, and the answer's body.
    pub fn open() -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        (Self(sender), receiver)
    }

    /// `false`: nobody reads any more.
    pub async fn send(&self, line: &LogLine) -> bool {
        let Ok(mut bytes) = serde_json::to_vec(line) else { return true };
        bytes.push(b'\n');
        self.send_raw(bytes.into()).await
    }

    /// Sends what is a line already, its end included.
    pub async fn send_raw(&self, line: Bytes) -> bool {
        self.0.send(line).await.is_ok()
    }

    pub async fn fail(&self, problem: Problem) -> bool {
        self.send(&LogLine::Failed(problem.into_body())).await
    }

    pub async fn closed(&self) {
        self.0.closed().await
    }
}

/// An answer of lines.
pub fn stream_of(lines: mpsc::Receiver<Bytes>) -> Response {
    super::ndjson(Body::from_stream(ReceiverStream::new(lines).map(Ok::<_, Infallible>)))
}

/// What to follow, and how.
pub struct Follow {
    pub target: Target,
    /// Of what was printed before, only so many lines of each task.
    pub tail: Option<usize>,
    /// Whether changes of state are lines, too.
    pub states: bool,
    /// Comes when the app is deployed: until then that there is none of it means nothing.
    pub deployed: Option<oneshot::Receiver<()>>,
}

/// Follows until nothing more can come, nobody listens, or the peer goes down.
pub async fn follow(api: Arc<Api>, what: Follow, mut watching: Watching, lines: Lines, _permit: OwnedSemaphorePermit) {
    let Follow { target, tail, states, mut deployed } = what;
    let mut chosen = Chosen::new(target.clone(), tail);
    if deployed.is_some() && watching.seen.app.is_none() {
        // Whatever is left of an earlier app of that name is none of this run's.
        chosen.pass_over(&watching.seen);
    }
    let mut told = Told::default();
    let mut printing: JoinSet<String> = JoinSet::new();
    let mut unfinished: BTreeSet<String> = BTreeSet::new();
    loop {
        for (claim, tail) in chosen.fresh(&watching.seen) {
            let name = claim.claim.hex();
            unfinished.insert(name.clone());
            let (api, watching, lines) = (api.clone(), watching.clone(), lines.clone());
            printing.spawn(async move {
                print(&api, claim, tail, Some(watching), &lines).await;
                name
            });
        }
        let is_there = deployed.is_none() || watching.seen.app.is_some();
        if states && is_there && !told.tell(&watching.seen, &target, &unfinished, &lines).await {
            return;
        }
        let seen = &watching.seen;
        if deployed.is_none() && printing.is_empty() && is_over(&target, seen) {
            let present = present(seen.rows.iter().filter(|row| target.means(row)));
            if states && present.is_empty() {
                let message = format!("{} was removed before any of its tasks was placed", target.app());
                lines.fail(Problem::new(ErrorCode::NotFound, message).at("app")).await;
            }
            return;
        }
        tokio::select! {
            changed = watching.changed() => if !changed {
                lines.fail(Problem::going_down()).await;
                return;
            },
            Some(printed) = printing.join_next(), if !printing.is_empty() => match printed {
                Ok(claim) => drop(unfinished.remove(&claim)),
                Err(_) => unfinished.clear(),
            },
            answered = async { deployed.as_mut().expect("it is asked for only where there is one").await },
                if deployed.is_some() =>
            {
                if answered.is_err() {
                    return;
                }
                deployed = None;
                // What was seen before the deploy is no ground to call anything finished.
                match api.watches.watch(target.app()).await {
                    Some(fresh) => watching = fresh,
                    None => return,
                }
            }
            () = lines.closed() => return,
            () = api.closing.cancelled() => {
                lines.fail(Problem::going_down()).await;
                return;
            }
        }
    }
}

/// Whether nothing more will come.
fn is_over(target: &Target, seen: &Seen) -> bool {
    match target {
        Target::Tasks { .. } => is_finished(target, seen.app.as_ref(), &seen.rows),
        Target::Claim { claim, .. } => {
            let claim = seen.claims.iter().find(|other| other.claim.hex() == *claim);
            claim.is_none_or(|claim| has_ended(&claim.row))
        }
    }
}

/// Which claims' output is wanted: of each task those that live and the newest that has begun when the following
/// begins, and every later one.
pub struct Chosen {
    target: Target,
    tail: Option<usize>,
    seen: BTreeSet<ClaimId>,
    begun: bool,
}

impl Chosen {
    pub fn new(target: Target, tail: Option<usize>) -> Self {
        Self { target, tail, seen: BTreeSet::new(), begun: false }
    }

    /// Takes everything that there is for read.
    fn pass_over(&mut self, seen: &Seen) {
        self.begun = true;
        self.seen.extend(seen.claims.iter().map(|claim| claim.claim));
    }

    /// Claims that are to be read and were not yet, each with how much of its past is wanted.
    pub fn fresh(&mut self, seen: &Seen) -> Vec<(ClaimAt, Option<usize>)> {
        let first = !std::mem::replace(&mut self.begun, true);
        let mut settled = BTreeSet::new();
        let mut fresh: Vec<(ClaimAt, Option<usize>)> = Vec::new();
        let counts = |row: &TaskRow| row.started_at.is_some() && row.state != "superseded";
        let others: BTreeSet<&str> =
            seen.claims.iter().filter(|claim| counts(&claim.row)).map(|claim| claim.row.task.as_str()).collect();
        for claim in seen.claims.iter().filter(|claim| self.target.means(&claim.row)) {
            let (ended, begun) = (has_ended(&claim.row), claim.row.started_at.is_some());
            // A claim that ended without having begun never printed anything; a copy that gave way says nothing of the
            // task that another does not.
            let gave_way = claim.row.state == "superseded" && others.contains(claim.row.task.as_str());
            if ended && (!begun || gave_way) || !self.seen.insert(claim.claim) {
                continue;
            }
            let newest = !begun || settled.insert(&claim.row.task);
            if !first {
                fresh.push((claim.clone(), None));
            } else if newest || !ended && claim.reachable {
                fresh.push((claim.clone(), self.tail));
            }
        }
        fresh.sort_by(|(a, _), (b, _)| (&a.row.task, a.row.attempt).cmp(&(&b.row.task, b.row.attempt)));
        fresh
    }
}

/// What was told of each task.
#[derive(Default)]
struct Told(BTreeMap<String, TaskRow>);

impl Told {
    /// Tells what is new; that a claim has ended is told after everything it printed.
    async fn tell(&mut self, seen: &Seen, target: &Target, printing: &BTreeSet<String>, lines: &Lines) -> bool {
        for (task, row) in present(seen.rows.iter().filter(|row| target.means(row))) {
            let ended = has_ended(row) || row.lost;
            let held_back = ended && row.claim.as_ref().is_some_and(|claim| printing.contains(claim));
            if held_back || self.0.get(task) == Some(row) {
                continue;
            }
            self.0.insert(task.to_string(), row.clone());
            if !lines.send(&LogLine::State(Box::new(row.clone()))).await {
                return false;
            }
        }
        true
    }
}

/// What a watching reader needs to know of one claim.
pub fn claim_of<'a>(watching: &'a Watching, claim: &ClaimAt) -> Option<&'a ClaimAt> {
    watching.seen.claims.iter().find(|other| other.claim == claim.claim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::ids::PeerId;

    fn claim(number: u8, attempt: u32, state: &str, begun: bool) -> ClaimAt {
        let claim = ClaimId([number; 16]);
        let mut row = super::super::progress::tests::row("1", state, attempt);
        row.claim = Some(claim.hex());
        row.started_at = begun.then(|| "2026-01-01T00:00:00.000Z".to_string());
        ClaimAt { claim, owner: PeerId([1; 32]), owner_name: "m1".into(), reachable: true, row }
    }

    fn numbers(chosen: &mut Chosen, claims: &[ClaimAt]) -> Vec<(u8, Option<usize>)> {
        let seen = Seen { claims: claims.to_vec(), ..Default::default() };
        chosen.fresh(&seen).into_iter().map(|(claim, tail)| (claim.claim.0[0], tail)).collect()
    }

    #[test]
    fn the_newest_that_has_begun_is_read_and_everything_after_it() {
        let mut chosen = Chosen::new(Target::of("shop"), Some(5));
        let old = [claim(1, 1, "exited", true), claim(2, 2, "exited", true), claim(3, 3, "failed", false)];
        let mut now = vec![claim(4, 4, "accepted", false), old[2].clone(), old[1].clone(), old[0].clone()];
        assert_eq!(numbers(&mut chosen, &now), [(2, Some(5)), (4, Some(5))]);
        now.insert(0, claim(5, 5, "running", true));
        assert_eq!(numbers(&mut chosen, &now), [(5, None)]);
        assert_eq!(numbers(&mut chosen, &now), []);
    }

    #[test]
    fn a_copy_that_gave_way_is_not_read_beside_the_one_that_counts() {
        let claims = [claim(2, 2, "superseded", true), claim(1, 1, "exited", true)];
        assert_eq!(numbers(&mut Chosen::new(Target::of("shop"), None), &claims), [(1, None)]);
        assert_eq!(numbers(&mut Chosen::new(Target::of("shop"), None), &claims[..1]), [(2, None)]);
    }

    #[test]
    fn both_of_a_pair_are_read() {
        let mut chosen = Chosen::new(Target::of("shop.web.1"), None);
        let pair = [claim(1, 2, "running", true), claim(2, 2, "running", true), claim(3, 1, "exited", true)];
        assert_eq!(numbers(&mut chosen, &pair).len(), 2);
    }

    #[test]
    fn a_lost_claim_is_read_only_while_nothing_has_taken_its_place() {
        let lost = ClaimAt { reachable: false, ..claim(1, 1, "running", true) };
        let next = |begun| claim(2, 2, if begun { "running" } else { "accepted" }, begun);
        let mut chosen = Chosen::new(Target::of("shop"), None);
        assert_eq!(numbers(&mut chosen, &[next(false), lost.clone()]).len(), 2);
        let mut chosen = Chosen::new(Target::of("shop"), None);
        assert_eq!(numbers(&mut chosen, &[next(true), lost]), [(2, None)]);
    }

    #[test]
    fn a_new_run_does_not_tell_of_an_old_one_of_its_name() {
        let mut chosen = Chosen::new(Target::of("shop"), None);
        let old = claim(1, 7, "exited", true);
        chosen.pass_over(&Seen { claims: vec![old.clone()], ..Default::default() });
        assert_eq!(numbers(&mut chosen, &[claim(2, 1, "running", true), old]), [(2, None)]);
    }
}
