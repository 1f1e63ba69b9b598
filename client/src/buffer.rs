//! Data gathered for one operation: bounded for the operation and for the process, wiped when it goes (RULES 1.6).
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spec::Rv;
use spec::wipe::discard_zeroizing;
use zeroize::Zeroizing;

/// Most that one operation gathers, in bytes.
pub(crate) const OPERATION_BYTES_MAX: usize = 16 << 20;

/// The room of the process.
pub(crate) struct Pool {
    bytes_max: AtomicUsize,
    taken: AtomicUsize,
}

impl Pool {
    /// A pool of so many mebibytes.
    pub(crate) fn new(mib: u32) -> Arc<Self> {
        Arc::new(Self { bytes_max: AtomicUsize::new(bytes_of(mib)), taken: AtomicUsize::new(0) })
    }

    /// Another size from now on; what has been taken stays.
    pub(crate) fn resize(&self, mib: u32) {
        self.bytes_max.store(bytes_of(mib), Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }
}

fn bytes_of(mib: u32) -> usize {
    usize::try_from(mib).unwrap_or(usize::MAX).saturating_mul(1 << 20)
}

/// Gathered data.
pub(crate) struct Buffer {
    pool: Arc<Pool>,
    bytes: Zeroizing<Vec<u8>>,
    bytes_max: usize,
    reserved: usize,
}

impl Buffer {
    /// An empty buffer that takes at most so many bytes.
    pub(crate) fn new(pool: &Arc<Pool>, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(OPERATION_BYTES_MAX);
        Self { pool: pool.clone(), bytes: Zeroizing::default(), bytes_max, reserved: 0 }
    }

    /// What has been gathered.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes more. A grown buffer's old memory is wiped.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE beyond a bound; nothing is taken then.
    pub(crate) fn extend(&mut self, data: &[u8]) -> Result<(), Rv> {
        let bytes = self.bytes.len().checked_add(data.len()).filter(|bytes| *bytes <= self.bytes_max);
        let bytes = bytes.ok_or(Rv::DATA_LEN_RANGE)?;
        if bytes > self.reserved {
            let wanted = bytes.max(self.reserved.saturating_mul(2)).clamp(1024, self.bytes_max.max(1024));
            if !self.pool.take(wanted - self.reserved) {
                return Err(Rv::DATA_LEN_RANGE);
            }
            self.reserved = wanted;
            let mut grown = Zeroizing::new(Vec::with_capacity(wanted));
            grown.extend_from_slice(&self.bytes);
            discard_zeroizing(std::mem::replace(&mut self.bytes, grown));
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        discard_zeroizing(std::mem::take(&mut self.bytes));
        self.pool.taken.fetch_sub(self.reserved, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_and_the_process_have_their_bounds_and_dropping_gives_room_back() {
        let pool = Pool::new(1);
        let mut small = Buffer::new(&pool, 10);
        small.extend(&[1; 10]).unwrap();
        assert_eq!(small.extend(&[1]), Err(Rv::DATA_LEN_RANGE));
        assert_eq!(small.bytes(), [1; 10]);
        let mut large = Buffer::new(&pool, usize::MAX);
        assert_eq!(large.extend(&vec![0; 1 << 20]), Err(Rv::DATA_LEN_RANGE));
        drop(small);
        large.extend(&vec![0; 1 << 20]).unwrap();
        drop(large);
        assert_eq!(pool.taken.load(Ordering::Acquire), 0);
    }
}
