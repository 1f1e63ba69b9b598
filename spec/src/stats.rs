//! The metrics page: what a process counts of one group, as 64-bit words in a shared file that tools read from outside.
//!
//! ```text
//! ${XDG_RUNTIME_DIR:-/tmp}/hatoki-<uid>/stats-<pid>-<serial of the group>          one file for each process and group
//! header [HEADER_WORDS] | member 0: [MEMBER_WORDS] call 0 [CALL_WORDS] call 1 ... | member 1: ...
//! ```
//! The words are in the byte order of the machine: a page is read where it was written. Writers add to single words
//! without a lock, so that a reader sees each number whole and different numbers at slightly different moments; of an answered
//! send its time is told before its count, of a state its moment before itself.
//! Numbers only rise, but for the states. Nothing here does I/O.
use std::fmt;
use std::path::{Path, PathBuf};

use crate::calls;
use crate::meter::{Ended, Moved};

mod page;

pub use page::{Call, Fault, Histogram, Member, Page, read};

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
    /// How often standby members began to serve because no active one could be read (HA 2.4).
    pub const STANDBY_SERVED: usize = 18;
    /// 1 while standby members serve.
    pub const IS_STANDBY: usize = 19;
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
    let first = calls::CALLS.first()?.number;
    // The numbers are dense so far; where one day they are not, the search finds the row.
    let dense = usize::try_from(call.checked_sub(first)?).ok()?;
    match calls::CALLS.get(dense) {
        Some(row) if row.number == call => Some(dense),
        _ => calls::CALLS.iter().position(|row| row.number == call),
    }
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

/// When a process was started, out of the text of its `/proc/<pid>/stat` (field 22): see [`header::STARTED_TICKS`].
pub fn started_ticks(stat: &str) -> Option<u64> {
    // The second field is the name in brackets and may hold anything, brackets and blanks included.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
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

#[cfg(test)]
#[path = "stats/tests.rs"]
mod tests;
