//! PIN tries of one client in one role: counted before the verifier runs, slowed by a growing delay, never destroying
//! anything (HA 7, RULES 2.5).
//!
//! ```text
//! 0 failures ... free ... then each further try waits first, 2 first, 4 first ... at most max
//! ```

/// When the delay begins and how it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryRules {
    /// So many failures in a row cost no waiting.
    pub free_tries: u32,
    /// The first delay, in milliseconds.
    pub delay_ms_first: u64,
    /// The longest delay, in milliseconds.
    pub delay_ms_max: u64,
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is counted; the verifier may run.
    Counted,
    /// The same try was counted before and is the last one; the verifier may run.
    Repeated,
    /// Nothing is counted: so many milliseconds of delay remain.
    Wait(u64),
}

/// The tries of one client in one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Tries since the last success.
    pub failed: u32,
    /// When the last one was counted, in milliseconds since 1970.
    pub last_ms: u64,
    /// The tag of the last one, 32 bytes; all zero when there was none.
    pub last_tag: [u8; 32],
}

impl Tries {
    /// The delay after the failures so far, in milliseconds.
    pub fn delay_ms(&self, rules: &TryRules) -> u64 {
        let Some(doublings) = self.failed.checked_sub(rules.free_tries) else { return 0 };
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        rules.delay_ms_first.saturating_mul(factor).min(rules.delay_ms_max)
    }

    /// How much of the delay remains, in milliseconds. A clock that went back counts as no time passed.
    pub fn remaining_ms(&self, now_ms: u64, rules: &TryRules) -> u64 {
        self.delay_ms(rules).saturating_sub(now_ms.saturating_sub(self.last_ms))
    }

    /// Counts a try, or says why not. The caller writes the value in the same transaction if it has changed.
    pub fn reserve(&mut self, tag: &[u8; 32], now_ms: u64, rules: &TryRules) -> Reserved {
        if self.failed > 0 && self.last_tag == *tag {
            return Reserved::Repeated;
        }
        let remaining_ms = self.remaining_ms(now_ms, rules);
        if remaining_ms > 0 {
            // A clock set back must not lengthen the delay: it starts again, once, from the new time.
            self.last_ms = self.last_ms.min(now_ms);
            return Reserved::Wait(remaining_ms);
        }
        self.failed = self.failed.saturating_add(1);
        self.last_ms = now_ms;
        self.last_tag = *tag;
        Reserved::Counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: TryRules = TryRules { free_tries: 3, delay_ms_first: 1_000, delay_ms_max: 300_000 };

    #[test]
    fn three_tries_are_free_and_then_the_delay_doubles_to_its_maximum() {
        let delays: Vec<u64> =
            (0..16).map(|failed| Tries { failed, ..Tries::default() }.delay_ms(&RULES)).collect();
        assert_eq!(delays[..6], [0, 0, 0, 1_000, 2_000, 4_000]);
        assert_eq!(delays[12..], [300_000; 4]);
        assert_eq!(Tries { failed: u32::MAX, ..Tries::default() }.delay_ms(&RULES), 300_000);
    }

    #[test]
    fn the_same_tag_is_counted_once() {
        let mut tries = Tries::default();
        assert_eq!(tries.reserve(&[1; 32], 0, &RULES), Reserved::Counted);
        assert_eq!(tries.reserve(&[1; 32], 5, &RULES), Reserved::Repeated);
        assert_eq!(tries.failed, 1);
    }

    #[test]
    fn a_try_during_the_delay_is_not_counted() {
        let mut tries = Tries { failed: 3, last_ms: 10_000, last_tag: [9; 32] };
        assert_eq!(tries.reserve(&[1; 32], 10_400, &RULES), Reserved::Wait(600));
        assert_eq!(tries.failed, 3);
        assert_eq!(tries.reserve(&[1; 32], 11_000, &RULES), Reserved::Counted);
        assert_eq!(tries.failed, 4);
    }

    #[test]
    fn a_clock_set_back_waits_one_delay_and_no_longer() {
        let mut tries = Tries { failed: 3, last_ms: 1_000_000, last_tag: [9; 32] };
        assert_eq!(tries.reserve(&[1; 32], 5_000, &RULES), Reserved::Wait(1_000));
        assert_eq!(tries.reserve(&[1; 32], 6_000, &RULES), Reserved::Counted);
    }
}
