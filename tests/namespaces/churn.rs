//! Many pods come and go while the service dies again and again.

use anyhow::{Context, Result, ensure};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use vnet_tests::lab::{Attachment, Echo, Families, Lab, Machine, Node, Pod, PoolShape, Server, until};

const NODES: u64 = 3;
const LOOPS: usize = 8;
const KILLS: usize = 10;
/// ADDs between two events: two a loop.
const BETWEEN: usize = 2 * LOOPS * 3;
/// An event that takes longer is an error, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A packet without an answer by then is lost, not late: nothing but the machine's load delays one that long.
const PACKET_PATIENCE: Duration = Duration::from_secs(20);
/// Half of the first packets of a family are answered by then, whatever the load. Where they had to wait for a
/// neighbour to be found or for an answer by proxy, which the kernel delays by up to 800 ms, half would be later.
const USUAL_PACKET: Duration = Duration::from_millis(200);

/// What the loops know of each other: who runs with which address just now.
#[derive(Debug, Default)]
struct Town {
    running: Mutex<HashMap<IpAddr, String>>,
    /// First packets that were answered, and how fast.
    packets: Mutex<Vec<(IpAddr, Duration)>>,
    adds: AtomicUsize,
    over: AtomicBool,
}

impl Town {
    /// A pod runs: its addresses must have been nobody's.
    fn moved_in(&self, pod: &Pod, attachment: &Attachment) -> Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for address in &attachment.addresses {
            if let Some(other) = running.insert(*address, pod.container_id().to_owned()) {
                anyhow::bail!("{address} given to {} while {other} runs with it", pod.container_id());
            }
        }
        self.adds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A pod is about to end.
    fn moves_out(&self, attachment: &Attachment) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for address in &attachment.addresses {
            running.remove(address);
        }
    }

    fn answered(&self, address: IpAddr, after: Duration) {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).push((address, after));
    }

    /// Fails if first packets are slow, be it in one family: a few may be, which the load explains.
    fn packets_are_quick(&self) -> Result<()> {
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        for family in ["IPv4", "IPv6"] {
            let of_family = packets.iter().filter(|(to, _)| to.is_ipv4() == (family == "IPv4"));
            let mut times: Vec<Duration> = of_family.map(|(_, time)| *time).collect();
            times.sort();
            let median = *times.get(times.len() / 2).with_context(|| format!("no packet by {family}"))?;
            let slowest = times.last().copied().unwrap_or_default();
            println!("{} first packets by {family}: median {median:?}, slowest {slowest:?}", times.len());
            ensure!(median < USUAL_PACKET, "half of the first packets by {family} took {median:?} or more");
        }
        Ok(())
    }

    fn added(&self) -> usize {
        self.adds.load(Ordering::Relaxed)
    }

    fn snapshot(&self) -> HashMap<IpAddr, String> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more pods were added.
    fn more_adds(&self, count: usize) -> Result<()> {
        let goal = self.added() + count;
        until("the loops go on", PATIENCE, || {
            ensure!(!self.over.load(Ordering::Relaxed), "a loop failed");
            Ok((self.added() >= goal).then_some(()))
        })
    }
}

/// ADD, now and then a packet, DEL of the pod before, until all is over; the last pod stays.
fn come_and_go(town: &Town, vm: &Machine, node: &Node, sandboxes: &[Pod; 2]) -> Result<(Pod, Attachment)> {
    let mut before: Option<(Pod, Attachment)> = None;
    for round in 0_usize.. {
        let sandbox = &sandboxes[round % 2];
        let pod = sandbox.reincarnated(&format!("{}-{round}", sandbox.name()));
        let attachment = node.add(&pod)?;
        town.moved_in(&pod, &attachment)?;
        if round % 8 == 0 {
            for address in &attachment.addresses {
                town.answered(*address, answers(vm, node, &pod, *address)?);
            }
        }
        if let Some((pod, attachment)) = before.replace((pod, attachment)) {
            town.moves_out(&attachment);
            node.del(&pod, Some(&attachment))?;
        }
        if town.over.load(Ordering::Relaxed) {
            break;
        }
    }
    before.context("not one round")
}

/// How fast a pod answers the first packet; fails with what both sides knew of each other if it does not.
fn answers(vm: &Machine, node: &Node, pod: &Pod, address: IpAddr) -> Result<Duration> {
    if let Echo::After(time) = vm.ping_within(address, PACKET_PATIENCE)? {
        return Ok(time);
    }
    let knew =
        |machine: &Machine, command: &str| machine.script(&format!("{command} | grep -F {address} || true"));
    anyhow::bail!(
        "{} does not answer at {address}; a second packet: {:?}; neighbours: {} {}; proxies: {}; routes: {}",
        pod.name(),
        vm.ping(address)?,
        knew(vm, "(ip neighbour; ip -6 neighbour)")?,
        knew(node.machine(), "(ip neighbour; ip -6 neighbour)")?,
        knew(node.machine(), "(ip neighbour show proxy; ip -6 neighbour show proxy)")?,
        knew(node.machine(), "(ip route; ip -6 route)")?,
    )
}

/// Every live attachment in the ledger, by address.
fn ledger(server: &Server, nodes: &[Node]) -> Result<HashMap<IpAddr, String>> {
    let mut all = HashMap::new();
    for node in nodes {
        for one in server.ledger(node)? {
            for held in &one.addresses {
                let other = all.insert(held.address, one.container_id.to_string());
                ensure!(other.is_none(), "two holders of {} in the ledger", held.address);
            }
        }
    }
    Ok(all)
}

/// After a sync of every node the ledger names whoever ran all the while; returns it.
fn ledger_knows_the_running(town: &Town, server: &Server, nodes: &[Node]) -> Result<HashMap<IpAddr, String>> {
    let before = town.snapshot();
    for node in nodes {
        node.shim(&["sync"])?;
    }
    let ledger = ledger(server, nodes)?;
    let after = town.snapshot();
    let steady: Vec<_> = before.iter().filter(|(address, pod)| after.get(*address) == Some(pod)).collect();
    for (address, pod) in &steady {
        let held = ledger.get(*address);
        ensure!(held == Some(pod), "{address} runs as {pod}, the ledger has {held:?}");
    }
    println!("{} ADDs so far, {} addresses held all the while", town.added(), steady.len());
    Ok(ledger)
}

#[test]
fn no_address_twice_and_none_lost_while_the_service_is_killed() -> Result<()> {
    let began = Instant::now();
    let mut lab = Lab::with_ledger(Families::Dual, NODES, PoolShape::default())?;
    let town = Town::default();
    let Lab { nodes, server, vm, .. } = &mut lab;
    let (nodes, vm) = (&*nodes, &*vm);
    let sandboxes: Vec<(&Node, [Pod; 2])> = nodes
        .iter()
        .flat_map(|node| (0..LOOPS).map(move |index| (node, format!("{}-{index}", node.name()))))
        .map(|(node, name)| {
            Ok((node, [node.sandbox(&format!("{name}-a"))?, node.sandbox(&format!("{name}-b"))?]))
        })
        .collect::<Result<_>>()?;

    let last = thread::scope(|scope| -> Result<Vec<(&Node, Pod, Attachment)>> {
        let town = &town;
        let loops: Vec<_> = sandboxes
            .iter()
            .map(|(node, sandboxes)| {
                scope.spawn(move || {
                    let end = come_and_go(town, vm, node, sandboxes);
                    town.over.store(true, Ordering::Relaxed);
                    end.map(|(pod, attachment)| (*node, pod, attachment))
                })
            })
            .collect();
        let mut story = || -> Result<()> {
            let mut known = HashMap::new();
            for _ in 0..KILLS {
                town.more_adds(BETWEEN)?;
                let now = ledger(server, nodes)?;
                ensure!(
                    now.values().any(|pod| !known.values().any(|old| old == pod)),
                    "the service is not asked"
                );
                server.kill()?;
                town.more_adds(BETWEEN)?;
                server.start()?;
                known = ledger_knows_the_running(town, server, nodes)?;
            }
            town.more_adds(BETWEEN)
        };
        let told = story();
        town.over.store(true, Ordering::Relaxed);
        let ended = loops
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow::anyhow!("a loop panicked"))?)
            .collect::<Result<Vec<_>>>();
        // What a loop met explains why the story ended.
        let ended = ended?;
        told?;
        Ok(ended)
    })
    .with_context(|| format!("the service's log ends so:\n{}", server.log()))?;

    all_ends_well(nodes, vm, server, &last)?;
    town.packets_are_quick()?;
    println!("{} ADDs in {:?}", town.added(), began.elapsed());
    Ok(())
}

/// One pod a loop is left, in ledger, journal and kernel alike; and none once these are deleted.
fn all_ends_well(
    nodes: &[Node],
    vm: &Machine,
    server: &Server,
    last: &[(&Node, Pod, Attachment)],
) -> Result<()> {
    for node in nodes {
        node.shim(&["sync"])?;
        ensure!(server.agrees_with(node)? == LOOPS, "one pod a loop on {}", node.name());
    }
    for (node, pod, attachment) in last {
        for address in &attachment.addresses {
            vm.ping(*address).and_then(Echo::time).with_context(|| format!("{} at {address}", pod.name()))?;
        }
        node.check(pod, attachment)?;
        node.del(pod, Some(attachment))?;
    }
    for node in nodes {
        node.shim(&["sync"])?;
        ensure!(server.agrees_with(node)? == 0, "all ended on {}", node.name());
        ensure!(node.traces()?.is_empty(), "left on {}: {:#?}", node.name(), node.traces()?);
    }
    Ok(())
}
