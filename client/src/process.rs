//! What one `C_Initialize` brings to life and a fork leaves whole: configuration, slots, sessions, handles, tickets.
//!
//! ```text
//! initialize -> Process { slots, sessions, handles, World } -> finalize
//!                                             ^   |
//!                       a forked child: an empty World, a higher epoch, `inherited` (HA 6, RULES 2.14)
//! ```
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use ntls::instance::InstanceKey;
use ntls::links::Links;
use spec::platform::Platform;
use spec::seam::Seam;
use spec::{HandleSession, Rv, SlotId};

use crate::buffer::Pool;
use crate::conf::Configuration;
use crate::error::Result;
use crate::handles::Handles;
use crate::page::Mapper;
use crate::plans::Logins;
use crate::reload::Mark;
use crate::sessions::Session;
use crate::slab::{Entry, Slab};
use crate::slots::{self, Slot};
use crate::world::World;

/// What stands between the module and its links: it is given them when the first call needs a member, and answers the seam
/// that calls then go through.
pub type Through = Arc<dyn Fn(&Arc<Links>) -> Arc<dyn Seam> + Send + Sync>;

/// What carries requests.
pub(crate) enum Driver {
    /// Links over TLS to the servers of the configuration; the instance's key proves them (RULES 2.6).
    Links(Arc<InstanceKey>),
    /// The same, with something between them and the calls.
    LinksThrough(Arc<InstanceKey>, Through),
    /// Given by the caller.
    Given(Arc<dyn Seam>),
}

impl Driver {
    /// The key of the instance where there are links.
    pub(crate) fn instance(&self) -> Option<&Arc<InstanceKey>> {
        match self {
            Driver::Links(instance) | Driver::LinksThrough(instance, _) => Some(instance),
            Driver::Given(_) => None,
        }
    }
}

/// What a life begins with.
pub(crate) struct Start {
    pub(crate) configuration: Option<Configuration>,
    /// The mark that its file had before it was read.
    pub(crate) mark: Option<Mark>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) driver: Driver,
    pub(crate) may_create_threads: bool,
    /// Without one there are no metrics pages.
    pub(crate) mapper: Option<&'static dyn Mapper>,
}

/// The epoch of a process that did not come by a fork.
const FIRST_EPOCH: u64 = 1;

/// The world in which a call runs.
pub(crate) enum Present<'a> {
    First(&'a Arc<World>),
    Childs(Arc<World>),
}

impl Present<'_> {
    /// To have it as long as it is wanted.
    pub(crate) fn into_inner(self) -> Arc<World> {
        match self {
            Self::First(world) => world.clone(),
            Self::Childs(world) => world,
        }
    }
}

impl Deref for Present<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        match self {
            Self::First(world) => world,
            Self::Childs(world) => world,
        }
    }
}

/// One life of the module.
pub(crate) struct Process {
    me: Weak<Process>,
    configuration: ArcSwapOption<Configuration>,
    /// The mark that the file had when it was last read, also when what it held could not be taken over.
    mark: ArcSwapOption<Mark>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) driver: Driver,
    pub(crate) may_create_threads: bool,
    pub(crate) mapper: Option<&'static dyn Mapper>,
    pub(crate) slots: ArcSwap<Vec<Arc<Slot>>>,
    pub(crate) sessions: Slab<Session>,
    pub(crate) handles: Handles,
    pub(crate) logins: Logins,
    /// Room for gathered data of the whole process (RULES 1.6).
    pub(crate) pool: Arc<Pool>,
    world: Arc<World>,
    /// The world of a forked child, in place of the first one.
    childs_world: ArcSwapOption<World>,
    epoch: AtomicU64,
    inherited: AtomicBool,
    lost_a_slot: AtomicBool,
}

impl Process {
    /// A new life; nothing is connected yet.
    pub(crate) fn new(start: Start) -> Arc<Self> {
        let handles = Handles::default();
        let configuration = start.configuration.map(Arc::new);
        let world = World::empty(handles.index(), &start.platform, configuration.as_deref());
        let buffer_mib = configuration.as_ref().map_or(0, |conf| conf.hatoki.buffer_mib);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            slots: ArcSwap::from_pointee(slots::configured(configuration.as_deref())),
            configuration: ArcSwapOption::new(configuration),
            mark: ArcSwapOption::new(start.mark.map(Arc::new)),
            platform: start.platform,
            driver: start.driver,
            may_create_threads: start.may_create_threads,
            mapper: start.mapper,
            sessions: Slab::new(),
            handles,
            logins: Logins::default(),
            pool: Pool::new(buffer_mib),
            world: Arc::new(world),
            childs_world: ArcSwapOption::const_empty(),
            epoch: AtomicU64::new(FIRST_EPOCH),
            inherited: AtomicBool::new(false),
            lost_a_slot: AtomicBool::new(false),
        })
    }

    /// This process, for a thread that must not keep it alive.
    pub(crate) fn weak(&self) -> Weak<Process> {
        self.me.clone()
    }

    /// The configuration in force; `None` without a file.
    pub(crate) fn configuration(&self) -> Guard<Option<Arc<Configuration>>> {
        self.configuration.load()
    }

    /// Another configuration is in force from now on.
    pub(crate) fn set_configuration(&self, configuration: Arc<Configuration>) {
        self.pool.resize(configuration.hatoki.buffer_mib);
        self.configuration.store(Some(configuration));
    }

    /// What the file of the configuration was like when it was last read.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark.load().as_deref().copied()
    }

    /// The file has been read, and was like this before.
    pub(crate) fn set_mark(&self, mark: Option<Mark>) {
        self.mark.store(mark.map(Arc::new));
    }

    /// Everything that holds locks, links and threads.
    pub(crate) fn world(&self) -> Present<'_> {
        // Before a fork nothing is shared but what is never written again.
        if self.epoch() == FIRST_EPOCH {
            return Present::First(&self.world);
        }
        match Guard::into_inner(self.childs_world.load()) {
            Some(world) => Present::Childs(world),
            None => Present::First(&self.world),
        }
    }

    /// Which process this is in a line of forks, from 1.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether it came by a fork and no `C_Initialize` has been called since.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited.load(Ordering::Acquire)
    }

    /// The first call in a forked child: the parent's world is leaked as it is, since its locks may be held for ever
    /// and its links are the parent's; nothing is written to them (HA 6).
    pub(crate) fn forked(&self) {
        self.inherited.store(true, Ordering::Release);
        let parents = std::mem::ManuallyDrop::new(self.world().into_inner());
        let configuration = self.configuration();
        let world = World::empty(self.handles.index(), &self.platform, configuration.as_deref());
        parents.forked(&world);
        // The parent may have been cut off between this line and the next one.
        std::mem::forget(self.childs_world.swap(Some(Arc::new(world))));
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The group of a slot has left the configuration: from now on calls look whether it is theirs.
    pub(crate) fn lose_a_slot(&self) {
        self.lost_a_slot.store(true, Ordering::Release);
    }

    /// Whether that has ever happened.
    pub(crate) fn has_lost_a_slot(&self) -> bool {
        self.lost_a_slot.load(Ordering::Acquire)
    }

    /// The slot of an id.
    ///
    /// # Errors
    /// CKR_SLOT_ID_INVALID.
    pub(crate) fn slot(&self, id: SlotId) -> Result<Arc<Slot>> {
        let slots = self.slots.load();
        let slot = slots.iter().find(|slot| slot.id == id);
        Ok(slot.ok_or(Rv::SLOT_ID_INVALID)?.clone())
    }

    /// The session of a handle.
    ///
    /// # Errors
    /// CKR_SESSION_HANDLE_INVALID.
    pub(crate) fn session(&self, handle: HandleSession) -> Result<Arc<Entry<Session>>> {
        Ok(self.sessions.look_up(handle.0).ok_or(Rv::SESSION_HANDLE_INVALID)?)
    }

    /// So many fresh random bytes; never kept in a buffer (HA 6).
    pub(crate) fn random<const BYTES: usize>(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        self.platform.random(&mut bytes);
        bytes
    }
}
