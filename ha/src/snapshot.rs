//! The group snapshot: who the members are and under which settings, replaced as a whole (HA 2.6).
//!
//! ```text
//! one thread at a time: what is known -> is the other one newer? -> its epoch is seen -> the view is shown -> its epoch is told
//! everybody, always:    a look at the view or at its epoch, without a lock
//! ```
//! So whoever has read an epoch finds its view, or a later one; nobody's view goes back to an older manifest; and a manifest
//! whose epoch a reply has named is known or still to be asked for (checked by `loom` in `models.rs`).
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use spec::platform::Lock;
use spec::record::Manifest;

use crate::atoms::{Frame, Turn, Word};
use crate::settings::GroupSettings;
use crate::view::{View, age};

/// See the head of this file.
pub(crate) struct Snapshot<F = ArcSwap<View>, W = AtomicU64, T = Lock<()>> {
    view: F,
    /// The epoch of the view, for those who ask nothing else.
    epoch: W,
    /// The greatest manifest epoch that a reply has named, and whether it has not been asked for yet (1).
    seen: W,
    newer: W,
    turn: T,
}

impl<F: Frame<View>, W: Word, T: Turn<()>> Snapshot<F, W, T> {
    /// The members of the configuration.
    pub(crate) fn new(settings: Arc<GroupSettings>) -> Self {
        Self {
            view: F::new(Arc::new(View::of_configuration(settings, None))),
            epoch: W::new(0),
            seen: W::new(0),
            newer: W::new(0),
            turn: T::new(()),
        }
    }

    /// Who the members are now.
    #[inline]
    pub(crate) fn view(&self) -> F::Seen {
        self.view.load()
    }

    /// The epoch of the manifest that is known; 0 before there is one.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Takes a manifest over when it is newer than the one known (see [`age`]); `tell` hears of both views first.
    pub(crate) fn learn(&self, manifest: &Manifest, tell: impl FnOnce(&View, &View)) {
        self.replace(tell, |old| {
            // A single partition may join a group meanwhile; a group keeps its id (see `belongs`).
            let older = |known: &Manifest| known.group == manifest.group && age(known) >= age(manifest);
            let is_known = old.manifest.as_ref().is_some_and(older);
            (!is_known).then(|| View::of_manifest(old.settings.clone(), old, manifest.clone()))
        });
    }

    /// Other settings from now on, made of those that are known; the members are seated anew.
    pub(crate) fn configure(
        &self,
        settings: impl FnOnce(&GroupSettings) -> GroupSettings,
        tell: impl FnOnce(&View, &View),
    ) {
        self.replace(tell, |old| {
            let settings = Arc::new(settings(&old.settings));
            Some(match &old.manifest {
                Some(manifest) => View::of_manifest(settings, old, manifest.clone()),
                None => View::of_configuration(settings, Some(old)),
            })
        });
    }

    /// The members of this view were found to hold the same in a round that began under it: what they lack, nobody has. It says
    /// nothing once others are the members: a write may have been acknowledged meanwhile by one that has left.
    pub(crate) fn all_hold_the_same(&self, round: u64) {
        let is_news = |view: &View| view.number == round && view.left_out > 0;
        if is_news(&self.view()) {
            self.replace(|_, _| {}, |old| is_news(old).then(|| old.with_none_left_out()));
        }
    }

    fn replace(&self, tell: impl FnOnce(&View, &View), make: impl FnOnce(&View) -> Option<View>) {
        let _turn = self.turn.take();
        let old = self.view();
        let Some(new) = make(&old) else { return };
        tell(&old, &new);
        let epoch = new.epoch();
        self.seen.fetch_max(epoch, Ordering::AcqRel);
        self.view.store(Arc::new(new));
        // After the view: who has read the epoch finds the view.
        self.epoch.store(epoch, Ordering::Release);
    }

    /// A reply names a manifest epoch: a newer one than any seen is asked for (HA 2.6).
    #[inline]
    pub(crate) fn see_epoch(&self, epoch: u64) {
        if epoch > self.seen.load(Ordering::Relaxed) {
            self.see_newer(epoch);
        }
    }

    fn see_newer(&self, epoch: u64) {
        let known = self.epoch();
        if known > 0 && epoch > known && epoch > self.seen.fetch_max(epoch, Ordering::AcqRel) {
            self.newer.swap(1, Ordering::AcqRel);
        }
    }

    /// Whether a newer manifest has shown and nobody has gone for it yet.
    #[inline]
    pub(crate) fn has_newer(&self) -> bool {
        self.newer.load(Ordering::Acquire) != 0
    }

    /// The same; true once.
    pub(crate) fn takes_newer(&self) -> bool {
        self.newer.swap(0, Ordering::AcqRel) != 0
    }
}
