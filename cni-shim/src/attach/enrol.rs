//! How a node comes to its claim: it is there, the service has it, or the node registers itself.

use super::{NodeContext, failure, node::is_own, sync};
use crate::{
    cni::{CniError, Code, NetConf},
    journal::{ClaimFile, Standing},
    log,
    service::{Heard, Service},
    wiring::{Host, uplink},
};
use ipam_api::{
    names::PoolName,
    wire::{Allocator, NodeSpec},
};

/// Sees to it that this node has a claim and has taken it up. A node that the service does not know registers itself
/// where the configuration names its pool.
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
    let uplink = uplink::find(host, context.uplink_name)?;
    let own = |v4: bool| uplink.addresses.iter().copied().find(|own| own.is_ipv4() == v4 && is_own(*own));
    let spec = NodeSpec {
        pool: pool.clone(),
        addresses: [own(true), own(false)].into_iter().flatten().collect(),
        mac: uplink.mac.map(|mac| mac.to_string()),
        uid: None,
        replace: false,
        allocator: Allocator::Node,
    };
    let name = &context.conf.name;
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
