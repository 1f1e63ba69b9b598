//! Wiping memory that is used again: what was written is overwritten, and no more, at the speed of a fill.
use zeroize::{Zeroizing, optimization_barrier};

/// Overwrites the bytes with zeros, which the compiler may not leave out.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

/// Wipes what a buffer holds and empties it; its memory stays. For buffers that never grew out of older memory and whose
/// unused room was wiped before.
pub fn wipe_out(buffer: &mut Vec<u8>) {
    wipe(buffer);
    buffer.clear();
}

/// Wipes all of a buffer's memory, what was in use before included, and gives it up. `Zeroizing` does the same byte by byte, which
/// takes longer than the encryption of as much.
pub fn discard(mut buffer: Vec<u8>) {
    wipe_memory(&mut buffer);
}

/// As [`discard`], for a buffer that wipes itself: it has nothing left to do.
pub fn discard_zeroizing(mut buffer: Zeroizing<Vec<u8>>) {
    discard(std::mem::take(&mut *buffer));
}

/// As [`discard_zeroizing`], for a buffer in which nothing but what it holds was ever written: memory that was reserved and not
/// used is not touched.
pub fn discard_written(mut buffer: Zeroizing<Vec<u8>>) {
    wipe(&mut buffer);
    drop(std::mem::take(&mut *buffer));
}

/// Wipes all of a buffer's memory and empties it.
pub fn wipe_memory(buffer: &mut Vec<u8>) {
    buffer.clear();
    // Within its memory: zeros over all of it, at the speed of a fill.
    buffer.resize(buffer.capacity(), 0);
    optimization_barrier(buffer.as_slice());
    buffer.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiping_all_of_a_buffers_memory_moves_nothing_and_leaves_it_empty() {
        let mut buffer = vec![7; 100];
        buffer.truncate(10);
        let (address, capacity) = (buffer.as_ptr(), buffer.capacity());
        wipe_memory(&mut buffer);
        assert_eq!((buffer.as_ptr(), buffer.len(), buffer.capacity()), (address, 0, capacity));
        let mut kept = Zeroizing::new(vec![7; 100]);
        wipe_memory(&mut kept);
        assert!(kept.is_empty());
        discard_zeroizing(kept);
        discard_written(Zeroizing::new(vec![7; 100]));
        discard(Vec::new());
    }

    #[test]
    fn what_was_written_is_gone_and_the_memory_stays() {
        let mut buffer = vec![7; 100];
        let capacity = buffer.capacity();
        wipe(&mut buffer[10..20]);
        assert!(buffer.iter().enumerate().all(|(at, byte)| (*byte == 0) == (10..20).contains(&at)));
        wipe_out(&mut buffer);
        assert_eq!((buffer.len(), buffer.capacity()), (0, capacity));
        buffer.resize(100, 1);
        assert!(buffer.iter().all(|byte| *byte == 1));
    }
}
