//! What is said and understood on the LAN: DNS-SD (RFC 6763) with few records. Pure.
//!
//! A node is an instance of `_ddr._tcp.local`; nodes of one swarm share a subtype, the hash of the
//! swarm, and only that subtype is asked for. It must never say more of a node than that hash, the
//! start of its ID, and its address.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::super::message::{Data, Message, Question, Record, kind};
use super::super::name::{Name, NameError};

/// Seconds for which others may believe an announcement.
const TTL_S: u32 = 120;
/// Type of the record that DNS-SD wants for each instance (RFC 6763 section 6.1).
const TXT: u16 = 16;
/// Nodes of one message that are looked at; the others are left out.
pub(super) const MAX_NODES: usize = 32;

/// The names of one node.
#[derive(Clone, Debug)]
pub(super) struct Service {
    kind: Name,
    swarm: Name,
    instance: Name,
    host: Name,
    /// How instances of this swarm begin.
    prefix: String,
    addr: SocketAddrV4,
}

/// What a message says of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) addr: SocketAddr,
    /// The node says that it goes.
    pub(super) gone: bool,
}

impl Service {
    /// The node that calls itself `node` and is reached at `addr`, of the swarm with this hash.
    pub(super) fn new(swarm: &str, node: &str, addr: SocketAddrV4) -> Result<Self, NameError> {
        let local: Name = "local".parse()?;
        let kind: Name = "_ddr._tcp.local".parse()?;
        Ok(Self {
            swarm: format!("_{swarm}._sub._ddr._tcp.local").parse()?,
            instance: Name::below(&format!("{swarm}-{node}"), &kind)?,
            host: Name::below(&format!("ddr-{node}"), &local)?,
            prefix: format!("{swarm}-"),
            kind,
            addr,
        })
    }

    /// "Who is of this swarm?"
    pub(super) fn question(&self) -> Message {
        let question = Question { name: self.swarm.clone(), kind: kind::PTR };
        Message { questions: vec![question], ..Message::default() }
    }

    /// "I am", or with `goes` "I am no more" (RFC 6762 section 10.1).
    pub(super) fn announcement(&self, goes: bool) -> Message {
        let ttl_s = if goes { 0 } else { TTL_S };
        let record = |name: &Name, data| Record { name: name.clone(), ttl_s, data };
        let (instance, target) = (self.instance.clone(), self.host.clone());
        let srv = Data::Srv { priority: 0, port: self.addr.port(), target };
        Message {
            response: true,
            records: vec![
                record(&self.kind, Data::Ptr(instance.clone())),
                record(&self.swarm, Data::Ptr(instance)),
                record(&self.instance, srv),
                record(&self.instance, Data::Other(TXT)),
                record(&self.host, Data::A(*self.addr.ip())),
            ],
            ..Message::default()
        }
    }

    /// Whether this node should answer.
    pub(super) fn is_asked(&self, message: &Message) -> bool {
        let mine = |question: &Question| {
            let named = [&self.kind, &self.swarm, &self.instance].contains(&&question.name);
            named && [kind::PTR, kind::SRV, kind::ANY].contains(&question.kind)
        };
        !message.response && message.questions.iter().any(mine)
    }

    /// Other nodes of this swarm that a message speaks of.
    pub(super) fn heard(&self, message: &Message) -> Vec<Heard> {
        let heard = |record: &Record| {
            let Data::Srv { port, target, .. } = &record.data else { return None };
            if *port == 0 || !self.is_of_swarm(&record.name) || record.name == self.instance {
                return None;
            }
            let addr = SocketAddr::from((address(message, target)?, *port));
            Some(Heard { addr, gone: record.ttl_s == 0 })
        };
        if !message.response {
            return Vec::new();
        }
        message.records.iter().filter_map(heard).take(MAX_NODES).collect()
    }

    fn is_of_swarm(&self, instance: &Name) -> bool {
        let mut labels = instance.labels();
        let ours = labels.next().is_some_and(|label| label.starts_with(self.prefix.as_bytes()));
        ours && labels.eq(self.kind.labels())
    }
}

/// The IPv4 address that the message gives for a host, if a node can be there.
fn address(message: &Message, host: &Name) -> Option<Ipv4Addr> {
    let ip = |record: &Record| match record.data {
        Data::A(ip) if record.name == *host => Some(ip),
        _ => None,
    };
    let dialable = |ip: &Ipv4Addr| !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast());
    message.records.iter().filter_map(ip).find(dialable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(swarm: &str, node: &str, last: u8) -> Service {
        let addr = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), 5001);
        Service::new(swarm, node, addr).unwrap()
    }

    fn over_the_wire(message: &Message) -> Message {
        Message::decode(&message.encode()).unwrap()
    }

    #[test]
    fn nodes_of_one_swarm_hear_each_other_and_no_others() {
        let (one, two, other) =
            (service("aa", "1", 1), service("aa", "2", 2), service("ab", "3", 3));
        let question = over_the_wire(&one.question());
        assert!(two.is_asked(&question) && !other.is_asked(&question));
        let said = over_the_wire(&two.announcement(false));
        let expected = Heard { addr: "192.0.2.2:5001".parse().unwrap(), gone: false };
        assert_eq!(one.heard(&said), [expected]);
        assert_eq!(two.heard(&said), [], "not itself");
        assert_eq!(other.heard(&said), []);
        let goodbye = one.heard(&over_the_wire(&two.announcement(true)));
        assert_eq!(goodbye, [Heard { gone: true, ..expected }]);
    }

    #[test]
    fn what_cannot_be_dialled_or_is_a_question_is_not_heard() {
        let (one, two) = (service("aa", "1", 1), service("aa", "2", 2));
        let with = |change: &dyn Fn(&mut Message)| {
            let mut message = two.announcement(false);
            change(&mut message);
            one.heard(&message)
        };
        assert_eq!(with(&|_| {}).len(), 1);
        for ip in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 251)] {
            assert_eq!(with(&|message| message.records[4].data = Data::A(ip)), []);
        }
        assert_eq!(with(&|message| message.response = false), []);
        assert_eq!(with(&|message| drop(message.records.pop())), [], "no address");
        let port_0 = Data::Srv { priority: 0, port: 0, target: two.host.clone() };
        assert_eq!(with(&|message| message.records[2].data = port_0.clone()), []);
        let many = with(&|message| {
            let srv = message.records[2].clone();
            message.records.extend(vec![srv; 99]);
        });
        assert_eq!(many.len(), MAX_NODES);
    }
}
