//! What an operation gave, where it lies: a long output is not moved to the front of the memory that it came in.
use std::fmt;
use std::ops::Deref;

use spec::long;
use spec::wipe::wipe;
use zeroize::Zeroizing;

/// The output of an operation. All of its memory, with what stood in front of it in its reply, is wiped when it is dropped, and kept by
/// the thread if it is long.
#[derive(Clone, Default)]
pub struct Output {
    memory: Zeroizing<Vec<u8>>,
    start: usize,
}

impl Output {
    /// What this memory holds behind so many bytes.
    pub(crate) fn behind(start: usize, memory: Zeroizing<Vec<u8>>) -> Self {
        Self { start: start.min(memory.len()), memory }
    }

    /// The same bytes at the front of their memory.
    pub(crate) fn into_front(mut self) -> Zeroizing<Vec<u8>> {
        let bytes = self.len();
        self.memory.copy_within(self.start.., 0);
        wipe(self.memory.get_mut(bytes..).unwrap_or_default());
        self.memory.truncate(bytes);
        self.into_memory()
    }

    /// The memory, with whatever it holds.
    pub(crate) fn into_memory(mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.memory)
    }

    /// Appends bytes. When the memory has no room for them, all of it moves to memory for so many bytes, or for what there is
    /// if that is more.
    pub fn append(&mut self, more: &Output, room: usize) {
        let wanted = self.len() + more.len();
        if self.memory.capacity() - self.memory.len() < more.len() {
            let room = room.max(wanted);
            let mut larger = long::take(room).unwrap_or_else(|| Zeroizing::new(Vec::with_capacity(room)));
            larger.extend_from_slice(self);
            *self = larger.into();
        }
        self.memory.extend_from_slice(more);
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.memory.capacity() > 0 {
            long::give(std::mem::take(&mut self.memory));
        }
    }
}

impl Deref for Output {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }
}

impl From<Zeroizing<Vec<u8>>> for Output {
    fn from(memory: Zeroizing<Vec<u8>>) -> Self {
        Self { memory, start: 0 }
    }
}

impl PartialEq for Output {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Output {}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output[{}]", self.len())
    }
}

/// What the use of a key gave.
#[derive(Debug, Default)]
pub struct Used {
    /// Signature, ciphertext or plaintext; empty for a verdict.
    pub output: Output,
    /// The sealed running state for the next part.
    pub state: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(front: usize, bytes: &[u8], room: usize) -> Output {
        let mut memory = Vec::with_capacity(front + bytes.len() + room);
        memory.resize(front, 9);
        memory.extend_from_slice(bytes);
        Output::behind(front, Zeroizing::new(memory))
    }

    #[test]
    fn an_output_is_what_lies_behind_its_front_and_shows_nothing_of_itself() {
        let given = output(3, b"abc", 0);
        assert_eq!((&*given, format!("{given:?}")), (b"abc".as_slice(), "Output[3]".to_owned()));
        assert_eq!(given, output(0, b"abc", 5));
        assert_ne!(given, output(3, b"abd", 0));
        assert!(Output::behind(9, Zeroizing::new(vec![1])).is_empty());
        let front = given.into_front();
        assert_eq!((front.as_slice(), front.capacity() >= 6), (b"abc".as_slice(), true));
    }

    #[test]
    fn bytes_are_appended_where_there_is_room_and_all_is_moved_where_there_is_none() {
        let mut given = output(3, b"abc", 2);
        let place = given.as_ptr();
        given.append(&output(5, b"de", 0), 0);
        assert_eq!((&*given, given.as_ptr()), (b"abcde".as_slice(), place));
        given.append(&output(0, b"fgh", 0), 100);
        assert_eq!((&*given, given.memory.capacity()), (b"abcdefgh".as_slice(), 100));
        given.append(&Output::default(), 1_000);
        assert_eq!(given.memory.capacity(), 100);
        let mut none = Output::default();
        none.append(&output(4, b"x", 0), 0);
        assert_eq!(&*none, b"x");
    }
}
