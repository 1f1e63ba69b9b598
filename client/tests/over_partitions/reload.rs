//! Configuration at run time: what an edited file changes in a running module, and what it must not (RULES 2.10 to 2.12).
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::conf::Configuration;
use client::{InitializeOptions, Produced};
use ntls::platform::System;
use partition::in_process::InProcess;
use spec::platform::{Moment, Platform};
use spec::seam::{MemberId, Outgoing, Seam, Standing, Tag, Waiter};
use spec::{HandleObject, HandleSession, Mechanism, MechanismType as M, Rv, SlotId};

use crate::lab::{GROUP_SERIAL, Lab, ROOM, SLOT, bytes, rv};

/// A module over a lab's partitions whose configuration is a file that the test edits.
struct Edited {
    lab: Lab,
    _folder: tempfile::TempDir,
    file: PathBuf,
}

const OTHER: &str = "VirtualToken01Label = other; VirtualToken01SN = 22002; VirtualToken01Members = 5001;";

/// The lab's group as a file says it, with more groups and more sections.
fn text(groups: &str, sections: &str) -> String {
    format!(
        "VirtualToken = {{ VirtualToken00Label = lab; VirtualToken00SN = {GROUP_SERIAL}; \
         VirtualToken00Members = 1001, 1002, 1003; {groups} }}\n{sections}\n"
    )
}

const SHORT: &str = "Hatoki = { LogLevel = off; OutageWaitMs = 200; }";

impl Edited {
    fn new(threads: bool, groups: &str, sections: &str) -> Self {
        Self::over(threads, groups, sections, |lab| lab.seam.clone())
    }

    /// A module over what is put around the lab's seam.
    fn over(threads: bool, groups: &str, sections: &str, seam: impl FnOnce(&Lab) -> Arc<dyn Seam>) -> Self {
        let lab = Lab::new();
        lab.module.finalize().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Chrystoki.conf");
        std::fs::write(&file, text(groups, sections)).unwrap();
        let conf = Configuration::from_bytes(&std::fs::read(&file).unwrap(), &file).unwrap();
        let options = InitializeOptions { may_create_threads: threads };
        lab.module.initialize_over(seam(&lab), Arc::new(System), conf, options).unwrap();
        Self { lab, _folder: folder, file }
    }

    /// Replaces the file as `vtl` does.
    fn write(&self, text: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn slots(&self, present: bool) -> Vec<u64> {
        self.lab.module.slots(present).unwrap().into_iter().map(|slot| slot.0).collect()
    }
}

/// Waits until something has become so; at most twenty seconds.
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn event(edited: &Edited) -> Option<SlotId> {
    edited.lab.module.wait_for_slot_event(false).ok()
}

#[test]
fn a_group_that_comes_gets_the_next_slot_and_an_event_and_the_others_stay() {
    let edited = Edited::new(false, "", SHORT);
    let session = edited.lab.user();
    let (_, key) = edited.lab.p256(session, true);
    assert_eq!((edited.slots(true), event(&edited)), (vec![0], None));
    edited.write(&text(OTHER, SHORT));
    soon("the new group has a slot", || edited.slots(true) == [0, 1]);
    assert_eq!((event(&edited), event(&edited)), (Some(SlotId(1)), None));
    assert_eq!(edited.lab.module.token_info(SlotId(1)).unwrap().serial, "22002");
    assert_eq!(edited.lab.module.token_info(SLOT).unwrap().serial, GROUP_SERIAL.to_string());
    edited.lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    bytes(edited.lab.module.sign(session, b"m", ROOM));
}

#[test]
fn a_group_that_goes_keeps_its_slot_without_a_token_and_returns_with_its_sessions() {
    let edited = Edited::new(false, OTHER, SHORT);
    let module = &edited.lab.module;
    let session = edited.lab.user();
    let (_, key) = edited.lab.p256(session, true);
    let own_only = "VirtualToken = { VirtualToken01Label = other; VirtualToken01SN = 22002; \
                    VirtualToken01Members = 5001; }\n";
    edited.write(&format!("{own_only}{SHORT}"));
    soon("the group is gone", || edited.slots(true) == [1]);
    assert_eq!(edited.slots(false), [0, 1]);
    assert_eq!(event(&edited), Some(SLOT));
    assert_eq!(rv(module.open_session(SLOT, 4)), Rv::TOKEN_NOT_PRESENT);
    assert_eq!(rv(module.token_info(SLOT)), Rv::TOKEN_NOT_PRESENT);
    // Half a second before the next look at the file: what is answered now says nothing of the key, and is not remembered.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        rv(module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key)),
        Rv::DEVICE_REMOVED
    );
    assert_eq!(rv(module.check_session(session)), Rv::DEVICE_REMOVED);
    edited.write(&text(OTHER, SHORT));
    soon("the group is back", || edited.slots(true) == [0, 1]);
    assert_eq!(event(&edited), Some(SLOT));
    module.check_session(session).unwrap();
    module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    bytes(module.sign(session, b"m", ROOM));
}

#[test]
fn a_blocking_wait_hears_of_a_group_that_comes() {
    let edited = Edited::new(true, "", SHORT);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| edited.lab.module.wait_for_slot_event(true));
        edited.write(&text(OTHER, SHORT));
        assert_eq!(waiting.join().unwrap().unwrap(), SlotId(1));
    });
    edited.lab.module.finalize().unwrap();
}

#[test]
fn a_broken_file_changes_nothing_and_its_mending_does() {
    let edited = Edited::new(false, "", SHORT);
    edited.write("VirtualToken = { VirtualToken00Label = ");
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(edited.slots(true), [0]);
    let session = edited.lab.user();
    edited.lab.p256(session, true);
    std::fs::remove_file(&edited.file).unwrap();
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(edited.slots(true), [0]);
    edited.write(&text(OTHER, SHORT));
    soon("the mended file is taken over", || edited.slots(true) == [0, 1]);
}

#[test]
fn a_serial_number_that_changes_under_the_same_label_does_not_change_the_slots() {
    let edited = Edited::new(false, "", SHORT);
    let other = "VirtualToken = { VirtualToken00Label = lab; VirtualToken00Members = 1003, 1002, 1001; }\n\
                 HAConfiguration = { labStandbyMembers = 1003; }\n";
    edited.write(&format!("{other}{SHORT}"));
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(edited.slots(false), [0]);
    assert_eq!(edited.lab.module.token_info(SLOT).unwrap().serial, GROUP_SERIAL.to_string());
    edited.lab.p256(edited.lab.user(), true);
}

#[test]
fn what_is_taken_over_by_the_next_initialize_leaves_a_running_application_its_tokens() {
    let edited = Edited::new(false, "", SHORT);
    let module = &edited.lab.module;
    let session = edited.lab.user();
    let (_, key) = edited.lab.p256(session, true);
    let changed = "LunaSA Client = { NetClient = 0; }\nHAConfiguration = { HAOnly = 0; }\n\
                   Hatoki = { LogLevel = off; OutageWaitMs = 201; }";
    for groups in [OTHER, ""] {
        edited.write(&text(groups, changed));
        let slots = if groups.is_empty() { vec![0] } else { vec![0, 1] };
        soon("the groups are taken over", || edited.slots(true) == slots);
        assert_eq!(module.token_info(SLOT).unwrap().serial, GROUP_SERIAL.to_string());
        module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
        bytes(module.sign(session, b"m", ROOM));
    }
    let conf = Configuration::from_bytes(&std::fs::read(&edited.file).unwrap(), &edited.file).unwrap();
    assert!(!conf.net_client && !conf.ha_only, "the file says otherwise");
}

#[test]
fn the_outage_wait_and_the_minimum_of_copies_change_while_the_module_runs() {
    for threads in [false, true] {
        let edited =
            Edited::new(threads, "", "Hatoki = { LogLevel = off; OutageWaitMs = 200; MinimumCopies = all; }");
        let session = edited.lab.user();
        edited.lab.seam.set_down(edited.lab.members[2], true);
        assert_eq!(rv(edited.lab.data(session, true, "x")), Rv::DEVICE_ERROR);
        edited
            .write(&text("", "Hatoki = { LogLevel = off; OutageWaitMs = 200; MinimumCopies = available; }"));
        soon("fewer copies suffice", || edited.lab.data(session, true, "x").is_ok());
        edited.lab.module.finalize().unwrap();
    }
}

fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("haErrorLog.txt")).unwrap_or_default()
}

#[test]
fn the_ha_log_begins_when_the_file_names_a_folder_and_tells_of_members() {
    let edited = Edited::new(true, "", SHORT);
    let session = edited.lab.user();
    let (_, key) = edited.lab.p256(session, true);
    let logs = tempfile::tempdir().unwrap();
    assert_eq!(log_of(logs.path()), "");
    let section = format!("HAConfiguration = {{ haLogPath = {}; }}\n{SHORT}", logs.path().display());
    edited.write(&text("", &section));
    std::thread::sleep(Duration::from_millis(1_700));
    edited.lab.seam.set_down(edited.lab.members[1], true);
    let sign = || {
        edited.lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
        bytes(edited.lab.module.sign(session, b"m", ROOM));
    };
    soon("the loss is in the log", || {
        sign();
        log_of(logs.path()).contains("HA group: 11001 unable to reach member: 1002.")
    });
    edited.lab.seam.set_down(edited.lab.members[1], false);
    soon("the return is in the log", || log_of(logs.path()).contains(" succeeded for member: 1002"));
    edited.lab.module.finalize().unwrap();
}

#[test]
fn active_basic_ends_a_group_that_lost_all_members_until_the_operator_revives_it() {
    let basic = "VirtualToken = { VirtualTokenActiveRecovery = activeBasic; }\n";
    let edited = Edited::new(false, "", &format!("{basic}{SHORT}"));
    let session = edited.lab.user();
    let (_, key) = edited.lab.p256(session, true);
    let sign = || {
        let _ = edited.lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key);
        edited.lab.module.sign(session, b"m", ROOM)
    };
    bytes(sign());
    edited.lab.all_down(true);
    assert_eq!(rv(sign()), Rv::DEVICE_ERROR);
    edited.lab.all_down(false);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rv(sign()), Rv::DEVICE_ERROR);
    // What `vtl haAdmin recover` does: the file is written anew, here before the module has looked at it for the first time.
    edited.write(&text("", &format!("{basic}{SHORT}")));
    soon("the operator has revived it", || sign().is_ok());
}

#[test]
fn rules_2_12_with_one_base_slot_id_slots_are_numbered_from_1_for_the_life_of_the_process() {
    let one = format!("{SHORT}\nPresentation = {{ OneBaseSlotId = 1; }}");
    let edited = Edited::new(false, "", &one);
    assert_eq!(edited.slots(true), [1]);
    assert_eq!(edited.lab.module.token_info(SlotId(1)).unwrap().serial, GROUP_SERIAL.to_string());
    assert_eq!(rv(edited.lab.module.slot_info(SlotId(0))), Rv::SLOT_ID_INVALID);
    edited.write(&text(OTHER, SHORT));
    soon("the new group has a slot", || edited.slots(true) == [1, 2]);
}

/// A seam behind which one member can be made to hang: its link is up and nothing is answered.
struct Hanging {
    inner: Arc<InProcess>,
    /// Since when; 0 while it does not.
    hangs: AtomicU64,
    tags: AtomicU64,
    abandoned: Mutex<Vec<MemberId>>,
}

const HANGING: MemberId = MemberId(1_003);

impl Seam for Hanging {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        if member == HANGING && self.hangs.load(Ordering::Acquire) > 0 {
            return Tag(self.tags.fetch_sub(1, Ordering::AcqRel));
        }
        self.inner.submit(waiter, member, request, deadline)
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        self.inner.cancel(member, tag);
    }

    fn standing(&self, member: MemberId) -> Standing {
        match (self.inner.standing(member), self.hangs.load(Ordering::Acquire)) {
            (Standing::Up { since, .. }, hung) if hung > 0 && member == HANGING => {
                Standing::Up { since, heard: Moment(hung) }
            }
            (standing, _) => standing,
        }
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        self.abandoned.lock().unwrap().push(member);
        self.inner.abandon(member, reason);
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.inner.subscribe(waiter);
    }
}

#[test]
fn ha_4_4_the_probe_timeout_of_the_file_decides_when_a_hanging_member_loses_its_link() {
    let sections = |ms: u32| format!("HAConfiguration = {{ ProbeTimeout = {ms}; }}\n{SHORT}");
    let mut hanging = None;
    let edited = Edited::over(true, "", &sections(600_000), |lab| {
        let seam = Arc::new(Hanging {
            inner: lab.seam.clone(),
            hangs: AtomicU64::new(0),
            tags: AtomicU64::new(u64::MAX - 1),
            abandoned: Mutex::default(),
        });
        hanging = Some(seam.clone());
        seam
    });
    let seam = hanging.unwrap();
    let session = edited.lab.user();
    edited.lab.p256(session, true);
    soon("all members are used", || used(&edited) == [Rv::OK; 3]);
    seam.hangs.store(System.now().0, Ordering::Release);
    // With the default of a second the link would be given up by now.
    std::thread::sleep(Duration::from_millis(4_000));
    assert_eq!(*seam.abandoned.lock().unwrap(), []);
    edited.write(&text("", &sections(100)));
    soon("the link is given up", || seam.abandoned.lock().unwrap().contains(&HANGING));
    assert!(seam.abandoned.lock().unwrap().iter().all(|member| *member == HANGING));
    edited.lab.module.finalize().unwrap();
}

/// How each member stands.
fn used(edited: &Edited) -> Vec<Rv> {
    let members = edited.lab.module.ha_state(SLOT).unwrap().members;
    members.into_iter().map(|(_, rv)| rv).collect()
}

#[test]
fn reconn_att_of_the_file_gives_a_member_up_and_the_file_written_anew_takes_it_back() {
    for threads in [true, false] {
        let section = format!("HAConfiguration = {{ reconnAtt = 2; AutoReconnectInterval = 1; }}\n{SHORT}");
        let edited = Edited::new(threads, "", &section);
        let session = edited.lab.user();
        let (_, key) = edited.lab.p256(session, true);
        // Calls do the work of the thread where there is none.
        let state = || {
            edited.lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
            bytes(edited.lab.module.sign(session, b"m", ROOM));
            used(&edited)[1]
        };
        let stays_away = |ms: u64| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(ms) {
                assert_ne!(state(), Rv::OK, "threads: {threads}");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        soon("the member is used", || state() == Rv::OK);
        // Back before the attempts are used up, it is taken back.
        edited.lab.seam.set_down(edited.lab.members[1], true);
        stays_away(300);
        edited.lab.seam.set_down(edited.lab.members[1], false);
        soon("the member is taken back", || state() == Rv::OK);
        edited.lab.seam.set_down(edited.lab.members[1], true);
        stays_away(4_500);
        edited.lab.seam.set_down(edited.lab.members[1], false);
        stays_away(3_000);
        // What `vtl haAdmin recover` does: the file is written anew.
        edited.write(&text("", &section));
        soon("the member is taken back by the operator", || state() == Rv::OK);
        edited.lab.module.finalize().unwrap();
    }
}

#[test]
fn reconn_att_changed_to_0_while_the_module_runs_takes_no_lost_member_back() {
    let section = |attempts: i32| format!("HAConfiguration = {{ reconnAtt = {attempts}; }}\n{SHORT}");
    let edited = Edited::new(true, "", &section(-1));
    let session = edited.lab.user();
    edited.lab.p256(session, true);
    soon("the member is used", || used(&edited)[1] == Rv::OK);
    edited.write(&text("", &section(0)));
    std::thread::sleep(Duration::from_millis(3_000));
    edited.lab.seam.set_down(edited.lab.members[1], true);
    soon("the member is lost", || used(&edited)[1] == Rv::TOKEN_NOT_PRESENT);
    edited.lab.seam.set_down(edited.lab.members[1], false);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert_ne!(used(&edited)[1], Rv::OK);
        std::thread::sleep(Duration::from_millis(50));
    }
    edited.write(&text("", &section(-1)));
    soon("the member is taken back", || used(&edited)[1] == Rv::OK);
    edited.lab.module.finalize().unwrap();
}

/// The numbers of Compare, Export and Join: what repair is made of.
const REPAIR: [u32; 3] = [26, 27, 28];

fn synchronizing(on: bool) -> String {
    format!("HASynchronize = {{ lab = {}; }}\n{SHORT}", u8::from(on))
}

/// A module whose file says `HASynchronize = 0`, with a pair on the first member alone, which it has used all the time, and
/// a data object on one member.
struct Apart {
    edited: Edited,
    session: HandleSession,
    key: HandleObject,
    /// How many objects each member holds.
    held: Vec<u64>,
}

impl Apart {
    fn new(threads: bool) -> Self {
        let edited = Edited::new(threads, "", &synchronizing(false));
        let session = edited.lab.user();
        soon("equal members are used", || used(&edited) == [Rv::OK; 3]);
        let others_down = |down: bool| {
            edited.lab.members[1..].iter().for_each(|other| edited.lab.seam.set_down(*other, down))
        };
        others_down(true);
        let (_, key) = edited.lab.p256(session, true);
        others_down(false);
        let mut apart = Self { edited, session, key, held: Vec::new() };
        // Calls do the work of the thread where there is none.
        soon("members that lack what another one holds are used", || {
            apart.sign() && used(&apart.edited) == [Rv::OK; 3]
        });
        assert_eq!(apart.objects(), [2, 0, 0], "threads: {threads}");
        apart.edited.lab.data(session, true, "x").unwrap();
        apart.held = apart.objects();
        assert_eq!(apart.held.iter().sum::<u64>(), 3, "one copy of each, threads: {threads}");
        apart
    }

    /// Whether the key of the first member signs.
    fn sign(&self) -> bool {
        let module = &self.edited.lab.module;
        module.sign_init(self.session, Some(Mechanism::plain(M::ECDSA_SHA256)), self.key).is_ok()
            && matches!(module.sign(self.session, b"m", ROOM), Ok(Produced::Bytes(_)))
    }

    fn finds(&self) -> usize {
        self.edited.lab.find(self.session, vec![]).len()
    }

    /// How many objects each member holds.
    fn objects(&self) -> Vec<u64> {
        let lab = &self.edited.lab;
        lab.members.iter().map(|member| lab.status(*member).objects).collect()
    }

    /// How many requests of a repair have reached members.
    fn repair_requests(&self) -> u64 {
        let lab = &self.edited.lab;
        let at = |member: &MemberId| REPAIR.iter().map(|call| lab.seam.count(*member, *call)).sum::<u64>();
        lab.members.iter().map(at).sum()
    }
}

#[test]
fn ha_2_9_has_synchronize_0_in_the_file_neither_replicates_nor_repairs_nor_admits_by_content() {
    for threads in [false, true] {
        let apart = Apart::new(threads);
        let (lab, session) = (&apart.edited.lab, apart.session);
        // Longer than a divergence is watched and repaired (HA 4.6).
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(6_000) {
            assert!(apart.sign(), "threads: {threads}");
            assert_eq!((used(&apart.edited), apart.finds()), (vec![Rv::OK; 3], 3), "threads: {threads}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let made = lab.data(session, true, "y").unwrap();
        assert_eq!(apart.objects().iter().sum::<u64>(), 4, "one copy, threads: {threads}");
        lab.module.destroy_object(session, made).unwrap();
        assert_eq!((apart.objects(), apart.repair_requests()), (apart.held, 0), "threads: {threads}");
        lab.module.finalize().unwrap();
    }
}

#[test]
fn ha_2_9_has_synchronize_changed_from_0_to_1_while_the_module_runs_repairs_and_replicates() {
    for threads in [false, true] {
        let apart = Apart::new(threads);
        let lab = &apart.edited.lab;
        assert_eq!(apart.repair_requests(), 0, "threads: {threads}");
        apart.edited.write(&text("", &synchronizing(true)));
        soon("all members hold all", || {
            assert!(apart.sign(), "threads: {threads}");
            apart.objects() == [3; 3]
        });
        let roots: BTreeSet<Vec<u8>> = lab.members.iter().map(|member| lab.status(*member).root).collect();
        assert_eq!(roots.len(), 1, "threads: {threads}");
        assert!(apart.repair_requests() > 0, "threads: {threads}");
        lab.data(apart.session, true, "y").unwrap();
        soon("what is created now is replicated", || apart.objects() == [4; 3]);
        assert_eq!(apart.finds(), 4, "threads: {threads}");
        lab.module.finalize().unwrap();
    }
}

#[test]
fn a_member_that_answers_as_deactivated_is_left_with_failover_on_deactivation_0_as_with_1() {
    for (flag, threads) in [(0, false), (0, true), (1, false), (1, true)] {
        // The deactivated one would get every request.
        let section = format!(
            "HAConfiguration = {{ failover_on_deactivation = {flag}; }}\n\
             Hatoki = {{ LogLevel = off; OutageWaitMs = 200; Policy = primary-first; }}"
        );
        let edited = Edited::new(threads, "", &section);
        let conf = Configuration::from_bytes(&std::fs::read(&edited.file).unwrap(), &edited.file).unwrap();
        assert_eq!((conf.failover_on_deactivation, conf.warnings.len()), (flag == 1, 0));
        let session = edited.lab.user();
        let (_, key) = edited.lab.p256(session, true);
        edited.lab.seam.set_down(edited.lab.members[2], true);
        let sign = || {
            edited.lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
            bytes(edited.lab.module.sign(session, b"m", ROOM));
        };
        let is_used = || used(&edited)[0] == Rv::OK;
        soon("both members are used", || {
            sign();
            is_used()
        });
        // What a partition that waits for its PIN is to answer (docs/adr/0006-deviations.md, item 8), again and again, since
        // repair ends it.
        let deactivated = edited.lab.seam.partition(edited.lab.members[0]).unwrap();
        let mut left = 0;
        for _ in 0..100 {
            deactivated.reincarnate(true).unwrap();
            sign();
            left += usize::from(!is_used());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(left > 0, "it is left, flag {flag}, threads: {threads}");
        soon("it is used again", || {
            sign();
            is_used()
        });
        edited.lab.module.finalize().unwrap();
    }
}
