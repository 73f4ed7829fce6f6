//! Rules of others that drop what this node forwards: pods then talk with their node and with nobody else.
//!
//! The usual one is the FORWARD chain that Docker leaves with the policy DROP. Such rules are their owner's: they are
//! told of, with the cure, and not touched.

use super::{
    WiringError,
    nftables::{self, Chain, Family},
};
use std::process::Command;

/// Where Docker lets others decide before it does.
const DOCKER: &str = "DOCKER-USER";

/// What `iptables` of the old kind is called.
const LEGACY: [(&str, &str, &[&str]); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables", &["iptables-legacy", "/usr/sbin/iptables-legacy"]),
    (
        "/proc/thread-self/net/ip6_tables_names",
        "ip6tables",
        &["ip6tables-legacy", "/usr/sbin/ip6tables-legacy"],
    ),
];

/// Every chain that drops what is forwarded and has no word of pods' interfaces, in words with the cure.
///
/// # Errors
/// When the kernel can't be asked.
pub fn warnings() -> Result<Vec<String>, WiringError> {
    let mut warnings = Vec::new();
    let chains = nftables::chains()?;
    for chain in chains.iter().filter(|chain| chain.drops_forwarded()) {
        if nftables::names_interface(chain.family, &chain.table, "vn")? {
            continue;
        }
        warnings.push(of_chain(chain, &chains));
    }
    warnings.extend(LEGACY.iter().filter_map(|(tables, tool, programs)| of_legacy(tables, tool, programs)));
    Ok(warnings)
}

fn of_chain(chain: &Chain, chains: &[Chain]) -> String {
    let Chain { family, table, name, .. } = chain;
    let is_beside = |other: &Chain| other.name == DOCKER && (&other.family, &other.table) == (family, table);
    // A chain of that name in capitals is of `iptables`, which wants to be asked by its own tool.
    let cure = match family {
        Family::Ip if name == "FORWARD" => by_iptables("iptables", chains.iter().any(is_beside)),
        Family::Ip6 if name == "FORWARD" => by_iptables("ip6tables", chains.iter().any(is_beside)),
        _ => format!(
            "nft insert rule {family} {table} {name} iifname '\"vn*\"' accept; nft insert rule {family} {table} {name} \
             oifname '\"vn*\"' accept"
        ),
    };
    told(&format!("chain {name} of the nftables table {family} {table}"), &cure)
}

fn of_legacy(tables: &str, tool: &str, programs: &[&str]) -> Option<String> {
    let tables = std::fs::read_to_string(tables).ok()?;
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let output = programs.iter().find_map(|program| Command::new(program).arg("-S").output().ok())?;
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    let drops = rules.lines().any(|rule| rule == "-P FORWARD DROP");
    if !drops || rules.contains(" vn+ ") {
        return None;
    }
    let cure = by_iptables(&format!("{tool}-legacy"), rules.contains(DOCKER));
    Some(told(&format!("chain FORWARD of {tool}-legacy"), &cure))
}

fn by_iptables(tool: &str, docker: bool) -> String {
    let chain = if docker { DOCKER } else { "FORWARD" };
    format!("{tool} -I {chain} -i vn+ -j ACCEPT; {tool} -I {chain} -o vn+ -j ACCEPT")
}

fn told(chain: &str, cure: &str) -> String {
    format!(
        "{chain} drops what is forwarded, so pods reach nobody but their node unless a rule there accepts it (Docker, \
         for one, sets such a policy): {cure}"
    )
}
