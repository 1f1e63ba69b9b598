//! Files mapped into memory for the metrics pages (`client::Mapper`): the one place that shares memory with other processes.
//!
//! A page lies in a folder and a file of this user alone, is written whole before it is mapped, and nobody of ours shortens it:
//! a file that is cut while it is mapped would end the process at the next count (SIGBUS).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use client::{Mapper, Mapping};

/// Maps files shared.
pub(super) struct SharedFiles;

impl Mapper for SharedFiles {
    fn map(&self, file: &File, words: usize) -> io::Result<Box<dyn Mapping>> {
        Ok(Box::new(Mapped::new(file, words)?))
    }
}

/// Words of a file, mapped until this goes.
struct Mapped {
    start: NonNull<AtomicU64>,
    words: usize,
    bytes: usize,
}

// SAFETY: the memory belongs to this value alone until `drop` gives it back, and is only reached as atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above: any number of threads may use atomics at once.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first so many words of a file.
    ///
    /// # Errors
    /// `InvalidInput` for no words at all or a file that is shorter, and those of the system.
    fn new(file: &File, words: usize) -> io::Result<Mapped> {
        let bytes = words.checked_mul(size_of::<AtomicU64>()).filter(|bytes| *bytes > 0);
        let long_enough = |bytes: &usize| {
            file.metadata().is_ok_and(|meta| u64::try_from(*bytes).is_ok_and(|bytes| meta.len() >= bytes))
        };
        let Some(bytes) = bytes.filter(long_enough) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("wanted a file of at least {words} words of 8 bytes, found a shorter one"),
            ));
        };
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: no address is asked for, so nothing that is mapped is replaced; the file is open and at least that long.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, shared, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Mapped { start, words, bytes }),
            None => Err(io::Error::other("the system mapped a file at address zero")),
        }
    }
}

impl Mapping for Mapped {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `new` has mapped so many words here, at the start of a page of memory and hence aligned; they stay mapped
        // as long as this value, which the slice borrows, and everyone else changes them as whole words too.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped; no slice of it outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering;

    fn file(bytes: usize) -> File {
        let path = std::env::temp_dir().join(format!(
            "hatoki-mapping-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(&vec![0; bytes]).unwrap();
        file
    }

    #[test]
    fn what_is_counted_stands_in_the_file_and_what_the_file_gets_is_seen() {
        let file = file(80);
        let mapped = SharedFiles.map(&file, 10).unwrap();
        assert_eq!(mapped.words().len(), 10);
        mapped.words()[9].fetch_add(7, Ordering::Relaxed);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 72).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 7);
        file.write_all_at(&5_u64.to_ne_bytes(), 0).unwrap();
        assert_eq!(mapped.words()[0].load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_short_file_no_words_and_too_many_are_refused() {
        let file = file(79);
        for words in [10, 0, usize::MAX, usize::MAX / 8] {
            let refused = SharedFiles.map(&file, words).err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{words}");
        }
        assert_eq!(SharedFiles.map(&file, 9).unwrap().words().len(), 9);
    }

    #[test]
    fn a_file_that_may_not_be_written_is_refused() {
        let path = std::env::temp_dir().join(format!("hatoki-mapping-read-{}", std::process::id()));
        std::fs::write(&path, [0; 16]).unwrap();
        let read_only = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(SharedFiles.map(&read_only, 1).is_err());
    }
}
