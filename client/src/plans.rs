//! The cache of plans (RULES 1.1). A plan is advice: the member checks everything again.
//!
//! Every C_*Init reads it, so it is cut into shards by object: threads that use different keys seldom meet at a lock, and
//! what is done under one is a few comparisons, whatever the number of keys.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spec::platform::{Lock, Moment};
use spec::{Ouid, Rv, SlotId, Stamp};

use crate::local::Planned;
use crate::parameters::Relevant;

/// How long a refusal is remembered, in milliseconds (RULES 1.1).
const REFUSAL_MS: u64 = 1_000;
/// Shards of the cache.
const SHARDS: usize = 16;
/// Objects kept in a shard at most; a fuller one is emptied.
const OBJECTS_MAX: usize = 4_096;
/// Plans and refusals kept of one object at most; the oldest goes.
const OF_ONE_OBJECT_MAX: usize = 64;

/// What a plan depends on (RULES 1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) slot: SlotId,
    pub(crate) ouid: Ouid,
    pub(crate) version: Option<Stamp>,
    pub(crate) function: u32,
    pub(crate) relevant: Relevant,
    /// The role that is logged in; none without login.
    pub(crate) role: Option<u64>,
}

enum Known {
    Plan(Arc<Planned>),
    Refused {
        rv: Rv,
        until: Moment,
        /// The era of the cache in which it was refused.
        era: u64,
    },
}

type Shard = HashMap<(SlotId, Ouid), Vec<(Key, Known)>>;

/// The cache; part of the `World`.
#[derive(Default)]
pub(crate) struct Plans {
    shards: [Lock<Shard>; SHARDS],
    /// Raised by every login and logout: refusals of an older era say nothing.
    era: AtomicU64,
    /// When the last of them was, in the nanoseconds of a `Moment`.
    login_changed: AtomicU64,
}

impl Plans {
    /// The plan or the refusal that is remembered.
    pub(crate) fn look_up(&self, key: &Key, now: Moment) -> Option<std::result::Result<Arc<Planned>, Rv>> {
        let shard = self.shard(key.slot, key.ouid).lock();
        let known = shard.get(&(key.slot, key.ouid))?;
        match known.iter().find(|(own, _)| own == key)?.1 {
            Known::Plan(ref plan) => Some(Ok(plan.clone())),
            Known::Refused { rv, until, era } => {
                (now < until && era == self.era.load(Ordering::Acquire)).then_some(Err(rv))
            }
        }
    }

    /// Remembers a plan.
    pub(crate) fn keep(&self, key: Key, plan: Arc<Planned>) {
        self.insert(key, Known::Plan(plan));
    }

    /// Remembers a refusal for a second.
    pub(crate) fn refuse(&self, key: Key, rv: Rv, now: Moment) {
        let era = self.era.load(Ordering::Acquire);
        self.insert(key, Known::Refused { rv, until: now.after_ms(REFUSAL_MS), era });
    }

    fn shard(&self, slot: SlotId, ouid: Ouid) -> &Lock<Shard> {
        let [.., last] = ouid.0;
        let number = usize::from(last) ^ usize::try_from(slot.0 % SHARDS as u64).unwrap_or(0);
        &self.shards[number % SHARDS]
    }

    fn insert(&self, key: Key, known: Known) {
        let mut shard = self.shard(key.slot, key.ouid).lock();
        let object = (key.slot, key.ouid);
        if shard.len() >= OBJECTS_MAX && !shard.contains_key(&object) {
            shard.clear();
        }
        let of_object = shard.entry(object).or_default();
        of_object.retain(|(own, _)| *own != key);
        if of_object.len() >= OF_ONE_OBJECT_MAX {
            of_object.remove(0);
        }
        of_object.push((key, known));
    }

    /// Drops what is known of an object.
    pub(crate) fn forget(&self, slot: SlotId, ouid: Ouid) {
        self.shard(slot, ouid).lock().remove(&(slot, ouid));
    }

    /// A login or logout: refusals from before it no longer count, and a member confirms a plan anew before it is run
    /// here.
    pub(crate) fn change_login(&self, now: Moment) {
        self.era.fetch_add(1, Ordering::AcqRel);
        self.login_changed.fetch_max(now.0, Ordering::AcqRel);
    }

    /// When the last login or logout was; the beginning of time before the first.
    pub(crate) fn login_changed(&self) -> Moment {
        Moment(self.login_changed.load(Ordering::Acquire))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use spec::messages::PlanAnswer;

    fn planned() -> Arc<Planned> {
        Arc::new(Planned::new(PlanAnswer::default(), Moment(0)))
    }

    fn key(role: Option<u64>) -> Key {
        Key {
            slot: SlotId(0),
            ouid: Ouid([1; 16]),
            version: None,
            function: 1,
            relevant: Relevant::default(),
            role,
        }
    }

    #[test]
    fn a_refusal_lives_one_second_and_not_across_a_login() {
        let plans = Plans::default();
        plans.refuse(key(None), Rv::KEY_FUNCTION_NOT_PERMITTED, Moment(0));
        let refused = plans.look_up(&key(None), Moment(0)).and_then(Result::err);
        assert_eq!(refused, Some(Rv::KEY_FUNCTION_NOT_PERMITTED));
        assert!(plans.look_up(&key(None), Moment(0).after_ms(1_000)).is_none());
        plans.refuse(key(None), Rv::KEY_FUNCTION_NOT_PERMITTED, Moment(0));
        plans.change_login(Moment(0));
        assert!(plans.look_up(&key(None), Moment(0)).is_none());
    }

    #[test]
    fn a_plan_lives_until_its_object_changes_or_goes() {
        let plans = Plans::default();
        plans.keep(key(Some(1)), planned());
        plans.change_login(Moment(0));
        assert!(plans.look_up(&key(Some(1)), Moment::NEVER).is_some());
        assert!(plans.look_up(&key(None), Moment(0)).is_none());
        plans.forget(SlotId(0), Ouid([1; 16]));
        assert!(plans.look_up(&key(Some(1)), Moment(0)).is_none());
    }

    #[test]
    fn the_cache_stays_bounded_and_one_object_crowds_out_no_other() {
        let plans = Plans::default();
        let of = |number: u64, function| {
            let mut ouid = [0; 16];
            ouid[..8].copy_from_slice(&number.to_be_bytes());
            ouid[15] = number.to_be_bytes()[7];
            Key { ouid: Ouid(ouid), function, ..key(None) }
        };
        plans.keep(of(0, 0), planned());
        (1..1_000).for_each(|function| plans.keep(of(1, function), planned()));
        assert!(plans.look_up(&of(0, 0), Moment(0)).is_some());
        assert!(
            plans.look_up(&of(1, 999), Moment(0)).is_some() && plans.look_up(&of(1, 1), Moment(0)).is_none()
        );
        (0..100_000).for_each(|number| plans.keep(of(number, 1), planned()));
        let kept: usize = plans.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!((1..=SHARDS * OBJECTS_MAX).contains(&kept), "{kept} objects");
        assert!(plans.shards.iter().all(|shard| !shard.lock().is_empty()));
    }
}
