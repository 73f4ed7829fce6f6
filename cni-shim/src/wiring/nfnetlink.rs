//! The netfilter family of netlink: messages, and dumps.
//!
//! Written by hand because it takes so little of it; the layout is that of linux/netfilter/nfnetlink.h. Lengths
//! and types are in the machine's order, what netfilter means by its attributes mostly in the network's.

use super::WiringError;
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use std::io;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const BUFFER: usize = 64 * 1024;
const ATTEMPTS: u32 = 8;

/// A list of attributes being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// As they are sent.
    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same with one more.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = 4 + value.len();
        self.0.extend((length as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The same with a text, as C ends it.
    pub(crate) fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// The same with a list inside.
    pub(crate) fn with_list(self, kind: u16, list: &Self) -> Self {
        self.with(kind | NLA_F_NESTED, &list.0)
    }
}

/// The attributes in these bytes, up to where they make no sense.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// What the kernel answers with, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object<'a> {
    /// `NFPROTO_*`.
    pub(crate) family: u8,
    /// Its attributes, as they came.
    pub(crate) attributes: &'a [u8],
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Its subsystem and type.
    pub(crate) kind: (u16, u16),
    /// `NFPROTO_*`.
    pub(crate) family: u8,
    /// `NLM_F_*` beyond REQUEST.
    pub(crate) flags: u16,
    pub(crate) attributes: Attributes,
}

impl Message {
    fn bytes(&self, sequence: u32) -> Vec<u8> {
        let (subsystem, kind) = self.kind;
        bytes(subsystem << 8 | kind, self.flags, sequence, [self.family, 0, 0, 0], &self.attributes)
    }
}

fn bytes(kind: u16, flags: u16, sequence: u32, family: [u8; 4], attributes: &Attributes) -> Vec<u8> {
    let length = HEADER + FAMILY_HEADER + attributes.0.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(family);
    bytes.extend(&attributes.0);
    bytes
}

/// A socket in the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct Netfilter {
    socket: Socket,
    sequence: u32,
    what: &'static str,
}

impl Netfilter {
    /// Opens it; `what` is what for, in words that follow "while".
    pub(crate) fn open(what: &'static str) -> Result<Self, WiringError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(|error| {
            if error.raw_os_error() == Some(nix::libc::EPROTONOSUPPORT) {
                WiringError::Unsupported {
                    what: "nftables in the kernel".to_owned(),
                    cure: "load the kernel module nf_tables".to_owned(),
                }
            } else {
                WiringError::io(what, error)
            }
        })?;
        socket.bind_auto().map_err(|error| WiringError::io(what, error))?;
        Ok(Self { socket, sequence: 0, what })
    }

    /// What `take` makes of all objects asked for; none where the kernel knows of no such thing. Nothing else of them
    /// is kept: a table may hold a million. Asked for again when they changed meanwhile.
    pub(crate) fn dump<T>(
        &mut self,
        message: &Message,
        mut take: impl FnMut(Object<'_>) -> Option<T>,
    ) -> Result<Vec<T>, WiringError> {
        let question = Message { flags: message.flags | NLM_F_DUMP, ..message.clone() };
        for _ in 0..ATTEMPTS {
            self.sequence += 1;
            let sent = self.socket.send(&question.bytes(self.sequence), 0);
            let found = sent.and_then(|_| self.taken(&mut take));
            if let Some(taken) = found.map_err(|error| WiringError::io(self.what, error))? {
                return Ok(taken);
            }
        }
        Err(WiringError::io(self.what, io::Error::other("it keeps changing while it is read")))
    }

    /// Asks for one thing, by its name or key: whether it is there.
    pub(crate) fn has(&mut self, message: &Message) -> Result<bool, WiringError> {
        self.sequence += 1;
        let question = Message { flags: message.flags | NLM_F_ACK, ..message.clone() };
        let failed = |source| WiringError::io(self.what, source);
        self.socket.send(&question.bytes(self.sequence), 0).map_err(failed)?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|number, kind, _, body| {
                if (number, kind) == (self.sequence, NLMSG_ERROR) {
                    answer = Some(errno(body));
                }
            })
            .map_err(failed)?;
        }
        match answer.flatten() {
            None => Ok(true),
            Some(nix::libc::ENOENT) => Ok(false),
            Some(code) => Err(failed(io::Error::from_raw_os_error(code))),
        }
    }

    /// Has the kernel do all of these, or none where it refuses one: its answer.
    pub(crate) fn transact(&mut self, subsystem: u16, messages: &[Message]) -> io::Result<()> {
        let [high, low] = subsystem.to_be_bytes();
        let frame = |kind| bytes(kind, 0, 0, [0, 0, high, low], &Attributes::default());
        let Some((last, others)) = messages.split_last() else { return Ok(()) };
        // All answers come before the first is read, and only so many are kept: the refusal is the first.
        self.socket.set_no_enobufs(true)?;
        let mut all = frame(NFNL_MSG_BATCH_BEGIN);
        for message in others {
            self.sequence += 1;
            all.extend(message.bytes(self.sequence));
        }
        self.sequence += 1;
        // One is enough: a refusal is answered unasked, and ahead of it.
        let last = Message { flags: last.flags | NLM_F_ACK, ..last.clone() };
        all.extend(last.bytes(self.sequence));
        all.extend(frame(NFNL_MSG_BATCH_END));
        self.socket.send(&all, 0)?;
        let (mut done, mut refused) = (false, None);
        while !done {
            self.receive(|number, kind, _, body| {
                if kind == NLMSG_ERROR {
                    refused = refused.or(errno(body));
                    // A refusal may as well be that of the frame.
                    done |= number == self.sequence || refused.is_some();
                }
            })?;
        }
        refused.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// Has the kernel do what it can of these; it has, once this returns.
    pub(crate) fn attempt(&mut self, messages: &[Message]) -> io::Result<()> {
        /// Less than any socket takes at once.
        const AT_ONCE: usize = 64;
        for messages in messages.chunks(AT_ONCE) {
            let all: Vec<u8> = messages.iter().flat_map(|message| message.bytes(0)).collect();
            self.socket.send(&all, 0)?;
        }
        Ok(())
    }

    /// What is made of one dump; none when it was interrupted by a change.
    fn taken<T>(&self, take: &mut impl FnMut(Object<'_>) -> Option<T>) -> io::Result<Option<Vec<T>>> {
        let mut dump = Dump::default();
        while dump.end.is_none() {
            self.receive(|number, kind, flags, body| {
                if number == self.sequence {
                    dump.hear(kind, flags, body, take);
                }
            })?;
        }
        dump.outcome()
    }

    /// Hands over what comes next: number, type, flags and body of each message.
    fn receive(&self, mut each: impl FnMut(u32, u16, u16, &[u8])) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut rest = buffer.as_slice();
        while let Some(header) = rest.get(..HEADER) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let flags = u16::from_ne_bytes([header[6], header[7]]);
            let number = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            let Some(body) = rest.get(HEADER..length) else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            each(number, kind, flags, body);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// One dump, as far as it has come.
#[derive(Debug)]
struct Dump<T> {
    taken: Vec<T>,
    interrupted: bool,
    /// How it ended: an errno, 0 for well.
    end: Option<i32>,
}

impl<T> Default for Dump<T> {
    fn default() -> Self {
        Self { taken: Vec::new(), interrupted: false, end: None }
    }
}

impl<T> Dump<T> {
    fn hear(&mut self, kind: u16, flags: u16, body: &[u8], take: &mut impl FnMut(Object<'_>) -> Option<T>) {
        self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        match kind {
            // A dump that fails half way says so where it ends.
            NLMSG_DONE | NLMSG_ERROR => self.end = Some(errno(body).unwrap_or_default()),
            _ => {
                let object = body.split_at_checked(FAMILY_HEADER);
                let object = object.map(|(header, attributes)| Object { family: header[0], attributes });
                self.taken.extend(object.and_then(take));
            }
        }
    }

    fn outcome(self) -> io::Result<Option<Vec<T>>> {
        match self.end.unwrap_or_default() {
            0 => Ok((!self.interrupted).then_some(self.taken)),
            nix::libc::ENOENT => Ok(Some(Vec::new())),
            // What is asked for changed under the dump.
            nix::libc::EAGAIN | nix::libc::EINTR => Ok(None),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// The positive errno of an answer, if it is a refusal.
fn errno(body: &[u8]) -> Option<i32> {
    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    Some(code.saturating_abs()).filter(|code| *code != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_go_both_ways() {
        let inner = Attributes::default().with(3, &[1, 2, 3]);
        let outer = Attributes::default().with_text(1, "hello").with_list(2, &inner);
        assert_eq!(attribute(&outer.0, 1).unwrap(), b"hello\0");
        assert_eq!(attribute(attribute(&outer.0, 2).unwrap(), 3).unwrap(), [1, 2, 3]);
        assert_eq!(attribute(&outer.0, 3), None);
        assert_eq!(attributes(&outer.0).count(), 2);
        // Cut anywhere, what is whole is read and the rest is left.
        for end in 0..outer.0.len() {
            assert!(attributes(&outer.0[..end]).count() < 2);
        }
        // A length of zero ends it.
        assert_eq!(attributes(&[0, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
    }
    #[test]
    fn a_dump_ends_as_its_last_message_says() {
        let heard = |messages: &[(u16, u16, &[u8])]| {
            let mut dump = Dump::default();
            for (kind, flags, body) in messages {
                dump.hear(*kind, *flags, body, &mut |object| object.attributes.first().copied());
            }
            dump.outcome()
        };
        let object: (u16, u16, &[u8]) = (0x0a07, 0, &[1, 0, 0, 0, 7]);
        let ended = |kind, code: i32| {
            let body = (-code).to_ne_bytes();
            heard(&[object, (kind, 0, &body)]).map_err(|error| error.raw_os_error())
        };
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            assert_eq!(ended(kind, 0), Ok(Some(vec![7])));
            assert_eq!(ended(kind, nix::libc::ENOENT), Ok(Some(Vec::new())));
            assert_eq!(ended(kind, nix::libc::EINTR), Ok(None), "it is asked for again");
            assert_eq!(ended(kind, nix::libc::ENOMEM), Err(Some(nix::libc::ENOMEM)), "half is not all");
        }
        let again = [object, (object.0, NLM_F_DUMP_INTR, object.2), (NLMSG_DONE, 0, &[0; 4])];
        assert_eq!(heard(&again).unwrap(), None);
    }
}
