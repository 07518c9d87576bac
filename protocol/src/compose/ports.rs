//! `ports:`, in Compose's short form (`8080:80/udp`) and long form (`target`, `published`, …).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::{Entry, Node, Value};
use super::{PORTS_MAX, keys};
use crate::model::app::is_dns_label;
use crate::model::{PortMode, PortSpec};

/// Reads the ports of a service.
pub fn read(reader: &mut Reader, node: Node, path: &str) -> Vec<PortSpec> {
    let place = node.place;
    let items = reader.items(node, path, PORTS_MAX);
    let mut ports: Vec<PortSpec> = Vec::new();
    for item in items {
        let at = item.place;
        let read = match item.value {
            Value::Map(_) => long(reader, item, path).into_iter().collect(),
            _ => reader.value(&item, path, short).unwrap_or_default(),
        };
        for port in read {
            match ports.iter().find_map(|other| clash(other, &port)) {
                Some(clash) => reader.wrong(at, path, clash),
                None => ports.push(port),
            }
        }
    }
    if ports.len() > PORTS_MAX {
        reader.wrong(place, path, format!("a service has at most {PORTS_MAX} ports"));
    }
    ports
}

fn clash(one: &PortSpec, other: &PortSpec) -> Option<String> {
    if one.name.is_some() && one.name == other.name {
        return Some(format!("two ports are named {}", one.name.as_deref().unwrap_or_default()));
    }
    if one.protocol != other.protocol {
        return None;
    }
    match (one.host, other.host) {
        (Some(a), Some(b)) if a == b => Some(format!("host port {a} is here twice")),
        _ if one.container == other.container && one.host == other.host => {
            Some(format!("port {} is here twice", one.container))
        }
        _ => None,
    }
}

/// A port in the short form: `80`, `8080:80`, with `/tcp` or `/udp` behind.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn port(text: &str) -> Result<PortSpec, String> {
    match <[PortSpec; 1]>::try_from(short(text)?) {
        Ok([port]) => Ok(port),
        Err(_) => Err(format!("'{}' is a range of ports; write one for each", shown(text))),
    }
}

/// Every port that the short form names: `8000-8010:80-90` are eleven.
fn short(text: &str) -> Result<Vec<PortSpec>, String> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = self::protocol(protocol)?;
    let (host, container) = match numbers.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, numbers),
    };
    let host = host.map(|host| host.strip_prefix("0.0.0.0:").unwrap_or(host));
    if host.is_some_and(|host| host.contains(':') || host.contains('.')) {
        return Err(format!("'{}': a port is published on every address; leave the address out", shown(text)));
    }
    let containers = range(container)?;
    let hosts = host.map(range).transpose()?;
    if hosts.as_ref().is_some_and(|hosts| hosts.len() != containers.len()) {
        return Err(format!("'{}': both ranges have to be of one length", shown(text)));
    }
    let of = |(at, container): (usize, u16)| {
        let host = hosts.as_ref().map(|hosts| hosts.start() + at as u16);
        PortSpec { container, host, protocol: protocol.clone(), ..PortSpec::default() }
    };
    Ok(containers.enumerate().map(of).collect())
}

fn protocol(text: &str) -> Result<String, String> {
    match text {
        "tcp" | "udp" => Ok(text.to_string()),
        other => Err(format!("'{}' is no protocol; write tcp or udp", shown(other))),
    }
}

fn number(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(number @ 1..) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(format!("'{}' is no port; write a number from 1 to 65535, or HOST:CONTAINER", shown(text))),
    }
}

/// `80`, or `8000-8010`; the protocol behind it is read by others.
pub fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let numbers = text.split_once('/').map_or(text, |(numbers, _)| numbers);
    let Some((from, to)) = numbers.split_once('-') else {
        let number = number(numbers)?;
        return Ok(number..=number);
    };
    match (number(from), number(to)) {
        (Ok(from), Ok(to)) if from <= to && usize::from(to - from) < PORTS_MAX => Ok(from..=to),
        (Ok(from), Ok(to)) if from <= to => Err(format!("'{}': a service has at most {PORTS_MAX} ports", shown(text))),
        _ => Err(format!("'{}' is no range of ports like 8000-8010", shown(text))),
    }
}

fn long(reader: &mut Reader, node: Node, path: &str) -> Option<PortSpec> {
    let place = node.place;
    let level = reader.level(node, path, &keys::PORT)?;
    if !level.contains_key("target") {
        reader.wrong(place, path, "the port has no target");
    }
    Some(PortSpec {
        container: part(reader, &level, path, "target", number)?,
        host: part(reader, &level, path, "published", number),
        protocol: part(reader, &level, path, "protocol", protocol).unwrap_or_else(|| "tcp".into()),
        name: part(reader, &level, path, "name", name),
        mode: part(reader, &level, path, "mode", mode).unwrap_or_default(),
    })
}

/// One part of the long form; `None` where it is absent, or wrong and noted.
fn part<T>(
    reader: &mut Reader,
    level: &BTreeMap<&'static str, Entry>,
    path: &str,
    key: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    reader.value(&level.get(key)?.value, &join(path, key), read)
}

fn mode(text: &str) -> Result<PortMode, String> {
    match text {
        "ingress" => Ok(PortMode::Ingress),
        "host" => Ok(PortMode::Host),
        other => {
            Err(format!("'{}' is neither ingress (on every machine) nor host (only where a task runs)", shown(other)))
        }
    }
}

/// A name becomes part of a SRV record's: at most 15 characters (RFC 6335).
fn name(text: &str) -> Result<String, String> {
    if is_dns_label(text) && text.len() <= 15 {
        return Ok(text.to_string());
    }
    Err(format!("'{}' cannot be a port's name: 1 to 15 lower-case letters, digits and hyphens", shown(text)))
}
