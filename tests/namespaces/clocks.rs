//! Clocks that are set back, the node's and the service's.

use anyhow::{Context, Result, ensure};
use ipam_api::wire::Allocation;
use std::{fs, process::Command};
use vnet_tests::lab::{Attachment, Families, Lab, Machine, Node, Pod, PoolShape, run};

/// Another time of day for a program that is started with it: `CLOCK_REALTIME` is `$CLOCK_SHIFT` seconds later.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    long done = syscall(SYS_clock_gettime, id, now);
    const char *shift = getenv("CLOCK_SHIFT");
    if (done == 0 && shift && id == CLOCK_REALTIME) now->tv_sec += atol(shift);
    return done;
}
"#;
const LIBRARY: &str = "/var/lib/clock.so";
const DAY: i64 = 86_400;

/// Brings [`CLOCK`] to a machine.
fn bring_clock(machine: &Machine) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("vnet-clock-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    fs::write(&source, CLOCK)?;
    run(Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]))?;
    let built = fs::read(&library)?;
    fs::remove_dir_all(&directory)?;
    machine.write(LIBRARY, &built)
}

/// What a program is started by so that its time of day is a day behind.
fn yesterday() -> [String; 3] {
    ["env".to_owned(), format!("LD_PRELOAD={LIBRARY}"), format!("CLOCK_SHIFT=-{DAY}")]
}

fn last_number(node: &Node) -> Result<u64> {
    node.machine().read("/run/cni-shim/lock").trim().parse().context("the lock file holds the last number")
}

fn add_under(node: &Node, wrapper: &[&str], name: &str) -> Result<(Pod, Attachment)> {
    let pod = node.sandbox(name)?;
    let reply = node.plugin_under(wrapper, "ADD", &pod, None)?;
    Ok((pod, Attachment::of(reply)?))
}

/// The clock that numbers come from counts from the boot and goes on in sleep; a restored snapshot may still turn it
/// back. Numbers rise all the same, and so the service takes what comes later for later.
#[test]
fn numbers_rise_over_a_clock_that_was_set_back() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    let node = &lab.nodes[0];
    node.shim(&["sync"])?;
    // Eleven days later, in a time namespace.
    let later = ["unshare", "--time", "--boottime=1000000", "--fork", "--"];
    let mut numbers = vec![last_number(node)?];
    let ahead = add_under(node, &later, "ahead")?;
    numbers.push(last_number(node)?);
    ensure!(numbers[1] - numbers[0] > 900_000_000_000, "the clock was not ahead: {numbers:?}");
    let back = add_under(node, &[], "back")?;
    numbers.push(last_number(node)?);
    node.del(&ahead.0, Some(&ahead.1))?;
    numbers.push(last_number(node)?);
    ensure!(lab.agree(node)? == 1, "`ahead` was released by a later word");
    let again = add_under(node, &[], "again")?;
    numbers.push(last_number(node)?);
    node.shim(&["sync"])?;
    numbers.push(last_number(node)?);
    ensure!(numbers.windows(2).all(|two| two[0] < two[1]), "numbers fell: {numbers:?}");
    ensure!(lab.agree(node)? == 2, "`back` and `again`");
    for (pod, attachment) in [&back, &again] {
        node.check(pod, attachment)?;
        node.del(pod, Some(attachment))?;
    }
    ensure!(lab.agree(node)? == 0, "nothing runs");
    Ok(())
}

/// An outage that was noted by a clock that has been set back since does not last for that long.
#[test]
fn an_outage_noted_in_the_future_is_none() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    lab.nodes[0].shim(&["sync"])?;
    lab.server.stop()?;
    let later = ["unshare", "--time", "--boottime=1000000", "--fork", "--"];
    add_under(&lab.nodes[0], &later, "during")?;
    lab.server.start()?;
    let node = &lab.nodes[0];
    add_under(node, &[], "after")?;
    let known = lab.server.ledger(node)?;
    ensure!(known.len() == 2, "the first to get through tells of both: {known:?}");
    Ok(())
}

/// The time of day is for people: neither side decides anything about an address by it.
#[test]
fn a_time_of_day_that_was_set_back_changes_nothing() -> Result<()> {
    let mut lab = Lab::with_ledger(Families::Dual, 1, PoolShape { max_pods: 4, rest_seconds: 0 })?;
    bring_clock(lab.nodes[0].machine())?;
    bring_clock(lab.server.machine())?;
    let wrapper = yesterday();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();

    let before = add_under(&lab.nodes[0], &[], "before")?;
    let goes = add_under(&lab.nodes[0], &[], "goes")?;
    lab.server.stop()?;
    lab.server.start_under(&wrapper.join(" "))?;
    let node = &lab.nodes[0];
    let during = add_under(node, &words, "during")?;
    let reply = node.plugin_under(&words, "DEL", &goes.0, Some(&goes.1.result))?;
    reply.into_result()?;
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 2, "`before` and `during`");
    let since = |pod: &Pod| {
        let known: Vec<Allocation> = lab.server.ledger(node)?;
        let one = known.iter().find(|one| one.container_id.as_str() == pod.container_id());
        anyhow::Ok(one.context("it is in the ledger")?.since)
    };
    ensure!(since(&during.0)? < since(&before.0)?, "the service's clock was not set back");

    lab.server.stop()?;
    lab.server.start()?;
    let node = &lab.nodes[0];
    let after = add_under(node, &[], "after")?;
    let all = [before, during, after];
    let addresses: std::collections::HashSet<_> = all.iter().map(|(_, one)| one.addresses[0]).collect();
    ensure!(addresses.len() == 3, "given twice: {addresses:?}");
    for (pod, attachment) in &all {
        node.check(pod, attachment)?;
        node.del(pod, Some(attachment))?;
    }
    node.shim(&["sync"])?;
    ensure!(lab.agree(node)? == 0 && node.traces()?.is_empty(), "nothing is left");
    Ok(())
}
