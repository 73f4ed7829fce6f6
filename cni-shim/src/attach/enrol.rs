//! How a node comes to its claim: it is there, the service has it, or the node registers itself, but for one that was
//! deleted.

use super::{NodeContext, failure, sync};
use crate::{
    cni::{CniError, Code, NetConf},
    journal::{ClaimFile, Ended, Standing},
    log,
    service::{Heard, Service},
    wiring::{Host, own_address, uplink},
};
use ipam_api::{
    names::PoolName,
    wire::{Allocator, NodeSpec},
};

/// Sees to it that this node has a claim and has taken it up. A node that the service does not know registers itself
/// where the configuration names its pool, unless it was deleted since it had its last claim.
///
/// # Errors
/// There is no claim, and what to do about that. A claim that is there but cannot be taken up now is none: pods'
/// first ADD tries again.
pub fn enrol(conf: &NetConf, service: &Service) -> Result<ClaimFile, CniError> {
    let mut host = Host::open()?;
    let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)?;
    if context.journal.claim_of(&conf.node.name)?.is_none() {
        let heard = service.node();
        match &conf.pool {
            Some(pool) if heard.is_not_found() => register(&context, &mut host, service, pool)?,
            _ => context.adopt_heard(heard)?,
        }
    }
    let claim = || {
        let claim = context.journal.claim_of(&conf.node.name)?;
        claim.ok_or_else(|| CniError::new(Code::TryAgain, "this node's claim has just ended; try again"))
    };
    if claim()?.standing == Standing::Planned
        && let Err(error) = sync::sync(&context, service)
    {
        log::warn(format_args!("the claim is not taken up yet: {error}"));
    }
    claim()
}

fn register(
    context: &NodeContext<'_>,
    host: &mut Host,
    service: &Service,
    pool: &PoolName,
) -> Result<(), CniError> {
    let name = &context.conf.name;
    if let Some(Ended { claim, .. }) = context.journal.ended(name)? {
        return Err(CniError::new(
            Code::TryAgain,
            format!("node {name} was deleted, its claim {claim} has ended, and it does not register itself again"),
        )
        .details(format!(
            "if it is to come back, an admin says so: ipamctl node register {name} --pool {pool} --address ADDRESS, or \
             `cni-shim join` here with a new join token"
        )));
    }
    let uplink = uplink::find(host, context.uplink_name)?;
    let addresses = own_address::find(host, &uplink)?;
    if addresses.is_empty() {
        return Err(CniError::new(
            Code::TryAgain,
            format!("{} has no address by which node {name} could register itself", uplink.name),
        )
        .details(
            "it takes one that stays: not link-local, temporary or deprecated, and with no duplicate; give the host \
             one, or name another uplink",
        ));
    }
    let spec = NodeSpec {
        pool: pool.clone(),
        addresses,
        mac: uplink.mac.map(|mac| mac.to_string()),
        uid: None,
        replace: false,
        allocator: Allocator::Node,
    };
    match service.register(&spec) {
        Heard::Done(node) => {
            log::info(format_args!("node {name} is registered in pool {pool}"));
            context.adopt(node)
        }
        Heard::Refused(problem) => Err(failure::refused(&problem)),
        Heard::Unreachable { reason, problem } => {
            let told = problem.map_or(reason, |problem| problem.detail);
            Err(CniError::new(
                Code::TryAgain,
                format!("node {name} could not register itself in pool {pool}"),
            )
            .details(format!(
                "{told}; or an admin does it: ipamctl node register {name} --pool {pool} --address ADDRESS"
            )))
        }
    }
}
