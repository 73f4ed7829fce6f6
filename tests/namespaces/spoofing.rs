//! A pod sends from its own addresses only.

use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use vnet_tests::lab::{Echo, Families, Lab, Machine, Node, PLAIN_VM, Pod, PoolShape, run_full};

#[test]
fn a_packet_from_anothers_address_is_dropped() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 2, PoolShape::default())?;
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    let pod = one.sandbox("liar")?;
    let own = one.add(&pod)?.addresses;
    let beside = one.add(&one.sandbox("beside")?)?.addresses;
    let elsewhere = two.add(&two.sandbox("elsewhere")?)?.addresses;
    let strangers = ["192.0.2.7".parse()?, "2001:db8::7".parse()?];
    let unused = lab.fabric.addressing().addresses(4_000);
    let gateway = lab.fabric.addressing().addresses(1);
    let vm = lab.fabric.addressing().addresses(PLAIN_VM);

    for others in [&beside[..], &elsewhere, one.addresses(), two.addresses(), &unused, &gateway, &strangers] {
        for (from, to) in others.iter().zip(&vm) {
            let seen = seen_at(&lab.vm, one, &pod, *from, *to)?;
            ensure!(seen == 0, "a packet from {from} to {to} got through");
        }
    }
    for (from, to) in own.iter().zip(&vm) {
        one.ping_from(&pod, *to).and_then(Echo::time).with_context(|| format!("its own address {from}"))?;
    }

    // What the probe would see without the rule: else its silence would prove nothing.
    one.machine().script("nft delete table inet vnet_ipam")?;
    for (from, to) in elsewhere.iter().zip(&vm) {
        ensure!(seen_at(&lab.vm, one, &pod, *from, *to)? > 0, "the probe does not see packets from {from}");
    }
    Ok(())
}

/// Sends a packet with a foreign source from a pod, then one with its own; by the time that is answered the
/// first has arrived or never will. Returns how many of the first kind the VM saw.
fn seen_at(vm: &Machine, node: &Node, pod: &Pod, from: IpAddr, to: IpAddr) -> Result<u64> {
    let (family, width) = if from.is_ipv4() { ("ip", 32) } else { ("ip6", 128) };
    vm.script(&format!(
        "nft add table inet probe; nft delete table inet probe; nft add table inet probe
         nft add chain inet probe input '{{ type filter hook prerouting priority -300; }}'
         nft add counter inet probe seen
         nft add rule inet probe input {family} saddr {from} counter name seen"
    ))?;
    let inside = |script: String| run_full(node.inside(pod, "sh").args(["-euc", &script]));
    let nodad = if from.is_ipv4() { "" } else { "nodad" };
    let sent = inside(format!(
        "ip address add {from}/{width} dev eth0 {nodad}
         ping -n -q -c 1 -W 0.05 -I {from} {to} && echo answered || true
         ip address delete {from}/{width} dev eth0"
    ))?;
    ensure!(sent.status.success(), "sending from {from}: {}", String::from_utf8_lossy(&sent.stderr));
    node.ping_from(pod, to).and_then(Echo::time).context("the pod's own address")?;
    let counter = vm.script("nft list counter inet probe seen")?;
    let packets = counter.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    packets.and_then(|count| count.parse().ok()).with_context(|| format!("nft printed {counter}"))
}
