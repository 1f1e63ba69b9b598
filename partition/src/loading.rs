//! The records of a store on their way into the index: pages are read and the index is filled by one thread, what lies between
//! is shared out over the processors, for a store of many records is waited for at the start.
//!
//! ```text
//! page -> shares -> Queue -- whoever is free, this thread too, unseals one --> waiting, in their order -> index
//! ```
//! So much is under way at once and no more, however many records there are.
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, Builder};

use parking_lot::{Condvar, Mutex};
use spec::record::Ouid;

use crate::error::Error;
use crate::index::Held;
use crate::store::{Entry, Key, StoreError};

/// Records that are read at once.
const PAGE: usize = 512;
/// Records that are unsealed at once: with fewer, another thread is not worth its start.
const SHARE: usize = 128;
/// Shares under way for each thread before another page is read.
const SHARES_PER_THREAD: usize = 4;

/// What came of a share: its records in their order, or the first fault.
type Found = Result<Vec<(Ouid, Held)>, Error>;

/// A part of a page, and where to tell what came of it.
struct Share {
    entries: Vec<Entry>,
    found: SyncSender<Found>,
}

impl Share {
    fn work_off(self, unseal: &impl Fn(Entry) -> Result<Option<(Ouid, Held)>, Error>) {
        let records = self.entries.into_iter().filter_map(|entry| unseal(entry).transpose());
        // Nobody listens any longer when a share before this one had a fault.
        let _ = self.found.send(records.collect());
    }
}

#[derive(Default)]
struct State {
    shares: VecDeque<Share>,
    ended: bool,
}

/// Shares that nobody has begun yet.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn put(&self, share: Share) {
        self.state.lock().shares.push_back(share);
        self.changed.notify_one();
    }

    /// The next one, if there is one now.
    fn take(&self) -> Option<Share> {
        self.state.lock().shares.pop_front()
    }

    /// The next one; none when there will be no more.
    fn wait(&self) -> Option<Share> {
        let mut state = self.state.lock();
        while state.shares.is_empty() && !state.ended {
            self.changed.wait(&mut state);
        }
        state.shares.pop_front()
    }
}

/// Lets the helpers go, however the loading ends.
struct End<'a>(&'a Queue);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.shares.clear();
        state.ended = true;
        drop(state);
        self.0.changed.notify_all();
    }
}

/// Reads page behind page, unseals every entry and puts what is found, in the order of the store.
///
/// # Errors
/// The first fault in the order of the store; what stood before it has been put.
pub(crate) fn load(
    page: impl Fn(Option<Ouid>, usize) -> Result<Vec<Entry>, StoreError>,
    unseal: impl Fn(Entry) -> Result<Option<(Ouid, Held)>, Error> + Sync,
    mut put: impl FnMut(Ouid, Held),
) -> Result<(), Error> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (queue, unseal) = (Queue::default(), &unseal);
    thread::scope(|scope| {
        let _end = End(&queue);
        let mut helpers = threads - 1;
        let (mut waiting, mut after, mut is_over) = (VecDeque::new(), None, false);
        loop {
            while !is_over && waiting.len() < threads * SHARES_PER_THREAD {
                let entries = page(after, PAGE)?;
                is_over = entries.len() < PAGE;
                after = entries.iter().rev().find_map(ouid_of).or(after);
                waiting.extend(share_out(entries, &queue));
                while helpers > 0 && waiting.len() > 1 {
                    helpers -= 1;
                    // Where the system refuses a thread the others do its share.
                    let _ = Builder::new().spawn_scoped(scope, || {
                        while let Some(share) = queue.wait() {
                            share.work_off(unseal);
                        }
                    });
                }
            }
            let Some(first) = waiting.pop_front() else { return Ok(()) };
            result(&first, &queue, unseal)?.into_iter().for_each(|(ouid, held)| put(ouid, held));
        }
    })
}

fn ouid_of(entry: &Entry) -> Option<Ouid> {
    match entry.key {
        Key::Record(ouid) => Some(ouid),
        Key::Manifest | Key::Credentials | Key::Meta(_) => None,
    }
}

/// Queues a page in shares; where to hear of each.
fn share_out(entries: Vec<Entry>, queue: &Queue) -> Vec<Receiver<Found>> {
    let mut entries = entries.into_iter().peekable();
    let mut all = Vec::new();
    while entries.peek().is_some() {
        let (found, hear) = sync_channel(1);
        queue.put(Share { entries: entries.by_ref().take(SHARE).collect(), found });
        all.push(hear);
    }
    all
}

/// What came of a share; this thread works until it is there.
fn result(
    share: &Receiver<Found>,
    queue: &Queue,
    unseal: &impl Fn(Entry) -> Result<Option<(Ouid, Held)>, Error>,
) -> Found {
    loop {
        match share.try_recv() {
            Ok(found) => return found,
            Err(TryRecvError::Empty) => match queue.take() {
                Some(next) => next.work_off(unseal),
                None => break,
            },
            Err(TryRecvError::Disconnected) => break,
        }
    }
    // Its thread has panicked, and that goes on where the threads are joined.
    share.recv().unwrap_or_else(|_| Err(Error::Store("a thread that reads records has ended".into())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use spec::record::Record;

    use super::*;
    use crate::digest_tree::Digest;

    fn name(number: usize) -> Ouid {
        let mut ouid = [0; 16];
        ouid[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Ouid(ouid)
    }

    fn entry(number: usize) -> Entry {
        Entry { key: Key::Record(name(number)), version: number as u64, value: Vec::new(), state: 0 }
    }

    /// The pages of a store of so many records.
    fn pages(count: usize) -> impl Fn(Option<Ouid>, usize) -> Result<Vec<Entry>, StoreError> {
        move |after, most| {
            let all = (0..count).map(entry);
            Ok(all.filter(|entry| ouid_of(entry) > after).take(most).collect())
        }
    }

    fn unsealed(entry: &Entry) -> Result<Option<(Ouid, Held)>, Error> {
        let ouid = ouid_of(entry).unwrap();
        Ok(Some((ouid, Held::new(Record::tombstone(ouid), entry.version, Digest::ZERO))))
    }

    #[test]
    fn every_record_is_put_once_in_the_order_of_the_store() {
        for count in [0, 1, SHARE, SHARE + 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 7] {
            let mut found = Vec::new();
            load(pages(count), |entry| unsealed(&entry), |ouid, held| found.push((ouid, held.version)))
                .unwrap();
            let wanted: Vec<_> = (0..count).map(|number| (name(number), number as u64)).collect();
            assert_eq!(found, wanted, "{count}");
        }
    }

    #[test]
    fn the_first_fault_in_the_order_of_the_store_is_told_whichever_is_met_first() {
        let faulty = [SHARE + 3, SHARE + 4, 3 * PAGE];
        let unseal = |entry: Entry| {
            if entry.version == faulty[0] as u64 {
                thread::sleep(std::time::Duration::from_millis(50));
            }
            match faulty.contains(&(entry.version as usize)) {
                true => Err(Error::Damaged(format!("{}", entry.version))),
                false => unsealed(&entry),
            }
        };
        let mut put = 0;
        let error = load(pages(4 * PAGE), unseal, |_, _| put += 1).unwrap_err();
        assert!(matches!(&error, Error::Damaged(text) if *text == faulty[0].to_string()), "{error}");
        assert_eq!(put, SHARE, "nothing of the faulty share nor behind it");
        let page = |after: Option<Ouid>, most| match after {
            Some(_) => Err(StoreError::Failed("the disk".into())),
            None => pages(4 * PAGE)(after, most),
        };
        assert!(load(page, |entry| unsealed(&entry), |_, _| ()).is_err());
    }

    #[test]
    fn no_more_is_under_way_than_the_threads_need() {
        let (read, put) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let page = |after, most| {
            let page = pages(40 * PAGE)(after, most)?;
            let read = read.fetch_add(page.len(), Ordering::Relaxed) + page.len();
            assert!(read - put.load(Ordering::Relaxed) <= threads * SHARES_PER_THREAD * SHARE + PAGE + SHARE);
            Ok(page)
        };
        load(
            page,
            |entry| unsealed(&entry),
            |_, _| {
                put.fetch_add(1, Ordering::Relaxed);
            },
        )
        .unwrap();
        assert_eq!(put.into_inner(), 40 * PAGE);
    }

    #[test]
    #[should_panic(expected = "scoped thread panicked")]
    fn a_fault_of_ours_in_a_helper_is_not_passed_over() {
        if thread::available_parallelism().map_or(1, usize::from) == 1 {
            panic!("a scoped thread panicked: there is none here");
        }
        let here = thread::current().id();
        let unseal = |entry: Entry| {
            assert_eq!(thread::current().id(), here, "on purpose");
            thread::sleep(std::time::Duration::from_micros(100));
            unsealed(&entry)
        };
        let _ = load(pages(8 * PAGE), unseal, |_, _| ());
    }
}
