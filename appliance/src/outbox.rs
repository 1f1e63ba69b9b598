//! What a link has yet to send: in pieces that never grow out of their memory, so that nothing of a reply stays behind
//! unwiped; with the bytes that its replies hold. Empty pieces for small frames belong to the thread, not to the link.
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use spec::wipe::{discard_zeroizing, wipe_out};
use zeroize::Zeroizing;

use crate::memory::{Held, Memory};

/// Room of a piece for small frames: one record of TLS.
const PIECE_BYTES: usize = 16 << 10;
/// Empty pieces that a thread keeps.
const SPARE_MAX: usize = 4;

type Piece = Zeroizing<Vec<u8>>;

thread_local!(static SPARE: RefCell<Vec<Piece>> = const { RefCell::new(Vec::new()) });

/// Bytes in the order of their sending.
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have been given out.
    given: usize,
    bytes: usize,
    held: Held,
}

impl Outbox {
    /// Nothing yet; what its replies hold counts in `memory`.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self { pieces: VecDeque::new(), given: 0, bytes: 0, held: memory.hold(0) }
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
                let mut piece = empty_piece(bytes.len());
                piece.extend_from_slice(bytes);
                self.pieces.push_back(piece);
            }
        }
    }

    /// Adds a reply: the head of its frame and its body. A small one is copied, and wiped where it was; its memory can be
    /// used again. A large one is moved and counted at once.
    pub(crate) fn push_reply(&mut self, head: &[u8], body: &mut Zeroizing<Vec<u8>>) {
        self.push(head);
        if body.len() < PIECE_BYTES {
            self.push(body);
            wipe_out(body);
        } else {
            self.bytes += body.len();
            self.pieces.push_back(std::mem::take(body));
            self.count();
        }
    }

    /// Counts what has been added as held: to be called once for a batch of small replies.
    pub(crate) fn count(&mut self) {
        self.held.resize(self.bytes);
    }

    /// The next bytes to send, so many at most; what was given out before is wiped.
    pub(crate) fn next(&mut self, most: usize) -> Option<&[u8]> {
        while self.pieces.front().is_some_and(|piece| piece.len() == self.given) {
            self.given = 0;
            self.pieces.pop_front().into_iter().for_each(put_back);
        }
        let piece = self.pieces.front()?;
        let rest = piece.get(self.given..).unwrap_or_default();
        let next = rest.get(..most).unwrap_or(rest);
        self.given += next.len();
        self.bytes -= next.len();
        // What is being sent is counted until the next is asked for.
        self.held.resize(self.bytes + next.len());
        Some(next)
    }

    /// Everything has been sent.
    pub(crate) fn sent(&mut self) {
        self.held.resize(self.bytes);
    }
}

fn empty_piece(bytes: usize) -> Piece {
    let spare = if bytes <= PIECE_BYTES { SPARE.with(|spare| spare.borrow_mut().pop()) } else { None };
    spare.unwrap_or_else(|| Zeroizing::new(Vec::with_capacity(bytes.max(PIECE_BYTES))))
}

/// Wipes what a piece held. One of the usual size is kept, so that its unused room need not be wiped each time.
fn put_back(mut piece: Piece) {
    if piece.capacity() != PIECE_BYTES {
        return discard_zeroizing(piece);
    }
    wipe_out(&mut piece);
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(piece);
        }
    });
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
            outbox.push_reply(&[number; 53], &mut Zeroizing::new(small.clone()));
            wanted.extend([vec![number; 13], vec![number; 53], small].concat());
            if number % 50 == 0 {
                let (address, mut body) = (large.as_ptr(), Zeroizing::new(large.clone()));
                let moved = body.as_ptr();
                outbox.push_reply(&[], &mut body);
                assert_eq!(outbox.pieces.back().unwrap().as_ptr(), moved, "not copied");
                assert_ne!(address, moved);
                wanted.extend(large);
            }
        }
        outbox.count();
        assert_eq!((outbox.len(), memory.held()), (wanted.len(), wanted.len()));
        assert!(outbox.pieces.iter().all(|piece| piece.len() <= piece.capacity()));
        let mut found = Vec::new();
        while let Some(next) = outbox.next(5_000) {
            assert!((1..=5_000).contains(&next.len()));
            found.extend_from_slice(next);
            assert_eq!(outbox.len(), wanted.len() - found.len());
        }
        outbox.sent();
        assert!(found == wanted);
        assert_eq!((outbox.len(), memory.held()), (0, 0));
    }

    #[test]
    fn a_piece_that_has_been_sent_is_wiped_and_used_again() {
        let memory = Memory::new(1 << 20);
        let mut outbox = Outbox::new(&memory);
        let mut body = Zeroizing::new(vec![2; 200]);
        outbox.push_reply(&[1; 53], &mut body);
        assert!(body.is_empty() && body.capacity() == 200, "to be used again");
        let address = outbox.pieces[0].as_ptr();
        assert_eq!(outbox.next(PIECE_BYTES).map(<[u8]>::len), Some(253));
        assert!(outbox.next(PIECE_BYTES).is_none());
        SPARE.with(|spare| assert!(spare.borrow().iter().any(|piece| piece.as_ptr() == address)));
        let mut other = Outbox::new(&memory);
        other.push(&[3]);
        assert_eq!((other.pieces[0].as_ptr(), other.pieces[0].len()), (address, 1));
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
