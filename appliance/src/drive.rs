//! The task of a link: it reads, waits, keeps time and hears what changes; all else is done by [`Line`].
//!
//! ```text
//! wait: finished work | stop | registrations | bytes | room to write | alarm -> turn: answered and written -> wait ...
//! ```
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use crate::greeting::Greeted;
use crate::link::{Finished, Line, Wait};
use crate::log;
use crate::shared::Shared;
use crate::wire::{Batch, Hunch, Incoming, Wire};

/// A link that has worked for so long without a pause lets the others have their turn.
const TURN: Duration = Duration::from_micros(500);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Later than any alarm.
const FAR: Duration = Duration::from_secs(86_400);

/// What happened.
enum Next {
    Finished(Finished),
    Stop,
    Changed,
    Read(Batch),
    Writable,
    Alarm,
    Broken(String),
}

/// Serves a link that has been greeted until its end; the answer says why it ended, for the log.
///
/// # Errors
/// When it ended otherwise than by the peer's or our own orderly close.
pub(crate) async fn serve(
    stream: TlsStream<TcpStream>,
    shared: Arc<Shared>,
    mut greeted: Greeted,
) -> Result<(), String> {
    let (client, rest) = (&greeted.client, std::mem::take(&mut greeted.rest));
    if log::allow(&client.name, ("links", 1)) {
        let (software, version) = (&greeted.software, greeted.version);
        tracing::info!(client = client.name, peer = client.replicator, software, version, "a link is up");
    }
    let (sender, finished) = mpsc::unbounded_channel();
    let (wire, incoming) = Wire::new(stream);
    let mut line = Line::new(wire, shared.clone(), greeted, sender);
    let end = drive(&mut line, &shared, incoming, finished, &rest).await;
    line.end();
    // Best effort: the peer may be gone.
    let _ = timeout(GOODBYE, poll_fn(|context| line.poll_end(context))).await;
    end
}

async fn drive(
    line: &mut Line,
    shared: &Shared,
    mut incoming: Incoming,
    mut finished: mpsc::UnboundedReceiver<Finished>,
    rest: &[u8],
) -> Result<(), String> {
    let mut stopping = shared.stop.clone();
    let mut stop = Ear::new(async move { stopped(&mut stopping).await });
    let changed_anew = || Ear::new(next_change(shared.registry.changes()));
    let mut changed = changed_anew();
    let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
    let mut wait = line.begin(rest)?;
    let (mut hunch, mut look, mut busy) = (Hunch::default(), false, Busy::default());
    while let Some(wanted) = wait {
        set(alarm.as_mut(), wanted.due);
        let mut waited = false;
        let next = poll_fn(|context| {
            if wanted.work
                && let Poll::Ready(Some(done)) = finished.poll_recv(context)
            {
                return Poll::Ready(Next::Finished(done));
            }
            if stop.hears(context) {
                return Poll::Ready(Next::Stop);
            }
            if changed.hears(context) {
                return Poll::Ready(Next::Changed);
            }
            let broken = |error| Next::Broken(format!("the connection broke: {error}"));
            if wanted.read && std::mem::take(&mut look) {
                let read = incoming.read_at_once();
                hunch.learn(read.is_some());
                if let Some(read) = read {
                    return Poll::Ready(read.map_or_else(broken, Next::Read));
                }
            }
            if wanted.read
                && let Poll::Ready(read) = incoming.poll_read(context)
            {
                return Poll::Ready(read.map_or_else(broken, Next::Read));
            }
            if wanted.write
                && let Poll::Ready(room) = line.wire.poll_writable(context)
            {
                return Poll::Ready(room.map_or_else(broken, |()| Next::Writable));
            }
            if wanted.due.is_some() && alarm.as_mut().poll(context).is_ready() {
                return Poll::Ready(Next::Alarm);
            }
            waited = true;
            Poll::Pending
        });
        let next = next.await;
        if matches!(next, Next::Changed) {
            changed = changed_anew();
        }
        look = matches!(next, Next::Read(_)) && hunch.is_worth_it();
        let begun = Instant::now();
        let ended;
        (wait, ended) = turn(line, next, &mut finished, begun)?;
        if busy.must_yield(waited, (begun, ended), &mut look) {
            yield_now().await;
        }
    }
    Ok(())
}

/// Since when a link keeps its thread, without having waited.
#[derive(Default)]
struct Busy {
    since: Option<Instant>,
    /// It was long and should have waited.
    is_long: bool,
}

impl Busy {
    /// Whether the others have their turn now. A link that would look at once what has come waits for it instead, as the
    /// others do: they have their turn so, and to yield costs more, for it wakes another thread. If it need not wait
    /// then, it yields after all.
    fn must_yield(&mut self, waited: bool, (begun, ended): (Instant, Instant), look: &mut bool) -> bool {
        if waited {
            *self = Self::default();
        }
        let since = *self.since.get_or_insert(begun);
        if ended.duration_since(since) < TURN
            || std::mem::take(look) && !std::mem::replace(&mut self.is_long, true)
        {
            return false;
        }
        *self = Self::default();
        true
    }
}

/// One turn: what there is to wait for next, and when it ended.
fn turn(
    line: &mut Line,
    next: Next,
    finished: &mut mpsc::UnboundedReceiver<Finished>,
    now: Instant,
) -> Result<(Option<Wait>, Instant), String> {
    match next {
        Next::Finished(first) => line.take_finished(first, || finished.try_recv().ok()),
        Next::Stop => line.link.stop(),
        Next::Changed => line.link.offer_anew(),
        Next::Read(batch) => line.take_batch(&batch, now)?,
        Next::Writable => {}
        Next::Alarm => line.link.alarmed(now)?,
        Next::Broken(reason) => return Err(reason),
    }
    let ended = Instant::now();
    Ok((line.settle(ended)?, ended))
}

/// An alarm that is too early costs one turn; one that is set anew for each request costs more.
fn set(alarm: Pin<&mut Sleep>, due: Option<Instant>) {
    if let Some(due) = due.filter(|due| alarm.is_elapsed() || alarm.deadline() > (*due).into()) {
        alarm.reset(due.into());
    }
}

/// Hears once of something that is published. To ask again costs next to nothing as long as nobody rings its bell.
struct Ear {
    /// None when it has been heard.
    heard: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What it was last polled with.
    bell: Option<Arc<Bell>>,
}

/// Wakes a task, and tells by whom it was woken.
struct Bell {
    rang: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Ear {
    fn new(heard: impl Future<Output = ()> + Send + 'static) -> Self {
        // A busy task would have used up its budget before it comes to this.
        Self { heard: Some(Box::pin(unconstrained(heard))), bell: None }
    }

    /// Whether it is heard now, for the first time; else the task is woken when it is.
    fn hears(&mut self, context: &mut Context<'_>) -> bool {
        let Some(heard) = &mut self.heard else { return false };
        let is_quiet =
            |bell: &Arc<Bell>| !bell.rang.load(Ordering::Acquire) && bell.task.will_wake(context.waker());
        if self.bell.as_ref().is_some_and(is_quiet) {
            return false;
        }
        let bell = Arc::new(Bell { rang: AtomicBool::new(false), task: context.waker().clone() });
        self.bell = Some(bell.clone());
        let is_heard = heard.as_mut().poll(&mut Context::from_waker(&bell.into())).is_ready();
        if is_heard {
            self.heard = None;
        }
        is_heard
    }
}

/// Returns when the server stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A server that is gone without a word has stopped too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns once something has been published.
async fn next_change(mut changes: watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        pending::<()>().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ha_4_5_a_link_that_does_not_wait_gets_no_longer_turn() {
        let (start, mut busy) = (Instant::now(), Busy::default());
        let at = |parts: u32| start + TURN * parts / 4;
        let mut turn = |waited, begun, ended, mut look| {
            let yields = busy.must_yield(waited, (at(begun), at(ended)), &mut look);
            (yields, look)
        };
        assert_eq!(turn(false, 0, 2, true), (false, true));
        assert_eq!(turn(false, 2, 3, false), (false, false));
        assert_eq!(turn(false, 3, 4, false), (true, false), "the three together");
        assert_eq!(turn(false, 6, 8, true), (false, true), "after the others' turn");
        assert_eq!(turn(true, 8, 11, true), (false, true), "it has waited");
        assert_eq!(turn(false, 11, 12, true), (false, false), "it waits instead of looking");
        assert_eq!(turn(false, 12, 13, true), (true, false), "it did not have to wait");
        assert_eq!(turn(false, 13, 16, true), (false, true));
        assert_eq!(turn(false, 16, 17, true), (false, false));
        assert_eq!(turn(true, 20, 23, true), (false, true), "it had to");
        assert_eq!(turn(true, 30, 34, false), (true, false), "one alone may be long");
    }

    /// A task that has been busy for long is polled once more without a budget: what is published then is heard all the same.
    #[tokio::test]
    async fn a_change_is_heard_by_a_task_whose_budget_is_used_up() {
        for listens in [true, false] {
            let (publish, changes) = watch::channel(0_u64);
            let mut ear = Ear::new(next_change(changes));
            let (sender, mut busy) = mpsc::unbounded_channel();
            (0..1_000).for_each(|number| sender.send(number).unwrap());
            let mut rounds = 0;
            poll_fn(|context| {
                rounds += 1;
                if rounds == 1 {
                    if listens {
                        assert!(!ear.hears(context));
                    }
                    while busy.poll_recv(context).is_ready() {}
                    assert!(!busy.is_empty(), "the budget ended first");
                    publish.send(1).unwrap();
                }
                if ear.hears(context) || rounds > 3 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert!(rounds <= 3, "it was never heard");
        }
    }

    /// Who is woken for nothing waits anew: what comes next is heard.
    #[tokio::test]
    async fn an_ear_that_was_woken_for_nothing_hears_what_comes_next() {
        let (bell, published) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicBool::new(false)));
        let (rings, is_published) = (bell.clone(), published.clone());
        let mut ear = Ear::new(async move {
            while !is_published.load(Ordering::SeqCst) {
                rings.notified().await;
            }
        });
        poll_fn(|context| {
            assert!(!ear.hears(context) && !ear.hears(context));
            bell.notify_waiters();
            assert!(!ear.hears(context) && !ear.hears(context));
            published.store(true, Ordering::SeqCst);
            bell.notify_waiters();
            assert!(ear.hears(context) && !ear.hears(context), "once");
            Poll::Ready(())
        })
        .await;
    }

    /// An ear that is passed on wakes who asked last.
    #[tokio::test]
    async fn an_ear_that_another_task_has_asked_wakes_who_asked_last() {
        let (publish, changes) = watch::channel(0_u64);
        let mut ear = Ear::new(next_change(changes));
        assert!(!poll_fn(|context| Poll::Ready(ear.hears(context))).await);
        let asked = Arc::new(tokio::sync::Notify::new());
        let asking = asked.clone();
        let hears = tokio::spawn(poll_fn(move |context| {
            let heard = ear.hears(context);
            asking.notify_one();
            if heard { Poll::Ready(()) } else { Poll::Pending }
        }));
        asked.notified().await;
        publish.send(1).unwrap();
        timeout(Duration::from_secs(60), hears).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_was_published_before_the_first_question_is_heard() {
        let (publish, mut stop) = watch::channel(false);
        publish.send(true).unwrap();
        let mut ear = Ear::new(async move { stopped(&mut stop).await });
        assert!(poll_fn(|context| Poll::Ready(ear.hears(context))).await);
        let (publish, mut stop) = watch::channel(false);
        let mut ear = Ear::new(async move { stopped(&mut stop).await });
        assert!(!poll_fn(|context| Poll::Ready(ear.hears(context))).await);
        drop(publish);
        assert!(poll_fn(|context| Poll::Ready(ear.hears(context))).await, "whoever is gone has stopped");
    }
}
