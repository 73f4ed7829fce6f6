//! Group commit: jobs that wait at the same time are done together, in one transaction and so with one flush to disk.

use super::{Result, StoreError};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{Instrument, Span};

/// Jobs of one transaction, at most: beyond it a batch gains little and its last caller waits long.
const LARGEST_BATCH: usize = 256;

/// A batch that waited so long in vain is a sign that the next one would.
const OUTAGE: Duration = Duration::from_secs(1);

/// Jobs that may wait before callers have to.
const QUEUE: usize = 4096;

/// How jobs are done.
pub(super) trait Work: Clone + Send + 'static {
    /// What is to be done.
    type Job: Send;
    /// What comes of it.
    type Answer: Send;

    /// Does them all; one answer a job, in order.
    fn together(&self, jobs: Vec<Self::Job>) -> impl Future<Output = Vec<Result<Self::Answer>>> + Send;
}

/// A job, with whom to answer and the trace it is part of.
#[derive(Debug)]
struct Order<J, A> {
    job: J,
    reply: oneshot::Sender<Result<A>>,
    span: Span,
}

#[derive(Debug)]
enum Word<J, A> {
    Do(Box<Order<J, A>>),
    Stop,
}

/// What was said and not yet heard.
type Waiting<J, A> = mpsc::Receiver<Word<J, A>>;

/// Where jobs wait for each other.
#[derive(Debug)]
pub(super) struct Queue<J, A> {
    words: mpsc::Sender<Word<J, A>>,
    /// One permit a task, held while it runs.
    running: Arc<Semaphore>,
    tasks: u32,
}

impl<J, A> Clone for Queue<J, A> {
    fn clone(&self) -> Self {
        Self { words: self.words.clone(), running: Arc::clone(&self.running), tasks: self.tasks }
    }
}

impl<J: Send + 'static, A: Send + 'static> Queue<J, A> {
    /// Starts tasks, each of which does one batch at a time; they end with [`Queue::stop`] or with the last handle.
    pub(super) fn start(tasks: u32, work: &impl Work<Job = J, Answer = A>) -> Self {
        let (words, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        let running = Arc::new(Semaphore::new(tasks as usize));
        for _ in 0..tasks {
            // There is one for each.
            let Ok(permit) = Arc::clone(&running).try_acquire_owned() else { break };
            tokio::spawn(run(work.clone(), Arc::clone(&waiting), permit));
        }
        Self { words, running, tasks }
    }

    /// Has a job done with whatever else waits.
    pub(super) async fn submit(&self, job: J, span: Span) -> Result<A> {
        let (reply, answer) = oneshot::channel();
        let order = Box::new(Order { job, reply, span });
        self.words.send(Word::Do(order)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Whether jobs are still taken.
    pub(super) fn is_running(&self) -> bool {
        !self.words.is_closed()
    }

    /// Does what was accepted, then ends the tasks; later jobs are refused.
    pub(super) async fn stop(&self) {
        // They may have ended by themselves.
        let _ = self.words.send(Word::Stop).await;
        let _ = self.running.acquire_many(self.tasks).await;
    }
}

/// Why nothing comes of a job any more.
pub(super) fn stopping() -> StoreError {
    StoreError::Unavailable("the service is stopping".to_owned())
}

async fn run<W: Work>(
    work: W,
    waiting: Arc<Mutex<Waiting<W::Job, W::Answer>>>,
    _running: OwnedSemaphorePermit,
) {
    let mut words = Vec::with_capacity(LARGEST_BATCH);
    loop {
        {
            let mut waiting = waiting.lock().await;
            if waiting.recv_many(&mut words, LARGEST_BATCH).await == 0 {
                return;
            }
            gather(&mut waiting, &mut words).await;
            if words.iter().any(|word| matches!(word, Word::Stop)) {
                waiting.close();
            }
        }
        let mut jobs = Vec::with_capacity(words.len());
        let mut replies = Vec::with_capacity(words.len());
        // A transaction is in one trace: that of the first that is traced.
        let mut traced = Span::none();
        for word in words.drain(..) {
            match word {
                // A caller that has gone away asks again.
                Word::Do(order) if !order.reply.is_closed() => {
                    jobs.push(order.job);
                    replies.push(order.reply);
                    if traced.is_disabled() {
                        traced = order.span;
                    }
                }
                Word::Do(_) | Word::Stop => {}
            }
        }
        if jobs.is_empty() {
            continue;
        }
        let began = Instant::now();
        let answers = work.together(jobs).instrument(traced).await;
        let outage = outage(&answers).filter(|_| began.elapsed() >= OUTAGE);
        for (answer, reply) in answers.into_iter().zip(replies) {
            // A caller that has gone away asks again; its answer is in the database.
            let _ = reply.send(answer);
        }
        // Where another task waits for words there are none.
        if let (Some(why), Ok(mut waiting)) = (outage, waiting.try_lock()) {
            refuse_all(&mut waiting, &why);
        }
    }
}

/// Why nothing of a batch was done, where the database was away from all of it.
fn outage<A>(answers: &[Result<A>]) -> Option<String> {
    let why = |answer: &Result<A>| match answer {
        Err(StoreError::Unavailable(why)) => Some(why.clone()),
        _ => None,
    };
    answers.iter().map(why).reduce(|all, one| all.and(one)).flatten()
}

/// Those that wait by now have waited while the database was away from a batch: the next one would have them wait as long again.
fn refuse_all<J, A>(waiting: &mut Waiting<J, A>, why: &str) {
    let mut stops = false;
    while let Ok(word) = waiting.try_recv() {
        match word {
            Word::Do(order) => drop(order.reply.send(Err(StoreError::Unavailable(why.to_owned())))),
            Word::Stop => stops = true,
        }
    }
    if stops {
        waiting.close();
    }
}

/// Callers that were answered together ask again together: the first one does not go alone while others are on their
/// way through this process.
async fn gather<T>(waiting: &mut mpsc::Receiver<T>, words: &mut Vec<T>) {
    tokio::task::yield_now().await;
    while words.len() < LARGEST_BATCH
        && let Ok(word) = waiting.try_recv()
    {
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away<A>() -> Result<A> {
        Err(StoreError::Unavailable("it is away".to_owned()))
    }

    #[test]
    fn an_outage_is_when_nothing_of_a_batch_was_done() {
        assert_eq!(outage::<()>(&[away(), away()]).as_deref(), Some("it is away"));
        assert_eq!(outage(&[away(), Ok(())]), None);
        assert_eq!(outage::<()>(&[away(), Err(StoreError::Overlap(String::new()))]), None);
        assert_eq!(outage::<()>(&[]), None);
    }

    #[tokio::test]
    async fn whoever_waits_while_the_database_is_away_is_told_so() {
        let (words, mut waiting) = mpsc::channel(4);
        let order = |job| {
            let (reply, answer) = oneshot::channel::<Result<()>>();
            (Word::Do(Box::new(Order { job, reply, span: Span::none() })), answer)
        };
        let ((first, one), (second, two)) = (order(1), order(2));
        words.try_send(first).unwrap();
        words.try_send(Word::Stop).unwrap();
        words.try_send(second).unwrap();
        refuse_all(&mut waiting, "it is away");
        for answer in [one, two] {
            assert!(matches!(answer.await.unwrap(), Err(StoreError::Unavailable(_))));
        }
        assert!(words.is_closed(), "the word to stop was heard");
    }

    /// Says how many jobs it was given at once.
    #[derive(Clone)]
    struct Count;

    impl Work for Count {
        type Job = ();
        type Answer = usize;

        async fn together(&self, jobs: Vec<()>) -> Vec<Result<usize>> {
            jobs.iter().map(|()| Ok(jobs.len())).collect()
        }
    }

    #[tokio::test]
    async fn what_waits_is_done_together_and_nothing_after_the_end() {
        let queue = Queue::start(1, &Count);
        let ask = || queue.submit((), Span::none());
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        assert_eq!([one.unwrap(), two.unwrap(), three.unwrap()], [3, 3, 3]);
        let (last, ()) = tokio::join!(ask(), queue.stop());
        assert_eq!(last.unwrap(), 1);
        assert!(!queue.is_running());
        assert!(matches!(ask().await, Err(StoreError::Unavailable(_))));
    }
}
