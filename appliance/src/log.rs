//! The log: lines are written by a thread of their own, and what one client or address can cause has a rate.
//!
//! ```text
//! line -> Writer -> queue, bounded -> hsmd-log -> standard error      full: the line is left out and counted
//! allow(who, kind) -> the first lines of ten seconds                  the rest: one line that tells how many they were
//! ```
//! Neither a reader of standard error that stops reading nor a client that does wrong all day holds up a thread that
//! serves, or fills a disk.
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written at most.
const LINES_MAX: usize = 8_192;
/// Lines of one kind that one client or address may cause in a [`WINDOW`].
const LINES_EACH: u64 = 20;
/// What lines are counted over.
const WINDOW: Duration = Duration::from_secs(10);
/// Clients and addresses, each with a kind, that are counted apart; above that all others count as one.
const COUNTED_MAX: usize = 4_096;
/// How long the end of the process waits for what is left to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where lines go in.
#[derive(Clone)]
pub(crate) struct Writer {
    lines: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

/// The thread that writes; dropping it writes what is left, as far as somebody takes it.
pub(crate) struct Scribe {
    thread: Option<JoinHandle<()>>,
    end: Arc<OnceLock<()>>,
}

/// A writer, and the thread that brings its lines to `sink`.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<(Writer, Scribe)> {
    let (lines, waiting) = sync_channel(LINES_MAX);
    let (lost, end) = (Arc::new(AtomicU64::new(0)), Arc::new(OnceLock::new()));
    let (counted, ended) = (lost.clone(), end.clone());
    let thread = std::thread::Builder::new()
        .name("hsmd-log".into())
        .spawn(move || write_on(&waiting, sink, &counted, &ended))?;
    Ok((Writer { lines, lost }, Scribe { thread: Some(thread), end }))
}

fn write_on(waiting: &Receiver<Vec<u8>>, mut sink: impl Write, lost: &AtomicU64, end: &OnceLock<()>) {
    loop {
        match waiting.recv_timeout(Duration::from_millis(100)) {
            // Nobody can be told that the log cannot be written.
            Ok(line) => drop(sink.write_all(&line)),
            Err(_) if end.get().is_some() => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(
                sink,
                "hsmd: {count} lines of the log were left out: they came faster than they are read"
            );
        }
    }
    let _ = sink.flush();
}

impl Drop for Scribe {
    fn drop(&mut self) {
        let _ = self.end.set(());
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + LAST_WORDS;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Write for Writer {
    /// Takes a whole line, or leaves it out; never waits.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.lines.try_send(bytes.to_vec()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        self.clone()
    }
}

/// What a line is about: a name for people and a number, as a call and how it ended.
pub(crate) type Kind = (&'static str, u64);

/// Whether a line that `who` has caused may be written now. `who` is a client's name or an address; whoever is left out is
/// told of once in ten seconds, by one line.
pub(crate) fn allow(who: &str, kind: Kind) -> bool {
    static LIMITER: OnceLock<Mutex<Limiter>> = OnceLock::new();
    let (allowed, told) = LIMITER.get_or_init(Mutex::default).lock().take(Instant::now(), who, kind);
    for LeftOut { who, kind, lines } in told {
        tracing::warn!(who, about = kind.0, number = kind.1, lines, "lines of the log were left out");
    }
    allowed
}

#[derive(Default)]
struct Limiter {
    counts: HashMap<(String, Kind), Count>,
    swept: Option<Instant>,
}

struct Count {
    since: Instant,
    lines: u64,
}

/// Lines of a window that has ended that were not written.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    who: String,
    kind: Kind,
    lines: u64,
}

impl Limiter {
    /// Counts a line: whether it may be written, and what windows that have ended since left out.
    fn take(&mut self, now: Instant, who: &str, kind: Kind) -> (bool, Vec<LeftOut>) {
        let told = self.sweep(now);
        let mut key = (who.to_owned(), kind);
        if self.counts.len() >= COUNTED_MAX && !self.counts.contains_key(&key) {
            key = ("others".to_owned(), ("anything", 0));
        }
        let count = self.counts.entry(key).or_insert(Count { since: now, lines: 0 });
        count.lines += 1;
        (count.lines <= LINES_EACH, told)
    }

    fn sweep(&mut self, now: Instant) -> Vec<LeftOut> {
        let due = self.swept.is_none_or(|swept| now.duration_since(swept) >= WINDOW / 10);
        if !due {
            return Vec::new();
        }
        self.swept = Some(now);
        let over = |count: &Count| now.duration_since(count.since) >= WINDOW;
        let ended = self.counts.extract_if(|_, count| over(count));
        let mut told: Vec<LeftOut> = ended
            .filter(|(_, count)| count.lines > LINES_EACH)
            .map(|((who, kind), count)| LeftOut { who, kind, lines: count.lines - LINES_EACH })
            .collect();
        told.sort_by(|a, b| (&a.who, a.kind).cmp(&(&b.who, b.kind)));
        told
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_client_writes_so_many_lines_of_a_kind_and_is_summed_up_in_one() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let written = (0..5_000).filter(|ms| limiter.take(at(*ms), "bad", ("Login", 0xA0)).0).count();
        assert_eq!(written, 20);
        assert!(limiter.take(at(5_000), "good", ("Login", 0xA0)).0, "others are not concerned");
        assert!(limiter.take(at(5_000), "bad", ("Use", 13)).0, "nor is another kind");
        let (allowed, told) = limiter.take(at(11_500), "bad", ("Login", 0xA0));
        assert!(allowed, "a new window");
        assert_eq!(told, [LeftOut { who: "bad".into(), kind: ("Login", 0xA0), lines: 4_980 }]);
        assert_eq!(limiter.take(at(60_000), "x", ("y", 0)), (true, vec![]));
        assert_eq!(limiter.counts.len(), 1, "what has ended is forgotten");
    }

    #[test]
    fn many_names_are_counted_as_one() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let written = (0..100_000).filter(|n: &u32| limiter.take(now, &n.to_string(), ("TLS", 0)).0).count();
        assert_eq!(written, COUNTED_MAX + 20);
        assert!(limiter.counts.len() <= COUNTED_MAX + 1);
    }

    /// Takes lines only while the gate is open.
    struct Gated(Arc<Mutex<Vec<u8>>>, Arc<Mutex<()>>);

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.1.lock());
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_what_was_left_out_is_told() {
        let (written, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(())));
        let closed = gate.lock();
        let (writer, scribe) = super::start(Gated(written.clone(), gate.clone())).unwrap();
        let (done, ends) = mpsc::channel();
        std::thread::spawn({
            let mut writer = writer.clone();
            move || {
                (0..20_000).for_each(|_| writer.write_all(b"line\n").unwrap());
                done.send(()).unwrap();
            }
        });
        ends.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(closed);
        drop(writer);
        drop(scribe);
        let text = String::from_utf8(written.lock().clone()).unwrap();
        let lines = text.lines().filter(|line| *line == "line").count();
        assert!((LINES_MAX..=LINES_MAX + 1).contains(&lines), "{lines}");
        let lost = 20_000 - lines;
        assert!(text.contains(&format!("hsmd: {lost} lines of the log were left out")), "{lost}");
    }
}
