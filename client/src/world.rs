//! World (HA 6): everything that holds locks, links and threads. A forked child gets an empty one; sessions, handles
//! and tickets live outside it.
//!
//! ```text
//! empty --first call that needs a member--> driving: seam, groups with their metrics pages, the thread "tender"
//!    close (C_Finalize): no more groups, groups and links closed, tender joined
//!    leak (fork): left as it is, never touched again
//! ```
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use ha::Group;
use spec::planted::{self, Bug};
use spec::platform::{Lock, Platform};
use spec::stats::Birth;
use spec::{Rv, SlotId, UserType};

use crate::conf::{self, Configuration, Stats};
use crate::drive::{self, Drive};
use crate::error::Result;
use crate::events::Events;
use crate::halog::HaLog;
use crate::handles::Index;
use crate::meter::GroupMeter;
use crate::page::Page;
use crate::process::Process;
use crate::random::Buffers;
use crate::reload::Watch;
use crate::slots::Slot;
use crate::tender::Tender;

/// How often a thread that waits for a slot event looks after the configuration, in milliseconds.
const EVENT_LOOK_MS: u64 = 1_000;
/// How long C_Finalize sends what members owe that can take it at once (HA 2.5), in milliseconds.
const LAST_MS: u64 = 1_000;

/// A group that has been asked for.
pub(crate) struct Known {
    pub(crate) slot: Arc<Slot>,
    pub(crate) group: Arc<Group>,
    pub(crate) meter: Arc<GroupMeter>,
    /// The generation that its manifest had when last looked at; 0 before one was known.
    pub(crate) generation: AtomicU64,
    /// Random bytes filled ahead.
    pub(crate) random: Arc<Buffers>,
}

/// See the head of this file.
pub(crate) struct World {
    platform: Arc<dyn Platform>,
    index: Index,
    drive: OnceLock<Drive>,
    groups: ArcSwap<Vec<Arc<Known>>>,
    making: Lock<()>,
    tender: Tender,
    watch: Watch,
    log: Arc<HaLog>,
    events: Events,
    closed: AtomicBool,
    /// A planted bug: groups of the parent whose random bytes the forked child goes on with.
    parents: OnceLock<Arc<Vec<Arc<Known>>>>,
}

impl World {
    /// A world without links.
    pub(crate) fn empty(index: Index, platform: &Arc<dyn Platform>, conf: Option<&Configuration>) -> Self {
        let log = Arc::new(HaLog::new(platform.clone()));
        log.configure(conf.map(|conf| &conf.ha_log));
        Self {
            platform: platform.clone(),
            index,
            drive: OnceLock::new(),
            groups: ArcSwap::from_pointee(Vec::new()),
            making: Lock::new(()),
            tender: Tender::default(),
            watch: Watch::new(&**platform),
            log,
            events: Events::default(),
            closed: AtomicBool::new(false),
            parents: OnceLock::new(),
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn log(&self) -> &HaLog {
        &self.log
    }

    /// The group behind a slot; the first call starts links and background work.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_NOT_INITIALIZED once the world is closed; CKR_DEVICE_REMOVED while the slot's group is not in the
    /// configuration.
    pub(crate) fn group(&self, process: &Process, slot: &Arc<Slot>) -> Result<Arc<Group>> {
        let groups = self.groups_for(process, slot)?;
        match find(&groups, slot.id) {
            Some(known) => Ok(known.group.clone()),
            None => self.make_group(process, slot),
        }
    }

    /// The groups, on the way to one of them.
    fn groups_for(&self, process: &Process, slot: &Slot) -> Result<Guard<Arc<Vec<Arc<Known>>>>> {
        if !process.may_create_threads || self.tender.is_absent() {
            self.upkeep(process);
        }
        slot.check_usable()?;
        Ok(self.groups.load())
    }

    /// The group of a slot that has none yet, unless another thread makes it meanwhile.
    fn make_group(&self, process: &Process, slot: &Arc<Slot>) -> Result<Arc<Group>> {
        let drive = self.drive(process)?;
        let making = self.making.lock();
        self.check_open()?;
        // It may have left the configuration meanwhile; `forget` comes after that and waits for this.
        slot.check_usable()?;
        let groups = self.groups.load_full();
        if let Some(known) = find(&groups, slot.id) {
            return Ok(known.group.clone());
        }
        let page = self.page(process, slot);
        let meter = GroupMeter::new(process.platform.clone(), slot.serial, page, self.log.clone());
        let group = drive::group(process, drive, slot, &meter);
        let generation = AtomicU64::new(0);
        let kept = self.parents.get().and_then(|known| find(known, slot.id));
        let random = kept.map_or_else(Arc::default, |known| known.random.clone());
        let known = Arc::new(Known { slot: slot.clone(), group: group.clone(), meter, generation, random });
        let mut grown = groups.to_vec();
        grown.push(known);
        self.groups.store(Arc::new(grown));
        // A login from before a fork repairs in the child too.
        renew(&group, slot);
        let woken = self.tender.tend(process, drive, &group);
        drop(making);
        if let Some(tender) = woken {
            tender.wake();
        }
        Ok(group)
    }

    /// The group behind a slot with what the process keeps for it, as [`World::group`].
    ///
    /// # Errors
    /// Those of [`World::group`].
    pub(crate) fn answering(&self, process: &Process, slot: &Arc<Slot>) -> Result<Arc<Known>> {
        slot.check_usable()?;
        if let Some(known) = self.known(slot.id) {
            return Ok(known);
        }
        self.group(process, slot)?;
        self.known(slot.id).ok_or_else(|| Rv::CRYPTOKI_NOT_INITIALIZED.into())
    }

    /// The group of a slot if one has been asked for.
    pub(crate) fn known(&self, slot: SlotId) -> Option<Arc<Known>> {
        find(&self.groups.load(), slot).cloned()
    }

    /// Every group that has been asked for.
    pub(crate) fn groups(&self) -> Arc<Vec<Arc<Known>>> {
        self.groups.load_full()
    }

    /// The slot's group is not in the configuration any more: its calls end, nothing is sent for it.
    pub(crate) fn forget(&self, slot: SlotId) {
        let known = {
            let _making = self.making.lock();
            let Some(known) = self.known(slot) else { return };
            self.groups.rcu(|groups| {
                groups.iter().filter(|other| other.slot.id != slot).cloned().collect::<Vec<_>>()
            });
            known
        };
        self.tender.forget(&known.group);
        known.group.pay_last(self.platform.now().after_ms(LAST_MS));
        known.end();
    }

    /// Waits until nobody makes a group by a configuration that was in force before.
    pub(crate) fn settle(&self) {
        drop(self.making.lock());
    }

    /// What is done about once a second, by the tender or, where threads are forbidden, by calls: the configuration is
    /// looked at, waiting lines of the HA log are written, and random bytes that have waited too long are wiped. The members are
    /// looked after by the tender, or by the group itself within its calls.
    pub(crate) fn upkeep(&self, process: &Process) {
        self.watch.look(process, self);
        self.log.flush();
        let now = self.platform.now();
        self.groups.load().iter().for_each(|known| known.random.drop_old(now));
    }

    /// The first call in a forked child: no unused random bytes of the parent stay in it (HA 6). Nothing else is touched.
    pub(crate) fn forked(&self, child: &World) {
        if planted::is(Bug::RandomBufferKept) {
            let _ = child.parents.set(self.groups.load_full());
            return;
        }
        self.groups.load().iter().for_each(|known| known.random.wipe());
    }

    /// Looks after every group's members: losses, attempts to take them back, and those whose attempts are used up.
    pub(crate) fn observe(&self, conf: Option<&Configuration>, wall_ms: u64) {
        let Some(recovery) = conf.map(|conf| conf.recovery) else { return };
        for known in self.groups.load().iter() {
            let status = known.group.status();
            known.meter.warn_of_certificates(&status, wall_ms);
            for member in known.meter.observe(&status, &recovery) {
                known.group.give_up(member);
            }
        }
    }

    /// What carries requests, once something does.
    pub(crate) fn driving(&self) -> Option<&Drive> {
        self.drive.get()
    }

    /// The metrics page of a slot's group; `None`, with a line in the log, when there is none.
    fn page(&self, process: &Process, slot: &Slot) -> Option<Page> {
        let mapper = process.mapper?;
        let folder = match &process.configuration().as_ref()?.hatoki.stats {
            Stats::Off => return None,
            Stats::Folder(folder) => folder.clone(),
            Stats::Default => {
                let runtime = conf::location::variable("XDG_RUNTIME_DIR");
                let uid = rustix::process::geteuid().as_raw();
                spec::stats::folder(runtime.as_deref().map(std::path::Path::new), uid)
            }
        };
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let birth = Birth {
            pid: std::process::id(),
            started_ticks: spec::stats::started_ticks(&stat).unwrap_or(0),
            created_ms: process.platform.wall_ms(),
            serial: slot.serial,
            label: &slot.label(),
        };
        let page = Page::create(mapper, &folder, &birth, slot.members().len());
        page.inspect_err(|error| tracing::warn!("{error}; nothing is counted for `vtl stats`")).ok()
    }

    /// The partitions that the servers have told of: serial number and label.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_NOT_INITIALIZED once the world is closed.
    pub(crate) fn partitions(&self, process: &Process) -> Result<Vec<(u64, String)>> {
        Ok(drive::partitions(process, self.drive(process)?))
    }

    fn drive(&self, process: &Process) -> Result<&Drive> {
        let _making = self.making.lock();
        self.check_open()?;
        Ok(self.drive.get_or_init(|| drive::start(process)))
    }

    /// Under the lock `making`, so that nothing is started behind the back of `close`.
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Rv::CRYPTOKI_NOT_INITIALIZED.into()) } else { Ok(()) }
    }

    /// A login has come or gone: the Crypto Officer's ticket is what repairs go with, if it is one's.
    pub(crate) fn renew_repair_ticket(&self, slot: &Slot) {
        if let Some(known) = self.known(slot.id) {
            renew(&known.group, slot);
        }
    }

    /// A blocking C_WaitForSlotEvent: waits until a slot has something to tell, or the world closes.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_NOT_INITIALIZED once the world is closed.
    pub(crate) fn wait_for_event(&self, process: &Process) -> Result<SlotId> {
        let park = process.platform.parker();
        loop {
            self.events.subscribe(&park);
            self.check_open()?;
            self.upkeep(process);
            if let Some(slot) = self.events.take() {
                return Ok(slot);
            }
            park.park(process.platform.now().after_ms(EVENT_LOOK_MS));
        }
    }

    /// C_Finalize: waiters are woken, members that can be reached get what they owe, for a second at most, calls that wait for
    /// members end, links close, threads are joined; in this order, so that nobody is waited for who waits for a member
    /// himself.
    pub(crate) fn close(&self) {
        {
            let _making = self.making.lock();
            self.closed.store(true, Ordering::Release);
        }
        self.events.wake();
        let groups = self.groups.load_full();
        let until = self.platform.now().after_ms(LAST_MS);
        groups.iter().for_each(|known| known.group.pay_last(until));
        groups.iter().for_each(|known| known.end());
        self.tender.tell_to_stop();
        if let Some(Drive { links: Some(links), .. }) = self.drive.get() {
            links.close();
        }
        self.tender.stop();
        self.log.flush();
    }
}

impl Known {
    /// Ends the group, wipes its random bytes and takes its page away.
    fn end(&self) {
        self.group.close();
        self.random.wipe();
        if let Some(page) = self.meter.page() {
            page.remove();
        }
    }
}

/// As [`World::group`], lent and counted by nobody: what all threads count together makes each of them slower.
///
/// # Errors
/// Those of [`World::group`].
pub(crate) fn with_group<T>(process: &Process, slot: &Arc<Slot>, ask: impl FnOnce(&Group) -> T) -> Result<T> {
    let groups = process.world().groups_for(process, slot)?;
    match find(&groups, slot.id) {
        Some(known) => Ok(ask(&known.group)),
        None => Ok(ask(&*process.world().make_group(process, slot)?)),
    }
}

/// Gives the group the ticket of the login that the slot has when this returns, whoever else does the same.
fn renew(group: &Group, slot: &Slot) {
    loop {
        let login = slot.login.load_full();
        let officer = login.as_ref().filter(|login| login.role == UserType::USER);
        group.set_repair_ticket(officer.map(|login| login.ticket.as_slice()));
        if slot.login.load().as_ref().map(Arc::as_ptr) == login.as_ref().map(Arc::as_ptr) {
            return;
        }
    }
}

fn find(groups: &[Arc<Known>], slot: SlotId) -> Option<&Arc<Known>> {
    groups.iter().find(|known| known.slot.id == slot)
}
