//! A blocking netlink socket: batches of requests, and dumps.
//!
//! The kernel handles the requests of one send in order and without a break,
//! and goes on after a refusal: so a batch holds only requests that are
//! harmless when an earlier one of it was refused.

use super::error::{Errno, WiringError};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use std::{io, net::IpAddr};

/// Large enough for any answer of the kernel's route family (it sends at most 32 KiB at once).
const BUFFER: usize = 64 * 1024;

/// A dump during which the table changed is asked for again this often.
const DUMP_ATTEMPTS: u32 = 8;

const NLMSG_HEADER: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// One request of a batch.
#[derive(Debug)]
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    what: String,
}

impl Request {
    /// A request with its `NLM_F_*` flags beyond REQUEST and ACK, and what it is for, in words that
    /// follow "while".
    pub(crate) fn new(message: RouteNetlinkMessage, flags: u16, what: impl Into<String>) -> Self {
        Self { message, flags, what: what.into() }
    }
}

/// The kernel's answer to one request of a batch.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The object asked for, where the request was a GET.
    pub(crate) message: Option<RouteNetlinkMessage>,
    outcome: Result<(), Errno>,
    what: String,
}

impl Answer {
    /// The positive errno, or 0.
    pub(crate) fn code(&self) -> i32 {
        self.outcome.as_ref().err().map_or(0, |errno| errno.code)
    }

    /// The object, or the refusal as an error.
    pub(crate) fn ok(self) -> Result<Option<RouteNetlinkMessage>, WiringError> {
        match self.outcome {
            Ok(()) => Ok(self.message),
            Err(errno) => Err(WiringError::Netlink { what: self.what, errno }),
        }
    }

    /// The object; none where the kernel answered with one of `absent`.
    pub(crate) fn unless(self, absent: &[i32]) -> Result<Option<RouteNetlinkMessage>, WiringError> {
        if absent.contains(&self.code()) { Ok(None) } else { self.ok() }
    }
}

/// A route socket of one namespace.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket in the calling thread's namespace; it stays there.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Lets the kernel filter dumps; kernels before 4.20 do not know it and we filter again anyway.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends all requests at once and reads all answers, in order of the requests.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, WiringError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(requests.len() * 128);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            self.push(&mut bytes, request.message, request.flags | NLM_F_ACK);
            answers.push((Answer { message: None, outcome: Ok(()), what: request.what }, false));
        }
        let what = "answering a batch";
        self.socket.send(&bytes, 0).map_err(|source| WiringError::io("sending a batch", source))?;
        let mut open = answers.len();
        while open > 0 {
            for message in self.receive(what)? {
                let n = message.header.sequence_number.wrapping_sub(first) as usize;
                let Some((answer, done)) = answers.get_mut(n) else { continue };
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        if let Some(code) = error.code {
                            let reason = reason(message.header.flags, &error.header);
                            answer.outcome = Err(Errno { code: code.get().saturating_abs(), reason });
                        }
                        if !*done {
                            *done = true;
                            open -= 1;
                        }
                    }
                    NetlinkPayload::InnerMessage(inner) => answer.message = Some(inner),
                    _ => {}
                }
            }
        }
        Ok(answers.into_iter().map(|(answer, _)| answer).collect())
    }

    /// One request.
    pub(crate) fn one(&mut self, request: Request) -> Result<Answer, WiringError> {
        let what = request.what.clone();
        self.batch(vec![request])?
            .pop()
            .ok_or_else(|| WiringError::io(&what, io::Error::from(io::ErrorKind::UnexpectedEof)))
    }

    /// All objects of a kind; asked for again when the table changed meanwhile.
    pub(crate) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, WiringError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(items) = self.try_dump(message, what)? {
                return Ok(items);
            }
        }
        Err(WiringError::Netlink {
            what: what.to_owned(),
            errno: Errno {
                code: nix::libc::EBUSY,
                reason: Some("the table keeps changing while it is read".to_owned()),
            },
        })
    }

    fn try_dump(
        &mut self,
        message: &RouteNetlinkMessage,
        what: &str,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, WiringError> {
        let mut bytes = Vec::new();
        self.push(&mut bytes, message.clone(), NLM_F_DUMP);
        self.socket.send(&bytes, 0).map_err(|source| WiringError::io(what, source))?;
        let mut items = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive(what)? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        let errno = Errno { code: done.code.saturating_abs(), reason: None };
                        return Err(WiringError::Netlink { what: what.to_owned(), errno });
                    }
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(items)),
                    NetlinkPayload::Error(error) => {
                        let code = error.code.map_or(0, |code| code.get().saturating_abs());
                        let reason = reason(message.header.flags, &error.header);
                        let errno = Errno { code, reason };
                        return Err(WiringError::Netlink { what: what.to_owned(), errno });
                    }
                    NetlinkPayload::InnerMessage(inner) => items.push(inner),
                    _ => {}
                }
            }
        }
    }

    fn push(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
        // The next message of a batch begins on a four-byte boundary.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }

    fn receive(&self, what: &str) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, WiringError> {
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(WiringError::io(what, error)),
            }
        }
        let nonsense = |why: String| WiringError::io(what, io::Error::new(io::ErrorKind::InvalidData, why));
        let mut rest = buffer.as_slice();
        let mut messages = Vec::new();
        while rest.len() >= NLMSG_HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let Some(message) = rest.get(..length).filter(|_| length >= NLMSG_HEADER) else {
                return Err(nonsense(format!("a message of {length} bytes in {}", rest.len())));
            };
            messages.push(NetlinkMessage::deserialize(message).map_err(|error| nonsense(error.to_string()))?);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

/// The kernel's words in an extended ACK; behind the header of the refused request.
fn reason(flags: u16, payload: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let mut rest = payload.get(NLMSG_HEADER..)?;
    while let Some(header) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let value = rest.get(4..length)?;
        if kind == NLMSGERR_ATTR_MSG {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The family of an address, as netlink wants it.
pub(crate) fn family_of(address: IpAddr) -> netlink_packet_route::AddressFamily {
    match address {
        IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
        IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
    }
}

/// The prefix length that means one address.
pub(crate) fn host_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
