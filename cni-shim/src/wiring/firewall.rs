//! The node's nftables rules: table `inet vnet_ipam`, one chain a purpose.
//!
//! Chains are static per node (the state of a pod is its host routes), so ADD only asks the kernel
//! whether they are there and executes `nft` when they are not. Each rule carries a comment with the
//! hash of its chain: a flush, a rule more or less, or another version all show.

use super::{
    WiringError,
    host::Masquerade,
    nftables::{self, Family, Rule},
};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
};

/// Our table, of family inet.
pub const TABLE: &str = "vnet_ipam";

/// Where `nft` is looked for when `PATH` has no such file: runtimes start plugins with any `PATH`.
const NFT: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// One chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    name: String,
    hook: &'static str,
    /// Maps and sets that its rules look into: made where they are not there, with what is in them left alone.
    sets: &'static [&'static str],
    rules: Vec<String>,
}

impl Chain {
    /// The comment of each rule: changes when anything of the chain does.
    fn mark(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.hook);
        self.sets.iter().for_each(|set| hash.update(set));
        for rule in &self.rules {
            hash.update(rule);
            hash.update("\n");
        }
        let digest = hash.finalize();
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("cni-shim {hex}")
    }

    fn is_in(&self, rules: &[Rule]) -> bool {
        let mark = self.mark();
        let mut found = rules.iter().filter(|rule| rule.chain == self.name);
        let count = found.clone().count();
        count == self.rules.len() && found.all(|rule| rule.comment.as_deref() == Some(mark.as_str()))
    }

    fn script(&self) -> String {
        let (name, mark) = (&self.name, self.mark());
        // Adding it first makes the deletion valid on a first run; all of it is one transaction.
        let mut text = format!(
            "add table inet {TABLE}\nadd chain inet {TABLE} {name}\ndelete chain inet {TABLE} {name}\n\
             table inet {TABLE} {{\n"
        );
        for set in self.sets {
            let _ = writeln!(text, " {set}");
        }
        let _ = writeln!(text, " chain {name} {{\n  {}", self.hook);
        for rule in &self.rules {
            let _ = writeln!(text, "  {rule} comment \"{mark}\"");
        }
        text.push_str(" }\n}\n");
        text
    }
}

/// What comes from a pod; `vnet*` are libvirt's.
const FROM_PODS: &str = "iifname \"vn*\" iifname != \"vnet*\"";

/// The name of a network's own chain.
fn own_name(purpose: &str, network: &str) -> String {
    let digest = Sha256::digest(network.as_bytes());
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{purpose}-{hex}")
}

/// The chain that drops what pods send from other addresses than their own, and what anybody sends to the node's
/// loopback addresses.
///
/// A pod's own addresses are those that the host routes to its interface; a local address of the host
/// is not among them.
#[must_use]
pub fn spoofing() -> Chain {
    Chain {
        name: "spoofing".to_owned(),
        hook: "type filter hook prerouting priority raw; policy accept;",
        sets: &[],
        rules: vec![
            format!("{FROM_PODS} fib saddr . iif oif missing counter drop"),
            format!("{FROM_PODS} fib saddr type local counter drop"),
            // Host ends may route 127.0.0.0/8 for the sake of host ports, and a port may lead from 127.0.0.1 to a
            // pod: for the node alone. The kernel looks for such packets only once they have another destination.
            "iif != \"lo\" ip daddr 127.0.0.0/8 counter drop".to_owned(),
        ],
    }
}

/// The chain that drops what pods send to the clouds' metadata services, which tell whoever asks the node's
/// credentials. Pods of all networks draw on one block, so it counts for every pod of the node as long as one
/// network asks for it.
#[must_use]
pub fn metadata(network: &str) -> Chain {
    Chain {
        name: own_name("metadata", network),
        hook: "type filter hook prerouting priority raw; policy accept;",
        sets: &[],
        rules: vec![
            format!("{FROM_PODS} ip daddr 169.254.169.254 counter drop"),
            // Amazon's and Google's by IPv6.
            format!("{FROM_PODS} ip6 daddr {{ fd00:ec2::254, fd20:ce::254 }} counter drop"),
        ],
    }
}

/// The chain that masquerades what leaves the VNet; none where the block is empty.
#[must_use]
pub fn masquerade(network: &str, masquerade: &Masquerade<'_>) -> Option<Chain> {
    let mut rules = Vec::new();
    for (word, v4) in [("ip", true), ("ip6", false)] {
        let sources: Vec<String> = masquerade
            .block
            .iter()
            .filter(|(first, _)| first.is_ipv4() == v4)
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
            .collect();
        if sources.is_empty() {
            continue;
        }
        let mut except: Vec<IpNet> =
            masquerade.except.iter().filter(|net| net.addr().is_ipv4() == v4).map(IpNet::trunc).collect();
        // Multicast is never masqueraded. nft refuses overlapping elements of a set.
        except.push(if v4 { multicast_v4() } else { multicast_v6() });
        let except: Vec<String> = IpNet::aggregate(&except).iter().map(ToString::to_string).collect();
        rules.push(format!(
            "{word} saddr {{ {} }} {word} daddr != {{ {} }} masquerade",
            sources.join(", "),
            except.join(", ")
        ));
    }
    (!rules.is_empty()).then(|| Chain {
        name: own_name("masquerade", network),
        hook: "type nat hook postrouting priority srcnat; policy accept;",
        sets: &[],
        rules,
    })
}

fn multicast_v4() -> IpNet {
    ipnet::Ipv4Net::new_assert([224, 0, 0, 0].into(), 4).into()
}

fn multicast_v6() -> IpNet {
    ipnet::Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8).into()
}

/// The maps and sets of host ports, as nft declares them.
const PORT_SETS: &[&str] = &[
    "map host-ports-4 { type inet_proto . inet_service : ipv4_addr . inet_service; }",
    "map host-ports-6 { type inet_proto . inet_service : ipv6_addr . inet_service; }",
    "map host-ports-at-4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }",
    "map host-ports-at-6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }",
    "set hairpin-4 { type ipv4_addr . ipv4_addr; }",
    "set hairpin-6 { type ipv6_addr . ipv6_addr; }",
];

/// The chains that lead the node's ports to pods, by maps whose elements belong to attachments.
///
/// The source stays what it is wherever answers come back through the node by themselves. From a pod to itself,
/// and from 127.0.0.1, they do not: there the node's own address of `node` is put in its place.
#[must_use]
pub fn host_ports(node: &[IpAddr]) -> Vec<Chain> {
    let to_pods: Vec<String> = ["ip daddr . ", ""]
        .into_iter()
        .flat_map(|at| {
            let set = if at.is_empty() { "host-ports" } else { "host-ports-at" };
            // The kernel lets no packet to ::1 leave the loopback interface, nor the answer back in: who asks
            // there hears at once that nobody listens.
            [("ip", at.to_owned(), 4, ""), ("ip6", at.replace("ip ", "ip6 "), 6, "ip6 daddr != ::1 ")].map(
                |(word, at, family, but)| {
                    format!(
                        "fib daddr type local {but}meta l4proto {{ tcp, udp, sctp }} \
                         dnat {word} to {at}meta l4proto . th dport map @{set}-{family}"
                    )
                },
            )
        })
        .collect();
    let source = |v4: bool| {
        let own = node.iter().find(|address| address.is_ipv4() == v4);
        let word = if v4 { "ip" } else { "ip6" };
        own.map_or_else(|| "masquerade".to_owned(), |own| format!("snat {word} to {own}"))
    };
    let chain = |name: &str, hook, rules| Chain { name: name.to_owned(), hook, sets: PORT_SETS, rules };
    vec![
        chain("host-ports", "type nat hook prerouting priority dstnat; policy accept;", to_pods.clone()),
        // nft has no word for this priority at this hook before 1.0.8.
        chain("host-ports-own", "type nat hook output priority -100; policy accept;", to_pods),
        chain(
            "host-ports-back",
            "type nat hook postrouting priority srcnat; policy accept;",
            vec![
                format!("ip saddr . ip daddr @hairpin-4 ct status dnat {}", source(true)),
                format!("ip6 saddr . ip6 daddr @hairpin-6 ct status dnat {}", source(false)),
                format!(
                    "oifname \"vn*\" oifname != \"vnet*\" ip saddr 127.0.0.0/8 ct status dnat {}",
                    source(true)
                ),
            ],
        ),
    ]
}

/// What the table is to have, and not to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    wanted: Vec<Chain>,
    /// Names of chains that this network no longer asks for.
    unwanted: Vec<String>,
}

impl Rules {
    /// These chains; of the others that can be the network's own, none.
    #[must_use]
    pub fn of(network: &str, wanted: Vec<Chain>) -> Self {
        let own = ["masquerade", "metadata"].map(|purpose| own_name(purpose, network));
        let unwanted =
            own.into_iter().filter(|name| wanted.iter().all(|chain| chain.name != *name)).collect();
        Self { wanted, unwanted }
    }

    /// What makes it so; empty where it is.
    fn script(&self, rules: &[Rule]) -> String {
        let mut script: String =
            self.wanted.iter().filter(|chain| !chain.is_in(rules)).map(Chain::script).collect();
        for name in self.unwanted.iter().filter(|name| rules.iter().any(|rule| rule.chain == **name)) {
            let _ = writeln!(script, "delete chain inet {TABLE} {name}");
        }
        script
    }

    /// True when it is so: all chains are there, with exactly these rules.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn stand(&self) -> Result<bool, WiringError> {
        Ok(self.script(&nftables::rules(TABLE)?).is_empty())
    }

    /// Sees to it; returns whether anything had to be made. It is done in one transaction; other chains of
    /// the table stay.
    ///
    /// # Errors
    /// [`WiringError::Unsupported`] where `nft` is missing, [`WiringError::Firewall`] with its words.
    pub fn ensure(&self) -> Result<bool, WiringError> {
        let script = self.script(&nftables::rules(TABLE)?);
        if script.is_empty() {
            return Ok(false);
        }
        nft(&script)?;
        Ok(true)
    }
}

/// Takes the whole table away, for uninstalling.
///
/// # Errors
/// As [`Rules::ensure`].
pub fn remove() -> Result<bool, WiringError> {
    // A flush leaves chains without rules.
    let is_ours = |chain: &nftables::Chain| (chain.family, chain.table.as_str()) == (Family::Inet, TABLE);
    if !nftables::chains()?.iter().any(is_ours) {
        return Ok(false);
    }
    nft(&format!("delete table inet {TABLE}\n"))?;
    Ok(true)
}

fn nft(script: &str) -> Result<(), WiringError> {
    for program in NFT {
        match run(program, script) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(WiringError::io("running nft", source)),
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
                return Err(WiringError::Firewall { message });
            }
        }
    }
    Err(no_nft())
}

fn no_nft() -> WiringError {
    WiringError::Unsupported {
        what: "the program nft".to_owned(),
        cure: "install the package nftables on this node".to_owned(),
    }
}

/// Why rules could not be made, if there is no `nft`.
#[must_use]
pub fn without_nft() -> Option<WiringError> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&paths).flat_map(|path| NFT.map(|program| path.join(program)));
    // Joined to any directory an absolute path stays what it is.
    let found = places.any(|place| place.is_file()) || NFT.iter().any(|program| Path::new(program).is_file());
    (!found).then(no_nft)
}

fn run(program: &str, script: &str) -> io::Result<std::process::Output> {
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(script.as_bytes()) {
            // It gave up early: its own words say more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            outcome => outcome?,
        }
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        spoofing()
    }

    fn rules(chain: &Chain) -> Vec<Rule> {
        let rule = Rule { chain: chain.name.clone(), comment: Some(chain.mark()) };
        vec![rule; chain.rules.len()]
    }

    #[test]
    fn a_chain_is_there_only_whole_and_unchanged() {
        let chain = chain();
        let whole = rules(&chain);
        assert!(chain.is_in(&whole));
        assert!(!chain.is_in(&[]));
        assert!(!chain.is_in(&whole[1..]));
        let mut more = whole.clone();
        more.push(Rule { chain: chain.name.clone(), comment: None });
        assert!(!chain.is_in(&more));
        let mut other = whole;
        other[0].comment = Some("cni-shim 0000000000000000".to_owned());
        assert!(!chain.is_in(&other));
    }

    #[test]
    fn masquerading_spares_the_vnet_and_keeps_families_apart() {
        let block = [
            ("10.240.1.0".parse().unwrap(), "10.240.1.31".parse().unwrap()),
            ("fd00::100".parse().unwrap(), "fd00::11f".parse().unwrap()),
        ];
        let except = [
            "10.240.0.0/12".parse().unwrap(),
            "10.240.0.0/16".parse().unwrap(),
            "fd00::/48".parse().unwrap(),
        ];
        let chain = masquerade("prod", &Masquerade { block: &block, except: &except }).unwrap();
        assert_eq!(
            chain.rules,
            [
                "ip saddr { 10.240.1.0-10.240.1.31 } ip daddr != { 10.240.0.0/12, 224.0.0.0/4 } masquerade",
                "ip6 saddr { fd00::100-fd00::11f } ip6 daddr != { fd00::/48, ff00::/8 } masquerade",
            ]
        );
        assert!(masquerade("prod", &Masquerade { block: &[], except: &except }).is_none());
        let other = masquerade("two", &Masquerade { block: &block, except: &except }).unwrap();
        assert_ne!(chain.name, other.name);
    }
}
