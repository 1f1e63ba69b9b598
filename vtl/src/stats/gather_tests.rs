//! Tests of the reading of metrics pages: stale, hostile and ordinary ones.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use proptest::prelude::*;
use spec::stats::{Birth, HISTOGRAM, Layout, State, bucket_of, call, column_of, member, new_page};

use super::*;
use crate::stats::{prometheus, rows};

/// Processes that "run", and a folder of pages.
pub(crate) struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Host {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("proc")).unwrap();
        std::fs::create_dir_all(folder.path().join("pages")).unwrap();
        Host { folder }
    }

    pub(crate) fn run(&self, pid: u32, ticks: u64, name: &str) {
        let process = self.folder.path().join("proc").join(pid.to_string());
        std::fs::create_dir_all(&process).unwrap();
        let rest = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0";
        std::fs::write(process.join("stat"), format!("{pid} ({name}) {rest} {ticks} 5 6")).unwrap();
        std::fs::write(process.join("comm"), format!("{name}\n")).unwrap();
    }

    pub(crate) fn pages(&self) -> PathBuf {
        self.folder.path().join("pages")
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.pages().join(name), bytes).unwrap();
    }

    pub(crate) fn gather(&self) -> Gathered {
        gather(&[self.pages()], &self.folder.path().join("proc"))
    }
}

/// A page of the group 1111 with one member, 42, that answered `uses` times in 50 µs each and lost two.
pub(crate) fn page(pid: u32, ticks: u64, uses: u64) -> Vec<u8> {
    let layout = Layout::new(2);
    let birth = Birth { pid, started_ticks: ticks, created_ms: 5_000, serial: 1_111, label: "prod\"ha\x1b" };
    let mut words = new_page(&layout, &birth);
    words[layout.member(0) + member::SERIAL] = 42;
    words[layout.member(0) + member::STATE] = State::Up.number();
    let cell = layout.call(0, column_of(14).unwrap());
    words[cell + call::ANSWERED] = uses;
    words[cell + call::LOST] = 2;
    words[cell + call::HEDGES] = 3;
    words[cell + call::FAILOVERS] = 4;
    words[cell + call::SUM_NS] = uses.saturating_mul(50_000);
    words[cell + call::MAX_NS] = 60_000;
    words[cell + HISTOGRAM + bucket_of(50_000)] = uses;
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn pages_of_processes_that_run_are_read_and_others_passed_over() {
    let host = Host::new();
    host.run(7, 900, "sig) ner");
    host.run(8, 901, "reused");
    host.write("stats-7-1111", &page(7, 900, 10));
    host.write("stats-8-1111", &page(8, 333, 10));
    host.write("stats-9-1111", &page(9, 900, 10));
    host.write("other", b"x");
    let gathered = host.gather();
    assert!(gathered.complaints.is_empty(), "{:?}", gathered.complaints);
    let seen: Vec<_> = gathered.pages.iter().map(|read| (read.page.pid, read.command.as_str())).collect();
    assert_eq!(seen, [(7, "sig) ner")]);
}

#[test]
fn a_process_that_runs_is_found_among_thousands_that_were_killed() {
    let host = Host::new();
    host.run(7, 900, "signer");
    (10_000..15_000).for_each(|pid| host.write(&format!("stats-{pid}-1111"), b""));
    host.write("stats-7-1111", &page(7, 900, 10));
    (20_000..25_000).for_each(|pid| host.write(&format!("stats-{pid}-1111"), b""));
    let gathered = host.gather();
    assert_eq!((gathered.pages.len(), gathered.complaints.len()), (1, 0));
}

#[test]
fn what_is_no_page_is_named_and_harms_nobody() {
    let host = Host::new();
    for pid in 1..=6 {
        host.run(pid, 900, "app");
    }
    host.write("stats-1-1111", b"");
    host.write("stats-2-1111", &page(2, 900, 10)[..777]);
    host.write("stats-3-1111", &page(2, 900, 10));
    std::os::unix::fs::symlink("/dev/zero", host.pages().join("stats-4-1111")).unwrap();
    std::fs::create_dir(host.pages().join("stats-5-1111")).unwrap();
    host.write("stats-6-1111", &page(6, 900, 10));
    let gathered = host.gather();
    assert_eq!((gathered.pages.len(), gathered.complaints.len()), (1, 5), "{:?}", gathered.complaints);
    assert!(gathered.complaints[2].contains("its content is of another process"));
}

#[test]
fn a_folder_that_is_not_there_has_no_pages() {
    let gathered = gather(&[PathBuf::from("/nonexistent")], Path::new("/proc"));
    assert!(gathered.pages.is_empty() && gathered.complaints.is_empty());
}

proptest! {
    #[test]
    fn hostile_pages_are_shown_in_every_form_without_a_fault_of_ours(
        places in prop::collection::vec((0_usize..5_000, any::<u64>()), 0..200),
        fill in prop::sample::select(vec![0_u8, 1, 0x1b, 0x7f, 0xff]),
        cut in 0_usize..200_000,
    ) {
        let mut bytes = page(7, 900, u64::MAX / 3);
        let head = spec::stats::HEADER_WORDS * 8;
        if fill != 0 {
            bytes[head..].fill(fill);
        }
        for (at, word) in places {
            if let Some(place) = bytes.chunks_exact_mut(8).nth(at) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
        }
        bytes.truncate(bytes.len().min(cut.max(1)));
        if let Ok(page) = stats::read(&bytes) {
            let read = [Read { page, command: "app".to_owned() }];
            for row in rows(&read, &read, 1.0) {
                prop_assert!(!row.cells().concat().chars().any(char::is_control));
            }
            let text = prometheus(&read);
            let escapes = text.contains('\x1b');
            prop_assert!(!escapes);
        }
    }
}

#[test]
fn a_folder_with_a_users_number_that_is_not_that_users_is_passed_over() {
    let host = Host::new();
    host.run(7, 70, "app");
    host.write(&spec::stats::file_name(7, 1_111), &page(7, 70, 1));
    let own = rustix::process::getuid().as_raw();
    let (proc, named) =
        (host.folder.path().join("proc"), |uid| host.folder.path().join(format!("hatoki-{uid}")));
    std::fs::rename(host.pages(), named(own)).unwrap();
    assert_eq!(gather(&[named(own)], &proc).pages.len(), 1);
    std::fs::rename(named(own), named(own + 1)).unwrap();
    std::os::unix::fs::symlink(named(own + 1), named(own)).unwrap();
    for uid in [own, own + 1] {
        let gathered = gather(&[named(uid)], &proc);
        assert!(gathered.pages.is_empty());
        assert!(gathered.complaints[0].contains("it is passed over"), "{:?}", gathered.complaints);
    }
}
