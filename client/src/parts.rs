//! The stages of an operation in parts: every step computes the next stage beside the present one, so that a part which
//! met an outage was not taken (RULES 1.3). The picture of the stages stands in `crypto.rs`.
use std::ops::Range;

use digests::Running;
use ha::Output;
use spec::Rv;
use spec::messages::{How, OutputRule};
use zeroize::Zeroizing;

use crate::asking::{Asking, strange};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::head::{Head, Part};
use crate::lengths;

/// Longer data of chained and streamed mechanisms goes in pieces of so many bytes: a multiple of every block length. A piece
/// is copied a few times on its way, so that an operation over any length of data stays within 16 MiB.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Parts of streamed mechanisms are gathered up to so many bytes before they are sent.
pub(crate) const STREAM_BYTES: usize = 64 << 10;

/// Where an operation stands.
pub(crate) enum Stage {
    Fresh,
    Gathered(Buffer),
    /// Apart, for it is large and most operations have none: they are moved around the less.
    Hashed(Box<Running>),
    Chained(Chain),
    Streamed(Stream),
    Kept {
        output: Output,
        by_final: bool,
    },
}

/// The public chaining value and the input that is held back.
pub(crate) struct Chain {
    iv: Vec<u8>,
    pub(crate) held: Zeroizing<Vec<u8>>,
}

/// The sealed running state, the number of the next part, and the input not sent yet.
pub(crate) struct Stream {
    state: Vec<u8>,
    part: u64,
    pub(crate) buffer: Buffer,
}

/// The stage behind a part and the output so far; no stage where the present one stays. The present stage is not
/// touched, so that a part which met an outage was not taken (RULES 1.3).
pub(crate) fn advance(
    head: &mut Head,
    asking: &Asking<'_>,
    stage: &Stage,
    part: &[u8],
) -> Result<(Option<Stage>, Output)> {
    let pool = &asking.process.pool;
    match stage {
        Stage::Fresh if head.is_chained() => {
            let chain = Chain { iv: head.mechanism.iv.clone(), held: Zeroizing::default() };
            advance_chain(head, asking, &chain, part)
        }
        Stage::Chained(chain) => advance_chain(head, asking, chain, part),
        Stage::Fresh if head.is_streamed() => {
            let stream = Stream { state: Vec::new(), part: 0, buffer: Buffer::new(pool, STREAM_BYTES) };
            Ok((Some(Stage::Streamed(advance_stream(head, asking, &stream, part)?)), Output::default()))
        }
        Stage::Streamed(stream) => {
            Ok((Some(Stage::Streamed(advance_stream(head, asking, stream, part)?)), Output::default()))
        }
        Stage::Fresh if head.how() == How::PREHASH => {
            let mut running = Running::new(head.hash()?);
            running.update(part);
            Ok((Some(Stage::Hashed(Box::new(running))), Output::default()))
        }
        Stage::Fresh => {
            let mut buffer = Buffer::new(pool, head.whole_bytes_max());
            buffer.extend(part).map_err(|_| lengths::length_error(head.function))?;
            Ok((Some(Stage::Gathered(buffer)), Output::default()))
        }
        Stage::Gathered(_) | Stage::Hashed(_) | Stage::Kept { .. } => {
            Err(Rv::OPERATION_NOT_INITIALIZED.into())
        }
    }
}

fn advance_chain(
    head: &mut Head,
    asking: &Asking<'_>,
    chain: &Chain,
    part: &[u8],
) -> Result<(Option<Stage>, Output)> {
    let total = chain.held.len() + part.len();
    let now = lengths::chained(&head.plan, total);
    // Room for what Final may give, so that a single call of many pieces need not copy it all once more.
    let room = now + 2 * lengths::block_bytes(&head.plan);
    let mut output = Output::default();
    let mut iv = chain.iv.clone();
    for start in (0..now).step_by(PIECE_BYTES) {
        let piece = stretch(&chain.held, part, start..now.min(start + PIECE_BYTES));
        let piece = piece.bytes();
        // Taken before the send, for the application may change what it decrypts.
        let end = piece[piece.len().saturating_sub(iv.len())..].to_vec();
        let answer =
            head.send(asking, &Part { iv: Some(&iv), last: false, ..Part::new(How::CHAIN, piece) })?;
        if answer.output.len() != piece.len() {
            return Err(strange("Use of a chained part"));
        }
        iv = head.next_iv(&iv, &end, &answer.output);
        if now <= PIECE_BYTES {
            output = answer.output;
            break;
        }
        output.append(&answer.output, room);
    }
    let held = Zeroizing::new(stretch(&chain.held, part, now..total).bytes().to_vec());
    Ok((Some(Stage::Chained(Chain { iv, held })), output))
}

/// A stretch of two texts behind each other: borrowed where it lies in the second one.
enum Stretch<'a> {
    Of(&'a [u8]),
    Joined(Zeroizing<Vec<u8>>),
}

impl Stretch<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Of(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

fn stretch<'a>(first: &[u8], second: &'a [u8], range: Range<usize>) -> Stretch<'a> {
    if let Some(start) = range.start.checked_sub(first.len()) {
        return Stretch::Of(&second[start..range.end - first.len()]);
    }
    let mut joined = Zeroizing::new(Vec::with_capacity(range.len()));
    joined.extend_from_slice(&first[range.start..range.end.min(first.len())]);
    joined.extend_from_slice(&second[..range.end.saturating_sub(first.len())]);
    Stretch::Joined(joined)
}

fn advance_stream(head: &mut Head, asking: &Asking<'_>, stream: &Stream, part: &[u8]) -> Result<Stream> {
    let mut next = Stream {
        state: stream.state.clone(),
        part: stream.part,
        buffer: Buffer::new(&asking.process.pool, STREAM_BYTES),
    };
    let gathered = stream.buffer.bytes();
    if gathered.len() + part.len() <= STREAM_BYTES {
        next.buffer.extend(gathered)?;
        next.buffer.extend(part)?;
        return Ok(next);
    }
    for piece in [gathered].into_iter().chain(part.chunks(PIECE_BYTES)).filter(|piece| !piece.is_empty()) {
        let send =
            Part { last: false, state: &next.state, number: next.part, ..Part::new(How::STREAM, piece) };
        let mut answer = head.send(asking, &send)?;
        next.state = std::mem::take(&mut answer.state);
        next.part += 1;
    }
    Ok(next)
}

/// The last send of an operation in parts.
pub(crate) fn conclude(
    head: &mut Head,
    asking: &Asking<'_>,
    stage: &Stage,
    signature: &[u8],
) -> Result<Output> {
    match stage {
        Stage::Fresh => match advance(head, asking, &Stage::Fresh, &[])? {
            (Some(begun), _) => conclude(head, asking, &begun, signature),
            (None, _) => Err(Rv::OPERATION_NOT_INITIALIZED.into()),
        },
        Stage::Gathered(buffer) => {
            head.give(asking, &Part { signature, ..Part::new(How::WHOLE, buffer.bytes()) })
        }
        Stage::Hashed(running) => {
            let digest = Running::clone(running).finish();
            head.give(asking, &Part { signature, ..Part::new(How::PREHASH, &digest) })
        }
        Stage::Chained(chain) => conclude_chain(head, asking, chain),
        Stage::Streamed(stream) if stream.part == 0 => {
            head.give(asking, &Part { signature, ..Part::new(How::WHOLE, stream.buffer.bytes()) })
        }
        Stage::Streamed(stream) => {
            let part = Part::new(How::STREAM, stream.buffer.bytes());
            head.give(asking, &Part { state: &stream.state, number: stream.part, signature, ..part })
        }
        Stage::Kept { .. } => Err(Rv::OPERATION_NOT_INITIALIZED.into()),
    }
}

fn conclude_chain(head: &mut Head, asking: &Asking<'_>, chain: &Chain) -> Result<Output> {
    let block_bytes = lengths::block_bytes(&head.plan);
    let whole_blocks = chain.held.len().is_multiple_of(block_bytes);
    let wrong = lengths::length_error(head.function);
    match OutputRule(head.plan.output_rule) {
        OutputRule::SAME if chain.held.is_empty() => return Ok(Output::default()),
        OutputRule::SAME => return Err(wrong.into()),
        OutputRule::UNPADDED if chain.held.is_empty() || !whole_blocks => return Err(wrong.into()),
        _ => {}
    }
    head.give(asking, &Part { iv: Some(&chain.iv), ..Part::new(How::CHAIN, &chain.held) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_of_two_texts_is_that_of_the_two_joined() {
        let (first, second) = (b"abc".as_slice(), b"defgh".as_slice());
        let joined = [first, second].concat();
        for start in 0..=joined.len() {
            for end in start..=joined.len() {
                assert_eq!(stretch(first, second, start..end).bytes(), &joined[start..end], "{start}..{end}");
            }
        }
        assert!(matches!(stretch(first, second, 3..8), Stretch::Of(_)));
    }
}
