//! ADD: intent first, then the service and the kernel at the same time.

mod picking;
pub(super) mod ports;

use self::picking::Picked;
use super::{
    NodeContext, failure, forgetting,
    living::living,
    node::{Ground, asks, egress, prefixes},
    sync::{self, catch_up},
};
use crate::{
    cni::{CniError, Code, Interface, Invocation, Ip, NetConf, PluginResult, Route, WhenUnreachable, Wishes},
    fault::{self, Point},
    journal::{AttachmentLock, ClaimFile, Conflict, Entry, NetworkAsks, Uptime},
    log,
    ports::PortMapping,
    service::{Heard, Patience, Service},
    wiring::{
        self, Host, HostEnd, Pod, Turn, WiringError,
        conntrack::Forgetting,
        gateway_for,
        transparent::{self, Unwiring, Wired, Wiring},
    },
};
use ipam_api::{
    names::Attachment,
    wire::{Allocation, AllocationState, EntryState, Problem, ProblemType},
};
use ipnet::IpNet;
use std::{net::IpAddr, path::Path, time::Instant};

/// How many addresses an ADD tries before it leaves the next try to the runtime.
const TRIES: usize = 4;

/// A pod on the network.
#[derive(Debug)]
pub struct Added {
    /// What to print.
    pub result: PluginResult,
    uplink: wiring::Uplink,
    addresses: Vec<IpAddr>,
    ports: Vec<PortMapping>,
}

impl Added {
    /// Has other processes tell the segment where the addresses are now, and the kernel that flows to UDP ports
    /// have another end. The pod works without; do it once the result is printed.
    pub fn announce(&self) {
        if let Err(error) = wiring::announce::detached(&self.uplink, &self.addresses) {
            log::warn(format_args!("nobody announces {:?}: {error}", self.addresses));
        }
        if let Err(error) = Forgetting::ports(&self.addresses, &self.ports).detached(None) {
            log::warn(format_args!("flows to its UDP ports are not forgotten: {error}"));
        }
    }
}

/// Whose word counts for what a network asks of the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The configuration's, from now on.
    Configured,
    /// The last one's that said something: who attaches a pod by hand, without a configuration, says nothing of it.
    AsBefore,
}

/// Attaches a container for whoever asked for it at `since`. On failure nothing that this call made is left, but an
/// entry that says so.
///
/// # Errors
/// In the specification's codes and our own.
pub fn add(invocation: &Invocation, conf: &NetConf, since: Uptime, word: Word) -> Result<Added, CniError> {
    refuse_predecessor(conf)?;
    let wishes = Wishes::read(invocation, conf)?;
    conf.node.check_access()?;
    let netns = invocation.netns.as_deref().ok_or_else(|| {
        CniError::new(Code::Environment, "required environment variables [CNI_NETNS] are missing or empty")
    })?;
    // Before any thread, and before anything else: a wrong namespace harms nothing.
    let mut pod = Pod::open(netns)?;
    let mut host = Host::open()?;
    let attachment = invocation.attachment(&conf.network);
    if !HostEnd::is_told_by_alias(&attachment) {
        return Err(CniError::new(
            Code::Environment,
            format!("network, CNI_CONTAINERID and CNI_IFNAME together are too long: {attachment}"),
        )
        .details(
            "the host end's alias holds 255 bytes with the slashes between them; shorten the network's name",
        ));
    }
    let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)?;
    let _attaching = context.journal.begin_attaching(since)?.ok_or_else(|| {
        CniError::new(
            Code::TryAgain,
            "cni-shim is being uninstalled from this node, or was since this ADD began",
        )
        .details("`cni-shim install` takes the node into use again")
    })?;
    let _lock = AttachmentLock::take(&conf.node.state_dir, &attachment.network, &attachment.container_id)?;
    refuse_second(&context, &attachment)?;
    let mut service = Service::of(&conf.node, Patience::Heed);
    let mut claim = context.usable(&service)?;
    if claim.forgotten.is_some() {
        // Before anything is sent: the journal may have been rebuilt since.
        refuse_second(&context, &attachment)?;
        // What rests is known to the service alone. Asking costs no more time than an ADD has without it.
        let end = Instant::now() + conf.node.timeout;
        service = service.until(end);
        sync::remember(&context, &service, end);
        claim = context.usable(&service)?;
    }
    let uplink = match context.uplink.clone() {
        Some(uplink) => uplink,
        // Again, for the reason why there is none.
        None => wiring::uplink::find(&mut host, conf.uplink.as_deref())?,
    };
    let ports = ports::ours(&wishes.ports, conf);
    ports::refuse_impossible(&ports, &claim, &context)?;
    let ground = Ground::of(uplink, &claim, &context.journal, &context.boot_id);
    let asks = match word {
        Word::Configured => Some(asks(conf)),
        Word::AsBefore => context.journal.networks().remove(&conf.network),
    };
    let turn = context.turn()?;
    let mut add = Add {
        invocation,
        conf,
        wishes,
        ports,
        word,
        asks,
        netns,
        attachment,
        context,
        service,
        ground,
        turn,
        host: &mut host,
        pod: &mut pod,
        taken: Vec::new(),
    };
    let mut last = None;
    for _ in 0..TRIES {
        match add.attempt()? {
            Attempt::Added(added) => return Ok(*added),
            Attempt::Conflict(why) => {
                if let Some(ips) = &add.wishes.ips {
                    return Err(picking::not_free(ips, &why));
                }
                last = Some(why);
            }
        }
    }
    Err(CniError::new(Code::TryAgain, format!("{TRIES} addresses of the block turned out to be in use"))
        .details(last.unwrap_or_default()))
}

/// Refuses to come after another plugin: the pod's interface is ours to make.
fn refuse_predecessor(conf: &NetConf) -> Result<(), CniError> {
    match &conf.prev_result {
        Some(serde_json::Value::Object(before)) if !before.is_empty() => {
            Err(CniError::new(Code::InvalidConfig, "prevResult is there, but cni-shim makes the interface")
                .details("put cni-shim first in the list of plugins"))
        }
        _ => Ok(()),
    }
}

/// Refuses an attachment that lives already.
fn refuse_second(context: &NodeContext<'_>, attachment: &Attachment) -> Result<(), CniError> {
    let picture = context.journal.picture()?;
    refuse_live(&picture.live(attachment))?;
    // Its entry may be one that cannot be read: the host knows.
    if let Some(unread) = picture.unsound.into_iter().find(|file| file.holds.is_none())
        && context.survey(&[])?.ends.iter().any(|end| end.attachment == *attachment)
    {
        return Err(unread.error.into());
    }
    Ok(())
}

fn refuse_live(live: &[Entry]) -> Result<(), CniError> {
    let Some(entry) = live.first() else { return Ok(()) };
    let what = match entry.state {
        EntryState::Intent => "an earlier ADD of it did not end",
        EntryState::Wired => "it is attached",
        EntryState::Releasing | EntryState::Released => "an earlier DEL of it did not end",
    };
    Err(CniError::new(Code::Environment, format!("{} has {} already", entry.attachment(), entry.address))
        .details(format!("{what}; DEL it first; nothing was changed")))
}

struct Add<'a> {
    invocation: &'a Invocation,
    conf: &'a NetConf,
    wishes: Wishes,
    /// The node's ports that are to lead to the pod.
    ports: Vec<PortMapping>,
    word: Word,
    /// What the network asks of the node, as far as known.
    asks: Option<NetworkAsks>,
    netns: &'a Path,
    attachment: Attachment,
    context: NodeContext<'a>,
    service: Service,
    ground: Ground,
    /// Locked by the process that sets the node up.
    turn: Turn,
    host: &'a mut Host,
    pod: &'a mut Pod,
    /// Addresses of the block that the host uses, once one turned out to be so.
    taken: Vec<IpAddr>,
}

enum Attempt {
    Added(Box<Added>),
    /// The address is in use; another may do.
    Conflict(String),
}

impl Add<'_> {
    fn attempt(&mut self) -> Result<Attempt, CniError> {
        fault::at(Point::AddBeforeIntent);
        let picked = self.pick()?;
        // By the claim as it is now.
        let Self { ground, context, .. } = self;
        *ground = Ground::of(ground.uplink.clone(), &picked.claim, &context.journal, &context.boot_id);
        fault::at(Point::AddAfterIntent);
        forgetting::end(&self.context.journal, picked.rested);
        // What the service may cost this try, whatever it is asked.
        let end = Instant::now() + self.conf.node.timeout;
        let (wired, heard) = self.wire_and_tell(&picked);
        fault::at(Point::AddAfterPut);
        match (wired, heard) {
            // A thread that is lost in the pod's namespace reaches no service: whatever the
            // answer was, the entry tells it later.
            (Err(error @ WiringError::NetnsLost { .. }), _) => {
                self.undo(&picked, Wire::Not, None, false)?;
                Err(error.into())
            }
            (wired, Heard::Refused(problem)) => {
                if let Err(error) = &wired {
                    log::error(format_args!("{} was not wired either: {error}", self.attachment));
                }
                self.refused(&picked, wired.is_ok(), &problem)
            }
            (Err(error), heard) => {
                let in_use = matches!(error, WiringError::AddressInUse { .. });
                let told = !matches!(heard, Heard::Unreachable { .. });
                let conflict = in_use.then(|| error.to_string());
                self.undo(&picked, Wire::Not, conflict.as_deref(), told)?;
                match conflict {
                    Some(why) => self.conflict(&picked.claim, why),
                    None => Err(error.into()),
                }
            }
            (Ok(_), Heard::Unreachable { reason, .. })
                if self.conf.when_unreachable == WhenUnreachable::Fail =>
            {
                self.undo(&picked, Wire::Done, None, false)?;
                Err(CniError::new(Code::TryAgain, "the service cannot be reached").details(format!(
                    "{reason}; with \"whenUnreachable\": \"use-block\" pods start without it"
                )))
            }
            (Ok(wired), heard) => self.done(&picked, &wired, &heard, end),
        }
    }

    /// Wires the pod here while a thread of its own tells the service.
    fn wire_and_tell(&mut self, picked: &Picked) -> (Result<Wired, WiringError>, Heard<Allocation>) {
        let entry = &picked.entry;
        let stamp = self.context.stamp(&picked.claim, entry.seq);
        let (service, attachment) = (&self.service, &self.attachment);
        let network = self.asks.iter().map(|asks| (&self.conf.network, asks));
        let preparation = self.ground.preparation(network, &entry.addresses, &entry.ports);
        let wiring = Wiring {
            attachment,
            addresses: &entry.addresses,
            node_addresses: &picked.claim.node.addresses,
            uplink: &self.ground.uplink,
            mtu: self.conf.mtu.unwrap_or(0),
            mac: entry.mac,
            ports: &entry.ports,
            egress: self.asks.as_ref().map(egress).unwrap_or_default(),
        };
        let journal = &self.context.journal;
        let (host, pod) = (&mut *self.host, &mut *self.pod);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| service.hold(attachment, &stamp, entry.address, entry.pod.as_ref()));
            let prepared = wiring::host::prepare(wiring.uplink, &preparation, &self.turn, || living(journal));
            let wired = prepared.and_then(|changed| {
                for change in changed {
                    log::info(format_args!("set {change}"));
                }
                transparent::wire(host, pod, &wiring)
            });
            fault::at(Point::AddAfterWire);
            let heard = call.join().unwrap_or_else(|_| {
                let reason = "the thread that asked it ended early".to_owned();
                Heard::Unreachable { reason, problem: None }
            });
            (wired, heard)
        })
    }

    /// The pod is wired and the service has it on record, or will.
    fn done(
        &mut self,
        picked: &Picked,
        wired: &Wired,
        heard: &Heard<Allocation>,
        end: Instant,
    ) -> Result<Attempt, CniError> {
        let entry = &picked.entry;
        let told = matches!(heard, Heard::Done(_));
        // Another state means that something newer is known there: a sync will settle it.
        let held = matches!(heard, Heard::Done(allocation) if allocation.state == AllocationState::Held
            && allocation.addresses.iter().any(|held| held.address == entry.address));
        let held = match self.record(picked, held) {
            Ok(Some(held)) => held,
            Ok(None) => {
                self.undo(picked, Wire::Done, None, false)?;
                return Err(CniError::new(
                    Code::Journal,
                    format!("the entry of {} vanished during ADD", entry.address),
                )
                .details("something else wrote into stateDir; nothing is left of this ADD"));
            }
            Err(error) => {
                // No runtime expects a failed ADD to leave a pod that can talk.
                if let Err(more) = self.undo(picked, Wire::Done, None, false) {
                    log::error(format_args!("{} is not given back yet: {more}", entry.address));
                }
                return Err(error);
            }
        };
        fault::at(Point::AddAfterWired);
        log::info(format_args!(
            "{} at {}{}",
            self.attachment,
            entry.address,
            if held { "" } else { ", not acknowledged" }
        ));
        if told && (picked.behind || !held) {
            catch_up(&self.context, &self.service, end);
        }
        Ok(Attempt::Added(Box::new(Added {
            result: self.result(entry, wired),
            uplink: self.ground.uplink.clone(),
            addresses: entry.addresses.clone(),
            ports: entry.ports.clone(),
        })))
    }

    /// Makes the entry `wired`, and acknowledged where the service's answer still counts:
    /// whether it does, `None` if the entry is not the one of this ADD any more.
    fn record(&self, picked: &Picked, held: bool) -> Result<Option<bool>, CniError> {
        let entry = &picked.entry;
        let mut locked = self.context.journal.lock()?;
        let held = held && locked.is_current(&picked.claim)?;
        let mut ours = false;
        locked.change(entry.address, &self.attachment, |now| {
            // Wired already where the journal was lost and rebuilt meanwhile. In any other
            // state somebody has begun to take the attachment away.
            ours = matches!(now.state, EntryState::Intent | EntryState::Wired);
            if ours {
                if held {
                    now.ack(EntryState::Intent, entry.seq);
                }
                now.wired(Uptime::now());
            }
        })?;
        Ok(ours.then_some(held))
    }

    fn result(&self, entry: &Entry, wired: &Wired) -> PluginResult {
        let addresses = || entry.addresses.iter().copied();
        let default = |address: IpAddr| match address {
            IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        PluginResult {
            interfaces: vec![
                Interface {
                    name: wired.host_name.clone(),
                    mac: wired.host_mac.to_string(),
                    sandbox: String::new(),
                    mtu: Some(wired.mtu),
                },
                Interface {
                    name: self.attachment.if_name.to_string(),
                    mac: wired.pod_mac.to_string(),
                    sandbox: self.netns.to_string_lossy().into_owned(),
                    mtu: Some(wired.mtu),
                },
            ],
            ips: addresses()
                .map(|a| Ip { address: IpNet::from(a), gateway: Some(gateway_for(a)), interface: Some(1) })
                .collect(),
            routes: wired
                .tables
                .iter()
                .map(|&(a, table)| Route {
                    dst: default(a),
                    gw: Some(gateway_for(a)),
                    table: Some(table).filter(|table| *table != wiring::MAIN_TABLE),
                })
                .collect(),
            dns: self.wishes.dns.clone(),
        }
    }

    fn refused(&mut self, picked: &Picked, wired: bool, problem: &Problem) -> Result<Attempt, CniError> {
        let wire = if wired { Wire::Done } else { Wire::Not };
        match problem.kind {
            ProblemType::AddressTaken => {
                log::warn(format_args!("{} is taken: {}", picked.entry.address, problem.detail));
                self.undo(picked, wire, Some(&problem.detail), true)?;
                self.conflict(&picked.claim, problem.detail.clone())
            }
            ProblemType::StaleClaim => {
                // The pod first: whatever keeps the journal from being written must not keep it wired.
                self.undo(picked, wire, None, false)?;
                self.context.journal.lock()?.stale(&picked.claim, &problem.detail)?;
                Err(self.context.stale(&problem.detail))
            }
            _ => {
                self.undo(picked, wire, None, true)?;
                Err(failure::refused(problem))
            }
        }
    }

    /// The next try avoids what the host uses, seen once.
    fn conflict(&mut self, claim: &ClaimFile, why: String) -> Result<Attempt, CniError> {
        if self.taken.is_empty() {
            self.taken.extend(self.context.survey(&prefixes(claim))?.taken);
        }
        Ok(Attempt::Conflict(why))
    }

    /// Takes back what this call made and nothing else. The entry stays, as
    /// released: a request of ours that is still on its way is older than that.
    fn undo(
        &mut self,
        picked: &Picked,
        wire: Wire,
        conflict: Option<&str>,
        tell: bool,
    ) -> Result<(), CniError> {
        let entry = &picked.entry;
        if wire == Wire::Done {
            let unwiring = Unwiring {
                attachment: &self.attachment,
                addresses: &entry.addresses,
                uplink: Some(&self.ground.uplink.name),
                mac: entry.mac,
                ports: &entry.ports,
            };
            if let Err(error) = transparent::unwire(self.host, Some(self.pod), &unwiring) {
                // The address is not free as long as the interface is there: DEL goes on with it.
                log::error(format_args!("{} of a failed ADD is still wired: {error}", self.attachment));
                let change = |entry: &mut Entry| entry.releasing(Uptime::now());
                self.context.journal.lock()?.change(entry.address, &self.attachment, change)?;
                return Ok(());
            }
        }
        fault::at(Point::UndoAfterUnwire);
        let released = {
            let mut locked = self.context.journal.lock()?;
            let seq = locked.draw()?;
            locked.change(entry.address, &self.attachment, |entry| {
                entry.released(seq, Uptime::now());
                entry.conflict =
                    conflict.map(|reason| Conflict { reason: reason.to_owned(), since: Uptime::now() });
            })?
        };
        fault::at(Point::UndoAfterReleased);
        if let Some(released) = released.filter(|_| tell) {
            super::del::tell(&self.context, &self.service, &picked.claim, &released)?;
        }
        Ok(())
    }
}

/// Whether there is something to unwire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// The pod is wired.
    Done,
    /// It never was, or the wiring took itself back.
    Not,
}
