//! Verification and encryption with public keys in the process (RULES 1.10; docs/adr/0011-local-public-keys.md).
//!
//! The public key itself is of the immutable core and holds for ever. That the object is there and may be used so are changeable,
//! so they are taken from the process only while a member said so within the last second (HA 3.3):
//!
//! ```text
//! plan asked --answer--> fresh ----1 s, a login or logout, a newer version, the handle ended----> stale
//!                          ^                                                                       |
//!                          '------ the next use asks a member for the plan, and the key, again <---'
//! ```
//! Members that tell different keys of one object are believed no more: then uses of it go to members, each of which uses its own.
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use digests::{EcCurve, EcPublicKey, PublicKey, RsaPublicKey, Scheme};
use spec::messages::{EncodedStamp, KeyFunction, PlanAnswer, PublicKeyMessage};
use spec::platform::Moment;
use spec::{HandleObject, Rv};
use zeroize::Zeroizing;

use crate::asking::Asking;
use crate::head::{Head, Part};
use crate::process::Process;

/// How long what a member said of changeable attributes holds, in milliseconds (HA 3.3).
const FRESH_MS: u64 = 1_000;
/// No public key has a number longer than this, in bytes; what a member tells beyond it is not kept.
const NUMBER_BYTES_MAX: usize = 2_048;

/// A plan as it is remembered.
pub(crate) struct Planned {
    answer: PlanAnswer,
    /// Its version as uses name it.
    version_encoded: Option<EncodedStamp>,
    /// The key to run it with here; none when it runs on members.
    public: Option<PublicKey>,
    /// When the member was asked for it.
    asked: Moment,
    /// Whether members disagree about the key.
    is_doubted: AtomicBool,
}

impl Deref for Planned {
    type Target = PlanAnswer;

    fn deref(&self) -> &PlanAnswer {
        &self.answer
    }
}

impl Planned {
    /// A plan that a member was asked for at a moment, and gave.
    pub(crate) fn new(mut answer: PlanAnswer, asked: Moment) -> Self {
        answer.public = answer.public.take().filter(|_| !answer.always_authenticate).filter(is_bounded);
        let public = answer.public.as_ref().and_then(parsed);
        let version_encoded = answer.version.map(EncodedStamp::from);
        Self { answer, version_encoded, public, asked, is_doubted: AtomicBool::new(false) }
    }

    /// Its version as uses name it.
    pub(crate) fn named(&self) -> Option<&EncodedStamp> {
        self.version_encoded.as_ref()
    }

    /// Whether it can be run here at all.
    pub(crate) fn is_local(&self) -> bool {
        self.public.is_some() && !self.is_doubted.load(Ordering::Relaxed)
    }

    /// Whether a member has told it within the last second and after the last login or logout. Counted from the
    /// question, so that an answer's way adds nothing.
    fn is_fresh(&self, now: Moment, login_changed: Moment) -> bool {
        self.asked > login_changed && now < self.asked.after_ms(FRESH_MS)
    }

    /// Takes no member's word for the key when this one differs from the one before: it never changes (HA 1.1). A member
    /// that tells none leaves the use to members, and contradicts nobody.
    pub(crate) fn compare(&self, before: &Planned) {
        let differ = match (&self.answer.public, &before.answer.public) {
            (Some(now), Some(before)) => now != before,
            _ => false,
        };
        if differ && !self.is_doubted.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "members tell different public keys of one object: it is used on members only; compare them"
            );
        }
        if before.is_doubted.load(Ordering::Relaxed) {
            self.is_doubted.store(true, Ordering::Relaxed);
        }
    }
}

fn is_bounded(message: &PublicKeyMessage) -> bool {
    let numbers = [&message.modulus, &message.public_exponent, &message.curve, &message.point];
    numbers.iter().all(|number| number.len() <= NUMBER_BYTES_MAX)
}

/// Whether a plan that could be run here is too old for that.
pub(crate) fn is_stale(plan: &Planned, asking: &Asking<'_>) -> bool {
    let process = asking.process;
    plan.is_local() && is_wanted(process) && !plan.is_fresh(process.platform.now(), process.logins.changed())
}

fn is_wanted(process: &Process) -> bool {
    process.configuration().as_ref().is_none_or(|conf| conf.hatoki.local_verify)
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
    let public = head.plan.public.as_ref().filter(|_| head.plan.is_local())?;
    let process = asking.process;
    let is_live = || process.handles.look_up(head.key.slot, HandleObject(head.key.key)).is_some();
    let is_fresh = || head.plan.is_fresh(process.platform.now(), process.logins.changed());
    let may_run = is_wanted(process)
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
    }

    #[test]
    fn a_key_of_which_members_tell_different_numbers_is_used_on_members_only() {
        let told = |last: u8| {
            let modulus = [&[0xc1; 127][..], &[last]].concat();
            let key = PublicKeyMessage { modulus, public_exponent: vec![3], ..PublicKeyMessage::default() };
            Planned::new(PlanAnswer { public: Some(key), ..PlanAnswer::default() }, Moment(0))
        };
        let (first, same, other) = (told(1), told(1), told(3));
        same.compare(&first);
        assert!(same.is_local());
        other.compare(&same);
        assert!(!other.is_local());
        let again = told(3);
        again.compare(&other);
        assert!(!again.is_local(), "a doubt is not forgotten");
        let none = Planned::new(PlanAnswer::default(), Moment(0));
        none.compare(&told(1));
        assert!(!none.is_local() && !none.is_doubted.load(Ordering::Relaxed));
        let long = PublicKeyMessage {
            modulus: vec![0xc1; NUMBER_BYTES_MAX + 1],
            public_exponent: vec![3],
            ..PublicKeyMessage::default()
        };
        let long = Planned::new(PlanAnswer { public: Some(long), ..PlanAnswer::default() }, Moment(0));
        assert!(!long.is_local() && long.answer.public.is_none());
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
