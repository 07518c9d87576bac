//! Sessions with containers: a request that becomes a connection for frames.

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rialto_protocol::session::{Decoder, FRAME_BYTES_MAX, Frame, Open, UPGRADE};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::calls::{Query, escaped};
use crate::transport::Call;
use crate::{Client, Error};

/// What is heard of a session.
#[derive(Debug)]
pub struct Hearing {
    peer: String,
    read: ReadHalf<TokioIo<Upgraded>>,
    decoder: Decoder,
    buffer: Vec<u8>,
}

/// What is said in a session.
#[derive(Debug)]
pub struct Saying {
    peer: String,
    write: WriteHalf<TokioIo<Upgraded>>,
}

impl Client {
    /// `GET /v1/tasks/{task}/exec`, `copy` or `attach`: opens a session with a container, wherever it runs.
    pub async fn session(&self, task: &str, open: Open) -> Result<(Hearing, Saying), Error> {
        let kind = match &open {
            Open::Exec(_) => "exec",
            Open::Read { .. } | Open::Write { .. } => "copy",
            Open::Attach { .. } => "attach",
        };
        self.upgraded(format!("/v1/tasks/{}/{kind}", escaped(task)), open).await
    }

    /// `GET /v1/volumes/{name}/copy`: opens a session with a volume, wherever it lies.
    pub async fn volume_session(
        &self,
        name: &str,
        machine: Option<&str>,
        open: Open,
    ) -> Result<(Hearing, Saying), Error> {
        let mut query = Query::new(format!("/v1/volumes/{}/copy", escaped(name)));
        query.add("machine", machine);
        self.upgraded(query.0, open).await
    }

    async fn upgraded(&self, path: String, open: Open) -> Result<(Hearing, Saying), Error> {
        let call = Call { upgrade: Some(UPGRADE), ..Call::get(path) };
        let (peer, response) = self.open(call).await?;
        let broke = |why: String| Error::BrokeOff { peer: peer.clone(), why };
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| broke(error.to_string()))?;
        let (read, write) = tokio::io::split(TokioIo::new(upgraded));
        let hearing =
            Hearing { peer: peer.clone(), read, decoder: Decoder::default(), buffer: vec![0; FRAME_BYTES_MAX] };
        let mut saying = Saying { peer, write };
        saying.say(&Frame::Open(open)).await?;
        Ok((hearing, saying))
    }
}

impl Hearing {
    /// The next frame; `None` when the other end has gone. Giving up in between loses nothing.
    pub async fn hear(&mut self) -> Result<Option<Frame>, Error> {
        let broke = |why: String| Error::BrokeOff { peer: self.peer.clone(), why };
        loop {
            if let Some(frame) = self.decoder.pull().map_err(|error| broke(error.to_string()))? {
                return Ok(Some(frame));
            }
            match self.read.read(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.push(&self.buffer[..count]),
                Err(error) => return Err(broke(error.to_string())),
            }
        }
    }
}

impl Saying {
    /// Says something.
    pub async fn say(&mut self, frame: &Frame) -> Result<(), Error> {
        let said = async {
            self.write.write_all(&frame.encode()).await?;
            self.write.flush().await
        };
        let why = |error: std::io::Error| Error::BrokeOff { peer: self.peer.clone(), why: error.to_string() };
        said.await.map_err(why)
    }
}
