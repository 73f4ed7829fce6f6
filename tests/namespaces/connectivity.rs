//! Pods that VMs can ping: ADD, packets, CHECK, DEL, in each choice of families.

use crate::figures::FirstPackets;
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use vnet_tests::lab::{Attachment, Echo, Families, Lab, Node, PLAIN_VM, Pod, PoolShape};

#[test]
fn v4() -> Result<()> {
    pods_and_vms_reach_each_other(Families::V4, 1)
}

#[test]
fn v6() -> Result<()> {
    pods_and_vms_reach_each_other(Families::V6, 1)
}

#[test]
fn dual_stack() -> Result<()> {
    pods_and_vms_reach_each_other(Families::Dual, 2)
}

fn pods_and_vms_reach_each_other(families: Families, addresses: usize) -> Result<()> {
    let lab = Lab::with_ledger(families, 2, PoolShape::default())?;
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    let mut first = FirstPackets::default();
    let mut running: Vec<(&Node, Pod, Attachment)> = Vec::new();
    for (node, name) in [(one, "a-1"), (one, "a-2"), (two, "b-1"), (two, "b-2")] {
        let pod = node.sandbox(name)?;
        let attachment = node.add(&pod)?;
        // Now one family, now the other is the very first.
        let mut order = attachment.addresses.clone();
        let turn = running.len() % order.len();
        order.rotate_left(turn);
        for to in order {
            first.send(&lab, to)?;
        }
        ensure!(attachment.addresses.len() == addresses, "{:?}", attachment.addresses);
        running.push((node, pod, attachment));
    }

    let vm = lab.fabric.addressing().addresses(PLAIN_VM);
    for (node, pod, attachment) in &running {
        let mut targets = vm.clone();
        targets.extend(one.addresses().iter().chain(two.addresses()));
        targets.extend(running.iter().flat_map(|(_, _, other)| &other.addresses));
        targets.extend(lab.fabric.addressing().addresses(1));
        for to in targets {
            node.ping_from(pod, to)
                .and_then(Echo::time)
                .with_context(|| format!("from {} to {to}", pod.name()))?;
        }
        for to in &attachment.addresses {
            node.machine().ping(*to).and_then(Echo::time).with_context(|| format!("its node to {to}"))?;
        }
        node.check(pod, attachment)?;
    }
    ensure!(lab.agree(one)? == 2 && lab.agree(two)? == 2, "two pods a node");

    for (node, pod, attachment) in &running {
        node.del(pod, Some(attachment))?;
        for to in &attachment.addresses {
            ensure!(lab.vm.ping(*to)? == Echo::Lost, "{to} answers after DEL of {}", pod.name());
        }
        node.del(pod, Some(attachment)).context("the second DEL")?;
        node.remove_sandbox(pod)?;
        node.del(pod, None).context("DEL without a sandbox")?;
    }
    for node in [one, two] {
        ensure!(lab.agree(node)? == 0, "a pod left on {}", node.name());
        let traces = node.traces()?;
        ensure!(traces.is_empty(), "left on {}: {traces:#?}", node.name());
    }
    first.all_quick()
}

#[test]
fn addresses_by_name_and_by_question() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("web-1")?;
    let attachment = node.add(&pod)?;
    for address in &attachment.addresses {
        let address: IpAddr = *address;
        let shown = lab.ctl(&["address", "show", &address.to_string()])?;
        ensure!(shown.contains("web-1") && shown.contains("node-1"), "{address}: {shown}");
    }
    Ok(())
}
