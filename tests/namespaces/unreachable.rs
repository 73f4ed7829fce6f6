//! Pods start and stop without the service.

use anyhow::{Result, ensure};
use std::time::Duration;
use vnet_tests::lab::{Echo, Families, Lab, PoolShape};

/// What a call of the service may take here: long enough that nothing else a shim does comes near it.
const BUDGET: Duration = Duration::from_secs(3);

#[test]
fn use_block_goes_on_and_sync_makes_ledger_and_journal_agree() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let before = lab.nodes[0].sandbox("before")?;
    let attached_before = lab.nodes[0].add(&before)?;

    lab.server.stop()?;
    let node = &lab.nodes[0];
    for name in ["during-1", "during-2"] {
        let attachment = node.add(&node.sandbox(name)?)?;
        for address in &attachment.addresses {
            lab.vm.ping(*address).and_then(Echo::time)?;
        }
    }
    node.del(&before, Some(&attached_before))?;

    lab.server.start()?;
    let node = &lab.nodes[0];
    ensure!(lab.agree(node).is_err(), "the ledger knew of what happened without it");
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 2, "the two pods of the outage");
    Ok(())
}

#[test]
fn a_silent_service_costs_its_budget_once() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let netconf = lab.nodes[0].netconf().clone().with("timeoutSeconds", BUDGET.as_secs());
    lab.nodes[0].configure(netconf)?;
    let node = &lab.nodes[0];
    node.add(&node.sandbox("before")?)?;
    let (first, second) = (node.sandbox("first")?, node.sandbox("second")?);
    lab.server.freeze()?;
    let first_took = node.add(&first)?.took;
    let second = node.add(&second)?;
    let del_took = node.del(&first, None)?;
    lab.server.thaw()?;
    println!("silent: ADD {first_took:?}, next ADD {:?}, DEL {del_took:?}", second.took);
    // Whoever waits for a silent service waits for all of the budget: the first does so once, nobody after it.
    ensure!(BUDGET <= first_took && first_took < 2 * BUDGET, "the first waits for one budget, see above");
    ensure!(second.took < BUDGET && del_took < BUDGET, "who knows it silent waits for it, see above");
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 2, "`before` and `second`");
    Ok(())
}

#[test]
fn fail_asks_to_try_again() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let netconf = lab.nodes[0].netconf().clone().with("whenUnreachable", "fail");
    lab.nodes[0].configure(netconf)?;
    let running = lab.nodes[0].sandbox("running")?;
    let attachment = lab.nodes[0].add(&running)?;
    lab.server.stop()?;
    let node = &lab.nodes[0];
    let before = node.traces()?;
    let error = node.plugin("ADD", &node.sandbox("web-1")?, None)?.into_error()?;
    ensure!(error.code == 11, "try again later is 11: {error:?}");
    ensure!(node.traces()? == before, "left by the failed ADD");
    // A pod's end waits for nobody, whatever is set.
    node.del(&running, Some(&attachment))?;
    lab.server.start()?;
    let node = &lab.nodes[0];
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 0, "nothing runs");
    Ok(())
}
