//! `rialto deploy`: an app runs as its file says.

mod beside;
mod fate;
pub mod file;
mod progress;
mod settling;

use std::time::Duration;

use rialto_client::{Client, Wait, new_change};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::model::AppSpec;
use rialto_protocol::plan::Plan;
use tokio::time::{Instant, sleep};

use super::plan;
use crate::args::Deploy;
use crate::ask;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use fate::Fate;
use progress::Progress;
use settling::Settling;

/// How often progress is looked at while the peer holds the question whether everything runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn deploy(client: &Client, out: Output, deploy: Deploy) -> Result<(), Failure> {
    let file::Wanted { app, spec, secrets, warnings, .. } = file::read(&deploy.files)?;
    file::warn(&warnings);
    let secrets = beside::secrets(&secrets, &app)?;
    let plan = plan::beside(client, &app, &spec, deploy.resolve).await?;
    show(&plan);
    // That nothing changes needs no leave.
    if !plan.is_empty() {
        ask::confirm(&format!("deploy {app}?"), deploy.yes)?;
    }
    let settling = match deploy.detach {
        true => None,
        false => Some(settling(client, &app, &spec).await?),
    };
    beside::set(client, secrets).await?;
    let before = fate::standing(client, &app).await;
    let changed = client.deploy(&app, spec.clone(), deploy.resolve, new_change()).await?.data;
    match (changed.changed, changed.copies) {
        (false, _) => say(format!("{app} is as the file says already")),
        (true, 1) => say(format!("{app} is accepted; so far this peer alone has it on disk")),
        (true, copies) => say(format!("{app} is accepted; {copies} peers have it on disk")),
    }
    if let Some(settling) = settling {
        let fate = if changed.changed { Some(Fate::of(client, &app, before).await?) } else { None };
        settled(client, &app, &spec, settling, fate.as_ref(), deploy.timeout).await?;
    }
    out.data(&changed, String::new)
}

/// A person sees the whole plan; in a log what does not change is left out.
fn show(plan: &Plan) {
    if ask::somebody_is_there() {
        say(plan::tree(plan, false).trim_end());
    } else {
        plan.notes.iter().for_each(|note| say(format!("note: {note}")));
    }
}

/// What is there before a change is no news after it.
pub async fn settling(client: &Client, app: &str, spec: &AppSpec) -> Result<Settling, Failure> {
    let mut settling = Settling::new(spec);
    settling.pass_over(&client.tasks(Some(app), None, true).await?.data.tasks);
    Ok(settling)
}

/// Waits until an app runs as it says; of a change until it is plain that it will not be brought about.
pub async fn settled(
    client: &Client,
    app: &str,
    spec: &AppSpec,
    mut settling: Settling,
    fate: Option<&Fate>,
    timeout: Duration,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut progress = Progress::new(app, spec);
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        let answer = client.wait(app, Wait::Running, left.min(LOOK_EVERY)).await;
        if let Some(fate) = fate
            && let Some(failure) = fate.fault(client).await?
        {
            progress.end();
            return Err(failure);
        }
        match answer {
            Ok(answer) => {
                progress.see(&answer.data.tasks, &[]);
                if let Some(rest) = settling.left(&answer.data.tasks, Instant::now().into_std()) {
                    sleep(rest.min(left)).await;
                    if left > LOOK_EVERY {
                        continue;
                    }
                }
                progress.end();
                say(format!("{app} runs after {:.1} s", begun.elapsed().as_secs_f64()));
                return Ok(());
            }
            Err(error) if error.code() == Some(ErrorCode::TimedOut) => {
                let tasks = client.tasks(Some(app), None, false).await?.data;
                progress.see(&tasks.tasks, &tasks.remarks);
                if let Some(crash) = settling.crash(&tasks.tasks) {
                    progress.end();
                    let failure = Failure::new(Exit::Failed, crash.to_string());
                    let hint = format!("see 'rialto logs {}'; it stays deployed, and is tried on", crash.task);
                    return Err(failure.hint(hint));
                }
                if left > LOOK_EVERY {
                    continue;
                }
                progress.end();
                let message = format!("{app} does not run after {} s: {}", timeout.as_secs(), progress.summary());
                let failure = Failure::new(Exit::TimedOut, message);
                return Err(failure.hint(format!("it stays deployed, and is tried on; see rialto ps {app}")));
            }
            Err(error) => {
                progress.end();
                return Err(error.into());
            }
        }
    }
}
