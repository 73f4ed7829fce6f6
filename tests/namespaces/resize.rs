//! A block that shrinks and grows under running pods, while its node does not hear of it.

use anyhow::{Context, Result, ensure};
use ipam_api::wire::{Block, Capacity, Node as NodeAnswer};
use std::{collections::BTreeSet, net::IpAddr};
use vnet_tests::lab::{Attachment, Families, Lab, Node, Pod, PoolShape};

/// A pool of blocks of four, and a node with a pod at every address.
fn full() -> Result<(Lab, Vec<Running>)> {
    let lab = Lab::with_ledger(Families::Dual, 2, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let pods = ["a", "b", "c", "d"].map(|name| Running::start(&lab.nodes[0], name));
    let pods = pods.into_iter().collect::<Result<_>>()?;
    Ok((lab, pods))
}

struct Running {
    pod: Pod,
    attachment: Attachment,
}

impl Running {
    fn start(node: &Node, name: &str) -> Result<Self> {
        let pod = node.sandbox(name)?;
        let attachment = node.add(&pod)?;
        Ok(Self { pod, attachment })
    }

    fn end(self, node: &Node) -> Result<()> {
        node.del(&self.pod, Some(&self.attachment)).map(|_| ())
    }

    fn v4(&self) -> Result<IpAddr> {
        self.attachment.addresses.first().copied().context("it has an address")
    }
}

fn block(lab: &Lab, node: &Node) -> Result<Block> {
    Ok(lab.server.ctl_json::<NodeAnswer>(&["node", "show", node.name()])?.block)
}

fn leaving(lab: &Lab) -> Result<u64> {
    let capacity: Capacity = lab.server.ctl_json(&["capacity"])?;
    Ok(capacity.pools.iter().map(|pool| pool.leaving).sum())
}

fn resize(lab: &Lab, max_pods: &str) -> Result<()> {
    lab.ctl(&["pool", "update", "workers", "--max-pods", max_pods]).map(|_| ())
}

fn refused_as_full(node: &Node, name: &str) -> Result<()> {
    let error = node.plugin("ADD", &node.sandbox(name)?, None)?.into_error()?;
    ensure!(error.code == 102, "the block is full: {error:?}");
    Ok(())
}

#[test]
fn a_block_shrinks_when_the_last_pod_in_its_end_is_gone() -> Result<()> {
    let (mut lab, mut pods) = full()?;
    let (d, c, b, a) = (pods.pop(), pods.pop(), pods.pop(), pods.pop());
    let (Some(a), Some(b), Some(c), Some(d)) = (a, b, c, d) else { anyhow::bail!("four pods") };
    resize(&lab, "2")?;
    ensure!(leaving(&lab)? == 2, "the other node has used nothing and gives its end up at once");

    // Cut off, the node knows nothing of it: an address of the end goes to another pod.
    lab.server.stop()?;
    let end = d.v4()?;
    d.end(&lab.nodes[0])?;
    let e = Running::start(&lab.nodes[0], "e")?;
    ensure!(e.v4()? == end, "the only address that is left");
    lab.server.start()?;

    let node = &lab.nodes[0];
    node.shim(&["sync"])?;
    ensure!(block(&lab, node)?.leaving.len() == 1 && leaving(&lab)? == 2, "two pods live there");
    ensure!(lab.agree(node)? == 4, "and are on record");
    c.end(node)?;
    // Nothing new begins where the block ends, though there is an address.
    refused_as_full(node, "f")?;
    node.shim(&["sync"])?;
    ensure!(leaving(&lab)? == 2, "one pod lives there");
    node.ping_from(&e.pod, lab.nodes[1].addresses()[0])?.time().context("and reaches others")?;

    e.end(node)?;
    ensure!(leaving(&lab)? == 0, "the DEL of the last pod tells the service");
    let shrunk = block(&lab, node)?;
    ensure!(shrunk.version.0 == 2 && shrunk.leaving.is_empty(), "{shrunk:?}");
    b.end(node)?;
    let again = Running::start(node, "g")?;
    refused_as_full(node, "h")?;
    ensure!(again.v4()? != a.v4()? && lab.agree(node)? == 2, "a and g");
    Ok(())
}

#[test]
fn blocks_grow_under_running_pods_and_no_address_is_given_twice() -> Result<()> {
    let (mut lab, mut pods) = full()?;
    refused_as_full(&lab.nodes[0], "too-many")?;
    resize(&lab, "6")?;
    // It has not heard of it yet, and is cut off before it could.
    lab.server.stop()?;
    refused_as_full(&lab.nodes[0], "not-yet")?;
    lab.server.start()?;
    lab.nodes[0].shim(&["sync"])?;
    for name in ["e", "f"] {
        pods.push(Running::start(&lab.nodes[0], name)?);
    }
    refused_as_full(&lab.nodes[0], "too-many-again")?;
    for index in 0..6 {
        pods.push(Running::start(&lab.nodes[1], &format!("other-{index}"))?);
    }
    let addresses: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.attachment.addresses.clone()).collect();
    ensure!(addresses.len() == 2 * 12, "twelve pods with two addresses each: {addresses:?}");
    ensure!(lab.agree(&lab.nodes[0])? == 6 && lab.agree(&lab.nodes[1])? == 6, "ledger and journals");
    // And from one node to the other they reach each other.
    let (first, last) = (&pods[5], &pods[11]);
    lab.nodes[0].ping_from(&first.pod, last.v4()?)?.time()?;
    Ok(())
}
