//! The cache of plans (RULES 1.1). A plan is advice: the member checks everything again.
use std::collections::HashMap;
use std::sync::Arc;

use spec::messages::PlanAnswer;
use spec::platform::{Lock, Moment};
use spec::{Ouid, Rv, SlotId, Stamp};

use crate::parameters::Relevant;

/// How long a refusal is remembered, in milliseconds (RULES 1.1).
const REFUSAL_MS: u64 = 1_000;
/// Plans kept at most; a fuller cache is emptied.
const PLANS_MAX: usize = 65_536;

/// What a plan depends on (RULES 1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    Plan(Arc<PlanAnswer>),
    Refused(Rv, Moment),
}

/// The cache; part of the `World`.
#[derive(Default)]
pub(crate) struct Plans(Lock<HashMap<Key, Known>>);

impl Plans {
    /// The plan or the refusal that is remembered.
    pub(crate) fn look_up(&self, key: &Key, now: Moment) -> Option<std::result::Result<Arc<PlanAnswer>, Rv>> {
        match self.0.lock().get(key)? {
            Known::Plan(plan) => Some(Ok(plan.clone())),
            Known::Refused(rv, until) if now < *until => Some(Err(*rv)),
            Known::Refused(..) => None,
        }
    }

    /// Remembers a plan.
    pub(crate) fn keep(&self, key: Key, plan: Arc<PlanAnswer>) {
        self.insert(key, Known::Plan(plan));
    }

    /// Remembers a refusal for a second.
    pub(crate) fn refuse(&self, key: Key, rv: Rv, now: Moment) {
        self.insert(key, Known::Refused(rv, now.after_ms(REFUSAL_MS)));
    }

    fn insert(&self, key: Key, known: Known) {
        let mut plans = self.0.lock();
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(key, known);
    }

    /// Drops what is known of an object.
    pub(crate) fn forget(&self, slot: SlotId, ouid: Ouid) {
        self.0.lock().retain(|key, _| key.slot != slot || key.ouid != ouid);
    }

    /// Drops every refusal of a slot: none outlives a login or logout.
    pub(crate) fn forget_refusals(&self, slot: SlotId) {
        self.0.lock().retain(|key, known| key.slot != slot || matches!(known, Known::Plan(_)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
        assert_eq!(plans.look_up(&key(None), Moment(0)), Some(Err(Rv::KEY_FUNCTION_NOT_PERMITTED)));
        assert_eq!(plans.look_up(&key(None), Moment(0).after_ms(1_000)), None);
        plans.refuse(key(None), Rv::KEY_FUNCTION_NOT_PERMITTED, Moment(0));
        plans.forget_refusals(SlotId(0));
        assert_eq!(plans.look_up(&key(None), Moment(0)), None);
    }

    #[test]
    fn a_plan_lives_until_its_object_changes_or_goes() {
        let plans = Plans::default();
        plans.keep(key(Some(1)), Arc::new(PlanAnswer::default()));
        plans.forget_refusals(SlotId(0));
        assert!(plans.look_up(&key(Some(1)), Moment::NEVER).is_some());
        assert!(plans.look_up(&key(None), Moment(0)).is_none());
        plans.forget(SlotId(0), Ouid([1; 16]));
        assert!(plans.look_up(&key(Some(1)), Moment(0)).is_none());
    }
}
