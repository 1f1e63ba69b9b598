//! The metrics page of one group ([`spec::stats`]): made with the group, counted into without a lock or a system call,
//! removed with C_Finalize. A forked child makes its own (HA 6); whoever dies leaves a page that tools pass over.
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use spec::meter::{Ended, Moved};
use spec::seam::MemberId;
use spec::stats::{self, Birth, Layout, State, call, header, member};

use crate::atoms::Word;
use crate::outlet::quietly;

/// Words of a file that other processes read while they change.
pub trait Mapping<W = AtomicU64>: Send + Sync {
    /// The words, as many as were asked for.
    fn words(&self) -> &[W];
}

/// Maps files into memory: what the C boundary can do and safe code cannot.
pub trait Mapper: Sync {
    /// Maps the first so many 64-bit words of a file, shared with all who map or read it.
    ///
    /// # Errors
    /// Those of the system, and when the file is shorter.
    fn map(&self, file: &File, words: usize) -> io::Result<Box<dyn Mapping>>;
}

/// Members beyond the configured ones that a page has room for.
const MEMBERS_SPARE: usize = 4;
/// Room for at least so many members.
const MEMBERS_MIN: usize = 8;

/// See the head of this file.
pub(crate) struct Page<W = AtomicU64> {
    mapping: Box<dyn Mapping<W>>,
    layout: Layout,
    /// The serial numbers of the page again, close together.
    places: Places<W>,
    file: PathBuf,
}

/// Which member stands at which place: each place is taken once, for ever.
pub(crate) struct Places<W = AtomicU64>(Box<[W]>);

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// As before.
    Old(usize),
    /// From now on.
    New(usize),
    /// Nowhere: others have all the room.
    None,
}

impl<W: Word> Places<W> {
    /// So many free places.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| W::new(0)).collect())
    }

    /// The place of a member; a new one gets the first that is free.
    pub(crate) fn find(&self, id: u64) -> Place {
        for (at, place) in self.0.iter().enumerate() {
            let mut found = place.load(Ordering::Acquire);
            if found == 0 {
                match place.compare_exchange(0, id, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Place::New(at),
                    Err(other) => found = other,
                }
            }
            if found == id {
                return Place::Old(at);
            }
        }
        Place::None
    }
}

impl Page {
    /// Makes the page of a group with so many configured members in a folder that is this user's alone.
    ///
    /// # Errors
    /// A sentence: what was wanted, what was found.
    pub(crate) fn create(
        mapper: &dyn Mapper,
        folder: &Path,
        birth: &Birth<'_>,
        members: usize,
    ) -> Result<Page, String> {
        let layout = Layout::new(members.saturating_add(MEMBERS_SPARE).max(MEMBERS_MIN));
        let name = stats::file_name(birth.pid, birth.serial);
        let file = write(folder, &name, &stats::new_page(&layout, birth))?;
        let mapping = mapper.map(&file, layout.words());
        let mapping = mapping.map_err(|error| {
            let _ = std::fs::remove_file(folder.join(&name));
            format!("wanted to map the metrics page {}, found: {error}", folder.join(&name).display())
        })?;
        Ok(Page::over(mapping, layout, folder.join(name)))
    }

    /// Removes the file; what maps it counts on unseen.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Counting. Each word is told after what belongs to it: whoever reads a page from its first word to its last finds no send
/// that is answered without its time, and no state without its moment (checked by `loom` in `models.rs`).
impl<W: Word> Page<W> {
    /// A page in these words, which are those of a new one.
    pub(crate) fn over(mapping: Box<dyn Mapping<W>>, layout: Layout, file: PathBuf) -> Self {
        Self { mapping, layout, places: Places::new(layout.members()), file }
    }

    /// Counts the end of one send.
    pub(crate) fn ended(&self, member: MemberId, number: u32, ended: Ended, took: Duration) {
        let Some(start) = self.cell(member, number) else { return };
        if ended == Ended::Answered {
            let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.add(start + call::SUM_NS, ns);
            self.add(start + stats::HISTOGRAM + stats::bucket_of(ns), 1);
            if let Some(longest) = self.word(start + call::MAX_NS)
                && longest.load(Ordering::Relaxed) < ns
            {
                longest.fetch_max(ns, Ordering::Release);
            }
        }
        self.add(start + stats::ended_word(ended), 1);
    }

    /// Counts a request that one member gave and another one took.
    pub(crate) fn moved(&self, from: MemberId, to: MemberId, number: u32, why: Moved) {
        if let Some(start) = self.cell(from, number) {
            self.add(start + stats::moved_word(why), 1);
        }
        if let Some(start) = self.cell(to, number) {
            self.add(start + call::TAKEN_OVER, 1);
        }
    }

    /// Counts one more of what a word of a member counts ([`spec::stats::member`]).
    pub(crate) fn count(&self, id: MemberId, word: usize) {
        if let Some(at) = self.place(id) {
            self.add(self.layout.member(at) + word, 1);
        }
    }

    /// A member's state from this moment on.
    pub(crate) fn set_state(&self, id: MemberId, state: State, wall_ms: u64) {
        let Some(at) = self.place(id) else { return };
        self.set(self.layout.member(at) + member::SINCE_MS, wall_ms);
        self.set(self.layout.member(at) + member::STATE, state.number());
    }

    /// Sets a word of the header.
    pub(crate) fn set(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Release);
        }
    }

    /// Adds to a word.
    pub(crate) fn add(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.fetch_add(value, Ordering::Release);
        }
    }

    /// The label as the manifest tells it.
    pub(crate) fn set_label(&self, label: &str) {
        for (at, word) in stats::label_words(label).into_iter().enumerate() {
            self.set(header::LABEL + at, word);
        }
    }

    fn word(&self, at: usize) -> Option<&W> {
        self.mapping.words().get(at)
    }

    fn cell(&self, member: MemberId, number: u32) -> Option<usize> {
        let at = self.place(member)?;
        let column = stats::column_of(number)?;
        Some(self.layout.call(at, column))
    }

    /// The member's place; a new one gets the first that is free. `None`, and counted, when there is no room.
    fn place(&self, id: MemberId) -> Option<usize> {
        if id.0 == 0 {
            return None;
        }
        match self.places.find(id.0) {
            Place::Old(at) => Some(at),
            Place::New(at) => {
                self.set(self.layout.member(at) + member::SERIAL, id.0);
                Some(at)
            }
            Place::None => {
                self.add(header::NOT_COUNTED, 1);
                None
            }
        }
    }
}

impl<W> fmt::Debug for Page<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({})", self.file.display())
    }
}

/// Writes a new file in place of whatever bears its name, so that a reader finds the whole of it or nothing. All of it is
/// written, not left as a hole: a full file system is noticed here and not when a word is counted.
fn write(folder: &Path, name: &str, words: &[u64]) -> Result<File, String> {
    let dir = open_folder(folder)?;
    let failed = |error: &dyn fmt::Display| {
        format!("wanted to write the metrics page {}, found: {error}", folder.join(name).display())
    };
    let new = format!(".{name}");
    let _ = rustix::fs::unlinkat(&dir, &new, AtFlags::empty());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(&dir, &new, flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed(&error))?;
    let mut file = File::from(file);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut written = Ok(());
    quietly(|| written = file.write_all(&bytes));
    let written =
        written.and_then(|()| rustix::fs::renameat(&dir, &new, &dir, name).map_err(io::Error::from));
    if let Err(error) = written {
        let _ = rustix::fs::unlinkat(&dir, &new, AtFlags::empty());
        return Err(failed(&error));
    }
    Ok(file)
}

/// Opens the folder, made if need be; one that others may write to, or that is another user's, is refused.
fn open_folder(folder: &Path) -> Result<rustix::fd::OwnedFd, String> {
    let wanted = "wanted a folder of mode 0700 of this user for metrics pages";
    let advice = "set Hatoki: StatsPath to another folder, or to off";
    match rustix::fs::mkdir(folder, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => {
            return Err(format!(
                "{wanted}, found that {} cannot be made: {error}; {advice}",
                folder.display()
            ));
        }
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let found = rustix::fs::open(folder, flags, Mode::empty())
        .and_then(|dir| rustix::fs::fstat(&dir).map(|stat| (dir, stat)));
    match found {
        Ok((dir, stat))
            if stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0 =>
        {
            Ok(dir)
        }
        Ok((_, stat)) => Err(format!(
            "{wanted}, found {} of user {} and mode {:04o}; {advice}",
            folder.display(),
            stat.st_uid,
            stat.st_mode & 0o7777
        )),
        Err(error) => {
            Err(format!("{wanted}, found that {} cannot be opened: {error}; {advice}", folder.display()))
        }
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
pub(crate) mod tests;
