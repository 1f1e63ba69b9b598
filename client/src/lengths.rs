//! The length rule (RULES 1.2): from a plan's output rule to the length of an output, and what a caller's room gets.
use ha::Output;
use spec::Rv;
use spec::messages::{KeyFunction, OutputRule, PlanAnswer};

use crate::error::{Error, Result};
use crate::face::{Produced, Room};

/// What is known of an output before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Its length in bytes, or the most it can be.
    pub(crate) bytes: usize,
    /// Whether it is that length.
    pub(crate) exact: bool,
}

impl Expected {
    /// So many bytes, neither more nor fewer.
    pub(crate) fn exactly(bytes: usize) -> Self {
        Self { bytes, exact: true }
    }

    /// The answer that needs no execution, if there is one: to a length query, and to a room that is too small for
    /// an output of known length.
    pub(crate) fn answer(self, room: Room) -> Option<Produced> {
        match room {
            Room::Ask => Some(Produced::Length(self.bytes)),
            Room::Bytes(bytes) if self.exact && bytes < self.bytes => Some(Produced::TooSmall(self.bytes)),
            Room::Bytes(_) => None,
        }
    }
}

/// The length of the output for an input of so many bytes, all of it in one operation.
///
/// # Errors
/// CKR_DEVICE_ERROR for a rule that this release does not know.
pub(crate) fn expected(plan: &PlanAnswer, input_bytes: usize) -> Result<Expected> {
    let output_bytes = to_usize(plan.output_bytes);
    let block_bytes = block_bytes(plan);
    let (bytes, exact) = match OutputRule(plan.output_rule) {
        OutputRule::FIXED => (output_bytes, true),
        OutputRule::AT_MOST => (output_bytes, false),
        OutputRule::SAME => (input_bytes, true),
        OutputRule::PADDED => {
            let blocks = input_bytes / block_bytes;
            (blocks.saturating_add(1).saturating_mul(block_bytes), true)
        }
        OutputRule::UNPADDED => (input_bytes, false),
        OutputRule::PLUS => (input_bytes.saturating_add(output_bytes), true),
        OutputRule::MINUS => (input_bytes.saturating_sub(output_bytes), true),
        OutputRule(other) => {
            return Err(Error::Protocol(format!(
                "wanted a length rule from 1 to 7 in a plan, found {other}; bring this module up to the members' release"
            )));
        }
    };
    Ok(Expected { bytes, exact })
}

/// How many bytes of `held + input` a part of a chained mechanism gives now; the rest stays held. Deciphering with
/// padding keeps the last two blocks for Final, where the member strips the padding (RULES 1.7).
pub(crate) fn chained(plan: &PlanAnswer, total_bytes: usize) -> usize {
    let block_bytes = block_bytes(plan);
    if OutputRule(plan.output_rule) == OutputRule::UNPADDED {
        total_bytes.div_ceil(block_bytes).saturating_sub(2) * block_bytes
    } else {
        total_bytes / block_bytes * block_bytes
    }
}

/// The plan's block length, at least 1.
pub(crate) fn block_bytes(plan: &PlanAnswer) -> usize {
    usize::try_from(plan.block_bytes).unwrap_or(usize::MAX).max(1)
}

/// An executed result for a room: the bytes when they fit, else what to keep and what to answer (RULES 1.2).
pub(crate) fn fit(output: Output, room: Room) -> std::result::Result<Produced, (Output, Produced)> {
    match room {
        Room::Bytes(bytes) if output.len() <= bytes => Ok(Produced::Bytes(output)),
        Room::Bytes(_) => {
            let answer = Produced::TooSmall(output.len());
            Err((output, answer))
        }
        Room::Ask => {
            let answer = Produced::Length(output.len());
            Err((output, answer))
        }
    }
}

/// The code for an input whose length is wrong (PKCS #11 v3.1, 5.1.6).
pub(crate) fn length_error(function: KeyFunction) -> Rv {
    if function == KeyFunction::DECRYPT { Rv::ENCRYPTED_DATA_LEN_RANGE } else { Rv::DATA_LEN_RANGE }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(rule: OutputRule, output_bytes: u64, block_bytes: u32) -> PlanAnswer {
        PlanAnswer { output_rule: rule.0, output_bytes, block_bytes, ..PlanAnswer::default() }
    }

    #[test]
    fn lengths_follow_the_rule_of_the_plan() {
        let rows = [
            (plan(OutputRule::FIXED, 256, 0), 5, 256, true),
            (plan(OutputRule::AT_MOST, 245, 0), 256, 245, false),
            (plan(OutputRule::SAME, 0, 16), 32, 32, true),
            (plan(OutputRule::PADDED, 0, 16), 0, 16, true),
            (plan(OutputRule::PADDED, 0, 16), 15, 16, true),
            (plan(OutputRule::PADDED, 0, 16), 16, 32, true),
            (plan(OutputRule::UNPADDED, 0, 16), 32, 32, false),
            (plan(OutputRule::PLUS, 16, 0), 5, 21, true),
            (plan(OutputRule::MINUS, 16, 0), 21, 5, true),
            (plan(OutputRule::MINUS, 16, 0), 3, 0, true),
        ];
        for (plan, input, bytes, exact) in rows {
            assert_eq!(expected(&plan, input).unwrap(), Expected { bytes, exact }, "{plan:?}");
        }
        assert_eq!(expected(&plan(OutputRule(99), 0, 0), 1).unwrap_err().rv(), Rv::DEVICE_ERROR);
    }

    #[test]
    fn deciphering_with_padding_keeps_two_blocks_for_final() {
        let unpadded = plan(OutputRule::UNPADDED, 0, 16);
        let given: Vec<usize> =
            [0, 16, 32, 33, 48, 49, 64].iter().map(|total| chained(&unpadded, *total)).collect();
        assert_eq!(given, [0, 0, 0, 16, 16, 32, 32]);
        let same = plan(OutputRule::SAME, 0, 16);
        assert_eq!([15, 16, 40].map(|total| chained(&same, total)), [0, 16, 32]);
    }

    #[test]
    fn a_length_query_and_a_short_buffer_are_answered_without_execution_when_the_length_is_known() {
        let known = Expected::exactly(32);
        assert_eq!(known.answer(Room::Ask), Some(Produced::Length(32)));
        assert_eq!(known.answer(Room::Bytes(31)), Some(Produced::TooSmall(32)));
        assert_eq!(known.answer(Room::Bytes(32)), None);
        let bound = Expected { bytes: 32, exact: false };
        assert_eq!(bound.answer(Room::Ask), Some(Produced::Length(32)));
        assert_eq!(bound.answer(Room::Bytes(0)), None);
    }
}
