//! Threads for work that must not stop a link: bounded lanes for the processor, for PIN checks and for the disk.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Requests that may wait for each thread of a lane; more are told to come again (HA 4.5).
const WAITING_PER_THREAD: usize = 256;
/// Threads that may wait for the disk at once: those of one partition for one another, partitions side by side.
const DISK_THREADS: usize = 64;

/// One lane.
struct Pool {
    threads: usize,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Pool {
    fn new(threads: usize) -> Self {
        Self { threads, permits: Arc::new(Semaphore::new(threads)), waiting: Arc::new(AtomicUsize::new(0)) }
    }

    fn submit(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            spawn_blocking(move || {
                work();
                drop(permit);
            });
            return Ok(());
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.threads.saturating_mul(WAITING_PER_THREAD) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        let (permits, waiting) = (self.permits.clone(), self.waiting.clone());
        tokio::spawn(async move {
            let permit = permits.acquire_owned().await;
            waiting.fetch_sub(1, Ordering::Relaxed);
            spawn_blocking(move || {
                work();
                drop(permit);
            });
        });
        Ok(())
    }
}

/// The lane's queue is full; nothing was started.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// The lanes of a server.
pub struct Workers {
    crypto: Pool,
    pin: Pool,
    disk: Pool,
}

impl Workers {
    /// Lanes with so many threads for the processor, and as many for PIN checks: a slow disk stops logins, not signing.
    pub fn new(crypto_threads: usize) -> Self {
        Self {
            crypto: Pool::new(crypto_threads),
            pin: Pool::new(crypto_threads),
            disk: Pool::new(DISK_THREADS),
        }
    }

    /// Runs work on the processor's lane, first come first served. Call it inside a runtime.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn crypto(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        self.crypto.submit(work)
    }

    /// Runs work on the lane of PIN checks, first come first served. Call it inside a runtime.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn pin(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        self.pin.submit(work)
    }

    /// Runs work on the disk's lane. Call it inside a runtime.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn disk(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        self.disk.submit(work)
    }

    /// How many requests wait for a thread.
    pub fn waiting(&self) -> u32 {
        let pools = [&self.crypto, &self.pin, &self.disk];
        let waiting: usize = pools.iter().map(|pool| pool.waiting.load(Ordering::Relaxed)).sum();
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_lane_runs_so_many_at_once_then_queues_then_refuses() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let workers = Workers::new(2);
        let (started, starts) = mpsc::channel();
        let gate = Arc::new(parking_lot::Mutex::new(()));
        let closed = gate.lock();
        runtime.block_on(async {
            for _ in 0..2 + 2 * WAITING_PER_THREAD {
                let (gate, started) = (gate.clone(), started.clone());
                let work = move || {
                    started.send(()).unwrap();
                    drop(gate.lock());
                };
                workers.crypto(work).unwrap();
            }
            assert_eq!(workers.crypto(|| ()), Err(Full));
            assert_eq!(workers.disk(|| ()), Ok(()), "the other lanes are free");
            assert_eq!(workers.pin(|| ()), Ok(()), "the other lanes are free");
        });
        starts.recv().unwrap();
        starts.recv().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(starts.try_recv().is_err(), "never more than two at once");
        assert_eq!(workers.waiting(), u32::try_from(2 * WAITING_PER_THREAD).unwrap());
        drop(closed);
        for _ in 0..2 * WAITING_PER_THREAD {
            starts.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        }
    }
}
