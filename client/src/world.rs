//! World (HA 6): everything that holds locks, links and threads. A forked child gets an empty one; sessions, handles
//! and tickets live outside it.
//!
//! ```text
//! empty --first call that needs a member--> driving: seam, groups, the thread "tender"
//!    close (C_Finalize): no more groups, groups and links closed, tender joined
//!    leak (fork): left as it is, never touched again
//! ```
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ha::Group;
use spec::platform::{Lock, Park, Platform};
use spec::{Rv, SlotId, UserType};

use crate::drive::{self, Drive};
use crate::error::Result;
use crate::handles::Index;
use crate::plans::Plans;
use crate::process::Process;
use crate::slots::Slot;
use crate::tender::Tender;

type Known = Vec<(SlotId, Arc<Group>)>;

/// See the head of this file.
pub(crate) struct World {
    index: Index,
    plans: Plans,
    drive: OnceLock<Drive>,
    groups: ArcSwap<Known>,
    making: Lock<()>,
    tender: Tender,
    waiting: Lock<Vec<Arc<dyn Park>>>,
    closed: AtomicBool,
}

impl World {
    /// A world without links.
    pub(crate) fn empty(index: Index) -> Self {
        Self {
            index,
            plans: Plans::default(),
            drive: OnceLock::new(),
            groups: ArcSwap::from_pointee(Vec::new()),
            making: Lock::new(()),
            tender: Tender::default(),
            waiting: Lock::new(Vec::new()),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn plans(&self) -> &Plans {
        &self.plans
    }

    /// The group behind a slot; the first call starts links and background work.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_NOT_INITIALIZED once the world is closed.
    pub(crate) fn group(&self, process: &Process, slot: &Slot) -> Result<Arc<Group>> {
        if let Some(group) = find(&self.groups.load(), slot.id) {
            return Ok(group);
        }
        let drive = self.drive(process)?;
        let _making = self.making.lock();
        self.check_open()?;
        let known = self.groups.load_full();
        if let Some(group) = find(&known, slot.id) {
            return Ok(group);
        }
        let group = drive::group(process, drive, slot);
        let mut grown = known.to_vec();
        grown.push((slot.id, group.clone()));
        self.groups.store(Arc::new(grown));
        // A login from before a fork repairs in the child too.
        renew(&group, slot);
        self.tender.tend(process, drive, &group);
        Ok(group)
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
        if let Some(group) = find(&self.groups.load(), slot.id) {
            renew(&group, slot);
        }
    }

    /// Waits until the world closes (a blocking C_WaitForSlotEvent: no slot of ours comes or goes, RULES 2.11).
    pub(crate) fn wait_for_close(&self, platform: &Arc<dyn Platform>) {
        let park = platform.parker();
        self.waiting.lock().push(park.clone());
        while !self.closed.load(Ordering::Acquire) {
            park.park(platform.now().after_ms(1_000));
        }
    }

    /// C_Finalize: waiters are woken, calls that wait for members end, links close, threads are joined; in this order,
    /// so that nobody is waited for who waits for a member himself.
    pub(crate) fn close(&self) {
        {
            let _making = self.making.lock();
            self.closed.store(true, Ordering::Release);
        }
        for park in self.waiting.lock().drain(..) {
            park.unpark();
        }
        for (_, group) in self.groups.load().iter() {
            group.close();
        }
        self.tender.tell_to_stop();
        if let Some(Drive { links: Some(links), .. }) = self.drive.get() {
            links.close();
        }
        self.tender.stop();
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

fn find(known: &Known, slot: SlotId) -> Option<Arc<Group>> {
    known.iter().find(|(id, _)| *id == slot).map(|(_, group)| group.clone())
}
