//! A block stays with its node until the node says that nothing lives in it.

use anyhow::{Result, ensure};
use ipam_api::wire::{Node as NodeAnswer, NodeState};
use vnet_tests::lab::{Families, Lab, PoolShape};

#[test]
fn a_deleted_node_gives_its_block_back_by_a_sync() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("web-1")?;
    let attachment = node.add(&pod)?;

    lab.ctl(&["node", "delete", node.name()])?;
    node.shim(&["sync"])?;
    let answer: NodeAnswer = lab.server.ctl_json(&["node", "show", node.name()])?;
    ensure!(answer.state == NodeState::Deleting, "a pod runs: {answer:?}");
    let error = node.plugin("ADD", &node.sandbox("web-2")?, None)?.into_error()?;
    ensure!(error.code == 101, "no new pods on a node that is deleted: {error:?}");
    node.check(&pod, &attachment)?;

    node.del(&pod, Some(&attachment))?;
    node.shim(&["sync"])?;
    let gone = lab.ctl(&["node", "show", node.name()]);
    ensure!(gone.is_err(), "still there after its journal was empty: {gone:?}");
    lab.ctl(&["pool", "delete", "workers"])?;
    Ok(())
}

#[test]
fn who_knows_that_the_vm_is_gone_may_say_so() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    node.add(&node.sandbox("web-1")?)?;
    lab.ctl(&["node", "delete", node.name(), "--vm-gone"])?;
    ensure!(lab.ctl(&["node", "show", node.name()]).is_err(), "still there");
    Ok(())
}
