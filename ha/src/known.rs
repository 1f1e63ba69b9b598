//! What replies have said of a member's store: incarnation, seq, epochs (HA 1.5, 3.1). Read by every send and written only
//! when something has changed.
//!
//! ```text
//! writer, one at a time: version odd -> the words -> version even
//! reader: version even -> the words -> the version is still the same, else it waits for the writer's turn and reads then
//! ```
//! A reader that finds a word of a writer finds the odd version of that writer behind it, too: the words are released and acquired
//! one by one. So what is read was written by one writer (checked by `loom` in `models.rs`).
use std::sync::atomic::{AtomicU64, Ordering};

use spec::messages::ReplyHeader;
use spec::platform::{Lock, Moment};

use crate::atoms::{Turn, Word};

/// What is known of the store.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    /// When the link came up on which it was heard.
    link: u64,
    /// The store's incarnation; 0 when unknown.
    pub(crate) incarnation: u64,
    /// Its commits.
    pub(crate) seq: u64,
    /// The seq with which it acknowledged this process's last write in this incarnation; 0 for none (HA 3.1).
    pub(crate) acknowledged: u64,
    /// The version of its credentials.
    pub(crate) credential_epoch: u64,
    /// The version of its manifest.
    pub(crate) manifest_epoch: u64,
}

/// What a reply has shown beyond what was known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// Nothing odd.
    Usual,
    /// The store is another incarnation than before.
    Other,
    /// The store went back under one incarnation, from the first seq to the second (HA 1.5).
    WentBack(u64, u64),
}

impl Known {
    fn words(self) -> [u64; WORDS] {
        [self.link, self.incarnation, self.seq, self.acknowledged, self.credential_epoch, self.manifest_epoch]
    }

    fn of_words(words: [u64; WORDS]) -> Known {
        let [link, incarnation, seq, acknowledged, credential_epoch, manifest_epoch] = words;
        Known { link, incarnation, seq, acknowledged, credential_epoch, manifest_epoch }
    }
}

const WORDS: usize = 6;

/// The cell that keeps it; see the head of this file.
pub(crate) struct KnownCell<W = AtomicU64, T = Lock<()>> {
    version: W,
    words: [W; WORDS],
    turn: T,
}

impl<W: Word, T: Turn<()>> Default for KnownCell<W, T> {
    fn default() -> Self {
        Self { version: W::new(0), words: [(); WORDS].map(|()| W::new(0)), turn: T::new(()) }
    }
}

impl<W: Word, T: Turn<()>> KnownCell<W, T> {
    /// What is known now.
    #[inline]
    pub(crate) fn get(&self) -> Known {
        let before = self.version.load(Ordering::Acquire);
        let known = self.read();
        match before.is_multiple_of(2) && self.version.load(Ordering::Acquire) == before {
            true => known,
            false => self.get_in_turn(),
        }
    }

    #[cold]
    fn get_in_turn(&self) -> Known {
        let _turn = self.turn.take();
        self.read()
    }

    #[inline]
    fn read(&self) -> Known {
        Known::of_words(std::array::from_fn(|at| self.words[at].load(Ordering::Acquire)))
    }

    /// Only in turn.
    fn write(&self, known: Known) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        for (own, word) in self.words.iter().zip(known.words()) {
            own.store(word, Ordering::Release);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// Takes what a reply says. `link` is when the link that took the request came up, `floor` the incarnation and seq
    /// known when it was sent, `acknowledges` whether it acknowledges a write. Replies may overtake each other, so
    /// nothing goes back within one link and incarnation; the first reply on another link or of another incarnation
    /// replaces what was known. A reply below its floor shows that the store was rolled back. Replies made outside a
    /// partition (incarnation 0) say nothing.
    pub(crate) fn note(
        &self,
        header: &ReplyHeader,
        link: Option<Moment>,
        floor: (u64, u64),
        acknowledges: bool,
    ) -> Shown {
        let before = self.get();
        if next(&before, header, link, floor, acknowledges).0 == before {
            return Shown::Usual;
        }
        let _turn = self.turn.take();
        let before = self.read();
        let (after, shown) = next(&before, header, link, floor, acknowledges);
        if after != before {
            self.write(after);
        }
        shown
    }
}

fn next(
    known: &Known,
    header: &ReplyHeader,
    link: Option<Moment>,
    floor: (u64, u64),
    acknowledges: bool,
) -> (Known, Shown) {
    let link = link.map_or(known.link, |link| link.0);
    if header.incarnation == 0 || link < known.link {
        return (*known, Shown::Usual);
    }
    let went_back = floor.0 == header.incarnation && header.seq < floor.1;
    let other = header.incarnation != known.incarnation;
    let said = Known {
        link,
        incarnation: header.incarnation,
        seq: header.seq,
        acknowledged: if acknowledges { header.seq } else { 0 },
        credential_epoch: header.credential_epoch,
        manifest_epoch: header.manifest_epoch,
    };
    if went_back {
        return (said, Shown::WentBack(floor.1, header.seq));
    }
    if other {
        return (said, Shown::Other);
    }
    let acknowledged = said.acknowledged.max(known.acknowledged);
    if link > known.link {
        return (Known { acknowledged, ..said }, Shown::Usual);
    }
    let joined = Known {
        link,
        incarnation: known.incarnation,
        seq: known.seq.max(said.seq),
        acknowledged,
        credential_epoch: known.credential_epoch.max(said.credential_epoch),
        manifest_epoch: known.manifest_epoch.max(said.manifest_epoch),
    };
    (joined, Shown::Usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(incarnation: u64, seq: u64, credential_epoch: u64) -> ReplyHeader {
        ReplyHeader { incarnation, seq, credential_epoch, ..ReplyHeader::default() }
    }

    fn position(cell: &KnownCell) -> ((u64, u64), u64) {
        let known = cell.get();
        ((known.incarnation, known.seq), known.credential_epoch)
    }

    #[test]
    fn replies_that_overtake_each_other_take_nothing_back() {
        let cell: KnownCell = KnownCell::default();
        let link = Some(Moment(5));
        let note = |header, link, floor| cell.note(&header, link, floor, false);
        assert_eq!(note(header(1, 9, 3), link, (0, 0)), Shown::Other);
        for (header, link, floor) in [
            (header(1, 7, 2), link, (0, 0)),
            (header(0, 0, 0), link, (1, 9)),
            (header(1, 6, 1), Some(Moment(4)), (0, 0)),
        ] {
            assert_eq!(note(header, link, floor), Shown::Usual);
        }
        assert_eq!(position(&cell), ((1, 9), 3));
        assert_eq!(note(header(2, 1, 1), link, (1, 9)), Shown::Other);
        assert_eq!(position(&cell), ((2, 1), 1));
        assert_eq!(note(header(2, 1, 0), Some(Moment(6)), (2, 1)), Shown::Usual);
        assert_eq!(position(&cell), ((2, 1), 0));
    }

    #[test]
    fn a_reply_below_what_was_known_when_it_was_asked_for_is_a_roll_back() {
        let cell: KnownCell = KnownCell::default();
        let link = Some(Moment(5));
        cell.note(&header(1, 9, 3), link, (0, 0), true);
        assert_eq!(cell.note(&header(1, 7, 2), link, (1, 9), false), Shown::WentBack(9, 7));
        assert_eq!(position(&cell), ((1, 7), 2));
        assert_eq!(cell.get().acknowledged, 0);
    }

    #[test]
    fn the_last_acknowledged_write_is_kept_over_links_and_not_over_incarnations() {
        let cell: KnownCell = KnownCell::default();
        cell.note(&header(1, 4, 0), Some(Moment(5)), (0, 0), true);
        cell.note(&header(1, 9, 0), Some(Moment(5)), (0, 0), false);
        assert_eq!((cell.get().seq, cell.get().acknowledged), (9, 4));
        cell.note(&header(1, 9, 0), Some(Moment(6)), (0, 0), false);
        assert_eq!(cell.get().acknowledged, 4);
        cell.note(&header(2, 9, 0), Some(Moment(6)), (0, 0), false);
        assert_eq!(cell.get().acknowledged, 0);
    }
}
