//! A peer that says what a test wants it to: plain HTTP/1.1 over a Unix socket, one thread a connection.

#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.split('?').next() == Some(path)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// The answer's way out.
pub struct Answer(UnixStream);

impl Answer {
    /// Answers with JSON, and the freshness that every answer says.
    pub fn json(mut self, mut data: Value) {
        if let Value::Object(data) = &mut data {
            data.insert("as_of".into(), json!(1_767_225_780_000_u64));
            data.insert("members_seen".into(), json!(3));
        }
        self.whole(200, &data);
    }

    /// Refuses.
    pub fn refuse(mut self, status: u16, code: &str, message: &str) {
        self.whole(status, &json!({ "code": code, "message": message, "hint": "do otherwise" }));
    }

    pub fn whole(&mut self, status: u16, body: &Value) {
        let body = body.to_string();
        let _ = write!(self.0, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    }

    /// Writes anything.
    pub fn raw(&mut self, text: &str) {
        let _ = self.0.write_all(text.as_bytes());
    }

    /// Begins an answer of lines.
    pub fn lines(mut self) -> Lines {
        self.raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        Lines(self.0)
    }
}

/// An answer of lines; it breaks off where it is dropped without [`Lines::end`].
pub struct Lines(UnixStream);

impl Lines {
    pub fn line(&mut self, line: &Value) {
        let line = format!("{line}\n");
        // In two pieces: a line ends where it ends, and not with its chunk.
        let (one, other) = line.split_at(line.len() / 2);
        for piece in [one, other] {
            let _ = write!(self.0, "{:x}\r\n{piece}\r\n", piece.len());
        }
    }

    pub fn end(mut self) {
        let _ = self.0.write_all(b"0\r\n\r\n");
    }
}

/// A running fake.
pub struct Peer {
    pub socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Peer {
    /// Listens in `folder`, and has `handle` answer whatever is asked.
    pub fn start(folder: &Path, handle: impl Fn(&Asked, Answer) + Send + Sync + 'static) -> Self {
        let socket = folder.join("peer.sock");
        let listener = UnixListener::bind(&socket).expect("the folder is writable");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (handle, log) = (Arc::new(handle), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (handle, log) = (handle.clone(), log.clone());
                std::thread::spawn(move || {
                    let Some(asked) = read(&stream) else { return };
                    log.lock().expect("no holder panics").push(asked.clone());
                    handle(&asked, Answer(stream));
                });
            }
        });
        Self { socket, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

fn read(stream: &UnixStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_string);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= header == "transfer-encoding: chunked";
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    while chunked {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut piece = vec![0; size + 2];
        reader.read_exact(&mut piece).ok()?;
        body.extend_from_slice(&piece[..size]);
        chunked = size > 0;
    }
    Some(Asked { method, path, body })
}
