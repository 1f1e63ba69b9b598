//! One send of a use: who is asked, with what, and what becomes of the plan on the way (RULES 1.1).
//!
//! ```text
//! plan (remembered or asked) -> send -> answer
//!                                |----> NEED_BLOB     -> sent again with the session object's blob (RULES 2.2)
//!                                |----> PLAN_CHANGED  -> planned again, sent again once if it is run the same way
//!                                |                       and at last without naming the plan
//!                                '----> the world changed since Init -> the code of RULES 1.1
//! ```
//! The application's buffers are read for the first send of a part: each later one is made of what that one carried, so that two
//! of them differ in nothing but the blob and the plan that they name (RULES 1.5). Only what has no IV, and is to be run another way
//! under a new plan, is made of the buffers again.
use std::sync::Arc;

use arc_swap::Guard;
use digests::Hash;
use ha::{Output, SentUse, Used};
use spec::messages::{Answer, Call, How, KeyFunction, MechanismMessage, Plan, PlanAnswer, Use, UseParts};
use spec::record::Stamp;
use spec::{MechanismType, Rv};

use crate::asking::{Asking, naming_key, strange};
use crate::buffer::OPERATION_BYTES_MAX;
use crate::error::{Error, Result};
use crate::handles::{Handled, State};
use crate::local::{self, Planned};
use crate::objects;
use crate::parameters::{self, Relevant};
use crate::plans::Key;

/// What Init decided.
pub(crate) struct Head {
    pub(crate) function: KeyFunction,
    pub(crate) key: Handled,
    pub(crate) mechanism: MechanismMessage,
    pub(crate) plan: Arc<Planned>,
    /// What the last send carried that ended because the plan is of another shape now.
    pub(crate) sent: Option<Box<Use>>,
}

/// One send.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) how: How,
    pub(crate) data: &'a [u8],
    pub(crate) iv: Option<&'a [u8]>,
    pub(crate) last: bool,
    pub(crate) state: &'a [u8],
    pub(crate) number: u64,
    pub(crate) signature: &'a [u8],
}

impl<'a> Part<'a> {
    /// The same send of what the first one carried.
    fn of(self, first: &'a Use) -> Self {
        let iv = first.mechanism.as_ref().map(|mechanism| mechanism.iv.as_slice());
        Self {
            data: &first.data,
            signature: &first.signature,
            state: &first.state,
            iv: self.iv.and(iv),
            ..self
        }
    }

    /// All there is, in one send.
    pub(crate) fn new(how: How, data: &'a [u8]) -> Self {
        Self { how, data, iv: None, last: true, state: &[], number: 0, signature: &[] }
    }
}

/// The plan for a key: remembered, or asked of a member.
pub(crate) fn plan(
    asking: &Asking<'_>,
    function: KeyFunction,
    key: &Handled,
    mechanism: &MechanismMessage,
) -> Result<Arc<Planned>> {
    let (platform, logins) = (&asking.process.platform, &asking.process.logins);
    let relevant = Relevant::of(mechanism);
    let role = crate::login::role(asking.slot).map(|role| role.0);
    let cache_key = |version| Key { version, function: function.0, relevant, role };
    match key.plans.look_up(&cache_key(key.state().planned_version()), logins, || platform.now()) {
        Some(Ok(plan)) => Ok(plan),
        Some(Err(rv)) => Err(rv.into()),
        None => ask_for_plan(asking, function, key, mechanism, &cache_key),
    }
}

/// Asks a member for the plan and remembers what it said.
#[cold]
fn ask_for_plan(
    asking: &Asking<'_>,
    function: KeyFunction,
    key: &Handled,
    mechanism: &MechanismMessage,
    cache_key: &dyn Fn(Option<Stamp>) -> Key,
) -> Result<Arc<Planned>> {
    let (platform, logins) = (&asking.process.platform, &asking.process.logins);
    if logins.is_time_to_forget() {
        asking.process.handles.forget_plans();
    }
    let now = platform.now();
    let general = MechanismMessage { iv: Vec::new(), aad: Vec::new(), ..mechanism.clone() };
    let answer = naming_key(key, |key| {
        asking.any(Call::Plan(Plan { function: function.0, mechanism: Some(general.clone()), key }))
    });
    objects::gone(asking.process, key, &answer);
    match answer {
        Ok(Answer::Plan(plan)) => {
            let plan = Arc::new(Planned::new(plan, now));
            key.learn(plan.version, plan.changed.as_ref());
            // In the version that is looked up next time: that of the plan, unless a later one was seen and is out of reach.
            let version = key.state().planned_version().and(plan.version);
            key.plans.keep(cache_key(version), plan.clone());
            Ok(plan)
        }
        Ok(_) => Err(strange("Plan")),
        Err(Error::Gone | Error::Rv(Rv::OBJECT_HANDLE_INVALID)) => Err(Rv::KEY_HANDLE_INVALID.into()),
        Err(Error::Rv(rv)) => {
            key.plans.refuse(cache_key(key.state().planned_version()), rv, logins, now);
            Err(rv.into())
        }
        Err(error) => Err(error),
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        parameters::give_back(&mut self.mechanism);
    }
}

impl Head {
    /// Sends one part and waits for the answer: with the blob when the member wants it, and once more under a new plan
    /// when the key has changed but is still run the same way.
    pub(crate) fn send(&mut self, asking: &Asking<'_>, part: &Part<'_>) -> Result<Used> {
        let mut sent = None;
        let state = self.key.state();
        match self.send_once(asking, part, true, &state, false, &mut sent) {
            Ok(answer) => Ok(answer),
            Err(error) => self.send_failed(asking, part, sent, state, error),
        }
    }

    /// The first send ended with an error: sends again what it carried, where anything is gained by that.
    #[cold]
    fn send_failed(
        &mut self,
        asking: &Asking<'_>,
        part: &Part<'_>,
        sent: Option<SentUse>,
        state: Guard<Arc<State>>,
        error: Error,
    ) -> Result<Used> {
        let mut first = sent.map(|sent| sent.read()).transpose()?.map(Box::new);
        let answer = self.send_again(asking, part, &mut first, state, error);
        if let Err(Error::PlanChanged) = answer {
            self.sent = first;
        }
        answer
    }

    /// Sends until nothing is gained by sending again. `first` is what the first send carried, `state` and `error` the state of
    /// the key that it was made of and what became of it.
    fn send_again(
        &mut self,
        asking: &Asking<'_>,
        part: &Part<'_>,
        first: &mut Option<Box<Use>>,
        mut state: Guard<Arc<State>>,
        mut error: Error,
    ) -> Result<Used> {
        let (mut with_blob, mut planned_again, mut by_plan, mut has_settled) = (false, false, true, false);
        loop {
            match error {
                Error::NeedBlob if !with_blob => with_blob = true,
                Error::PlanChanged if !planned_again => {
                    planned_again = true;
                    self.plan_again(asking)?;
                }
                // The member that planned holds an older state than the one that runs it, which checks everything by
                // itself (RULES 1.1).
                Error::PlanChanged if by_plan => by_plan = false,
                // Nor has anybody in reach the state that was seen.
                Error::OnlyOlder if !has_settled => {
                    self.key.give_up(&state);
                    (has_settled, by_plan) = (true, false);
                }
                error => return Err(self.world_changed(asking, error)),
            }
            state = self.key.state();
            let part = first.as_ref().map_or(*part, |first| part.of(first));
            let mut sent = None;
            match self.send_once(asking, &part, by_plan, &state, with_blob, &mut sent) {
                Ok(answer) => return Ok(answer),
                Err(another) => error = another,
            }
            if let (None, Some(sent)) = (&first, sent) {
                *first = Some(Box::new(sent.read()?));
            }
        }
    }

    /// From borrowed parts: the data is copied once, into the request (DESIGN 3).
    fn send_once(
        &self,
        asking: &Asking<'_>,
        part: &Part<'_>,
        by_plan: bool,
        state: &State,
        with_blob: bool,
        sent: &mut Option<SentUse>,
    ) -> Result<Used> {
        let (least, changed) = state.wanted_of_a_use();
        let parts = UseParts {
            function: self.function.0,
            mechanism: &self.mechanism,
            iv: part.iv,
            ouid: &self.key.ouid.0,
            least,
            blob_hash: state.blob_hash(),
            blob: if with_blob { &state.blob } else { &[] },
            changed,
            plan: self.plan.named().filter(|_| by_plan && state.planned_version().is_some()),
            how: part.how.0,
            data: part.data,
            signature: part.signature,
            last: part.last,
            state: part.state,
            part: part.number,
            pin: &[],
        };
        asking.use_key(&parts, sent)
    }

    /// The key has changed since its plan was made: plans again (RULES 1.1). Errs with `PlanChanged` when it is now run
    /// another way.
    fn plan_again(&mut self, asking: &Asking<'_>) -> Result<()> {
        self.key.plans.forget();
        let new = plan(asking, self.function, &self.key, &self.mechanism)
            .map_err(|error| self.world_changed(asking, error))?;
        let shape = |plan: &PlanAnswer| {
            (
                plan.how,
                plan.prehash,
                plan.output_rule,
                plan.output_bytes,
                plan.block_bytes,
                plan.always_authenticate,
            )
        };
        let same = shape(&self.plan) == shape(&new);
        self.plan = new;
        if same { Ok(()) } else { Err(Error::PlanChanged) }
    }

    /// What the final call answers when the world changed between Init and now (RULES 1.1).
    fn world_changed(&self, asking: &Asking<'_>, error: Error) -> Error {
        match error {
            Error::Gone => {
                objects::gone(asking.process, &self.key, &Err::<(), _>(Error::Gone));
                Rv::KEY_HANDLE_INVALID.into()
            }
            Error::Rv(Rv::OBJECT_HANDLE_INVALID) => Rv::KEY_HANDLE_INVALID.into(),
            Error::Rv(Rv::KEY_FUNCTION_NOT_PERMITTED | Rv::MECHANISM_INVALID | Rv::KEY_TYPE_INCONSISTENT) => {
                if self.function == KeyFunction::SIGN { Rv::FUNCTION_REJECTED } else { Rv::FUNCTION_FAILED }
                    .into()
            }
            error => error,
        }
    }

    pub(crate) fn how(&self) -> How {
        How(self.plan.how)
    }

    /// The most that is gathered for one send, in bytes.
    pub(crate) fn whole_bytes_max(&self) -> usize {
        match usize::try_from(self.plan.input_bytes_max) {
            Ok(0) | Err(_) => OPERATION_BYTES_MAX,
            Ok(bytes) => bytes.min(OPERATION_BYTES_MAX),
        }
    }

    /// Whether parts may continue from a public chaining value: those mechanisms whose value this code knows.
    pub(crate) fn is_chained(&self) -> bool {
        let known = [MechanismType::AES_ECB, MechanismType::AES_CBC, MechanismType::AES_CBC_PAD];
        self.how() == How::CHAIN && known.contains(&MechanismType(self.mechanism.number))
    }

    /// The chaining value behind a part.
    pub(crate) fn next_iv(&self, iv: &[u8], input: &[u8], output: &[u8]) -> Vec<u8> {
        let ciphertext = if self.function == KeyFunction::ENCRYPT { output } else { input };
        match ciphertext.len().checked_sub(iv.len()) {
            Some(start) if !ciphertext.is_empty() => ciphertext[start..].to_vec(),
            _ => iv.to_vec(),
        }
    }

    pub(crate) fn hash(&self) -> Result<Hash> {
        Hash::from_mechanism(self.plan.prehash).ok_or_else(|| {
            Error::Protocol(format!(
                "wanted a digest of this release in a plan, found {:#x}",
                self.plan.prehash
            ))
        })
    }

    /// Whether two texts must never be sent under this mechanism as it is given.
    pub(crate) fn has_iv(&self) -> bool {
        !self.mechanism.iv.is_empty()
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.how() == How::STREAM && matches!(self.function, KeyFunction::SIGN | KeyFunction::VERIFY)
    }

    /// One part for its output: run here with a public key, or sent.
    pub(crate) fn give(&mut self, asking: &Asking<'_>, part: &Part<'_>) -> Result<Output> {
        if local::is_stale(&self.plan, asking) {
            // Planned anew, so that what a member says of the key is heard again too, and no member's word outlives it.
            let before = self.plan.clone();
            self.plan_again(asking)?;
            self.plan.compare(&before);
        }
        if let Some(outcome) = local::run(self, asking, part) {
            return Ok(outcome?.into());
        }
        Ok(self.send(asking, part)?.output)
    }
}
