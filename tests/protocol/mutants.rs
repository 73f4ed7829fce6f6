//! Rules known to be bad: the search must find what each of them breaks, or it could not fail.

use crate::model::{
    ACKNOWLEDGED, ADDRESS_ONCE, Budget, Config, INSIDE, NOT_LEAKED, RUNNING, Rules, STAYS_AWAY, Start,
};
use stateright::{Checker, HasDiscoveries, Model};

fn breaks(rules: Rules, property: &'static str, config: Config) {
    let found = HasDiscoveries::AllOf([property].into());
    let checker = Config { rules, ..config }.checker().threads(2).finish_when(found).spawn_bfs().join();
    let path = checker.discovery(property);
    println!(
        "{rules:?} breaks \"{property}\" in {:?} steps, {} unique states",
        path.as_ref().map(|path| path.clone().into_actions().len()),
        checker.unique_state_count()
    );
    assert!(path.is_some(), "{rules:?} does not break \"{property}\"");
}

fn one_vm(budget: Budget) -> Config {
    Config { pods: 2, addresses: 2, vms: 1, budget, ..Config::default() }
}

#[test]
fn a_ledger_keyed_by_attachment_leaks() {
    let budget = Budget { adds: 2, failures: 1, ..Budget::default() };
    breaks(Rules::KeyedByAttachment, NOT_LEAKED, Config { addresses: 1, ..one_vm(budget) });
}

#[test]
fn a_del_numbered_before_unwiring_leaks() {
    let budget = Budget { adds: 1, syncs: 1, ..Budget::default() };
    breaks(Rules::SeqBeforeUnwiring, ACKNOWLEDGED, one_vm(budget));
}

#[test]
fn an_undo_that_forgets_leaks() {
    let budget = Budget { adds: 1, failures: 1, ..Budget::default() };
    breaks(Rules::UndoForgets, NOT_LEAKED, one_vm(budget));
}

#[test]
fn a_reply_that_acks_more_leaks() {
    let budget = Budget { adds: 1, ..Budget::default() };
    breaks(Rules::ReplyAcksMore, NOT_LEAKED, one_vm(budget));
}

#[test]
fn a_block_reclaimed_after_a_time_is_on_two_nodes() {
    let budget =
        Budget { adds: 1, second_adds: 1, syncs: 1, registrations: 1, deletions: 1, ..Budget::default() };
    let config = Config { vms: 2, pods: 1, addresses: 1, ..one_vm(budget) };
    breaks(Rules::ReclaimAfterTime, ADDRESS_ONCE, config);
}

#[test]
fn a_stop_that_a_reboot_forgets_puts_an_address_on_two_nodes() {
    let budget = Budget {
        adds: 1,
        second_adds: 1,
        syncs: 3,
        reboots: 1,
        registrations: 1,
        deletions: 1,
        ..Budget::default()
    };
    let config = Config { vms: 2, pods: 1, addresses: 1, ..one_vm(budget) };
    breaks(Rules::StopForgottenAtReboot, ADDRESS_ONCE, config);
}

#[test]
fn a_stop_that_a_late_answer_lifts_does_not_last() {
    let budget = Budget { syncs: 3, deletions: 1, ..Budget::default() };
    breaks(Rules::LateAnswerRevives, STAYS_AWAY, one_vm(budget));
}

#[test]
fn a_block_used_before_the_first_sync_is_on_two_nodes() {
    let budget =
        Budget { adds: 1, second_adds: 1, syncs: 2, registrations: 2, deletions: 1, ..Budget::default() };
    let config = Config { start: Start::Nothing, vms: 2, pods: 1, addresses: 1, ..one_vm(budget) };
    breaks(Rules::NoFirstSync, ADDRESS_ONCE, config);
}

#[test]
fn a_listing_older_than_its_number_loses_pods() {
    let budget = Budget { adds: 1, syncs: 1, ..Budget::default() };
    breaks(Rules::ListedBeforeAsOf, ACKNOWLEDGED, Config { slow_sync: true, ..one_vm(budget) });
}

#[test]
fn a_gc_that_takes_newer_entries_stops_running_pods() {
    let budget = Budget { adds: 1, gcs: 1, ..Budget::default() };
    breaks(Rules::GcTakesNewer, RUNNING, one_vm(budget));
}

#[test]
fn a_gc_of_all_networks_stops_running_pods() {
    let budget = Budget { adds: 2, gcs: 1, ..Budget::default() };
    breaks(Rules::GcOfAllNetworks, RUNNING, one_vm(budget));
}

#[test]
fn a_boot_known_by_its_number_only_loses_pods() {
    let budget = Budget { adds: 2, syncs: 2, reboots: 2, data_losses: 1, ..Budget::default() };
    breaks(Rules::BootWithoutId, ACKNOWLEDGED, Config { pods: 1, addresses: 1, ..one_vm(budget) });
}

#[test]
fn a_lost_journal_taken_for_empty_loses_pods() {
    let budget = Budget { adds: 1, syncs: 1, journal_losses: 1, ..Budget::default() };
    breaks(Rules::LostIsEmpty, RUNNING, one_vm(budget));
}

#[test]
fn a_block_that_an_older_version_confirms_is_cut_off_under_a_pod() {
    let budget = Budget { adds: 1, syncs: 1, shrinks: 1, ..Budget::default() };
    breaks(Rules::OlderVersionConfirms, INSIDE, Config { pods: 1, ..one_vm(budget) });
}

#[test]
fn a_block_that_shrinks_after_a_time_is_cut_off_under_a_pod() {
    let budget = Budget { adds: 1, shrinks: 1, ..Budget::default() };
    breaks(Rules::LeavesByTime, INSIDE, Config { pods: 1, ..one_vm(budget) });
}

#[test]
fn an_answer_older_than_a_change_of_the_block_gives_a_pod_what_is_anothers() {
    let budget = Budget { adds: 1, syncs: 3, shrinks: 1, ..Budget::default() };
    breaks(Rules::OlderBlockReturns, INSIDE, Config { pods: 1, ..one_vm(budget) });
}
