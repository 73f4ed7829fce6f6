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

/// What the loops know of each other: who runs with which address just now.
#[derive(Debug, Default)]
struct Town {
    running: Mutex<HashMap<IpAddr, String>>,
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

    fn snapshot(&self) -> HashMap<IpAddr, String> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more pods were added.
    fn more_adds(&self, count: usize) -> Result<()> {
        let goal = self.adds.load(Ordering::Relaxed) + count;
        until("the loops go on", PATIENCE, || {
            ensure!(!self.over.load(Ordering::Relaxed), "a loop failed");
            Ok((self.adds.load(Ordering::Relaxed) >= goal).then_some(()))
        })
    }
}

/// ADD, now and then a packet, DEL, until all is over; the last pod stays.
fn come_and_go(town: &Town, vm: &Machine, node: &Node, sandbox: &Pod) -> Result<(Pod, Attachment)> {
    for round in 0_usize.. {
        let pod = sandbox.reincarnated(&format!("{}-{round}", sandbox.name()));
        let attachment = node.add(&pod)?;
        town.moved_in(&pod, &attachment)?;
        if round % 8 == 0 {
            for address in &attachment.addresses {
                vm.ping(*address)
                    .and_then(Echo::time)
                    .with_context(|| format!("{} at {address}", pod.name()))?;
            }
        }
        if town.over.load(Ordering::Relaxed) {
            return Ok((pod, attachment));
        }
        town.moves_out(&attachment);
        node.del(&pod, Some(&attachment))?;
    }
    anyhow::bail!("rounds without end")
}

/// After a sync of every node the ledger names whoever ran all the while.
fn ledger_knows_the_running(town: &Town, server: &Server, nodes: &[Node]) -> Result<usize> {
    let before = town.snapshot();
    let mut ledger = HashMap::new();
    for node in nodes {
        node.shim(&["sync"])?;
        for one in server.ledger(node)? {
            for held in &one.addresses {
                let other = ledger.insert(held.address, one.container_id.to_string());
                ensure!(other.is_none(), "two holders of {} in the ledger", held.address);
            }
        }
    }
    let after = town.snapshot();
    let steady: Vec<_> = before.iter().filter(|(address, pod)| after.get(*address) == Some(pod)).collect();
    for (address, pod) in &steady {
        ensure!(
            ledger.get(*address) == Some(pod),
            "{address} runs as {pod}, the ledger has {:?}",
            ledger.get(*address)
        );
    }
    Ok(steady.len())
}

#[test]
fn no_address_twice_and_none_lost_while_the_service_is_killed() -> Result<()> {
    let began = Instant::now();
    let mut lab = Lab::with_ledger(Families::Dual, NODES, PoolShape::default())?;
    let town = Town::default();
    let Lab { nodes, server, vm, .. } = &mut lab;
    let (nodes, vm) = (&*nodes, &*vm);
    let sandboxes: Vec<(&Node, Pod)> = nodes
        .iter()
        .flat_map(|node| (0..LOOPS).map(move |index| (node, format!("{}-{index}", node.name()))))
        .map(|(node, name)| Ok((node, node.sandbox(&name)?)))
        .collect::<Result<_>>()?;

    let last = thread::scope(|scope| -> Result<Vec<(&Node, Pod, Attachment)>> {
        let town = &town;
        let loops: Vec<_> = sandboxes
            .iter()
            .map(|(node, sandbox)| {
                scope.spawn(move || {
                    let end = come_and_go(town, vm, node, sandbox);
                    town.over.store(true, Ordering::Relaxed);
                    end.map(|(pod, attachment)| (*node, pod, attachment))
                })
            })
            .collect();
        let mut story = || -> Result<()> {
            for kill in 1..=KILLS {
                town.more_adds(BETWEEN)?;
                server.kill()?;
                town.more_adds(BETWEEN)?;
                server.start()?;
                let steady = ledger_knows_the_running(town, server, nodes)?;
                println!(
                    "kill {kill}: {} ADDs, {steady} addresses held all the while",
                    town.adds.load(Ordering::Relaxed)
                );
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
    println!("{} ADDs in {:?}", town.adds.load(Ordering::Relaxed), began.elapsed());
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
