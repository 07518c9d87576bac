//! `rialto exec` and `rialto attach`: a person's terminal in a container.

use std::io;

use rialto_client::{Client, Hearing, Saying};
use rialto_protocol::session::{Exec, Frame, Open};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{self, Attach};
use crate::exit::{self, Exit, Failure};
use crate::output::pass;
use crate::terminal::{self, Raw};

/// The keys that leave a terminal that is attached: Ctrl-P, Ctrl-Q.
const DETACH: [u8; 2] = [0x10, 0x11];

pub async fn exec(client: &Client, exec: args::Exec) -> Result<Exit, Failure> {
    if exec.tty && exec.interactive && !terminal::is_there() {
        let failure = Failure::usage("-t needs a terminal, and stdin or stdout is none");
        return Err(failure.hint("leave -t out to send a file or a pipe"));
    }
    let environment = exec.env.iter().map(|variable| match &variable.value {
        Some(value) => format!("{}={value}", variable.name),
        None => format!("{}={}", variable.name, std::env::var(&variable.name).unwrap_or_default()),
    });
    let mut environment: Vec<String> = environment.collect();
    if let (true, Ok(term)) = (exec.tty, std::env::var("TERM")) {
        environment.insert(0, format!("TERM={term}"));
    }
    let open = Open::Exec(Exec {
        command: exec.command,
        environment,
        user: exec.user,
        working_dir: exec.workdir,
        terminal: exec.tty.then(terminal::size),
        input: exec.interactive,
    });
    let (hearing, saying) = client.session(&exec.task, open).await?;
    let _raw = (exec.tty && exec.interactive).then(Raw::begin).transpose()?;
    let input = exec.interactive.then(terminal::input);
    converse(hearing, saying, input, exec.tty, None).await
}

pub async fn attach(client: &Client, attach: Attach) -> Result<Exit, Failure> {
    let there = terminal::is_there();
    let reads = !attach.no_stdin;
    let open = Open::Attach { input: reads, size: there.then(terminal::size) };
    let (hearing, saying) = client.session(&attach.task, open).await?;
    let app = attach.task.split('.').next().unwrap_or_default();
    let service = attach.task.split('.').nth(1);
    let spec = client.app(app).await.ok().map(|answer| answer.data.spec);
    let tty = spec.is_some_and(|spec| {
        let services = spec.services.iter().filter(|(name, _)| service.is_none_or(|service| service == *name));
        services.into_iter().all(|(_, service)| service.container.tty)
    });
    let _raw = (tty && there && reads).then(Raw::begin).transpose()?;
    let input = reads.then(terminal::input);
    converse(hearing, saying, input, tty && there, Some(DETACH)).await
}

/// Carries everything both ways until one side has ended.
async fn converse(
    mut hearing: Hearing,
    mut saying: Saying,
    mut input: Option<mpsc::Receiver<Vec<u8>>>,
    tty: bool,
    detach: Option<[u8; 2]>,
) -> Result<Exit, Failure> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut signals = Signals::new(tty)?;
    let mut last = 0;
    loop {
        tokio::select! {
            frame = hearing.hear() => match frame? {
                Some(Frame::Output(bytes)) => pass("stdout", &bytes)?,
                Some(Frame::ErrorOutput(bytes)) => pass("stderr", &bytes)?,
                Some(Frame::Ended(code)) => return Ok(Exit::Task(u8::try_from(code).unwrap_or(u8::MAX))),
                Some(Frame::Failed(failed)) => return Err(Failure::new(exit::of_code(failed.code), failed.message)),
                Some(_) => {}
                None => return Err(Failure::new(Exit::Failed, "the connection broke off; the command may go on")),
            },
            bytes = next(&mut input) => match bytes {
                Some(bytes) => {
                    if let Some(keys) = detach.filter(|_| tty) {
                        for byte in &bytes {
                            if [last, *byte] == keys {
                                return Ok(Exit::Done);
                            }
                            last = *byte;
                        }
                    }
                    saying.say(&Frame::Input(bytes)).await?;
                }
                None => {
                    input = None;
                    saying.say(&Frame::InputEnd).await?;
                }
            },
            _ = resized.recv(), if tty => saying.say(&Frame::Resize(terminal::size())).await?,
            number = signals.next() => saying.say(&Frame::Signal(number)).await?,
        }
    }
}

async fn next(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

/// Signals that are meant for the other side. Of a raw terminal the keys are: it sends none here.
struct Signals(Vec<(u8, tokio::signal::unix::Signal)>);

impl Signals {
    fn new(tty: bool) -> io::Result<Self> {
        let mut kinds = vec![SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        if !tty {
            kinds.push(SignalKind::interrupt());
        }
        let open = |kind: SignalKind| Ok((kind.as_raw_value() as u8, signal(kind)?));
        kinds.into_iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> u8 {
        let waiting = self.0.iter_mut().map(|(number, signal)| {
            let number = *number;
            Box::pin(async move {
                signal.recv().await;
                number
            })
        });
        futures::future::select_all(waiting).await.0
    }
}
