//! Reboots, a journal that is lost, and messages of the past.

use anyhow::{Result, ensure};
use vnet_tests::lab::{Attachment, Echo, Families, Lab, Node, Pod, PoolShape};

fn start(node: &Node, names: &[&str]) -> Result<Vec<(Pod, Attachment)>> {
    names
        .iter()
        .map(|name| {
            let pod = node.sandbox(name)?;
            let attachment = node.add(&pod)?;
            Ok((pod, attachment))
        })
        .collect()
}

#[test]
fn a_reboot_ends_what_ran_before() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let old = start(&lab.nodes[0], &["old-1", "old-2"])?;
    lab.nodes[0].reboot(&lab.fabric)?;
    let node = &lab.nodes[0];
    let new = start(node, &["new-1"])?;
    ensure!(lab.agree(node)? == 1, "only the pod of this boot");
    // The runtime still cleans up the sandboxes of before.
    for (pod, attachment) in &old {
        node.del(pod, Some(attachment))?;
    }
    for address in &new[0].1.addresses {
        lab.vm.ping(*address).and_then(Echo::time)?;
    }
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 1, "only the pod of this boot");
    Ok(())
}

#[test]
fn a_journal_lost_under_running_pods_is_rebuilt() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 4, ..PoolShape::default() })?;
    let node = &lab.nodes[0];
    let old = start(node, &["old-1", "old-2", "old-3"])?;
    node.machine().script("rm -r /run/cni-shim")?;
    let new = start(node, &["new-1"])?;
    for (pod, attachment) in old.iter().chain(&new) {
        node.check(pod, attachment)?;
        for address in &attachment.addresses {
            lab.vm.ping(*address).and_then(Echo::time)?;
        }
    }
    ensure!(lab.agree(node)? == 4, "all four run on");
    let error = node.plugin("ADD", &node.sandbox("too-many")?, None)?.into_error()?;
    ensure!(error.code == 102, "the block is full: {error:?}");
    for (pod, attachment) in &old {
        node.del(pod, Some(attachment))?;
    }
    ensure!(lab.agree(node)? == 1, "only the new one");
    Ok(())
}

#[test]
fn a_late_del_does_not_touch_the_next_holder() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape { max_pods: 1, rest_seconds: 0 })?;
    let node = &lab.nodes[0];
    let old = start(node, &["old"])?;
    let (pod, attachment) = &old[0];
    node.del(pod, Some(attachment))?;
    // The same sandbox path by now names another container.
    let next = pod.reincarnated("next");
    let held = node.add(&next)?;
    ensure!(held.addresses == attachment.addresses, "a block of one address");
    node.del(pod, Some(attachment))?;
    node.del(pod, None)?;
    node.check(&next, &held)?;
    lab.vm.ping(held.addresses[0]).and_then(Echo::time)?;
    ensure!(lab.agree(node)? == 1, "the next holder");
    Ok(())
}
