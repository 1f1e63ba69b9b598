//! What a link has yet to send: in pieces that never grow out of their memory, so that nothing of a reply stays behind
//! unwiped; with the bytes that its replies hold.
use std::collections::VecDeque;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::memory::{Held, Memory};

/// Room of a piece for small frames: one record of TLS.
const PIECE_BYTES: usize = 16 << 10;

/// Bytes in the order of their sending.
pub(crate) struct Outbox {
    pieces: VecDeque<Zeroizing<Vec<u8>>>,
    bytes: usize,
    held: Held,
}

impl Outbox {
    /// Nothing yet; what its replies hold counts in `memory`.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, held: memory.hold(0) }
    }

    /// Bytes to send.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Adds bytes that are no secret and small: a frame of control.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some(last) if last.capacity() - last.len() >= bytes.len() => last.extend_from_slice(bytes),
            _ => {
                let mut piece = Zeroizing::new(Vec::with_capacity(bytes.len().max(PIECE_BYTES)));
                piece.extend_from_slice(bytes);
                self.pieces.push_back(piece);
            }
        }
    }

    /// Adds a reply: the head of its frame and its body, which is moved when it is large.
    pub(crate) fn push_reply(&mut self, head: &[u8], body: Zeroizing<Vec<u8>>) {
        self.push(head);
        if body.len() < PIECE_BYTES {
            self.push(&body);
        } else {
            self.bytes += body.len();
            self.pieces.push_back(body);
        }
        self.held.resize(self.bytes);
    }

    /// The next piece to send; dropped, and with it wiped, by the sender.
    pub(crate) fn pop(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        // What is being sent is counted until the next is asked for.
        self.held.resize(self.bytes + piece.len());
        Some(piece)
    }

    /// Everything has been sent.
    pub(crate) fn sent(&mut self) {
        self.held.resize(self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_their_order_and_no_piece_grows() {
        let memory = Memory::new(1 << 20);
        let mut outbox = Outbox::new(&memory);
        let mut wanted = Vec::new();
        for number in 0..200_u8 {
            let small = vec![number; usize::from(number) * 7];
            let large = vec![!number; PIECE_BYTES + usize::from(number)];
            outbox.push(&[number; 13]);
            outbox.push_reply(&[number; 53], Zeroizing::new(small.clone()));
            wanted.extend([vec![number; 13], vec![number; 53], small].concat());
            if number % 50 == 0 {
                let (address, body) = (large.as_ptr(), Zeroizing::new(large.clone()));
                let moved = body.as_ptr();
                outbox.push_reply(&[], body);
                assert_eq!(outbox.pieces.back().unwrap().as_ptr(), moved, "not copied");
                assert_ne!(address, moved);
                wanted.extend(large);
            }
        }
        assert_eq!((outbox.len(), memory.held()), (wanted.len(), wanted.len()));
        let mut found = Vec::new();
        while let Some(piece) = outbox.pop() {
            assert!(piece.len() <= piece.capacity());
            found.extend_from_slice(&piece);
        }
        outbox.sent();
        assert!(found == wanted);
        assert_eq!((outbox.len(), memory.held()), (0, 0));
    }

    #[test]
    fn a_full_piece_is_followed_by_another_and_keeps_its_place() {
        let memory = Memory::new(1 << 20);
        let mut outbox = Outbox::new(&memory);
        outbox.push(&[1; PIECE_BYTES - 1]);
        let address = outbox.pieces[0].as_ptr();
        outbox.push(&[2]);
        outbox.push(&[3]);
        assert_eq!((outbox.pieces.len(), outbox.pieces[0].as_ptr()), (2, address));
    }
}
