//! The metrics page: what a process counts of one group, as 64-bit words in a shared file that tools read from outside.
//!
//! ```text
//! ${XDG_RUNTIME_DIR:-/tmp}/hatoki-<uid>/stats-<pid>-<serial of the group>          one file for each process and group
//! header [HEADER_WORDS] | member 0: [MEMBER_WORDS] call 0 [CALL_WORDS] call 1 ... | member 1: ...
//! ```
//! The words are in the byte order of the machine: a page is read where it was written. Writers add to single words
//! without a lock, so that a reader sees each number whole and different numbers at slightly different moments.
//! Numbers only rise, but for the states. Nothing here does I/O.
use std::fmt;
use std::path::{Path, PathBuf};

use crate::calls;
use crate::meter::{Ended, Moved};

/// The first word of a page.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"HATOKIST");
/// The format that this release writes and reads; the second word of a page.
pub const FORMAT: u64 = 1;
/// Words of the header.
pub const HEADER_WORDS: usize = 64;
/// Words that stand before the calls of a member.
pub const MEMBER_WORDS: usize = 16;
/// Words of one call at one member: its counters, then its histogram.
pub const CALL_WORDS: usize = HISTOGRAM + BUCKETS;
/// Buckets of a histogram (see [`bucket_of`]).
pub const BUCKETS: usize = 106;
/// A reader looks at no more bytes than this.
pub const BYTES_MAX: usize = 16 << 20;
/// Most members of a page.
pub const MEMBERS_MAX: usize = 256;
/// Most calls of a page.
pub const CALLS_MAX: usize = 32;
/// A label is cut to so many bytes.
pub const LABEL_BYTES: usize = 32;

/// Places of the words in the header.
pub mod header {
    /// [`MAGIC`](super::MAGIC).
    pub const MAGIC: usize = 0;
    /// [`FORMAT`](super::FORMAT).
    pub const FORMAT: usize = 1;
    /// Room for so many members.
    pub const MEMBERS: usize = 2;
    /// So many calls for each member.
    pub const CALLS: usize = 3;
    /// Buckets of each histogram.
    pub const BUCKETS: usize = 4;
    /// The process.
    pub const PID: usize = 5;
    /// When the process was started, in clock ticks since the machine was (field 22 of `/proc/<pid>/stat`); 0 when not known. With
    /// the number of the process it tells a page whose process is gone from one of a later process of the same number.
    pub const STARTED_TICKS: usize = 6;
    /// When the page was made, in milliseconds since 1970.
    pub const CREATED_MS: usize = 7;
    /// Serial number of the group, or of the partition for a slot of one.
    pub const SERIAL: usize = 8;
    /// The label, UTF-8, in four words, filled with zero bytes.
    pub const LABEL: usize = 9;
    /// 1 while the contents of the members are known to differ (HA 3.2).
    pub const DIVERGENT: usize = 13;
    /// Records that this process has moved in repairs (HA 4.6).
    pub const REPAIRED: usize = 14;
    /// How often no member could be reached.
    pub const ALL_LOST: usize = 15;
    /// 1 while no member can be reached.
    pub const IS_ALL_LOST: usize = 16;
    /// Reports about members for which the page has no room.
    pub const NOT_COUNTED: usize = 17;
    /// The numbers of the calls ([`CALLS`](crate::calls::CALLS)), in the order of the columns.
    pub const CALL_NUMBERS: usize = 32;
}

/// Places of the words of a member, counted from its beginning.
pub mod member {
    /// Its serial number; 0 while the place is free.
    pub const SERIAL: usize = 0;
    /// Its [`State`](super::State).
    pub const STATE: usize = 1;
    /// Since when it is in that state, in milliseconds since 1970.
    pub const SINCE_MS: usize = 2;
    /// How often it was lost.
    pub const LOST: usize = 3;
    /// How often it was suspected (HA 4.4).
    pub const SUSPECTED: usize = 4;
    /// How often it was admitted (HA 4.6).
    pub const ADMITTED: usize = 5;
    /// Attempts to reach it that have failed.
    pub const ATTEMPTS_FAILED: usize = 6;
}

/// Places of the words of a call at a member, counted from its beginning. The counters from [`ANSWERED`](call::ANSWERED)
/// on are in the order of [`Ended`], those from [`FAILOVERS`](call::FAILOVERS) on in the order of [`Moved`].
pub mod call {
    /// Sends that a reply ended.
    pub const ANSWERED: usize = 0;
    /// Replies that were no decision: another member was asked.
    pub const DECLINED: usize = 1;
    /// Answers that asked for patience (HA 4.5).
    pub const BUSY: usize = 2;
    /// Sends without a reply.
    pub const LOST: usize = 3;
    /// Sends whose answer nobody wanted any more.
    pub const CANCELLED: usize = 4;
    /// Requests that left this member because it failed.
    pub const FAILOVERS: usize = 5;
    /// Requests that another member was asked for too because this one was slow (HA 4.3).
    pub const HEDGES: usize = 6;
    /// Requests that left this member because it was silent (HA 4.4).
    pub const EVACUATIONS: usize = 7;
    /// Requests that left this member because it was busy (HA 4.5).
    pub const BUSY_MOVES: usize = 8;
    /// Requests that came to this member from another one, whatever the reason.
    pub const TAKEN_OVER: usize = 9;
    /// Time of all answered sends together, in nanoseconds.
    pub const SUM_NS: usize = 10;
    /// The longest of them, in nanoseconds.
    pub const MAX_NS: usize = 11;
}

/// Where the histogram of answered sends begins within a call.
pub const HISTOGRAM: usize = 12;

/// The word that counts this end of a send, within a call.
pub const fn ended_word(ended: Ended) -> usize {
    match ended {
        Ended::Answered => call::ANSWERED,
        Ended::Declined => call::DECLINED,
        Ended::Busy => call::BUSY,
        Ended::Lost => call::LOST,
        Ended::Cancelled => call::CANCELLED,
    }
}

/// The word that counts this reason to ask another member, within a call.
pub const fn moved_word(why: Moved) -> usize {
    match why {
        Moved::Failover => call::FAILOVERS,
        Moved::Hedge => call::HEDGES,
        Moved::Evacuation => call::EVACUATIONS,
        Moved::Busy => call::BUSY_MOVES,
    }
}

const FIRST_OCTAVE: u32 = 10;
const STEPS: usize = 4;

/// The bucket of a time in nanoseconds: four to each doubling from 2^10 ns (about 1 µs) on, one for all below and one for all
/// from 2^36 ns (about 69 s) on. A bucket's end is at most a quarter above its beginning.
pub const fn bucket_of(ns: u64) -> usize {
    if ns < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = ns.ilog2();
    let step = (ns >> (octave - 2)) & 3;
    let at = 1 + (octave - FIRST_OCTAVE) as usize * STEPS + step as usize;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// The end of a bucket in nanoseconds: it holds what is shorter and in no bucket before. `u64::MAX` for the last one.
pub const fn bucket_end_ns(at: usize) -> u64 {
    if at + 1 >= BUCKETS {
        return u64::MAX;
    }
    let (octave, step) = (at / STEPS, at % STEPS);
    (STEPS as u64 + step as u64) << (octave + FIRST_OCTAVE as usize - 2)
}

/// How large a page is and where its words stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    members: usize,
    calls: usize,
}

impl Layout {
    /// The layout of a page for so many members (at most [`MEMBERS_MAX`]) with every call of this release.
    pub fn new(members: usize) -> Layout {
        Layout { members: members.clamp(1, MEMBERS_MAX), calls: calls::CALLS.len().min(CALLS_MAX) }
    }

    /// Members that there is room for.
    pub const fn members(&self) -> usize {
        self.members
    }

    /// All words of the page.
    pub const fn words(&self) -> usize {
        HEADER_WORDS + self.members * self.member_words()
    }

    /// All bytes of the page.
    pub const fn bytes(&self) -> usize {
        self.words() * 8
    }

    /// Where a member begins; `at` is less than [`Layout::members`].
    pub const fn member(&self, at: usize) -> usize {
        HEADER_WORDS + at * self.member_words()
    }

    /// Where a call of a member begins. `column` is the call's place in [`CALLS`](crate::calls::CALLS).
    pub const fn call(&self, at: usize, column: usize) -> usize {
        self.member(at) + MEMBER_WORDS + column * CALL_WORDS
    }

    const fn member_words(&self) -> usize {
        MEMBER_WORDS + self.calls * CALL_WORDS
    }
}

/// The place of a call's number in [`CALLS`](crate::calls::CALLS): its column in a page of this release.
pub fn column_of(call: u32) -> Option<usize> {
    calls::CALLS.iter().position(|row| row.number == call)
}

/// What stands in the header of a new page.
#[derive(Clone, Debug)]
pub struct Birth<'a> {
    /// The process.
    pub pid: u32,
    /// See [`header::STARTED_TICKS`].
    pub started_ticks: u64,
    /// Now, in milliseconds since 1970.
    pub created_ms: u64,
    /// Serial number of the group or partition.
    pub serial: u64,
    /// Its label.
    pub label: &'a str,
}

/// The words of a page in which nothing has been counted yet.
pub fn new_page(layout: &Layout, birth: &Birth<'_>) -> Vec<u64> {
    let wide = |number: usize| number as u64;
    let mut words = vec![0; layout.words()];
    words[header::MAGIC] = MAGIC;
    words[header::FORMAT] = FORMAT;
    words[header::MEMBERS] = wide(layout.members);
    words[header::CALLS] = wide(layout.calls);
    words[header::BUCKETS] = wide(BUCKETS);
    words[header::PID] = u64::from(birth.pid);
    words[header::STARTED_TICKS] = birth.started_ticks;
    words[header::CREATED_MS] = birth.created_ms;
    words[header::SERIAL] = birth.serial;
    words[header::LABEL..header::LABEL + LABEL_BYTES / 8].copy_from_slice(&label_words(birth.label));
    for (row, word) in calls::CALLS.iter().zip(&mut words[header::CALL_NUMBERS..][..layout.calls]) {
        *word = u64::from(row.number);
    }
    words
}

/// A label as it stands in the header: cut to [`LABEL_BYTES`] at the boundary of a character.
pub fn label_words(label: &str) -> [u64; LABEL_BYTES / 8] {
    let cut = (0..=LABEL_BYTES.min(label.len())).rev().find(|at| label.is_char_boundary(*at)).unwrap_or(0);
    let mut bytes = [0; LABEL_BYTES];
    bytes[..cut].copy_from_slice(&label.as_bytes()[..cut]);
    let mut words = [0; LABEL_BYTES / 8];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*chunk);
    }
    words
}

/// The folder of the pages of a user. `runtime` is the value of `XDG_RUNTIME_DIR`; `/tmp` stands in for none.
pub fn folder(runtime: Option<&Path>, uid: u32) -> PathBuf {
    let base = runtime.filter(|path| path.is_absolute()).unwrap_or(Path::new("/tmp"));
    base.join(format!("hatoki-{uid}"))
}

/// The name of a page in its folder.
pub fn file_name(pid: u32, serial: u64) -> String {
    format!("stats-{pid}-{serial}")
}

/// The process and the serial number that the name of a page tells; `None` for another file.
pub fn parse_file_name(name: &str) -> Option<(u32, u64)> {
    let (pid, serial) = name.strip_prefix("stats-")?.split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok());
    Some((u32::try_from(number(pid)??).ok()?, number(serial)??))
}

/// How a member stood when its state last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing has been heard of it yet.
    Unknown,
    /// Read and written.
    Up,
    /// It answers and is compared and repaired before it is read (HA 4.6).
    Recovering,
    /// Silent for longer than it ever is (HA 4.4).
    Suspected,
    /// It cannot be used.
    Lost,
    /// No member of the group any more.
    Left,
}

impl State {
    /// The number in the page.
    pub const fn number(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Up => 1,
            Self::Recovering => 2,
            Self::Suspected => 3,
            Self::Lost => 4,
            Self::Left => 5,
        }
    }

    /// The state of a number; one that this release does not know is `Unknown`.
    pub const fn of(number: u64) -> State {
        match number {
            1 => Self::Up,
            2 => Self::Recovering,
            3 => Self::Suspected,
            4 => Self::Lost,
            5 => Self::Left,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Recovering => "recovering",
            Self::Suspected => "suspected",
            Self::Lost => "lost",
            Self::Left => "left",
        })
    }
}

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

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
