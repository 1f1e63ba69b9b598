//! The task of a link: it reads, waits, keeps time and hears what changes; all else is done by [`Line`].
//!
//! ```text
//! wait: finished work | stop | registrations | bytes | room to write | alarm -> turn: answered and written -> wait ...
//! ```
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
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
    let (mut hunch, mut look, mut busy) = (Hunch::default(), false, Busy(None));
    while let Some(wanted) = wait {
        set(alarm.as_mut(), wanted.due);
        let mut at_once = false;
        let next = poll_fn(|context| {
            // What cannot be sent stays in the account of its work.
            if !wanted.write
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
            if wanted.read
                && let Poll::Ready(read) = incoming.poll_read(context)
            {
                return Poll::Ready(read.map_or_else(broken, Next::Read));
            }
            if wanted.read && std::mem::take(&mut look) {
                let read = incoming.read_at_once();
                at_once = read.is_some();
                hunch.learn(at_once);
                if let Some(read) = read {
                    return Poll::Ready(read.map_or_else(broken, Next::Read));
                }
            }
            if wanted.write
                && let Poll::Ready(room) = line.wire.poll_writable(context)
            {
                return Poll::Ready(room.map_or_else(broken, |()| Next::Writable));
            }
            if wanted.due.is_some() {
                alarm.as_mut().poll(context).map(|()| Next::Alarm)
            } else {
                Poll::Pending
            }
        });
        let next = next.await;
        if matches!(next, Next::Changed) {
            changed = changed_anew();
        }
        look = matches!(next, Next::Read(_)) && hunch.is_worth_it();
        let begun = Instant::now();
        let ended;
        (wait, ended) = turn(line, next, &mut finished, begun)?;
        if busy.is_long(at_once, begun, ended) {
            yield_now().await;
        }
    }
    Ok(())
}

/// Since when a link keeps its thread.
struct Busy(Option<Instant>);

impl Busy {
    /// Whether the others have their turn now. What is read at once goes on with the turn before: nobody else has had one in
    /// between.
    fn is_long(&mut self, at_once: bool, begun: Instant, ended: Instant) -> bool {
        let since = *self.0.filter(|_| at_once).get_or_insert(begun);
        let is_long = ended.duration_since(since) >= TURN;
        self.0 = (!is_long).then_some(since);
        is_long
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

/// Hears once of something that is published.
struct Ear {
    /// None when it has been heard.
    heard: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Ear {
    fn new(heard: impl Future<Output = ()> + Send + 'static) -> Self {
        // A busy task would have used up its budget before it comes to this.
        Self { heard: Some(Box::pin(unconstrained(heard))) }
    }

    /// Whether it is heard now, for the first time; else the task is woken when it is.
    fn hears(&mut self, context: &mut Context<'_>) -> bool {
        let is_heard = self.heard.as_mut().is_some_and(|heard| heard.as_mut().poll(context).is_ready());
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
    fn ha_4_5_what_is_read_at_once_gives_a_link_no_longer_turn() {
        let (start, mut busy) = (Instant::now(), Busy(None));
        let at = |parts: u32| start + TURN * parts / 4;
        assert!(!busy.is_long(false, at(0), at(2)));
        assert!(!busy.is_long(true, at(2), at(3)));
        assert!(busy.is_long(true, at(3), at(4)), "the three together");
        assert!(!busy.is_long(true, at(6), at(8)), "after the others' turn");
        assert!(!busy.is_long(false, at(8), at(9)), "it has waited");
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
}
