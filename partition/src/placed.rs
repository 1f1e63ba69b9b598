//! The output of a use in memory that can become the reply to it, so that a long one is copied no second time.
//!
//! ```text
//! | room for the head | output |    the head is as long as expected: written into the room, and all of it is the reply
//! | output |                        a short output, or one that was made elsewhere: copied behind its head
//! ```
use std::ops::{Deref, DerefMut};

use prost::bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use spec::messages::UseParts;
use spec::wipe::discard_zeroizing;
use zeroize::{Zeroize, Zeroizing};

/// A shorter output is copied into its reply: the memory of short replies is used again.
pub(crate) const MOVED_BYTES_MIN: usize = 16 << 10;

/// An output, and the room in front of it. All of the memory is wiped when it is dropped.
#[derive(Default)]
pub struct Placed {
    memory: Zeroizing<Vec<u8>>,
    /// Where the output begins: never behind the end of what the memory holds.
    start: usize,
}

impl Placed {
    /// A copy of the data to be worked on in place, until it is an output of so many bytes. It has the room for these, and for the
    /// head of the reply if they are many.
    pub(crate) fn working_copy(data: &[u8], output_bytes: usize) -> Placed {
        let start = if output_bytes < MOVED_BYTES_MIN { 0 } else { head_bytes(output_bytes) };
        let mut memory = Zeroizing::new(Vec::with_capacity(start + data.len().max(output_bytes)));
        memory.resize(start, 0);
        memory.extend_from_slice(data);
        Placed { memory, start }
    }

    /// Appends bytes for which there is room: growth would leave a copy behind.
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        debug_assert!(self.memory.capacity() - self.memory.len() >= bytes.len(), "no growth");
        self.memory.extend_from_slice(bytes);
    }

    /// Keeps the first so many bytes and wipes the others.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        if let Some(others) = self.get_mut(bytes..) {
            others.zeroize();
            self.memory.truncate(self.start + bytes);
        }
    }

    /// The encoded reply that carries this output and nothing else, in the same place. Gives the output back if the room in front
    /// of it is not that of its head.
    pub(crate) fn into_reply(mut self) -> Result<Zeroizing<Vec<u8>>, Placed> {
        let bytes = self.len();
        if self.start != head_bytes(bytes) {
            return Err(self);
        }
        put_head(bytes, &mut &mut self.memory[..self.start]);
        Ok(std::mem::take(&mut self.memory))
    }

    /// The output alone.
    pub(crate) fn into_bytes(mut self) -> Zeroizing<Vec<u8>> {
        self.memory.drain(..self.start);
        std::mem::take(&mut self.memory)
    }
}

impl From<Zeroizing<Vec<u8>>> for Placed {
    fn from(memory: Zeroizing<Vec<u8>>) -> Placed {
        Placed { memory, start: 0 }
    }
}

impl Deref for Placed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

impl DerefMut for Placed {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // What became a reply has left no memory.
        if self.memory.capacity() > 0 {
            discard_zeroizing(std::mem::take(&mut self.memory));
        }
    }
}

/// Length of what stands in front of an output of so many bytes in a reply that carries nothing else.
fn head_bytes(output_bytes: usize) -> usize {
    let inside = inside_bytes(output_bytes);
    key_len(UseParts::NUMBER) + encoded_len_varint(inside as u64) + inside - output_bytes
}

/// Length of the answer in such a reply.
fn inside_bytes(output_bytes: usize) -> usize {
    key_len(1) + encoded_len_varint(output_bytes as u64) + output_bytes
}

fn put_head(output_bytes: usize, room: &mut impl BufMut) {
    encode_key(UseParts::NUMBER, WireType::LengthDelimited, room);
    encode_varint(inside_bytes(output_bytes) as u64, room);
    encode_key(1, WireType::LengthDelimited, room);
    encode_varint(output_bytes as u64, room);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_in_front_is_as_long_as_the_head_of_the_expected_output_and_short_outputs_have_none() {
        let border = 1 << 21;
        for (bytes, room) in [
            (0, 0),
            (MOVED_BYTES_MIN - 1, 0),
            (MOVED_BYTES_MIN, 8),
            (border - 5, 8),
            (border - 4, 9),
            (border - 1, 9),
            (border, 10),
        ] {
            let copy = Placed::working_copy(b"data", bytes);
            assert_eq!((copy.start, &*copy), (room, &b"data"[..]), "{bytes}");
            assert_eq!(copy.memory.capacity(), room + bytes.max(4), "{bytes}");
            let mut head = Vec::new();
            put_head(bytes, &mut head);
            assert_eq!(head_bytes(bytes), head.len(), "{bytes}");
        }
    }

    #[test]
    fn what_is_truncated_and_appended_leaves_the_rest_where_it_is() {
        let mut copy = Placed::working_copy(&[7; MOVED_BYTES_MIN], MOVED_BYTES_MIN);
        let place = copy.as_ptr();
        copy.truncate(MOVED_BYTES_MIN + 1);
        assert_eq!(copy.len(), MOVED_BYTES_MIN);
        copy.truncate(10);
        copy.extend_from_slice(b"more");
        assert_eq!(copy.as_ptr(), place);
        assert_eq!(*copy.into_bytes(), [&[7; 10][..], b"more"].concat());
    }
}
