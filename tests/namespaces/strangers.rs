//! Machines that answer for addresses of a node's block and have no right to them.

use anyhow::{Context, Result, ensure};
use ipam_api::wire::{AddressInfo, Node as NodeAnswer};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use vnet_tests::lab::{Agent, Families, Lab, Machine, Node, PoolShape, until};

/// Asking takes some seconds, and this machine may be busy.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// Strangers are asked again each second.
const SOON: [&str; 4] = ["--every", "1", "--ask-again", "1"];

fn view(lab: &Lab, node: &Node) -> Result<NodeAnswer> {
    lab.server.ctl_json(&["node", "show", node.name()])
}

/// The MAC by which a machine is known on the segment.
fn mac(machine: &Machine) -> Result<String> {
    Ok(machine.script("cat /sys/class/net/eth0/address")?.trim().to_owned())
}

/// Gives the plain VM an address of a block, or takes it from it.
fn squat(lab: &Lab, verb: &str, address: IpAddr) -> Result<()> {
    let length = if address.is_ipv4() { 16 } else { 64 };
    lab.vm.script(&format!("ip address {verb} {address}/{length} dev eth0")).map(|_| ())
}

/// Waits until the ledger has just these addresses in conflict, each with this machine.
fn until_in_conflict(lab: &Lab, node: &Node, with: &str, addresses: &[IpAddr]) -> Result<()> {
    let wanted: BTreeSet<_> = addresses.iter().map(|address| (*address, with.to_owned())).collect();
    let what = format!("{with} is known to answer for {addresses:?}");
    until(&what, KNOWN_WITHIN, || {
        let known = view(lab, node)?.conflicts.into_iter().map(|one| (one.address, one.mac));
        Ok((known.collect::<BTreeSet<_>>() == wanted).then_some(()))
    })
}

/// The addresses of a new pod.
fn start(node: &Node, name: &str) -> Result<Vec<IpAddr>> {
    Ok(node.add(&node.sandbox(name)?)?.addresses)
}

/// Both families of the block's addresses, in order.
fn block(lab: &Lab, node: &Node) -> Result<Vec<Vec<IpAddr>>> {
    let view = view(lab, node)?;
    let line = ipam_api::line::Line::of(&view.network.cidrs)?;
    let mut all = Vec::new();
    for range in &view.block.ranges {
        let extent = range.extent(line).context("a range on the line")?;
        let offsets = extent.first().0..extent.next().0;
        all.extend(offsets.map(|offset| line.addresses_at(ipam_api::line::Offset(offset))));
    }
    Ok(all)
}

fn says(agent: &Agent<'_>, line: &str) -> Result<()> {
    let (_, metrics) = agent.get("/metrics")?;
    ensure!(metrics.lines().any(|one| one == line), "no {line:?} in {metrics}");
    Ok(())
}

#[test]
fn an_address_that_a_stranger_has_is_on_record_and_given_to_no_pod() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let all = block(&lab, &lab.nodes[0])?;
    let stranger = mac(&lab.vm)?;
    // The next to be picked, and one by its IPv6 address only.
    squat(&lab, "add", all[0][0])?;
    squat(&lab, "add", all[2][1])?;
    lab.nodes[0].shim(&["sync"])?;
    {
        let agent = lab.nodes[0].agent(&SOON)?;
        until_in_conflict(&lab, &lab.nodes[0], &stranger, &[all[0][0], all[2][0]])?;
        says(&agent, "cni_shim_conflicts 2")?;
        says(&agent, &format!("cni_shim_conflict{{address=\"{}\",mac=\"{stranger}\"}} 1", all[2][1]))?;
    }
    let info: AddressInfo = lab.server.ctl_json(&["address", "show", &all[0][1].to_string()])?;
    ensure!(info.conflict.is_some_and(|conflict| conflict.mac == stranger), "the address tells of it");
    let shown = lab.ctl(&["node", "show", lab.nodes[0].name()])?;
    ensure!(shown.contains(&format!("{} ({stranger})", all[0][0])), "{shown}");

    // Neither with the service nor without it, though nothing else is left in the end.
    ensure!(start(&lab.nodes[0], "a")? == all[1], "the first that nobody has");
    lab.server.stop()?;
    ensure!(start(&lab.nodes[0], "b")? == all[3], "the other one");
    let error = lab.nodes[0].plugin("ADD", &lab.nodes[0].sandbox("c")?, None)?.into_error()?;
    ensure!(error.code == 102 && error.text.contains(&stranger), "{error:?}");
    lab.server.start()?;

    squat(&lab, "delete", all[0][0])?;
    let _agent = lab.nodes[0].agent(&SOON)?;
    until_in_conflict(&lab, &lab.nodes[0], &stranger, &[all[2][0]])?;
    ensure!(start(&lab.nodes[0], "d")? == all[0], "it comes back");
    Ok(())
}

#[test]
fn strangers_are_looked_for_anew_after_a_reboot_and_in_what_a_block_gets() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let stranger = mac(&lab.vm)?;
    lab.nodes[0].shim(&["sync"])?;
    let all = block(&lab, &lab.nodes[0])?;
    squat(&lab, "add", all[1][0])?;
    {
        let _agent = lab.nodes[0].agent(&SOON)?;
        until_in_conflict(&lab, &lab.nodes[0], &stranger, &[all[1][0]])?;
    }
    squat(&lab, "delete", all[1][0])?;
    squat(&lab, "add", all[3][0])?;
    lab.nodes[0].reboot(&lab.fabric)?;
    // What was known before is so until the segment was asked.
    ensure!(
        start(&lab.nodes[0], "a")? == all[0] && start(&lab.nodes[0], "b")? == all[2],
        "not the one between"
    );
    let _agent = lab.nodes[0].agent(&SOON)?;
    until_in_conflict(&lab, &lab.nodes[0], &stranger, &[all[3][0]])?;

    lab.ctl(&["pool", "update", "workers", "--max-pods", "6"])?;
    let grown = block(&lab, &lab.nodes[0])?;
    let new: Vec<_> = grown.iter().filter(|addresses| !all.contains(addresses)).collect();
    ensure!(new.len() == 2, "two addresses more: {new:?}");
    squat(&lab, "add", new[0][0])?;
    lab.nodes[0].shim(&["sync"])?;
    until_in_conflict(&lab, &lab.nodes[0], &stranger, &[all[3][0], new[0][0]])?;
    Ok(())
}

/// Somebody said that the VM is gone, which it is not: its pods go on answering (P6). The machine that gets its block
/// finds out before it gives their addresses to pods of its own.
#[test]
fn pods_of_a_machine_that_should_be_gone_are_strangers() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 2, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let [old, new] = lab.nodes.as_slice() else { anyhow::bail!("two nodes") };
    let theirs = start(old, "lives")?;
    let registration = view(&lab, new)?;
    lab.ctl(&["node", "delete", old.name(), "--vm-gone"])?;
    lab.ctl(&["node", "delete", new.name()])?;
    let own: Vec<String> = registration.addresses.iter().map(ToString::to_string).collect();
    let words =
        ["node", "register", new.name(), "--pool", "workers", "--address", &own[0], "--address", &own[1]];
    lab.ctl(&words)?;
    // What it was known by went with its claim.
    new.machine().script("rm /var/lib/cni-shim/token")?;
    lab.let_join(new)?;
    ensure!(block(&lab, new)?.contains(&theirs), "it has the block of the other now");
    new.shim(&["sync"])?;
    let _agent = new.agent(&SOON)?;
    until_in_conflict(&lab, new, &mac(old.machine())?, &theirs[..1])?;
    ensure!(start(new, "pod")? != theirs, "another address");
    Ok(())
}
