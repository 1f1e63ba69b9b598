//! One Use: whole, prehashed, a part of a chain, or a part of a stream with its sealed running state.
//!
//! ```text
//! STREAM  part 0, no state -> state for part 1 -> ... -> last part -> result
//! ```
//! A state opens only for the same client instance, key, function, mechanism with parameters, and the next part.
use parking_lot::RwLockReadGuard;
use prost::Message;
use spec::messages::{How, Outcome, UseAnswer};
use spec::{Ouid, Rv};
use zeroize::Zeroizing;

use super::{Asked, Wanted, permitted_key};
use crate::bounds;
use crate::contents::Contents;
use crate::error::Refusal;
use crate::index::Held;
use crate::mechanisms::{self, Input, Job};
use crate::partition::Partition;
use crate::placed::Placed;
use crate::roles::Access;
use crate::seal::{Context, What};

/// What a use gave: a [`UseAnswer`] that is not encoded yet.
pub(crate) struct Used {
    /// Signature, ciphertext or plaintext; empty for a verdict.
    pub(crate) output: Placed,
    /// The sealed running state for the next part.
    pub(crate) state: Vec<u8>,
}

impl From<Used> for UseAnswer {
    fn from(Used { output, state }: Used) -> UseAnswer {
        UseAnswer { output: std::mem::take(&mut *output.into_bytes()), state }
    }
}

/// Checks bounds and how a use is put together.
fn check_form(wanted: &Wanted<'_>) -> Result<How, Refusal> {
    bounds::at_most("bytes of data", wanted.data.len(), bounds::DATA_BYTES_MAX)?;
    bounds::at_most("bytes of signature", wanted.signature.len(), bounds::STATE_BYTES_MAX)?;
    bounds::at_most("bytes of running state", wanted.state.len(), bounds::STATE_BYTES_MAX)?;
    let how = How(wanted.how);
    match how {
        How::STREAM if (wanted.part == 0) == wanted.state.is_empty() => Ok(how),
        How::STREAM => {
            Err(Refusal::malformed("wanted a running state with every part but the first, found otherwise"))
        }
        How::WHOLE | How::PREHASH | How::CHAIN => Ok(how),
        How(other) => Err(Refusal::malformed(format!("wanted a way to run of 1 to 4, found {other}"))),
    }
}

/// The plan that the client follows must be of the object as it is (RULES 1.1).
fn check_plan(wanted: &Wanted<'_>, held: &Held, ouid: Ouid) -> Result<(), Refusal> {
    let Some(followed) = wanted.plan else { return Ok(()) };
    match Some(followed).cmp(&held.facts().version) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => {
            Err(Refusal::new(Outcome::PLAN_CHANGED, "the object changed since the plan; plan again")
                .about(ouid))
        }
        std::cmp::Ordering::Greater => {
            Err(Refusal::new(Outcome::BEHIND, "this member holds an older state; ask another").about(ouid))
        }
    }
}

impl Partition {
    /// Runs a use; the contents are let go before anything is computed.
    pub(crate) fn use_key(
        &self,
        contents: RwLockReadGuard<'_, Contents>,
        access: &Access<'_>,
        wanted: &Wanted<'_>,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Used, Refusal> {
        let how = check_form(wanted)?;
        let asked = Asked::read(wanted.function, wanted.mechanism.as_deref())?;
        self.check_offered(asked.mechanism.mechanism_type)?;
        let object = *bounds::present("an object", wanted.key.as_ref())?;
        let (held, group) =
            (self.resolve(&contents, access, object, Rv::USER_NOT_LOGGED_IN)?, contents.group());
        drop(contents);
        let ouid = bounds::ouid(&held.record.ouid)?;
        check_plan(wanted, &held, ouid)?;
        let key = permitted_key(&held, &asked)?;
        let gives_output = how != How::STREAM || wanted.last;
        if gives_output && held.facts().always_authenticate {
            self.check_context_pin(access, wanted, body, now_ms)?;
        }
        // Bound into the states of streams; nothing else has one.
        let canonical = match how {
            How::STREAM => wanted.mechanism.as_deref().map(Message::encode_to_vec).unwrap_or_default(),
            _ => Vec::new(),
        };
        let state_of = |part| {
            let what = What::RunningState {
                client: &access.caller.client,
                instance: &access.caller.instance,
                ouid,
                function: wanted.function,
                mechanism: &canonical,
                part,
            };
            Context { group, what }
        };
        let state = self.open_state(&state_of(wanted.part), wanted.state)?;
        let job = Job {
            mechanism: &asked.mechanism,
            function: asked.function,
            key: &key.0,
            prehash_permitted: self.prehash_permitted(&held, &asked),
        };
        let input = Input {
            how,
            data: wanted.data,
            signature: wanted.signature,
            last: wanted.last,
            state: state.as_ref().map(|state| state.as_slice()),
        };
        let output = mechanisms::run(&job, &input)?;
        let next = wanted.part.checked_add(1).ok_or_else(|| Refusal::malformed("wanted fewer parts"))?;
        Ok(Used {
            output: output.data,
            state: output.state.map(|state| self.sealer.seal(&state_of(next), &state)).unwrap_or_default(),
        })
    }

    fn open_state(
        &self,
        context: &Context<'_>,
        envelope: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
        if envelope.is_empty() { Ok(None) } else { Ok(Some(self.sealer.open(context, envelope)?)) }
    }

    /// The PIN of the context login, checked again with the final request (RULES 2.7). A resend has the same bytes, so
    /// it is the same try.
    fn check_context_pin(
        &self,
        access: &Access<'_>,
        wanted: &Wanted<'_>,
        body: &[u8],
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let login = access.login.ok_or(Rv::USER_NOT_LOGGED_IN)?;
        if wanted.pin.is_empty() {
            let text = "this key wants a context login for each use (CKA_ALWAYS_AUTHENTICATE), found none";
            return Err(Refusal::rv(Rv::USER_NOT_LOGGED_IN, text));
        }
        let verifier = self.contents.read().credentials.verifier(login.role).cloned();
        let verifier = verifier.ok_or(Rv::USER_NOT_LOGGED_IN)?;
        self.try_pin(access.caller, login.role, &verifier, wanted.pin, body, now_ms)
    }
}
