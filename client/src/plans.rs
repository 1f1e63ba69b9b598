//! What is remembered of one object's plans (RULES 1.1); it stands in the object's handle. A plan is advice: the member checks
//! everything again.
//!
//! Every C_*Init reads it: no lock, and a few comparisons whatever the number of keys.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use spec::platform::Moment;
use spec::{Rv, Stamp};

use crate::local::Planned;
use crate::parameters::Relevant;

/// How long a refusal is remembered, in milliseconds (RULES 1.1).
const REFUSAL_MS: u64 = 1_000;
/// After so many plans and refusals those of all objects are forgotten: a process may verify with a million keys, each once.
const KEPT_MAX: u64 = 1 << 16;
/// Plans and refusals kept of one object at most; the oldest goes.
const OF_ONE_OBJECT_MAX: usize = 64;

/// What a plan for an object depends on (RULES 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) version: Option<Stamp>,
    pub(crate) function: u32,
    pub(crate) relevant: Relevant,
    /// The role that is logged in; none without login.
    pub(crate) role: Option<u64>,
}

#[derive(Clone)]
enum Known {
    Plan(Arc<Planned>),
    Refused {
        rv: Rv,
        until: Moment,
        /// The era in which it was refused.
        era: u64,
    },
}

/// Logins and logouts of the process, as far as plans mind them.
#[derive(Default)]
pub(crate) struct Logins {
    /// Raised by each of them: refusals of an older era say nothing.
    era: AtomicU64,
    /// When the last of them was, in the nanoseconds of a `Moment`.
    changed: AtomicU64,
    /// How many plans and refusals were ever kept.
    kept: AtomicU64,
}

impl Logins {
    /// A login or logout: refusals from before it no longer count, and a member confirms a plan anew before it is run
    /// here.
    pub(crate) fn change(&self, now: Moment) {
        self.era.fetch_add(1, Ordering::AcqRel);
        self.changed.fetch_max(now.0, Ordering::AcqRel);
    }

    /// Counts one that is kept; whether it is time to forget those of all objects.
    pub(crate) fn is_time_to_forget(&self) -> bool {
        (self.kept.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(KEPT_MAX)
    }

    /// When the last login or logout was; the beginning of time before the first.
    pub(crate) fn changed(&self) -> Moment {
        Moment(self.changed.load(Ordering::Acquire))
    }
}

/// The plans and refusals of one object.
#[derive(Default)]
pub(crate) struct Plans(ArcSwapOption<Vec<(Key, Known)>>);

impl Plans {
    /// The plan or the refusal that is remembered; the clock is asked for a refusal alone.
    pub(crate) fn look_up(
        &self,
        key: &Key,
        logins: &Logins,
        now: impl FnOnce() -> Moment,
    ) -> Option<std::result::Result<Arc<Planned>, Rv>> {
        let all = self.0.load();
        match &all.as_ref()?.iter().find(|(own, _)| own == key)?.1 {
            Known::Plan(plan) => Some(Ok(plan.clone())),
            Known::Refused { rv, until, era } => {
                (*era == logins.era.load(Ordering::Acquire) && now() < *until).then_some(Err(*rv))
            }
        }
    }

    /// Remembers a plan.
    pub(crate) fn keep(&self, key: Key, plan: Arc<Planned>) {
        self.insert(key, Known::Plan(plan));
    }

    /// Remembers a refusal for a second, if it is one: an answer that says nothing of the object is asked for again.
    pub(crate) fn refuse(&self, key: Key, rv: Rv, logins: &Logins, now: Moment) {
        if is_of_the_device(rv) {
            return;
        }
        let era = logins.era.load(Ordering::Acquire);
        self.insert(key, Known::Refused { rv, until: now.after_ms(REFUSAL_MS), era });
    }

    fn insert(&self, key: Key, known: Known) {
        self.0.rcu(|all| {
            let others = all.iter().flat_map(|all| all.iter()).filter(|(own, _)| *own != key);
            let mut all: Vec<(Key, Known)> = others.cloned().collect();
            if all.len() >= OF_ONE_OBJECT_MAX {
                all.remove(0);
            }
            all.push((key, known.clone()));
            Some(Arc::new(all))
        });
    }

    /// Drops what is known: the object has changed or gone.
    pub(crate) fn forget(&self) {
        self.0.store(None);
    }
}

/// Whether the fault lies with the token, its members or this host, and may be over by the next call.
fn is_of_the_device(rv: Rv) -> bool {
    matches!(
        rv,
        Rv::HOST_MEMORY
            | Rv::GENERAL_ERROR
            | Rv::FUNCTION_FAILED
            | Rv::DEVICE_ERROR
            | Rv::DEVICE_MEMORY
            | Rv::DEVICE_REMOVED
            | Rv::TOKEN_NOT_PRESENT
            | Rv::CRYPTOKI_NOT_INITIALIZED
    )
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
        Key { version: None, function: 1, relevant: Relevant::default(), role }
    }

    #[test]
    fn a_refusal_lives_one_second_and_not_across_a_login() {
        let (plans, logins) = (Plans::default(), Logins::default());
        let look_up = |at| plans.look_up(&key(None), &logins, || at);
        plans.refuse(key(None), Rv::KEY_FUNCTION_NOT_PERMITTED, &logins, Moment(0));
        assert_eq!(look_up(Moment(0)).and_then(Result::err), Some(Rv::KEY_FUNCTION_NOT_PERMITTED));
        assert!(look_up(Moment(0).after_ms(1_000)).is_none());
        plans.refuse(key(None), Rv::KEY_FUNCTION_NOT_PERMITTED, &logins, Moment(0));
        logins.change(Moment(0));
        assert!(look_up(Moment(0)).is_none());
    }

    #[test]
    fn what_says_nothing_of_the_object_is_not_remembered() {
        let (plans, logins) = (Plans::default(), Logins::default());
        for rv in [Rv::DEVICE_REMOVED, Rv::DEVICE_ERROR, Rv::FUNCTION_FAILED] {
            plans.refuse(key(None), rv, &logins, Moment(0));
            assert!(plans.look_up(&key(None), &logins, || Moment(0)).is_none(), "{rv}");
        }
    }

    #[test]
    fn a_plan_lives_until_its_object_changes_or_goes() {
        let (plans, logins) = (Plans::default(), Logins::default());
        plans.keep(key(Some(1)), planned());
        logins.change(Moment(0));
        let look_up = |role| plans.look_up(&key(role), &logins, || panic!("a plan needs no clock"));
        assert!(look_up(Some(1)).is_some());
        assert!(look_up(None).is_none());
        plans.forget();
        assert!(look_up(Some(1)).is_none());
    }

    #[test]
    fn plans_of_all_objects_are_forgotten_now_and_then() {
        let logins = Logins::default();
        assert_eq!((0..2 * KEPT_MAX).filter(|_| logins.is_time_to_forget()).count(), 2);
    }

    #[test]
    fn of_many_plans_of_one_object_the_last_ones_are_kept() {
        let (plans, logins) = (Plans::default(), Logins::default());
        let of = |function| Key { function, ..key(None) };
        (1..1_000).for_each(|function| plans.keep(of(function), planned()));
        (0..2).for_each(|_| plans.keep(of(999), planned()));
        let known = |function| plans.look_up(&of(function), &logins, || Moment(0)).is_some();
        let first = 1_000 - u32::try_from(OF_ONE_OBJECT_MAX).unwrap();
        assert!((first..1_000).all(known) && !(1..first).any(known));
    }
}
