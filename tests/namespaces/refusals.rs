//! An ADD that fails harms nobody and leaves nothing.

use anyhow::{Result, ensure};
use vnet_tests::lab::{Echo, Families, Lab, Node, Pod, PoolShape};

#[test]
fn a_second_add_fails_and_the_pod_runs_on() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("web-1")?;
    let attachment = node.add(&pod)?;
    let before = node.traces()?;
    for _ in 0..3 {
        node.plugin("ADD", &pod, None)?.into_error()?;
    }
    ensure!(node.traces()? == before, "a refused ADD changed the node: {before:#?} {:#?}", node.traces()?);
    node.check(&pod, &attachment)?;
    for address in &attachment.addresses {
        lab.vm.ping(*address).and_then(Echo::time)?;
    }
    ensure!(lab.agree(node)? == 1, "one pod");
    Ok(())
}

#[test]
fn a_failed_add_leaves_nothing() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 2, ..PoolShape::default() })?;
    let node = &lab.nodes[0];

    let missing = Pod::named("no-sandbox");
    node.plugin("ADD", &missing, None)?.into_error()?;
    nothing_is_left(&lab, node, "a missing sandbox")?;

    let taken = node.sandbox("eth0-is-there")?;
    node.machine().script(&format!(
        "ip -n {netns} link add eth0 type veth peer name other; ip -n {netns} link set eth0 up",
        netns = taken.netns()
    ))?;
    node.plugin("ADD", &taken, None)?.into_error()?;
    nothing_is_left(&lab, node, "an interface of that name")?;
    let still = node.machine().script(&format!("ip -n {} link show eth0", taken.netns()))?;
    ensure!(still.contains("UP"), "the interface that was there is not as it was: {still}");

    for name in ["web-1", "web-2"] {
        node.add(&node.sandbox(name)?)?;
    }
    let before = node.traces()?;
    let error = node.plugin("ADD", &node.sandbox("web-3")?, None)?.into_error()?;
    ensure!(error.code == 102, "a full block: {error:?}");
    ensure!(node.traces()? == before, "a refused ADD changed the node");
    ensure!(lab.agree(node)? == 2, "two pods");
    Ok(())
}

fn nothing_is_left(lab: &Lab, node: &Node, after: &str) -> Result<()> {
    let traces = node.traces()?;
    ensure!(traces.is_empty(), "left by a failed ADD ({after}): {traces:#?}");
    ensure!(lab.agree(node)? == 0, "a pod in ledger and journal after a failed ADD ({after})");
    Ok(())
}
