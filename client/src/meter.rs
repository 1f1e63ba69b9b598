//! The meter of one group: what the routing reports becomes numbers of the metrics page, lines of the HA log and events of
//! our own log. Those events are of level INFO: whoever met the fault has told the operator already, louder.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ha::{GroupStatus, MemberState, MemberStatus};
use spec::meter::{Ended, Meter, Moved, News};
use spec::platform::{Lock, Moment, Platform};
use spec::seam::MemberId;
use spec::stats::{State, header, member};

use crate::conf::{Attempts, Recovery};
use crate::expiry::{is_due, left};
use crate::halog::HaLog;
use crate::page::Page;

/// What is remembered of so many members between events; further ones are told without a number of attempts.
const MEMBERS_MAX: usize = 64;

/// Members that have not been met yet are given so long after the start to appear, in milliseconds.
const START_MS: u64 = 3_000;

/// What is remembered of a member.
#[derive(Default)]
struct Way {
    /// Its serial number; 0 while the place is free.
    member: AtomicU64,
    /// The number of its [`State`].
    state: AtomicU64,
    /// When it was lost.
    lost_at: AtomicU64,
    /// It was lost and has not been admitted since.
    lost: AtomicBool,
    /// Attempts to reach it since it was lost, each as long as `AutoReconnectInterval`.
    attempts: AtomicU64,
    /// The writes that it has missed since it was lost have been told of (HA 2.5).
    debt_told: AtomicBool,
    /// When the operator was last told that the member's certificate ends soon, in milliseconds since 1970.
    expiry_told_ms: AtomicU64,
}

/// See the head of this file.
pub(crate) struct GroupMeter {
    platform: Arc<dyn Platform>,
    serial: u64,
    page: Option<Page>,
    log: Arc<HaLog>,
    ways: Box<[Way]>,
    born: Moment,
    all_lost: AtomicBool,
    /// What is known of a member and what the page shows of it change together.
    changing: Lock<()>,
}

impl GroupMeter {
    /// A meter of the group with this serial number; without a page it counts nothing and logs all the same.
    pub(crate) fn new(
        platform: Arc<dyn Platform>,
        serial: u64,
        page: Option<Page>,
        log: Arc<HaLog>,
    ) -> Arc<Self> {
        let ways = (0..MEMBERS_MAX).map(|_| Way::default()).collect();
        let born = platform.now();
        let (all_lost, changing) = (AtomicBool::new(false), Lock::default());
        Arc::new(Self { platform, serial, page, log, ways, born, all_lost, changing })
    }

    /// The group's page, if it has one.
    pub(crate) fn page(&self) -> Option<&Page> {
        self.page.as_ref()
    }

    fn way(&self, id: MemberId) -> Option<&Way> {
        self.ways.iter().find(|way| {
            let free = way.member.compare_exchange(0, id.0, Ordering::AcqRel, Ordering::Acquire);
            free.is_ok() || free == Err(id.0)
        })
    }

    /// Whether the news are any: a state that the member has already is told once.
    fn is_new(&self, news: &News) -> bool {
        let (id, state) = match news {
            News::Admitted { member } => (*member, State::Up),
            News::Recovering { member } => (*member, State::Recovering),
            News::Lost { member, .. } => (*member, State::Lost),
            News::Suspected { member } => (*member, State::Suspected),
            News::Left { member } => (*member, State::Left),
            News::AllLost => return !self.all_lost.swap(true, Ordering::AcqRel),
            News::Joined { .. }
            | News::AttemptFailed { .. }
            | News::StandbyServes { .. }
            | News::ActiveServes
            | News::Repaired { .. }
            | News::Divergent { .. } => {
                return true;
            }
        };
        let Some(way) = self.way(id) else { return true };
        if state == State::Up {
            self.all_lost.store(false, Ordering::Release);
        }
        way.state.swap(state.number(), Ordering::AcqRel) != state.number()
    }

    /// Compares what is known of the members with how they stand, about once a second: losses that no call has met, and
    /// attempts that have passed in vain. Gives the members whose attempts are used up now.
    pub(crate) fn observe(&self, status: &GroupStatus, recovery: &Recovery) -> Vec<MemberId> {
        self.observe_at(self.platform.now(), status, recovery)
    }

    fn observe_at(&self, now: Moment, status: &GroupStatus, recovery: &Recovery) -> Vec<MemberId> {
        let mut given_up = Vec::new();
        for member in &status.members {
            let id = member.id;
            let Some(way) = self.way(id) else { continue };
            self.tell_debt(way, member);
            let before = State::of(way.state.load(Ordering::Acquire));
            match &member.state {
                MemberState::Up | MemberState::Unverified if before == State::Suspected => {}
                MemberState::Up | MemberState::Unverified => self.news(&News::Admitted { member: id }),
                MemberState::Recovering if before == State::Unknown => {}
                MemberState::Recovering => self.news(&News::Recovering { member: id }),
                MemberState::Down(_) if before == State::Unknown && now < self.born.after_ms(START_MS) => {}
                MemberState::Down(reason) => {
                    self.news(&News::Lost { member: id, reason: reason.clone() });
                    if self.attempts_passed(id, now, recovery, reason) {
                        given_up.push(id);
                    }
                }
            }
        }
        if !status.members.is_empty() && status.members.iter().all(|member| self.is_lost(member.id)) {
            self.news(&News::AllLost);
        }
        given_up
    }

    /// Tells, once until all is paid, of writes that a lost member has missed: the vendor's event. What a member that is up
    /// owes for a moment is the usual course of a write that did not wait for the slowest.
    fn tell_debt(&self, way: &Way, member: &MemberStatus) {
        let (id, writes) = (member.id, member.debt);
        if writes == 0 {
            way.debt_told.store(false, Ordering::Relaxed);
        } else if matches!(member.state, MemberState::Down(_)) && !way.debt_told.swap(true, Ordering::Relaxed)
        {
            let line =
                format!("failed to replicate {writes} writes to member: {id}; they follow when it is back");
            self.member_event(id, "not replicated", &line);
        }
    }

    /// Warns of certificates of appliances that end soon, as the members tell them. Gives the number of warnings.
    pub(crate) fn warn_of_certificates(&self, status: &GroupStatus, now_ms: u64) -> usize {
        let mut warned = 0;
        for member in &status.members {
            let ends_ms = member.server_certificate_ends_ms;
            if self.way(member.id).is_some_and(|way| is_due(ends_ms, now_ms, &way.expiry_told_ms)) {
                warned += 1;
                tracing::warn!(
                    target: "hatoki::ha", group = self.serial, member = member.id.0, event = "certificate",
                    "the server certificate of the member's appliance {}: renew it with `hsm sysconf regenCert`",
                    left(ends_ms, now_ms)
                );
            }
        }
        warned
    }

    fn is_lost(&self, id: MemberId) -> bool {
        self.way(id).is_some_and(|way| way.state.load(Ordering::Acquire) == State::Lost.number())
    }

    /// Tells of the attempts since the last look; whether the last one of `reconnAtt` was among them.
    fn attempts_passed(&self, id: MemberId, now: Moment, recovery: &Recovery, reason: &str) -> bool {
        let Some(way) = self.way(id) else { return false };
        let lost_for = now.since(Moment(way.lost_at.load(Ordering::Acquire)));
        let passed = lost_for.as_secs() / u64::from(recovery.interval_s.max(1));
        let before = way.attempts.load(Ordering::Acquire);
        let allowed = match recovery.attempts {
            Attempts::None => return false,
            Attempts::Number(number) => u64::from(number),
            Attempts::Unlimited => u64::MAX,
        };
        for _ in before..passed.min(allowed) {
            self.news(&News::AttemptFailed { member: id, reason: reason.to_owned() });
        }
        let is_over = passed >= allowed && before < allowed;
        if is_over {
            self.log
                .note(self.serial, &format!("all {allowed} recovery attempts have failed for member: {id}"));
            tracing::warn!(
                target: "hatoki::ha", group = self.serial, member = id.0, event = "given up", attempts = allowed,
                "member is given up: `vtl haAdmin recover` takes it back"
            );
        }
        is_over
    }

    /// One more attempt; its number since the member was lost.
    fn attempt(&self, id: MemberId) -> u64 {
        self.way(id).map_or(0, |way| way.attempts.fetch_add(1, Ordering::AcqRel)) + 1
    }

    fn admitted(&self, id: MemberId) {
        let way = self.way(id);
        let was_lost = way.is_some_and(|way| way.lost.swap(false, Ordering::Relaxed));
        let attempts = way.map_or(0, |way| way.attempts.swap(0, Ordering::Relaxed));
        if was_lost {
            self.log
                .note(self.serial, &format!("recovery attempt #{} succeeded for member: {id}", attempts + 1));
        } else {
            self.log.note(self.serial, &format!("uses member: {id}"));
        }
        tracing::info!(target: "hatoki::ha", group = self.serial, member = id.0, event = "admitted", attempts, "member is used");
    }

    fn lost(&self, id: MemberId, reason: &str) {
        if let Some(way) = self.way(id) {
            way.lost.store(true, Ordering::Relaxed);
            way.attempts.store(0, Ordering::Relaxed);
            way.lost_at.store(self.platform.now().0, Ordering::Release);
        }
        self.log.note(self.serial, &format!("unable to reach member: {id}. {reason}"));
        tracing::info!(target: "hatoki::ha", group = self.serial, member = id.0, event = "lost", reason, "member is lost");
    }

    fn attempt_failed(&self, id: MemberId, reason: &str) {
        let number = self.attempt(id);
        // Told ever more rarely: attempts may go on for ever.
        if number.is_power_of_two() || number.is_multiple_of(60) {
            self.log
                .note(self.serial, &format!("recovery attempt #{number} failed for member: {id}. {reason}"));
            tracing::info!(
                target: "hatoki::ha", group = self.serial, member = id.0, event = "attempt failed", number, reason,
                "member is not back"
            );
        }
    }

    fn member_event(&self, id: MemberId, event: &'static str, line: &str) {
        self.log.note(self.serial, line);
        tracing::info!(target: "hatoki::ha", group = self.serial, member = id.0, event, "member's standing has changed");
    }

    fn group_event(&self, event: &'static str, line: &str) {
        self.log.note(self.serial, line);
        tracing::info!(target: "hatoki::ha", group = self.serial, event, "{line}");
    }

    fn tell(&self, news: &News) {
        match news {
            News::Admitted { member } => self.admitted(*member),
            News::Recovering { member } => self.member_event(
                *member,
                "recovering",
                &format!("member: {member} answers and is compared with the others before it is used"),
            ),
            News::Lost { member, reason } => self.lost(*member, reason),
            News::Suspected { member } => self.member_event(
                *member,
                "suspected",
                &format!("member: {member} is silent, its requests go to others"),
            ),
            News::AttemptFailed { member, reason } => self.attempt_failed(*member, reason),
            News::Joined { member } => {
                self.member_event(*member, "joined", &format!("has added member: {member}"));
            }
            News::Left { member } => {
                self.member_event(*member, "left", &format!("has dropped member: {member}"));
            }
            News::AllLost => self.group_event(
                "all lost",
                "has no member that can be reached; calls wait and then fail, sessions and logins stay",
            ),
            News::StandbyServes { members } => {
                let members: Vec<String> = members.iter().map(MemberId::to_string).collect();
                let line =
                    format!("has no active member that can be used; standby serves: {}", members.join(", "));
                self.group_event("standby", &line);
            }
            News::ActiveServes => {
                self.group_event("active", "uses active members again; standby members rest");
            }
            News::Repaired { records } => {
                self.log.note(self.serial, &format!("has synchronized {records} objects"));
                tracing::info!(target: "hatoki::ha", group = self.serial, event = "repaired", records, "objects were synchronized");
            }
            News::Divergent { divergent: true } => {
                self.group_event("divergent", "needs sync: the contents of its members differ");
            }
            News::Divergent { divergent: false } => {
                self.log.note(self.serial, "is in sync: the contents of its members are equal");
                tracing::info!(target: "hatoki::ha", group = self.serial, event = "in sync", "contents are equal");
            }
        }
    }

    fn count(&self, page: &Page, news: &News) {
        let state = |id: MemberId, state: State| page.set_state(id, state, self.platform.wall_ms());
        match news {
            News::Admitted { member: id } => {
                page.count(*id, member::ADMITTED);
                page.set(header::IS_ALL_LOST, 0);
                state(*id, State::Up);
            }
            News::Recovering { member: id } => state(*id, State::Recovering),
            News::Lost { member: id, .. } => {
                page.count(*id, member::LOST);
                state(*id, State::Lost);
            }
            News::Suspected { member: id } => {
                page.count(*id, member::SUSPECTED);
                state(*id, State::Suspected);
            }
            News::AttemptFailed { member: id, .. } => page.count(*id, member::ATTEMPTS_FAILED),
            News::Joined { member: id } => state(*id, State::Unknown),
            News::Left { member: id } => state(*id, State::Left),
            News::AllLost => {
                page.add(header::ALL_LOST, 1);
                page.set(header::IS_ALL_LOST, 1);
            }
            News::StandbyServes { .. } => {
                page.add(header::STANDBY_SERVED, 1);
                page.set(header::IS_STANDBY, 1);
            }
            News::ActiveServes => page.set(header::IS_STANDBY, 0),
            News::Repaired { records } => page.add(header::REPAIRED, *records),
            News::Divergent { divergent } => page.set(header::DIVERGENT, u64::from(*divergent)),
        }
    }
}

impl Meter for GroupMeter {
    fn ended(&self, member: MemberId, call: u32, ended: Ended, took: Duration) {
        if let Some(page) = &self.page {
            page.ended(member, call, ended, took);
        }
    }

    fn moved(&self, from: MemberId, to: MemberId, call: u32, why: Moved) {
        if let Some(page) = &self.page {
            page.moved(from, to, call, why);
        }
    }

    fn news(&self, news: &News) {
        let changing = self.changing.lock();
        if !self.is_new(news) {
            return;
        }
        if let Some(page) = &self.page {
            self.count(page, news);
        }
        drop(changing);
        self.tell(news);
    }
}

impl std::fmt::Debug for GroupMeter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupMeter({})", self.serial)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use spec::stats::Birth;

    use super::*;
    use crate::expiry::DAY_MS;
    use crate::page::tests::HeapMapper;

    #[test]
    fn a_loss_and_a_return_stand_in_the_page_and_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let log = Arc::new(HaLog::new(platform.clone()));
        let place = folder.path().to_owned();
        log.configure(Some(&crate::conf::HaLog {
            enabled: true,
            folder: Some(place.clone()),
            bytes_max: 1 << 20,
        }));
        let mapper = HeapMapper::default();
        let birth = Birth { pid: 1, started_ticks: 0, created_ms: 0, serial: 11_001, label: "lab" };
        let page = Page::create(&mapper, &place, &birth, 3).unwrap();
        let meter = GroupMeter::new(platform, 11_001, Some(page), log.clone());
        let member = MemberId(1_002);
        let reason = || "connection refused".to_owned();
        meter.news(&News::Admitted { member });
        meter.news(&News::Lost { member, reason: reason() });
        meter.news(&News::AllLost);
        assert!(mapper.read(0).is_all_lost);
        for _ in 0..5 {
            meter.news(&News::AttemptFailed { member, reason: reason() });
        }
        meter.news(&News::Recovering { member });
        meter.news(&News::Admitted { member });
        meter.news(&News::StandbyServes { members: vec![member, MemberId(1_003)] });
        assert!(mapper.read(0).is_standby);
        meter.news(&News::ActiveServes);
        log.flush();
        let read = mapper.read(0);
        let row = &read.members[0];
        assert_eq!((row.lost, row.admitted, row.attempts_failed, row.state), (1, 2, 5, State::Up));
        assert_eq!((read.all_lost, read.is_all_lost), (1, false));
        assert_eq!((read.standby_served, read.is_standby), (1, false));
        let text = std::fs::read_to_string(place.join("haErrorLog.txt")).unwrap();
        let lines: Vec<&str> =
            text.lines().map(|line| line.split("HA group: 11001 ").nth(1).unwrap()).collect();
        assert_eq!(
            lines,
            [
                "uses member: 1002",
                "unable to reach member: 1002. connection refused",
                "has no member that can be reached; calls wait and then fail, sessions and logins stay",
                "recovery attempt #1 failed for member: 1002. connection refused",
                "recovery attempt #2 failed for member: 1002. connection refused",
                "recovery attempt #4 failed for member: 1002. connection refused",
                "member: 1002 answers and is compared with the others before it is used",
                "recovery attempt #6 succeeded for member: 1002",
                "has no active member that can be used; standby serves: 1002, 1003",
                "uses active members again; standby members rest",
            ]
        );
    }

    #[test]
    fn the_page_shows_what_was_heard_last_of_a_member_whoever_hears_it() {
        let (folder, mapper) = (tempfile::tempdir().unwrap(), HeapMapper::default());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let birth = Birth { pid: 1, started_ticks: 0, created_ms: 0, serial: 11_001, label: "lab" };
        let page = Page::create(&mapper, folder.path(), &birth, 3).unwrap();
        let meter = GroupMeter::new(platform.clone(), 11_001, Some(page), Arc::new(HaLog::new(platform)));
        let member = MemberId(1_002);
        for _ in 0..200 {
            std::thread::scope(|scope| {
                scope.spawn(|| (0..10).for_each(|_| meter.news(&News::Recovering { member })));
                scope.spawn(|| (0..10).for_each(|_| meter.news(&News::Suspected { member })));
            });
            let known = State::of(meter.way(member).unwrap().state.load(Ordering::Acquire));
            assert_eq!(mapper.read(0).members[0].state, known);
        }
    }

    fn status(state: MemberState) -> GroupStatus {
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let seam = partition::in_process::InProcess::new(
            platform.clone(),
            partition::Caller { client: [0; 32], instance: [0; 32] },
            Vec::new(),
        );
        let settings = ha::GroupSettings { members: vec![MemberId(1_002)], ..ha::GroupSettings::default() };
        let mut status = ha::Group::new(platform, seam, settings).status();
        status.members[0].state = state;
        status
    }

    #[test]
    fn attempts_are_counted_by_their_interval_and_the_last_one_gives_the_member_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let log = Arc::new(HaLog::new(platform.clone()));
        let place = folder.path().to_owned();
        log.configure(Some(&crate::conf::HaLog {
            enabled: true,
            folder: Some(place.clone()),
            bytes_max: 1 << 20,
        }));
        let meter = GroupMeter::new(platform.clone(), 1, None, log.clone());
        let recovery = Recovery {
            attempts: Attempts::Number(2),
            interval_s: 60,
            mode: crate::conf::RecoveryMode::ActiveEnhanced,
        };
        let down = status(MemberState::Down("no route".to_owned()));
        assert!(meter.observe(&down, &recovery).is_empty());
        meter.observe(&status(MemberState::Up), &recovery);
        let mut given_up = Vec::new();
        meter.observe(&down, &recovery);
        let lost_at = platform.now();
        for seconds in [59, 61, 62, 122, 300] {
            let now = lost_at.after_ms(seconds * 1_000);
            given_up.push(meter.observe_at(now, &down, &recovery).len());
        }
        assert_eq!(given_up, [0, 0, 0, 1, 0]);
        log.flush();
        let text = std::fs::read_to_string(place.join("haErrorLog.txt")).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split("HA group: 1 ").nth(1).unwrap()).collect();
        assert_eq!(
            lines,
            [
                "uses member: 1002",
                "unable to reach member: 1002. no route",
                "has no member that can be reached; calls wait and then fail, sessions and logins stay",
                "recovery attempt #1 failed for member: 1002. no route",
                "recovery attempt #2 failed for member: 1002. no route",
                "all 2 recovery attempts have failed for member: 1002",
            ]
        );
    }

    #[test]
    fn ha_2_5_writes_that_a_lost_member_has_missed_are_told_once_until_they_are_paid() {
        let place = tempfile::tempdir().unwrap();
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let log = Arc::new(HaLog::new(platform.clone()));
        let folder = Some(place.path().to_owned());
        log.configure(Some(&crate::conf::HaLog { enabled: true, folder, bytes_max: 1 << 20 }));
        let meter = GroupMeter::new(platform, 1, None, log.clone());
        let recovery = Recovery {
            attempts: Attempts::None,
            interval_s: 60,
            mode: crate::conf::RecoveryMode::ActiveEnhanced,
        };
        let lost = || MemberState::Down("gone".into());
        let looks =
            [(MemberState::Up, 3), (lost(), 0), (lost(), 2), (lost(), 3), (MemberState::Up, 0), (lost(), 1)];
        for (state, debt) in looks {
            let mut status = status(state);
            status.members[0].debt = debt;
            meter.observe(&status, &recovery);
        }
        log.flush();
        let text = std::fs::read_to_string(place.path().join("haErrorLog.txt")).unwrap();
        let told: Vec<&str> =
            text.lines().filter_map(|line| line.split("failed to replicate ").nth(1)).collect();
        let line = |writes| format!("{writes} writes to member: 1002; they follow when it is back");
        assert_eq!(told, [line(2), line(1)]);
    }

    #[test]
    fn a_certificate_that_ends_within_a_month_is_warned_about_once_a_day() {
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let log = Arc::new(HaLog::new(platform.clone()));
        let meter = GroupMeter::new(platform, 1, None, log);
        let mut status = status(MemberState::Up);
        let now = 100 * DAY_MS;
        assert_eq!(meter.warn_of_certificates(&status, now), 0);
        status.members[0].server_certificate_ends_ms = now + 31 * DAY_MS;
        assert_eq!(meter.warn_of_certificates(&status, now), 0);
        assert_eq!(meter.warn_of_certificates(&status, now + 2 * DAY_MS), 1);
        assert_eq!(meter.warn_of_certificates(&status, now + 3 * DAY_MS - 1), 0);
        assert_eq!(meter.warn_of_certificates(&status, now + 3 * DAY_MS), 1);
    }

    #[test]
    fn the_attempts_of_each_member_are_counted_for_itself() {
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let log = Arc::new(HaLog::new(platform.clone()));
        let meter = GroupMeter::new(platform, 1, None, log);
        assert_eq!(
            (meter.attempt(MemberId(1)), meter.attempt(MemberId(2)), meter.attempt(MemberId(1))),
            (1, 1, 2)
        );
        meter.news(&News::Admitted { member: MemberId(1) });
        assert_eq!((meter.attempt(MemberId(1)), meter.attempt(MemberId(2))), (1, 2));
    }
}
