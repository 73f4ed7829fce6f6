//! STATUS: from what the node knows and the kernel has, never from the service. Runtimes ask every few
//! seconds on every node.

use super::node::{Ground, asks, ranges};
use crate::{
    cni::{CniError, Code, NetConf, WhenUnreachable},
    journal::{ClaimFile, Journal, Standing, Uptime, boot},
    service::Marker,
    wiring::{Host, WiringError, host, uplink},
};

/// What stands in the way of new pods, in words with their cures.
#[derive(Debug, Default)]
struct Obstacles {
    to_new: Vec<String>,
    to_all: Vec<String>,
}

/// Whether ADD can work on this node. A block without a free address is no obstacle: a pod that ends makes
/// room.
///
/// # Errors
/// Code 50 with all that is in the way and what to do about it; 51 where pods that run feel it too.
pub fn status(conf: &NetConf) -> Result<(), CniError> {
    let mut found = Obstacles::default();
    let claim = journal(conf, &mut found);
    if let Err(error) = wired(conf, claim.as_ref(), &mut found) {
        found.to_new.push(format!("the host cannot be asked what it has: {error}"));
    }
    let Obstacles { to_new, to_all } = found;
    let code = match (to_new.is_empty(), to_all.is_empty()) {
        (true, true) => return Ok(()),
        (false, true) => Code::NotReady,
        (_, false) => Code::Limited,
    };
    let words = [to_all, to_new].concat();
    Err(CniError::new(code, "no pod can be started on this node").details(words.join("; ")))
}

/// Configuration, directories, claim.
fn journal(conf: &NetConf, found: &mut Obstacles) -> Option<ClaimFile> {
    let node = &conf.node;
    let journal = Journal::at(&node.state_dir, &node.data_dir);
    let mut note = |obstacle: String| found.to_new.push(obstacle);
    if let Err(error) = node.check_access() {
        note(error.to_string());
    }
    if let Err(error) = boot::boot_id(&node.boot_id_file) {
        note(error.to_string());
    }
    if let Err(error) = journal.try_out() {
        note(format!("{error}: stateDir and dataDir must be writable and have room"));
    }
    let claim = match journal.claim_of(&node.name) {
        Ok(Some(claim)) => claim,
        Ok(None) => {
            note(format!("node {} has no claim here yet: run `cni-shim sync`", node.name));
            return None;
        }
        Err(error) => {
            note(error.to_string());
            return None;
        }
    };
    match &claim.standing {
        Standing::Active => {}
        Standing::Planned => note("the claim is not taken up yet: run `cni-shim sync`".to_owned()),
        Standing::Deleting { .. } => {
            note(format!("node {} is being deleted: move its pods away", node.name));
        }
        Standing::Stale { reason } => note(format!(
            "the service no longer knows this node's claim ({reason}): register node {} if need be, then run \
             `cni-shim sync`",
            node.name
        )),
    }
    if conf.when_unreachable == WhenUnreachable::Fail
        && let Some(reason) = Marker::of(&node.state_dir).speaks(Uptime::now())
    {
        note(format!(
            "the service was not to be reached a moment ago ({reason}), and whenUnreachable is fail: see to the \
             service, or write use-block"
        ));
    }
    Some(claim)
}

/// Uplink, addresses, sysctls, rules.
fn wired(conf: &NetConf, claim: Option<&ClaimFile>, found: &mut Obstacles) -> Result<(), WiringError> {
    let mut host = Host::open()?;
    // Pods that run are reached through it.
    let uplink = match uplink::find(&mut host, conf.uplink.as_deref()) {
        Ok(uplink) => uplink,
        Err(error @ WiringError::NoUplink { .. }) => {
            found.to_all.push(error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if !uplink.up {
        found.to_all.push(format!("the uplink {name} is down: ip link set {name} up", name = uplink.name));
    }
    let Some(claim) = claim else { return Ok(()) };
    for address in host::lacking(&mut host, &claim.node.addresses)? {
        found.to_new.push(WiringError::NodeAddressMissing { address }.to_string());
    }
    // Of each family, one will do.
    let addresses: Vec<_> = ranges(claim).into_iter().map(|(first, _)| first).collect();
    let journal = Journal::at(&conf.node.state_dir, &conf.node.data_dir);
    // One that cannot be read is among the obstacles already.
    let boot_id = boot::boot_id(&conf.node.boot_id_file).unwrap_or_default();
    let ground = Ground::of(uplink, claim, &journal, &boot_id);
    let asks = asks(conf);
    let preparation = ground.preparation([(&conf.network, &asks)], &addresses, &[]);
    found.to_new.extend(host::obstacles(&ground.uplink, &preparation)?);
    Ok(())
}
