//! The reader of a metrics page: bytes in, typed rows out.
use std::fmt;

use super::{
    BUCKETS, CALLS_MAX, FORMAT, HEADER_WORDS, HISTOGRAM, LABEL_BYTES, Layout, MAGIC, MEMBERS_MAX, State,
    bucket_end_ns, call, header, member,
};
use crate::calls;

/// Why bytes are no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin as a page does.
    NoPage,
    /// Of a format that this release does not read.
    Format(u64),
    /// It ends before its header says.
    Short {
        /// Bytes that the header tells of.
        wanted: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Its header tells of more than there can be.
    Header,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPage => f.write_str("wanted a metrics page, found another file"),
            Self::Format(found) => {
                write!(
                    f,
                    "wanted a metrics page of format {FORMAT}, found format {found}: use the tool of that release"
                )
            }
            Self::Short { wanted, found } => {
                write!(
                    f,
                    "wanted a metrics page of {wanted} bytes, found {found}: it is being made or has been cut"
                )
            }
            Self::Header => f.write_str("wanted a metrics page, found one whose header cannot be right"),
        }
    }
}

impl std::error::Error for Fault {}

/// What a page told when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The process that counts.
    pub pid: u32,
    /// See [`header::STARTED_TICKS`].
    pub started_ticks: u64,
    /// When the page was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Serial number of the group, or of the partition for a slot of one.
    pub serial: u64,
    /// Its label.
    pub label: String,
    /// Whether contents are known to differ (HA 3.2).
    pub divergent: bool,
    /// Records moved in repairs by this process.
    pub repaired: u64,
    /// How often no member could be reached.
    pub all_lost: u64,
    /// Whether no member can be reached now.
    pub is_all_lost: bool,
    /// How often standby members began to serve because no active one could be read.
    pub standby_served: u64,
    /// Whether standby members serve now.
    pub is_standby: bool,
    /// Reports that found no room in the page.
    pub not_counted: u64,
    /// The members, in the order in which they were first met.
    pub members: Vec<Member>,
}

/// One member in a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its serial number.
    pub serial: u64,
    /// How it stood when its state last changed.
    pub state: State,
    /// Since when, in milliseconds since 1970; 0 when unknown.
    pub since_ms: u64,
    /// How often it was lost.
    pub lost: u64,
    /// How often it was suspected.
    pub suspected: u64,
    /// How often it was admitted.
    pub admitted: u64,
    /// Attempts to reach it that have failed.
    pub attempts_failed: u64,
    /// Every call that has counted anything, by number.
    pub calls: Vec<Call>,
}

/// One call at one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number in [`CALLS`](crate::calls::CALLS).
    pub number: u32,
    /// Sends that a reply ended.
    pub answered: u64,
    /// Replies that were no decision.
    pub declined: u64,
    /// Answers that asked for patience.
    pub busy: u64,
    /// Sends without a reply.
    pub lost: u64,
    /// Sends whose answer nobody wanted any more.
    pub cancelled: u64,
    /// Requests that left because the member failed.
    pub failovers: u64,
    /// Requests that another member was asked for too because this one was slow.
    pub hedges: u64,
    /// Requests that left because the member was silent.
    pub evacuations: u64,
    /// Requests that left because the member was busy.
    pub busy_moves: u64,
    /// Requests that came from another member.
    pub taken_over: u64,
    /// Time of all answered sends together, in nanoseconds.
    pub sum_ns: u64,
    /// The longest of them, in nanoseconds.
    pub max_ns: u64,
    /// The answered sends by their time.
    pub histogram: Histogram,
}

impl Call {
    /// The call's name; none when a later release has made the page.
    pub fn name(&self) -> Option<&'static str> {
        calls::call(self.number).map(|row| row.name)
    }

    /// Sends that ended, however.
    pub fn count(&self) -> u64 {
        [self.answered, self.declined, self.busy, self.lost, self.cancelled]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Sends that did not get what they were sent for: lost and declined ones.
    pub fn errors(&self) -> u64 {
        self.lost.saturating_add(self.declined)
    }
}

/// How many sends took how long; bucket `at` ends at [`bucket_end_ns`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// One number for each bucket, [`BUCKETS`] of them.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// All that was counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Takes another one's numbers in.
    pub fn add(&mut self, other: &Histogram) {
        for (own, count) in self.counts.iter_mut().zip(&other.counts) {
            *own = own.saturating_add(*count);
        }
    }

    /// What was counted since an earlier reading of the same page.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then));
        Histogram { counts: counts.collect() }
    }

    /// A time in nanoseconds within which `per_mille` thousandths of all were answered: the end of a bucket, hence up to a
    /// quarter too long. `None` when nothing was counted; `u64::MAX` when the answer lies in the last bucket.
    pub fn quantile_ns(&self, per_mille: u16) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let wanted = (u128::from(total) * u128::from(per_mille.min(1_000))).div_ceil(1_000).max(1);
        let mut sum = 0_u128;
        for (at, count) in self.counts.iter().enumerate() {
            sum += u128::from(*count);
            if sum >= wanted {
                return Some(bucket_end_ns(at));
            }
        }
        None
    }
}

/// Reads a page. Bytes after its end are ignored.
///
/// # Errors
/// [`Fault`]; whatever the bytes are, nothing is read outside of them and no more is kept than they hold.
pub fn read(bytes: &[u8]) -> Result<Page, Fault> {
    let words = bytes.as_chunks::<8>().0;
    let word = |at: usize| words.get(at).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if words.first().is_none_or(|bytes| u64::from_ne_bytes(*bytes) != MAGIC) {
        return Err(Fault::NoPage);
    }
    if words.len() > 1 && word(header::FORMAT) != FORMAT {
        return Err(Fault::Format(word(header::FORMAT)));
    }
    let found = bytes.len() as u64;
    if words.len() < HEADER_WORDS {
        return Err(Fault::Short { wanted: HEADER_WORDS as u64 * 8, found });
    }
    let bounded = |at: usize, max: usize| {
        usize::try_from(word(at)).ok().filter(|number| (1..=max).contains(number)).ok_or(Fault::Header)
    };
    let layout =
        Layout { members: bounded(header::MEMBERS, MEMBERS_MAX)?, calls: bounded(header::CALLS, CALLS_MAX)? };
    if word(header::BUCKETS) != BUCKETS as u64 {
        return Err(Fault::Header);
    }
    if words.len() < layout.words() {
        return Err(Fault::Short { wanted: layout.bytes() as u64, found });
    }
    let label: Vec<u8> = words[header::LABEL..][..LABEL_BYTES / 8]
        .as_flattened()
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    Ok(Page {
        pid: u32::try_from(word(header::PID)).map_err(|_| Fault::Header)?,
        started_ticks: word(header::STARTED_TICKS),
        created_ms: word(header::CREATED_MS),
        serial: word(header::SERIAL),
        label: String::from_utf8_lossy(&label).into_owned(),
        divergent: word(header::DIVERGENT) != 0,
        repaired: word(header::REPAIRED),
        all_lost: word(header::ALL_LOST),
        is_all_lost: word(header::IS_ALL_LOST) != 0,
        standby_served: word(header::STANDBY_SERVED),
        is_standby: word(header::IS_STANDBY) != 0,
        not_counted: word(header::NOT_COUNTED),
        members: (0..layout.members).filter_map(|at| read_member(&layout, at, &word)).collect(),
    })
}

/// One member's place; `None` while it is free.
fn read_member(layout: &Layout, at: usize, word: &impl Fn(usize) -> u64) -> Option<Member> {
    let own = |place: usize| word(layout.member(at) + place);
    if own(member::SERIAL) == 0 {
        return None;
    }
    let calls = (0..layout.calls).filter_map(|column| {
        let number = u32::try_from(word(header::CALL_NUMBERS + column)).ok()?;
        read_call(number, layout.call(at, column), word)
    });
    Some(Member {
        serial: own(member::SERIAL),
        state: State::of(own(member::STATE)),
        since_ms: own(member::SINCE_MS),
        lost: own(member::LOST),
        suspected: own(member::SUSPECTED),
        admitted: own(member::ADMITTED),
        attempts_failed: own(member::ATTEMPTS_FAILED),
        calls: calls.collect(),
    })
}

/// One call's counters; `None` when it has counted nothing.
fn read_call(number: u32, start: usize, word: &impl Fn(usize) -> u64) -> Option<Call> {
    let own = |place: usize| word(start + place);
    if (0..HISTOGRAM).all(|place| own(place) == 0) {
        return None;
    }
    Some(Call {
        number,
        answered: own(call::ANSWERED),
        declined: own(call::DECLINED),
        busy: own(call::BUSY),
        lost: own(call::LOST),
        cancelled: own(call::CANCELLED),
        failovers: own(call::FAILOVERS),
        hedges: own(call::HEDGES),
        evacuations: own(call::EVACUATIONS),
        busy_moves: own(call::BUSY_MOVES),
        taken_over: own(call::TAKEN_OVER),
        sum_ns: own(call::SUM_NS),
        max_ns: own(call::MAX_NS),
        histogram: Histogram { counts: (0..BUCKETS).map(|at| own(HISTOGRAM + at)).collect() },
    })
}
