//! The node's nftables rules: table `inet vnet_ipam`, one chain a purpose.
//!
//! Chains are static per node (the state of a pod is its host routes), so ADD only asks the kernel
//! whether they are there and executes `nft` when they are not. Each rule carries a comment with the
//! hash of its chain: a flush, a rule more or less, or another version all show.

use super::{
    WiringError,
    host::Masquerade,
    nfnetlink::{self, Family, Rule},
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
    rules: Vec<String>,
}

impl Chain {
    /// The comment of each rule: changes when anything of the chain does.
    fn mark(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.hook);
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
             table inet {TABLE} {{\n chain {name} {{\n  {}\n",
            self.hook
        );
        for rule in &self.rules {
            let _ = writeln!(text, "  {rule} comment \"{mark}\"");
        }
        text.push_str(" }\n}\n");
        text
    }
}

/// The chain that drops what pods send from other addresses than their own.
///
/// A pod's own addresses are those that the host routes to its interface; a local address of the host
/// is not among them. `vnet*` are libvirt's.
#[must_use]
pub fn spoofing() -> Chain {
    Chain {
        name: "spoofing".to_owned(),
        hook: "type filter hook prerouting priority raw; policy accept;",
        rules: vec![
            "iifname \"vn*\" iifname != \"vnet*\" fib saddr . iif oif missing counter drop".to_owned(),
            "iifname \"vn*\" iifname != \"vnet*\" fib saddr type local counter drop".to_owned(),
        ],
    }
}

/// The chain that masquerades what leaves the VNet; none where the block is empty.
#[must_use]
pub fn masquerade(masquerade: &Masquerade<'_>) -> Option<Chain> {
    let digest = Sha256::digest(masquerade.network.as_bytes());
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
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
        name: format!("masquerade-{hex}"),
        hook: "type nat hook postrouting priority srcnat; policy accept;",
        rules,
    })
}

fn multicast_v4() -> IpNet {
    ipnet::Ipv4Net::new_assert([224, 0, 0, 0].into(), 4).into()
}

fn multicast_v6() -> IpNet {
    ipnet::Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8).into()
}

/// True when all chains are there, with exactly these rules.
///
/// # Errors
/// When the kernel can't be asked.
pub fn present(chains: &[Chain]) -> Result<bool, WiringError> {
    let rules = nfnetlink::rules(TABLE)?;
    Ok(chains.iter().all(|chain| chain.is_in(&rules)))
}

/// Sees to it that all chains are there; returns whether they had to be made. Chains are replaced in
/// one transaction; others of the table stay.
///
/// # Errors
/// [`WiringError::Unsupported`] where `nft` is missing, [`WiringError::Firewall`] with its words.
pub fn ensure(chains: &[Chain]) -> Result<bool, WiringError> {
    let rules = nfnetlink::rules(TABLE)?;
    let script: String = chains.iter().filter(|chain| !chain.is_in(&rules)).map(Chain::script).collect();
    if script.is_empty() {
        return Ok(false);
    }
    nft(&script)?;
    Ok(true)
}

/// Takes a network's masquerading away. For a network that no longer asks for it.
///
/// # Errors
/// As [`ensure`].
pub fn remove_masquerade(network: &str) -> Result<bool, WiringError> {
    let any: IpAddr = std::net::Ipv4Addr::UNSPECIFIED.into();
    let chain = masquerade(&Masquerade { network, block: &[(any, any)], except: &[] });
    let Some(chain) = chain else { return Ok(false) };
    if !nfnetlink::rules(TABLE)?.iter().any(|rule| rule.chain == chain.name) {
        return Ok(false);
    }
    nft(&format!("delete chain inet {TABLE} {}\n", chain.name))?;
    Ok(true)
}

/// Takes the whole table away, for uninstalling.
///
/// # Errors
/// As [`ensure`].
pub fn remove() -> Result<bool, WiringError> {
    // A flush leaves chains without rules.
    let is_ours = |chain: &nfnetlink::Chain| (chain.family, chain.table.as_str()) == (Family::Inet, TABLE);
    if !nfnetlink::chains()?.iter().any(is_ours) {
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
        let chain = masquerade(&Masquerade { network: "prod", block: &block, except: &except }).unwrap();
        assert_eq!(
            chain.rules,
            [
                "ip saddr { 10.240.1.0-10.240.1.31 } ip daddr != { 10.240.0.0/12, 224.0.0.0/4 } masquerade",
                "ip6 saddr { fd00::100-fd00::11f } ip6 daddr != { fd00::/48, ff00::/8 } masquerade",
            ]
        );
        assert!(masquerade(&Masquerade { network: "prod", block: &[], except: &except }).is_none());
        let other = masquerade(&Masquerade { network: "two", block: &block, except: &except }).unwrap();
        assert_ne!(chain.name, other.name);
    }
}
