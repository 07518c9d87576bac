//! Whether a running task is fit to be asked.

use serde::{Deserialize, Serialize};

/// What its health check says of a running task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It has no check: to run is all that is asked of it.
    #[default]
    None,
    /// No check has succeeded yet, and it may still take its time.
    Starting,
    Healthy,
    /// As many checks in a row have failed as its service allows.
    Unhealthy,
}

impl Health {
    /// Whether names and addresses may lead to it without doubt.
    pub fn serves(self) -> bool {
        matches!(self, Health::None | Health::Healthy)
    }

    /// The word that people read; none where there is no check.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Health::None => None,
            Health::Starting => Some("starting"),
            Health::Healthy => Some("healthy"),
            Health::Unhealthy => Some("unhealthy"),
        }
    }
}

/// How a task is looked after. What is `None` is as the image says, and else as Compose has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<HealthTest>,
    /// Between the end of one check and the next; 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// A check that takes longer has failed; 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// So many failures in a row, and the task is unhealthy; 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// After the start failures do not count for so long, until a check has succeeded; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
    /// Between checks during that time; 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval_ms: Option<u64>,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// Nothing, though the image may say how.
    Nothing,
    /// A program in the container ends with 0.
    Command(Vec<String>),
    /// A line for the container's `/bin/sh` ends with 0.
    Shell(String),
    /// `GET` of this path at this port of the task is answered by a status from 200 to 399.
    Http { port: u16, path: String },
    /// This port of the task takes a connection.
    Tcp { port: u16 },
}

impl HealthCheck {
    /// A time between checks, or of one, may not be longer: a day, ms.
    const TIME_MS_MAX: u64 = 86_400_000;
    /// More retries than this are a mistake.
    const RETRIES_MAX: u32 = 1_000;

    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let times = [self.interval_ms, self.timeout_ms, self.start_period_ms, self.start_interval_ms];
        if times.into_iter().flatten().any(|ms| ms > Self::TIME_MS_MAX) {
            return Some("a time of a health check is longer than a day".into());
        }
        if self.retries.is_some_and(|retries| retries == 0 || retries > Self::RETRIES_MAX) {
            return Some(format!("retries are 1 to {}", Self::RETRIES_MAX));
        }
        match &self.test {
            Some(HealthTest::Command(words)) if words.first().is_none_or(String::is_empty) => {
                Some("a health check's command has no program".into())
            }
            Some(HealthTest::Command(words)) if words.iter().any(|word| word.contains('\0')) => {
                Some("a word of a command cannot hold a NUL".into())
            }
            Some(HealthTest::Shell(line)) if line.contains('\0') => Some("a command cannot hold a NUL".into()),
            Some(HealthTest::Http { port: 0, .. } | HealthTest::Tcp { port: 0 }) => Some("0 is no port".into()),
            Some(HealthTest::Http { path, .. })
                if !path.starts_with('/') || path.contains(|c: char| c.is_control() || c == ' ') =>
            {
                Some("a health check's path begins with '/' and has no spaces".into())
            }
            _ => None,
        }
    }

    /// Reads `http://:PORT/PATH` or `tcp://:PORT`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is expected.
    pub fn address(text: &str) -> Result<HealthTest, String> {
        let wrong = || format!("'{text}' is no address to check: write http://:8080/healthz or tcp://:5432");
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        if let Some(port_text) = text.strip_prefix("tcp://:") {
            return Ok(HealthTest::Tcp { port: port(port_text)? });
        }
        let rest = text.strip_prefix("http://:").ok_or_else(wrong)?;
        let split = rest.find('/').unwrap_or(rest.len());
        let path = if split == rest.len() { "/" } else { &rest[split..] };
        Ok(HealthTest::Http { port: port(&rest[..split])?, path: path.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_port_of_the_task() {
        let http = |port, path: &str| Ok(HealthTest::Http { port, path: path.into() });
        assert_eq!(HealthCheck::address("http://:80"), http(80, "/"));
        assert_eq!(HealthCheck::address("http://:8080/a?b=c"), http(8080, "/a?b=c"));
        assert_eq!(HealthCheck::address("tcp://:5432"), Ok(HealthTest::Tcp { port: 5432 }));
        for wrong in ["", "http://", "http://host/", "tcp://:0", "tcp://:70000", "udp://:1", "http://:x/"] {
            assert!(HealthCheck::address(wrong).is_err(), "{wrong}");
        }
    }
}
