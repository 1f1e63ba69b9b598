//! The hot messages, encoded and decoded in place (DESIGN 3): a Use from borrowed parts into memory that is used again, and
//! its answer where the reply lies. The bytes are those of the `prost` messages; a test compares both codecs.
use std::ops::Range;

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
    pub least: Option<Stamp>,
    /// [`ObjectRef::blob_hash`](super::ObjectRef::blob_hash).
    pub blob_hash: &'a [u8],
    /// [`ObjectRef::blob`](super::ObjectRef::blob).
    pub blob: &'a [u8],
    /// [`ObjectRef::changed`](super::ObjectRef::changed).
    pub changed: &'a [u8],
    /// [`Use::plan`](super::Use::plan).
    pub plan: Option<Stamp>,
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

/// The nested messages before they are written: the lengths of the greater ones in bytes, the stamps as they will stand.
struct Nested {
    least: Encoded,
    plan: Encoded,
    mechanism: usize,
    key: usize,
    call: usize,
}

impl UseParts<'_> {
    /// The call's number in [`CALLS`](crate::calls::CALLS).
    pub const NUMBER: u32 = USE;

    /// Appends the encoded [`RequestBody`](super::RequestBody) of this use. Memory that is too small is wiped and given up
    /// before anything is written, so that no copy is left behind by growth.
    pub fn encode(&self, group: &[u8], generation: u64, ticket: &[u8], out: &mut Vec<u8>) {
        let nested = self.nested();
        let start = out.len();
        let length = length_of(|count| self.put_body(group, generation, ticket, &nested, count));
        let wanted = start.saturating_add(length);
        if wanted > out.capacity() {
            let mut larger = Vec::with_capacity(wanted.max(ROOM_BYTES_MIN));
            larger.extend_from_slice(out);
            crate::wipe::wipe(out);
            *out = larger;
        }
        if length > ZEROED_BYTES_MAX {
            return self.put_body(group, generation, ticket, &nested, out);
        }
        out.resize(wanted, 0);
        self.put_body(group, generation, ticket, &nested, &mut Room { room: out, at: start });
    }

    fn put_body(&self, group: &[u8], generation: u64, ticket: &[u8], nested: &Nested, out: &mut impl Sink) {
        put_bytes(1, group, out);
        put_number(2, generation, out);
        put_bytes(3, ticket, out);
        put_head(USE, nested.call, out);
        out.nested(nested.call, |out| self.put_call(nested, out));
    }

    fn nested(&self) -> Nested {
        let least = Encoded::of(self.least);
        // A plan is usually as old as the state that was seen last.
        let plan = if self.plan == self.least { least } else { Encoded::of(self.plan) };
        let mut nested = Nested { least, plan, mechanism: 0, key: 0, call: 0 };
        nested.mechanism = length_of(|count| self.put_mechanism(count));
        nested.key = length_of(|count| self.put_key(&nested, count));
        nested.call = length_of(|count| self.put_call(&nested, count));
        nested
    }

    fn put_call(&self, nested: &Nested, out: &mut impl Sink) {
        put_number(1, self.function.into(), out);
        put_head(2, nested.mechanism, out);
        out.nested(nested.mechanism, |out| self.put_mechanism(out));
        put_head(3, nested.key, out);
        out.nested(nested.key, |out| self.put_key(nested, out));
        put_stamp(4, &nested.plan, out);
        put_number(5, self.how.into(), out);
        put_bytes(6, self.data, out);
        put_bytes(7, self.signature, out);
        put_number(8, self.last.into(), out);
        put_bytes(9, self.state, out);
        put_number(10, self.part, out);
        put_bytes(11, self.pin, out);
    }

    fn put_key(&self, nested: &Nested, out: &mut impl Sink) {
        put_bytes(1, self.ouid, out);
        put_stamp(2, &nested.least, out);
        put_bytes(3, self.blob_hash, out);
        put_bytes(4, self.blob, out);
        put_bytes(5, self.changed, out);
    }

    fn put_mechanism(&self, out: &mut impl Sink) {
        let MechanismMessage { number, kind, iv, aad, tag_bits, hash, mgf, salt_bytes, label, mac_bytes } =
            self.mechanism;
        put_number(1, *number, out);
        put_number(2, (*kind).into(), out);
        put_bytes(3, self.iv.unwrap_or(iv), out);
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
const ROOM_BYTES_MIN: usize = 512;
/// The memory of a longer body is not filled with zeros first, in bytes: its fields are appended, which takes longer for each.
const ZEROED_BYTES_MAX: usize = 4 << 10;

/// Where fields are written, or only counted.
trait Sink: Sized {
    fn put(&mut self, bytes: &[u8]);
    fn put_varint(&mut self, number: u64);
    /// A nested message of a known length.
    fn nested(&mut self, length: usize, put: impl FnOnce(&mut Self));
}

/// Memory of the right size and how much of it is written.
struct Room<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl Room<'_> {
    #[inline(always)]
    fn put_byte(&mut self, byte: u8) {
        if let Some(place) = self.room.get_mut(self.at) {
            *place = byte;
        }
        self.at += 1;
    }
}

impl Sink for Room<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(place) = self.room.get_mut(self.at..end) {
            place.copy_from_slice(bytes);
        }
        self.at = end;
    }

    #[inline(always)]
    fn put_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.put_byte(low_byte(number) | 0x80);
            number >>= 7;
        }
        self.put_byte(low_byte(number));
    }

    #[inline(always)]
    fn nested(&mut self, _: usize, put: impl FnOnce(&mut Self)) {
        put(self);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(low_byte(number) | 0x80);
            number >>= 7;
        }
        self.push(low_byte(number));
    }

    fn nested(&mut self, _: usize, put: impl FnOnce(&mut Self)) {
        put(self);
    }
}

#[inline(always)]
fn low_byte(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}

/// Counts bytes.
struct Count(usize);

impl Sink for Count {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    #[inline(always)]
    fn put_varint(&mut self, number: u64) {
        self.0 = self.0.saturating_add(prost::encoding::encoded_len_varint(number));
    }

    #[inline(always)]
    fn nested(&mut self, length: usize, _: impl FnOnce(&mut Self)) {
        self.0 = self.0.saturating_add(length);
    }
}

#[inline(always)]
fn length_of(put: impl FnOnce(&mut Count)) -> usize {
    let mut count = Count(0);
    put(&mut count);
    count.0
}

/// A number, left out when it is 0.
#[inline(always)]
fn put_number(field: u32, number: u64, out: &mut impl Sink) {
    if number != 0 {
        out.put_varint(u64::from(field) << 3);
        out.put_varint(number);
    }
}

/// Bytes, left out when there are none.
#[inline(always)]
fn put_bytes(field: u32, bytes: &[u8], out: &mut impl Sink) {
    if !bytes.is_empty() {
        put_head(field, bytes.len(), out);
        out.put(bytes);
    }
}

/// Key and length in front of bytes or a nested message.
#[inline(always)]
fn put_head(field: u32, length: usize, out: &mut impl Sink) {
    out.put_varint(u64::from(field) << 3 | 2);
    out.put_varint(length as u64);
}

/// Bytes of the longest stamp: three keys, two numbers of 64 bits and one of 32.
const STAMP_BYTES_MAX: usize = 3 + 10 + 10 + 5;

/// An encoded stamp, or none.
#[derive(Clone, Copy)]
struct Encoded {
    bytes: [u8; STAMP_BYTES_MAX],
    length: Option<usize>,
}

impl Encoded {
    fn of(stamp: Option<Stamp>) -> Self {
        let mut bytes = [0; STAMP_BYTES_MAX];
        let length = stamp.map(|Stamp { ms, counter, incarnation }| {
            let mut room = Room { room: &mut bytes, at: 0 };
            put_number(1, ms, &mut room);
            put_number(2, counter.into(), &mut room);
            put_number(3, incarnation, &mut room);
            room.at
        });
        Self { bytes, length }
    }
}

/// A stamp, left out when there is none.
#[inline(always)]
fn put_stamp(field: u32, stamp: &Encoded, out: &mut impl Sink) {
    if let Some(bytes) = stamp.length.and_then(|length| stamp.bytes.get(..length)) {
        put_head(field, bytes.len(), out);
        out.put(bytes);
    }
}

/// Where the output and the state of a [`UseAnswer`](super::UseAnswer) lie in an encoded [`ReplyBody`](super::ReplyBody) that
/// carries nothing else. `None` for every other body, also one that only `prost` can read: it is then the one to ask.
pub fn use_answer(body: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let mut rest = Rest { body, at: 0 };
    let answer = rest.head(USE)?;
    if answer.end != body.len() {
        return None;
    }
    let (output, state) = (rest.bytes(1)?, rest.bytes(2)?);
    (rest.at == body.len()).then_some((output, state))
}

/// The rest of a body that is being read.
struct Rest<'a> {
    body: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    /// Where the contents of the field lie, which must come next.
    fn head(&mut self, field: u32) -> Option<Range<usize>> {
        if u32::from(*self.body.get(self.at)?) != field << 3 | 2 {
            return None;
        }
        let mut at = self.at.checked_add(1)?;
        let (mut length, mut shift) = (0_usize, 0_u32);
        loop {
            let byte = *self.body.get(at)?;
            at = at.checked_add(1)?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift = shift.checked_add(7).filter(|shift| *shift < 28)?;
        }
        self.at = at;
        Some(at..at.checked_add(length).filter(|end| *end <= self.body.len())?)
    }

    /// Where the bytes of the field lie: nowhere when it does not come next.
    fn bytes(&mut self, field: u32) -> Option<Range<usize>> {
        if self.body.get(self.at).is_none_or(|key| u32::from(*key) != field << 3 | 2) {
            return Some(self.at..self.at);
        }
        let found = self.head(field)?;
        self.at = found.end;
        Some(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::messages::{Answer, Call, Done, ObjectRef, ReplyBody, RequestBody, Use, UseAnswer};

    /// Numbers that can be told again from the seed.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }

        /// Often nothing, seldom much.
        fn bytes(&mut self) -> Vec<u8> {
            let most = [0, 1, 20, 130, 20_000][self.below(5) as usize];
            (0..self.below(most + 1)).map(|_| self.below(256) as u8).collect()
        }

        fn number(&mut self) -> u64 {
            let bits = self.below(65);
            if bits == 0 { 0 } else { (self.below(1 << 31) << 33 | self.below(1 << 31)) >> (64 - bits) }
        }

        fn stamp(&mut self) -> Option<Stamp> {
            let stamp =
                Stamp { ms: self.number(), counter: self.number() as u32, incarnation: self.number() };
            (self.below(3) > 0).then_some(stamp)
        }
    }

    fn chance() -> Chance {
        let seed = u64::from(std::process::id());
        eprintln!("seed {seed}");
        Chance(seed)
    }

    #[test]
    fn a_use_in_place_has_the_bytes_of_the_message() {
        let mut chance = chance();
        let mut room = Vec::new();
        for _ in 0..4_000 {
            let mechanism = MechanismMessage {
                number: chance.number(),
                kind: chance.below(6) as u32,
                iv: chance.bytes(),
                aad: chance.bytes(),
                tag_bits: chance.number(),
                hash: chance.number(),
                mgf: chance.number(),
                salt_bytes: chance.number(),
                label: chance.bytes(),
                mac_bytes: chance.number(),
            };
            let iv = (chance.below(2) == 0).then(|| chance.bytes());
            let (group, generation, ticket) = (chance.bytes(), chance.number(), chance.bytes());
            let key = ObjectRef {
                ouid: chance.bytes(),
                least: chance.stamp(),
                blob_hash: chance.bytes(),
                blob: chance.bytes(),
                changed: chance.bytes(),
            };
            let message = Use {
                function: chance.below(9) as u32,
                mechanism: Some(MechanismMessage {
                    iv: iv.clone().unwrap_or_else(|| mechanism.iv.clone()),
                    ..mechanism.clone()
                }),
                key: Some(key.clone()),
                plan: chance.stamp(),
                how: chance.below(9) as u32,
                data: chance.bytes(),
                signature: chance.bytes(),
                last: chance.below(2) == 0,
                state: chance.bytes(),
                part: chance.number(),
                pin: chance.bytes(),
            };
            let parts = UseParts {
                function: message.function,
                mechanism: &mechanism,
                iv: iv.as_deref(),
                ouid: &key.ouid,
                least: key.least,
                blob_hash: &key.blob_hash,
                blob: &key.blob,
                changed: &key.changed,
                plan: message.plan,
                how: message.how,
                data: &message.data,
                signature: &message.signature,
                last: message.last,
                state: &message.state,
                part: message.part,
                pin: &message.pin,
            };
            room.clear();
            parts.encode(&group, generation, &ticket, &mut room);
            let body = RequestBody { group, generation, ticket, call: Some(Call::Use(message.clone())) };
            assert!(room == body.encode_to_vec());
        }
    }

    #[test]
    fn an_answer_in_place_is_the_one_that_the_message_holds_and_nothing_else_is_taken_for_one() {
        let mut chance = chance();
        for _ in 0..2_000 {
            let (output, state) = (chance.bytes(), chance.bytes());
            let answer = UseAnswer { output: output.clone(), state: state.clone() };
            let body = ReplyBody { answer: Some(Answer::Use(answer)), ..ReplyBody::default() };
            let bytes = body.encode_to_vec();
            let (found, rest) = use_answer(&bytes).unwrap();
            assert!(bytes[found] == output && bytes[rest] == state);
            // Whatever is changed is refused, or read as `prost` reads it.
            let mut changed = bytes.clone();
            match chance.below(3) {
                0 => changed.push(chance.below(256) as u8),
                1 => changed.truncate(chance.below(bytes.len() as u64) as usize),
                _ => changed[chance.below(bytes.len().min(8) as u64) as usize] ^= 1 << chance.below(8),
            }
            if let Some((found, rest)) = use_answer(&changed) {
                let Some(Answer::Use(read)) = ReplyBody::decode(changed.as_slice()).unwrap().answer else {
                    panic!("read as another answer")
                };
                assert!(changed[found] == read.output && changed[rest] == read.state);
            }
        }
        let refused = [
            ReplyBody { outcome: 1, rv: 5, ..ReplyBody::default() },
            ReplyBody { answer: Some(Answer::Store(Done {})), ..ReplyBody::default() },
            ReplyBody {
                text: "late".into(),
                answer: Some(Answer::Use(UseAnswer::default())),
                ..ReplyBody::default()
            },
            ReplyBody::default(),
        ];
        assert!(refused.iter().all(|body| use_answer(&body.encode_to_vec()).is_none()));
    }
}
