//! The plainest HTTP there is: one request, one answer, end of connection.

use std::io::{self, Read, Write};

/// No answer of interest is longer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: String,
}

/// `GET path`. HTTP/1.0, so that the body comes as it is.
pub(crate) fn get(mut stream: impl Read + Write, host: &str, path: &str) -> io::Result<Answer> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, body: body.to_owned() })
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {answer}")))
}
