//! The hot messages, encoded and decoded in place (DESIGN 3): a Use from borrowed parts into memory that is used again, and
//! its answer where the reply lies. The bytes are those of the `prost` messages; a test compares both codecs.
use std::mem::take;
use std::ops::Range;

use prost::encoding::encoded_len_varint;

use super::MechanismMessage;
use crate::record::Stamp;

/// A [`Use`](super::Use) and what it names, borrowed; the fields are those of the messages.
#[derive(Clone, Copy)]
pub struct UseParts<'a> {
    /// [`Use::function`](super::Use::function).
    pub function: u32,
    /// [`Use::mechanism`](super::Use::mechanism).
    pub mechanism: &'a MechanismMessage,
    /// The IV in place of the mechanism's, for a part of a chain.
    pub iv: Option<&'a [u8]>,
    /// [`ObjectRef::ouid`](super::ObjectRef::ouid) of the key.
    pub ouid: &'a [u8],
    /// [`ObjectRef::least`](super::ObjectRef::least).
    pub least: Option<&'a EncodedStamp>,
    /// [`ObjectRef::blob_hash`](super::ObjectRef::blob_hash).
    pub blob_hash: &'a [u8],
    /// [`ObjectRef::blob`](super::ObjectRef::blob).
    pub blob: &'a [u8],
    /// [`ObjectRef::changed`](super::ObjectRef::changed).
    pub changed: &'a [u8],
    /// [`Use::plan`](super::Use::plan).
    pub plan: Option<&'a EncodedStamp>,
    /// [`Use::how`](super::Use::how).
    pub how: u32,
    /// [`Use::data`](super::Use::data).
    pub data: &'a [u8],
    /// [`Use::signature`](super::Use::signature).
    pub signature: &'a [u8],
    /// [`Use::last`](super::Use::last).
    pub last: bool,
    /// [`Use::state`](super::Use::state).
    pub state: &'a [u8],
    /// [`Use::part`](super::Use::part).
    pub part: u64,
    /// [`Use::pin`](super::Use::pin).
    pub pin: &'a [u8],
}

/// The number of the call and of its answer.
const USE: u32 = 14;

impl UseParts<'_> {
    /// The call's number in [`CALLS`](crate::calls::CALLS).
    pub const NUMBER: u32 = USE;

    /// Appends the encoded [`RequestBody`](super::RequestBody) of this use. Memory that is too small is wiped and given up
    /// before anything is written, so that no copy is left behind by growth.
    pub fn encode(&self, group: &[u8], generation: u64, ticket: &[u8], out: &mut Vec<u8>) {
        let borrowed = self.key_bytes() + self.parameter_bytes() + self.text_bytes();
        let length_max = group.len() + ticket.len() + borrowed + FRAME_BYTES_MAX;
        if out.len() + length_max > out.capacity() {
            move_to_larger(out, out.len() + length_max);
        }
        let fits = length_max <= ZEROED_BYTES_MAX && self.key_bytes().max(self.parameter_bytes()) < 0x80;
        let filled =
            if fits { self.fill(group, generation, ticket, borrowed, length_max, out) } else { None };
        let start = filled.unwrap_or_else(|| self.put_body(group, generation, ticket, borrowed, out));
        put_length(start, borrowed, out);
    }

    /// As [`Self::put_body`], in memory that is filled with zeros first, which takes less for each field. `None`, and nothing is
    /// there, when a message within the call turns out to be long.
    #[inline(always)]
    fn fill(
        &self,
        group: &[u8],
        generation: u64,
        ticket: &[u8],
        borrowed: usize,
        length_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let (begin, end) = (out.len(), out.len() + length_max);
        out.resize(end, 0);
        let mut room = Room { rest: out.get_mut(begin..)?, fits: true };
        let behind = self.put_body(group, generation, ticket, borrowed, &mut room);
        let (unused, fits) = (room.rest.len(), room.fits);
        out.truncate(if fits { end - unused } else { begin });
        fits.then_some(end - behind)
    }

    /// Gives where the call begins; its length is still to be written, over that of the bytes that are copied into it.
    #[inline(always)]
    fn put_body(
        &self,
        group: &[u8],
        generation: u64,
        ticket: &[u8],
        borrowed: usize,
        out: &mut impl Sink,
    ) -> usize {
        put_bytes(1, group, out);
        put_number(2, generation, out);
        put_bytes(3, ticket, out);
        put_pair(USE << 3 | 2, borrowed as u64, out);
        let start = out.place();
        self.put_call(out);
        start
    }

    fn text_bytes(&self) -> usize {
        self.data.len() + self.signature.len() + self.state.len() + self.pin.len()
    }

    fn key_bytes(&self) -> usize {
        self.ouid.len() + self.blob_hash.len() + self.blob.len() + self.changed.len()
    }

    fn parameter_bytes(&self) -> usize {
        self.iv().len() + self.mechanism.aad.len() + self.mechanism.label.len()
    }

    fn iv(&self) -> &[u8] {
        self.iv.unwrap_or(&self.mechanism.iv)
    }

    #[inline(always)]
    fn put_call(&self, out: &mut impl Sink) {
        put_number(1, self.function.into(), out);
        out.put_nested(2, self.parameter_bytes(), |out| self.put_mechanism(out));
        out.put_nested(3, self.key_bytes(), |out| self.put_key(out));
        put_stamp(4, self.plan, out);
        put_number(5, self.how.into(), out);
        put_bytes(6, self.data, out);
        put_bytes(7, self.signature, out);
        put_number(8, self.last.into(), out);
        put_bytes(9, self.state, out);
        put_number(10, self.part, out);
        put_bytes(11, self.pin, out);
    }

    #[inline(always)]
    fn put_key(&self, out: &mut impl Sink) {
        put_bytes(1, self.ouid, out);
        put_stamp(2, self.least, out);
        put_bytes(3, self.blob_hash, out);
        put_bytes(4, self.blob, out);
        put_bytes(5, self.changed, out);
    }

    #[inline(always)]
    fn put_mechanism(&self, out: &mut impl Sink) {
        let MechanismMessage { number, kind, iv: _, aad, tag_bits, hash, mgf, salt_bytes, label, mac_bytes } =
            self.mechanism;
        put_number(1, *number, out);
        put_number(2, (*kind).into(), out);
        put_bytes(3, self.iv(), out);
        put_bytes(4, aad, out);
        put_number(5, *tag_bits, out);
        put_number(6, *hash, out);
        put_number(7, *mgf, out);
        put_number(8, *salt_bytes, out);
        put_bytes(9, label, out);
        put_number(10, *mac_bytes, out);
    }
}

/// The least memory that is made for a body, in bytes: most uses fit.
const ROOM_BYTES_MIN: usize = 1_024;
/// The memory of a longer body is not filled with zeros first, in bytes: its fields are appended, which takes longer for each.
const ZEROED_BYTES_MAX: usize = 4 << 10;
/// What a body is long at most besides the bytes that are copied into it: 13 keys and lengths of those, three of nested
/// messages, two of stamps with the stamps, and 12 numbers.
const FRAME_BYTES_MAX: usize = (13 + 3 + 2 + 12) * PAIR_BYTES_MAX + 2 * STAMP_BYTES_MAX;

/// Gives a buffer so much memory and wipes what it had.
#[cold]
fn move_to_larger(buffer: &mut Vec<u8>, bytes: usize) {
    let kept = crate::long::take(bytes).map(|mut kept| std::mem::take(&mut *kept));
    let mut larger = kept.unwrap_or_else(|| Vec::with_capacity(bytes.max(ROOM_BYTES_MIN)));
    larger.extend_from_slice(buffer);
    crate::wipe::wipe(buffer);
    *buffer = larger;
}

/// Where fields are written.
trait Sink: Sized {
    fn put(&mut self, bytes: &[u8]);
    /// The first so many bytes of an array.
    fn put_part<const BYTES: usize>(&mut self, bytes: [u8; BYTES], length: usize);
    /// A nested message that is so long at least.
    fn put_nested(&mut self, field: u32, bytes_least: usize, put: impl FnOnce(&mut Self));
    /// Where the next byte goes.
    fn place(&self) -> usize;
}

/// The rest of zeroed memory. Places are counted from its end.
struct Room<'a> {
    rest: &'a mut [u8],
    /// Whether all that was put in is there, with the lengths that it has.
    fits: bool,
}

impl Sink for Room<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        match take(&mut self.rest).split_at_mut_checked(bytes.len()) {
            Some((place, rest)) => {
                place.copy_from_slice(bytes);
                self.rest = rest;
            }
            None => self.fits = false,
        }
    }

    /// All of them, for an array of known length is copied in a few instructions: those behind the length lie where nothing is yet.
    #[inline(always)]
    fn put_part<const BYTES: usize>(&mut self, bytes: [u8; BYTES], length: usize) {
        let rest = take(&mut self.rest);
        match rest.first_chunk_mut() {
            Some(place) => {
                *place = bytes;
                self.rest = rest.get_mut(length..).unwrap_or_default();
            }
            None => self.fits = false,
        }
    }

    /// A long one does not fit.
    #[inline(always)]
    fn put_nested(&mut self, field: u32, _: usize, put: impl FnOnce(&mut Self)) {
        match take(&mut self.rest).split_first_chunk_mut() {
            Some(([key, place], rest)) => {
                *key = low_byte((field << 3 | 2).into());
                let before = rest.len();
                self.rest = rest;
                put(self);
                let length = before.wrapping_sub(self.rest.len());
                *place = low_byte(length as u64);
                self.fits &= length < 0x80;
            }
            None => self.fits = false,
        }
    }

    #[inline(always)]
    fn place(&self) -> usize {
        self.rest.len()
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_part<const BYTES: usize>(&mut self, bytes: [u8; BYTES], length: usize) {
        self.extend(bytes.iter().take(length));
    }

    fn put_nested(&mut self, field: u32, bytes_least: usize, put: impl FnOnce(&mut Self)) {
        put_pair(field << 3 | 2, bytes_least as u64, self);
        let start = self.len();
        put(self);
        put_length(start, bytes_least, self);
    }

    fn place(&self) -> usize {
        self.len()
    }
}

/// Writes the length of the message from there to the end over one that it was taken for, and moves it if that was shorter.
fn put_length(start: usize, taken_for: usize, out: &mut Vec<u8>) {
    let length = out.len().saturating_sub(start);
    if length < 0x80 {
        // What is so short was not taken for anything longer.
        if let Some(place) = out.get_mut(start.wrapping_sub(1)) {
            *place = low_byte(length as u64);
        }
        return;
    }
    let room = encoded_len_varint(taken_for as u64);
    let more = encoded_len_varint(length as u64).saturating_sub(room);
    if more > 0 {
        out.resize(out.len() + more, 0);
        out.copy_within(start..start + length, start + more);
    }
    let mut rest = length as u64;
    for place in out.get_mut(start.saturating_sub(room)..start + more).unwrap_or_default() {
        *place = varint_byte(rest);
        rest >>= 7;
    }
}

#[inline(always)]
fn low_byte(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}

/// The first byte of a number.
fn varint_byte(number: u64) -> u8 {
    low_byte(number) | if number < 0x80 { 0 } else { 0x80 }
}

/// Key and number: two bytes, usually.
#[inline(always)]
fn put_pair(key: u32, number: u64, out: &mut impl Sink) {
    if number < 0x80 {
        out.put_part([low_byte(key.into()), low_byte(number)], 2);
    } else {
        let (bytes, length) = long_pair(key, number);
        out.put_part(bytes, length);
    }
}

/// Key and number, and how many bytes they are.
#[inline(never)]
fn long_pair(key: u32, mut number: u64) -> ([u8; PAIR_BYTES_MAX], usize) {
    let mut bytes = [0; PAIR_BYTES_MAX];
    let [first, places @ ..] = &mut bytes;
    *first = low_byte(key.into());
    let mut length = 1;
    for place in places {
        *place = varint_byte(number);
        length += 1;
        number >>= 7;
        if number == 0 {
            break;
        }
    }
    (bytes, length)
}

/// A number, left out when it is 0.
#[inline(always)]
fn put_number(field: u32, number: u64, out: &mut impl Sink) {
    if number != 0 {
        put_pair(field << 3, number, out);
    }
}

/// Bytes, left out when there are none.
#[inline(always)]
fn put_bytes(field: u32, bytes: &[u8], out: &mut impl Sink) {
    if !bytes.is_empty() {
        put_pair(field << 3 | 2, bytes.len() as u64, out);
        out.put(bytes);
    }
}

/// A stamp, left out when there is none.
#[inline(always)]
fn put_stamp(field: u32, stamp: Option<&EncodedStamp>, out: &mut impl Sink) {
    if let Some(EncodedStamp { bytes, length }) = stamp {
        put_pair(field << 3 | 2, u64::from(*length), out);
        out.put_part(*bytes, usize::from(*length));
    }
}

/// Bytes of the longest key with a number of 64 bits.
const PAIR_BYTES_MAX: usize = 1 + 10;
/// Bytes of the longest stamp: three keys, two numbers of 64 bits and one of 32.
const STAMP_BYTES_MAX: usize = 3 + 10 + 10 + 5;

/// A stamp as messages carry it: encoded once, and sent with every use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedStamp {
    bytes: [u8; STAMP_BYTES_MAX],
    length: u8,
}

impl From<Stamp> for EncodedStamp {
    fn from(Stamp { ms, counter, incarnation }: Stamp) -> Self {
        let mut bytes = [0; STAMP_BYTES_MAX];
        let mut room = Room { rest: &mut bytes, fits: true };
        put_number(1, ms, &mut room);
        put_number(2, counter.into(), &mut room);
        put_number(3, incarnation, &mut room);
        let length = low_byte((STAMP_BYTES_MAX - room.rest.len()) as u64);
        Self { bytes, length }
    }
}

/// Where the output and the state of a [`UseAnswer`](super::UseAnswer) lie in an encoded [`ReplyBody`](super::ReplyBody) that
/// carries nothing else. `None` for every other body, also one that only `prost` can read: it is then the one to ask.
pub fn use_answer(body: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let answer = field_at(0, USE, body).filter(|answer| answer.end == body.len())?;
    let output = bytes_at(answer.start, 1, body)?;
    let state = bytes_at(output.end, 2, body)?;
    (state.end == body.len()).then_some((output, state))
}

/// Where the bytes of a field lie: nowhere when it does not come next.
fn bytes_at(at: usize, field: u32, body: &[u8]) -> Option<Range<usize>> {
    match body.get(at) {
        Some(key) if u32::from(*key) == field << 3 | 2 => field_at(at, field, body),
        _ => Some(at..at),
    }
}

/// Where the contents of a field lie, which must come next.
fn field_at(at: usize, field: u32, body: &[u8]) -> Option<Range<usize>> {
    let [key, bytes @ ..] = body.get(at..)? else { return None };
    if u32::from(*key) != field << 3 | 2 {
        return None;
    }
    let (mut length, mut shift, mut start) = (0_usize, 0_u32, at.checked_add(1)?);
    for byte in bytes.iter().take(4) {
        length |= usize::from(byte & 0x7f) << shift;
        start = start.checked_add(1)?;
        if *byte < 0x80 {
            return Some(start..start.checked_add(length).filter(|end| *end <= body.len())?);
        }
        shift += 7;
    }
    None
}

#[cfg(test)]
#[path = "hot_tests.rs"]
mod tests;
