//! The codec against every kind of frame, every cut of the stream and arbitrary bytes.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
use proptest::prelude::*;
use spec::messages::PartitionName;

use super::*;

fn one_of_each() -> Vec<Frame> {
    let body = Zeroizing::new(vec![7; 300]);
    let request = RequestHeader {
        tag: 1,
        partition: 2,
        attempt: 3,
        remaining_ms: 4,
        group_epoch: 5,
        incarnation: 6,
        at_least: 7,
        trace: 8,
    };
    let reply = ReplyHeader {
        tag: 1,
        incarnation: 2,
        seq: 3,
        credential_epoch: 4,
        manifest_epoch: 5,
        window: 6,
        queue: 7,
    };
    vec![
        Frame::Hello(Hello { version: 1, software: "test".into(), ..Hello::default() }),
        Frame::HelloReply(HelloReply {
            version: 1,
            partitions: vec![PartitionName { serial: 9, label: "p".into() }],
            ..HelloReply::default()
        }),
        Frame::Request(request, body.clone()),
        Frame::Reply(reply, body),
        Frame::Request(RequestHeader::default(), Zeroizing::default()),
        Frame::Progress(u64::MAX),
        Frame::Busy(3, 250),
        Frame::Cancel(4),
        Frame::Ping(5),
        Frame::Pong(6),
        Frame::Close("stopping".into()),
    ]
}

fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    for mut input in bytes.chunks(piece) {
        while let Some(frame) = reader.take(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty(), "a reader that wants more has used up its input");
    }
    Ok(frames)
}

#[test]
fn every_kind_survives_the_round_trip_in_pieces_of_every_size() {
    let frames = one_of_each();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).to_vec()).collect();
    for piece in [1, 2, 3, 7, 64, 1000, bytes.len()] {
        assert!(read_all(&bytes, piece).unwrap() == frames, "pieces of {piece}");
    }
}

#[test]
fn heads_and_whole_frames_agree() {
    for frame in one_of_each() {
        let whole = encode(&frame);
        match &frame {
            Frame::Request(header, body) => {
                assert_eq!([&request_head(header, body.len())[..], body].concat(), *whole);
            }
            Frame::Reply(header, body) => {
                assert_eq!([&reply_head(header, body.len())[..], body].concat(), *whole);
            }
            _ => {}
        }
    }
}

#[test]
fn a_truncated_frame_is_waited_for_and_never_given() {
    for frame in one_of_each() {
        let bytes = encode(&frame);
        for end in 0..bytes.len() {
            assert!(read_all(&bytes[..end], 5).unwrap().is_empty(), "{frame:?} cut at {end}");
        }
    }
}

#[test]
fn oversized_lengths_are_refused_from_the_head_alone() {
    let oversized = |length: u32, kind: u8| {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.push(kind);
        read_all(&bytes, 5)
    };
    let most = FRAME_BYTES_MAX as u32;
    assert_eq!(oversized(most + 1, 3), Err(FrameError::Length { found: FRAME_BYTES_MAX + 1 }));
    assert_eq!(oversized(u32::MAX, 3), Err(FrameError::Length { found: u32::MAX as usize }));
    assert_eq!(oversized(0, 3), Err(FrameError::Length { found: 0 }));
    assert_eq!(oversized(10, 0), Err(FrameError::Kind { found: 0 }));
    assert_eq!(oversized(10, 11), Err(FrameError::Kind { found: 11 }));
    assert!(matches!(oversized(most, 4), Err(FrameError::Bounds { .. })));
    assert!(matches!(oversized(10, 3), Err(FrameError::Bounds { kind: FrameKind::Request, found: 9 })));
    assert!(
        matches!(oversized(10, 8), Err(FrameError::Bounds { kind: FrameKind::Ping, found: 9 })),
        "one too many"
    );
    assert!(matches!(oversized(HELLO_BYTES_MAX as u32 + 2, 1), Err(FrameError::Bounds { .. })));
}

#[test]
fn a_body_given_back_is_wiped_and_holds_the_next_one() {
    let mut reader = FrameReader::new();
    let first = encode(&Frame::Reply(ReplyHeader::default(), Zeroizing::new(vec![7; 300])));
    let second = encode(&Frame::Reply(ReplyHeader::default(), Zeroizing::new(vec![8; 200])));
    let Some(Frame::Reply(_, body)) = reader.take(&mut &first[..]).unwrap() else { panic!("a reply") };
    let address = body.as_ptr();
    reader.lend(body);
    assert!(reader.spare[0].is_empty(), "nothing of it is left");
    let Some(Frame::Reply(_, body)) = reader.take(&mut &second[..]).unwrap() else { panic!("a reply") };
    assert_eq!((body.as_ptr(), &body[..]), (address, &[8; 200][..]));
    reader.lend(Zeroizing::new(Vec::with_capacity(SPARE_BYTES_MAX + 1)));
    assert!(reader.spare.is_empty(), "a large one is not kept");
    (0..100).for_each(|_| reader.lend(Zeroizing::new(vec![1; 10])));
    assert_eq!(reader.spare.len(), SPARE_MAX);
}

#[test]
fn a_claimed_length_costs_no_memory_before_the_bytes_come() {
    for (mut reader, ahead) in [(FrameReader::new(), AHEAD), (FrameReader::of_a_member(), AHEAD_OF_A_MEMBER)]
    {
        let head = request_head(&RequestHeader::default(), BODY_BYTES_MAX);
        assert!(reader.take(&mut head.as_slice()).unwrap().is_none());
        assert!(reader.body.as_ref().unwrap().capacity() <= FIRST_BODY_BYTES);
        // Nor much more than what has come, whatever comes.
        for come in [1, 1_000, FIRST_BODY_BYTES - 1_002, 2, 100_000, 200_000] {
            assert!(reader.take(&mut vec![0; come].as_slice()).unwrap().is_none());
            let body = reader.body.as_ref().unwrap();
            let most = (body.len() * ahead).max(FIRST_BODY_BYTES);
            assert!(body.capacity() <= most, "{} for {} bytes", body.capacity(), body.len());
        }
    }
}

/// The body of a request of so many bytes, which come 16 KiB at a time, and the rooms that it lay in.
fn read_in_pieces(mut reader: FrameReader, bytes: usize) -> (Zeroizing<Vec<u8>>, Vec<usize>) {
    let whole = encode(&Frame::Request(RequestHeader::default(), Zeroizing::new(vec![7; bytes])));
    let mut places = Vec::new();
    let mut found = None;
    for mut piece in whole.chunks(16 << 10) {
        found = reader.take(&mut piece).unwrap();
        places.extend(reader.body.as_ref().map(|body| (body.as_ptr(), body.capacity())));
    }
    places.dedup();
    let Some(Frame::Request(_, body)) = found else { panic!("a request") };
    assert!(body.len() == bytes && body.iter().all(|byte| *byte == 7));
    assert_eq!(places.last().map(|(place, _)| *place), Some(body.as_ptr()));
    (body, places.into_iter().map(|(_, room)| room).collect())
}

#[test]
fn a_body_of_a_mebibyte_from_a_member_is_moved_once_with_its_first_bytes() {
    let (_, rooms) = read_in_pieces(FrameReader::of_a_member(), (1 << 20) + 300);
    assert_eq!(rooms, [FIRST_BODY_BYTES, (1 << 20) + 300]);
}

#[test]
fn a_long_body_from_a_member_comes_into_memory_that_the_thread_keeps() {
    const BYTES: usize = 300_000;
    let (body, rooms) = read_in_pieces(FrameReader::of_a_member(), BYTES);
    assert_eq!(rooms, [FIRST_BODY_BYTES, BYTES]);
    let place = body.as_ptr();
    long::give(body);
    let (body, rooms) = read_in_pieces(FrameReader::new(), BYTES);
    assert_eq!(rooms, [64 << 10, 128 << 10, 256 << 10, BYTES], "an appliance keeps none");
    drop(body);
    let (body, rooms) = read_in_pieces(FrameReader::of_a_member(), BYTES);
    assert_eq!((body.as_ptr(), rooms), (place, vec![BYTES]));
}

#[test]
fn an_error_is_for_ever() {
    let mut reader = FrameReader::new();
    let mut bad: &[u8] = &[0, 0, 0, 9, 99];
    let error = reader.take(&mut bad).unwrap_err();
    let ping = encode(&Frame::Ping(1));
    assert_eq!(reader.take(&mut ping.as_slice()), Err(error));
    assert!(!reader.is_between_frames());
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let bytes = encode(&Frame::Close("ä".repeat(REASON_BYTES_MAX)));
    let frames = read_all(&bytes, 100).unwrap();
    assert!(matches!(&frames[..], [Frame::Close(reason)] if reason.len() == REASON_BYTES_MAX));
}

#[test]
fn debug_shows_no_body() {
    let frame = Frame::Request(RequestHeader::default(), Zeroizing::new(b"123456".to_vec()));
    assert_eq!(format!("{frame:?}"), "Request(tag 0, 6 bytes)");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1usize..64) {
        let _ = read_all(&bytes, piece);
    }

    #[test]
    fn arbitrary_bodies_behind_a_plausible_head_never_panic(
        kind in 0u8..13,
        length in 0u32..200,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut all = length.to_be_bytes().to_vec();
        all.push(kind);
        all.extend(bytes);
        let _ = read_all(&all, 17);
    }

    #[test]
    fn a_flipped_bit_never_panics_and_never_gives_the_same_frame(which in 0usize..11, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let frame = one_of_each().swap_remove(which);
        let mut bytes = encode(&frame).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(frames) = read_all(&bytes, 13) {
            prop_assert!(!frames.contains(&frame));
        }
    }

    #[test]
    fn bodies_of_every_size_survive(bytes in 0usize..200_000, piece in 1usize..100_000) {
        let frame = Frame::Reply(ReplyHeader::default(), Zeroizing::new(vec![3; bytes]));
        prop_assert!(read_all(&encode(&frame), piece).unwrap() == [frame]);
    }
}
