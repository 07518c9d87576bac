//! `ports:`, in Compose's short form (`8080:80/udp`) and long form (`target`, `published`, …).

use std::collections::BTreeMap;

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::{Entry, Node, Value};
use super::{PORTS_MAX, support};
use crate::model::PortSpec;
use crate::model::app::is_dns_label;

/// Reads the ports of a service.
pub fn read(reader: &mut Reader, node: Node, path: &str) -> Vec<PortSpec> {
    let items = match node.value {
        Value::List(items) => items,
        Value::Null => Vec::new(),
        other => {
            reader.wrong(node.place, path, format!("a list of ports is expected here, not {}", other.kind()));
            return Vec::new();
        }
    };
    if items.len() > PORTS_MAX {
        reader.wrong(node.place, path, format!("a service has at most {PORTS_MAX} ports"));
        return Vec::new();
    }
    let mut ports: Vec<PortSpec> = Vec::new();
    for item in items {
        let place = item.place;
        let read = match item.value {
            Value::Map(_) => long(reader, item, path),
            _ => reader.value(&item, path, port),
        };
        let Some(port) = read else { continue };
        let clash = ports.iter().find_map(|other| clash(other, &port));
        match clash {
            Some(clash) => reader.wrong(place, path, clash),
            None => ports.push(port),
        }
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
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = self::protocol(protocol)?;
    let (host, container) = match numbers.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, numbers),
    };
    if host.is_some_and(|host| host.contains(':') || host.contains('.')) {
        return Err(format!("'{}': a port is published on every address; leave the address out", shown(text)));
    }
    let container = number(container)?;
    let host = host.map(number).transpose()?;
    Ok(PortSpec { container, host, protocol, name: None })
}

fn protocol(text: &str) -> Result<String, String> {
    match text {
        "tcp" | "udp" => Ok(text.to_string()),
        other => Err(format!("'{}' is no protocol; write tcp or udp", shown(other))),
    }
}

fn number(text: &str) -> Result<u16, String> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if let Some((from, to)) = text.split_once('-')
        && digits(from)
        && digits(to)
    {
        return Err(format!("'{}': a range of ports is not read yet; write one entry for each", shown(text)));
    }
    match text.parse::<u16>() {
        Ok(number @ 1..) if digits(text) => Ok(number),
        _ => Err(format!("'{}' is no port; write a number from 1 to 65535, or HOST:CONTAINER", shown(text))),
    }
}

fn long(reader: &mut Reader, node: Node, path: &str) -> Option<PortSpec> {
    let place = node.place;
    let level = reader.level(node, path, &support::PORT)?;
    if !level.contains_key("target") {
        reader.wrong(place, path, "the port has no target");
    }
    Some(PortSpec {
        container: part(reader, &level, path, "target", number)?,
        host: part(reader, &level, path, "published", number),
        protocol: part(reader, &level, path, "protocol", protocol).unwrap_or_else(|| "tcp".into()),
        name: part(reader, &level, path, "name", name),
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

/// A name becomes part of a SRV record's: at most 15 characters (RFC 6335).
fn name(text: &str) -> Result<String, String> {
    if is_dns_label(text) && text.len() <= 15 {
        return Ok(text.to_string());
    }
    Err(format!("'{}' cannot be a port's name: 1 to 15 lower-case letters, digits and hyphens", shown(text)))
}
