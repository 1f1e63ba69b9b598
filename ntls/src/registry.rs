//! The descriptors of this process (HA 6): sockets stand in a registry without locks, from which a forked child takes
//! what it has inherited, to close it without a word. Sockets stand in it before they begin to connect.
//!
//! ```text
//! free --new--> being written --number, device, inode stand--> registered --drop--> free
//!                                                                  '--take_inherited (a child)--> free
//! ```
//! A number alone proves nothing: between the fork and the child's first call the application may have closed the
//! descriptor and opened a file of its own under the same number. So device and inode stand beside each number, and
//! whoever closes by number compares them first. Event descriptors have no inode of their own and are not registered: a
//! child leaves them open. What owned a descriptor before the fork leaves its number alone after it.
//!
//! DEVIATION: docs/adr/0006-deviations.md, item 12: a forked child leaves event descriptors open, where HA 6 has all closed.

use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::platform::check_no_lock;

/// Most sockets that the registry holds. One that finds no room is left open in a forked child, which does no harm
/// but to the peer's hope of seeing the end soon.
const REGISTERED_MAX: usize = 4096;

/// A place of the registry that holds no descriptor.
const FREE: i32 = -1;

/// A place that a thread is writing to; one that a fork has cut off in between stays so in the child.
const BEING_WRITTEN: i32 = -2;

/// A descriptor with what tells its file from others that come to bear the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The number.
    pub descriptor: RawFd,
    /// `st_dev` of the file behind it.
    pub device: u64,
    /// `st_ino` of the file behind it.
    pub inode: u64,
}

impl Inherited {
    fn of(descriptor: &OwnedFd) -> Option<Self> {
        let stat = rustix::fs::fstat(descriptor).ok()?;
        Some(Self { descriptor: descriptor.as_raw_fd(), device: stat.st_dev, inode: stat.st_ino })
    }
}

struct Place {
    descriptor: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

/// Every open socket of this process.
static OPEN: [Place; REGISTERED_MAX] = [const {
    Place { descriptor: AtomicI32::new(FREE), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
}; REGISTERED_MAX];

/// How often this process has taken the registry: what was made before belongs to an ancestor.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Takes all sockets out of the registry: in a forked child, what it inherited and has to close by number, each unless
/// its number stands for another file by now. The parent's registry is another one. In a process that is not a fresh
/// child they stay in use: do not close them.
pub fn take_inherited() -> impl Iterator<Item = Inherited> {
    TAKEN.fetch_add(1, Ordering::AcqRel);
    OPEN.iter().filter_map(|place| {
        let descriptor = place.descriptor.swap(FREE, Ordering::AcqRel);
        let (device, inode) = (place.device.load(Ordering::Relaxed), place.inode.load(Ordering::Relaxed));
        (descriptor >= 0).then_some(Inherited { descriptor, device, inode })
    })
}

/// How often this process has taken the registry, counted from 0: the age of what is made now.
pub(crate) fn age() -> u64 {
    TAKEN.load(Ordering::Acquire)
}

/// A descriptor that is closed with this value by the process that made it, and by no other.
pub(crate) struct Owned {
    descriptor: Option<OwnedFd>,
    age: u64,
    /// Where it is registered, and as what.
    registered: Option<(&'static Place, Inherited)>,
}

impl Owned {
    /// A socket, which stands in the registry from now on.
    pub(crate) fn registered(descriptor: OwnedFd) -> Self {
        let age = age();
        let registered = Inherited::of(&descriptor).and_then(|own| Some((register(own)?, own)));
        Self { descriptor: Some(descriptor), age, registered }
    }

    /// A descriptor that a child leaves open.
    pub(crate) fn unregistered(descriptor: OwnedFd) -> Self {
        Self { descriptor: Some(descriptor), age: age(), registered: None }
    }

    pub(crate) fn get(&self) -> &OwnedFd {
        self.descriptor.as_ref().expect("it is held until it is dropped")
    }

    /// Whether this process made it, and no ancestor.
    pub(crate) fn is_own(&self) -> bool {
        self.age == age()
    }
}

/// Puts a socket into the registry, if there is room.
fn register(own: Inherited) -> Option<&'static Place> {
    let free = |place: &&Place| {
        let take =
            place.descriptor.compare_exchange(FREE, BEING_WRITTEN, Ordering::AcqRel, Ordering::Relaxed);
        take.is_ok()
    };
    let place = OPEN.iter().find(free)?;
    place.device.store(own.device, Ordering::Relaxed);
    place.inode.store(own.inode, Ordering::Relaxed);
    place.descriptor.store(own.descriptor, Ordering::Release);
    Some(place)
}

impl Drop for Owned {
    fn drop(&mut self) {
        let Some(descriptor) = self.descriptor.take() else { return };
        check_no_lock();
        let mut is_ours = self.is_own();
        if let Some((place, own)) = self.registered.filter(|_| is_ours) {
            // Before the descriptor is closed, so that the number never stands for somebody else's file.
            place.descriptor.store(FREE, Ordering::Release);
            is_ours = Inherited::of(&descriptor) == Some(own);
        }
        if !is_ours {
            // An ancestor's, or the application has closed it: the number may be another file's by now.
            let _ = descriptor.into_raw_fd();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// Whether a number stands in the registry.
    pub(crate) fn stands(descriptor: RawFd) -> bool {
        OPEN.iter().any(|place| place.descriptor.load(Ordering::Acquire) == descriptor)
    }

    #[test]
    fn a_socket_stands_in_the_registry_with_its_identity_while_it_lives() {
        let (one, other) = UnixStream::pair().unwrap();
        let owned = Owned::registered(one.into());
        let (place, own) = owned.registered.unwrap();
        let stat = rustix::fs::fstat(owned.get()).unwrap();
        assert_eq!((own.device, own.inode), (stat.st_dev, stat.st_ino));
        assert_eq!(place.inode.load(Ordering::Acquire), stat.st_ino);
        assert_ne!(Inherited::of(&other.into()).unwrap().inode, own.inode, "each socket has its own");
        assert!(stands(own.descriptor));
    }

    #[test]
    fn a_number_that_the_application_gave_to_another_file_is_not_closed() {
        let (one, _peer) = UnixStream::pair().unwrap();
        let mut owned = Owned::registered(one.into());
        // As if the application had closed our number and had got it for a socket of its own.
        let (theirs, _far) = UnixStream::pair().unwrap();
        drop(owned.descriptor.replace(theirs.into()));
        let link = std::path::PathBuf::from(format!("/proc/self/fd/{}", owned.get().as_raw_fd()));
        let file = std::fs::read_link(&link).unwrap();
        drop(owned);
        assert_eq!(std::fs::read_link(&link).ok(), Some(file));
    }
}
