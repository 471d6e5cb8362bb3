//! One SRV question to the name servers of this machine, over UDP, and over TCP when the answer is
//! cut off (RFC 1035 section 4.2, RFC 2782).
//!
//! It decides which servers are asked and which answer is believed: one that came from the server
//! that was asked, with the ID and the question that were sent. It follows no referral: the servers
//! in [`RESOLV_CONF`] must do that. It must never wait longer than [`ASK_LIMIT`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Data, MAX_DNS_BYTES, Message, Question, kind};
use super::name::Name;
use super::place::Place;

/// Where the machine's name servers stand (resolv.conf(5)).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Bytes of that file that are read.
const MAX_RESOLV_CONF_BYTES: usize = 64 * 1024;
/// Name servers that are asked, as in the system's own resolver.
pub const MAX_SERVERS: usize = 3;
/// Time for one server's answer.
pub const SERVER_LIMIT: Duration = Duration::from_secs(2);
/// Time for all of them.
pub const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Targets of one name that are looked at; the others are left out.
pub const MAX_TARGETS: usize = 64;
/// Largest answer over UDP without an extension (RFC 1035 section 4.2.1), and a little room.
const MAX_UDP_BYTES: usize = 4096;
/// Answers to something else that are read before a server is given up.
const MAX_STRAYS: usize = 16;
/// Response code "no such name".
const NO_SUCH_NAME: u8 = 3;
const DNS_PORT: u16 = 53;

/// Where a service is, as one SRV record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Lower ones are meant to be tried first.
    pub priority: u16,
    /// Host and port.
    pub place: Place,
}

/// Asks name servers. Keeps nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// Asks these servers in turn, at most [`MAX_SERVERS`].
    pub fn new(mut servers: Vec<SocketAddr>) -> Self {
        servers.truncate(MAX_SERVERS);
        Self { servers }
    }

    /// The servers of the machine now; the one on this machine if none is named. Blocks shortly.
    pub fn of_the_system() -> Self {
        let text = std::fs::read(RESOLV_CONF).unwrap_or_default();
        let text = &text[..text.len().min(MAX_RESOLV_CONF_BYTES)];
        Self::new(parse_resolv_conf(&String::from_utf8_lossy(text)))
    }

    /// The targets of `name`, in the order of the answer; none when there is no such name.
    ///
    /// # Errors
    ///
    /// What the last server said, when none gave an answer.
    pub async fn srv(&self, name: &Name) -> io::Result<Vec<Target>> {
        let ask = async {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for server in &self.servers {
                match timeout(SERVER_LIMIT, ask(*server, name)).await {
                    Ok(Ok(message)) => return Ok(targets(name, &message)),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
            Err(last)
        };
        timeout(ASK_LIMIT, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The servers that the file names, in its order.
fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        // A zone belongs to link-local servers, which this resolver cannot reach.
        Some(SocketAddr::new(words.next()?.parse::<IpAddr>().ok()?, DNS_PORT))
    };
    let servers: Vec<SocketAddr> = text.lines().filter_map(server).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()] } else { servers }
}

async fn ask(server: SocketAddr, name: &Name) -> io::Result<Message> {
    let id = getrandom::u32().map_err(io::Error::other)? as u16 | 1;
    let question = Question { name: name.clone(), kind: kind::SRV };
    let query = Message { id, questions: vec![question], ..Message::default() };
    let answer = over_udp(server, &query).await?;
    let answer = if answer.truncated { over_tcp(server, &query).await? } else { answer };
    match answer.code {
        0 | NO_SUCH_NAME => Ok(answer),
        code => Err(io::Error::other(format!("{server} answered with code {code}"))),
    }
}

async fn over_udp(server: SocketAddr, query: &Message) -> io::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: the kernel drops what comes from anybody else.
    socket.connect(server).await?;
    socket.send(&query.encode()).await?;
    let mut buffer = vec![0; MAX_UDP_BYTES];
    for _ in 0..MAX_STRAYS {
        let len = socket.recv(&mut buffer).await?;
        let bytes = &buffer[..len];
        match Message::decode(bytes) {
            Ok(answer) if answers(query, &answer) => return Ok(answer),
            // What is cut off may end in the middle of a record; its head is enough.
            _ if is_truncated_answer(query, bytes) => {
                return Ok(Message { truncated: true, ..query.clone() });
            }
            _ => {}
        }
    }
    Err(io::Error::other(format!("{server} answered with something else")))
}

async fn over_tcp(server: SocketAddr, query: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let bytes = query.encode();
    // RFC 1035 section 4.2.2: the length goes in front.
    let framed = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    stream.write_all(&framed).await?;
    let len = usize::from(stream.read_u16().await?);
    if len > MAX_DNS_BYTES {
        return Err(io::Error::other(format!("{server} answered with {len} bytes")));
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    let answer = Message::decode(&bytes).map_err(io::Error::other)?;
    if answers(query, &answer) && !answer.truncated {
        return Ok(answer);
    }
    Err(io::Error::other(format!("{server} answered with something else")))
}

fn answers(query: &Message, answer: &Message) -> bool {
    answer.response && answer.id == query.id && answer.questions == query.questions
}

/// The head of a response with the query's ID and the bit for "cut off".
fn is_truncated_answer(query: &Message, bytes: &[u8]) -> bool {
    let [high, low] = query.id.to_be_bytes();
    matches!(bytes, [a, b, flags, _, ..] if [*a, *b] == [high, low] && flags & 0b1000_0010 == 0b1000_0010)
}

fn targets(name: &Name, answer: &Message) -> Vec<Target> {
    let target = |data: &Data| match data {
        Data::Srv { priority, port, target } if *port != 0 && !target.is_root() => {
            Some(Target { priority: *priority, place: Place::new(target.to_string(), *port) })
        }
        _ => None,
    };
    let records = answer.records.iter().filter(|record| record.name == *name);
    records.filter_map(|record| target(&record.data)).take(MAX_TARGETS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_the_file() {
        let text = "# by hand\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 x\n\
                    nameserver fe80::1%eth0\noptions edns0\nnameserver";
        let expected: Vec<SocketAddr> =
            vec!["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(parse_resolv_conf(text), expected);
        assert_eq!(parse_resolv_conf("").len(), 1, "the one on this machine");
        assert_eq!(Resolver::new(vec![expected[0]; 9]).servers.len(), MAX_SERVERS);
    }
}
