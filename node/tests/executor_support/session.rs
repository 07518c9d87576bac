//! Sessions with running containers, as their clients have them.

use std::time::Duration;

use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::{Container, TaskSpec};
use rialto_protocol::session::{Decoder, Exec, Frame, Open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Peer;

/// What a session came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
    pub archive: Vec<u8>,
    pub failed: Option<String>,
}

/// A session, and what it has come to so far.
pub struct Session {
    pub stream: UnixStream,
    pub decoder: Decoder,
    pub told: Outcome,
}

impl Session {
    pub async fn open(peer: &Peer, claim: ClaimId, open: Open) -> Self {
        let sessions = peer.executor().sessions().unwrap();
        let stream = match &open {
            Open::Attach { .. } => sessions.attach(claim).await.unwrap(),
            _ => sessions.enter(claim).await.unwrap(),
        };
        let mut session = Self { stream, decoder: Decoder::default(), told: Outcome::default() };
        session.say(&Frame::Open(open)).await;
        session
    }

    pub async fn say(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.encode()).await.unwrap();
    }

    /// Hears one more frame; `false` at the end.
    pub async fn hear(&mut self) -> bool {
        loop {
            if let Some(frame) = self.decoder.pull().unwrap() {
                match frame {
                    Frame::Output(bytes) => {
                        self.told.output += &String::from_utf8_lossy(&bytes);
                        self.told.archive.extend(bytes);
                    }
                    Frame::ErrorOutput(bytes) => self.told.errors += &String::from_utf8_lossy(&bytes),
                    Frame::Ended(code) => self.told.code = Some(code),
                    Frame::Failed(failed) => self.told.failed = Some(failed.message),
                    other => panic!("{other:?}"),
                }
                return true;
            }
            let mut buffer = vec![0; 64 << 10];
            let read = timeout(Duration::from_secs(10), self.stream.read(&mut buffer)).await;
            match read.unwrap_or_else(|_| panic!("nothing more came after {:?}", self.told)).unwrap() {
                0 => return false,
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    pub async fn until(&mut self, text: &str) {
        while !self.told.output.contains(text) {
            assert!(self.hear().await, "it ended with {:?}", self.told);
        }
    }

    pub async fn end(mut self) -> Outcome {
        while self.hear().await {}
        self.told
    }
}

pub fn command(words: &[&str]) -> Exec {
    Exec { command: words.iter().map(|word| word.to_string()).collect(), ..Exec::default() }
}

pub async fn exec(peer: &Peer, claim: ClaimId, words: &[&str]) -> Outcome {
    Session::open(peer, claim, Open::Exec(command(words))).await.end().await
}

pub fn with(spec: TaskSpec, change: impl FnOnce(&mut Container)) -> TaskSpec {
    let mut spec = spec;
    change(&mut spec.container);
    spec
}

pub fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| word.to_string()).collect()
}
