//! Many neighbours at once: the kernel's table has a limit for all namespaces together, and drops silently beyond it.

use anyhow::{Result, ensure};
use std::time::Duration;
use vnet_tests::lab::{Families, Lab, PoolShape, run, until};

/// More than that would overflow a table that the kernel made as it usually does (1,024), with what else runs here.
const PEERS: u64 = 800;
/// Where they begin on the number line.
const FIRST: u64 = 0x2000;

#[test]
fn a_pod_speaks_with_800_peers_of_each_family_and_the_node_says_what_room_it_wants() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let told = node.shim(&["install", "--bin-dir", "/run/opt/bin", "--conf-dir", "/run/etc/net.d"])?;
    ensure!(told.contains("gc_thresh1 = 32768, gc_thresh2 = 65536, gc_thresh3 = 131072"), "{told}");
    ensure!(told.contains("sysctl -w net.ipv4.neigh.default.gc_thresh3=131072"), "{told}");
    let pod = node.sandbox("sociable")?;
    node.add(&pod)?;
    let addressing = lab.fabric.addressing();
    // One family at a time: each has a table of its own, and others use them as well.
    for v4 in [true, false] {
        let family = if v4 { "-4" } else { "-6" };
        let peers: Vec<_> = (FIRST..FIRST + PEERS)
            .flat_map(|offset| addressing.addresses(offset))
            .filter(|address| address.is_ipv4() == v4)
            .collect();
        ensure!(peers.len() as u64 == PEERS, "{}", peers.len());
        let length = if v4 { "32" } else { "128" };
        let batch: String =
            peers.iter().map(|peer| format!("address add {peer}/{length} dev eth0 nodad\n")).collect();
        lab.vm.write("/run/peers", batch.replace(if v4 { " nodad" } else { "" }, "").as_bytes())?;
        lab.vm.script(&format!("ip {family} -batch /run/peers"))?;
        let burst: String = peers.iter().map(|peer| format!("echo >/dev/udp/{peer}/9\n")).collect();
        node.machine().write("/run/burst", burst.as_bytes())?;
        run(node.inside(&pod, "bash").arg("/run/burst"))?;
        let known = || -> Result<usize> {
            let table = node.machine().script(&format!("ip {family} neighbour show dev eth0"))?;
            let resolved = table.lines().filter(|line| line.contains("lladdr"));
            Ok(resolved.filter(|line| peers.iter().any(|peer| line.starts_with(&format!("{peer} ")))).count())
        };
        until("the node knows all of them at once", Duration::from_secs(20), || {
            Ok((known()? as u64 == PEERS).then_some(()))
        })?;
        // Room for others.
        node.machine().script(&format!("ip {family} neighbour flush dev eth0"))?;
    }
    Ok(())
}
