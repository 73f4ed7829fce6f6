//! What this node knows of itself, without asking anyone but its kernel.

use super::{Conf, Format, show};
use crate::{
    install,
    journal::{ClaimFile, Conflict, Entry, Journal, Standing, Uptime, boot},
    service::Marker,
};
use ipam_api::{
    names::NodeName,
    wire::{self, Block, BootSeq, Claim, EntryState, PodRef, Seq},
};
use serde::Serialize;
use std::net::IpAddr;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    node: NodeName,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standing: Option<Standing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<BootSeq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<Block>,
    journal: JournalIs,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<Unreachable>,
    /// What is in the way of pods although everything of ours is in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    counts: Counts,
    entries: Vec<Row>,
    /// Machines that answer for addresses of the block.
    strangers: Vec<wire::Conflict>,
}

/// Whether the journal can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum JournalIs {
    /// It is this boot's.
    Current,
    /// It is an earlier boot's: void, and the next verb says so.
    OfAnEarlierBoot,
    /// There was one in this boot: `sync` rebuilds it.
    Lost,
    /// There is none yet.
    None,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unreachable {
    reason: String,
    for_seconds: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    intent: usize,
    wired: usize,
    releasing: usize,
    released: usize,
    unacknowledged: usize,
    refused: usize,
    conflicts: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    addresses: Vec<IpAddr>,
    network: String,
    container_id: String,
    if_name: String,
    state: EntryState,
    seq: Seq,
    age_seconds: u64,
    acknowledged: bool,
    host_end: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<PodRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
}

impl Row {
    fn of(entry: Entry, now: Uptime) -> Self {
        Self {
            network: entry.network.to_string(),
            container_id: entry.container_id.to_string(),
            if_name: entry.if_name.to_string(),
            state: entry.state,
            seq: entry.seq,
            age_seconds: entry.since.age_at(now).as_secs(),
            acknowledged: entry.acked,
            host_end: entry.host_end,
            pod: entry.pod,
            refused: entry.refused,
            conflict: entry.conflict.filter(|c| c.since.age_at(now) < Conflict::LASTS).map(|c| c.reason),
            addresses: entry.addresses,
        }
    }
}

/// Shows it.
pub(super) fn status(conf: &Conf, format: Format) -> Result<(), String> {
    let journal = Journal::at(&conf.node.state_dir, &conf.node.data_dir);
    let claim = journal.claim().map_err(|error| error.to_string())?;
    let boot_id = boot::boot_id(&conf.node.boot_id_file).map_err(|error| error.to_string())?;
    let header = journal.header().map_err(|error| error.to_string())?;
    let entries = journal.entries().map_err(|error| error.to_string())?;
    let is = match (&header, &claim) {
        (Some(header), _) if header.boot_id == boot_id => JournalIs::Current,
        (Some(_), _) => JournalIs::OfAnEarlierBoot,
        (None, Some(claim)) if claim.journal && claim.boot.id == boot_id => JournalIs::Lost,
        (None, _) => JournalIs::None,
    };
    let now = Uptime::now();
    let strangers = claim.as_ref().map(|claim| journal.strangers(claim).to_sync(now));
    let status = Status {
        node: claim.as_ref().map_or_else(|| conf.node.name.clone(), |claim| claim.node.name.clone()),
        claim: claim.as_ref().map(|claim| claim.node.claim),
        standing: claim.as_ref().map(|claim| claim.standing.clone()),
        boot: claim.as_ref().map(|claim| claim.boot.seq),
        block: claim.as_ref().map(|claim| claim.node.block.clone()),
        journal: is,
        unreachable: Marker::of(&conf.node.state_dir)
            .said()
            .map(|said| Unreachable { for_seconds: said.since.age_at(now).as_secs(), reason: said.reason }),
        warnings: install::warnings(claim.as_ref()),
        counts: count(&entries, now),
        entries: entries.into_iter().map(|entry| Row::of(entry, now)).collect(),
        strangers: strangers.unwrap_or_default(),
    };
    show(format, &status, || text(&status, claim.as_ref()))
}

fn count(entries: &[Entry], now: Uptime) -> Counts {
    let mut counts = Counts::default();
    for entry in entries {
        match entry.state {
            EntryState::Intent => counts.intent += 1,
            EntryState::Wired => counts.wired += 1,
            EntryState::Releasing => counts.releasing += 1,
            EntryState::Released => counts.released += 1,
        }
        counts.unacknowledged += usize::from(!entry.acked);
        counts.refused += usize::from(entry.refused.is_some());
        counts.conflicts +=
            usize::from(entry.conflict.as_ref().is_some_and(|c| c.since.age_at(now) < Conflict::LASTS));
    }
    counts
}

fn text(status: &Status, claim: Option<&ClaimFile>) -> String {
    let mut lines = vec![format!("node {}", status.node)];
    match claim {
        None => lines.push("no claim yet: the first ADD or `cni-shim sync` fetches it".to_owned()),
        Some(claim) => {
            let standing = match &claim.standing {
                Standing::Planned => "not taken up yet".to_owned(),
                Standing::Active => "active".to_owned(),
                Standing::Deleting { .. } => "being deleted: no new pods".to_owned(),
                Standing::Stale { reason } => format!("stale, no new pods: {reason}"),
            };
            lines.push(format!("claim {}, boot {}, {standing}", claim.node.claim, claim.boot.seq));
            for range in &claim.node.block.ranges {
                let v6 = range.first6.zip(range.last6).filter(|_| range.first.is_ipv4());
                let v6 = v6.map(|(first, last)| format!(", {first} to {last}")).unwrap_or_default();
                lines.push(format!("block {} to {}{v6}", range.first, range.last));
            }
        }
    }
    lines.push(match status.journal {
        JournalIs::Current => {
            let Counts { intent, wired, releasing, released, unacknowledged, .. } = status.counts;
            format!(
                "journal: {wired} wired, {intent} starting, {releasing} stopping, {released} given back; \
                 {unacknowledged} not acknowledged"
            )
        }
        JournalIs::OfAnEarlierBoot => "journal: of an earlier boot, void".to_owned(),
        JournalIs::Lost => "journal: lost; `cni-shim sync` rebuilds it from the host".to_owned(),
        JournalIs::None => "journal: none yet".to_owned(),
    });
    if let Some(unreachable) = &status.unreachable {
        lines.push(format!("service not reached {} s ago: {}", unreachable.for_seconds, unreachable.reason));
    }
    lines.extend(status.warnings.iter().map(|words| format!("warning: {words}")));
    for stranger in &status.strangers {
        lines.push(format!(
            "conflict: {} answers for {}, {} s ago; no pod gets it",
            stranger.mac, stranger.address, stranger.age_seconds
        ));
    }
    if !status.entries.is_empty() {
        lines.push(String::new());
        lines.extend(table(&status.entries));
    }
    lines.join("\n")
}

fn table(rows: &[Row]) -> Vec<String> {
    let head = ["ADDRESS", "STATE", "ACKED", "AGE", "ATTACHMENT", "POD"].map(str::to_owned);
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
            let acked = match (row.acknowledged, row.refused.is_some(), row.conflict.is_some()) {
                (_, _, true) => "conflict",
                (_, true, _) => "refused",
                (true, ..) => "yes",
                (false, ..) => "no",
            };
            let pod = row.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
            [
                addresses.join(" "),
                format!("{:?}", row.state).to_lowercase(),
                acked.to_owned(),
                format!("{}s", row.age_seconds),
                format!("{}/{}/{}", row.network, row.container_id, row.if_name),
                pod.unwrap_or_default(),
            ]
        })
        .collect();
    let mut widths = [0; 6];
    for row in std::iter::once(&head).chain(&cells) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    std::iter::once(&head)
        .chain(&cells)
        .map(|row| {
            let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}
