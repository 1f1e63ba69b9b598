//! Verification and encryption with public keys in the process (RULES 1.10; docs/adr/0011-local-public-keys.md).
//!
//! The public key itself is of the immutable core and holds for ever. That the object is there and may be used so are changeable,
//! so they are taken from the process only while a member said so within the last second (HA 3.3):
//!
//! ```text
//! plan asked --answer--> fresh ----1 s, a login or logout, a newer version, the handle ended----> stale
//!                          ^                                                                       |
//!                          '------ the next use goes to a member, which checks everything <--------'
//! ```
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use digests::{EcCurve, EcPublicKey, PublicKey, RsaPublicKey, Scheme};
use spec::messages::{KeyFunction, PlanAnswer, PublicKeyMessage};
use spec::platform::Moment;
use spec::{HandleObject, Rv};
use zeroize::Zeroizing;

use crate::asking::Asking;
use crate::head::{Head, Part};

/// How long what a member said of changeable attributes holds, in milliseconds (HA 3.3).
const FRESH_MS: u64 = 1_000;

/// A plan as it is remembered.
pub(crate) struct Planned {
    answer: PlanAnswer,
    /// The key to run it with here; none when it runs on members.
    public: Option<PublicKey>,
    /// When a member was last asked that then confirmed the plan, in the nanoseconds of a `Moment`.
    asked: AtomicU64,
}

impl Deref for Planned {
    type Target = PlanAnswer;

    fn deref(&self) -> &PlanAnswer {
        &self.answer
    }
}

impl Planned {
    /// A plan that a member was asked for at a moment, and gave.
    pub(crate) fn new(answer: PlanAnswer, asked: Moment) -> Self {
        let public = answer.public.as_ref().filter(|_| !answer.always_authenticate).and_then(parsed);
        Self { answer, public, asked: AtomicU64::new(asked.0) }
    }

    /// Whether it can be run here at all.
    pub(crate) fn is_local(&self) -> bool {
        self.public.is_some()
    }

    /// A member that was asked at a moment has let the key be used as planned.
    pub(crate) fn confirm(&self, asked: Moment) {
        self.asked.fetch_max(asked.0, Ordering::Relaxed);
    }

    /// Whether a member has confirmed it within the last second and after the last login or logout. Counted from the
    /// question, so that an answer's way adds nothing.
    fn is_fresh(&self, now: Moment, login_changed: Moment) -> bool {
        let asked = Moment(self.asked.load(Ordering::Relaxed));
        asked > login_changed && now < asked.after_ms(FRESH_MS)
    }
}

fn parsed(message: &PublicKeyMessage) -> Option<PublicKey> {
    if message.curve.is_empty() {
        return RsaPublicKey::new(&message.modulus, &message.public_exponent).map(PublicKey::Rsa);
    }
    EcPublicKey::new(EcCurve::from_parameters(&message.curve)?, &message.point).map(PublicKey::Ec)
}

/// Runs the one send of a use here; `None` when it is a member's to answer.
pub(crate) fn run(
    head: &Head,
    asking: &Asking<'_>,
    part: &Part<'_>,
) -> Option<Result<Zeroizing<Vec<u8>>, Rv>> {
    let public = head.plan.public.as_ref()?;
    let process = asking.process;
    let is_wanted = process.configuration().as_ref().is_none_or(|conf| conf.hatoki.local_verify);
    let is_live = || process.handles.look_up(head.key.slot, HandleObject(head.key.key)).is_some();
    let is_fresh = || {
        let login_changed = process.world().plans().login_changed();
        head.plan.is_fresh(process.platform.now(), login_changed)
    };
    let may_run = is_wanted
        && part.how == head.how()
        && asking.slot.check_usable().is_ok()
        && is_live()
        && head.key.state().version == head.plan.version
        && is_fresh();
    let mechanism = head.mechanism.to_mechanism().filter(|_| may_run)?;
    let scheme = Scheme::of(mechanism.mechanism_type, &mechanism.parameters)?;
    match head.function {
        KeyFunction::VERIFY => {
            Some(public.verify(&scheme, part.data, part.signature).map(|()| Zeroizing::default()))
        }
        KeyFunction::ENCRYPT => Some(public.encrypt(&scheme, part.data, &|buffer: &mut [u8]| {
            process.platform.random(buffer);
            Ok(())
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_said_holds_for_a_second_from_the_question_and_not_across_a_login() {
        let at = |ms| Moment(0).after_ms(ms);
        let plan = Planned::new(PlanAnswer::default(), at(5_000));
        assert!(plan.is_fresh(at(5_999), at(4_999)));
        assert!(!plan.is_fresh(at(6_000), at(4_999)));
        assert!(!plan.is_fresh(at(5_001), at(5_000)) && !plan.is_fresh(at(5_001), at(5_001)));
        plan.confirm(at(5_500));
        plan.confirm(at(5_200));
        assert!(plan.is_fresh(at(6_499), at(5_001)) && !plan.is_fresh(at(6_500), at(5_001)));
    }

    #[test]
    fn keys_that_are_none_and_keys_that_demand_a_login_for_each_use_are_a_members() {
        let n = [&[0xc1; 127][..], &[1]].concat();
        let rsa = PublicKeyMessage { modulus: n, public_exponent: vec![3], ..PublicKeyMessage::default() };
        let planned = |public, always_authenticate| {
            let answer = PlanAnswer { public: Some(public), always_authenticate, ..PlanAnswer::default() };
            Planned::new(answer, Moment(0)).is_local()
        };
        assert!(planned(rsa.clone(), false));
        assert!(!planned(rsa.clone(), true));
        assert!(!planned(PublicKeyMessage::default(), false));
        assert!(!planned(PublicKeyMessage { curve: vec![1], ..rsa }, false));
    }
}
