//! What stands behind a link: the partition, seen as something that answers encoded requests on the right thread.
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use partition::{LinkFacts, Partition, Reading};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use spec::messages::{Outcome, ReplyBody, ReplyHeader, RequestHeader};
use zeroize::Zeroizing;

use crate::log;

/// Which thread runs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The link's own: microseconds.
    Inline,
    /// The bounded pool of the processor's cores: private RSA operations, long data.
    Crypto,
    /// A bounded pool for what computes for seconds, so that nothing shorter waits for it: the generation of RSA keys.
    Slow,
    /// A bounded pool for PIN checks, which compute for long and wait for the disk as well (RULES 2.8).
    Pin,
    /// A thread that may wait for the disk.
    Disk,
}

/// Who asks: proved by the link.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The name under which it is registered, for the log.
    pub name: Arc<str>,
    /// The client's identity.
    pub client: [u8; 32],
    /// The application instance's public key.
    pub instance: [u8; 32],
    /// What else the link knows.
    pub link: LinkFacts,
}

/// Answers encoded requests; never panics on hostile bytes.
pub trait Handler: Send + Sync {
    /// Runs one request; `now_ms` is wall time in milliseconds since 1970. The encoded answer is put into `reply`, which is
    /// empty and whose memory is used again.
    fn handle(
        &self,
        asker: &Asker,
        header: &RequestHeader,
        reading: &Reading<'_>,
        now_ms: u64,
        reply: &mut Zeroizing<Vec<u8>>,
    ) -> ReplyHeader;

    /// The partition's standing now, for replies that are made outside of it: without a tag.
    fn standing(&self) -> ReplyHeader;

    /// Which thread should run it.
    fn lane(&self, header: &RequestHeader, reading: &Reading<'_>) -> Lane;

    /// Requests run since the start, by the call's name; calls that never came are left out.
    fn requests(&self) -> Vec<(&'static str, u64)>;

    /// Housekeeping, now and then: forgets what nobody finished (HA 2.2).
    fn tidy(&self, now_ms: u64);

    /// Housekeeping, every minute: what was destroyed leaves the files.
    fn clean(&self) {}

    /// The partition itself, for operators and peers; none where something else stands in its place.
    fn partition(&self) -> Option<&Partition> {
        None
    }
}

/// A request with the moment it came in.
pub struct Work {
    /// Who asks.
    pub asker: Arc<Asker>,
    /// The request's header.
    pub header: RequestHeader,
    /// The encoded `RequestBody`.
    pub body: Zeroizing<Vec<u8>>,
    /// When it came in.
    pub received: Instant,
}

impl Work {
    /// Whether its time has passed, or will have when it is done and such work takes so long (HA 4.5): under overload the
    /// oldest that wait have just so little left, and doing those would be of use to nobody. Costs are a guess, so no more
    /// than a quarter of its time is taken off.
    fn expires_within(&self, cost: Duration) -> bool {
        let given = Duration::from_millis(self.header.remaining_ms.into());
        self.received.elapsed() + cost.min(given / 4) > given
    }
}

/// Answers a request whose turn has come: runs it, unless it expires within what such work costs. Whether it ran, and
/// the header of the answer; its body is put into `reply`, which is empty. `now_ms` is [`steady_ms`].
pub fn take_turn(
    handler: &dyn Handler,
    work: &Work,
    reading: &Reading<'_>,
    (cost, now_ms): (Duration, u64),
    reply: &mut Zeroizing<Vec<u8>>,
) -> (bool, ReplyHeader) {
    if !work.expires_within(cost) {
        return (true, run(handler, work, reading, now_ms, reply));
    }
    // HA 4.5.
    tracing::debug!(
        trace = %Trace(work.header.trace),
        client = &*work.asker.name,
        partition = work.header.partition,
        "a request had expired when its turn came"
    );
    let text = "the request's time had passed when its turn came, or would have before it was done";
    (false, outcome(work.header.tag, handler.standing(), Outcome::EXPIRED, text, reply))
}

/// Runs a request, and survives a fault of ours.
fn run(
    handler: &dyn Handler,
    work: &Work,
    reading: &Reading<'_>,
    now_ms: u64,
    reply: &mut Zeroizing<Vec<u8>>,
) -> ReplyHeader {
    let tag = work.header.tag;
    let answer =
        catch_unwind(AssertUnwindSafe(|| handler.handle(&work.asker, &work.header, reading, now_ms, reply)));
    match answer {
        Ok(header) => {
            log(work, reply);
            ReplyHeader { tag, ..header }
        }
        Err(_) => {
            tracing::error!(
                trace = %Trace(work.header.trace),
                partition = work.header.partition,
                "a request failed by a fault of hsmd; please report it"
            );
            let text = "the request failed by a fault of the appliance; its log has more";
            // What it had put there is wiped with its memory.
            *reply = Zeroizing::default();
            outcome(tag, handler.standing(), Outcome::FAILED, text, reply)
        }
    }
}

/// The number that follows one application call through every log: the module's, the HA log's, this one's.
pub struct Trace(pub u64);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One line for each request: refusals that an operator may want to see at level info, all else at debug.
fn log(work: &Work, reply: &[u8]) {
    let (outcome, rv) = verdict(reply);
    if outcome == Outcome::OK && !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let call = Partition::call_name(&work.body).unwrap_or("none");
    let telling = match outcome {
        Outcome::RV => matches!(call, "Login" | "SetPin"),
        Outcome::NOT_OPENED
        | Outcome::TICKET_DEAD
        | Outcome::MALFORMED
        | Outcome::FAILED
        | Outcome::WRONG_GROUP => true,
        _ => false,
    };
    macro_rules! line {
        ($level:ident, $text:literal) => {
            tracing::$level!(
                trace = %Trace(work.header.trace),
                client = &*work.asker.name,
                partition = work.header.partition,
                call,
                attempt = work.header.attempt,
                outcome = outcome.0,
                rv,
                us = u64::try_from(work.received.elapsed().as_micros()).unwrap_or(u64::MAX),
                $text
            )
        };
    }
    if !telling {
        line!(debug, "a request was answered");
    } else if log::allow(&work.asker.name, (call, (u64::from(outcome.0) << 32) | (rv & 0xFFFF_FFFF))) {
        line!(info, "a request was refused");
    }
}

/// Outcome and code of an encoded reply: its first two fields, which are left out when they are 0.
fn verdict(reply: &[u8]) -> (Outcome, u64) {
    let mut rest = reply;
    let mut field = |number: u8| {
        if rest.first() != Some(&(number << 3)) {
            return 0;
        }
        rest = rest.get(1..).unwrap_or_default();
        prost::encoding::decode_varint(&mut rest).unwrap_or(0)
    };
    let outcome = u32::try_from(field(1)).unwrap_or(u32::MAX);
    (Outcome(outcome), field(2))
}

/// Puts a reply without an answer into an empty buffer, under the standing of the partition or, where there is none, an empty header.
pub fn outcome(
    tag: u64,
    standing: ReplyHeader,
    outcome: Outcome,
    text: &str,
    reply: &mut Zeroizing<Vec<u8>>,
) -> ReplyHeader {
    let body = ReplyBody { outcome: outcome.0, text: text.to_owned(), ..ReplyBody::default() };
    reply.extend_from_slice(&body.encode_to_vec());
    ReplyHeader { tag, ..standing }
}

/// Wall time in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970 by the clock that nobody sets: wall time as it was when this process first asked, and what has
/// passed since, sleep of the host included. What partitions go by: a wall clock that jumps shortens no delay after a
/// wrong PIN and makes no batch old (HA 1.4).
pub fn steady_ms() -> u64 {
    static START: OnceLock<(u64, u64)> = OnceLock::new();
    let boot_ms = || {
        let time = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
        seconds.unwrap_or(0).saturating_mul(1_000).saturating_add(nanos.unwrap_or(0) / 1_000_000)
    };
    let (wall_ms, started_ms) = *START.get_or_init(|| (now_ms(), boot_ms()));
    wall_ms.saturating_add(boot_ms().saturating_sub(started_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_of_a_reply_is_read_without_decoding_it() {
        for (outcome, rv) in [(0, 0), (1, 0xA0), (3, 0), (16, 0), (1, 0x8000_0001)] {
            let reply = ReplyBody { outcome, rv, text: "text".into(), ..ReplyBody::default() };
            assert_eq!(verdict(&reply.encode_to_vec()), (Outcome(outcome), rv));
        }
        assert_eq!(verdict(&[]), (Outcome::OK, 0));
        assert_eq!(verdict(&[8]), (Outcome::OK, 0));
        assert_eq!(verdict(&[8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).0, Outcome(u32::MAX));
    }

    #[test]
    fn the_steady_clock_goes_on_and_starts_at_wall_time() {
        let (steady, wall) = (steady_ms(), now_ms());
        assert!(steady.abs_diff(wall) < 60_000, "{steady} and {wall}");
        std::thread::sleep(Duration::from_millis(20));
        assert!((15..10_000).contains(&(steady_ms() - steady)));
    }

    /// Answers with what it was made with.
    struct Fixed(ReplyBody);

    impl Handler for Fixed {
        fn handle(
            &self,
            _: &Asker,
            _: &RequestHeader,
            _: &Reading<'_>,
            _: u64,
            reply: &mut Zeroizing<Vec<u8>>,
        ) -> ReplyHeader {
            reply.extend_from_slice(&self.0.encode_to_vec());
            ReplyHeader::default()
        }
        fn standing(&self) -> ReplyHeader {
            ReplyHeader::default()
        }
        fn lane(&self, _: &RequestHeader, _: &Reading<'_>) -> Lane {
            Lane::Inline
        }
        fn requests(&self) -> Vec<(&'static str, u64)> {
            Vec::new()
        }
        fn tidy(&self, _: u64) {}
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a request under trace 0xABC that is answered so.
    fn logged(level: tracing::Level, reply: ReplyBody, remaining_ms: u32) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .json()
            .with_writer(move || writer.clone())
            .finish();
        let asker =
            Asker { name: "app1".into(), client: [1; 32], instance: [2; 32], link: LinkFacts::default() };
        let header = RequestHeader { partition: 7, remaining_ms, trace: 0xABC, ..RequestHeader::default() };
        let call = spec::messages::Call::Random(spec::messages::Random { bytes: 1 });
        let body = spec::messages::RequestBody { call: Some(call), ..Default::default() }.encode_to_vec();
        let long_ago = Instant::now().checked_sub(Duration::from_millis(50)).unwrap_or_else(Instant::now);
        let work = Work { asker: Arc::new(asker), header, body: Zeroizing::new(body), received: long_ago };
        let mut answer = Zeroizing::default();
        tracing::subscriber::with_default(subscriber, || {
            take_turn(&Fixed(reply), &work, &Reading::of(&work.body), (Duration::ZERO, 1), &mut answer)
        });
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).unwrap_or_default()
    }

    #[test]
    fn ha_4_5_what_cannot_be_done_in_its_time_is_not_begun_but_a_guess_takes_no_more_than_a_quarter_of_it() {
        let asker =
            Asker { name: "app1".into(), client: [1; 32], instance: [2; 32], link: LinkFacts::default() };
        let header = RequestHeader { remaining_ms: 60_000, ..RequestHeader::default() };
        let (asker, received) = (Arc::new(asker), Instant::now());
        let work = Work { asker, header, body: Zeroizing::new(Vec::new()), received };
        assert!(
            !work.expires_within(Duration::from_secs(10)) && !work.expires_within(Duration::from_secs(600))
        );
        let earlier = Instant::now().checked_sub(Duration::from_secs(50));
        let Some(received) = earlier else { return };
        let waited = Work { received, ..work };
        assert!(
            !waited.expires_within(Duration::from_secs(1)) && waited.expires_within(Duration::from_secs(11))
        );
    }

    #[test]
    fn a_request_can_be_followed_by_its_trace_in_answers_refusals_and_expiry() {
        let refused = ReplyBody { outcome: Outcome::TICKET_DEAD.0, ..ReplyBody::default() };
        for (level, reply, remaining_ms, wanted) in [
            (tracing::Level::DEBUG, ReplyBody::default(), 9_000, "a request was answered"),
            (tracing::Level::INFO, refused, 9_000, "a request was refused"),
            (tracing::Level::DEBUG, ReplyBody::default(), 1, "had expired"),
        ] {
            let line = logged(level, reply, remaining_ms);
            for part in [wanted, "\"trace\":\"0000000000000abc\"", "\"client\":\"app1\"", "\"partition\":7"] {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
        assert_eq!(
            logged(tracing::Level::INFO, ReplyBody::default(), 9_000),
            "",
            "answers are for level debug"
        );
    }
}
