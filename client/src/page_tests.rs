//! Tests of the metrics page's writer, with words of the heap in the place of a mapping.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use super::*;

/// Words of the heap that start as the file's.
pub(crate) struct Heap(pub(crate) Arc<Vec<AtomicU64>>);

impl Mapping for Heap {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// Keeps the words that it gave away, for a look at them.
#[derive(Default)]
pub(crate) struct HeapMapper(pub(crate) spec::platform::Lock<Vec<Arc<Vec<AtomicU64>>>>);

impl Mapper for HeapMapper {
    fn map(&self, file: &File, words: usize) -> io::Result<Box<dyn Mapping>> {
        let mut bytes = vec![0; words * 8];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0)?;
        let words = bytes.as_chunks::<8>().0.iter().map(|bytes| AtomicU64::new(u64::from_ne_bytes(*bytes)));
        let words: Arc<Vec<AtomicU64>> = Arc::new(words.collect());
        self.0.lock().push(words.clone());
        Ok(Box::new(Heap(words)))
    }
}

impl HeapMapper {
    pub(crate) fn read(&self, at: usize) -> stats::Page {
        let words = self.0.lock()[at].clone();
        let bytes: Vec<u8> =
            words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        stats::read(&bytes).unwrap()
    }
}

struct NoMapper;

impl Mapper for NoMapper {
    fn map(&self, _: &File, _: usize) -> io::Result<Box<dyn Mapping>> {
        Err(io::Error::other("planted"))
    }
}

const BIRTH: Birth<'static> = Birth { pid: 1, started_ticks: 2, created_ms: 3, serial: 11_001, label: "lab" };

fn private() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

#[test]
fn what_is_counted_is_read_back_by_member_and_call() {
    let (folder, mapper) = (private(), HeapMapper::default());
    let page = Page::create(&mapper, folder.path(), &BIRTH, 3).unwrap();
    let (one, two) = (MemberId(1_001), MemberId(1_002));
    page.ended(one, 14, Ended::Answered, Duration::from_micros(80));
    page.ended(one, 14, Ended::Answered, Duration::from_micros(300));
    page.ended(one, 14, Ended::Lost, Duration::from_millis(25));
    page.moved(one, two, 14, Moved::Failover);
    page.ended(two, 10, Ended::Busy, Duration::ZERO);
    page.count(two, member::LOST);
    page.set_state(two, State::Lost, 77);
    page.set_label("renamed");
    let read = mapper.read(0);
    assert_eq!((read.serial, &*read.label, read.members.len()), (11_001, "renamed", 2));
    let call = &read.members[0].calls[0];
    assert_eq!((call.number, call.answered, call.lost, call.failovers), (14, 2, 1, 1));
    assert_eq!((call.sum_ns, call.max_ns, call.histogram.total()), (380_000, 300_000, 2));
    assert_eq!((read.members[1].state, read.members[1].since_ms, read.members[1].lost), (State::Lost, 77, 1));
    assert_eq!(read.members[1].calls.iter().map(|call| call.taken_over).sum::<u64>(), 1);
}

#[test]
fn many_threads_lose_no_count_and_share_a_members_place() {
    let (folder, mapper) = (private(), HeapMapper::default());
    let page = Page::create(&mapper, folder.path(), &BIRTH, 3).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let page = &page;
            scope.spawn(move || {
                for round in 0..1_000 {
                    page.ended(
                        MemberId(1 + (thread + round) % 3),
                        14,
                        Ended::Answered,
                        Duration::from_micros(round),
                    );
                }
            });
        }
    });
    let read = mapper.read(0);
    assert_eq!(read.members.len(), 3);
    let total: u64 = read.members.iter().map(|member| member.calls[0].histogram.total()).sum();
    assert_eq!((total, read.not_counted), (4_000, 0));
}

#[test]
fn members_beyond_the_room_are_counted_as_such_and_disturb_nobody() {
    let (folder, mapper) = (private(), HeapMapper::default());
    let page = Page::create(&mapper, folder.path(), &BIRTH, 1).unwrap();
    for serial in 1..=u64::try_from(MEMBERS_MIN).unwrap() + 2 {
        page.ended(MemberId(serial), 14, Ended::Answered, Duration::ZERO);
    }
    let read = mapper.read(0);
    assert_eq!((read.members.len(), read.not_counted), (MEMBERS_MIN, 2));
}

#[test]
fn the_file_is_the_users_alone_is_whole_at_once_and_goes_when_removed() {
    let (folder, mapper) = (private(), HeapMapper::default());
    let path = folder.path().join("stats-1-11001");
    std::fs::write(&path, "of a process that died").unwrap();
    let page = Page::create(&mapper, folder.path(), &BIRTH, 3).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(stats::read(&std::fs::read(&path).unwrap()).unwrap().serial, 11_001);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    page.remove();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_page_that_cannot_be_mapped_leaves_no_file() {
    let folder = private();
    let error = Page::create(&NoMapper, folder.path(), &BIRTH, 3).unwrap_err();
    assert!(error.contains("planted"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_others_can_write_to_or_that_is_a_link_is_refused() {
    let outer = private();
    let (open, link, fresh) =
        (outer.path().join("open"), outer.path().join("link"), outer.path().join("fresh"));
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o770)).unwrap();
    let mapper = HeapMapper::default();
    let create = |folder: &Path| Page::create(&mapper, folder, &BIRTH, 3);
    let error = create(&open).unwrap_err();
    assert!(error.contains("mode 0770") && error.contains("StatsPath"), "{error}");
    create(&fresh).unwrap();
    symlink(&fresh, &link).unwrap();
    assert!(create(&link).is_err());
    assert_eq!(std::fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, 0o700);
}
