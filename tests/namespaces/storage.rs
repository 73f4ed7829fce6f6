//! Files that cannot be written, and files that are not what was written: pods that run go on, nothing is given twice,
//! and what the message names as the cure is one.

use anyhow::{Context, Result, ensure};
use vnet_tests::lab::{Attachment, Echo, Families, Lab, Node, Pod, PoolShape};

const STATE: &str = "/run/cni-shim";
const DATA: &str = "/var/lib/cni-shim";

fn town() -> Result<Lab> {
    Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 4, rest_seconds: 0 })
}

fn start(node: &Node, name: &str) -> Result<(Pod, Attachment)> {
    let pod = node.sandbox(name)?;
    let attachment = node.add(&pod)?;
    Ok((pod, attachment))
}

/// Puts a directory on a file system of its own, which is small.
fn put_apart(node: &Node, directory: &str) -> Result<()> {
    node.machine()
        .script(&format!(
            "mkdir -p {directory} /run/apart{directory}
             mount -t tmpfs -o size=128k,mode=0700 apart /run/apart{directory}
             cp -a {directory}/. /run/apart{directory}
             mount --bind /run/apart{directory} {directory}"
        ))
        .map(|_| ())
}

fn fill(node: &Node, directory: &str) -> Result<()> {
    node.machine().script(&format!("! head -c 1M /dev/zero >{directory}/.fill 2>&1")).map(|_| ())
}

fn make_room(node: &Node, directory: &str) -> Result<()> {
    node.machine().script(&format!("rm {directory}/.fill")).map(|_| ())
}

/// An ADD fails by the journal, names the file, and leaves the node as it was.
fn add_is_refused(node: &Node, name: &str, named: &str) -> Result<()> {
    let before = node.traces()?;
    let error = node.plugin("ADD", &node.sandbox(name)?, None)?.into_error()?;
    ensure!(error.code == 103, "the journal cannot be used: {error:?}");
    ensure!(error.text.contains(named), "it names {named}: {}", error.text);
    ensure!(node.traces()? == before, "left by a failed ADD: {before:#?} {:#?}", node.traces()?);
    Ok(())
}

fn runs(lab: &Lab, (pod, attachment): &(Pod, Attachment)) -> Result<()> {
    lab.nodes[0].check(pod, attachment)?;
    for address in &attachment.addresses {
        lab.vm.ping(*address).and_then(Echo::time).with_context(|| format!("{} runs on", pod.name()))?;
    }
    Ok(())
}

/// All pods end, nothing is left of them, and the block is as large as it was.
fn all_ends_well(lab: &Lab, pods: &[(Pod, Attachment)]) -> Result<()> {
    let node = &lab.nodes[0];
    for (pod, attachment) in pods {
        node.del(pod, Some(attachment))?;
    }
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 0, "all have ended");
    ensure!(node.traces()?.is_empty(), "left: {:#?}", node.traces()?);
    for index in 0..4 {
        start(node, &format!("full-{index}"))?;
    }
    ensure!(lab.agree(node)? == 4, "none is lost: a full block");
    Ok(())
}

#[test]
fn a_full_state_dir_stops_new_pods_and_no_others() -> Result<()> {
    let lab = town()?;
    let node = &lab.nodes[0];
    let pods = [start(node, "stays")?, start(node, "goes")?];
    put_apart(node, STATE)?;
    fill(node, STATE)?;
    add_is_refused(node, "new", STATE)?;
    runs(&lab, &pods[0])?;
    ensure!(lab.agree(node)? == 2, "the two that run");
    // Not written down, it has not ended: the runtime asks again, and there is no pod by then.
    let error = node.plugin("DEL", &pods[1].0, Some(&pods[1].1.result))?.into_error()?;
    ensure!(error.text.contains(STATE), "{error:?}");
    for address in &pods[1].1.addresses {
        ensure!(lab.vm.ping(*address)? == Echo::Lost, "the interface went first");
    }
    make_room(node, STATE)?;
    node.del(&pods[1].0, Some(&pods[1].1))?;
    runs(&lab, &start(node, "new-again")?)?;
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 2, "`stays` and `new-again`");
    node.del(&Pod::named("new-again"), None)?;
    all_ends_well(&lab, &pods)
}

#[test]
fn a_state_dir_that_became_read_only_stops_new_pods_and_no_others() -> Result<()> {
    let lab = town()?;
    let node = &lab.nodes[0];
    let pods = [start(node, "stays")?, start(node, "goes")?];
    put_apart(node, STATE)?;
    let remount = |how: &str| node.machine().script(&format!("mount -o remount,bind,{how} {STATE}"));
    remount("ro")?;
    add_is_refused(node, "new", STATE)?;
    runs(&lab, &pods[0])?;
    let error = node.plugin("DEL", &pods[1].0, Some(&pods[1].1.result))?.into_error()?;
    ensure!(error.text.contains(STATE), "{error:?}");
    remount("rw")?;
    node.del(&pods[1].0, Some(&pods[1].1))?;
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 1, "`stays`");
    all_ends_well(&lab, &pods)
}

#[test]
fn a_full_data_dir_keeps_the_next_boot_from_beginning() -> Result<()> {
    let mut lab = town()?;
    start(&lab.nodes[0], "before")?;
    lab.nodes[0].reboot(&lab.fabric)?;
    let node = &lab.nodes[0];
    put_apart(node, DATA)?;
    fill(node, DATA)?;
    add_is_refused(node, "early", DATA)?;
    make_room(node, DATA)?;
    let pods = [start(node, "new")?];
    runs(&lab, &pods[0])?;
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 1, "the pod of this boot");
    all_ends_well(&lab, &pods)
}

#[test]
fn a_torn_entry_is_told_of_and_its_address_given_to_nobody() -> Result<()> {
    let lab = town()?;
    let node = &lab.nodes[0];
    let mut pods = vec![start(node, "a")?, start(node, "b")?];
    let torn = format!("{STATE}/addresses/{}", pods[0].1.addresses[0]);
    node.machine().script(&format!("truncate -s 40 {torn}"))?;
    pods.push(start(node, "c")?);
    pods.push(start(node, "d")?);
    for pod in &pods[1..] {
        ensure!(pod.1.addresses[0] != pods[0].1.addresses[0], "given twice");
        runs(&lab, pod)?;
    }
    let said = node.shim(&["sync"]).err().context("what a sync does not list counts as released")?;
    let said = format!("{said:#}");
    ensure!(said.contains(&torn) && said.contains("delete stateDir's header.json"), "{said}");
    ensure!(lab.server.ledger(node)?.len() == 4, "the ledger knows all four as before");
    // The cure that it names.
    node.machine().script(&format!("rm {STATE}/header.json"))?;
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 4, "all four run on");
    for pod in &pods {
        runs(&lab, pod)?;
    }
    all_ends_well(&lab, &pods)
}

#[test]
fn a_pod_whose_entry_is_torn_can_end() -> Result<()> {
    let lab = town()?;
    let node = &lab.nodes[0];
    let pods = [start(node, "a")?, start(node, "b")?];
    let (pod, attachment) = &pods[0];
    node.machine().script(&format!("truncate -s 40 {STATE}/addresses/{}", attachment.addresses[0]))?;
    // It may hold the address that cannot be read, so it says so; but its interface is gone.
    node.plugin("DEL", pod, Some(&attachment.result))?.into_error()?;
    ensure!(lab.vm.ping(attachment.addresses[0])? == Echo::Lost, "the interface went first");
    node.machine().script(&format!("rm {STATE}/header.json"))?;
    node.shim(&["sync"])?;
    node.del(pod, Some(attachment))?;
    ensure!(lab.agree(node)? == 1, "`b` runs on");
    runs(&lab, &pods[1])?;
    all_ends_well(&lab, &pods)
}

#[test]
fn torn_files_of_the_node_are_made_again_by_the_cure_that_is_named() -> Result<()> {
    let lab = town()?;
    let node = &lab.nodes[0];
    let pods = [start(node, "a")?, start(node, "b")?];
    for (file, cure) in [
        (format!("{STATE}/header.json"), format!("rm {STATE}/header.json")),
        (format!("{DATA}/claim.json"), format!("rm {STATE}/header.json {DATA}/claim.json")),
    ] {
        node.machine().script(&format!("truncate -s 30 {file}"))?;
        add_is_refused(node, &format!("new-{}", file.len()), &file)?;
        runs_on_alone(&lab, &pods[0])?;
        node.machine().script(&cure)?;
        node.shim(&["sync"])?;
        ensure!(lab.agree(node)? == 2, "{file}: both run on");
        for pod in &pods {
            runs(&lab, pod)?;
        }
    }
    // The last number given is what the lock file holds: without it the entries know.
    node.machine().script(&format!("truncate -s 0 {STATE}/lock"))?;
    let third = start(node, "c")?;
    runs(&lab, &third)?;
    ensure!(lab.agree(node)? == 3, "the third");
    node.del(&third.0, Some(&third.1))?;
    all_ends_well(&lab, &pods)
}

/// Without a claim or a header CHECK has nothing to compare with, but the pod talks.
fn runs_on_alone(lab: &Lab, (pod, attachment): &(Pod, Attachment)) -> Result<()> {
    for address in &attachment.addresses {
        lab.vm.ping(*address).and_then(Echo::time).with_context(|| format!("{} runs on", pod.name()))?;
    }
    Ok(())
}
