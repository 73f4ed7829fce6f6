//! What every story begins with: this node's claim and its journal.

use super::sync;
use crate::{
    cni::{CniError, Code, NetConf, netconf::NodeConf},
    journal::{
        self, Card, ClaimFile, Firmware, Found, Journal, Machine, NetworkAsks, Outcome, Readiness, Standing,
        SysctlWas, Uptime, boot,
    },
    log,
    ports::PortMapping,
    service::{Heard, Service},
    wiring::{
        Host, Turn, Uplink, WiringError,
        host::{self, Advertisements, HostPorts, Masquerade, Metadata, NetworkRules, Preparation},
        host_ports::{self, Published},
        masquerade::Egress,
        survey::{Survey, survey},
        sysctl::Change,
        uplink,
    },
};
use ipam_api::{
    names::NetworkName,
    wire::{Allocator, Node, NodeStamp, Seq},
};
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use std::{io, net::IpAddr};

/// This node, as one process of the plugin sees it.
#[derive(Debug)]
pub struct NodeContext<'a> {
    /// Its configuration.
    pub conf: &'a NodeConf,
    /// Name of the uplink, where the configuration names one.
    pub uplink_name: Option<&'a str>,
    /// The uplink, if there is one.
    pub uplink: Option<Uplink>,
    /// This machine, as this configuration's uplink shows it: for a claim that is not taken up
    /// yet. `None` while it cannot be told.
    pub machine: Option<Machine>,
    firmware: Firmware,
    /// Its journal.
    pub journal: Journal,
    /// The kernel's boot id.
    pub boot_id: String,
}

impl<'a> NodeContext<'a> {
    /// Looks at the boot id and the uplink; touches nothing.
    ///
    /// # Errors
    /// Code 103 if there is no boot id.
    pub fn open(conf: &'a NodeConf, uplink_name: Option<&'a str>, host: &mut Host) -> Result<Self, CniError> {
        let uplink = uplink::find(host, uplink_name).ok();
        let firmware = firmware();
        let mac = uplink.as_ref().and_then(|uplink| uplink.mac);
        Ok(Self {
            journal: Journal::at(&conf.state_dir, &conf.data_dir),
            boot_id: boot::boot_id(&conf.boot_id_file)?,
            machine: mac.and_then(|mac| firmware.machine(mac.to_string())),
            firmware,
            conf,
            uplink_name,
            uplink,
        })
    }

    /// How this process gets its turn to change the node, with what was found written down first.
    pub(crate) fn turn(&self) -> Result<Turn, CniError> {
        turn(&self.journal, self.boot_id.clone())
    }

    /// The header of a request about `seq`.
    pub(super) fn stamp(&self, claim: &ClaimFile, seq: Seq) -> NodeStamp {
        let machine = claim.machine.as_ref().or(self.machine.as_ref());
        claim.stamp(seq, machine.map(|machine| machine.hash.as_str()))
    }

    /// What the service is to know this machine by: what it was told when the claim was taken
    /// up, unless that was on another machine.
    fn known_as(&self, kept: Option<&Machine>) -> Result<Option<Machine>, CniError> {
        let Some(kept) = kept else { return Ok(self.machine.clone()) };
        let mut host = Host::open().map_err(|error| unread(&error))?;
        let card = match uplink::any_has_mac(&mut host, &kept.mac).map_err(|error| unread(&error))? {
            true => Card::Here,
            false => Card::Missing,
        };
        if !kept.is_not(&self.firmware, card) {
            return Ok(Some(kept.clone()));
        }
        // Without a word of it the service would take this one for the other.
        let here = self.machine.clone().ok_or_else(|| {
            CniError::new(
                Code::TryAgain,
                "this is not the machine that took the claim up, and which one it is cannot be told",
            )
            .details("it is known by its uplink's MAC: see to the default route, or name the uplink")
        })?;
        log::warn(format_args!(
            "the claim was taken up on another machine, with a card {}: the service is told of this one",
            kept.mac
        ));
        Ok(Some(here))
    }

    /// Finds out whether this host is the claim's node, before anything is sent in a boot: a copy
    /// of the disk would begin the node's next boot, and with that end all that the node holds.
    pub(super) fn recognise(&self, claim: &ClaimFile) -> Result<(), CniError> {
        let seen = self.survey(&host_prefixes(&claim.node.addresses)).map_err(|error| unread(&error))?;
        if is_elsewhere(&claim.node, &seen) {
            let name = &claim.node.name;
            return Err(CniError::new(
                Code::TryAgain,
                format!("this host does not have {}, by which it is node {name}", own(&claim.node)),
            )
            .details(format!(
                "nothing is sent in {name}'s name; give the host its address; if the disk is a copy, or {name} is \
                 registered with another address by now, delete claim.json in {} first: then the claim is \
                 fetched anew",
                self.conf.data_dir.display()
            )));
        }
        let machine = self.known_as(claim.machine.as_ref())?;
        let mut locked = self.journal.lock()?;
        if let Some(mut now) = locked.claim()?.filter(|now| now.is_as(claim)) {
            now.machine = machine;
            now.host_known_in = Some(self.boot_id.clone());
            locked.save_claim(&now)?;
        }
        Ok(())
    }

    /// What stands in the way of using the journal.
    pub(super) fn readiness(&self) -> Result<Readiness, CniError> {
        Ok(self.journal.lock()?.ready(&self.conf.name, &self.boot_id)?)
    }

    /// A claim that new pods may be started from: fetched, rebuilt and taken up where need be.
    pub(super) fn usable(&self, service: &Service) -> Result<ClaimFile, CniError> {
        // Each step is taken at most once, and others may take them meanwhile.
        for _ in 0..5 {
            match self.readiness()? {
                Readiness::NoClaim => self.fetch(service)?,
                Readiness::Lost(_) => {
                    self.rebuild()?;
                }
                Readiness::Ready(claim) => match &claim.standing {
                    Standing::Planned | Standing::Active if !claim.knows_host() => self.recognise(&claim)?,
                    Standing::Active => return Ok(*claim),
                    Standing::Planned => match sync::sync(self, service)?.outcome {
                        Outcome::Synced => {}
                        _ => break,
                    },
                    Standing::Deleting { .. } => return Err(self.deleting()),
                    Standing::Stale { reason } => return Err(self.stale(reason)),
                },
            }
        }
        Err(CniError::new(Code::TryAgain, "this node's claim changes at this moment; try again"))
    }

    fn deleting(&self) -> CniError {
        CniError::new(
            Code::StaleClaim,
            format!("node {} is being deleted and takes no new pods", self.conf.name),
        )
        .details("move its pods away; `cni-shim sync` confirms the end once none is left")
    }

    pub(super) fn stale(&self, reason: &str) -> CniError {
        CniError::new(
            Code::StaleClaim,
            "the service no longer knows this node's claim; no new pods until it does",
        )
        .details(format!(
            "{reason}; register node {} if need be, then run `cni-shim sync` on it",
            self.conf.name
        ))
    }

    /// Fetches the node's claim for the first time.
    pub(super) fn fetch(&self, service: &Service) -> Result<(), CniError> {
        self.adopt_heard(service.node())
    }

    /// As [`NodeContext::fetch`], of an answer that is there.
    pub(super) fn adopt_heard(&self, heard: Heard<Node>) -> Result<(), CniError> {
        let name = &self.conf.name;
        let unknown = heard.is_not_found();
        match heard {
            Heard::Done(node) => self.adopt(node),
            Heard::Refused(problem) => Err(super::failure::refused(&problem)),
            Heard::Unreachable { reason, .. } if unknown => {
                Err(CniError::new(Code::TryAgain, format!("node {name} is not registered")).details(format!(
                    "{reason}; register it: ipamctl node register {name} --pool POOL --address ADDRESS"
                )))
            }
            Heard::Unreachable { reason, .. } => Err(CniError::new(
                Code::TryAgain,
                format!("node {name} has no block yet and the service cannot be reached"),
            )
            .details(reason)),
        }
    }

    /// Makes a node answer this node's claim.
    pub(super) fn adopt(&self, node: Node) -> Result<(), CniError> {
        if node.allocator != Allocator::Node {
            return Err(CniError::new(
                Code::InvalidConfig,
                format!("node {} has no use for this plugin", node.name),
            )
            .details("it is registered with \"allocator\": \"service\": register it with \"node\""));
        }
        // The host is asked before the lock is taken. A name registered anew may mean
        // another VM: this one takes a claim only if it has the node's address.
        let seen = self.survey(&host_prefixes(&node.addresses)).map_err(|error| unread(&error))?;
        if is_elsewhere(&node, &seen) {
            return Err(CniError::new(
                Code::StaleClaim,
                format!(
                    "node {} is registered with {}, which this host does not have",
                    node.name,
                    own(&node)
                ),
            )
            .details("register the node with the address it has, or give the host that address"));
        }
        let lives = !seen.ends.is_empty();
        let kept = self.journal.claim()?.filter(|kept| kept.node.claim == node.claim);
        let machine = match kept {
            // While it runs a machine stays the same, whatever becomes of its cards.
            Some(kept) if kept.host_known_in.as_ref() == Some(&self.boot_id) => kept.machine,
            kept => self.known_as(kept.and_then(|kept| kept.machine).as_ref())?,
        };
        let now = Uptime::now();
        let mut locked = self.journal.lock()?;
        let before = locked.claim()?;
        // Another process was first. Adopting once more would make the sync that takes the
        // claim up count for nothing: of many first ADDs at once each would undo the others'.
        let stands = |before: &ClaimFile| matches!(before.standing, Standing::Active | Standing::Planned);
        if before.as_ref().is_some_and(|before| stands(before) && before.node.claim >= node.claim) {
            return Ok(());
        }
        let heard_of_this_boot = node.boot.as_ref().is_some_and(|boot| boot.id == self.boot_id);
        let state_dir = self.conf.state_dir.clone();
        let mut claim = ClaimFile::adopt(node, before.as_ref(), &self.boot_id, state_dir, now);
        // Without claim.json nobody here knows of a journal of this boot; the service or the host may.
        claim.journal |= before.is_none() && (heard_of_this_boot || lives);
        claim.adopted_at = locked.draw()?;
        claim.described_as_of = claim.adopted_at;
        claim.machine = machine;
        claim.host_known_in = Some(self.boot_id.clone());
        locked.save_claim(&claim)?;
        locked.forget_end()?;
        log::info(format_args!(
            "claim {} of node {}, boot {}",
            claim.node.claim, claim.node.name, claim.boot.seq
        ));
        Ok(())
    }

    /// Puts a lost journal together again from the host; how many entries it has then.
    pub(super) fn rebuild(&self) -> Result<usize, CniError> {
        let Some(claim) = self.journal.claim()? else { return Ok(0) };
        let own_addresses = host_prefixes(&claim.node.addresses);
        let seen = self.survey(&own_addresses).map_err(|error| unread(&error))?;
        // Run in another network namespace, all would seem gone.
        if is_elsewhere(&claim.node, &seen) {
            return Err(CniError::new(
                Code::TryAgain,
                "the journal is not there, and this is not the network it was about",
            )
            .details(format!(
                "{} is not here: run this in the host's own network namespace, or give the host its address",
                own(&claim.node)
            )));
        }
        let published = host_ports::published().map_err(|error| unread(&error))?;
        let found: Vec<Found> = seen
            .ends
            .into_iter()
            .map(|end| Found {
                attachment: end.attachment,
                host_end: end.name,
                ports: leading_to(&published, &end.addresses),
                addresses: end.addresses,
                mac: end.mac,
            })
            .collect();
        let mut locked = self.journal.lock()?;
        // Another process may have done it while this one looked at the host.
        let Readiness::Lost(mut claim) = locked.ready(&self.conf.name, &self.boot_id)? else { return Ok(0) };
        let entries = journal::rebuild::entries(claim.line()?, &found, Uptime::now(), || locked.draw())?;
        locked.rebuilt(&mut claim, &entries)?;
        log::warn(format_args!("the journal was lost; rebuilt from the host with {} entries", entries.len()));
        Ok(entries.len())
    }

    /// What the host shows within these prefixes. Pods live on without an uplink.
    pub(super) fn survey(&self, within: &[IpNet]) -> Result<Survey, WiringError> {
        let mut host = Host::open()?;
        let uplink = match uplink::find(&mut host, self.uplink_name) {
            Err(WiringError::NoUplink { .. }) => None,
            found => Some(found?),
        };
        survey(&mut host, uplink.as_ref(), within)
    }
}

/// [`NodeContext::turn`] for those who have no context.
pub(crate) fn turn(journal: &Journal, boot_id: String) -> Result<Turn, CniError> {
    let lock = journal.lock_file("host.lock")?;
    let journal = journal.clone();
    Ok(Turn::at(lock, move |changes| {
        let was = |change: &Change| SysctlWas {
            key: change.key.clone(),
            found: change.found.clone(),
            set: change.set.clone(),
        };
        // A pod must not fail for what only uninstalling needs.
        if let Err(error) = journal.change_undo(|undo| undo.take_up(&boot_id, changes.iter().map(was))) {
            let keys: Vec<String> = changes.iter().map(|c| format!("{} was {}", c.key, c.found)).collect();
            log::warn(format_args!("uninstall will not put back that {}: {error}", keys.join(", ")));
        }
    }))
}

fn leading_to(published: &[Published], addresses: &[IpAddr]) -> Vec<PortMapping> {
    let theirs = published.iter().filter(|one| addresses.contains(&one.pod));
    theirs.map(|one| one.mapping).collect()
}

fn firmware() -> Firmware {
    match std::fs::read_to_string("/sys/class/dmi/id/product_uuid") {
        Ok(text) => match text.trim() {
            "" => Firmware::Nameless,
            uuid => Firmware::Named(uuid.to_ascii_lowercase()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Firmware::Nameless,
        Err(_) => Firmware::Unread,
    }
}

fn unread(error: &WiringError) -> CniError {
    CniError::new(Code::TryAgain, "the host cannot be asked what it has and what lives on it")
        .details(error.to_string())
}

/// Whether the host has none of the node's own addresses; asked of a survey of these.
pub(super) fn is_elsewhere(node: &Node, seen: &Survey) -> bool {
    !node.addresses.is_empty() && !node.addresses.iter().any(|own| seen.taken.contains(own))
}

fn own(node: &Node) -> String {
    node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// Addresses as prefixes of one.
pub(super) fn host_prefixes(addresses: &[IpAddr]) -> Vec<IpNet> {
    addresses.iter().copied().map(IpNet::from).collect()
}

/// The block's ranges as pairs of addresses, both families; pods may live as well in what it gave up.
pub(super) fn ranges(claim: &ClaimFile) -> Vec<(IpAddr, IpAddr)> {
    let mut ranges = Vec::new();
    let block = &claim.node.block;
    for range in block.ranges.iter().chain(&block.leaving) {
        ranges.push((range.first, range.last));
        if let (Some(first), Some(last)) = (range.first6, range.last6)
            && range.first.is_ipv4()
        {
            ranges.push((first.into(), last.into()));
        }
    }
    ranges
}

/// The block as prefixes, both families.
pub(crate) fn prefixes(claim: &ClaimFile) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    for range in ranges(claim) {
        match range {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                prefixes.extend(Ipv4Subnets::new(first, last, 0).map(IpNet::V4));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                prefixes.extend(Ipv6Subnets::new(first, last, 0).map(IpNet::V6));
            }
            _ => {}
        }
    }
    prefixes
}

/// What a network's configuration asks of the whole node.
pub(super) fn asks(conf: &NetConf) -> NetworkAsks {
    NetworkAsks {
        masquerade_except: conf.ip_masq.then(|| conf.non_masquerade.clone()),
        block_metadata: conf.block_metadata,
    }
}

/// How pods of a network that asks this are seen outside the VNet.
pub(super) fn egress(asks: &NetworkAsks) -> Egress {
    if asks.masquerade_except.is_some() { Egress::Masqueraded } else { Egress::Plain }
}

/// What the wiring needs of the node besides the pod's addresses.
pub(super) struct Ground {
    pub(super) uplink: Uplink,
    advertisements: Advertisements,
    address_space: Vec<IpNet>,
    node_addresses: Vec<IpAddr>,
}

impl Ground {
    /// In the boot of this id.
    pub(super) fn of(uplink: Uplink, claim: &ClaimFile, journal: &Journal, boot_id: &str) -> Self {
        Self {
            advertisements: advertisements(journal, boot_id, &uplink.name),
            uplink,
            address_space: claim.node.network.address_space.clone(),
            node_addresses: claim.node.addresses.clone(),
        }
    }

    /// What the node needs for pods in these families and of these networks, and for their ports where one has some.
    pub(super) fn preparation<'b>(
        &'b self,
        networks: impl IntoIterator<Item = (&'b NetworkName, &'b NetworkAsks)>,
        addresses: &'b [IpAddr],
        ports: &[PortMapping],
    ) -> Preparation<'b> {
        let rules = |(network, asks): (&'b NetworkName, &NetworkAsks)| NetworkRules {
            network: network.as_str(),
            masquerade: asks.masquerade_except.as_ref().map(|except| Masquerade {
                except: self.address_space.iter().chain(except).copied().collect(),
            }),
            metadata: if asks.block_metadata { Metadata::Blocked } else { Metadata::Open },
        };
        Preparation {
            addresses,
            advertisements: self.advertisements,
            networks: networks.into_iter().map(rules).collect(),
            host_ports: (!ports.is_empty()).then_some(HostPorts { node_addresses: &self.node_addresses }),
        }
    }
}

/// What the record of changed sysctls says of the uplink. Where it cannot be read the uplink is seen as it is.
/// What a former boot changed says nothing of this one.
fn advertisements(journal: &Journal, boot_id: &str, uplink: &str) -> Advertisements {
    let key = host::accept_ra(uplink);
    let undo = journal.undo().ok().flatten().filter(|undo| undo.boot_id == boot_id);
    let heeded = undo.is_some_and(|undo| {
        undo.sysctls.iter().any(|was| was.key == key && (was.found.as_str(), was.set.as_str()) == ("1", "2"))
    });
    if heeded { Advertisements::Heeded } else { Advertisements::AsFound }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::claim::tests::node;

    #[test]
    fn a_block_is_a_handful_of_prefixes() {
        let claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(0));
        let told: Vec<String> = prefixes(&claim).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["10.240.1.0/30", "fd00:10::100/126"]);
    }

    #[test]
    fn what_is_on_record_of_advertisements_counts_in_its_own_boot() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
        assert_eq!(advertisements(&journal, "a", "up0"), Advertisements::AsFound);
        let was = SysctlWas { key: host::accept_ra("up0"), found: "1".to_owned(), set: "2".to_owned() };
        journal.change_undo(|undo| undo.take_up("a", [was])).unwrap();
        assert_eq!(advertisements(&journal, "a", "up0"), Advertisements::Heeded);
        for (boot_id, uplink) in [("b", "up0"), ("a", "up1")] {
            assert_eq!(advertisements(&journal, boot_id, uplink), Advertisements::AsFound);
        }
    }
}
