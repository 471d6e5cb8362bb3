//! Other nodes on the same LAN by multicast DNS (RFC 6762) over IPv4.
//!
//! It decides when this node asks, answers and announces itself, and remembers who was heard. What
//! is heard is a hint where to dial, nothing more: the connection proves who is there. It must never
//! ask or answer more than once a second, and never run for an address that only this machine reaches.

mod records;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use self::records::Service;
use super::message::Message;

/// Where mDNS is spoken (RFC 6762 section 3).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// See [`GROUP`].
pub const PORT: u16 = 5353;
/// Nodes that are remembered; the one heard of first goes.
pub const MAX_FOUND: usize = 64;
/// How long a node is remembered after it was last heard.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Largest packet that is read (RFC 6762 section 17).
const MAX_PACKET_BYTES: usize = 9000;
/// Pause between two questions; it doubles up to the second (RFC 6762 section 5.2).
const ASK_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pause between two announcements; the second comes soon in case the first was lost.
const ANNOUNCE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10 * 60));
/// An answer waits for a random part of this, so that not all answer at once (RFC 6762 section 6).
const ANSWER_DELAY_MS: (u64, u64) = (20, 250);
/// Pause between two answers (RFC 6762 section 6).
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
/// So many answers of others are enough: then this node stays silent.
const ENOUGH_ANSWERS: usize = 8;

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct MdnsConfig {
    /// Short hash of the swarm's public ID; at most 32 letters and digits.
    pub swarm: String,
    /// Start of the node's ID; at most 24 letters and digits.
    pub node: String,
    /// Where other nodes reach this one.
    pub addr: SocketAddrV4,
    /// UDP port, [`PORT`] but in tests.
    pub port: u16,
}

/// A running speaker and listener; dropping it ends it without a word.
#[derive(Debug)]
pub struct Mdns {
    shared: Arc<Shared>,
    service: Service,
    port: u16,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    found: Mutex<BTreeMap<SocketAddr, Instant>>,
    ask: Notify,
    changed: Notify,
}

impl Mdns {
    /// Opens the socket on the interface that has the address of `config`, else on the one of the
    /// default route, and begins to listen. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// The system's: no such interface, or the port is held by a program that does not share it.
    pub fn start(config: &MdnsConfig) -> io::Result<Self> {
        let service = Service::new(&config.swarm, &config.node, config.addr);
        let service = service.map_err(io::Error::other)?;
        let socket = open(*config.addr.ip(), config.port)
            .or_else(|_| open(Ipv4Addr::UNSPECIFIED, config.port))?;
        let shared = Arc::new(Shared {
            socket,
            found: Mutex::default(),
            ask: Notify::new(),
            changed: Notify::new(),
        });
        let speaker = Speaker::new(Arc::clone(&shared), service.clone(), config.port);
        let task = tokio::spawn(speaker.run());
        Ok(Self { shared, service, port: config.port, task })
    }

    /// Asks who is there, as soon as the pause after the last question allows.
    pub fn ask(&self) {
        self.shared.ask.notify_one();
    }

    /// The nodes heard lately.
    pub fn found(&self) -> Vec<SocketAddr> {
        self.shared.found().keys().copied().collect()
    }

    /// Returns once a node was heard that was not known, since the last call.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Tells the others that this node goes, and ends.
    pub async fn close(&self) {
        self.task.abort();
        let goodbye = self.service.announcement(true).encode();
        // Nobody needs it: what was heard is forgotten by itself.
        let _ = self.shared.socket.send_to(&goodbye, (GROUP, self.port)).await;
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn found(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Instant>> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|_, at| at.elapsed() < REMEMBERED);
        found
    }

    fn remember(&self, addr: SocketAddr) {
        let mut found = self.found();
        if found.len() >= MAX_FOUND && !found.contains_key(&addr) {
            let first = found.iter().min_by_key(|(_, at)| **at).map(|(addr, _)| *addr);
            first.map(|first| found.remove(&first));
        }
        if found.insert(addr, Instant::now()).is_none() {
            self.changed.notify_one();
        }
    }
}

/// A socket for [`GROUP`] on one interface, shared with the other mDNS programs of the machine.
/// Bound to the group itself: what is sent to the machine alone does not arrive.
fn open(interface: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(GROUP, port).into())?;
    socket.join_multicast_v4(&GROUP, &interface)?;
    socket.set_multicast_if_v4(&interface)?;
    // RFC 6762 section 11.
    socket.set_multicast_ttl_v4(255)?;
    socket.set_multicast_loop_v4(true)?;
    UdpSocket::from_std(socket.into())
}

/// The task: when to say what.
struct Speaker {
    shared: Arc<Shared>,
    service: Service,
    port: u16,
    announce_at: Instant,
    announce_pause: Duration,
    ask_at: Option<Instant>,
    next_ask: Instant,
    ask_pause: Duration,
    answer_at: Option<Instant>,
    next_answer: Instant,
    /// Answers of others since the question that waits for this node's.
    answers_heard: usize,
}

impl Speaker {
    fn new(shared: Arc<Shared>, service: Service, port: u16) -> Self {
        let now = Instant::now();
        Self {
            shared,
            service,
            port,
            announce_at: now,
            announce_pause: ANNOUNCE_PAUSE.0,
            ask_at: None,
            next_ask: now,
            ask_pause: ASK_PAUSE.0,
            answer_at: None,
            next_answer: now,
            answers_heard: 0,
        }
    }

    async fn run(mut self) {
        let mut packet = vec![0; MAX_PACKET_BYTES];
        let shared = Arc::clone(&self.shared);
        loop {
            let due = [self.ask_at, self.answer_at].into_iter().flatten().min();
            let due = due.map_or(self.announce_at, |at| at.min(self.announce_at));
            tokio::select! {
                received = shared.socket.recv_from(&mut packet) => match received {
                    Ok((len, from)) => self.received(&packet[..len], from),
                    // An interface that is down; it may come back.
                    Err(_) => sleep_until(Instant::now() + ASK_PAUSE.0).await,
                },
                () = shared.ask.notified() => {
                    self.ask_at.get_or_insert(self.next_ask.max(Instant::now()));
                }
                () = sleep_until(due) => self.speak(Instant::now()).await,
            }
        }
    }

    fn received(&mut self, packet: &[u8], from: SocketAddr) {
        // Answers from another port are none (RFC 6762 section 6).
        let Some(message) = Message::decode(packet).ok().filter(|_| from.port() == self.port)
        else {
            return;
        };
        let now = Instant::now();
        if self.service.is_asked(&message) && self.answer_at.is_none() {
            self.answers_heard = 0;
            self.answer_at = Some((now + random_between(ANSWER_DELAY_MS)).max(self.next_answer));
        }
        let heard = self.service.heard(&message);
        self.answers_heard += heard.len();
        for node in heard {
            if node.gone {
                self.shared.found().remove(&node.addr);
            } else {
                self.shared.remember(node.addr);
            }
        }
    }

    /// Says what is due; one packet at a time.
    async fn speak(&mut self, now: Instant) {
        if self.announce_at <= now {
            self.announce_at = now + self.announce_pause;
            self.announce_pause = ANNOUNCE_PAUSE.1;
            self.send(&self.service.announcement(false)).await;
        } else if self.ask_at.take_if(|at| *at <= now).is_some() {
            if self.next_ask + 2 * ASK_PAUSE.1 < now {
                self.ask_pause = ASK_PAUSE.0;
            }
            self.next_ask = now + self.ask_pause;
            self.ask_pause = (2 * self.ask_pause).min(ASK_PAUSE.1);
            self.send(&self.service.question()).await;
        } else if self.answer_at.take_if(|at| *at <= now).is_some()
            && self.answers_heard < ENOUGH_ANSWERS
        {
            self.next_answer = now + ANSWER_PAUSE;
            self.send(&self.service.announcement(false)).await;
        }
    }

    async fn send(&self, message: &Message) {
        let sent = self.shared.socket.send_to(&message.encode(), (GROUP, self.port)).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "nothing can be said on the LAN now");
        }
    }
}

fn random_between((least_ms, most_ms): (u64, u64)) -> Duration {
    let random = getrandom::u64().unwrap_or_default();
    Duration::from_millis(least_ms + random % (most_ms - least_ms))
}
