//! Asking the segment who has an address: ARP (RFC 5227), neighbour discovery (RFC 4862, 5.4).

use super::{
    Host, Mac, Uplink, WiringError,
    announce::link_address,
    frame::{
        ADVERTISEMENT, ETHERNET, ETHERTYPE_ARP, ETHERTYPE_IPV6, IPV6, NEXT_HEADER_ICMPV6, SOLICITATION,
        arp_probe, arp_request, holder, solicitation,
    },
    link,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
        sockopt,
    },
};
use socket2::{SockFilter, SockRef};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

/// How often each address is asked for, as RFC 5227's `PROBE_NUM`.
const ROUNDS: [Question; 3] = [Question::Probe, Question::Request, Question::Probe];
/// Many addresses are asked for one after another, at this pace, so that no switch takes it for a storm.
const PER_SECOND: u32 = 500;
/// From the last question of a round to the next, and to the end: a proxy may wait 0.8 s with its answer
/// (`proxy_delay`), and RFC 5227 lets `PROBE_MIN` pass.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a full queue is waited for.
const FULL: Duration = Duration::from_millis(10);
const FULL_AT_MOST: usize = 100;
/// For the answers to a burst of questions.
const QUEUE: usize = 1 << 20;
/// The longest frame that counts, with room for options.
const LONGEST: usize = 512;

/// How a round asks for an IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// From nobody: no neighbour table changes. Linux answers so for its own addresses only.
    Probe,
    /// From the node's own address, as before any packet: Linux answers for those it is a proxy for as well,
    /// which are the pods of a node that should be gone.
    Request,
}

/// Asks for addresses on the uplink, three times each, until somebody answers: who has them that is none of
/// this host's own interfaces. Takes some seconds and one for every 170 addresses; nothing else
/// waits for it, and packets of pods pass meanwhile.
///
/// # Errors
/// [`WiringError::Unsupported`] where it is of no use to try again: no Ethernet, no raw sockets;
/// [`WiringError::Probe`] where the uplink was down or went away: then silence says nothing.
pub fn probe(
    host: &mut Host,
    uplink: &Uplink,
    addresses: &BTreeSet<IpAddr>,
) -> Result<BTreeMap<IpAddr, Mac>, WiringError> {
    let Some(mac) = uplink.mac else {
        return Err(unsupported(&format!("{} has no Ethernet address", uplink.name)));
    };
    let own = own_macs(host)?;
    let from = uplink.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    if !is_up(host, uplink)? {
        return Err(WiringError::Probe { uplink: uplink.name.clone(), reason: "it is down".to_owned() });
    }
    let mut asking = Asking { uplink, socket: open(uplink)?, own, addresses, answers: BTreeMap::new() };
    for question in ROUNDS {
        let began = Instant::now();
        let open: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| !asking.answers.contains_key(address)).collect();
        for (n, address) in open.iter().enumerate() {
            asking.listen(began + turn(n))?;
            if !asking.answers.contains_key(address) {
                asking.ask(&frame(mac, question, from, *address))?;
            }
        }
        asking.listen(began.max(Instant::now()) + PATIENCE)?;
    }
    if !is_up(host, uplink)? {
        return Err(asking.failed("it went down meanwhile"));
    }
    Ok(asking.answers)
}

/// When the question of this number is put, counted from the first.
fn turn(number: usize) -> Duration {
    Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / PER_SECOND
}

fn frame(mac: Mac, question: Question, from: Option<Ipv4Addr>, address: IpAddr) -> Vec<u8> {
    match (address, question, from) {
        (IpAddr::V4(address), Question::Request, Some(from)) => arp_request(mac, from, address),
        (IpAddr::V4(address), ..) => arp_probe(mac, address),
        // Answered by proxies too.
        (IpAddr::V6(address), ..) => solicitation(mac, address),
    }
}

fn own_macs(host: &mut Host) -> Result<BTreeSet<Mac>, WiringError> {
    Ok(link::all(&mut host.netlink)?.into_iter().filter_map(|link| link.mac).collect())
}

fn is_up(host: &mut Host, uplink: &Uplink) -> Result<bool, WiringError> {
    Ok(link::by_index(&mut host.netlink, uplink.index)?.is_some_and(|link| link.up && link.carrier))
}

fn unsupported(why: &str) -> WiringError {
    WiringError::Unsupported {
        what: "asking the segment for strangers".to_owned(),
        cure: format!("{why}; an address that somebody else has is found only when a pod gets it"),
    }
}

/// A socket that hears and says frames of ARP and neighbour discovery on the uplink, and no others.
fn open(uplink: &Uplink) -> Result<OwnedFd, WiringError> {
    let refused = |errno: Errno| match errno {
        Errno::EPERM | Errno::EACCES | Errno::EAFNOSUPPORT => {
            unsupported(&format!("a packet socket is refused: {}", errno.desc()))
        }
        errno => WiringError::Probe { uplink: uplink.name.clone(), reason: errno.desc().to_owned() },
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).map_err(refused)?;
    let failed = |reason: String| WiringError::Probe { uplink: uplink.name.clone(), reason };
    // Without it every packet of every pod would come here, and the answers be lost among them.
    SockRef::from(&socket).attach_filter(&filter()).map_err(|error| failed(error.to_string()))?;
    let target = link_address(&uplink.name).map_err(failed)?;
    bind(socket.as_raw_fd(), &target).map_err(refused)?;
    // What was heard before that may be of another interface, such as a pod's own.
    while recv(socket.as_raw_fd(), &mut [0; 1], MsgFlags::empty()).is_ok() {}
    // Refused beyond the system's limit without a privilege; then the limit has to do.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
    Ok(socket)
}

/// ARP, and solicitations and advertisements of neighbour discovery right behind the IPv6 header.
fn filter() -> [SockFilter; 10] {
    // Instructions of the kernel's filter.txt: load a half word or a byte, jump so far if equal or not, return.
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let next_header = (ETHERNET + 6) as u32;
    let kind = (ETHERNET + IPV6) as u32;
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(IF_EQUAL, 6, 0, ETHERTYPE_ARP.into()),
        SockFilter::new(IF_EQUAL, 0, 6, ETHERTYPE_IPV6.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, next_header),
        SockFilter::new(IF_EQUAL, 0, 4, NEXT_HEADER_ICMPV6.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, kind),
        SockFilter::new(IF_EQUAL, 1, 0, ADVERTISEMENT.into()),
        SockFilter::new(IF_EQUAL, 0, 1, SOLICITATION.into()),
        SockFilter::new(RETURN, 0, 0, LONGEST as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

struct Asking<'a> {
    uplink: &'a Uplink,
    socket: OwnedFd,
    own: BTreeSet<Mac>,
    addresses: &'a BTreeSet<IpAddr>,
    answers: BTreeMap<IpAddr, Mac>,
}

impl Asking<'_> {
    fn failed(&self, reason: &str) -> WiringError {
        WiringError::Probe { uplink: self.uplink.name.clone(), reason: reason.to_owned() }
    }

    fn ask(&mut self, frame: &[u8]) -> Result<(), WiringError> {
        for _ in 0..FULL_AT_MOST {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => self.listen(Instant::now() + FULL)?,
                Err(errno) => return Err(self.failed(errno.desc())),
            }
        }
        Err(self.failed("its queue stays full"))
    }

    /// Hears what comes until then.
    fn listen(&mut self, until: Instant) -> Result<(), WiringError> {
        loop {
            self.hear()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // A whole millisecond more rather than a turn too many.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.failed(errno.desc())),
            }
        }
    }

    fn hear(&mut self) -> Result<(), WiringError> {
        let mut frame = [0; LONGEST];
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => self.take(frame.get(..length).unwrap_or_default()),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.failed(errno.desc())),
            }
        }
    }

    /// Our own questions come back here too, and what this host answers for its pods.
    fn take(&mut self, frame: &[u8]) {
        if let Some((address, mac)) = holder(frame)
            && self.addresses.contains(&address)
            && !self.own.contains(&mac)
        {
            self.answers.entry(address).or_insert(mac);
        }
    }
}
