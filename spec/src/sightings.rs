//! Where the members of a group were last seen (HA 1.5). Processes carry it from member to member, so that a store that went
//! back or was cloned hears of it from one that saw it further on and that it never talks to itself.
use std::collections::BTreeMap;

use crate::messages::SeenMember;

/// Incarnations kept of one member: a store that is put back to an image from before its last restore is known, too.
const INCARNATIONS_KEPT: usize = 2;
/// Contents kept of one commit: two show a clone, more show nothing else.
const CONTENTS_KEPT: usize = 2;
/// What is kept of one member at most.
pub const KEPT: usize = INCARNATIONS_KEPT * CONTENTS_KEPT;

/// What was seen, by serial number; of each member the incarnations that were heard of last, and of each of these the last
/// commit.
#[derive(Clone, Debug, Default)]
pub struct Sightings(BTreeMap<u64, Vec<SeenMember>>);

impl Sightings {
    /// Whether this is not known yet: within one incarnation nothing goes back, and another content of the last commit is
    /// worth to be told of.
    pub fn is_news(&self, seen: &SeenMember) -> bool {
        let of_incarnation = |known: &&SeenMember| known.incarnation == seen.incarnation;
        let known = || self.0.get(&seen.serial).into_iter().flatten().filter(of_incarnation);
        let same_commit = || known().filter(|known| known.seq == seen.seq);
        seen.incarnation != 0
            && known().all(|known| known.seq <= seen.seq)
            && same_commit().all(|known| known.root != seen.root)
            && same_commit().count() < CONTENTS_KEPT
    }

    /// Keeps it if it is news. Of the incarnations those stay of which something was said last, by the clock of the member: whoever
    /// still carries one of long ago puts out none that lives.
    pub fn note(&mut self, seen: SeenMember) {
        if !self.is_news(&seen) {
            return;
        }
        let known = self.0.entry(seen.serial).or_default();
        known.retain(|known| known.incarnation != seen.incarnation || known.seq == seen.seq);
        known.push(seen);
        let mut incarnations: BTreeMap<u64, u64> = BTreeMap::new();
        for one in known.iter() {
            let last = incarnations.entry(one.incarnation).or_default();
            *last = one.said_ms.max(*last);
        }
        if incarnations.len() > INCARNATIONS_KEPT {
            let oldest = incarnations.iter().min_by_key(|(_, said_ms)| **said_ms).map(|(oldest, _)| *oldest);
            known.retain(|known| Some(known.incarnation) != oldest);
        }
    }

    /// Everything seen.
    pub fn all(&self) -> Vec<SeenMember> {
        self.0.values().flatten().cloned().collect()
    }

    /// Forgets those who are no members any more.
    pub fn keep_members(&mut self, is_member: impl Fn(u64) -> bool) {
        self.0.retain(|serial, _| is_member(*serial));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(serial: u64, incarnation: u64, seq: u64) -> SeenMember {
        SeenMember { serial, incarnation, seq, ..SeenMember::default() }
    }

    #[test]
    fn two_contents_of_one_commit_are_kept_until_the_next_one() {
        let mut sightings = Sightings::default();
        let with = |seq, mark| SeenMember { root: vec![mark; 32], ..seen(1, 5, seq) };
        for (seq, mark) in [(3, 1), (3, 2), (3, 1), (3, 3), (2, 9)] {
            sightings.note(with(seq, mark));
        }
        assert_eq!(sightings.all(), [with(3, 1), with(3, 2)]);
        sightings.note(with(4, 1));
        assert_eq!(sightings.all(), [with(4, 1)]);
    }

    #[test]
    fn within_an_incarnation_nothing_goes_back() {
        let mut sightings = Sightings::default();
        for (incarnation, seq) in [(5, 9), (5, 8), (6, 1), (5, 10), (0, 99)] {
            sightings.note(seen(1, incarnation, seq));
        }
        sightings.note(seen(2, 5, 3));
        assert_eq!(sightings.all(), [seen(1, 6, 1), seen(1, 5, 10), seen(2, 5, 3)]);
        assert!(!sightings.is_news(&seen(1, 6, 1)) && sightings.is_news(&seen(1, 6, 2)));
        sightings.keep_members(|serial| serial == 2);
        assert_eq!(sightings.all(), [seen(2, 5, 3)]);
    }

    #[test]
    fn an_incarnation_of_long_ago_that_is_still_carried_puts_out_none_that_lives() {
        let mut sightings = Sightings::default();
        let said = |incarnation, said_ms| SeenMember { said_ms, ..seen(1, incarnation, 7) };
        for one in [said(1, 10), said(2, 20), said(3, 30), said(1, 10), said(2, 20), said(1, 10)] {
            sightings.note(one);
        }
        assert_eq!(sightings.all(), [said(2, 20), said(3, 30)]);
    }
}
