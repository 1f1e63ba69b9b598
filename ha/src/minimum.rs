//! Minimum copies (HA 2.2): on how many members a write must lie before the application hears success.

/// `Hatoki: MinimumCopies` (RULES 2.18). It counts members of the manifest, and never asks for more than there are:
/// a group of one always needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minimum {
    /// One copy suffices; the others follow as they can.
    Available,
    /// More than half of the members.
    Majority,
    /// Every member.
    All,
    /// So many members.
    Count(usize),
}

impl Default for Minimum {
    fn default() -> Self {
        Minimum::Count(2)
    }
}

impl Minimum {
    /// Reads the value of the option: `available`, `majority`, `all` (any case) or a number from 1.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "available" => Some(Minimum::Available),
            "majority" => Some(Minimum::Majority),
            "all" => Some(Minimum::All),
            _ => text.parse().ok().filter(|count| *count > 0).map(Minimum::Count),
        }
    }

    /// The copies wanted in a group of so many members; at least 1.
    pub fn wanted(self, members: usize) -> usize {
        let members = members.max(1);
        match self {
            Minimum::Available => 1,
            Minimum::Majority => members / 2 + 1,
            Minimum::All => members,
            Minimum::Count(count) => count.clamp(1, members),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_is_counted_over_the_members_of_the_manifest() {
        for (minimum, wanted) in [
            (Minimum::Available, [1, 1, 1, 1, 1]),
            (Minimum::Majority, [1, 2, 2, 3, 3]),
            (Minimum::All, [1, 2, 3, 4, 5]),
            (Minimum::Count(2), [1, 2, 2, 2, 2]),
            (Minimum::Count(4), [1, 2, 3, 4, 4]),
        ] {
            for (members, wanted) in (1..).zip(wanted) {
                assert_eq!(minimum.wanted(members), wanted, "{minimum:?} of {members}");
            }
        }
    }

    #[test]
    fn the_option_is_read_in_any_case_and_zero_is_refused() {
        assert_eq!(Minimum::parse(" Majority "), Some(Minimum::Majority));
        assert_eq!(Minimum::parse("available"), Some(Minimum::Available));
        assert_eq!(Minimum::parse("ALL"), Some(Minimum::All));
        assert_eq!(Minimum::parse("3"), Some(Minimum::Count(3)));
        assert_eq!(Minimum::parse("0"), None);
        assert_eq!(Minimum::parse("most"), None);
    }
}
