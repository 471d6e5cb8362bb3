//! Name servers that answer, lie and stay silent; nodes that hear each other on a LAN, which is the
//! loopback interface here.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use ddr_net::discover::mdns::{Mdns, MdnsConfig};
use ddr_net::discover::message::{Data, MAX_RECORDS, Message, Record};
use ddr_net::discover::resolver::{MAX_TARGETS, Resolver};
use ddr_net::discover::{Discovery, DnsName, MAX_RESOLVED, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

/// How long a test waits for something that must happen.
const DEADLINE: Duration = Duration::from_secs(20);
const NAME: &str = "_ddr._tcp.example.org";

/// A port that is free for UDP may be in use for TCP: then it is another.
async fn both_on_one_port() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

/// A name server that answers each question as `reply` makes it of the plain answer.
async fn server(
    records: Vec<Record>,
    reply: impl Fn(Message) -> Vec<Vec<u8>> + Send + Sync + Clone + 'static,
) -> SocketAddr {
    let (udp, tcp) = both_on_one_port().await;
    let addr = udp.local_addr().unwrap();
    let answer = move |bytes: &[u8]| {
        let query = Message::decode(bytes).unwrap();
        Message { response: true, records: records.clone(), ..query }
    };
    let over_tcp = answer.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
            for bytes in reply(answer(&buffer[..len])) {
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let len = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; len.into()];
            stream.read_exact(&mut bytes).await.unwrap();
            let bytes = over_tcp(&bytes).encode();
            stream.write_u16(bytes.len() as u16).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    addr
}

fn srv(priority: u16, port: u16, target: &str) -> Record {
    let data = Data::Srv { priority, port, target: target.parse().unwrap() };
    Record { name: NAME.parse().unwrap(), ttl_s: 60, data }
}

fn plain(message: Message) -> Vec<Vec<u8>> {
    vec![message.encode()]
}

async fn ask(servers: Vec<SocketAddr>) -> Result<Vec<String>, std::io::Error> {
    let (resolver, name) = (Resolver::new(servers), NAME.parse().unwrap());
    let found = timeout(DEADLINE, resolver.srv(&name))
        .await
        .expect("the resolver has a limit of its own")?;
    Ok(found.into_iter().map(|target| target.place.to_string()).collect())
}

#[tokio::test]
async fn a_service_is_found_and_a_cut_off_answer_is_asked_for_again_over_tcp() {
    let records = || vec![srv(1, 5001, "a.example.org"), srv(2, 7, "127.0.0.1")];
    let whole = server(records(), plain).await;
    let expected = ["a.example.org:5001", "127.0.0.1:7"];
    assert_eq!(ask(vec![whole]).await.unwrap(), expected);
    let cut = |message: Message| {
        let mut bytes = Message { truncated: true, ..message }.encode();
        bytes.truncate(bytes.len() - 3);
        vec![bytes]
    };
    assert_eq!(ask(vec![server(records(), cut).await]).await.unwrap(), expected);
}

#[tokio::test]
async fn records_that_lead_nowhere_or_speak_of_others_are_left_out() {
    let other = Record { name: "_x._tcp.example.org".parse().unwrap(), ..srv(1, 1, "x") };
    let nowhere =
        Data::Srv { priority: 0, port: 5001, target: ddr_net::discover::name::Name::root() };
    let records = vec![
        srv(1, 0, "no-port"),
        other,
        Record { data: nowhere, ..srv(1, 1, "x") },
        srv(1, 2, "good"),
    ];
    assert_eq!(ask(vec![server(records, plain).await]).await.unwrap(), ["good:2"]);
    let many = vec![srv(1, 2, "a"); MAX_RECORDS - 1];
    // Too long for UDP, so this is the way over TCP.
    let cut = |message: Message| {
        vec![Message { truncated: true, records: Vec::new(), ..message }.encode()]
    };
    let found = ask(vec![server(many, cut).await]).await.unwrap();
    assert_eq!(found.len(), MAX_TARGETS);
}

#[tokio::test]
async fn only_the_answer_to_the_question_is_believed() {
    let forged = |message: Message| {
        let wrong_id = Message { id: message.id ^ 0x100, ..message.clone() };
        let wrong_name = Message { questions: Vec::new(), ..message.clone() };
        let question = Message { response: false, ..message.clone() };
        let lies = [wrong_id, wrong_name, question];
        let lies = lies.map(|lie| Message { records: vec![srv(0, 6, "evil")], ..lie }.encode());
        lies.into_iter().chain([vec![0xff; 40], Vec::new(), message.encode()]).collect()
    };
    let liar = server(vec![srv(1, 5, "good")], forged).await;
    assert_eq!(ask(vec![liar]).await.unwrap(), ["good:5"]);
}

#[tokio::test]
async fn a_silent_or_broken_server_is_passed_over_and_the_wait_is_bounded() {
    let good = server(vec![srv(1, 5, "good")], plain).await;
    let silent = server(Vec::new(), |_| Vec::new()).await;
    let failing = server(Vec::new(), |message| plain(Message { code: 2, ..message })).await;
    assert_eq!(ask(vec![failing, good]).await.unwrap(), ["good:5"]);
    assert_eq!(ask(vec![silent, good]).await.unwrap(), ["good:5"]);
    let error = ask(vec![silent; 9]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(ask(vec![failing]).await.unwrap_err().to_string().contains("code 2"));
    let absent = server(Vec::new(), |message| plain(Message { code: 3, ..message })).await;
    assert_eq!(ask(vec![absent]).await.unwrap(), [""; 0], "no such name is an answer");
}

#[tokio::test]
async fn a_look_takes_low_priorities_first_and_few_names() {
    let mut records: Vec<Record> =
        (0..9_u16).map(|n| srv(7, 100 + n, &format!("127.0.0.{n}"))).collect();
    records.push(srv(1, 99, "127.0.0.99"));
    let resolver = Resolver::new(vec![server(records, plain).await]);
    let dns: DnsName = NAME.parse().unwrap();
    let discovery = Discovery { dns: Some(dns), resolver: Some(resolver), ..Discovery::default() };
    let found = discovery.look(Origin::Dns).await.unwrap();
    assert!(found.contains(&"127.0.0.99:99".parse().unwrap()), "{found:?}");
    assert_eq!(found.len(), MAX_RESOLVED);
    let mut seen = found.clone();
    for _ in 0..100 {
        seen.extend(discovery.look(Origin::Dns).await.unwrap());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 10, "another subset each time");
}

/// A UDP port that nobody else listens on.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn node(swarm: &str, number: u16, port: u16) -> Mdns {
    let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000 + number);
    let (swarm, node) = (swarm.to_owned(), number.to_string());
    Mdns::start(&MdnsConfig { swarm, node, addr, port }).unwrap()
}

async fn hears(mdns: &Mdns, expected: &[u16]) {
    let expected: Vec<SocketAddr> =
        expected.iter().map(|n| (Ipv4Addr::LOCALHOST, 5000 + n).into()).collect();
    let heard = async {
        while mdns.found() != expected {
            let _ = timeout(Duration::from_millis(50), mdns.changed()).await;
        }
    };
    assert!(timeout(DEADLINE, heard).await.is_ok(), "{:?}, not {expected:?}", mdns.found());
}

#[tokio::test]
async fn nodes_of_one_swarm_hear_each_other_on_the_lan() {
    let port = free_port();
    let (one, two, other) = (node("aa", 1, port), node("aa", 2, port), node("bb", 3, port));
    hears(&one, &[2]).await;
    hears(&two, &[1]).await;
    // Who comes later asks, and is answered.
    let late = node("aa", 4, port);
    late.ask();
    hears(&late, &[1, 2]).await;
    hears(&one, &[2, 4]).await;
    two.close().await;
    hears(&one, &[4]).await;
    assert!(other.found().is_empty(), "another swarm is not heard");
}

#[tokio::test]
async fn rubbish_on_the_lan_is_passed_over() {
    let port = free_port();
    let one = node("aa", 1, port);
    let rubbish = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for bytes in [&[][..], &[0xff; 100], &[0; 12], &[0xc0; 9_000]] {
        rubbish.send_to(bytes, (Ipv4Addr::new(224, 0, 0, 251), port)).await.unwrap();
    }
    let _two = node("aa", 2, port);
    hears(&one, &[2]).await;
}
