//! Whether what one process saw of one attribute is the history of a register (HA 3.4, 8).
//!
//! Every write has a value of its own. What a process knows of a value spans from the first end to the last beginning of
//! its writes and reads of it: a value that was there at two moments was there between them, so that no other value can
//! have been there in that span (Gibbons and Korach, Testing shared memories, 1997).

/// One write or read of a process that has ended; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The value.
    pub(crate) value: u64,
    /// When it began.
    pub(crate) begun: u64,
    /// When it had happened for sure; `u64::MAX` for a write whose outcome is unknown.
    pub(crate) ended: u64,
}

/// What is known of one value: it was there at `from` and at `to` and between them when `from < to`; else it was there at
/// some moment between `to` and `from`.
#[derive(Clone, Copy, Debug)]
struct Zone {
    value: u64,
    from: u64,
    to: u64,
}

/// Two values that cannot both have been there when they were seen; `None` when the history is one of a register.
pub(crate) fn contradiction(seen: &[Seen]) -> Option<(u64, u64)> {
    let mut zones: Vec<Zone> = Vec::new();
    for one in seen {
        match zones.iter_mut().find(|zone| zone.value == one.value) {
            Some(zone) => (zone.from, zone.to) = (zone.from.min(one.ended), zone.to.max(one.begun)),
            None => zones.push(Zone { value: one.value, from: one.ended, to: one.begun }),
        }
    }
    let spans = zones.iter().filter(|zone| zone.from < zone.to);
    for span in spans {
        let inside = |other: &&Zone| {
            let (first, last) = (other.from.min(other.to), other.from.max(other.to));
            let overlaps = other.from < other.to && first < span.to && span.from < last;
            let lies_within = other.from >= other.to && span.from < first && last < span.to;
            other.value != span.value && (overlaps || lies_within)
        };
        if let Some(other) = zones.iter().find(inside) {
            return Some((span.value, other.value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(seen: &[(u64, u64, u64)]) -> Option<(u64, u64)> {
        let seen: Vec<Seen> = seen
            .iter()
            .map(|(value, begun, ended)| Seen { value: *value, begun: *begun, ended: *ended })
            .collect();
        contradiction(&seen)
    }

    #[test]
    fn values_one_after_the_other_and_values_at_once_are_a_history() {
        assert_eq!(history(&[(1, 0, 2), (1, 3, 4), (2, 5, 6), (2, 7, 8)]), None);
        assert_eq!(
            history(&[(1, 0, 9), (2, 1, 8), (1, 10, 11)]),
            None,
            "both writes at once, either may be last"
        );
        assert_eq!(
            history(&[(1, 0, 1), (2, 2, u64::MAX), (1, 5, 6)]),
            None,
            "a write that may never have happened"
        );
        assert_eq!(history(&[(1, 0, 1), (2, 2, u64::MAX), (1, 5, 6), (2, 7, 8)]), None, "or late");
    }

    #[test]
    fn a_value_that_comes_back_is_none() {
        assert_eq!(history(&[(1, 0, 1), (2, 2, 3), (1, 4, 5)]), Some((1, 2)));
        assert_eq!(history(&[(1, 0, 1), (2, 2, 3), (2, 6, 7), (1, 8, 9)]), Some((1, 2)));
    }

    #[test]
    fn a_read_of_what_was_overwritten_is_none() {
        assert_eq!(
            history(&[(1, 0, 1), (2, 2, 3), (2, 4, 5), (1, 2, 6)]),
            None,
            "at the same time as another"
        );
        assert_eq!(history(&[(1, 0, 1), (2, 2, 3), (2, 4, 5), (1, 4, 6)]), Some((1, 2)));
        assert_eq!(history(&[(0, 0, 0), (1, 1, 2), (0, 3, 4)]), Some((0, 1)));
    }
}
