//! Whatever happens to a call of the service: pods start and stop in bounded time, and afterwards journal and ledger
//! agree, no address is given twice and none is lost.

use anyhow::{Context, Result, ensure};
use std::{collections::HashSet, net::IpAddr, time::Duration};
use vnet_tests::lab::{Attachment, Echo, Families, Fault, Lab, Meddler, Node, Pod, PoolShape};

/// The first call may wait as long as one call is given.
const BUDGET: Duration = Duration::from_secs(1);
/// What telling of the fault may cost the first, and knowing of it those after.
const EXTRA: Duration = Duration::from_millis(50);
/// So often a time may be taken before it is too long: a busy machine is now and then idle, a wait that is built in
/// is always there.
const TRIES: usize = 12;

struct Running {
    pod: Pod,
    attachment: Attachment,
}

fn start(node: &Node, name: &str) -> Result<Running> {
    let pod = node.sandbox(name)?;
    let attachment = node.add(&pod)?;
    Ok(Running { pod, attachment })
}

fn end(node: &Node, running: &Running) -> Result<Duration> {
    node.del(&running.pod, Some(&running.attachment))
}

/// A node whose way to the service is meddled with.
fn town() -> Result<(Lab, Meddler)> {
    let mut lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 16, rest_seconds: 0 })?;
    let meddler = Meddler::on(&lab.nodes[0], &lab.server)?;
    let netconf = lab.nodes[0].netconf().clone().with("server", meddler.url());
    lab.nodes[0].configure(netconf)?;
    lab.nodes[0].shim(&["sync"])?;
    Ok((lab, meddler))
}

fn no_address_twice(all: &[&Running]) -> Result<()> {
    let mut seen: HashSet<IpAddr> = HashSet::new();
    for address in all.iter().flat_map(|running| &running.attachment.addresses) {
        ensure!(seen.insert(*address), "{address} was given twice");
    }
    Ok(())
}

#[test]
fn whatever_becomes_of_a_call_journal_and_ledger_agree_once_it_is_over() -> Result<()> {
    let (lab, meddler) = town()?;
    let node = &lab.nodes[0];
    let stays = start(node, "stays")?;
    for (round, fault) in Fault::ALL.into_iter().enumerate() {
        let tell = || format!("{fault:?}");
        let goes = start(node, &format!("goes-{round}")).with_context(tell)?;
        let ends_first = start(node, &format!("ends-first-{round}")).with_context(tell)?;
        let before = meddler.met();
        meddler.does(fault);
        // An ADD is the first to meet it in one round, a DEL in the other.
        let (first, second) = if round % 2 == 0 {
            let first = start(node, &format!("first-{round}")).with_context(tell)?;
            end(node, &ends_first).with_context(tell)?;
            (first, start(node, &format!("second-{round}")).with_context(tell)?)
        } else {
            end(node, &ends_first).with_context(tell)?;
            let first = start(node, &format!("first-{round}")).with_context(tell)?;
            (first, start(node, &format!("second-{round}")).with_context(tell)?)
        };
        end(node, &goes).with_context(tell)?;
        ensure!(meddler.met() > before, "{fault:?}: nobody met it");
        no_address_twice(&[&stays, &first, &second])?;
        for address in [&first, &second].iter().flat_map(|running| &running.attachment.addresses) {
            lab.vm.ping(*address).and_then(Echo::time).with_context(tell)?;
        }
        node.check(&first.pod, &first.attachment).with_context(tell)?;

        meddler.does(Fault::None);
        node.shim(&["sync"]).with_context(tell)?;
        ensure!(lab.agree(node).with_context(tell)? == 3, "{fault:?}: `stays`, `first` and `second`");
        for running in [&first, &second] {
            end(node, running).with_context(tell)?;
        }
        ensure!(lab.agree(node).with_context(tell)? == 1, "{fault:?}: `stays`");
    }
    end(node, &stays)?;
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 0, "nothing runs");
    ensure!(node.traces()?.is_empty(), "left by the faults: {:#?}", node.traces()?);
    // None is lost: the block is as large as it was.
    for index in 0..16 {
        start(node, &format!("full-{index}"))?;
    }
    ensure!(lab.agree(node)? == 16, "a full block");
    Ok(())
}

/// A time that is short enough at least once; else the shortest and what was allowed.
fn in_time(what: &str, mut measure: impl FnMut(usize) -> Result<(Duration, Duration)>) -> Result<()> {
    let mut best: Option<(Duration, Duration)> = None;
    for round in 0..TRIES {
        let (took, allowed) = measure(round)?;
        if took <= allowed {
            println!("{what}: {took:?} of {allowed:?}, at try {}", round + 1);
            return Ok(());
        }
        best = Some(best.map_or((took, allowed), |best| best.min((took, allowed))));
    }
    let (took, allowed) = best.unwrap_or_default();
    anyhow::bail!("{what} took {took:?} at best, {allowed:?} are allowed")
}

/// ADD and DEL with the service there and undisturbed.
fn usual(node: &Node, meddler: &Meddler, round: &str) -> Result<(Duration, Duration)> {
    meddler.does(Fault::None);
    // Whatever the last fault has left in the way of calls.
    node.shim(&["sync"])?;
    let running = start(node, &format!("usual-{round}"))?;
    Ok((running.attachment.took, end(node, &running)?))
}

#[test]
fn a_fault_costs_the_first_call_its_budget_and_those_after_it_next_to_nothing() -> Result<()> {
    let (lab, meddler) = town()?;
    let node = &lab.nodes[0];
    for fault in [Fault::Silent, Fault::AnswerLost, Fault::Answered(503), Fault::Refused] {
        in_time(&format!("{fault:?}: the first ADD"), |round| {
            let name = format!("{fault:?}-{round}").replace(['(', ')'], "");
            let (add, _) = usual(node, &meddler, &name)?;
            meddler.does(fault);
            let running = start(node, &format!("first-{name}"))?;
            end(node, &running)?;
            Ok((running.attachment.took, BUDGET + add + EXTRA))
        })?;
        in_time(&format!("{fault:?}: the first DEL"), |round| {
            let name = format!("{fault:?}-del-{round}").replace(['(', ')'], "");
            let (_, del) = usual(node, &meddler, &name)?;
            let running = start(node, &format!("ends-{name}"))?;
            meddler.does(fault);
            Ok((end(node, &running)?, BUDGET + del + EXTRA))
        })?;
        in_time(&format!("{fault:?}: the next ADD and DEL"), |round| {
            let name = format!("{fault:?}-next-{round}").replace(['(', ')'], "");
            let (add, del) = usual(node, &meddler, &name)?;
            meddler.does(fault);
            // The one that meets it.
            let first = start(node, &format!("meets-{name}"))?;
            let met = meddler.met();
            let next = start(node, &format!("next-{name}"))?;
            let took = next.attachment.took + end(node, &next)?;
            end(node, &first)?;
            ensure!(meddler.met() == met, "{fault:?}: somebody asked again while it was known");
            Ok((took, add + del + EXTRA))
        })?;
    }
    meddler.does(Fault::None);
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 0, "nothing runs");
    Ok(())
}

/// The real way, with TLS: the service's cable is out while calls are under way.
#[test]
fn a_cable_that_is_out_and_in_again_changes_nothing_for_pods() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let goes = start(node, "goes")?;
    let port = format!("p{}", vnet_tests::lab::MANAGEMENT);
    let cable = |state: &str| lab.fabric.machine().script(&format!("ip link set {port} {state}"));
    cable("down")?;
    let mut during = Vec::new();
    for index in 0..3 {
        during.push(start(node, &format!("during-{index}"))?);
    }
    end(node, &goes)?;
    no_address_twice(&during.iter().collect::<Vec<_>>())?;
    cable("up")?;
    vnet_tests::lab::until("the service is reached again", Duration::from_secs(30), || {
        Ok(node.shim(&["sync"]).is_ok().then_some(()))
    })?;
    ensure!(lab.agree(node)? == 3, "the three of the outage");
    for running in &during {
        end(node, running)?;
    }
    ensure!(lab.agree(node)? == 0 && node.traces()?.is_empty(), "nothing is left");
    Ok(())
}

/// SIGKILL at any moment, as a runtime does whose patience has ended; `cni-shim/tests/cli/faults.rs` does it at each step.
#[test]
fn a_shim_killed_at_any_moment_leaves_nothing_after_the_next_del() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let node = &lab.nodes[0];
    let usual = start(node, "usual")?;
    let span = usual.attachment.took.as_micros() + end(node, &usual)?.as_micros();
    let pod = node.sandbox("web-1")?;
    let steps = 24;
    let mut killed = 0;
    for step in 1..=steps {
        let after =
            format!("{:.6}", Duration::from_micros(u64::try_from(span * step / steps)?).as_secs_f64());
        let wrapper = ["timeout", "--signal=KILL", &after];
        let add = node.plugin_under(&wrapper, "ADD", &pod, None)?;
        killed += usize::from(!add.success);
        // Killed as well, or it finds nothing left to do.
        let del = node.plugin_under(&wrapper, "DEL", &pod, None)?;
        killed += usize::from(!del.success);
        node.del(&pod, None)?;
        let traces = node.traces()?;
        ensure!(traces.is_empty(), "left by a kill after {after} s: {traces:#?}");
    }
    println!("{killed} of {} were killed", 2 * steps);
    ensure!(killed > 0, "none was killed");
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 0, "nothing runs");
    for index in 0..4 {
        start(node, &format!("full-{index}"))?;
    }
    ensure!(lab.agree(node)? == 4, "none is lost: a full block");
    Ok(())
}
