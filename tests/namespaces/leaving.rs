//! What pods send out of the VNet: under which address, and what they are kept from.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{net::IpAddr, time::Duration};
use vnet_tests::lab::{
    Answering, Attachment, Echo, Families, Heard, Lab, Node, Pod, PoolShape, ask, ask_from, until,
};

/// Places outside the VNet, behind the gateway.
const OUTSIDE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The metadata services of clouds.
const METADATA: [&str; 3] = ["169.254.169.254", "fd00:ec2::254", "fd20:ce::254"];

/// A lab whose gateway has these addresses as well, and answers there at TCP port 7.
fn with_outside(addresses: &[&str], pool: PoolShape) -> Result<(Lab, Answering)> {
    let lab = Lab::with_ledger(Families::Dual, 1, pool)?;
    let gateway = lab.fabric.machine();
    for address in addresses {
        gateway.script(&format!("ip address add {address} dev lo"))?;
    }
    let answering = Answering::start(|program| gateway.enter(program), "tcp", 7, "gateway")?;
    Ok((lab, answering))
}

fn start(node: &Node, name: &str) -> Result<(Pod, Attachment)> {
    let pod = node.sandbox(name)?;
    let attachment = node.add(&pod)?;
    Ok((pod, attachment))
}

/// Under which address a pod is seen at another.
fn seen_as(node: &Node, pod: &Pod, at: IpAddr) -> Result<Heard> {
    ask(|program| node.inside(pod, program), "tcp", at, 7)
}

#[test]
fn what_leaves_the_vnet_is_masqueraded_where_the_network_asks_for_it() -> Result<()> {
    let (mut lab, _gateway) = with_outside(&OUTSIDE, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let own = lab.nodes[0].addresses().to_vec();
    let inside = lab.fabric.addressing().addresses(1);
    let plain = lab.nodes[0].netconf().clone();
    let (pod, attachment) = start(&lab.nodes[0], "plain")?;
    let seen = |node: &Node, pod: &Pod, at: IpAddr, wanted: &[IpAddr]| -> Result<()> {
        let wanted = wanted.iter().find(|address| address.is_ipv4() == at.is_ipv4()).context("a family")?;
        let said = seen_as(node, pod, at)?;
        ensure!(said == Heard::from("gateway", *wanted), "{at} from {}: {said:?}, not {wanted}", pod.name());
        Ok(())
    };
    let outside: Vec<IpAddr> = OUTSIDE.iter().filter_map(|text| text.parse().ok()).collect();
    for at in outside.iter().chain(&inside) {
        seen(&lab.nodes[0], &pod, *at, &attachment.addresses)?;
    }

    lab.nodes[0].configure(plain.clone().with("ipMasq", true))?;
    let mut pods = vec![(pod, attachment)];
    for name in ["b", "c", "d"] {
        pods.push(start(&lab.nodes[0], name)?);
    }
    // One rule a family, whatever the number of pods, and for the one from before it too.
    let rules = |node: &Node| -> Result<usize> {
        let table = node.machine().script("nft list table inet vnet_ipam")?;
        Ok(table.lines().filter(|line| line.contains(" masquerade ")).count())
    };
    ensure!(rules(&lab.nodes[0])? == 2, "{}", rules(&lab.nodes[0])?);
    for (pod, attachment) in &pods {
        outside.iter().try_for_each(|at| seen(&lab.nodes[0], pod, *at, &own))?;
        inside.iter().try_for_each(|at| seen(&lab.nodes[0], pod, *at, &attachment.addresses))?;
    }

    // The block grows, and the rule with it.
    lab.ctl(&["pool", "update", "workers", "--max-pods", "8"])?;
    lab.nodes[0].shim(&["sync"])?;
    for (pod, attachment) in &pods {
        lab.nodes[0].check(pod, attachment).context("a block that grew is nothing that pods lack")?;
    }
    let (pod, _) = start(&lab.nodes[0], "fifth")?;
    outside.iter().try_for_each(|at| seen(&lab.nodes[0], &pod, *at, &own))?;
    ensure!(rules(&lab.nodes[0])? == 2, "{}", rules(&lab.nodes[0])?);

    lab.nodes[0]
        .configure(plain.clone().with("ipMasq", true).with("nonMasqueradeCIDRs", json!(["192.0.2.0/24"])))?;
    let (pod, attachment) = start(&lab.nodes[0], "sixth")?;
    seen(&lab.nodes[0], &pod, outside[0], &attachment.addresses)?;
    seen(&lab.nodes[0], &pod, outside[1], &own)?;

    lab.nodes[0].configure(plain)?;
    let (pod, attachment) = start(&lab.nodes[0], "seventh")?;
    outside.iter().try_for_each(|at| seen(&lab.nodes[0], &pod, *at, &attachment.addresses))?;
    ensure!(rules(&lab.nodes[0])? == 0, "{}", rules(&lab.nodes[0])?);
    Ok(())
}

#[test]
fn one_field_keeps_pods_from_metadata_services() -> Result<()> {
    let (mut lab, _gateway) = with_outside(&METADATA, PoolShape::default())?;
    let plain = lab.nodes[0].netconf().clone();
    let reach = |node: &Node, pod: &Pod, wanted: bool| -> Result<()> {
        for at in METADATA {
            let at: IpAddr = at.parse()?;
            let reached = node.ping_from(pod, at)? != Echo::Lost;
            ensure!(reached == wanted, "{at} from {}: {reached}", pod.name());
            node.machine().ping(at).and_then(Echo::time).with_context(|| format!("{at} from the node"))?;
        }
        Ok(())
    };
    let (first, _) = start(&lab.nodes[0], "first")?;
    reach(&lab.nodes[0], &first, true)?;
    lab.nodes[0].configure(plain.clone().with("blockMetadata", true))?;
    let (second, attachment) = start(&lab.nodes[0], "second")?;
    reach(&lab.nodes[0], &first, false)?;
    reach(&lab.nodes[0], &second, false)?;

    // Another network of the node that does not ask for it does not lift it.
    lab.nodes[0].configure(plain.clone().with("name", "other"))?;
    let (third, _) = start(&lab.nodes[0], "third")?;
    reach(&lab.nodes[0], &third, false)?;

    lab.nodes[0].configure(plain.clone().with("blockMetadata", true))?;
    lab.nodes[0].machine().script("nft flush ruleset")?;
    reach(&lab.nodes[0], &first, true)?;
    let error = lab.nodes[0].plugin("CHECK", &second, Some(&attachment.result))?.into_error()?;
    ensure!(error.code == 104 && error.text.contains("rules of table inet vnet_ipam"), "{error:?}");
    start(&lab.nodes[0], "fourth")?;
    reach(&lab.nodes[0], &first, false)?;
    lab.nodes[0].check(&second, &attachment)?;

    lab.nodes[0].configure(plain)?;
    start(&lab.nodes[0], "fifth")?;
    reach(&lab.nodes[0], &first, true)
}

/// How long the agent has, which looks every second.
const SOON: Duration = Duration::from_secs(30);

fn families(node: &Node, pod: &Pod) -> Result<Vec<Heard>> {
    OUTSIDE.iter().map(|at| seen_as(node, pod, at.parse()?)).collect()
}

fn all_from(addresses: &[IpAddr]) -> Vec<Heard> {
    addresses.iter().map(|address| Heard::from("gateway", *address)).collect()
}

/// As the kernel's list of connections has it.
fn in_full(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:04x}")).join(":"),
    }
}

#[test]
fn each_network_has_rules_of_its_own_and_one_agent_keeps_them_all() -> Result<()> {
    let (mut lab, _gateway) = with_outside(&[&OUTSIDE[..], &METADATA[..]].concat(), PoolShape::default())?;
    let own = lab.nodes[0].addresses().to_vec();
    let plain = lab.nodes[0].netconf().clone();
    let masked = plain.clone().with("name", "masked").with("ipMasq", true).with("blockMetadata", true);
    let (first, first_attachment) = start(&lab.nodes[0], "first")?;
    lab.nodes[0].configure(masked.clone())?;
    let (second, second_attachment) = start(&lab.nodes[0], "second")?;
    // Both have addresses of one block.
    ensure!(
        families(&lab.nodes[0], &first)? == all_from(&first_attachment.addresses),
        "it did not ask for it"
    );
    ensure!(families(&lab.nodes[0], &second)? == all_from(&own), "{:?}", families(&lab.nodes[0], &second)?);

    // Others have connections tracked as well.
    lab.nodes[0].machine().script(
        "nft flush ruleset
         nft 'table inet others { chain forward { type filter hook forward priority 0; ct state new accept; }; }'",
    )?;
    let error = lab.nodes[0].plugin("CHECK", &second, Some(&second_attachment.result))?.into_error()?;
    ensure!(error.text.contains("is not masqueraded"), "{error:?}");
    // One flow in each family that never ends, and whom answers to it would go to.
    let goes_on_as = |node: &Node, pod: &Pod, wanted: &[IpAddr]| -> Result<bool> {
        for at in OUTSIDE {
            ask_from(|program| node.inside(pod, program), 5053, "udp", at.parse()?, 7)?;
        }
        let tracked = node.machine().script("cat /proc/net/nf_conntrack")?;
        let is_seen =
            |address: &IpAddr| tracked.contains(&format!("dst={} sport=7 dport=5053", in_full(*address)));
        Ok(wanted.iter().all(is_seen))
    };
    ensure!(goes_on_as(&lab.nodes[0], &second, &second_attachment.addresses)?, "it is not bare");
    lab.nodes[0].configure(plain)?;
    let node = &lab.nodes[0];
    let agent = node.agent(&["--every", "1"])?;
    // What the kernel remembers of a connection outlives the rules; these are other ones.
    until("the other network's pod is masqueraded again", SOON, || {
        Ok((families(node, &second)? == all_from(&own)).then_some(()))
    })?;
    until("what it went on sending is as well", SOON, || Ok(goes_on_as(node, &second, &own)?.then_some(())))?;
    ensure!(
        families(node, &first)? == all_from(&first_attachment.addresses),
        "nor does the agent ask for it"
    );
    ensure!(node.ping_from(&second, METADATA[0].parse()?)? == Echo::Lost, "metadata is open");

    // Somebody's element for an address of the first network does not count for long.
    let table = || node.machine().script("nft list table inet vnet_ipam");
    let sets = table()?;
    let set = sets.split_whitespace().find(|word| word.starts_with("masquerade-") && word.ends_with("-4"));
    let stranger = first_attachment.addresses[0];
    let add = format!("nft add element inet vnet_ipam {} '{{ {stranger} }}'", set.context("a set")?);
    node.machine().script(&add)?;
    until("it is taken out", SOON, || Ok((!table()?.contains(&stranger.to_string())).then_some(())))?;
    agent.stop()?;

    // With its last pod a network has no rules any more.
    lab.nodes[0].configure(masked)?;
    lab.nodes[0].check(&second, &second_attachment)?;
    lab.nodes[0].del(&second, Some(&second_attachment))?;
    let plain = lab.nodes[0].netconf().clone().with("name", "vnet").with("ipMasq", false);
    lab.nodes[0].configure(plain.with("blockMetadata", false))?;
    let node = &lab.nodes[0];
    let _agent = node.agent(&["--every", "1"])?;
    let table = || node.machine().script("nft list table inet vnet_ipam");
    until("the rules of a network without pods are gone", SOON, || {
        let table = table()?;
        Ok((!table.contains("masquerade") && !table.contains("metadata")).then_some(()))
    })?;
    ensure!(table()?.contains("spoofing"), "the node's own stay");
    Ok(())
}

/// A node that was registered anew has another block; pods of before are where they were.
#[test]
fn pods_of_a_former_claim_are_masqueraded_still() -> Result<()> {
    let (mut lab, _gateway) = with_outside(&OUTSIDE, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let own = lab.nodes[0].addresses().to_vec();
    let masked = lab.nodes[0].netconf().clone().with("ipMasq", true);
    lab.nodes[0].configure(masked)?;
    let node = &lab.nodes[0];
    let (old, old_attachment) = start(node, "old")?;
    ensure!(families(node, &old)? == all_from(&own), "{:?}", families(node, &old)?);
    lab.ctl(&["node", "delete", node.name(), "--vm-gone"])?;
    let register = |name: &str, addresses: &[IpAddr]| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut words = vec!["node", "register", name, "--pool", "workers"];
        addresses.iter().for_each(|address| words.extend(["--address", address]));
        lab.ctl(&words)
    };
    // Another one has its block.
    register("another", &lab.fabric.addressing().addresses(40))?;
    register(node.name(), &own)?;
    node.bring_token(lab.ctl(&["token", "create", "anew", "--role", "node", "--node", node.name()])?.trim())?;
    let said = node.shim(&["sync"]).err().context("the new block has no room for the pod of before")?;
    ensure!(format!("{said:#}").contains("a new claim was taken over"), "{said:#}");
    let (new, new_attachment) = start(node, "new")?;
    ensure!(new_attachment.addresses != old_attachment.addresses, "it is another block");
    for pod in [&new, &old] {
        ensure!(families(node, pod)? == all_from(&own), "{}: {:?}", pod.name(), families(node, pod)?);
    }
    node.check(&old, &old_attachment)
}
