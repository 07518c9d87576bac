//! `rialto port`: where the ports of tasks are reached.

use rialto_client::Client;
use rialto_protocol::api::{ErrorCode, TaskRow};
use serde::Serialize;

use crate::args::Port;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// One port of one task.
#[derive(Debug, Serialize)]
struct Row {
    task: String,
    container: u16,
    protocol: String,
    /// The machine's; `*`: every machine's.
    address: String,
    host: u16,
}

pub async fn port(client: &Client, out: Output, port: Port) -> Result<(), Failure> {
    let mut parts = port.name.splitn(3, '.');
    let (app, service, slot) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let tasks = client.tasks(Some(app), service, false).await?.data.tasks;
    let wanted = |row: &&TaskRow| row.state == "running" && slot.is_none_or(|slot| row.slot == slot);
    let live: Vec<&TaskRow> = tasks.iter().filter(wanted).collect();
    if live.is_empty() {
        // That an app has no ports is no answer where there is no such app.
        if let Err(error) = client.app(app).await
            && error.code() == Some(ErrorCode::NotFound)
        {
            return Err(error.into());
        }
        return Err(Failure::new(Exit::NotFound, format!("nothing of {} runs", port.name)));
    }
    let machines = client.machines().await?.data.machines;
    let address = |task: &TaskRow| {
        let machine = machines.iter().find(|machine| Some(&machine.name) == task.machine.as_ref());
        machine.and_then(|machine| host_of(machine.address.as_deref()?)).unwrap_or_default()
    };
    let rows: Vec<Row> = live.iter().flat_map(|row| rows(row, &address(row))).filter(|row| takes(&port, row)).collect();
    if rows.is_empty() {
        let named = port.port.as_ref().map(|port| format!(" {}/{}", port.number, port.protocol));
        let what = format!("no port{}", named.unwrap_or_default());
        return Err(Failure::new(Exit::NotFound, format!("{} has {what}", port.name)));
    }
    let one = live.len() == 1;
    out.data(&rows, || rows.iter().map(|row| line(row, one)).collect())
}

fn takes(port: &Port, row: &Row) -> bool {
    port.port.as_ref().is_none_or(|port| row.container == port.number && row.protocol == port.protocol)
}

/// The host of `HOST:PORT`; of an IPv6 address without its brackets.
fn host_of(address: &str) -> Option<String> {
    let (host, _) = address.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_string())
}

fn rows(row: &TaskRow, address: &str) -> Vec<Row> {
    let of = |port: &rialto_protocol::api::PortRow| Row {
        task: row.task.clone(),
        container: if port.container == 0 { port.host } else { port.container },
        protocol: port.protocol.clone(),
        address: if port.ingress { "*".to_string() } else { address.to_string() },
        host: port.host,
    };
    row.ports.iter().map(of).collect()
}

fn line(row: &Row, one: bool) -> String {
    let host = if row.address.contains(':') { format!("[{}]", row.address) } else { row.address.clone() };
    let task = if one { String::new() } else { format!("{} ", row.task) };
    format!("{task}{}/{} -> {host}:{}\n", row.container, row.protocol, row.host)
}
