//! What stands behind a link: the partition, seen as something that answers encoded requests on the right thread.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;
use spec::messages::{Outcome, ReplyBody, ReplyHeader, RequestHeader};
use zeroize::Zeroizing;

/// Which thread runs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The link's own: microseconds.
    Inline,
    /// The bounded pool of the processor's cores: private RSA operations, generation.
    Crypto,
    /// A bounded pool for PIN checks, which compute for long and wait for the disk as well (RULES 2.8).
    Pin,
    /// A thread that may wait for the disk.
    Disk,
}

/// Who asks: proved by the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The fingerprint of the client's certificate.
    pub client: [u8; 32],
    /// The application instance's public key.
    pub instance: [u8; 32],
}

/// Answers encoded requests; never panics on hostile bytes.
pub trait Handler: Send + Sync {
    /// Runs one request whose body is an encoded `RequestBody`; `now_ms` is wall time in milliseconds since 1970.
    fn handle(
        &self,
        asker: &Asker,
        header: &RequestHeader,
        body: &[u8],
        now_ms: u64,
    ) -> (ReplyHeader, Zeroizing<Vec<u8>>);

    /// The partition's standing now, for replies that are made outside of it: without a tag.
    fn standing(&self) -> ReplyHeader;

    /// Which thread should run it.
    fn lane(&self, body: &[u8]) -> Lane;

    /// Requests run since the start, by the call's name; calls that never came are left out.
    fn requests(&self) -> Vec<(&'static str, u64)>;

    /// Housekeeping, now and then: forgets what nobody finished (HA 2.2).
    fn tidy(&self, now_ms: u64);
}

/// A request with the moment it came in.
pub struct Work {
    /// Who asks.
    pub asker: Asker,
    /// The request's header.
    pub header: RequestHeader,
    /// The encoded `RequestBody`.
    pub body: Zeroizing<Vec<u8>>,
    /// When it came in.
    pub received: Instant,
}

/// Runs a request whose turn has come: drops the expired (HA 4.5) and survives a fault of ours.
pub fn run(handler: &dyn Handler, work: &Work) -> (ReplyHeader, Zeroizing<Vec<u8>>) {
    let tag = work.header.tag;
    if work.received.elapsed() > Duration::from_millis(work.header.remaining_ms.into()) {
        let text = "the request's time had passed when its turn came";
        return outcome(tag, handler.standing(), Outcome::EXPIRED, text);
    }
    let answer =
        catch_unwind(AssertUnwindSafe(|| handler.handle(&work.asker, &work.header, &work.body, now_ms())));
    match answer {
        Ok((header, body)) => (ReplyHeader { tag, ..header }, body),
        Err(_) => {
            tracing::error!(
                partition = work.header.partition,
                "a request failed by a fault of hsmd; please report it"
            );
            let text = "the request failed by a fault of the appliance; its log has more";
            outcome(tag, handler.standing(), Outcome::FAILED, text)
        }
    }
}

/// A reply without an answer, under the standing of the partition or, where there is none, an empty header.
pub fn outcome(
    tag: u64,
    standing: ReplyHeader,
    outcome: Outcome,
    text: &str,
) -> (ReplyHeader, Zeroizing<Vec<u8>>) {
    let body = ReplyBody { outcome: outcome.0, text: text.to_owned(), ..ReplyBody::default() };
    (ReplyHeader { tag, ..standing }, Zeroizing::new(body.encode_to_vec()))
}

/// Wall time in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
