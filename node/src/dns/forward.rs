//! Names of the world outside, asked of the machine's own name servers in the place of its tasks.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::DNSClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use rialto_protocol::model::network::Subnet;

use super::limits::Limits;
use super::remembered::Remembered;
use super::zone::{Answer, Question};

/// How long one server is waited for. Tasks wait five seconds in all, as resolvers do.
const WAIT: Duration = Duration::from_millis(1_500);
/// The most servers that are asked, as resolvers do (resolv.conf(5)).
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;
/// Questions that wait for other servers.
const ASKED_AT_ONCE_MAX: usize = 256;
/// The machine's servers are read again after so long.
const SERVERS_FOR: Duration = Duration::from_secs(5);
/// The most bytes of an answer over UDP.
const UDP_BYTES_MAX: usize = 4_096;

/// The machine's name servers, without this one.
fn servers(own: Option<IpAddr>) -> Vec<SocketAddr> {
    servers_in(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), own)
}

fn servers_in(text: &str, own: Option<IpAddr>) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses.filter(|ip| Some(*ip) != own).take(SERVERS_MAX).map(|ip| (ip, PORT).into()).collect()
}

/// Asks others in the place of the machine itself and of its tasks, and of nobody else.
pub struct Forwarder {
    /// Where this answers: it never asks itself.
    own: IpAddr,
    /// The machine's tasks.
    tasks: Subnet,
    known: Mutex<Known>,
    /// Fewer than are answered at once: servers that are silent keep nobody from the zone's names.
    room: Semaphore,
}

#[derive(Default)]
struct Known {
    remembered: Remembered,
    limits: Limits,
    /// The machine's name servers, and when they were read.
    servers: Option<(Vec<SocketAddr>, Instant)>,
}

impl Forwarder {
    pub fn new(own: IpAddr, tasks: Subnet) -> Self {
        Self { own, tasks, known: Mutex::new(Known::default()), room: Semaphore::new(ASKED_AT_ONCE_MAX) }
    }

    /// Whether it asks for somebody: a resolver that is open to all would be a gun for hire.
    fn serves(&self, asker: IpAddr) -> bool {
        match asker {
            IpAddr::V4(asker) => asker.is_loopback() || self.tasks.contains(asker),
            IpAddr::V6(asker) => asker.is_loopback(),
        }
    }

    /// What others say.
    ///
    /// # Errors
    ///
    /// What the asker is told: it is not served, has asked too much, or nobody answers.
    pub async fn ask(&self, question: &Question, asker: IpAddr) -> Result<Answer, ResponseCode> {
        if !self.serves(asker) {
            return Err(ResponseCode::Refused);
        }
        let servers = {
            let now = Instant::now();
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(answer) = known.remembered.get(question, now) {
                return Ok(answer);
            }
            if !known.limits.allow(asker, now) {
                return Err(ResponseCode::Refused);
            }
            match &known.servers {
                Some((servers, read)) if now.duration_since(*read) < SERVERS_FOR => servers.clone(),
                _ => {
                    let read = servers(Some(self.own));
                    known.servers = Some((read.clone(), now));
                    read
                }
            }
        };
        let _room = self.room.try_acquire().map_err(|_| ResponseCode::ServFail)?;
        let answer = ask(question, &servers).await.ok_or(ResponseCode::ServFail)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remembered.put(question, &answer, Instant::now());
        Ok(answer)
    }
}

/// What the first server says that knows; where none does what the first said instead, and `None` where all are silent.
async fn ask(question: &Question, servers: &[SocketAddr]) -> Option<Answer> {
    let mut query = Message::query();
    let mut asked = Query::query(question.name.clone(), question.kind);
    asked.set_query_class(DNSClass::IN);
    query.add_query(asked);
    query.metadata.recursion_desired = true;
    let bytes = query.to_vec().ok()?;
    let mut failed = None;
    for server in servers {
        let answer = match timeout(WAIT, by_udp(&bytes, *server)).await {
            Ok(Ok(answer)) if answer.metadata.truncation => timeout(WAIT, by_tcp(&bytes, *server)).await,
            other => other,
        };
        match answer {
            Ok(Ok(answer)) if answers(&answer, &query) => {
                let Message { metadata, answers, authorities, additionals, .. } = answer;
                let code = metadata.response_code;
                let answer = Answer { code, answers, authority: authorities, additional: additionals };
                if !is_failure(code) {
                    return Some(answer);
                }
                failed.get_or_insert(answer);
            }
            _ => {}
        }
    }
    failed
}

/// Whether it says something of the server and nothing of the name: another may know, as resolvers take it.
fn is_failure(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::ServFail | ResponseCode::NotImp | ResponseCode::Refused)
}

/// Whether it answers this question, and not one that somebody else would like to have been asked (RFC 5452, 9.1).
fn answers(answer: &Message, query: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == query.metadata.id
        && answer.queries == query.queries
}

async fn by_udp(query: &[u8], server: SocketAddr) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only what this server says is heard.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    let length = socket.recv(&mut buffer).await?;
    Message::from_vec(&buffer[..length]).map_err(io::Error::other)
}

async fn by_tcp(query: &[u8], server: SocketAddr) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(query.len() as u16).await?;
    stream.write_all(query).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    Message::from_vec(&buffer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    #[test]
    fn the_machines_servers_are_asked_but_never_itself() {
        let text = "# a comment\nsearch example\nnameserver 192.0.2.1\n  nameserver 10.208.4.1\nnameserver fd00::1 # x\nnameserver x\n";
        let found = servers_in(text, Some("10.208.4.1".parse().unwrap()));
        assert_eq!(found, ["192.0.2.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
        assert_eq!(servers_in("", None), []);
    }

    #[tokio::test]
    async fn nobody_is_served_but_the_machine_and_its_tasks() {
        let tasks = Subnet::of("10.208.4.0".parse().unwrap());
        let forwarder = Forwarder::new("10.208.4.1".parse().unwrap(), tasks);
        let question =
            Question { name: Name::from_ascii("example.org.").unwrap(), kind: RecordType::A, class: DNSClass::IN };
        for (asker, serves) in [("10.208.4.9", true), ("127.0.0.1", true), ("10.208.9.9", false), ("192.0.2.1", false)]
        {
            assert_eq!(forwarder.serves(asker.parse().unwrap()), serves, "{asker}");
        }
        let refused = forwarder.ask(&question, "192.0.2.1".parse().unwrap()).await;
        assert_eq!(refused.unwrap_err(), ResponseCode::Refused);
    }

    #[test]
    fn only_the_answer_to_the_question_is_heard() {
        let about = |name: &str| Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
        let mut query = Message::query();
        query.add_query(about("example.org."));
        let answer = |id: u16, name: &str| {
            let mut answer = Message::response(id, query.metadata.op_code);
            answer.add_query(about(name));
            answer
        };
        let id = query.metadata.id;
        assert!(answers(&answer(id, "example.org."), &query));
        assert!(answers(&answer(id, "EXAMPLE.org."), &query), "capitals are no matter");
        assert!(!answers(&answer(id.wrapping_add(1), "example.org."), &query));
        assert!(!answers(&answer(id, "example.net."), &query));
        assert!(!answers(&Message::response(id, query.metadata.op_code), &query));
        assert!(!answers(&query.clone(), &query), "a question is no answer");
    }

    /// A server that says one thing, whatever it is asked: a code, and one address where there is no failure in it.
    async fn server(code: ResponseCode) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let name = asked.queries[0].name().clone();
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                answer.metadata.response_code = code;
                answer.add_query(asked.queries[0].clone());
                if code == ResponseCode::NoError {
                    answer.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 7))));
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn the_first_that_knows_is_heard() {
        use ResponseCode::{NXDomain, NoError, NotImp, Refused, ServFail};
        let name = Name::from_ascii("example.org.").unwrap();
        let question = Question { name, kind: RecordType::A, class: DNSClass::IN };
        let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for (codes, wanted) in [
            (&[NoError][..], Some(NoError)),
            (&[ServFail, NoError], Some(NoError)),
            (&[Refused, NotImp, NoError], Some(NoError)),
            (&[ServFail, NXDomain], Some(NXDomain)),
            (&[NXDomain, NoError], Some(NXDomain)),
            (&[Refused, ServFail], Some(Refused)),
            (&[], None),
        ] {
            let mut servers = vec![dead];
            for code in codes {
                servers.push(server(*code).await);
            }
            let answer = ask(&question, &servers).await;
            assert_eq!(answer.as_ref().map(|answer| answer.code), wanted, "{codes:?}");
            let addresses = usize::from(wanted == Some(NoError));
            assert_eq!(answer.map_or(0, |answer| answer.answers.len()), addresses, "{codes:?}");
        }
    }
}
