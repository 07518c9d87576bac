//! The DNS server as a resolver meets it: by `dig` where it is installed, and by raw messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use rialto_node::dns::{Directory, Dns, Found, Place, probe};
use rialto_protocol::model::PortBinding;
use rialto_protocol::view::{Endpoint, Endpoints};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

/// An app `shop` with services `web` (3 tasks on two machines), `big` (200 machines) and `idle` (none).
struct Town;

impl Directory for Town {
    fn find(&self, place: Place) -> BoxFuture<'_, Option<Found>> {
        let endpoint = |machine: String, address: String, host: u16| {
            let ports = vec![PortBinding { host, container: 80, protocol: "tcp".into(), ..Default::default() }];
            Endpoint { task: "shop.web.1".into(), slot: "1".into(), machine, address, own: false, ports }
        };
        let of = |tasks| Found::Endpoints(Endpoints { tasks, ..Endpoints::default() });
        let found = match &place {
            Place::Apex | Place::Machines => Found::Empty,
            Place::App(app) if app == "shop" => Found::Empty,
            Place::Machine(name) if name == "m1" => Found::Address([127, 0, 0, 1].into()),
            Place::Service { app, service } | Place::Tasks { app, service } if app == "shop" => {
                match service.as_str() {
                    "web" => of(vec![
                        endpoint("m1".into(), "10.0.0.1".into(), 20000),
                        endpoint("m1".into(), "10.0.0.1".into(), 20001),
                        endpoint("m2".into(), "10.0.0.2".into(), 20000),
                    ]),
                    "big" => {
                        let many = |n: u8| endpoint(format!("m{n}"), format!("10.0.0.{n}"), 20000);
                        of((1..=200).map(many).collect())
                    }
                    "idle" => of(Vec::new()),
                    _ => Found::Nothing,
                }
            }
            _ => Found::Nothing,
        };
        Box::pin(async { Some(found) })
    }
}

struct Served {
    address: SocketAddr,
    closing: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn serve() -> Served {
    let dns = Dns::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, closing) = (dns.address(), CancellationToken::new());
    let task = tokio::spawn(dns.serve(Arc::new(Town), "m1".into(), closing.clone()));
    Served { address, closing, task }
}

impl Served {
    async fn udp(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(bytes, self.address).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut buffer)).await.ok()?.ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        Message::from_vec(&self.udp(&question.to_vec().unwrap()).await.expect("an answer")).unwrap()
    }
}

#[tokio::test]
async fn each_question_has_its_answer() {
    let dns = serve().await;
    let cases = [
        ("web.shop.rialto.internal.", RecordType::A, ResponseCode::NoError, 2),
        ("tasks.web.shop.rialto.internal.", RecordType::A, ResponseCode::NoError, 2),
        ("WEB.shop.RIALTO.internal.", RecordType::A, ResponseCode::NoError, 2),
        ("web.shop.rialto.internal.", RecordType::AAAA, ResponseCode::NoError, 0),
        ("web.shop.rialto.internal.", RecordType::SRV, ResponseCode::NoError, 3),
        ("web.shop.rialto.internal.", RecordType::ANY, ResponseCode::NoError, 5),
        ("web.shop.rialto.internal.", RecordType::MX, ResponseCode::NoError, 0),
        ("idle.shop.rialto.internal.", RecordType::A, ResponseCode::NoError, 0),
        ("shop.rialto.internal.", RecordType::A, ResponseCode::NoError, 0),
        ("none.shop.rialto.internal.", RecordType::A, ResponseCode::NXDomain, 0),
        ("web.none.rialto.internal.", RecordType::A, ResponseCode::NXDomain, 0),
        ("m1.machine.rialto.internal.", RecordType::A, ResponseCode::NoError, 1),
        ("m9.machine.rialto.internal.", RecordType::A, ResponseCode::NXDomain, 0),
        ("rialto.internal.", RecordType::SOA, ResponseCode::NoError, 1),
        ("rialto.internal.", RecordType::NS, ResponseCode::NoError, 1),
        ("example.com.", RecordType::A, ResponseCode::Refused, 0),
        ("rialto.internal.", RecordType::AXFR, ResponseCode::Refused, 0),
    ];
    for (name, kind, code, count) in cases {
        let answer = dns.ask(name, kind).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, count), "{name} {kind}");
        assert!(answer.all_sections().all(|record| record.ttl <= 1), "{name} {kind}");
        let denies = count == 0 && code != ResponseCode::Refused;
        assert_eq!(answer.authorities.len(), usize::from(denies), "{name} {kind}");
        assert_eq!(answer.metadata.authoritative, code != ResponseCode::Refused, "{name} {kind}");
    }
    let written = dns.ask("wEb.ShOp.rialto.internal.", RecordType::A).await;
    assert_eq!(written.answers[0].name.to_ascii(), "wEb.ShOp.rialto.internal.");
}

#[tokio::test]
async fn answers_begin_in_turn_with_each_address() {
    let dns = serve().await;
    let mut first = Vec::new();
    // Of many questions some come to each of the sockets.
    for _ in 0..40 {
        first.push(dns.ask("web.shop.rialto.internal.", RecordType::A).await.answers[0].data.to_string());
    }
    assert_eq!(first, ["10.0.0.1", "10.0.0.2"].repeat(20));
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_had_whole_over_tcp() {
    let dns = serve().await;
    let cut = dns.ask("big.shop.rialto.internal.", RecordType::A).await;
    assert!(cut.metadata.truncation && cut.answers.len() < 200);
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii("big.shop.rialto.internal.").unwrap(), RecordType::A));
    let bytes = question.to_vec().unwrap();
    let mut stream = TcpStream::connect(dns.address).await.unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let whole = Message::from_vec(&answer).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
}

#[tokio::test]
async fn nonsense_changes_nothing() {
    let dns = serve().await;
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii("web.shop.rialto.internal.").unwrap(), RecordType::A));
    let sound = question.to_vec().unwrap();
    let mut seed = 7u64;
    for length in 0..200 {
        let mut bytes = sound[..length % sound.len()].to_vec();
        for byte in &mut bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 61 == 0 {
                *byte = (seed >> 40) as u8;
            }
        }
        UdpSocket::bind("127.0.0.1:0").await.unwrap().send_to(&bytes, dns.address).await.unwrap();
    }
    // No question, two questions, an update, a response.
    for (flags, count) in [(0u16, 0u16), (0, 2), (0x2800, 1), (0x8000, 1)] {
        let mut bytes = sound.clone();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[4..6].copy_from_slice(&count.to_be_bytes());
        if let Some(answer) = dns.udp(&bytes).await {
            assert_ne!(answer[3] & 0xf, 0, "{flags:x} {count} is refused");
        }
    }
    assert_eq!(dns.ask("web.shop.rialto.internal.", RecordType::A).await.answers.len(), 2);
    probe(dns.address).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_told_and_closing_gives_it_back() {
    let dns = serve().await;
    assert!(Dns::bind(dns.address).await.is_err());
    dns.closing.cancel();
    dns.task.await.unwrap();
    Dns::bind(dns.address).await.unwrap();
}

#[tokio::test]
async fn dig_reads_the_answers() {
    let dns = serve().await;
    let dig = |arguments: &str| {
        let mut command = tokio::process::Command::new("dig");
        command.args(["@127.0.0.1", "-p", &dns.address.port().to_string(), "+time=2", "+tries=1"]);
        command.args(arguments.split(' '));
        async move { command.output().await }
    };
    let Ok(short) = dig("+short web.shop.rialto.internal A").await else {
        eprintln!("skipped: dig is not installed");
        return;
    };
    let text = |output: std::process::Output| String::from_utf8(output.stdout).unwrap();
    assert_eq!(text(short).lines().count(), 2);
    let cases = [
        ("nosuch.shop.rialto.internal A", "status: NXDOMAIN"),
        ("idle.shop.rialto.internal A", "status: NOERROR"),
        ("example.com A", "status: REFUSED"),
        ("rialto.internal SOA +edns=1 +noednsneg", "status: BADVERS"),
        ("+tcp web.shop.rialto.internal SRV", "m2.machine.rialto.internal."),
        ("+bufsize=512 +ignore big.shop.rialto.internal A", "flags: qr aa tc"),
        ("big.shop.rialto.internal A", "ANSWER: 200"),
        ("CH TXT version.bind", "status: REFUSED"),
    ];
    for (arguments, expected) in cases {
        let output = text(dig(arguments).await.unwrap());
        assert!(output.contains(expected), "{arguments}: {output}");
    }
}
