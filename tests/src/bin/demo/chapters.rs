use crate::story::{Story, milliseconds};
use anyhow::{Result, ensure};
use ipam_api::wire::{ExtentInfo, ExtentKind, Listing, Node as NodeAnswer};
use std::{net::IpAddr, time::Duration};
use vnet_tests::lab::{Attachment, Echo, Lab, MANAGEMENT, Node, PLAIN_VM, Pod};

/// Pods started on each node.
const PODS: usize = 5;
/// What the names of pods begin with.
pub(crate) const POD_NAMES: [&str; 2] = ["web-", "late-"];
/// The first packet to a new pod may take this long.
const FIRST_PACKET: Duration = Duration::from_millis(5);

/// A pod that runs on the node of this index.
pub(crate) struct Running {
    node: usize,
    pod: Pod,
    attachment: Attachment,
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

pub(crate) fn machines(story: &Story, lab: &Lab) -> Result<()> {
    let addressing = lab.fabric.addressing();
    let mut rows = vec![("management", addressing.addresses(MANAGEMENT), "runs ipam-server on SQLite")];
    rows.extend(
        lab.nodes.iter().map(|node| (node.name(), node.addresses().to_vec(), "runs pods, wired by cni-shim")),
    );
    rows.push((lab.vm.name(), addressing.addresses(PLAIN_VM), "a VM like any other"));
    for (name, addresses, what) in rows {
        story.say(&format!("  {name:11} {:28} {what}", list(&addresses)))?;
    }
    Ok(())
}

pub(crate) fn plan(story: &mut Story, lab: &Lab) -> Result<()> {
    story.chapter("Plan: will it fit?")?;
    story.say(
        "Before anything exists: three nodes with thirty pods each, and one more node during an upgrade.",
    )?;
    story.ctl(lab, "plan --cidr 10.240.0.0/24 --max-pods 30 --nodes 3 --surge 1")?;
    story.say("\nIt does. The VNet, a range for the VMs' own addresses, and the pool, which reserves all its blocks now:")?;
    story.ctl(
        lab,
        "vnet create prod --address-space 10.240.0.0/12 --address-space fd00:10::/48 --service-cidr 10.0.0.0/16",
    )?;
    story.ctl(lab, "subnet create prod/nodes --cidr 10.240.0.0/16 --cidr fd00:10::/64")?;
    story.ctl(
        lab,
        "reservation create prod/nodes/vms --range 10.240.0.4-10.240.0.255 --for-nodes --reason \"the VMs' own addresses\"",
    )?;
    story.ctl(lab, "pool create workers --subnet prod/nodes --max-pods 30 --nodes 3 --surge 1")?;
    story.ctl(lab, "capacity")?;
    Ok(())
}

pub(crate) fn register(story: &mut Story, lab: &Lab) -> Result<()> {
    story.chapter("Nodes claim their blocks")?;
    for node in &lab.nodes {
        let addresses: String = node.addresses().iter().map(|one| format!(" --address {one}")).collect();
        story.ctl(lab, &format!("node register {} --pool workers{addresses}", node.name()))?;
    }
    story.ctl(lab, "node list")?;
    let nodes: Listing<NodeAnswer> = lab.server.ctl_json(&["node", "list"])?;
    let blocks = nodes.items.iter().filter(|node| !node.block.ranges.is_empty()).count();
    story.claim("every node has a block of its own", &format!("{blocks} blocks"), blocks == lab.nodes.len())
}

pub(crate) fn credentials(story: &mut Story, lab: &Lab) -> Result<()> {
    story.chapter("Only who may, may")?;
    story.say(
        "The service speaks TLS and lets nobody in without a credential; its first admin's token lies in a file of its\n\
         owner's. A join token is good for new nodes of one pool: each swaps it for a token of its own.",
    )?;
    story.ctl(
        lab,
        "token create new-workers --role join --pool workers --uses 3 --expires 1h --out /run/join.token",
    )?;
    let join = lab.server.machine().read("/run/join.token");
    for node in &lab.nodes {
        node.bring_join_token(join.trim())?;
        story.shim(node, &node.join_words().join(" "))?;
    }
    story.ctl(lab, "token list")?;
    story.say("\nA stolen node token is worth one node. With the first node's:")?;
    let own = lab.nodes[0].token();
    let asked = [
        ("its own node", format!("node show {}", lab.nodes[0].name()), true),
        ("another node", format!("node show {}", lab.nodes[1].name()), false),
        ("all nodes", "node list".to_owned(), false),
        ("the plan", "pool scale workers --nodes 1000".to_owned(), false),
        ("more tokens", "token create more --role admin".to_owned(), false),
    ];
    let mut as_expected = 0;
    for (what, typed, allowed) in &asked {
        let words: Vec<&str> = typed.split_whitespace().collect();
        let done = lab.server.ctl_command_with(own.trim(), &words).output()?.status.success();
        as_expected += usize::from(done == *allowed);
        story.say(&format!("  {what:13} {}", if done { "yes" } else { "refused" }))?;
    }
    let nobody = lab.server.ctl_command_with("", &["node", "list"]).output()?.status.success();
    story.say(&format!("Without any: {}", if nobody { "yes" } else { "refused" }))?;
    let figure = format!("{as_expected} of {} as they should be", asked.len());
    story.claim(
        "a node's token opens its own node alone, none opens nothing",
        &figure,
        as_expected == asked.len() && !nobody,
    )
}

pub(crate) fn start_pods(story: &mut Story, lab: &Lab) -> Result<Vec<Running>> {
    story.chapter("Pods start")?;
    story.say(&format!(
        "{PODS} pods on each node through the real cni-shim. Right after each ADD the plain VM sends its first packet to\n\
         the pod, in both families; nothing was sent before, nothing is sent twice.\n"
    ))?;
    let mut running = Vec::new();
    let mut packets = Vec::new();
    for (index, node) in lab.nodes.iter().enumerate() {
        for number in 1..=PODS {
            let (pod, times) =
                start(story, lab, index, &format!("web-{}-{number}", index + 1), running.len())?;
            running.push(pod);
            packets.extend(times);
        }
        ensure!(node.addresses().len() == 2, "the demo is dual-stack");
    }
    let slowest = packets.iter().max().copied().unwrap_or_default();
    let figure = format!("slowest of {}: {}", packets.len(), milliseconds(slowest));
    story.claim("VM to pod: the first packet after ADD takes under 5 ms", &figure, slowest < FIRST_PACKET)?;
    let mut addresses: Vec<_> = running.iter().flat_map(|one| &one.attachment.addresses).collect();
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    story.claim("no address twice", &format!("{count} addresses"), addresses.len() == count)?;
    Ok(running)
}

/// Starts one pod, sends it its first packets, tells of both.
fn start(story: &Story, lab: &Lab, node: usize, name: &str, turn: usize) -> Result<(Running, Vec<Duration>)> {
    let host = &lab.nodes[node];
    let pod = host.sandbox(name)?;
    let attachment = host.add(&pod)?;
    // Now IPv4, now IPv6 is the very first.
    let mut order = attachment.addresses.clone();
    let first = turn % order.len();
    order.rotate_left(first);
    let mut times = order.iter().map(|to| lab.vm.ping(*to)?.time()).collect::<Result<Vec<_>>>()?;
    times.rotate_right(first);
    let shown: Vec<_> = attachment
        .addresses
        .iter()
        .zip(&times)
        .map(|(address, time)| format!("{:18} {:>8}", address.to_string(), milliseconds(*time)))
        .collect();
    story.say(&format!(
        "  {} {name:9} ADD {:>9}   first packet to {}",
        host.name(),
        milliseconds(attachment.took),
        shown.join("   to ")
    ))?;
    Ok((Running { node, pod, attachment }, times))
}

pub(crate) fn reach_each_other(story: &mut Story, lab: &Lab, pods: &[Running]) -> Result<()> {
    story.chapter("Everyone reaches everyone")?;
    let (first, neighbour, far) = (&pods[0], &pods[1], &pods[PODS]);
    let vm = lab.fabric.addressing().addresses(PLAIN_VM);
    let routes = [
        ("pod to pod on its node", first, &neighbour.attachment.addresses),
        ("pod to pod on another node", first, &far.attachment.addresses),
        ("and back", far, &first.attachment.addresses),
        ("pod to VM", far, &vm),
    ];
    let mut lost = 0;
    for (what, from, to) in routes {
        for address in to {
            let echo = lab.nodes[from.node].ping_from(&from.pod, *address)?;
            lost += usize::from(echo == Echo::Lost);
            let time = echo.time().map_or_else(|lost| lost.to_string(), milliseconds);
            story.say(&format!("  {what:27} {:9} -> {address:18} {time}", from.pod.name()))?;
        }
    }
    story.claim("pod to pod, on a node and across; pod to VM", "both families", lost == 0)
}

pub(crate) fn who_has_which(story: &mut Story, lab: &Lab, pods: &[Running]) -> Result<()> {
    story.chapter("Who has which address?")?;
    story.ctl(lab, "allocation list")?;
    let asked = &pods[PODS];
    let shown = story.ctl(lab, &format!("address show {}", asked.attachment.addresses[0]))?;
    let named = shown.contains(asked.pod.name());
    story.claim("the service names the pod behind an address", asked.pod.name(), named)
}

pub(crate) fn service_away(story: &mut Story, lab: &mut Lab, pods: &mut Vec<Running>) -> Result<()> {
    story.chapter("The service is away")?;
    lab.server.stop()?;
    story.say("ipam-server is stopped. Every node goes on from its own block:\n")?;
    let mut slowest = Duration::ZERO;
    for (node, name) in [(0, "late-1"), (1, "late-2")] {
        let (pod, times) = start(story, lab, node, name, pods.len())?;
        slowest = times.into_iter().fold(slowest, Duration::max);
        pods.push(pod);
    }
    let figure = format!("first packet {}", milliseconds(slowest));
    story.claim("pods start without the service", &figure, slowest < FIRST_PACKET)
}

pub(crate) fn service_back(story: &mut Story, lab: &mut Lab, pods: &[Running]) -> Result<()> {
    story.chapter("The service is back")?;
    lab.server.start()?;
    story.say("Each node sends its journal:")?;
    for node in &lab.nodes {
        story.shim(node, "sync")?;
    }
    let agreed = lab.nodes.iter().map(|node| lab.agree(node)).collect::<Result<Vec<_>>>();
    let total = agreed.as_ref().map_or(0, |counts| counts.iter().sum::<usize>());
    let figure = match &agreed {
        Ok(_) => format!("{total} pods"),
        Err(error) => format!("{error:#}"),
    };
    story.say(&format!("\nLedger and journals compared, attachment by attachment: {figure}."))?;
    story.claim("ledger and journals agree after the outage", &figure, total == pods.len())
}

pub(crate) fn scale(story: &mut Story, lab: &Lab) -> Result<()> {
    story.chapter("The pool grows")?;
    let blocks = || -> Result<Vec<_>> {
        let nodes: Listing<NodeAnswer> = lab.server.ctl_json(&["node", "list"])?;
        Ok(nodes.items.into_iter().map(|node| (node.name, node.block)).collect())
    };
    let before = blocks()?;
    story.ctl(lab, "pool scale workers --nodes 20 --dry-run")?;
    story.ctl(lab, "pool scale workers --nodes 20")?;
    story.ctl(lab, "capacity")?;
    story.claim("growing the pool moves nobody's block", "3 to 20 nodes", blocks()? == before)
}

pub(crate) fn delete_pods(story: &mut Story, lab: &Lab, pods: Vec<Running>) -> Result<()> {
    story.chapter("Pods end")?;
    let count = pods.len();
    let mut longest = Duration::ZERO;
    for Running { node, pod, attachment } in pods {
        let node = &lab.nodes[node];
        longest = longest.max(node.del(&pod, Some(&attachment))?);
        node.remove_sandbox(&pod)?;
    }
    story.say(&format!("{count} DELs, the slowest took {}.", milliseconds(longest)))?;
    for node in &lab.nodes {
        story.shim(node, "sync")?;
    }
    let left = lab.nodes.iter().map(|node| lab.agree(node)).sum::<Result<usize>>()?;
    let traces = lab.nodes.iter().map(Node::traces).collect::<Result<Vec<_>>>()?.concat().len();
    let figure = format!("{left} allocations, {traces} links, routes and neighbours left");
    story.claim("DEL leaves nothing, in the ledger or on a node", &figure, left + traces == 0)
}

pub(crate) fn free_again(story: &mut Story, lab: &Lab) -> Result<()> {
    story.chapter("All is given back")?;
    story.say("A deleted node keeps its block until its shim confirms that nothing lives in it:")?;
    for node in &lab.nodes {
        story.ctl(lab, &format!("node delete {}", node.name()))?;
        story.shim(node, "sync")?;
    }
    let nodes: Listing<NodeAnswer> = lab.server.ctl_json(&["node", "list"])?;
    story.claim("deleted nodes gave their blocks back at once", "no wait", nodes.items.is_empty())?;
    story.ctl(lab, "pool delete workers")?;
    story.ctl(lab, "reservation delete prod/nodes/vms")?;
    story.ctl(lab, "subnet map prod/nodes")?;
    let extents: Listing<ExtentInfo> = lab.server.ctl_json(&["subnet", "map", "prod/nodes"])?;
    let taken: Vec<_> = extents.items.iter().filter(|one| one.kind != ExtentKind::Free).collect();
    let platform = taken.iter().all(|one| one.kind == ExtentKind::Reserved);
    let size: u64 = taken.iter().map(|one| one.size).sum();
    let figure = format!("{size} of 65536 addresses taken");
    story.claim("the subnet is free again but for the platform's addresses", &figure, platform && size == 5)
}
