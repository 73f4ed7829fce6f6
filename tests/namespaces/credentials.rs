//! What a node's credential opens, and what happens when it opens nothing any more.

use anyhow::{Context, Result, ensure};
use ipam_api::wire::{Event, Listing, Node as NodeAnswer, Token, TokenState};
use std::time::Duration;
use vnet_tests::lab::{Authority, Families, Lab, Machine, Netconf, Pod, PoolShape, until};

/// Longest wait for what the service does by itself.
const SOON: Duration = Duration::from_secs(20);

fn show(lab: &Lab, node: &str) -> Result<NodeAnswer> {
    lab.server.ctl_json(&["node", "show", node])
}

#[test]
fn a_stolen_node_token_is_worth_one_node() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 2, PoolShape::default())?;
    let victim = lab.nodes[1].name();
    lab.nodes[1].add(&lab.nodes[1].sandbox("web-1")?)?;
    let stolen = lab.nodes[0].token();
    let tries = |words: &[&str]| -> Result<(bool, String)> {
        let output = lab.server.ctl_command_with(stolen.trim(), words).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (own, said) = tries(&["node", "show", lab.nodes[0].name()])?;
    ensure!(own, "its own: {said}");
    for words in [
        &["node", "show", victim][..],
        &["node", "delete", victim],
        &["node", "delete", lab.nodes[0].name(), "--vm-gone"],
        &["node", "list"],
        &["allocation", "list"],
        &["pool", "delete", "workers"],
        &["token", "list"],
        &["event", "list"],
        &["capacity"],
    ] {
        let (done, said) = tries(words)?;
        ensure!(!done && said.starts_with("error: "), "ipamctl {words:?} with node-1's token: {said}");
    }
    ensure!(lab.agree(&lab.nodes[1])? == 1, "the other node is as it was");
    Ok(())
}

#[test]
fn an_expired_token_stops_no_pod_and_is_seen() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let before = node.sandbox("before")?;
    let attachment = node.add(&before)?;
    // The one it has ends, and so does its successor.
    let short =
        lab.ctl(&["token", "create", "short", "--role", "node", "--node", node.name(), "--expires", "1s"])?;
    node.bring_token(short.trim())?;
    until("the token has expired", SOON, || {
        let all: Listing<Token> = lab.server.ctl_json(&["token", "list"])?;
        Ok(all
            .items
            .iter()
            .any(|token| token.name == "short" && token.state == TokenState::Expired)
            .then_some(()))
    })?;

    let during = node.plugin("ADD", &node.sandbox("during")?, None)?;
    ensure!(during.stderr.contains("expired"), "the log says nothing of it: {}", during.stderr);
    let during = during.into_result()?;
    // The service notes now and then which token a node shows.
    until("node show says so", SOON, || {
        let credential = show(&lab, node.name())?.credential.context("it has a token")?;
        Ok((credential.state == TokenState::Expired).then_some(()))
    })?;
    let shown = lab.ctl(&["node", "show", node.name()])?;
    ensure!(shown.to_lowercase().contains("expired"), "node show says nothing of it: {shown}");
    node.del(&before, Some(&attachment))?;
    ensure!(lab.agree(node).is_err(), "nobody let the shim tell");

    let fresh = lab.ctl(&["token", "create", "fresh", "--role", "node", "--node", node.name()])?;
    node.bring_token(fresh.trim())?;
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 1, "the pod of the meantime: {during}");
    Ok(())
}

#[test]
fn a_node_deleted_for_good_opens_nothing_with_its_token() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    node.add(&node.sandbox("web-1")?)?;
    let kept = node.token();
    lab.ctl(&["node", "delete", node.name(), "--vm-gone"])?;
    let address = node.addresses()[0].to_string();
    let register = ["node", "register", node.name(), "--pool", "workers", "--address", &address];
    let output = lab.server.ctl_command_with(kept.trim(), &register).output()?;
    ensure!(!output.status.success(), "a VM that is gone registered again by its old token");
    // A new VM of that name joins as any other.
    lab.ctl(&register)?;
    node.machine().script("rm -rf /var/lib/cni-shim /run/cni-shim /var/lib/cni-shim/token")?;
    lab.let_join(node)?;
    ensure!(node.token() != kept, "it has a token of its own");
    Ok(())
}

/// Its addresses may be another's by now, so it must hear that its claim has ended, though its token ended with it.
fn goes_on_with_nothing(lab: &Lab, pod: &Pod) -> Result<()> {
    let node = &lab.nodes[0];
    let error = node.plugin("ADD", &node.sandbox("after")?, None)?.into_error()?;
    ensure!(error.code == 101, "a pod started on addresses that are not the node's any more: {error:?}");
    // Those that run can still be taken away, and with the last one the node forgets the claim.
    node.del(pod, None)?;
    let said = node.shim(&["sync"])?;
    ensure!(said.contains("deleted"), "{said}");
    Ok(())
}

#[test]
fn a_node_that_was_declared_gone_starts_no_more_pods() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("before")?;
    node.add(&pod)?;
    lab.ctl(&["node", "delete", node.name(), "--vm-gone"])?;
    goes_on_with_nothing(&lab, &pod)
}

#[test]
fn a_node_that_was_replaced_starts_no_more_pods() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("before")?;
    node.add(&pod)?;
    let address = node.addresses()[0].to_string();
    let register = ["node", "register", node.name(), "--pool", "workers", "--address", &address];
    lab.ctl(&[&register[..], &["--replace", "--uid", "another"]].concat())?;
    goes_on_with_nothing(&lab, &pod)
}

#[test]
fn a_node_whose_tokens_were_revoked_goes_on_until_its_claim_ends() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("before")?;
    node.add(&pod)?;
    lab.ctl(&["token", "revoke", "--node", node.name()])?;
    let during = node.sandbox("during")?;
    node.add(&during).context("a revoked token is an outage, in which the block is the node's")?;
    lab.ctl(&["node", "delete", node.name(), "--vm-gone"])?;
    // The outage is over: the next call asks.
    node.machine().script("rm -f /run/cni-shim/unreachable")?;
    node.del(&during, None)?;
    goes_on_with_nothing(&lab, &pod)
}

#[test]
fn a_client_certificate_is_a_node_too() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let name = lab.nodes[0].name().to_owned();
    let identity = lab.server.authority().issue_to_node(&name)?;
    let machine = lab.nodes[0].machine();
    machine.write("/var/lib/node.pem", identity.cert.as_bytes())?;
    machine.write("/var/lib/node.key", identity.key.as_bytes())?;
    machine.script("rm /var/lib/cni-shim/token; chmod 600 /var/lib/node.key")?;
    let netconf = certified(lab.nodes[0].netconf());
    lab.nodes[0].configure(netconf)?;
    let node = &lab.nodes[0];
    node.add(&node.sandbox("web-1")?)?;
    ensure!(lab.agree(node)? == 1, "the service took the certificate for the node");

    // One that nobody of ours signed is none.
    let stranger = Authority::new()?.issue_to_node(&name)?;
    let machine = lab.nodes[0].machine();
    machine.write("/var/lib/node.pem", stranger.cert.as_bytes())?;
    machine.write("/var/lib/node.key", stranger.key.as_bytes())?;
    node.add(&node.sandbox("web-2")?)?;
    ensure!(lab.server.ledger(node)?.len() == 1, "a stranger's certificate was taken for the node's");
    Ok(())
}

fn certified(netconf: &Netconf) -> Netconf {
    netconf
        .clone()
        .with("tokenFile", "")
        .with("certFile", "/var/lib/node.pem")
        .with("keyFile", "/var/lib/node.key")
}

#[test]
fn a_service_that_nobody_vouches_for_is_not_spoken_to() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    node.add(&node.sandbox("before")?)?;
    node.machine().write("/var/lib/ca.pem", Authority::new()?.pem().as_bytes())?;
    let reply = node.plugin("ADD", &node.sandbox("during")?, None)?;
    ensure!(
        reply.stderr.to_lowercase().contains("certificate"),
        "the log says nothing of it: {}",
        reply.stderr
    );
    reply.into_result().context("the block is the node's whoever answers")?;
    ensure!(lab.server.ledger(node)?.len() == 1, "it told a service that it cannot know");
    Ok(())
}

#[test]
fn what_people_did_is_on_record() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("web-1")?;
    let attachment = node.add(&pod)?;
    node.del(&pod, Some(&attachment))?;
    lab.ctl(&["node", "delete", node.name()])?;
    node.shim(&["sync"])?;
    let events: Listing<Event> = lab.server.ctl_json(&["event", "list", "--subject", "node/node-1"])?;
    let told: Vec<_> =
        events.items.iter().map(|event| (event.action.as_str(), event.actor.as_str())).collect();
    ensure!(
        told == [("create", "bootstrap"), ("delete", "bootstrap"), ("free", "node:node-1")],
        "who did what to the node: {told:?}"
    );
    let all: Listing<Event> = lab.server.ctl_json(&["event", "list"])?;
    ensure!(all.items.iter().all(|event| !event.subject.contains("allocation")), "pods are their own record");
    Ok(())
}

/// The firmware's id of a machine, as its kernel shows it.
fn give_uuid(machine: &Machine, uuid: &str) -> Result<()> {
    machine.script(&format!(
        "mount -t tmpfs none /sys/class/dmi 2>/dev/null || mount -t tmpfs none /sys/class
         mkdir -p /sys/class/dmi/id; echo {uuid} >/sys/class/dmi/id/product_uuid"
    ))?;
    Ok(())
}

#[test]
fn a_cloned_vm_is_refused_before_its_boot_counts() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::V4, 2, PoolShape::default())?;
    give_uuid(lab.nodes[0].machine(), "aaaaaaaa-0000-0000-0000-000000000001")?;
    give_uuid(lab.nodes[1].machine(), "bbbbbbbb-0000-0000-0000-000000000002")?;
    lab.nodes[0].add(&lab.nodes[0].sandbox("web-1")?)?;
    let before = show(&lab, "node-1")?.boot.context("it has spoken")?;

    // Its disk, credential included, and even its address; booted later, so with a higher number.
    let disk = lab.nodes[0].machine().enter("tar").args(["-C", "/var/lib", "-cf", "-", "."]).output()?.stdout;
    let clone = lab.nodes[1].machine();
    clone.write("/run/disk.tar", &disk)?;
    clone.script(&format!(
        "rm -rf /var/lib/*; tar -C /var/lib -xf /run/disk.tar; ip addr add {}/32 dev lo",
        lab.nodes[0].addresses()[0]
    ))?;
    let netconf = lab.nodes[1].netconf().clone().with("node", "node-1");
    lab.nodes[1].configure(netconf)?;

    let clone = &lab.nodes[1];
    let error = clone.plugin("ADD", &clone.sandbox("web-1")?, None)?.into_error()?;
    ensure!(error.code == 101, "the clone was let in: {error:?}");
    ensure!(show(&lab, "node-1")?.boot.context("it has spoken")? == before, "the clone's boot counted");
    ensure!(lab.agree(&lab.nodes[0])? == 1, "the clone ended the node's pod");
    lab.nodes[0].add(&lab.nodes[0].sandbox("web-2")?)?;
    ensure!(lab.agree(&lab.nodes[0])? == 2, "the node goes on");
    Ok(())
}
