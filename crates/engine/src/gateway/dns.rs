//! Names: reading questions, answering them, and asking the engine's own resolver.
//!
//! Messages come from anybody (RFC 1035): every length is checked, and nothing is followed that leads backwards.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// The longest message over UDP without extensions, and more than any answer of ours needs.
pub const LONGEST: usize = 512;
/// Answers are good for so many seconds: an environment is made anew in minutes.
const TTL: u32 = 5;
const HEADER: usize = 12;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without a dot at its end.
    pub name: String,
    /// Its type, as a number.
    pub kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

impl Question {
    /// The type in words.
    pub fn kind_word(&self) -> String {
        match self.kind {
            A => "A".into(),
            PTR => "PTR".into(),
            AAAA => "AAAA".into(),
            5 => "CNAME".into(),
            15 => "MX".into(),
            16 => "TXT".into(),
            33 => "SRV".into(),
            65 => "HTTPS".into(),
            other => format!("type {other}"),
        }
    }

    /// Whether it asks for an address.
    pub fn wants_address(&self) -> bool {
        matches!(self.kind, A | AAAA)
    }

    /// Whether it asks for the name of an address.
    pub fn is_reverse(&self) -> bool {
        self.name.ends_with(".in-addr.arpa") || self.name.ends_with(".ip6.arpa")
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The one question of a query; `None` for what is none.
pub fn question(message: &[u8]) -> Option<Question> {
    let flags = u16_at(message, 2)?;
    // A query (QR = 0) of the standard kind (OPCODE = 0), with one question.
    if flags & 0xF800 != 0 || u16_at(message, 4)? != 1 {
        return None;
    }
    let mut at = HEADER;
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // The first name of a message cannot point anywhere.
        if length > 63 || name.len() + length > 253 {
            return None;
        }
        let label = message.get(at..at + length)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|b| {
            let c = char::from(b.to_ascii_lowercase());
            if c.is_ascii_graphic() && c != '.' { c } else { '?' }
        }));
    }
    let kind = u16_at(message, at)?;
    (u16_at(message, at + 2)? == 1).then_some(Question { name, kind, end: at + 4 })
}

/// What a question is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This address, where one of version 4 is asked for; else nothing.
    Address(Ipv4Addr),
    /// There is no such name.
    NoName,
}

/// The answer's message.
pub fn answer(message: &[u8], question: &Question, answer: Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(question.end + 16);
    out.extend_from_slice(message.get(..2).unwrap_or(&[0, 0]));
    let recursion = message.get(2).copied().unwrap_or_default() & 0x01;
    let code = if answer == Answer::NoName { 3 } else { 0 };
    let address = match answer {
        Answer::Address(address) if question.kind == A => Some(address),
        _ => None,
    };
    out.extend_from_slice(&[0x80 | recursion, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    out.extend_from_slice(message.get(HEADER..question.end).unwrap_or_default());
    if let Some(address) = address {
        // The name of the question, class IN.
        out.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1]);
        out.extend_from_slice(&TTL.to_be_bytes());
        out.extend_from_slice(&[0, 4]);
        out.extend_from_slice(&address.octets());
    }
    out
}

fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|l| (1..=63).contains(l))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    (out.len() <= LONGEST).then_some(out)
}

/// The end of a name that stands at a place of a message.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            0xC0.. => return Some(at + 2),
            1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// A name that stands at a place of a message, pointers followed; they may only lead to earlier places.
fn name_at(message: &[u8], mut at: usize) -> Option<String> {
    let mut name = String::new();
    let mut before = at;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(name),
            0xC0.. => {
                let to = usize::from(u16_at(message, at)? & 0x3FFF);
                if to >= before {
                    return None;
                }
                (at, before) = (to, to);
            }
            1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(&String::from_utf8_lossy(label));
                if name.len() > 253 {
                    return None;
                }
                at += 1 + usize::from(length);
            }
            _ => return None,
        }
    }
}

/// The data of the answers of one type: their place in the message and length.
fn answers(message: &[u8], id: u16, kind: u16) -> Option<Vec<(usize, usize)>> {
    if u16_at(message, 0)? != id || u16_at(message, 2)? & 0x8000 == 0 || u16_at(message, 2)? & 0xF != 0 {
        return None;
    }
    let mut at = HEADER;
    for _ in 0..u16_at(message, 4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..u16_at(message, 6)? {
        at = skip_name(message, at)?;
        let length = usize::from(u16_at(message, at + 8)?);
        if u16_at(message, at)? == kind && message.len() >= at + 10 + length {
            found.push((at + 10, length));
        }
        at += 10 + length;
    }
    Some(found)
}

/// Asks a resolver.
#[derive(Debug, Clone, Copy)]
pub struct Resolver {
    server: SocketAddr,
    limit: Duration,
}

impl Resolver {
    /// One that is asked at an address and answers within a time.
    pub fn new(server: SocketAddr, limit: Duration) -> Self {
        Self { server, limit }
    }

    fn ask(&self, name: &str, kind: u16) -> io::Result<(u16, Vec<u8>)> {
        let mut id = [0; 2];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        let id = u16::from_be_bytes(id);
        let message = query(id, name, kind)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no name that can be asked for"))?;
        let local = if self.server.ip().is_loopback() { "127.0.0.1:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(local)?;
        socket.connect(self.server)?;
        // A datagram may be lost: asked twice, in half the time each.
        socket.set_read_timeout(Some((self.limit / 2).max(Duration::from_millis(1))))?;
        let mut buffer = vec![0; 4096];
        for attempt in 0..2 {
            socket.send(&message)?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok((id, buffer));
                }
                Err(e) if attempt == 1 => return Err(e),
                Err(_) => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The addresses of a name; empty if there are none.
    pub fn addresses(&self, name: &str) -> io::Result<Vec<Ipv4Addr>> {
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Ok(vec![address]);
        }
        let (id, message) = self.ask(name, A)?;
        let found = answers(&message, id, A).unwrap_or_default();
        Ok(found
            .into_iter()
            .filter(|(_, length)| *length == 4)
            .filter_map(|(at, _)| message.get(at..at + 4)?.try_into().ok().map(|o: [u8; 4]| o.into()))
            .collect())
    }

    /// The name of an address, if it has one.
    pub fn name_of(&self, address: Ipv4Addr) -> io::Result<Option<String>> {
        let [a, b, c, d] = address.octets();
        let (id, message) = self.ask(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), PTR)?;
        let found = answers(&message, id, PTR).unwrap_or_default();
        Ok(found.first().and_then(|(at, _)| name_at(&message, *at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(name: &str, kind: u16) -> Vec<u8> {
        query(7, name, kind).expect("a query")
    }

    #[test]
    fn a_question_is_read_and_answered_with_the_address() {
        let message = asked("Api.Example.COM", A);
        let question = question(&message).expect("a question");
        assert_eq!((question.name.as_str(), question.wants_address()), ("api.example.com", true));
        let own = Ipv4Addr::new(172, 16, 0, 2);
        let reply = answer(&message, &question, Answer::Address(own));
        assert_eq!(answers(&reply, 7, A).map(|f| f.len()), Some(1));
        assert!(reply.ends_with(&own.octets()));
        let six = asked("api.example.com", AAAA);
        let reply = answer(&six, &super::question(&six).expect("a question"), Answer::Address(own));
        assert_eq!((answers(&reply, 7, AAAA), reply[3] & 0xF), (Some(vec![]), 0), "empty, not missing");
        let reply = answer(&message, &question, Answer::NoName);
        assert_eq!((reply[3] & 0xF, answers(&reply, 7, A)), (3, None));
    }

    #[test]
    fn hostile_messages_are_no_questions() {
        let good = asked("a.b", A);
        for cut in 0..good.len() {
            assert_eq!(question(&good[..cut]), None, "{cut} bytes");
        }
        let mut pointer = good.clone();
        pointer[HEADER] = 0xC0;
        let mut reply = good.clone();
        reply[2] |= 0x80;
        let mut two = good.clone();
        two[5] = 2;
        for bad in [pointer, reply, two, vec![0; 512], vec![63; 512]] {
            assert_eq!(question(&bad), None);
        }
        let mut odd = asked("axb", A);
        odd[HEADER + 2] = b'\n';
        assert_eq!(question(&odd).expect("a question").name, "a?b");
    }

    #[test]
    fn a_name_that_points_to_itself_is_no_name() {
        let mut message = vec![0; 16];
        message[12] = 0xC0;
        message[13] = 12;
        assert_eq!(name_at(&message, 12), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..700) {
            if let Some(found) = question(&bytes) {
                prop_assert!(answer(&bytes, &found, Answer::Address(Ipv4Addr::LOCALHOST)).len() <= bytes.len() + 16);
            }
            let _ = (answers(&bytes, 7, PTR), name_at(&bytes, at), skip_name(&bytes, at));
        }
    }
}
