//! Group commit: mutations of the hot path that wait at the same time share one
//! transaction, and so one flush to disk. Where the database writes for several at once, one batch is
//! decided while another is flushed; nodes that two batches share wait for each other there.

use super::{
    NodeCall, Result, StoreError, Written,
    allocations::{self, Outcome},
    book::KnownHolders,
    db::{Db, retried},
    measures::{Measures, Operation},
};
use crate::clock::Clock;
use ipam_api::{
    names::Attachment,
    wire::{Allocation, AllocationSpec},
};
use std::{net::IpAddr, sync::Arc};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{Instrument, Span};

/// Mutations of one transaction, at most: beyond it a batch gains little and its last caller waits long.
const LARGEST_BATCH: usize = 256;

/// Mutations that may wait before callers have to.
const QUEUE: usize = 4096;

/// One mutation of the hot path.
#[derive(Debug, Clone)]
pub(super) enum Mutation {
    /// An attachment holds an address.
    Hold { call: NodeCall, attachment: Attachment, spec: AllocationSpec },
    /// An attachment has given its address back.
    Release { call: NodeCall, attachment: Attachment, address: Option<IpAddr> },
}

#[derive(Debug)]
enum Job {
    /// With whom to answer, and the trace it is part of.
    Mutate(Box<Mutation>, oneshot::Sender<Result<Outcome>>, Span),
    Stop,
}

/// Gathers waiting mutations and commits them together.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    /// One permit a task, held while it runs.
    running: Arc<Semaphore>,
    tasks: u32,
    measures: Measures,
}

impl Writer {
    /// Starts the tasks that write; they end with [`Writer::stop`] or with the last handle.
    pub(super) fn start(db: &Db, clock: &Arc<dyn Clock>) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        let known = KnownHolders::default();
        let tasks = db.batches_at_once();
        let running = Arc::new(Semaphore::new(tasks as usize));
        for _ in 0..tasks {
            // There is one for each.
            let Ok(permit) = Arc::clone(&running).try_acquire_owned() else { break };
            tokio::spawn(run(db.clone(), known.clone(), Arc::clone(clock), Arc::clone(&waiting), permit));
        }
        Self { jobs, running, tasks, measures: db.measures().clone() }
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
        let (reply, answer) = oneshot::channel();
        let job = Job::Mutate(Box::new(mutation), reply, timer.span().clone());
        self.jobs.send(job).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Whether mutations are still taken.
    pub(super) fn is_running(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Commits what was accepted, then ends the tasks; later mutations are refused.
    pub(super) async fn stop(&self) {
        // They may have ended by themselves.
        let _ = self.jobs.send(Job::Stop).await;
        let _ = self.running.acquire_many(self.tasks).await;
    }
}

fn stopping() -> StoreError {
    StoreError::Unavailable("the service is stopping".to_owned())
}

async fn run(
    db: Db,
    known: KnownHolders,
    clock: Arc<dyn Clock>,
    waiting: Arc<Mutex<mpsc::Receiver<Job>>>,
    _running: OwnedSemaphorePermit,
) {
    let mut jobs = Vec::with_capacity(LARGEST_BATCH);
    loop {
        {
            let mut waiting = waiting.lock().await;
            if waiting.recv_many(&mut jobs, LARGEST_BATCH).await == 0 {
                return;
            }
            gather(&mut waiting, &mut jobs).await;
            if jobs.iter().any(|job| matches!(job, Job::Stop)) {
                waiting.close();
            }
        }
        let mut mutations = Vec::with_capacity(jobs.len());
        let mut replies = Vec::with_capacity(jobs.len());
        // A transaction is in one trace: that of the first that is traced.
        let mut traced = Span::none();
        for job in jobs.drain(..) {
            match job {
                // A caller that has gone away asks again.
                Job::Mutate(mutation, reply, span) if !reply.is_closed() => {
                    mutations.push(*mutation);
                    replies.push(reply);
                    if traced.is_disabled() {
                        traced = span;
                    }
                }
                Job::Mutate(..) | Job::Stop => {}
            }
        }
        if mutations.is_empty() {
            continue;
        }
        db.measures().batch(mutations.len());
        let outcomes = commit(&db, &known, &*clock, mutations).instrument(traced).await;
        for (outcome, reply) in outcomes.into_iter().zip(replies) {
            // A caller that has gone away asks again; its answer is in the ledger.
            let _ = reply.send(outcome);
        }
    }
}

/// Callers that were answered together ask again together: the first one does not go alone while others are on their
/// way through this process.
async fn gather(waiting: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) {
    tokio::task::yield_now().await;
    while jobs.len() < LARGEST_BATCH
        && let Ok(job) = waiting.try_recv()
    {
        jobs.push(job);
    }
}

/// One answer a mutation, in order.
async fn commit(
    db: &Db,
    known: &KnownHolders,
    clock: &dyn Clock,
    mutations: Vec<Mutation>,
) -> Vec<Result<Outcome>> {
    let done = match allocations::commit_known(db, known, clock.now(), &mutations).await {
        Ok(done) => done,
        Err(StoreError::Unavailable(why)) => return all(&why, mutations.len()),
        Err(error) => return all(&error.to_string(), mutations.len()),
    };
    let left = mutations.into_iter().zip(&done).filter(|(_, done)| done.is_none());
    let left: Vec<Mutation> = left.map(|(mutation, _)| mutation).collect();
    let mut rest = commit_rest(db, known, clock, &left).await.into_iter();
    done.into_iter()
        .map(|done| done.map_or_else(|| rest.next().unwrap_or_else(|| Err(stopping())), Ok))
        .collect()
}

fn all(why: &str, count: usize) -> Vec<Result<Outcome>> {
    (0..count).map(|_| Err(StoreError::Unavailable(why.to_owned()))).collect()
}

async fn commit_rest(
    db: &Db,
    known: &KnownHolders,
    clock: &dyn Clock,
    mutations: &[Mutation],
) -> Vec<Result<Outcome>> {
    if mutations.is_empty() {
        return Vec::new();
    }
    match retried!(db, allocations::commit(db, known, clock.now(), mutations)) {
        Ok(outcomes) => outcomes,
        Err(error) if mutations.len() == 1 => vec![Err(error)],
        // Every one of them would wait as long again.
        Err(StoreError::Unavailable(why)) => all(&why, mutations.len()),
        // One mutation that the database refuses must not fail its neighbours.
        Err(error) => {
            tracing::warn!(%error, batch = mutations.len(), "batch refused, committing one by one");
            let mut outcomes = Vec::with_capacity(mutations.len());
            for mutation in mutations {
                let one = std::slice::from_ref(mutation);
                let alone = retried!(db, allocations::commit(db, known, clock.now(), one));
                outcomes.push(alone.and_then(|mut one| one.pop().unwrap_or_else(|| Err(stopping()))));
            }
            outcomes
        }
    }
}
