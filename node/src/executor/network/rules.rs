//! Who may speak to whom, and where a virtual address or a published port leads to: what a peer believes, written as
//! rules of the kernel.
//!
//! Everything goes through the machine, so everything passes here: a packet to a service's address is sent to one of
//! its tasks at random, on the machine that it starts from; whether a task may be spoken to is judged where the task is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use rialto_protocol::model::{Range, Subnet};
use rialto_protocol::network::{AppNet, MachineNet};

use super::ruleset::Ruleset;

/// Marks connections that came by a published port: whoever reaches the machine may use it.
const BY_PORT: &str = "0x52000000";

/// What the rules are made of.
pub struct Wanted<'a> {
    pub range: Range,
    pub subnet: Subnet,
    pub machines: &'a [MachineNet],
    pub apps: &'a BTreeMap<String, AppNet>,
    /// Ports of this machine that are its peer's to give away: number and protocol.
    pub held: &'a BTreeSet<(u16, String)>,
    /// Addresses of this machine itself.
    pub own: &'a [IpAddr],
}

/// Ports of this machine at which something is to be reached, and the tasks behind each.
pub type Doors = BTreeMap<(u16, String), Vec<(Ipv4Addr, u16)>>;

/// The ports that are published here: everywhere, or lent to a task of this machine. Of two that want one the first
/// app by name has it; the second was refused where it was known of the first.
pub fn doors(apps: &BTreeMap<String, AppNet>) -> Doors {
    let mut doors = Doors::new();
    for service in apps.values().flat_map(|app| &app.services) {
        for (port, protocol, own) in &service.ingress {
            let tasks = service.tasks.iter().map(|task| (*task, *own)).collect();
            doors.entry((*port, protocol.clone())).or_insert(tasks);
        }
    }
    for task in apps.values().flat_map(|app| &app.here) {
        for port in &task.lent {
            doors.entry((port.host, port.protocol.clone())).or_insert_with(|| vec![(task.address, port.container)]);
        }
    }
    doors
}

/// The table before anything is in it, in place of whatever was there.
pub fn table(name: &str, bridge: &str, range: Range, subnet: Subnet) -> String {
    let slash = |(base, prefix): (Ipv4Addr, u8)| format!("{base}/{prefix}");
    let (tasks, services) = (slash(range.tasks()), slash(range.services()));
    format!(
        r#"table ip {name}
delete table ip {name}
table ip {name} {{
  map services {{ type ipv4_addr : verdict; }}
  map doors {{ type inet_proto . inet_service : verdict; }}
  map guarded {{ type ipv4_addr : verdict; }}
  set machines {{ type ipv4_addr; }}
  set itself {{ type ipv4_addr . ipv4_addr; }}

  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    ip daddr {services} ip daddr vmap @services
    fib daddr type local meta l4proto . th dport vmap @doors
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr {services} ip daddr vmap @services
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @doors
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr . ip daddr @itself masquerade
    ct mark and {BY_PORT} == {BY_PORT} ip daddr {tasks} oifname != "{bridge}" masquerade
    ip saddr {subnet} ip daddr != {range} oifname != "{bridge}" masquerade
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    ip daddr {services} jump nobody
    oifname "{bridge}" goto inward
    iifname "{bridge}" ip saddr != {subnet} drop
  }}
  chain own {{
    type filter hook output priority 0; policy accept;
    ip daddr {services} jump nobody
  }}
  chain nobody {{
    meta l4proto tcp reject with tcp reset
    reject with icmp type host-unreachable
  }}
  chain inward {{
    ct state established,related accept
    iifname "{bridge}" ip saddr != {subnet} drop
    ct mark and {BY_PORT} == {BY_PORT} accept
    ip saddr @machines accept
    ip saddr {range} ip daddr vmap @guarded
    drop
  }}
}}
"#
    )
}

/// What is in the table.
pub fn rules(wanted: &Wanted<'_>) -> Ruleset {
    let mut rules = Ruleset::default();
    services(wanted, &mut rules);
    published(wanted, &mut rules);
    guards(wanted, &mut rules);
    let others = wanted.machines.iter().flat_map(|machine| {
        let said = machine.addresses.iter().filter_map(|address| ip_of(address));
        let in_range = [machine.subnet.base(), machine.subnet.gateway()];
        said.filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }).chain(in_range)
    });
    let own = wanted.own.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
    let own = own.chain([wanted.subnet.base(), wanted.subnet.gateway()]);
    let machines = others.chain(own).filter(|ip| !ip.is_loopback()).map(|ip| ip.to_string()).collect();
    rules.sets.insert("machines".into(), ("ipv4_addr", machines));
    let here = wanted.apps.values().flat_map(|app| &app.here);
    let itself = here.map(|task| format!("{} . {}", task.address, task.address)).collect();
    rules.sets.insert("itself".into(), ("ipv4_addr . ipv4_addr", itself));
    rules
}

/// The address in `IP:PORT`.
pub fn ip_of(address: &str) -> Option<IpAddr> {
    address.parse::<std::net::SocketAddr>().ok().map(|address| address.ip())
}

/// Of two services with one address the first by name has it.
fn services(wanted: &Wanted<'_>, rules: &mut Ruleset) {
    let mut map = BTreeMap::new();
    for service in wanted.apps.values().flat_map(|app| &app.services) {
        let Some(address) = service.address.filter(|address| wanted.range.is_service(*address)) else { continue };
        if service.tasks.is_empty() || map.contains_key(&address.to_string()) {
            continue;
        }
        let chain = format!("service_{:08x}", address.to_bits());
        let tasks: Vec<String> = service.tasks.iter().map(Ipv4Addr::to_string).collect();
        rules.chains.insert(chain.clone(), vec![to_one_of(&tasks)]);
        map.insert(address.to_string(), format!("goto {chain}"));
    }
    rules.maps.insert("services", map);
}

fn published(wanted: &Wanted<'_>, rules: &mut Ruleset) {
    let mut map = BTreeMap::new();
    for ((port, protocol), tasks) in doors(wanted.apps) {
        // A port that something else on this machine listens at stays with that.
        if tasks.is_empty() || !wanted.held.contains(&(port, protocol.clone())) {
            continue;
        }
        let chain = format!("door_{protocol}_{port}");
        let tasks: Vec<String> = tasks.iter().map(|(task, own)| format!("{task} . {own}")).collect();
        let mark = format!("ct mark set ct mark or {BY_PORT}");
        rules.chains.insert(chain.clone(), vec![mark, format!("meta l4proto {protocol} {}", to_one_of(&tasks))]);
        map.insert(format!("{protocol} . {port}"), format!("goto {chain}"));
    }
    rules.maps.insert("doors", map);
}

/// The rule that sends a new connection to one of these, `ADDRESS` or `ADDRESS . PORT`, each as likely as the other.
fn to_one_of(tasks: &[String]) -> String {
    let with_port = if tasks.iter().any(|task| task.contains(" . ")) { "ip addr . port " } else { "" };
    match tasks {
        [one] => format!("dnat to {}", one.replace(" . ", ":")),
        all => {
            let numbered: Vec<String> = all.iter().enumerate().map(|(n, task)| format!("{n} : {task}")).collect();
            let count = all.len();
            format!("dnat {with_port}to numgen random mod {count} map {{ {} }}", numbered.join(", "))
        }
    }
}

/// For each task of this machine, who may speak to it: those with whom it shares a network.
fn guards(wanted: &Wanted<'_>, rules: &mut Ruleset) {
    let mut map = BTreeMap::new();
    let mut members: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (network, addresses) in wanted.apps.values().flat_map(|app| &app.members) {
        members.entry(network).or_default().extend(addresses.iter().map(Ipv4Addr::to_string));
    }
    for task in wanted.apps.values().flat_map(|app| &app.here) {
        let chain = format!("guard_{}", digest(&task.networks.join("\n")));
        let mut allow = Vec::new();
        for network in &task.networks {
            let set = format!("network_{}", digest(network));
            allow.push(format!("ip saddr @{set} accept"));
            let addresses = members.get(network.as_str()).cloned().unwrap_or_default();
            rules.sets.entry(set).or_insert(("ipv4_addr", addresses));
        }
        allow.push("drop".into());
        rules.chains.insert(chain.clone(), allow);
        map.insert(task.address.to_string(), format!("goto {chain}"));
    }
    rules.maps.insert("guarded", map);
}

/// A short name for a long one.
fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..12].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::ids::{ClaimId, PeerId};
    use rialto_protocol::model::PortBinding;
    use rialto_protocol::network::{ServiceNet, TaskNet};

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn app(name: &str, tasks: &[&str], here: &[&str]) -> AppNet {
        let tasks: Vec<Ipv4Addr> = tasks.iter().map(|task| ip(task)).collect();
        let networks = vec![format!("app {name}")];
        let port = PortBinding { host: 20_000, container: 80, protocol: "tcp".into(), ..Default::default() };
        AppNet {
            services: vec![ServiceNet {
                name: "web".into(),
                address: Some(ip("10.216.0.9")),
                tasks: tasks.clone(),
                ingress: vec![(8080, "tcp".into(), 80)],
            }],
            members: BTreeMap::from([(networks[0].clone(), tasks.into_iter().collect())]),
            here: here
                .iter()
                .map(|task| TaskNet {
                    claim: ClaimId([1; 16]),
                    address: ip(task),
                    networks: networks.clone(),
                    lent: vec![port.clone()],
                })
                .collect(),
        }
    }

    fn rules_of(apps: &BTreeMap<String, AppNet>, held: &[u16]) -> Ruleset {
        let range = Range::DEFAULT;
        let other = MachineNet {
            peer: PeerId([2; 32]),
            name: "m2".into(),
            subnet: range.subnet(2),
            addresses: vec!["192.0.2.2:7400".into()],
        };
        let held = held.iter().map(|port| (*port, "tcp".to_string())).collect();
        let machines = [other];
        rules(&Wanted { range, subnet: range.subnet(1), machines: &machines, apps, held: &held, own: &[] })
    }

    #[test]
    fn a_service_is_all_of_its_tasks_and_a_task_is_guarded_where_it_is() {
        let apps = BTreeMap::from([("shop".to_string(), app("shop", &["10.208.4.2", "10.208.8.2"], &["10.208.4.2"]))]);
        let rules = rules_of(&apps, &[8080, 20_000]);
        assert_eq!(
            rules.chains["service_0ad80009"],
            ["dnat to numgen random mod 2 map { 0 : 10.208.4.2, 1 : 10.208.8.2 }"]
        );
        let door = "meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.208.4.2 . 80, 1 : 10.208.8.2 . 80 }";
        assert_eq!(rules.chains["door_tcp_8080"][1], door);
        assert_eq!(rules.chains["door_tcp_20000"][1], "meta l4proto tcp dnat to 10.208.4.2:80");
        assert_eq!(rules.maps["services"]["10.216.0.9"], "goto service_0ad80009");
        let guard = rules.maps["guarded"]["10.208.4.2"].strip_prefix("goto ").unwrap();
        let [allow, drop] = &rules.chains[guard][..] else { panic!("{rules:?}") };
        let set = allow.strip_prefix("ip saddr @").and_then(|rest| rest.strip_suffix(" accept")).unwrap();
        assert_eq!((rules.sets[set].1.len(), drop.as_str()), (2, "drop"));
        assert_eq!(rules.maps["guarded"].len(), 1);
        assert!(rules.sets["machines"].1.contains("192.0.2.2"));
    }

    #[test]
    fn what_is_taken_or_has_nobody_behind_it_leads_nowhere() {
        let apps = BTreeMap::from([
            ("a".to_string(), app("a", &["10.208.4.2"], &[])),
            ("b".to_string(), app("b", &["10.208.4.3"], &[])),
            ("c".to_string(), AppNet::default()),
        ]);
        let rules = rules_of(&apps, &[]);
        assert_eq!(rules.maps["doors"].len(), 0, "nothing holds the port for us");
        assert_eq!(rules.chains["service_0ad80009"], ["dnat to 10.208.4.2"], "the first has it");
        let none = BTreeMap::from([("a".to_string(), app("a", &[], &[]))]);
        assert!(rules_of(&none, &[8080]).maps.values().all(BTreeMap::is_empty));
    }
}
