//! What a simulated server does with a request: nothing but what the request says, here; a partition elsewhere.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spec::messages::{ReplyHeader, RequestHeader};
use zeroize::Zeroizing;

use crate::world::World;

/// A request that has arrived.
#[derive(Clone)]
pub(crate) struct Job {
    /// The process and the server that its connection leads from and to, and the life of the server's work that it leads to.
    pub(crate) process: usize,
    pub(crate) server: usize,
    pub(crate) life: u64,
    pub(crate) header: RequestHeader,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// What becomes of a request that has arrived; the numbers are those of the ledger.
pub(crate) enum Taken {
    /// It runs, and is done in so many nanoseconds.
    Runs { number: u64, nanoseconds: u64 },
    /// Its sender is to come again in so many milliseconds.
    Busy { number: u64, ms: u32 },
    /// Its connection breaks, and it is not executed.
    Breaks,
    /// It is none.
    Strange,
}

/// What came of a request.
pub(crate) struct Done {
    /// Where there is none the connection breaks instead.
    pub(crate) reply: Option<(ReplyHeader, Zeroizing<Vec<u8>>)>,
    /// Whether the connection breaks within the reply.
    pub(crate) broken_within: bool,
}

/// See the head of this file.
pub(crate) trait Service: Send + Sync {
    /// The life of the work behind a server: connections end with the one that they were made in.
    fn life(&self, server: usize) -> u64;
    /// Takes a request in; with `draining` the connection takes no more.
    fn take(&self, job: &Job, draining: bool) -> Taken;
    /// Executes what was taken in; nothing where it can no longer be done.
    fn execute(&self, number: u64, job: &Job) -> Option<Done>;
}

/// How long who is to come again waits, in milliseconds.
const AGAIN_MS: u32 = 20;

/// What a request asks of the service, and what its answer must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Its number in the ledger.
    pub(crate) number: u64,
    /// How long it takes.
    pub(crate) work_us: u32,
    /// Bytes of the request and of the answer behind their heads.
    pub(crate) asks: usize,
    pub(crate) answers: u32,
}

/// Bytes in front of what fills a request.
const HEAD: usize = 16;

fn filling(number: u64, count: usize) -> impl Iterator<Item = u8> {
    (0..count as u64).map(move |at| (number ^ at.wrapping_mul(7)).to_le_bytes()[0])
}

impl Task {
    /// The body of its request.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEAD + self.asks);
        body.extend(self.number.to_be_bytes());
        body.extend(self.work_us.to_be_bytes());
        body.extend(self.answers.to_be_bytes());
        body.extend(filling(self.number, self.asks));
        body
    }

    /// The task of a body, if it is a whole one.
    fn decode(body: &[u8]) -> Option<Self> {
        let (head, filled) = body.split_first_chunk::<HEAD>()?;
        let number = u64::from_be_bytes(*head.first_chunk()?);
        let work_us = u32::from_be_bytes(*head[8..].first_chunk()?);
        let answers = u32::from_be_bytes(*head[12..].first_chunk()?);
        let task = Self { number, work_us, asks: filled.len(), answers };
        filled.iter().copied().eq(filling(number, task.asks)).then_some(task)
    }

    fn answer(&self) -> Vec<u8> {
        let count = usize::try_from(self.answers).unwrap_or_default();
        self.number.to_be_bytes().into_iter().chain(filling(!self.number, count)).collect()
    }

    /// Whether this is the body of its answer.
    pub(crate) fn is_answered_by(&self, body: &[u8]) -> bool {
        body == self.answer()
    }
}

/// The service that does what each request says.
pub(crate) struct Tasks {
    world: Arc<World>,
    /// The first server answers one request of so many with Busy; none for 0.
    busy_one_in: AtomicU64,
}

impl Tasks {
    /// It is never busy.
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), busy_one_in: AtomicU64::new(0) })
    }

    /// The first server answers one request of so many with Busy, or none for 0.
    pub(crate) fn be_busy(&self, one_in: u64) {
        self.busy_one_in.store(one_in, Ordering::Relaxed);
    }
}

impl Service for Tasks {
    fn life(&self, _: usize) -> u64 {
        1
    }

    fn take(&self, job: &Job, draining: bool) -> Taken {
        let Some(task) = Task::decode(&job.body) else { return Taken::Strange };
        let one_in = self.busy_one_in.load(Ordering::Relaxed);
        let busy = one_in > 0 && job.server == 0 && self.world.chance(|chance| chance.once_in(one_in));
        match busy || draining {
            true => Taken::Busy { number: task.number, ms: AGAIN_MS },
            false => Taken::Runs { number: task.number, nanoseconds: u64::from(task.work_us) * 1_000 },
        }
    }

    fn execute(&self, _: u64, job: &Job) -> Option<Done> {
        let task = Task::decode(&job.body)?;
        let header = ReplyHeader { seq: task.number, ..ReplyHeader::default() };
        Some(Done { reply: Some((header, Zeroizing::new(task.answer()))), broken_within: false })
    }
}
