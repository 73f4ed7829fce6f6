//! The searches with the rules as they are: no property fails, and everything they are for happens.

use crate::model::{Budget, Config, Event, Start};
use stateright::{Checker, Model};
use std::time::Instant;

fn search(name: &str, config: Config, events: &[Event]) {
    let began = Instant::now();
    let seen = config.seen.clone();
    let checker = config.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} unique states, {} transitions, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32()
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: {property}: {:#?}\n{:#?}", path.clone().into_actions(), path.last_state());
    }
    for &event in events {
        assert!(seen.contains(event), "{name}: {event:?} never happened");
    }
}

fn one_vm(budget: Budget) -> Config {
    Config { pods: 2, addresses: 2, vms: 1, budget, ..Config::default() }
}

#[test]
fn adds_and_dels() {
    let budget = Budget { adds: 3, syncs: 1, ..Budget::default() };
    search("ADD, DEL, sync", one_vm(budget), &[Event::Reused, Event::CutOff]);
}

#[test]
fn failing_and_dying_adds() {
    let budget = Budget { adds: 2, syncs: 1, failures: 1, crashes: 1, ..Budget::default() };
    search("undo and killed shims", one_vm(budget), &[Event::Reused, Event::CutOff]);
}

#[test]
fn slow_syncs() {
    let budget = Budget { adds: 2, syncs: 2, ..Budget::default() };
    let config = Config { slow_sync: true, prune: true, ..one_vm(budget) };
    search("slow syncs and pruning", config, &[Event::LateSync]);
}

#[test]
fn reboots_and_lost_journals() {
    let budget = Budget { adds: 2, syncs: 1, reboots: 1, journal_losses: 1, ..Budget::default() };
    search("reboot and lost journal", one_vm(budget), &[Event::Rebuilt, Event::Stale]);
}

#[test]
fn killed_shims_and_lost_journals() {
    let budget =
        Budget { adds: 2, syncs: 1, failures: 1, crashes: 1, journal_losses: 1, ..Budget::default() };
    search("killed shims and lost journal", one_vm(budget), &[Event::KilledThenLost, Event::Rebuilt]);
}

#[test]
fn killed_shims_and_reboots() {
    let budget = Budget { adds: 2, syncs: 1, failures: 1, crashes: 1, reboots: 1, ..Budget::default() };
    search("killed shims and reboot", one_vm(budget), &[Event::KilledThenRebooted, Event::Stale]);
}

#[test]
fn killed_shims_reboots_and_lost_journals() {
    let budget = Budget { adds: 2, syncs: 1, crashes: 1, reboots: 1, journal_losses: 1, ..Budget::default() };
    let events = [
        Event::KilledThenLost,
        Event::KilledThenRebooted,
        Event::Rebuilt,
        Event::Reused,
        Event::CutOff,
        Event::Stale,
    ];
    search("killed shims, reboot and lost journal", one_vm(budget), &events);
}

#[test]
fn lost_data() {
    let budget = Budget { adds: 2, syncs: 2, reboots: 2, data_losses: 1, ..Budget::default() };
    let config = Config { pods: 1, addresses: 1, ..one_vm(budget) };
    search("lost dataDir, two boots of one number", config, &[Event::Stale]);
}

#[test]
fn gc_of_two_networks() {
    let budget = Budget { adds: 2, crashes: 1, gcs: 1, ..Budget::default() };
    let config = one_vm(budget);
    search("GC of one of two networks", config, &[Event::Collected]);
}

#[test]
fn deletion_and_the_next_node() {
    let budget =
        Budget { adds: 1, second_adds: 1, syncs: 3, registrations: 1, deletions: 1, ..Budget::default() };
    let config = Config { vms: 2, pods: 1, addresses: 1, ..one_vm(budget) };
    search("deletion, then another VM", config, &[Event::Confirmed, Event::Stale]);
}

#[test]
fn deletion_across_a_reboot() {
    let budget = Budget {
        adds: 1,
        second_adds: 1,
        syncs: 2,
        reboots: 1,
        registrations: 1,
        deletions: 1,
        ..Budget::default()
    };
    let config = Config { vms: 2, pods: 1, addresses: 1, ..one_vm(budget) };
    search("deletion across a reboot", config, &[Event::Confirmed, Event::Stale]);
}

#[test]
fn deletion_before_and_after_taking_up() {
    let budget = Budget {
        adds: 1,
        second_adds: 1,
        syncs: 3,
        registrations: 2,
        deletions: 1,
        data_losses: 1,
        ..Budget::default()
    };
    let config = Config { start: Start::Nothing, vms: 2, pods: 1, addresses: 1, ..one_vm(budget) };
    search("deletion while taking up, lost dataDir", config, &[Event::Dropped, Event::Confirmed]);
}

#[test]
fn replacement() {
    let budget =
        Budget { adds: 2, second_adds: 1, syncs: 2, registrations: 1, losses: 1, ..Budget::default() };
    let config = Config { vms: 2, addresses: 1, ..one_vm(budget) };
    search("replace", config, &[Event::Replaced, Event::Stale]);
}

#[test]
fn a_block_that_shrinks_under_pods() {
    let budget = Budget { adds: 2, syncs: 1, shrinks: 1, ..Budget::default() };
    search("block shrinks under pods", one_vm(budget), &[Event::CutOff, Event::Reused]);
}

#[test]
fn a_block_that_shrinks_and_grows() {
    let budget = Budget { adds: 1, syncs: 2, shrinks: 1, grows: 1, ..Budget::default() };
    let config = Config { pods: 1, ..one_vm(budget) };
    let events = [Event::GivenUp, Event::TakenBack, Event::GrownAnew, Event::CutOff];
    search("block shrinks and grows", config, &events);
}

#[test]
fn a_block_that_shrinks_while_syncs_are_late() {
    let budget = Budget { adds: 1, syncs: 2, shrinks: 1, ..Budget::default() };
    let config = Config { pods: 1, slow_sync: true, ..one_vm(budget) };
    search("block shrinks, late syncs", config, &[Event::GivenUp, Event::LateSync]);
}

#[test]
fn a_block_that_shrinks_across_a_lost_journal() {
    let budget = Budget { adds: 1, syncs: 2, shrinks: 1, crashes: 1, journal_losses: 1, ..Budget::default() };
    let config = Config { pods: 1, ..one_vm(budget) };
    search("block shrinks, killed shims, lost journal", config, &[Event::GivenUp, Event::Rebuilt]);
}

#[test]
fn a_block_that_shrinks_across_a_reboot() {
    let budget = Budget { adds: 1, syncs: 2, shrinks: 1, reboots: 1, ..Budget::default() };
    let config = Config { pods: 1, ..one_vm(budget) };
    search("block shrinks, reboot", config, &[Event::GivenUp, Event::Stale]);
}
