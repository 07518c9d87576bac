//! The calls, one function each.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use rialto_protocol::api::{
    Answer, App, AppEvent, AppEvents, Apps, Changed, DeployBody, DispatchBody, Doctor, EventRow, Events, Explanation,
    Freed, History, ImageRow, Images, InviteBody, Invited, LockLine, LockPlace, LockPlaceBody, LockQueue, LockQueues,
    LockSession, LockSessionBody, Locks, LogLine, LoginBody, LoginRow, Logins, Machines, PullLine, Rebalance,
    RollbackBody, RolloutBody, Rollouts, RunBody, ScaleBody, SecretBody, SecretSet, Secrets, Stats, Status, TaskRow,
    Tasks, VolumeBody, VolumeRow, Volumes,
};
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::AppSpec;
use rialto_protocol::snapshot::Snapshot;

use crate::transport::Call;
use crate::{Client, Error, Lines};

/// What a call may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Running,
    Finished,
}

impl Wait {
    fn word(self) -> &'static str {
        match self {
            Wait::Running => "running",
            Wait::Finished => "finished",
        }
    }
}

/// What an imported image is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming<'a> {
    As(&'a str),
    /// As the archive calls it, or else so; without either it is refused.
    OwnOr(Option<&'a str>),
}

impl Client {
    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Answer<Status>, Error> {
        self.ask(Call::get("/v1/status")).await
    }

    /// `GET /v1/version`: the version of the peer's program.
    pub async fn version(&self) -> Result<serde_json::Value, Error> {
        self.ask(Call::get("/v1/version")).await
    }

    /// `GET /v1/doctor`: what the peer finds when it looks at its own machine.
    pub async fn doctor(&self) -> Result<Answer<Doctor>, Error> {
        self.ask(Call::get("/v1/doctor")).await
    }

    /// `GET /v1/locks`: the lock group as the peer knows it.
    pub async fn locks(&self) -> Result<Answer<Locks>, Error> {
        self.ask(Call::get("/v1/locks")).await
    }

    /// `POST /v1/locks/force-new-group`: the peer's own part is all that is left of the lock group.
    pub async fn force_new_lock_group(&self) -> Result<(), Error> {
        let path = "/v1/locks/force-new-group?lose_leases=true";
        let _: serde_json::Value = self.ask(Call { method: Method::POST, ..Call::get(path) }).await?;
        Ok(())
    }

    /// `POST /v1/locks/sessions`: a lease, to wait and to hold by.
    pub async fn lock_session(&self, ttl_seconds: u32) -> Result<Answer<LockSession>, Error> {
        self.ask(Call::with(Method::POST, "/v1/locks/sessions", &LockSessionBody { ttl_seconds })).await
    }

    /// `POST /v1/locks/sessions/{session}/renew`: the lease has its whole time anew.
    pub async fn renew_lock_session(&self, session: &str) -> Result<Answer<LockSession>, Error> {
        let path = format!("/v1/locks/sessions/{}/renew", escaped(session));
        self.ask(Call { method: Method::POST, ..Call::get(path) }).await
    }

    /// `DELETE /v1/locks/sessions/{session}`: the lease ends, and everything that hangs on it.
    pub async fn end_lock_session(&self, session: &str) -> Result<(), Error> {
        let path = format!("/v1/locks/sessions/{}", escaped(session));
        let _: serde_json::Value = self.ask(Call { method: Method::DELETE, ..Call::get(path) }).await?;
        Ok(())
    }

    /// `POST /v1/locks/queues/{name}`: waits for a lock, or to lead. Dropping the lines before the last gives the place up.
    pub async fn wait_for_lock(&self, name: &str, body: &LockPlaceBody) -> Result<Lines<LockLine>, Error> {
        self.follow(Call::with(Method::POST, format!("/v1/locks/queues/{}", escaped(name)), body)).await
    }

    /// `GET /v1/locks/queues`: all locks and elections that somebody holds or waits for.
    pub async fn lock_queues(&self) -> Result<Answer<LockQueues>, Error> {
        self.ask(Call::get("/v1/locks/queues")).await
    }

    /// `GET /v1/locks/queues/{name}`.
    pub async fn lock_queue(&self, name: &str) -> Result<Answer<LockQueue>, Error> {
        self.ask(Call::get(format!("/v1/locks/queues/{}", escaped(name)))).await
    }

    /// `GET /v1/locks/queues/{name}?follow=true`: as it is, and again whenever it has changed.
    pub async fn follow_lock_queue(&self, name: &str) -> Result<Lines<LockQueue>, Error> {
        self.follow(Call::get(format!("/v1/locks/queues/{}?follow=true", escaped(name)))).await
    }

    /// `DELETE /v1/locks/queues/{name}`: ends the session of whoever holds, or leads.
    pub async fn break_lock(&self, name: &str) -> Result<Answer<LockPlace>, Error> {
        let path = format!("/v1/locks/queues/{}", escaped(name));
        self.ask(Call { method: Method::DELETE, ..Call::get(path) }).await
    }

    /// `GET /v1/machines`.
    pub async fn machines(&self) -> Result<Answer<Machines>, Error> {
        self.ask(Call::get("/v1/machines")).await
    }

    /// `POST /v1/machines/{machine}/drain` or `undrain`: it takes no more work, or takes work again.
    pub async fn drain(&self, machine: &str, on: bool) -> Result<(), Error> {
        let verb = if on { "drain" } else { "undrain" };
        let path = format!("/v1/machines/{}/{verb}", escaped(machine));
        let _: serde_json::Value = self.ask(Call { method: Method::POST, ..Call::get(path) }).await?;
        Ok(())
    }

    /// `DELETE /v1/machines/{machine}`: it is a member no more; `force`: though it is up; `last`: its key was stolen,
    /// and what it wrote with a higher number counts no more.
    pub async fn remove_machine(
        &self,
        machine: &str,
        force: bool,
        last: Option<u64>,
    ) -> Result<serde_json::Value, Error> {
        let mut query = Query::new(format!("/v1/machines/{}", escaped(machine)));
        query.add("force", force.then_some("true"));
        query.add("last", last.map(|last| last.to_string()).as_deref());
        self.ask(Call { method: Method::DELETE, ..Call::get(query.0) }).await
    }

    /// `POST /v1/machines/unfreeze`: replacements that the storm gate holds back go ahead.
    pub async fn unfreeze(&self) -> Result<serde_json::Value, Error> {
        self.ask(Call { method: Method::POST, ..Call::get("/v1/machines/unfreeze") }).await
    }

    /// `GET /v1/apps/{app}/history`; `all`: also earlier generations, and what stewards wrote down.
    pub async fn history(&self, app: &str, all: bool) -> Result<Answer<History>, Error> {
        let mut query = Query::new(format!("/v1/apps/{}/history", escaped(app)));
        query.add("all", all.then_some("true"));
        self.ask(Call::get(query.0)).await
    }

    /// `POST /v1/apps/{app}/rollback`: the app reads as it did after an earlier change.
    pub async fn rollback(&self, app: &str, to: &str, change: ChangeId) -> Result<Answer<Changed>, Error> {
        let body = RollbackBody { change: change.hex(), to: to.into() };
        self.ask(Call::with(Method::POST, format!("/v1/apps/{}/rollback", escaped(app)), &body)).await
    }

    /// `GET /v1/apps/{app}/rollout`: how the last changes of its services stand.
    pub async fn rollouts(&self, app: &str) -> Result<Answer<Rollouts>, Error> {
        self.ask(Call::get(format!("/v1/apps/{}/rollout", escaped(app)))).await
    }

    /// `POST /v1/apps/{app}/rollout`: `pause`, `resume`, `promote` or `rollback`.
    pub async fn order_rollout(
        &self,
        app: &str,
        service: Option<&str>,
        action: &str,
        change: ChangeId,
    ) -> Result<Answer<Changed>, Error> {
        let body = RolloutBody { change: change.hex(), service: service.map(Into::into), action: action.into() };
        self.ask(Call::with(Method::POST, format!("/v1/apps/{}/rollout", escaped(app)), &body)).await
    }

    /// `POST /v1/apps/{app}/run`: a service that runs to its end runs once more.
    pub async fn dispatch(&self, app: &str, service: &str, change: ChangeId) -> Result<Answer<Changed>, Error> {
        let body = DispatchBody { change: change.hex(), service: service.into() };
        self.ask(Call::with(Method::POST, format!("/v1/apps/{}/run", escaped(app)), &body)).await
    }

    /// `GET /v1/explain/{name}`: why tasks of an app, a service or one task wait.
    pub async fn explain(&self, name: &str) -> Result<Answer<Explanation>, Error> {
        self.ask(Call::get(format!("/v1/explain/{}", escaped(name)))).await
    }

    /// `GET /v1/rebalance`: moves that would even out the load; with `begin` (`POST`) they are made.
    pub async fn rebalance(&self, begin: bool) -> Result<Answer<Rebalance>, Error> {
        let method = if begin { Method::POST } else { Method::GET };
        self.ask(Call { method, ..Call::get("/v1/rebalance") }).await
    }

    /// `GET /v1/ledger`: everything that the peer holds.
    pub async fn ledger(&self) -> Result<Snapshot, Error> {
        let (peer, bytes) = self.fetch(Call::get("/v1/ledger")).await?;
        Snapshot::from_bytes(&bytes).map_err(|error| Error::Unreadable { peer, why: error.to_string() })
    }

    /// `POST /v1/invitations`: a token that lets machines join.
    pub async fn invite(&self, ttl: Duration, uses: u32) -> Result<Answer<Invited>, Error> {
        let body = InviteBody { ttl_seconds: ttl.as_secs(), uses };
        self.ask(Call::with(Method::POST, "/v1/invitations", &body)).await
    }

    /// `GET /v1/tasks`: the tasks of everything, of an app, or of one of its services. `all` shows
    /// every finished one that is kept, not the last hundred.
    pub async fn tasks(&self, app: Option<&str>, service: Option<&str>, all: bool) -> Result<Answer<Tasks>, Error> {
        let mut query = Query::new("/v1/tasks");
        query.add("app", app);
        query.add("service", service);
        query.add("all", all.then_some("true"));
        self.ask(Call::get(query.0)).await
    }

    /// `GET /v1/tasks/{task}`: one task, `app.service.slot`; with a wait not before it runs or is
    /// finished, or [`Error::Refused`] by `timed_out` after `at_most`.
    pub async fn task(&self, task: &str, wait: Option<(Wait, Duration)>) -> Result<Answer<TaskRow>, Error> {
        let mut query = Query::new(format!("/v1/tasks/{}", escaped(task)));
        let mut extra = Duration::ZERO;
        if let Some((wait, at_most)) = wait {
            query.add("wait", Some(wait.word()));
            query.add("timeout_ms", Some(&at_most.as_millis().to_string()));
            extra = at_most;
        }
        self.ask(Call::get(query.0).waiting(extra)).await
    }

    /// `GET /v1/apps`.
    pub async fn apps(&self) -> Result<Answer<Apps>, Error> {
        self.ask(Call::get("/v1/apps")).await
    }

    /// `GET /v1/apps/{app}`.
    pub async fn app(&self, app: &str) -> Result<Answer<App>, Error> {
        self.ask(Call::get(format!("/v1/apps/{}", escaped(app)))).await
    }

    /// `PUT /v1/apps/{app}`: makes the app read so.
    /// `resolve`: names of images are read anew, though the app's stay the same.
    pub async fn deploy(
        &self,
        app: &str,
        spec: AppSpec,
        resolve: bool,
        change: ChangeId,
    ) -> Result<Answer<Changed>, Error> {
        let body = DeployBody { change: change.hex(), spec, resolve };
        self.ask(Call::with(Method::PUT, format!("/v1/apps/{}", escaped(app)), &body)).await
    }

    /// `DELETE /v1/apps/{app}`: ends the app's generation and everything that runs of it.
    pub async fn remove(&self, app: &str, change: ChangeId) -> Result<Answer<Changed>, Error> {
        let path = format!("/v1/apps/{}?change={}", escaped(app), change.hex());
        self.ask(Call { method: Method::DELETE, ..Call::get(path) }).await
    }

    /// `POST /v1/apps/{app}/scale`: sets the number of replicas, of one service or of all.
    pub async fn scale(
        &self,
        app: &str,
        service: Option<&str>,
        replicas: u32,
        change: ChangeId,
    ) -> Result<Answer<Changed>, Error> {
        let body = ScaleBody { change: change.hex(), service: service.map(Into::into), replicas };
        self.ask(Call::with(Method::POST, format!("/v1/apps/{}/scale", escaped(app)), &body)).await
    }

    /// `GET /v1/apps/{app}/wait`: answers when the app runs or is finished, or is refused by
    /// `timed_out` after `at_most`, by `unplaceable` where that can never be.
    pub async fn wait(&self, app: &str, until: Wait, at_most: Duration) -> Result<Answer<Tasks>, Error> {
        let mut query = Query::new(format!("/v1/apps/{}/wait", escaped(app)));
        query.add("until", Some(until.word()));
        query.add("timeout_ms", Some(&at_most.as_millis().to_string()));
        self.ask(Call::get(query.0).waiting(at_most)).await
    }

    /// `POST /v1/runs?follow=true`: starts a single run and follows its output to its end.
    pub async fn run(&self, body: &RunBody) -> Result<Lines<LogLine>, Error> {
        // It answers when the run is accepted by as many peers as can be had.
        self.follow(Call::with(Method::POST, "/v1/runs?follow=true", body)).await
    }

    /// `POST /v1/runs`: starts a single run, and answers when it is accepted.
    pub async fn start(&self, body: &RunBody) -> Result<Answer<Changed>, Error> {
        self.ask(Call::with(Method::POST, "/v1/runs", body)).await
    }

    /// `GET /v1/logs/{name}`: the output of a task, of a service's tasks, or of an app's; from the
    /// last `tail` lines of each on; with `follow` for as long as they run.
    pub async fn logs(&self, name: &str, follow: bool, tail: Option<u32>) -> Result<Lines<LogLine>, Error> {
        let mut query = Query::new(format!("/v1/logs/{}", escaped(name)));
        query.add("follow", follow.then_some("true"));
        query.add("tail", tail.map(|lines| lines.to_string()).as_deref());
        self.follow(Call::get(query.0)).await
    }

    /// `GET /v1/stats`: what running tasks use, of everything, of an app, or of one of its services.
    pub async fn stats(&self, app: Option<&str>, service: Option<&str>) -> Result<Answer<Stats>, Error> {
        let mut query = Query::new("/v1/stats");
        query.add("app", app);
        query.add("service", service);
        self.ask(Call::get(query.0)).await
    }

    /// `GET /v1/images`.
    pub async fn images(&self) -> Result<Answer<Images>, Error> {
        self.ask(Call::get("/v1/images")).await
    }

    /// `POST /v1/images?name=&fallback=`: sends an OCI image layout, or what `docker save` wrote, as a tar archive,
    /// piece by piece as it is made. It is sent to one peer and not repeated.
    pub async fn import<S>(&self, name: Naming<'_>, archive: S) -> Result<Answer<ImageRow>, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let mut query = Query::new("/v1/images");
        match name {
            Naming::As(name) => query.add("name", Some(name)),
            Naming::OwnOr(name) => query.add("fallback", name),
        }
        let body = StreamBody::new(archive.map_ok(Frame::data)).boxed_unsync();
        self.send(&query.0, body).await
    }

    /// `POST /v1/images/{name}/pull`: has the peer bring an image from its registry, and follows how far it is. The
    /// last line is [`PullLine::Pulled`] or [`PullLine::Failed`].
    pub async fn pull(&self, name: &str) -> Result<Lines<PullLine>, Error> {
        let path = format!("/v1/images/{}/pull", escaped(name));
        self.follow(Call { method: Method::POST, ..Call::get(path) }).await
    }

    /// `DELETE /v1/images/{name}`: takes an image from every machine that has it; by `force` even if an app wants it.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Answer<Freed>, Error> {
        let mut query = Query::new(format!("/v1/images/{}", escaped(name)));
        query.add("force", force.then_some("true"));
        self.ask(Call { method: Method::DELETE, ..Call::get(query.0) }).await
    }

    /// `POST /v1/blobs/gc`: has every machine give back what nothing needs, and by `unused_for` also the images that
    /// no task has used for so long and that can be had again.
    pub async fn collect_images(&self, unused_for: Option<Duration>) -> Result<Answer<Freed>, Error> {
        let mut query = Query::new("/v1/blobs/gc");
        query.add("unused_ms", unused_for.map(|time| time.as_millis().to_string()).as_deref());
        self.ask(Call { method: Method::POST, ..Call::get(query.0) }).await
    }

    /// `GET /v1/volumes`.
    pub async fn volumes(&self) -> Result<Answer<Volumes>, Error> {
        self.ask(Call::get("/v1/volumes")).await
    }

    /// `GET /v1/volumes/{name}`: the volume that counts, or the one of a machine.
    pub async fn volume(&self, name: &str, machine: Option<&str>) -> Result<Answer<VolumeRow>, Error> {
        let mut query = Query::new(format!("/v1/volumes/{}", escaped(name)));
        query.add("machine", machine);
        self.ask(Call::get(query.0)).await
    }

    /// `POST /v1/volumes`: makes a volume on a machine, or on the one that is asked.
    pub async fn make_volume(&self, name: &str, machine: Option<&str>) -> Result<Answer<VolumeRow>, Error> {
        let body = VolumeBody { name: name.into(), machine: machine.map(Into::into) };
        self.ask(Call::with(Method::POST, "/v1/volumes", &body)).await
    }

    /// `DELETE /v1/volumes/{name}`: deletes it with everything in it; `force`: though an app names it.
    pub async fn remove_volume(
        &self,
        name: &str,
        machine: Option<&str>,
        force: bool,
    ) -> Result<Answer<VolumeRow>, Error> {
        let mut query = Query::new(format!("/v1/volumes/{}", escaped(name)));
        query.add("machine", machine);
        query.add("force", force.then_some("true"));
        self.ask(Call { method: Method::DELETE, ..Call::get(query.0) }).await
    }

    /// `POST /v1/volumes/{name}/release`: gives up a volume whose machine is down.
    pub async fn release_volume(&self, name: &str) -> Result<Answer<VolumeRow>, Error> {
        self.ask(Call { method: Method::POST, ..Call::get(format!("/v1/volumes/{}/release", escaped(name))) }).await
    }

    /// `POST /v1/tasks/{task}/restart`: one task starts anew; the row of what ends.
    pub async fn restart(&self, task: &str) -> Result<Answer<TaskRow>, Error> {
        self.ask(Call { method: Method::POST, ..Call::get(format!("/v1/tasks/{}/restart", escaped(task))) }).await
    }

    /// `GET /v1/logins`: the registries that people have logged in at.
    pub async fn logins(&self) -> Result<Answer<Logins>, Error> {
        self.ask(Call::get("/v1/logins")).await
    }

    /// `PUT /v1/logins/{registry}`; `unchecked`: the registry is not asked whether it opens.
    pub async fn log_in(&self, registry: &str, login: &LoginBody, unchecked: bool) -> Result<Answer<SecretSet>, Error> {
        let mut query = Query::new(format!("/v1/logins/{}", escaped(registry)));
        query.add("unchecked", unchecked.then_some("true"));
        self.ask(Call::with(Method::PUT, query.0, login)).await
    }

    /// `DELETE /v1/logins/{registry}`.
    pub async fn log_out(&self, registry: &str) -> Result<Answer<LoginRow>, Error> {
        self.ask(Call { method: Method::DELETE, ..Call::get(format!("/v1/logins/{}", escaped(registry))) }).await
    }

    /// `GET /v1/secrets`: which are set.
    pub async fn secrets(&self) -> Result<Answer<Secrets>, Error> {
        self.ask(Call::get("/v1/secrets")).await
    }

    /// `PUT /v1/secrets/{name}`.
    pub async fn set_secret(&self, name: &str, value: &[u8]) -> Result<Answer<SecretSet>, Error> {
        let body = SecretBody::of(value);
        self.ask(Call::with(Method::PUT, format!("/v1/secrets/{}", escaped(name)), &body)).await
    }

    /// `DELETE /v1/secrets/{name}`.
    pub async fn remove_secret(&self, name: &str) -> Result<Answer<SecretSet>, Error> {
        self.ask(Call { method: Method::DELETE, ..Call::get(format!("/v1/secrets/{}", escaped(name))) }).await
    }

    /// `GET /v1/events`: what this peer saw happen after the event `after`.
    pub async fn events(&self, after: Option<u64>) -> Result<Answer<Events>, Error> {
        let mut query = Query::new("/v1/events");
        query.add("after", after.map(|id| id.to_string()).as_deref());
        self.ask(Call::get(query.0)).await
    }

    /// `GET /v1/apps/{app}/events`: what happened to an app, whoever saw it; `after`: behind the event of this id.
    pub async fn app_events(&self, app: &str, after: Option<&str>) -> Result<Answer<AppEvents>, Error> {
        let mut query = Query::new(format!("/v1/apps/{}/events", escaped(app)));
        query.add("after", after);
        self.ask(Call::get(query.0)).await
    }

    /// `GET /v1/apps/{app}/events?follow=true`: the same, and everything that follows as it comes to be known.
    pub async fn follow_app_events(&self, app: &str, after: Option<&str>) -> Result<Lines<AppEvent>, Error> {
        let mut query = Query::new(format!("/v1/apps/{}/events", escaped(app)));
        query.add("follow", Some("true"));
        query.add("after", after);
        self.follow(Call::get(query.0)).await
    }

    /// `GET /v1/events?follow=true`: the same, and everything that follows as it happens.
    pub async fn follow_events(&self, after: Option<u64>) -> Result<Lines<EventRow>, Error> {
        let mut query = Query::new("/v1/events");
        query.add("follow", Some("true"));
        query.add("after", after.map(|id| id.to_string()).as_deref());
        self.follow(Call::get(query.0)).await
    }
}

/// A path that grows a query.
pub(crate) struct Query(pub String);

impl Query {
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    pub fn add(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            let mark = if self.0.contains('?') { '&' } else { '?' };
            self.0 += &format!("{mark}{key}={}", escaped(value));
        }
    }
}

/// Percent-encodes everything but the unreserved characters (RFC 3986, 2.3).
pub(crate) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_stays_one_segment_or_value() {
        let mut query = Query::new(format!("/v1/logs/{}", escaped("a/b?c")));
        query.add("tail", Some("1&2"));
        query.add("none", None);
        query.add("name", Some("é"));
        assert_eq!(query.0, "/v1/logs/a%2Fb%3Fc?tail=1%262&name=%C3%A9");
    }
}
