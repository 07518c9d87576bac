//! The zone `rialto.internal`: which names there are, and what they say.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rialto_protocol::model::PortSpec;
use rialto_protocol::view::{Endpoint, Endpoints, View};

use super::reverse;
use crate::handle::Handle;

/// Seconds for which an answer, also a negative one, may be kept.
const TTL: u32 = 1;
/// The most records of one answer: more of them would not fit into 64 KiB.
const RECORDS_MAX: usize = 500;
/// The labels that tell machines, and the tasks behind a service, from apps.
const MACHINE: &str = "machine";
const TASKS: &str = "tasks";

/// What a name in the zone stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Apex,
    /// Above the machines' names.
    Machines,
    Machine(String),
    App(String),
    Service {
        app: String,
        service: String,
    },
    /// `tasks.SERVICE.APP`: those that stand behind it, one by one.
    Tasks {
        app: String,
        service: String,
    },
    /// `_NAME._PROTOCOL.SERVICE.APP`, or of `tasks.SERVICE.APP`: a port by the name that the app file gives it.
    Port {
        app: String,
        service: String,
        port: String,
        protocol: String,
        each: bool,
    },
    /// The name of an address (RFC 1035, 3.5).
    Reverse(IpAddr),
    /// `SLOT.SERVICE.APP`.
    Task {
        app: String,
        service: String,
        slot: String,
    },
    /// No name can stand here.
    Nothing,
}

/// What is known of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such name.
    Nothing,
    /// The name is there, with nothing of its own.
    Empty,
    Address(IpAddr),
    /// Who has an address: a name within the zone.
    Name(String),
    Endpoints(Endpoints),
}

/// Whom the server asks; `None` where the peer is going down.
pub trait Directory: Send + Sync + 'static {
    fn find(&self, place: Place) -> BoxFuture<'_, Option<Found>>;
}

impl Directory for Handle {
    fn find(&self, place: Place) -> BoxFuture<'_, Option<Found>> {
        Box::pin(self.read(move |brain, now| find(brain.view(now), &place)))
    }
}

fn find(view: View<'_>, place: &Place) -> Found {
    let there = |there: bool| if there { Found::Empty } else { Found::Nothing };
    match place {
        Place::Apex | Place::Machines => Found::Empty,
        Place::Nothing => Found::Nothing,
        Place::App(app) => there(view.app(app).is_some()),
        Place::Service { app, service } | Place::Tasks { app, service } => {
            view.endpoints(app, service).map_or(Found::Nothing, Found::Endpoints)
        }
        Place::Port { app, service, port, protocol, .. } => match view.endpoints(app, service) {
            Some(mut all) => {
                all.ports.retain(|spec| spec.name.as_ref() == Some(port) && spec.protocol == *protocol);
                for task in &mut all.tasks {
                    task.ports.retain(|own| own.name.as_ref() == Some(port) && own.protocol == *protocol);
                }
                if all.ports.is_empty() { Found::Nothing } else { Found::Endpoints(all) }
            }
            None => Found::Nothing,
        },
        Place::Reverse(address) => view.whose(*address).map_or(Found::Nothing, Found::Name),
        Place::Task { app, service, slot } => match view.endpoints(app, service) {
            Some(mut all) => {
                all.tasks.retain(|task| task.slot == *slot);
                if all.tasks.is_empty() { Found::Nothing } else { Found::Endpoints(all) }
            }
            None => Found::Nothing,
        },
        Place::Machine(name) => match view.machine_address(name).and_then(|address| address.parse().ok()) {
            Some(address) => Found::Address(address),
            None => Found::Nothing,
        },
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// As it was written: the answer repeats its capitals.
    pub name: Name,
    pub kind: RecordType,
    pub class: DNSClass,
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}

/// The zone as this machine serves it.
pub struct Zone {
    /// `NAME.machine.rialto.internal`.
    server: Name,
}

impl Zone {
    /// A machine whose name is no label serves all the same, as `ns`.
    pub fn new(machine: &str) -> Self {
        Self { server: machine_name(machine).unwrap_or_else(|| child(&["ns"]).unwrap_or_else(apex)) }
    }

    /// The place that a question is about, or why it is not ours to answer.
    pub fn place(&self, question: &Question) -> Result<Place, ResponseCode> {
        let ours = matches!(question.class, DNSClass::IN | DNSClass::ANY);
        if !ours || matches!(question.kind, RecordType::AXFR | RecordType::IXFR) {
            return Err(ResponseCode::Refused);
        }
        place(&question.name).ok_or(ResponseCode::Refused)
    }

    /// The answer; `turn` says with which of several records it begins, so that load is shared.
    pub fn answer(&self, question: &Question, place: &Place, found: Found, turn: usize) -> Answer {
        let asks = |kind| question.kind == kind || question.kind == RecordType::ANY;
        let own = |data| Record::from_rdata(question.name.clone(), TTL, data);
        let mut answer = Answer { code: ResponseCode::NoError, answers: vec![], authority: vec![], additional: vec![] };
        match found {
            Found::Nothing => answer.code = ResponseCode::NXDomain,
            Found::Empty => {}
            Found::Address(address) => answer.answers.extend(records_of(&question.name, [address], asks)),
            Found::Name(name) => {
                if asks(RecordType::PTR)
                    && let Some(name) = child(&name.split('.').collect::<Vec<_>>())
                {
                    answer.answers.push(own(RData::PTR(PTR(name))));
                }
            }
            Found::Endpoints(endpoints) => {
                let is_whole = matches!(place, Place::Service { .. } | Place::Port { each: false, .. });
                let whole = is_whole.then_some(endpoints.address).flatten();
                // What nobody stands behind has no address.
                let whole = whole.filter(|_| !endpoints.tasks.is_empty());
                let mut addresses: Vec<IpAddr> = match whole {
                    Some(address) => vec![address.into()],
                    None => addresses(&endpoints.tasks).into_iter().collect(),
                };
                rotate(&mut addresses, turn);
                // A port has no address: its service has.
                let target = match place {
                    Place::Port { app, service, .. } => child(&[service, app]),
                    _ => {
                        answer.answers.extend(records_of(&question.name, addresses, asks));
                        Some(question.name.clone())
                    }
                };
                if asks(RecordType::SRV) {
                    let (targets, additional) = match whole.zip(target) {
                        Some((address, target)) => whole_targets(&target, address, &endpoints.ports),
                        None => self.targets(&endpoints.tasks, turn),
                    };
                    answer.answers.extend(targets.into_iter().map(own));
                    answer.additional = additional;
                }
            }
        }
        if *place == Place::Apex {
            if asks(RecordType::SOA) {
                answer.answers.push(own(self.soa()));
            }
            if asks(RecordType::NS) {
                answer.answers.push(own(RData::NS(NS(self.server.clone()))));
            }
        }
        if answer.answers.is_empty() {
            // RFC 2308: how long a denial may be kept is said by the zone's own record.
            answer.authority.push(Record::from_rdata(apex(), TTL, self.soa()));
        }
        answer
    }

    /// Each port of each task, and the addresses of what is named: a task's own name, or its machine's.
    fn targets(&self, endpoints: &[Endpoint], turn: usize) -> (Vec<RData>, Vec<Record>) {
        let mut seen = BTreeSet::new();
        let mut targets = Vec::new();
        for endpoint in endpoints {
            let target = if endpoint.own { task_name(&endpoint.task) } else { machine_name(&endpoint.machine) };
            let Some(target) = target else { continue };
            for port in &endpoint.ports {
                let number = if endpoint.own { port.container } else { port.host };
                if number > 0 && seen.insert((target.clone(), number)) {
                    targets.push((SRV::new(0, 1, number, target.clone()), &endpoint.address));
                }
            }
        }
        rotate(&mut targets, turn);
        let mut additional: Vec<Record> = Vec::new();
        let mut named = BTreeSet::new();
        for (target, address) in &targets {
            if let Some(address) = address.parse().ok().filter(|_| named.insert(target.target.clone())) {
                additional.extend(records_of(&target.target, [address], |_| true));
            }
        }
        (targets.into_iter().map(|(target, _)| RData::SRV(target)).collect(), additional)
    }

    fn soa(&self) -> RData {
        let contact = child(&["hostmaster"]).unwrap_or_else(apex);
        // Nobody transfers this zone, so its serial number and the times of a transfer say nothing.
        RData::SOA(SOA::new(self.server.clone(), contact, 1, 3600, 600, 86_400, TTL))
    }
}

/// Whether a name is in the zone. Those of addresses are everybody's.
pub fn is_inside(name: &Name) -> bool {
    place(name).is_some_and(|place| !matches!(place, Place::Reverse(_)))
}

/// `rialto.internal.`
pub fn apex() -> Name {
    Name::from_labels(["rialto", "internal"]).unwrap_or_else(|_| Name::root())
}

fn child(labels: &[&str]) -> Option<Name> {
    Name::from_labels(labels.iter().copied().chain(["rialto", "internal"])).ok()
}

fn machine_name(machine: &str) -> Option<Name> {
    child(&[machine, MACHINE])
}

/// Of `APP.SERVICE.SLOT`.
fn task_name(task: &str) -> Option<Name> {
    let mut labels: Vec<&str> = task.split('.').collect();
    labels.reverse();
    child(&labels)
}

/// A service's ports at its own address.
fn whole_targets(name: &Name, address: Ipv4Addr, ports: &[PortSpec]) -> (Vec<RData>, Vec<Record>) {
    let numbers: BTreeSet<u16> = ports.iter().map(|port| port.container).filter(|number| *number > 0).collect();
    let targets: Vec<RData> =
        numbers.into_iter().map(|number| RData::SRV(SRV::new(0, 1, number, name.clone()))).collect();
    let additional = if targets.is_empty() { vec![] } else { records_of(name, [address.into()], |_| true) };
    (targets, additional)
}

/// `None` where the name is not in the zone.
fn place(name: &Name) -> Option<Place> {
    let text = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase();
    let labels: Vec<String> = name.iter().map(text).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if let Some(address) = reverse::address(&labels) {
        return Some(Place::Reverse(address));
    }
    let inner = labels.strip_suffix(&["rialto", "internal"])?;
    Some(match inner {
        [] => Place::Apex,
        [MACHINE] => Place::Machines,
        [name, MACHINE] => Place::Machine(name.to_string()),
        [_, _, MACHINE] => Place::Nothing,
        [app] => Place::App(app.to_string()),
        [service, app] => Place::Service { app: app.to_string(), service: service.to_string() },
        [port, protocol, rest @ ..] if port.starts_with('_') => {
            let (each, service, app) = match rest {
                [TASKS, service, app] => (true, service, app),
                [service, app] => (false, service, app),
                _ => return Some(Place::Nothing),
            };
            let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                return Some(Place::Nothing);
            };
            let [app, service, port, protocol] = [*app, *service, port, protocol].map(str::to_string);
            Place::Port { app, service, port, protocol, each }
        }
        [TASKS, service, app] => Place::Tasks { app: app.to_string(), service: service.to_string() },
        [slot, service, app] => {
            Place::Task { app: app.to_string(), service: service.to_string(), slot: slot.to_string() }
        }
        _ => Place::Nothing,
    })
}

fn addresses(endpoints: &[Endpoint]) -> BTreeSet<IpAddr> {
    endpoints.iter().filter_map(|endpoint| endpoint.address.parse().ok()).collect()
}

fn records_of(
    name: &Name,
    addresses: impl IntoIterator<Item = IpAddr>,
    asks: impl Fn(RecordType) -> bool,
) -> Vec<Record> {
    let data = |address| match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    let records = addresses.into_iter().map(data).filter(|data| asks(data.record_type()));
    records.map(|data| Record::from_rdata(name.clone(), TTL, data)).collect()
}

fn rotate<T>(list: &mut Vec<T>, turn: usize) {
    if !list.is_empty() {
        let middle = turn % list.len();
        list.rotate_left(middle);
        list.truncate(RECORDS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::model::PortBinding;
    use std::str::FromStr;

    fn endpoint(machine: &str, address: &str, port: u16) -> Endpoint {
        let port = PortBinding { host: port, container: 80, protocol: "tcp".into(), ..Default::default() };
        let task = format!("shop.web.{}", port.host);
        let slot = port.host.to_string();
        Endpoint { task, slot, machine: machine.into(), address: address.into(), own: false, ports: vec![port] }
    }

    fn of(tasks: Vec<Endpoint>) -> Found {
        Found::Endpoints(Endpoints { tasks, ..Endpoints::default() })
    }

    fn ask(name: &str, kind: RecordType) -> Question {
        Question { name: Name::from_str(name).unwrap(), kind, class: DNSClass::IN }
    }

    fn answer(kind: RecordType, found: Found, turn: usize) -> Answer {
        let zone = Zone::new("m1");
        let question = ask("web.shop.rialto.internal.", kind);
        let place = zone.place(&question).unwrap();
        zone.answer(&question, &place, found, turn)
    }

    fn texts(records: &[Record]) -> Vec<String> {
        records.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
    }

    #[test]
    fn names_are_found_in_any_case_and_others_refused() {
        let service = || Ok(Place::Service { app: "shop".into(), service: "web".into() });
        let port = |each| {
            let [app, service, port, protocol] = ["shop", "web", "http", "tcp"].map(str::to_string);
            Ok(Place::Port { app, service, port, protocol, each })
        };
        let cases = [
            ("rialto.internal.", Ok(Place::Apex)),
            ("machine.rialto.internal.", Ok(Place::Machines)),
            ("m1.machine.rialto.internal.", Ok(Place::Machine("m1".into()))),
            ("a.m1.machine.rialto.internal.", Ok(Place::Nothing)),
            ("shop.rialto.internal.", Ok(Place::App("shop".into()))),
            ("web.shop.rialto.internal.", service()),
            ("WEB.Shop.RIALTO.Internal.", service()),
            ("tasks.web.shop.rialto.internal.", Ok(Place::Tasks { app: "shop".into(), service: "web".into() })),
            (
                "2.web.shop.rialto.internal.",
                Ok(Place::Task { app: "shop".into(), service: "web".into(), slot: "2".into() }),
            ),
            ("a.b.c.d.e.rialto.internal.", Ok(Place::Nothing)),
            ("_HTTP._tcp.web.shop.rialto.internal.", port(false)),
            ("_http._tcp.tasks.web.shop.rialto.internal.", port(true)),
            ("_http.tcp.web.shop.rialto.internal.", Ok(Place::Nothing)),
            ("_http._tcp.shop.rialto.internal.", Ok(Place::Nothing)),
            ("9.0.216.10.in-addr.arpa.", Ok(Place::Reverse(Ipv4Addr::new(10, 216, 0, 9).into()))),
            ("0.216.10.in-addr.arpa.", Err(ResponseCode::Refused)),
            ("internal.", Err(ResponseCode::Refused)),
            ("example.com.", Err(ResponseCode::Refused)),
            ("notrialto.internal.", Err(ResponseCode::Refused)),
            (".", Err(ResponseCode::Refused)),
        ];
        for (name, expected) in cases {
            assert_eq!(Zone::new("m1").place(&ask(name, RecordType::A)), expected, "{name}");
        }
        let chaos = Question { class: DNSClass::CH, ..ask("rialto.internal.", RecordType::TXT) };
        assert_eq!(Zone::new("m1").place(&chaos), Err(ResponseCode::Refused));
        assert_eq!(Zone::new("m1").place(&ask("rialto.internal.", RecordType::AXFR)), Err(ResponseCode::Refused));
    }

    #[test]
    fn addresses_are_given_once_each_and_in_turn() {
        let found = || {
            of(vec![
                endpoint("m1", "10.0.0.1", 20000),
                endpoint("m1", "10.0.0.1", 20001),
                endpoint("m2", "10.0.0.2", 20000),
                endpoint("m3", "fd00::3", 20000),
                endpoint("m4", "nonsense", 20000),
            ])
        };
        assert_eq!(texts(&answer(RecordType::A, found(), 0).answers), ["A 10.0.0.1", "A 10.0.0.2"]);
        assert_eq!(texts(&answer(RecordType::A, found(), 1).answers), ["A 10.0.0.2", "A 10.0.0.1"]);
        assert_eq!(texts(&answer(RecordType::AAAA, found(), 0).answers), ["AAAA fd00::3"]);
        assert!(answer(RecordType::A, found(), 0).answers.iter().all(|record| record.ttl <= 1));
        assert_eq!(answer(RecordType::ANY, found(), 0).answers.len(), 3 + 5);
    }

    #[test]
    fn services_name_machines_and_ports() {
        let found = of(vec![endpoint("m1", "10.0.0.1", 20000), endpoint("m2", "10.0.0.2", 20001)]);
        let got = answer(RecordType::SRV, found, 0);
        let expected = ["SRV 0 1 20000 m1.machine.rialto.internal.", "SRV 0 1 20001 m2.machine.rialto.internal."];
        assert_eq!(texts(&got.answers), expected);
        assert_eq!(texts(&got.additional), ["A 10.0.0.1", "A 10.0.0.2"]);
    }

    #[test]
    fn a_service_has_one_address_and_its_tasks_have_their_own() {
        let task = |slot: &str, address: &str| Endpoint {
            task: format!("shop.web.{slot}"),
            slot: slot.into(),
            own: true,
            ..endpoint("m1", address, 20000)
        };
        let port = PortSpec { container: 80, protocol: "tcp".into(), ..PortSpec::default() };
        let found = |tasks| {
            let address = Some(Ipv4Addr::new(10, 216, 0, 9));
            Found::Endpoints(Endpoints { address, ports: vec![port.clone()], tasks })
        };
        let two = || found(vec![task("1", "10.208.4.2"), task("2", "10.208.8.2")]);
        assert_eq!(texts(&answer(RecordType::A, two(), 0).answers), ["A 10.216.0.9"]);
        let srv = answer(RecordType::SRV, two(), 0);
        assert_eq!(texts(&srv.answers), ["SRV 0 1 80 web.shop.rialto.internal."]);
        assert_eq!(texts(&srv.additional), ["A 10.216.0.9"]);
        assert_eq!(answer(RecordType::A, found(vec![]), 0).answers, [], "nobody stands behind it");

        let zone = Zone::new("m1");
        let of_tasks = |kind| {
            let question = ask("tasks.web.shop.rialto.internal.", kind);
            let place = zone.place(&question).unwrap();
            zone.answer(&question, &place, two(), 0)
        };
        assert_eq!(texts(&of_tasks(RecordType::A).answers), ["A 10.208.4.2", "A 10.208.8.2"]);
        let each = ["SRV 0 1 80 1.web.shop.rialto.internal.", "SRV 0 1 80 2.web.shop.rialto.internal."];
        assert_eq!(texts(&of_tasks(RecordType::SRV).answers), each);
    }

    #[test]
    fn no_such_name_and_no_such_record_are_told_apart() {
        let cases = [
            (RecordType::A, Found::Nothing, ResponseCode::NXDomain),
            (RecordType::A, of(vec![]), ResponseCode::NoError),
            (RecordType::A, Found::Empty, ResponseCode::NoError),
            (RecordType::TXT, of(vec![endpoint("m1", "10.0.0.1", 1)]), ResponseCode::NoError),
            (RecordType::AAAA, Found::Address("10.0.0.1".parse().unwrap()), ResponseCode::NoError),
        ];
        for (kind, found, code) in cases {
            let got = answer(kind, found.clone(), 7);
            assert_eq!((got.code, got.answers.len()), (code, 0), "{kind} {found:?}");
            let [soa] = &got.authority[..] else { panic!("one SOA for {kind} {found:?}") };
            let RData::SOA(data) = &soa.data else { panic!("{soa}") };
            assert!(soa.ttl <= 1 && data.minimum <= 1 && soa.name == apex());
        }
    }

    #[test]
    fn a_named_port_is_found_at_its_service_and_an_address_has_a_name() {
        let zone = Zone::new("m1");
        let port = PortSpec { container: 80, protocol: "tcp".into(), name: Some("http".into()), ..PortSpec::default() };
        let address = Some(Ipv4Addr::new(10, 216, 0, 9));
        let found = || {
            Found::Endpoints(Endpoints {
                address,
                ports: vec![port.clone()],
                tasks: vec![Endpoint { own: true, task: "shop.web.1".into(), ..endpoint("m1", "10.208.4.2", 1) }],
            })
        };
        let answer = |name: &str, kind, found| {
            let question = ask(name, kind);
            let place = zone.place(&question).unwrap();
            zone.answer(&question, &place, found, 0)
        };
        let whole = answer("_http._tcp.web.shop.rialto.internal.", RecordType::SRV, found());
        assert_eq!(texts(&whole.answers), ["SRV 0 1 80 web.shop.rialto.internal."]);
        assert_eq!(texts(&whole.additional), ["A 10.216.0.9"]);
        let each = answer("_http._tcp.tasks.web.shop.rialto.internal.", RecordType::SRV, found());
        assert_eq!(texts(&each.answers), ["SRV 0 1 80 1.web.shop.rialto.internal."]);
        assert_eq!(answer("_http._tcp.web.shop.rialto.internal.", RecordType::A, found()).answers, []);
        let name = answer("9.0.216.10.in-addr.arpa.", RecordType::PTR, Found::Name("web.shop".into()));
        assert_eq!(texts(&name.answers), ["PTR web.shop.rialto.internal."]);
        assert_eq!(name.answers[0].name.to_string(), "9.0.216.10.in-addr.arpa.");
    }

    #[test]
    fn the_apex_has_its_own_records() {
        let zone = Zone::new("m1");
        for (kind, count) in [(RecordType::SOA, 1), (RecordType::NS, 1), (RecordType::ANY, 2), (RecordType::A, 0)] {
            let got = zone.answer(&ask("rialto.internal.", kind), &Place::Apex, Found::Empty, 0);
            assert_eq!(got.answers.len(), count, "{kind}");
        }
    }
}
