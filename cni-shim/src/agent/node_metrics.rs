//! What a scrape reads of the node: its journal and what its verbs have counted, as they are at that moment.

use crate::{
    cni::netconf::NodeConf,
    journal::{ClaimFile, Entry, Journal, Strangers, Uptime},
    tally::{Distribution, RESTED, TOOK, Tally},
};
use ipam_api::wire::EntryState;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// Reads the files of one node.
#[derive(Debug)]
pub(super) struct NodeMetrics {
    state_dir: PathBuf,
    data_dir: PathBuf,
}

impl NodeMetrics {
    pub(super) fn of(conf: &NodeConf) -> Self {
        Self { state_dir: conf.state_dir.clone(), data_dir: conf.data_dir.clone() }
    }
}

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        tally(&mut encoder, &Tally::read(&self.state_dir))?;
        addresses(&mut encoder, &Journal::at(&self.state_dir, &self.data_dir))
    }
}

fn tally(encoder: &mut DescriptorEncoder<'_>, tally: &Tally) -> fmt::Result {
    let help = "How long verbs took, from the start of their process";
    let mut took = encoder.encode_descriptor("verb_duration_seconds", help, None, MetricType::Histogram)?;
    for (verb, distribution) in &tally.took {
        histogram(took.encode_family(&[("verb", verb.to_string())])?, distribution, &TOOK)?;
    }
    let help = "Verbs that failed, by the code of their error object";
    let mut failed = encoder.encode_descriptor("verb_failures", help, None, MetricType::Counter)?;
    for (verb, codes) in &tally.failed {
        for (code, number) in codes {
            failed
                .encode_family(&[("verb", verb.to_string()), ("code", code.to_string())])?
                .encode_counter::<NoLabelSet, _, u64>(number, None)?;
        }
    }
    let help = "How long an address had rested when it was given out again";
    let rested = encoder.encode_descriptor("reuse_age_seconds", help, None, MetricType::Histogram)?;
    histogram(rested, &tally.rested, &RESTED)?;
    let help = "Calls after which a process went on without the service";
    let mut unreached = encoder.encode_descriptor("service_unreachable", help, None, MetricType::Counter)?;
    unreached.encode_counter::<NoLabelSet, _, u64>(&tally.unreached, None)?;
    match tally.contact {
        None => Ok(()),
        Some(at) => {
            // Kept by the time since boot: a clock that is set does not move it.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let then = now.saturating_sub(at.age_at(Uptime::now())).as_secs_f64();
            let help = "When the service last answered this node";
            encoder
                .encode_descriptor("last_contact_timestamp_seconds", help, None, MetricType::Gauge)?
                .encode_gauge(&then)
        }
    }
}

/// What cannot be read is left out: 0 would be a lie.
fn addresses(encoder: &mut DescriptorEncoder<'_>, journal: &Journal) -> fmt::Result {
    let Ok(picture) = journal.picture() else { return Ok(()) };
    let (entries, _) = picture.as_far_as_known();
    let used = entries.iter().filter(|entry| entry.state != EntryState::Released).count();
    let unsynced = entries.iter().filter(|entry| entry.is_due()).count();
    gauge(encoder, "addresses_used", "Addresses of the block that pods hold", used)?;
    gauge(encoder, "entries_unsynced", "Entries that the service has not acknowledged", unsynced)?;
    let Ok(Some(claim)) = journal.claim() else { return Ok(()) };
    let Ok(block) = claim.line().and_then(|line| claim.block(line)) else { return Ok(()) };
    let size = usize::try_from(block.iter().map(|extent| extent.size()).sum::<u64>()).unwrap_or(usize::MAX);
    let strangers = journal.strangers(&claim);
    let kept_from_pods = kept_from_pods(&claim, &strangers, &entries);
    let left = size.saturating_sub(used + kept_from_pods);
    gauge(encoder, "addresses_left", "Addresses of the block that pods can get", left)?;
    let known = strangers.known();
    let help = "Addresses of the block that other machines answer for";
    gauge(encoder, "conflicts", help, known.len())?;
    let help = "A machine that answers for an address of the block";
    let mut conflict = encoder.encode_descriptor("conflict", help, None, MetricType::Gauge)?;
    for one in known {
        let labels = [("address", one.address.to_string()), ("mac", one.mac.to_string())];
        conflict.encode_family(&labels)?.encode_gauge(&1)?;
    }
    Ok(())
}

/// How many offsets no pod has, and none can get for the strangers there.
fn kept_from_pods(claim: &ClaimFile, strangers: &Strangers, entries: &[Entry]) -> usize {
    let Ok(line) = claim.line() else { return 0 };
    let held =
        |at| entries.iter().any(|one| one.is_live() && line.offset_of(one.address).is_ok_and(|of| of == at));
    let theirs: BTreeSet<_> =
        strangers.known().iter().filter_map(|one| line.offset_of(one.address).ok()).collect();
    theirs.into_iter().filter(|&at| !held(at)).count()
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

fn histogram(mut encoder: MetricEncoder<'_>, distribution: &Distribution, bounds: &[f64]) -> fmt::Result {
    let buckets = distribution.buckets(bounds);
    encoder.encode_histogram::<NoLabelSet>(distribution.sum(), distribution.count(), &buckets, None)
}
