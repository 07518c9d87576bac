//! What single settings can say, and how it is read.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use rialto_protocol::model::Range;
use serde::{Deserialize, Deserializer};

use crate::executor::userns::Remap;

/// What runs tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    Container,
    Null,
}

/// A place to listen at, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub Option<SocketAddr>);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let hint = if text.contains("://") { "; a URL is for the client `rialto`" } else { "" };
        let wrong = |_| format!("{text:?} is neither IP:PORT nor `none`{hint}");
        text.parse().map(|address| Self(Some(address))).map_err(wrong)
    }
}

/// A range of addresses for tasks and services, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRange(pub Option<Range>);

impl FromStr for TaskRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse().map(|range| Self(Some(range)))
    }
}

/// Which users of the machine those of tasks are, or `none`: the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsernsRemap(pub Option<Remap>);

impl FromStr for UsernsRemap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse().map(|remap| Self(Some(remap)))
    }
}

/// An address for others, with the port of `listen` where it names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertise {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = text.parse::<SocketAddr>().map(|a| Self { ip: a.ip(), port: Some(a.port()) });
        match whole.or_else(|_| text.parse::<IpAddr>().map(|ip| Self { ip, port: None })) {
            Ok(address) if address.ip.is_unspecified() => Err(format!("{text:?} is no address that others can reach")),
            Ok(address) => Ok(address),
            Err(_) => Err(format!("{text:?} is neither IP nor IP:PORT")),
        }
    }
}

/// Cores, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(pub u64);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cores = text.parse::<f64>().ok().filter(|cores| (0.001..=1e6).contains(cores));
        let cores = cores.ok_or_else(|| format!("{text:?} is no number of cores, such as 4 or 1.5"))?;
        Ok(Self((cores * 1000.0).round() as u64))
    }
}

/// A time in ms; `None`: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold(pub Option<u64>);

impl FromStr for Hold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let wrong = || format!("{text:?} is no time: write 500ms, 60s, 5m, 1h or `forever`");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit_ms).map(|ms| Self(Some(ms))).ok_or_else(wrong)
    }
}

macro_rules! read_as_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
read_as_text!(Address, Advertise, Hold, TaskRange, UsernsRemap);

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of cores, such as 4 or 1.5")]
        enum Written {
            Whole(i64),
            Part(f64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Whole(cores) => cores.to_string(),
            Written::Part(cores) => cores.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}
