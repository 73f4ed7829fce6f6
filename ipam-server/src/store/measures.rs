//! The store in numbers, since the start.

use super::{Result, Store, db::PoolUse};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{collections::BTreeMap, time::Instant};
use tracing::{Span, trace_span};

/// Upper bounds in seconds: a batch takes about a millisecond, a plan of a large VNet some hundred.
const DURATIONS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Upper bounds in mutations, up to the largest batch.
const BATCHES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Upper bounds in seconds: from an address that is taken again at once to one that rested for a month.
const RESTS: [f64; 10] = [1.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 2_592_000.0];

const CONFLICTS: &str = "SELECT p.name, COUNT(*) FROM conflict AS c JOIN node AS n ON n.id = c.node
    JOIN pool AS p ON p.id = n.pool GROUP BY p.name";

/// What takes time in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// A hold, from the queue to its answer.
    Hold,
    /// A release, from the queue to its answer.
    Release,
    /// A registration of a new node together with others, from the queue to its answer.
    Claim,
    /// A sync, done anew as a plan where need be.
    Sync,
    /// A transaction that has the plan to itself.
    Plan,
    /// A transaction that has nodes to itself: a batch of holds and releases, a sync.
    Nodes,
    /// A transaction that notes when tokens were used.
    Uses,
    /// A transaction that reads.
    Read,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Claim => "claim",
            Self::Sync => "sync",
            Self::Plan => "plan",
            Self::Nodes => "nodes",
            Self::Uses => "uses",
            Self::Read => "read",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOperation {
    operation: &'static str,
}

/// What the upkeep takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Events.
    Events,
    /// Tokens of nodes that have ended.
    FormerTokens,
    /// VMs that have ended.
    FormerVms,
}

impl Kept {
    fn label(self) -> &'static str {
        match self {
            Self::Events => "event",
            Self::FormerTokens => "former_token",
            Self::FormerVms => "former_vm",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKept {
    table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfConnections {
    pool: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfConnectionPool {
    pool: &'static str,
}

/// Counts of one store; clones count together.
#[derive(Debug, Clone)]
pub(super) struct Measures {
    operations: Family<OfOperation, Histogram, fn() -> Histogram>,
    batches: Histogram,
    rests: Histogram,
    pruned: Family<OfKept, Counter>,
    /// Whether this replica has the turn.
    pub(super) turn: Gauge,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            operations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            batches: Histogram::new(BATCHES),
            rests: Histogram::new(RESTS),
            pruned: Family::default(),
            turn: Gauge::default(),
        }
    }
}

/// Measures until it is dropped, however what it measures ends.
#[derive(Debug)]
pub(super) struct Timer {
    histogram: Histogram,
    began: Instant,
    /// Lasts as long, where it is traced.
    span: Span,
}

impl Timer {
    /// What is measured, in a trace.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.histogram.observe(self.began.elapsed().as_secs_f64());
    }
}

impl Measures {
    pub(super) fn time(&self, operation: Operation) -> Timer {
        let operation = operation.label();
        let histogram = self.operations.get_or_create_owned(&OfOperation { operation });
        let span = trace_span!("store", otel.name = %format_args!("store {operation}"));
        Timer { histogram, began: Instant::now(), span }
    }

    /// So many mutations were committed together.
    pub(super) fn batch(&self, mutations: usize) {
        self.batches.observe(mutations as f64);
    }

    /// Addresses were taken again that had rested so long, in milliseconds.
    pub(super) fn rested(&self, rests: &[i64]) {
        for rest in rests {
            // Clocks of replicas differ.
            self.rests.observe((*rest).max(0) as f64 / 1000.0);
        }
    }

    pub(super) fn pruned(&self, rows: Kept, count: u64) {
        self.pruned.get_or_create(&OfKept { table: rows.label() }).inc_by(count);
    }
}

impl Store {
    /// Puts all that is measured into a registry, as it is now.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let measures = self.db.measures();
        registry.register_with_unit(
            "store_operation_duration",
            "Time of holds, releases and claims from queue to answer, of syncs, and of transactions by what they have to themselves, with the wait for a connection and for others",
            Unit::Seconds,
            measures.operations.clone(),
        );
        registry.register(
            "batch_mutations",
            "Holds and releases that were committed together",
            measures.batches.clone(),
        );
        registry.register_with_unit(
            "address_rest",
            "How long an address had been given back when another attachment took it",
            Unit::Seconds,
            measures.rests.clone(),
        );
        let undone: Counter = Counter::default();
        undone.inc_by(self.undone());
        registry.register(
            "transactions_undone",
            "Transactions that the database undid in favour of others and that were done again",
            undone,
        );
        registry.register(
            "upkeep_turn",
            "Whether this replica does what one does for all (1), or another (0)",
            measures.turn.clone(),
        );
        registry.register(
            "rows_pruned",
            "Rows past their time that this replica took away",
            measures.pruned.clone(),
        );
        let connections: Family<OfConnections, Gauge> = Family::default();
        let most: Family<OfConnectionPool, Gauge> = Family::default();
        for PoolUse { pool, open, idle, most: limit } in self.db.pools() {
            let of = |state| OfConnections { pool, state };
            connections.get_or_create(&of("used")).set(open.saturating_sub(idle).into());
            connections.get_or_create(&of("idle")).set(idle.into());
            most.get_or_create(&OfConnectionPool { pool }).set(limit.into());
        }
        registry.register("database_connections", "Connections to the database: used, idle", connections);
        registry.register("database_connections_max", "Most connections that a pool opens", most);
    }

    /// Addresses at which nodes found strangers, by pool; pools without any are not there.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn conflicts(&self) -> Result<BTreeMap<String, u64>> {
        let mut tx = self.db.survey().await?;
        let rows: Vec<(String, i64)> = tx.fetch_all(CONFLICTS, vec![]).await?;
        Ok(rows.into_iter().map(|(pool, count)| (pool, count.cast_unsigned())).collect())
    }
}
