//! Tests of the hot messages: the bytes in place are those of the `prost` messages.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

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
        let stamp = Stamp { ms: self.number(), counter: self.number() as u32, incarnation: self.number() };
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
        let [least, plan] = [key.least, message.plan].map(|stamp| stamp.map(EncodedStamp::from));
        let parts = UseParts {
            function: message.function,
            mechanism: &mechanism,
            iv: iv.as_deref(),
            ouid: &key.ouid,
            least: least.as_ref(),
            blob_hash: &key.blob_hash,
            blob: &key.blob,
            changed: &key.changed,
            plan: plan.as_ref(),
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

const LONGEST: Stamp = Stamp { ms: u64::MAX, counter: u32::MAX, incarnation: u64::MAX };

/// A use with a key of 16 bytes and these stamps, numbers and data.
fn encoded(stamp: Option<Stamp>, number: u64, data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    encoded_in(Vec::new(), stamp, number, data)
}

/// As [`encoded`], in a room that there is.
fn encoded_in(mut room: Vec<u8>, stamp: Option<Stamp>, number: u64, data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let short = u32::try_from(number).unwrap_or(u32::MAX);
    let mechanism = MechanismMessage {
        number,
        kind: short,
        tag_bits: number,
        hash: number,
        mgf: number,
        salt_bytes: number,
        mac_bytes: number,
        ..MechanismMessage::default()
    };
    let key = ObjectRef { ouid: vec![7; 16], least: stamp, ..ObjectRef::default() };
    let encoded = stamp.map(EncodedStamp::from);
    let parts = UseParts {
        function: short,
        mechanism: &mechanism,
        iv: None,
        ouid: &key.ouid,
        least: encoded.as_ref(),
        blob_hash: &[],
        blob: &[],
        changed: &[],
        plan: encoded.as_ref(),
        how: short,
        data,
        signature: &[],
        last: true,
        state: &[],
        part: number,
        pin: &[],
    };
    parts.encode(&[1; 16], number, &[2; 90], &mut room);
    let call = Use {
        function: short,
        mechanism: Some(mechanism.clone()),
        key: Some(key.clone()),
        plan: stamp,
        how: short,
        data: data.to_vec(),
        signature: Vec::new(),
        last: true,
        state: Vec::new(),
        part: number,
        pin: Vec::new(),
    };
    let body = RequestBody {
        group: vec![1; 16],
        generation: number,
        ticket: vec![2; 90],
        call: Some(Call::Use(call)),
    };
    (room, body.encode_to_vec())
}

#[test]
fn lengths_are_those_of_the_message_around_every_width() {
    for bytes in (0..200).chain(3_700..4_200).chain(16_200..16_500) {
        for stamp in [None, Some(LONGEST)] {
            let (room, message) = encoded(stamp, 1, &vec![3; bytes]);
            assert!(room == message, "{bytes}");
        }
    }
}

#[test]
fn the_memory_that_is_made_for_a_use_does_not_grow_while_it_is_written() {
    for bytes in [0, 3_000, 5_000] {
        let (room, message) = encoded(Some(LONGEST), u64::MAX, &vec![3; bytes]);
        assert!(room == message);
        let made = 16 + 90 + 16 + bytes + FRAME_BYTES_MAX;
        assert_eq!(room.capacity(), made.max(ROOM_BYTES_MIN), "{bytes}");
    }
}

#[test]
fn a_room_that_is_just_long_enough_is_used_and_one_that_is_shorter_is_not() {
    for (bytes, less) in [(0, 0), (0, 1), (3_000, 0), (3_000, 1), (100_000, 0), (100_000, 1)] {
        let wanted = 16 + 90 + 16 + bytes + FRAME_BYTES_MAX;
        let mut before = vec![0; wanted - less];
        before.clear();
        assert_eq!(before.capacity(), wanted - less);
        let place = before.as_ptr();
        let (room, message) = encoded_in(before, Some(LONGEST), u64::MAX, &vec![3; bytes]);
        assert!(room == message, "{bytes}");
        assert_eq!(room.as_ptr() == place, less == 0, "{bytes}, {less} less");
    }
}

#[test]
fn a_long_use_is_written_into_memory_that_the_thread_keeps() {
    let kept = zeroize::Zeroizing::new(Vec::with_capacity(200_000));
    let place = kept.as_ptr();
    crate::long::give(kept);
    let (room, message) = encoded(Some(LONGEST), u64::MAX, &[3; 100_000]);
    assert!(room == message && room.as_ptr() == place);
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
