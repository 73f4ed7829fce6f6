//! The node's nftables rules: table `inet vnet_ipam`, one chain a purpose.
//!
//! Chains are static per node (the state of a pod is its host routes), so ADD only asks the kernel
//! whether they are there and executes `nft` when they are not. Each rule carries a comment with the
//! hash of its chain: a flush, a rule more or less, or another version all show.

use super::{
    WiringError,
    conntrack::Forgetting,
    host::Masquerade,
    masquerade::Pods,
    nft,
    nftables::{self, Family, Rule},
};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

/// Our table, of family inet.
pub const TABLE: &str = "vnet_ipam";

/// One chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    name: String,
    hook: &'static str,
    /// Maps and sets that its rules look into: made where they are not there, with what is in them left alone.
    sets: Vec<String>,
    /// The network whose pods its rules know by its sets: whoever makes them puts these in at the same time.
    network: Option<String>,
    rules: Vec<String>,
}

/// How a chain was made, as the comment of each of its rules says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Making {
    /// With so many rules.
    Of(usize),
    /// By versions that did not say how many; their rules name blocks, not pods.
    Uncounted,
}

impl Making {
    fn of(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix("cni-shim ")?.split(' ');
        match (words.next()?, words.next()) {
            (hash, None) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Some(Self::Uncounted)
            }
            (count, _) => count.parse().ok().map(Self::Of),
        }
    }
}

impl Chain {
    /// The comment of each rule: how many there are, and what changes when anything of the chain does.
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
        format!("cni-shim {} {hex}", self.rules.len())
    }

    fn is_in(&self, rules: &[Rule]) -> bool {
        let mark = self.mark();
        self.is_whole_in(rules) && rules.iter().any(|rule| rule.comment.as_deref() == Some(mark.as_str()))
    }

    /// Whether it is there as it was made at some time, with another configuration, claim or version maybe: all
    /// rules of one making and no other.
    fn is_whole_in(&self, rules: &[Rule]) -> bool {
        match making(&self.name, rules) {
            Some(Making::Of(count)) => count == rules.iter().filter(|rule| rule.chain == self.name).count(),
            Some(Making::Uncounted) => true,
            None => false,
        }
    }

    fn script(&self, pods: &Pods) -> String {
        let (name, mark) = (&self.name, self.mark());
        // Adding it first makes the deletion valid on a first run; all of it is one transaction.
        let mut text = format!(
            "add table inet {TABLE}\nadd chain inet {TABLE} {name}\ndelete chain inet {TABLE} {name}\n\
             table inet {TABLE} {{\n"
        );
        for set in &self.sets {
            let _ = writeln!(text, " {set}");
        }
        let _ = writeln!(text, " chain {name} {{\n  {}", self.hook);
        for rule in &self.rules {
            let _ = writeln!(text, "  {rule} comment \"{mark}\"");
        }
        text.push_str(" }\n}\n");
        let pods = self.network.iter().flat_map(|network| pods.of(network));
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = pods.partition(IpAddr::is_ipv4);
        for ((set, _), addresses) in masquerade_sets(name).iter().zip([v4, v6]) {
            if !addresses.is_empty() {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let _ = writeln!(text, "add element inet {TABLE} {set} {{ {} }}", addresses.join(", "));
            }
        }
        text
    }
}

/// How the chain of that name was made; none where it has no rules, or not all of them of one making.
fn making(chain: &str, rules: &[Rule]) -> Option<Making> {
    let mut comments = rules.iter().filter(|rule| rule.chain == chain).map(|rule| rule.comment.as_deref());
    let first = comments.next()??;
    comments.all(|comment| comment == Some(first)).then(|| Making::of(first))?
}

/// What comes from a pod; `vnet*` are libvirt's.
const FROM_PODS: &str = "iifname \"vn*\" iifname != \"vnet*\"";

/// What a network has a chain of its own for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Masquerade,
    Metadata,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::Masquerade, Self::Metadata];

    fn prefix(self) -> &'static str {
        match self {
            Self::Masquerade => "masquerade-",
            Self::Metadata => "metadata-",
        }
    }

    /// The name of the chain of a network.
    fn chain(self, network: &str) -> String {
        let digest = Sha256::digest(network.as_bytes());
        let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{}{hex}", self.prefix())
    }

    /// What takes away a chain of this name, and the sets that it alone looks into.
    fn removal(self, chain: &str) -> String {
        let mut script = String::new();
        let sets = match self {
            Self::Masquerade => masquerade_sets(chain).to_vec(),
            Self::Metadata => Vec::new(),
        };
        // Made first where it is not there: then its deletion is valid.
        for (name, kind) in &sets {
            let _ = writeln!(script, "add set inet {TABLE} {name} {{ type {kind}; }}");
        }
        let _ = writeln!(script, "delete chain inet {TABLE} {chain}");
        for (name, _) in &sets {
            let _ = writeln!(script, "delete set inet {TABLE} {name}");
        }
        script
    }
}

/// Names and types of the sets that a chain of [`masquerade`] looks into: pods by their addresses, IPv4 first.
fn masquerade_sets(chain: &str) -> [(String, &'static str); 2] {
    [(format!("{chain}-4"), "ipv4_addr"), (format!("{chain}-6"), "ipv6_addr")]
}

/// The names of the two sets with the addresses of a network's pods that are masqueraded, IPv4 first.
pub(super) fn masqueraded(network: &str) -> [String; 2] {
    masquerade_sets(&Purpose::Masquerade.chain(network)).map(|(name, _)| name)
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
        sets: Vec::new(),
        network: None,
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
        name: Purpose::Metadata.chain(network),
        hook: "type filter hook prerouting priority raw; policy accept;",
        sets: Vec::new(),
        network: None,
        rules: vec![
            format!("{FROM_PODS} ip daddr 169.254.169.254 counter drop"),
            // Amazon's and Google's by IPv6.
            format!("{FROM_PODS} ip6 daddr {{ fd00:ec2::254, fd20:ce::254 }} counter drop"),
        ],
    }
}

/// The chain that masquerades what a network's pods send out of the VNet: one rule a family, whatever their number.
/// Whose packets are meant is in two sets, for pods of other networks have addresses of the same block.
#[must_use]
pub fn masquerade(network: &str, masquerade: &Masquerade) -> Chain {
    let name = Purpose::Masquerade.chain(network);
    let sets = masquerade_sets(&name);
    let rules = [("ip", true), ("ip6", false)].into_iter().zip(&sets).map(|((word, v4), (set, _))| {
        let mut except: Vec<IpNet> =
            masquerade.except.iter().filter(|net| net.addr().is_ipv4() == v4).map(IpNet::trunc).collect();
        // Multicast is never masqueraded. nft refuses overlapping elements of a set.
        except.push(if v4 { multicast_v4() } else { multicast_v6() });
        let except: Vec<String> = IpNet::aggregate(&except).iter().map(ToString::to_string).collect();
        format!("{word} saddr @{set} {word} daddr != {{ {} }} masquerade", except.join(", "))
    });
    Chain {
        rules: rules.collect(),
        sets: sets.iter().map(|(set, kind)| format!("set {set} {{ type {kind}; }}")).collect(),
        network: Some(network.to_owned()),
        name,
        hook: "type nat hook postrouting priority srcnat; policy accept;",
    }
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
    let sets: Vec<String> = PORT_SETS.iter().map(ToString::to_string).collect();
    let chain = |name: &str, hook, rules| Chain {
        name: name.to_owned(),
        hook,
        sets: sets.clone(),
        network: None,
        rules,
    };
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
    /// Chains that networks no longer ask for.
    unwanted: Vec<(Purpose, String)>,
}

impl Rules {
    /// These chains; of the others that can be these networks' own, none.
    #[must_use]
    pub fn of(networks: &[&str], wanted: Vec<Chain>) -> Self {
        let own = networks.iter().flat_map(|network| Purpose::ALL.map(|one| (one, one.chain(network))));
        let unwanted = own.filter(|(_, name)| wanted.iter().all(|chain| chain.name != *name)).collect();
        Self { wanted, unwanted }
    }

    /// What makes it so, with these pods in the sets that are made; empty where it is.
    fn script(&self, rules: &[Rule], pods: &Pods) -> String {
        let mut script: String =
            self.wanted.iter().filter(|chain| !chain.is_in(rules)).map(|chain| chain.script(pods)).collect();
        let is_there = |name: &str| rules.iter().any(|rule| rule.chain == name);
        let unwanted = self.unwanted.iter().filter(|(_, name)| is_there(name));
        script.extend(unwanted.map(|(purpose, name)| purpose.removal(name)));
        script
    }

    /// True when it is so: all chains are there, with exactly these rules.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn stand(&self) -> Result<bool, WiringError> {
        Ok(self.script(&nftables::rules(TABLE)?, &Pods::default()).is_empty())
    }

    /// True when all chains are there and do what they did when they were made. What the service says of the VNet may
    /// have changed since: that is for the next ADD or the agent to see to, and no pod is broken by it.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn serve(&self) -> Result<bool, WiringError> {
        let rules = nftables::rules(TABLE)?;
        Ok(self.wanted.iter().all(|chain| chain.is_whole_in(&rules)))
    }

    /// Sees to it; returns whether anything had to be made. It is done in one transaction, with the pods that `living`
    /// then tells of, so that none of them goes bare; what comes with them is kept until it is done. Other chains of the
    /// table stay.
    ///
    /// # Errors
    /// [`WiringError::Unsupported`] where `nft` is missing, [`WiringError::Firewall`] with its words.
    pub fn ensure<G>(&self, living: impl FnOnce() -> (Pods, G)) -> Result<bool, WiringError> {
        let rules = nftables::rules(TABLE)?;
        if self.script(&rules, &Pods::default()).is_empty() {
            return Ok(false);
        }
        let (pods, _kept) = living();
        nft::run(&self.script(&rules, &pods))?;
        // What the kernel remembers of a connection decides before any rule does.
        let made = self
            .wanted
            .iter()
            .filter(|chain| !chain.is_in(&rules))
            .filter_map(|chain| chain.network.as_deref());
        Forgetting::bare(made.flat_map(|network| pods.of(network))).forget();
        Ok(true)
    }
}

/// Whether the rule of a network names the block instead of its pods, as earlier versions made it.
///
/// # Errors
/// When the kernel can't be asked.
pub(super) fn names_block(network: &str) -> Result<bool, WiringError> {
    let chain = Purpose::Masquerade.chain(network);
    Ok(making(&chain, &nftables::rules(TABLE)?) == Some(Making::Uncounted))
}

/// Chains of networks that are none of these.
///
/// # Errors
/// When the kernel can't be asked.
pub fn of_others(networks: &[&str]) -> Result<Vec<String>, WiringError> {
    Ok(others(networks)?.into_iter().map(|(_, name)| name).collect())
}

/// Takes the chains of networks away that are none of these; returns their names.
///
/// # Errors
/// As [`Rules::ensure`].
pub fn remove_others(networks: &[&str]) -> Result<Vec<String>, WiringError> {
    let others = others(networks)?;
    if !others.is_empty() {
        nft::run(&others.iter().map(|(purpose, name)| purpose.removal(name)).collect::<String>())?;
    }
    Ok(others.into_iter().map(|(_, name)| name).collect())
}

fn others(networks: &[&str]) -> Result<BTreeSet<(Purpose, String)>, WiringError> {
    let spared = Rules::of(networks, Vec::new()).unwanted;
    let rules = nftables::rules(TABLE)?.into_iter();
    let own = rules.filter_map(|Rule { chain, .. }| {
        Purpose::ALL.into_iter().find(|one| chain.starts_with(one.prefix())).map(|one| (one, chain))
    });
    Ok(own.filter(|one| !spared.contains(one)).collect())
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
    nft::run(&format!("delete table inet {TABLE}\n"))?;
    Ok(true)
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
        let mut other = whole.clone();
        other[0].comment = Some("cni-shim 3 0000000000000000".to_owned());
        assert!(!chain.is_in(&other) && !chain.is_whole_in(&other), "rules of two makings");
        // All of another making: what CHECK is content with, and whoever makes chains is not.
        let made = |count: usize, mark: &str| -> Vec<Rule> {
            let rule = Rule { chain: chain.name.clone(), comment: Some(mark.to_owned()) };
            vec![rule; count]
        };
        let earlier = made(2, "cni-shim 2 0000000000000000");
        assert!(chain.is_whole_in(&earlier) && !chain.is_in(&earlier));
        assert!(!chain.is_whole_in(&earlier[1..]) && !chain.is_whole_in(&[]));
        for mark in ["cni-shim 2", "cni-shim 0000", "somebody's 2 0000", "cni-shim 00000000"] {
            assert_eq!(chain.is_whole_in(&made(2, mark)), mark == "cni-shim 2", "{mark}");
        }
        // By a version that did not say how many there are.
        let before = made(3, "cni-shim 0123456789abcdef");
        assert!(chain.is_whole_in(&before) && !chain.is_in(&before));
        assert!(!chain.is_whole_in(&[&before[..], &whole[..1]].concat()), "rules of two makings");
        assert!(chain.is_whole_in(&whole));
    }

    #[test]
    fn masquerading_spares_the_vnet_and_keeps_families_apart() {
        let except = ["10.240.0.0/12", "10.240.0.0/16", "fd00::/48"].map(|net| net.parse().unwrap()).to_vec();
        let chain = masquerade("prod", &Masquerade { except: except.clone() });
        let [v4, v6] = masqueraded("prod");
        assert_eq!(
            chain.rules,
            [
                format!("ip saddr @{v4} ip daddr != {{ 10.240.0.0/12, 224.0.0.0/4 }} masquerade"),
                format!("ip6 saddr @{v6} ip6 daddr != {{ fd00::/48, ff00::/8 }} masquerade"),
            ]
        );
        let mut pods = Pods::default();
        pods.add(&"prod".parse().unwrap(), &["10.240.1.7", "fd00::7"].map(|text| text.parse().unwrap()));
        pods.add(&"two".parse().unwrap(), &["10.240.1.8".parse().unwrap()]);
        let script = chain.script(&pods);
        assert!(script.contains(&format!("add element inet vnet_ipam {v4} {{ 10.240.1.7 }}")), "{script}");
        assert!(
            script.contains(&format!("{v6} {{ fd00::7 }}")) && !script.contains("10.240.1.8"),
            "{script}"
        );
        let other = masquerade("two", &Masquerade { except });
        assert!(chain.name != other.name && masqueraded("two").iter().all(|set| *set != v4 && *set != v6));
    }
}
