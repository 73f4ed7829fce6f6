//! Mutations of the hot path, those that wait at the same time in one transaction. Where the database writes for several
//! at once, one batch is decided while another is flushed; nodes that two batches share wait for each other there.

use super::{
    NodeCall, Result, StoreError, Written,
    allocations::{self, Outcome},
    book::KnownHolders,
    db::{Db, retried},
    group_commit::{Queue, Work, stopping},
    measures::{Measures, Operation},
};
use crate::clock::Clock;
use ipam_api::{
    names::Attachment,
    wire::{Allocation, AllocationSpec},
};
use std::{net::IpAddr, sync::Arc};

/// One mutation of the hot path.
#[derive(Debug, Clone)]
pub(super) enum Mutation {
    /// An attachment holds an address.
    Hold { call: NodeCall, attachment: Attachment, spec: AllocationSpec },
    /// An attachment has given its address back.
    Release { call: NodeCall, attachment: Attachment, address: Option<IpAddr> },
}

/// Gathers waiting mutations and commits them together.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: Queue<Mutation, Outcome>,
    measures: Measures,
}

impl Writer {
    /// Starts the tasks that write; they end with [`Writer::stop`] or with the last handle.
    pub(super) fn start(db: &Db, clock: &Arc<dyn Clock>) -> Self {
        let commit = Commit { db: db.clone(), known: KnownHolders::default(), clock: Arc::clone(clock) };
        Self { queue: Queue::start(db.batches_at_once(), &commit), measures: db.measures().clone() }
    }

    /// Commits a hold with whatever else waits.
    pub(super) async fn hold(
        &self,
        call: &NodeCall,
        attachment: &Attachment,
        spec: &AllocationSpec,
    ) -> Result<Written<Allocation>> {
        let mutation =
            Mutation::Hold { call: call.clone(), attachment: attachment.clone(), spec: spec.clone() };
        match self.commit(mutation).await? {
            Outcome::Held(allocation) => Ok(*allocation),
            Outcome::Released => Err(StoreError::Unavailable("a hold was answered as a release".to_owned())),
        }
    }

    /// Commits a release with whatever else waits.
    pub(super) async fn release(
        &self,
        call: &NodeCall,
        attachment: &Attachment,
        address: Option<IpAddr>,
    ) -> Result<()> {
        let mutation = Mutation::Release { call: call.clone(), attachment: attachment.clone(), address };
        self.commit(mutation).await.map(|_| ())
    }

    async fn commit(&self, mutation: Mutation) -> Result<Outcome> {
        let timer = self.measures.time(match mutation {
            Mutation::Hold { .. } => Operation::Hold,
            Mutation::Release { .. } => Operation::Release,
        });
        self.queue.submit(mutation, timer.span().clone()).await
    }

    /// Whether mutations are still taken.
    pub(super) fn is_running(&self) -> bool {
        self.queue.is_running()
    }

    /// Commits what was accepted; later mutations are refused.
    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }
}

/// How mutations are committed.
#[derive(Debug, Clone)]
struct Commit {
    db: Db,
    known: KnownHolders,
    clock: Arc<dyn Clock>,
}

impl Work for Commit {
    type Job = Mutation;
    type Answer = Outcome;

    async fn together(&self, mutations: Vec<Mutation>) -> Vec<Result<Outcome>> {
        self.db.measures().batch(mutations.len());
        let known = allocations::commit_known(&self.db, &self.known, self.clock.now(), &mutations);
        let done = match known.await {
            Ok(done) => done,
            Err(StoreError::Unavailable(why)) => return all(&why, mutations.len()),
            Err(error) => return all(&error.to_string(), mutations.len()),
        };
        let left = mutations.into_iter().zip(&done).filter(|(_, done)| done.is_none());
        let left: Vec<Mutation> = left.map(|(mutation, _)| mutation).collect();
        let mut rest = self.rest(&left).await.into_iter();
        done.into_iter()
            .map(|done| done.map_or_else(|| rest.next().unwrap_or_else(|| Err(stopping())), Ok))
            .collect()
    }
}

impl Commit {
    async fn rest(&self, mutations: &[Mutation]) -> Vec<Result<Outcome>> {
        if mutations.is_empty() {
            return Vec::new();
        }
        match self.committed(mutations).await {
            Ok(outcomes) => outcomes,
            Err(error) if mutations.len() == 1 => vec![Err(error)],
            // Every one of them would wait as long again.
            Err(StoreError::Unavailable(why)) => all(&why, mutations.len()),
            // One mutation that the database refuses must not fail its neighbours.
            Err(error) => {
                tracing::warn!(%error, batch = mutations.len(), "batch refused, committing one by one");
                let mut outcomes = Vec::with_capacity(mutations.len());
                for mutation in mutations {
                    let alone = self.committed(std::slice::from_ref(mutation)).await;
                    outcomes.push(alone.and_then(|mut one| one.pop().unwrap_or_else(|| Err(stopping()))));
                }
                outcomes
            }
        }
    }

    async fn committed(&self, mutations: &[Mutation]) -> Result<Vec<Result<Outcome>>> {
        retried!(self.db, allocations::commit(&self.db, &self.known, self.clock.now(), mutations))
    }
}

fn all(why: &str, count: usize) -> Vec<Result<Outcome>> {
    (0..count).map(|_| Err(StoreError::Unavailable(why.to_owned()))).collect()
}
