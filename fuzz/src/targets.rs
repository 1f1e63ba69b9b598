//! The targets: whatever comes from the wire, the application's files or a client that skips the library.

use std::path::Path;

use client::conf::configuration::Configuration;
use client::conf::parse::parse;
use ntls::frame::FrameReader;
use prost::Message;
use spec::messages::{Hello, HelloReply, ReplyBody, RequestBody};

/// Frames as they come out of TLS, in one piece and byte by byte: the same frames, or an error, never a panic.
pub fn frames(input: &[u8]) {
    let whole = read_frames(&[input]);
    let pieces: Vec<&[u8]> = input.chunks(3).collect();
    assert_eq!(whole, read_frames(&pieces), "frames do not depend on how the bytes arrive");
}

/// How many frames came, and whether reading ended in an error.
fn read_frames(pieces: &[&[u8]]) -> (usize, bool) {
    let mut reader = FrameReader::new();
    let mut frames = 0;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match reader.take(&mut rest) {
                Ok(Some(_)) => frames += 1,
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// Bodies: what decodes encodes again and decodes to the same.
pub fn bodies(input: &[u8]) {
    if let Ok(body) = RequestBody::decode(input) {
        let again = RequestBody::decode(body.encode_to_vec().as_slice());
        assert!(again.is_ok_and(|again| again == body));
    }
    if let Ok(body) = ReplyBody::decode(input) {
        let again = ReplyBody::decode(body.encode_to_vec().as_slice());
        assert!(again.is_ok_and(|again| again == body));
    }
    let _ = Hello::decode(input);
    let _ = HelloReply::decode(input);
}

/// `Chrystoki.conf`: an error with a place, or a configuration; a document is written as it was read.
pub fn configuration(input: &[u8]) {
    let file = Path::new("Chrystoki.conf");
    let _ = Configuration::from_bytes(input, file);
    if let Ok(document) = parse(input, file) {
        let text = document.to_text();
        assert!(parse(text.as_bytes(), file).is_ok_and(|again| again.to_text() == text));
    }
}
