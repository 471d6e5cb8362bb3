//! DNS messages (RFC 1035 section 4), as far as SRV queries and DNS-SD need them. Pure.
//!
//! It decides what is a message: at most [`MAX_RECORDS`] questions and records, names that are
//! followed backwards only and at most [`MAX_JUMPS`] times. It must never read past the end, follow
//! a loop, or take more memory than a few times the message.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::name::Name;

/// Questions and records of one message that are read; one with more is refused.
pub const MAX_RECORDS: usize = 128;
/// Jumps to an earlier place within one name.
pub const MAX_JUMPS: usize = 16;
/// Largest message that is read: what TCP can carry here, and more than mDNS allows (9,000 bytes).
pub const MAX_DNS_BYTES: usize = 16 * 1024;

/// Bytes of the header (RFC 1035 section 4.1.1).
const HEADER_BYTES: usize = 12;
const RESPONSE: u16 = 1 << 15;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const OPCODE: u16 = 0b1111 << 11;
const CODE: u16 = 0b1111;
/// Class of the internet; the bit above it means other things in mDNS (RFC 6762 section 10.2).
const CLASS_IN: u16 = 1;
const CLASS_FLAG: u16 = 1 << 15;

/// Types of records (RFC 1035 section 3.2.2, RFC 3596, RFC 2782, RFC 6891).
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of the RFCs")]
    pub const A: u16 = 1;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

/// A question: a name and one of [`kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked about.
    pub name: Name,
    /// Which records are asked for.
    pub kind: u16,
}

/// A record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whom it is about.
    pub name: Name,
    /// Seconds for which it holds; 0 in mDNS: no longer.
    pub ttl_s: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name.
    Ptr(Name),
    /// Where a service is (RFC 2782).
    Srv {
        /// Lower comes first.
        priority: u16,
        /// The port, 0 in a broken record.
        port: u16,
        /// The host; the root for "nowhere".
        target: Name,
    },
    /// Anything else, by its type.
    Other(u16),
}

/// A whole message. The authority section is read over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Ties an answer to its question; 0 in mDNS.
    pub id: u16,
    /// An answer, not a question.
    pub response: bool,
    /// The answer had more to say than fits.
    pub truncated: bool,
    /// Response code, 0 for success, 3 for "no such name".
    pub code: u8,
    /// What is asked.
    pub questions: Vec<Question>,
    /// Answers and additional records.
    pub records: Vec<Record>,
}

/// The bytes are no message within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS message within the limits")]
pub struct DnsError;

impl Message {
    /// Reads a message; bytes behind it are an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DnsError> {
        if bytes.len() > MAX_DNS_BYTES {
            return Err(DnsError);
        }
        let mut reader = Reader { bytes, at: 0 };
        let [id, flags, questions, answers, authorities, additional] =
            [(); 6].map(|()| reader.u16());
        let (flags, authorities) = (flags?, usize::from(authorities?));
        let (questions, answers) = (usize::from(questions?), usize::from(answers?));
        let records = answers + authorities + usize::from(additional?);
        if flags & OPCODE != 0 || questions + records > MAX_RECORDS {
            return Err(DnsError);
        }
        let mut message = Self {
            id: id?,
            response: flags & RESPONSE != 0,
            truncated: flags & TRUNCATED != 0,
            code: (flags & CODE) as u8,
            ..Self::default()
        };
        for _ in 0..questions {
            let (name, kind, class) = (reader.name()?, reader.u16()?, reader.u16()?);
            if class & !CLASS_FLAG == CLASS_IN {
                message.questions.push(Question { name, kind });
            }
        }
        for number in 0..records {
            let record = reader.record()?;
            let authority = (answers..answers + authorities).contains(&number);
            message.records.extend(record.filter(|_| !authority));
        }
        if reader.at == bytes.len() { Ok(message) } else { Err(DnsError) }
    }

    /// The bytes of the message; every record stands among the answers. A query asks for recursion
    /// unless its ID is 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let asks = if self.id == 0 { 0 } else { RECURSION_DESIRED };
        let kind = if self.response { RESPONSE | AUTHORITATIVE } else { asks };
        let truncated = if self.truncated { TRUNCATED } else { 0 };
        let flags = kind | truncated | u16::from(self.code) & CODE;
        let counts = [self.questions.len() as u16, self.records.len() as u16, 0, 0];
        [self.id, flags].iter().chain(&counts).for_each(|n| bytes.extend(n.to_be_bytes()));
        for question in &self.questions {
            bytes.extend_from_slice(question.name.as_bytes());
            [question.kind, CLASS_IN].iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        }
        self.records.iter().for_each(|record| record.encode(&mut bytes));
        bytes
    }
}

impl Record {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let (kind, data) = match &self.data {
            Data::A(ip) => (kind::A, ip.octets().to_vec()),
            Data::Aaaa(ip) => (kind::AAAA, ip.octets().to_vec()),
            Data::Ptr(name) => (kind::PTR, name.as_bytes().to_vec()),
            Data::Srv { priority, port, target } => {
                let numbers = [*priority, 0, *port].map(u16::to_be_bytes).concat();
                (kind::SRV, [&numbers, target.as_bytes()].concat())
            }
            Data::Other(kind) => (*kind, Vec::new()),
        };
        bytes.extend_from_slice(self.name.as_bytes());
        [kind, CLASS_IN].iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        bytes.extend(self.ttl_s.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DnsError> {
        let end = self.at.checked_add(count).ok_or(DnsError)?;
        let taken = self.bytes.get(self.at..end).ok_or(DnsError)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DnsError> {
        self.take(N)?.try_into().map_err(|_| DnsError)
    }

    fn u16(&mut self) -> Result<u16, DnsError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A name here, which may end at an earlier place (RFC 1035 section 4.1.4). Each jump goes
    /// farther back than the one before, so that there is an end.
    fn name(&mut self) -> Result<Name, DnsError> {
        let mut name = Name::root();
        let mut place = Reader { bytes: self.bytes, at: self.at };
        let (mut behind, mut lowest) = (None, self.at);
        for _ in 0..=MAX_JUMPS {
            let jump = place.labels(&mut name)?;
            behind.get_or_insert(place.at);
            let Some(jump) = jump else {
                self.at = behind.unwrap_or(place.at);
                return Ok(name);
            };
            if jump >= lowest || jump < HEADER_BYTES {
                return Err(DnsError);
            }
            (lowest, place.at) = (jump, jump);
        }
        Err(DnsError)
    }

    /// Labels up to the end of the name, or to a jump.
    fn labels(&mut self, name: &mut Name) -> Result<Option<usize>, DnsError> {
        loop {
            let [len] = self.array()?;
            match len {
                0 => return Ok(None),
                1..=63 => name.push(self.take(usize::from(len))?).map_err(|_| DnsError)?,
                0b1100_0000.. => {
                    let [low] = self.array()?;
                    return Ok(Some(usize::from(len & 0b0011_1111) << 8 | usize::from(low)));
                }
                _ => return Err(DnsError),
            }
        }
    }

    /// The record here; `None` for one of another class.
    fn record(&mut self) -> Result<Option<Record>, DnsError> {
        let (name, kind, class) = (self.name()?, self.u16()?, self.u16()?);
        let ttl_s = u32::from_be_bytes(self.array()?);
        let len = usize::from(self.u16()?);
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DnsError)?;
        if kind == kind::OPT || class & !CLASS_FLAG != CLASS_IN {
            self.at = end;
            return Ok(None);
        }
        let data = match kind {
            kind::A => Data::A(Ipv4Addr::from(self.array::<4>()?)),
            kind::AAAA => Data::Aaaa(Ipv6Addr::from(self.array::<16>()?)),
            kind::PTR => Data::Ptr(self.name()?),
            kind::SRV => {
                let (priority, _weight, port) = (self.u16()?, self.u16()?, self.u16()?);
                Data::Srv { priority, port, target: self.name()? }
            }
            _ => {
                self.at = end;
                Data::Other(kind)
            }
        };
        if self.at == end { Ok(Some(Record { name, ttl_s, data })) } else { Err(DnsError) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn some() -> Message {
        let record = |name, data| Record { name, ttl_s: 120, data };
        Message {
            id: 7,
            response: true,
            questions: vec![Question { name: name("_ddr._tcp.example"), kind: kind::SRV }],
            records: vec![
                record(
                    name("_ddr._tcp.example"),
                    Data::Srv { priority: 1, port: 5001, target: name("a.example") },
                ),
                record(name("a.example"), Data::A(Ipv4Addr::new(192, 0, 2, 1))),
                record(name("a.example"), Data::Aaaa(Ipv6Addr::LOCALHOST)),
                record(name("_ddr._tcp.local"), Data::Ptr(name("x._ddr._tcp.local"))),
                record(name("a.example"), Data::Other(16)),
            ],
            ..Message::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Message::decode(&some().encode()), Ok(some()));
        let bytes = some().encode();
        for cut in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..cut]), Err(DnsError), "cut at {cut}");
        }
        assert_eq!(Message::decode(&[bytes, vec![0]].concat()), Err(DnsError));
    }

    #[test]
    fn compressed_names_are_read_and_loops_are_not() {
        let mut bytes = Message { id: 1, ..Message::default() }.encode();
        bytes[5] = 1;
        bytes.extend(b"\x01a\x07example\x00\x00\x21\x00\x01");
        bytes[7] = 1;
        // The answer's name points at the question's second label, below one of its own.
        bytes.extend(b"\x01b\xc0\x0e\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x01");
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.questions[0].name, name("a.example"));
        assert_eq!(message.records[0].name, name("b.example"));
        let at = bytes.len() - 16;
        for target in [at as u8, at as u8 - 2, 0xff, 0] {
            bytes[at + 1] = target;
            assert_eq!(Message::decode(&bytes), Err(DnsError), "a jump to {target}");
        }
    }

    #[test]
    fn more_records_than_allowed_are_refused() {
        let question = Question { name: name("a"), kind: kind::A };
        let with = |count| Message { questions: vec![question.clone(); count], ..some() };
        let rest = some().records.len();
        assert!(Message::decode(&with(MAX_RECORDS - rest).encode()).is_ok());
        assert_eq!(Message::decode(&with(MAX_RECORDS - rest + 1).encode()), Err(DnsError));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert!(message.questions.len() + message.records.len() <= MAX_RECORDS);
            }
        }

        #[test]
        fn one_changed_byte_never_panics(at in 0_usize..100, byte: u8) {
            let mut bytes = some().encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Message::decode(&bytes);
        }
    }
}
