//! Wiping memory that is used again: what was written is overwritten, and no more, at the speed of a fill.
use zeroize::optimization_barrier;

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

#[cfg(test)]
mod tests {
    use super::*;

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
