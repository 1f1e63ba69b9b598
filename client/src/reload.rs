//! Configuration at run time: about once a second it is looked whether `Chrystoki.conf` or a certificate file has changed,
//! and what changed is applied while the application works.
//!
//! ```text
//! as before --another mark (identity, length, times)--> read --broken------> a warning, the old one goes on
//!                                                         |---equal------> members given up are tried again
//!                                                         '---different--> links, groups, slots, logs take it over
//! ```
//! Slots, serial numbers, sessions and handles stay (RULES 2.10 to 2.12): a group keeps its slot, a new one gets the next
//! number, one that is gone keeps its number without a token. `HAOnly`, `NetClient`, `OneBaseSlotId` and
//! `StatsPath` are taken over by the next C_Initialize.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spec::platform::{Lock, Moment, Platform};

use crate::conf::{self, Configuration};
use crate::drive::{self, Drive};
use crate::process::Process;
use crate::world::World;
use crate::{expiry, log, slots};

/// Between two looks, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// What tells one state of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    device: u64,
    inode: u64,
    bytes: i64,
    changed: [i64; 4],
}

impl Mark {
    /// The mark of a file; `None` when there is none, or it cannot be reached.
    pub(crate) fn of(file: &Path) -> Option<Mark> {
        let stat = rustix::fs::stat(file).ok()?;
        let signed = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
        Some(Mark {
            device: stat.st_dev,
            inode: stat.st_ino,
            bytes: stat.st_size,
            changed: [stat.st_mtime, signed(stat.st_mtime_nsec), stat.st_ctime, signed(stat.st_ctime_nsec)],
        })
    }
}

/// What was there at the last look.
#[derive(Default)]
struct Seen {
    certificates: Vec<Option<Mark>>,
    missed: bool,
}

/// When the next look is due, and what the last one saw.
pub(crate) struct Watch {
    due: AtomicU64,
    looking: AtomicBool,
    seen: Lock<Seen>,
    expiry: expiry::Files,
}

/// The right to look, given back when it is dropped.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Watch {
    /// Looks first in a second.
    pub(crate) fn new(platform: &dyn Platform) -> Self {
        let due = AtomicU64::new(platform.now().after_ms(LOOK_MS).0);
        Self { due, looking: AtomicBool::new(false), seen: Lock::default(), expiry: expiry::Files::default() }
    }

    /// Looks if a second has passed since the last look and nobody else is at it.
    pub(crate) fn look(&self, process: &Process, world: &World) {
        let now = process.platform.now();
        if now < Moment(self.due.load(Ordering::Relaxed)) || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let _turn = Turn(&self.looking);
        self.due.store(now.after_ms(LOOK_MS).0, Ordering::Relaxed);
        // Taken out, since what is applied talks to members: no lock is held across a system call (HA 5). Who has the turn
        // alone needs it.
        let mut seen = std::mem::take(&mut *self.seen.lock());
        look_at_configuration(process, world, &mut seen);
        look_at_certificates(process, world, &mut seen, &self.expiry);
        *self.seen.lock() = seen;
        look_at_generations(world);
        world.observe(process.configuration().as_deref(), process.platform.wall_ms());
    }
}

/// The file in force, or the one that would be.
fn file(process: &Process) -> PathBuf {
    match &*process.configuration() {
        Some(conf) => conf.file.clone(),
        None => conf::folder().join(conf::FILE_NAME),
    }
}

fn look_at_configuration(process: &Process, world: &World, seen: &mut Seen) {
    let file = file(process);
    let Some(mark) = Mark::of(&file) else {
        if process.mark().is_some() && !seen.missed {
            seen.missed = true;
            tracing::warn!(
                "wanted to look at {}, found no such file; what it said last goes on",
                file.display()
            );
        }
        return;
    };
    seen.missed = false;
    if process.mark() == Some(mark) {
        return;
    }
    process.set_mark(Some(mark));
    match conf::load_from(file.parent().unwrap_or(Path::new(""))) {
        // Replaced between the two looks: the next one finds what is there then.
        Ok(None) => process.set_mark(None),
        Ok(Some(mut new)) => {
            if let Some(old) = process.configuration().as_deref() {
                tell_what_waits(old, &new);
                keep_what_waits(old, &mut new);
            }
            if process.configuration().as_deref() != Some(&new) {
                apply(process, world, new);
            }
            recover(world);
        }
        Err(error) => {
            tracing::warn!("{error}; the configuration is not taken over, what the file said before goes on");
        }
    }
}

/// Brings a new configuration into force.
fn apply(process: &Process, world: &World, new: Configuration) {
    let new = Arc::new(new);
    let old = process.configuration().clone();
    for warning in &new.warnings {
        tracing::warn!("{warning}");
    }
    let logs = |conf: &Configuration| (conf.hatoki.log_level, conf.hatoki.log_path.clone());
    if old.as_deref().map(logs) != Some(logs(&new)) {
        log::change(&process.platform, &new.hatoki);
    }
    process.set_configuration(new.clone());
    world.log().configure(Some(&new.ha_log));
    configure_links(process, world);
    for slot in slots::reconfigure(process, &new) {
        if slot.is_gone() {
            tracing::warn!(
                slot = slot.id.0,
                "group {} has left the configuration: its slot has no token",
                slot.serial
            );
            world.forget(slot.id);
        } else {
            tracing::info!(slot = slot.id.0, "group {} has come into the configuration", slot.serial);
        }
        world.events().tell(slot.id);
    }
    world.settle();
    for known in world.groups().iter() {
        known.group.configure(drive::group_settings(Some(&new), &known.slot, &known.meter));
    }
    tracing::info!("the changed configuration {} is in force", new.file.display());
}

/// Names what a running application does not take over.
fn tell_what_waits(old: &Configuration, new: &Configuration) {
    let rows = [
        ("HAOnly", old.ha_only != new.ha_only && !new.groups.is_empty()),
        ("NetClient", old.net_client != new.net_client),
        ("OneBaseSlotId", old.first_slot != new.first_slot),
        ("StatsPath", old.hatoki.stats != new.hatoki.stats),
    ];
    for (key, _) in rows.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(
            "{key} has changed in {}: it is taken over by the next C_Initialize",
            new.file.display()
        );
    }
}

/// What `tell_what_waits` names stays as it was: the slots of a running application keep their tokens.
fn keep_what_waits(old: &Configuration, new: &mut Configuration) {
    new.ha_only = old.ha_only;
    new.net_client = old.net_client;
    new.hatoki.stats.clone_from(&old.hatoki.stats);
}

/// Members that were given up are tried again: the operator has written the file (`vtl haAdmin recover` does).
fn recover(world: &World) {
    for known in world.groups().iter() {
        known.slot.dead.store(false, Ordering::Release);
        known.group.recover();
    }
}

fn configure_links(process: &Process, world: &World) {
    if let (Some(instance), Some(Drive { links: Some(links), .. })) =
        (process.driver.instance(), world.driving())
    {
        links.configure(drive::link_settings(process, instance));
    }
}

/// New certificates under the same names: new links are made with them (ClientCertFile, ClientPrivKeyFile, ServerCAFile).
/// Those that end soon are warned about.
fn look_at_certificates(process: &Process, world: &World, seen: &mut Seen, expiry: &expiry::Files) {
    let Some(conf) = process.configuration().clone() else { return };
    if world.driving().is_none_or(|drive| drive.links.is_none()) {
        return;
    }
    let files =
        [conf.client_certificate.as_deref(), conf.client_private_key.as_deref(), Some(&*conf.server_ca)];
    let marks: Vec<Option<Mark>> = files.into_iter().map(|file| file.and_then(Mark::of)).collect();
    let is_first = seen.certificates.is_empty();
    if seen.certificates != marks {
        seen.certificates = marks;
        expiry.changed();
        if !is_first {
            tracing::info!("a certificate file has changed: new links are made with what it holds now");
            configure_links(process, world);
        }
    }
    expiry.look(&conf, process.platform.wall_ms());
}

/// A group of another generation is another token (RULES 2.9, 2.11).
fn look_at_generations(world: &World) {
    for known in world.groups().iter() {
        let Some(manifest) = known.group.manifest() else { continue };
        let before = known.generation.swap(manifest.generation, Ordering::AcqRel);
        if before != 0 && before != manifest.generation {
            world.events().tell(known.slot.id);
        }
        if let Some(page) = known.meter.page() {
            page.set_label(&manifest.label);
        }
    }
}
