//! One use of a key, in one call or in parts, as its plan says (RULES 1). Sign, verify, encrypt and decrypt differ only in
//! what they give; their calls stand in `sign.rs` and `encrypt.rs`.
//!
//! ```text
//!            Update                         Final
//! fresh ------------> gathered (whole)   ----------> sent whole
//!   |    first part   hashed (prehash)   ----------> the digest is sent
//!   |                 chained            ----------> the rest is sent; parts went before
//!   |                 streamed           ----------> the rest and the sealed state are sent
//!   '---- single call: sent whole, or as a digest
//! executed, output larger than the room -> kept -> the retry takes it (RULES 1.2)
//! ```
//! The steps from stage to stage stand in `parts.rs`, the sends in `head.rs`.
use ha::Output;
use spec::messages::{How, KeyFunction, MechanismMessage, OutputRule};
use spec::{HandleObject, HandleSession, Mechanism, Rv};

use crate::asking::Asking;
use crate::error::{Error, Result};
use crate::face::{Produced, Room};
use crate::head::{Head, Part, plan};
use crate::lengths::{self, Expected};
use crate::operation::{Cell, Outcome};
use crate::parameters;
use crate::parts::{PIECE_BYTES, STREAM_BYTES, Stage, advance, conclude};
use crate::process::Process;
use crate::sessions::Session;

/// An operation with a key.
pub(crate) struct KeyOperation {
    head: Head,
    stage: Stage,
}

/// C_SignInit, C_VerifyInit, C_EncryptInit, C_DecryptInit; no mechanism cancels. `flag` is the function's bit of
/// `spec::flags::mechanism`.
pub(crate) fn init(
    process: &Process,
    session: HandleSession,
    pick: fn(&Session) -> &Cell<KeyOperation>,
    function: (KeyFunction, u64),
    mechanism: Option<Mechanism>,
    key: HandleObject,
) -> Result<()> {
    let session = process.session(session)?;
    let Some(mechanism) = mechanism else { return pick(&session).cancel(process.epoch()) };
    let mut cell = pick(&session).take(process.epoch())?;
    cell.check_idle()?;
    parameters::check(&mechanism, function.1)?;
    let key = process.handles.look_up(session.slot.id, key).ok_or(Rv::KEY_HANDLE_INVALID)?;
    let asking = Asking { process, slot: &session.slot };
    let mechanism = MechanismMessage::from(mechanism);
    let plan = plan(&asking, function.0, &key, &mechanism)?;
    cell.begin(KeyOperation {
        head: Head { function: function.0, key, mechanism, plan, sent: None },
        stage: Stage::Fresh,
    });
    Ok(())
}

/// Runs one call of an operation and lets the one rule decide whether it ends.
pub(crate) fn run<O: Outcome>(
    process: &Process,
    session: HandleSession,
    pick: fn(&Session) -> &Cell<KeyOperation>,
    last: bool,
    call: impl FnOnce(&Asking<'_>, &mut KeyOperation) -> Result<O>,
) -> Result<O> {
    let session = process.session(session)?;
    let mut cell = pick(&session).take(process.epoch())?;
    let operation = cell.operation()?;
    let outcome = call(&Asking { process, slot: &session.slot }, operation);
    if let Err(error) = &outcome
        && !matches!(error, Error::Rv(_))
    {
        tracing::warn!(function = operation.head.function.0, "a key could not be used: {error}");
    }
    cell.settle(outcome, last)
}

impl KeyOperation {
    /// The operation's key and mechanism give outputs of this length for an input in one call.
    pub(crate) fn expected_whole(&self, data: &[u8]) -> Result<Expected> {
        lengths::expected(&self.head.plan, data.len())
    }

    /// What Update gives for a part.
    pub(crate) fn expected_update(&self, part: &[u8]) -> Expected {
        let held = match &self.stage {
            Stage::Chained(chain) => chain.held.len(),
            Stage::Fresh if self.head.is_chained() => 0,
            _ => return Expected::exactly(0),
        };
        Expected::exactly(lengths::chained(&self.head.plan, held.saturating_add(part.len())))
    }

    /// What Final gives.
    pub(crate) fn expected_final(&self) -> Result<Expected> {
        let gathered = match &self.stage {
            Stage::Fresh | Stage::Hashed(_) | Stage::Streamed(_) | Stage::Kept { .. } => 0,
            Stage::Gathered(buffer) => buffer.bytes().len(),
            Stage::Chained(chain) => chain.held.len(),
        };
        let held_only = self.head.is_chained() && OutputRule(self.head.plan.output_rule) == OutputRule::SAME;
        if held_only { Ok(Expected::exactly(0)) } else { lengths::expected(&self.head.plan, gathered) }
    }

    /// Single call with an output. After Update there is no single operation to be run (PKCS #11 v3.1, 5.13.2).
    pub(crate) fn whole(&mut self, asking: &Asking<'_>, data: &[u8], room: Room) -> Result<Produced> {
        match &self.stage {
            Stage::Fresh => {}
            Stage::Kept { by_final: false, .. } => return self.give_kept(room),
            _ => return Err(Rv::OPERATION_NOT_INITIALIZED.into()),
        }
        if let Some(answer) = self.expected_whole(data)?.answer(room) {
            return Ok(answer);
        }
        let output = self.execute(asking, data, &[])?;
        Ok(self.give_or_keep(output, false, room))
    }

    /// Single call with a verdict.
    pub(crate) fn verify(&mut self, asking: &Asking<'_>, data: &[u8], signature: &[u8]) -> Result<()> {
        match self.stage {
            Stage::Fresh => self.execute(asking, data, signature).map(drop),
            _ => Err(Rv::OPERATION_NOT_INITIALIZED.into()),
        }
    }

    /// All the data at once; planned anew once when the key has changed. What was sent whole is what is sent again, and what
    /// was begun otherwise under an IV is not begun again, for the application may have changed its buffer (RULES 1.5).
    fn execute(&mut self, asking: &Asking<'_>, data: &[u8], signature: &[u8]) -> Result<Output> {
        match self.execute_once(asking, data, signature) {
            Err(Error::PlanChanged) => self.execute_again(asking, data, signature),
            outcome => outcome,
        }
    }

    #[cold]
    fn execute_again(&mut self, asking: &Asking<'_>, data: &[u8], signature: &[u8]) -> Result<Output> {
        let outcome = match self.head.sent.take() {
            Some(sent) if How(sent.how) == How::WHOLE => {
                self.execute_once(asking, &sent.data, &sent.signature)
            }
            Some(_) if self.head.has_iv() => Err(Error::PlanChanged),
            _ => self.execute_once(asking, data, signature),
        };
        outcome.map_err(|error| self.not_permitted(error))
    }

    fn execute_once(&mut self, asking: &Asking<'_>, data: &[u8], signature: &[u8]) -> Result<Output> {
        let head = &mut self.head;
        if head.how() == How::PREHASH {
            let digest = digests::digest(head.hash()?, data);
            return head.give(asking, &Part { signature, ..Part::new(How::PREHASH, &digest) });
        }
        if data.len() > PIECE_BYTES && (head.is_chained() || head.is_streamed()) {
            let (stage, mut output) = advance(head, asking, &Stage::Fresh, data)?;
            let rest = conclude(head, asking, stage.as_ref().unwrap_or(&Stage::Fresh), signature)?;
            let room = output.len() + rest.len();
            output.append(&rest, room);
            return Ok(output);
        }
        if data.len() > head.whole_bytes_max() {
            return Err(lengths::length_error(head.function).into());
        }
        head.give(asking, &Part { signature, ..Part::new(How::WHOLE, data) })
    }

    /// Update: takes a part and gives what can be given. The caller has checked the room.
    pub(crate) fn update(&mut self, asking: &Asking<'_>, part: &[u8]) -> Result<Output> {
        let outcome = match &mut self.stage {
            Stage::Kept { .. } => return Err(Rv::OPERATION_NOT_INITIALIZED.into()),
            Stage::Gathered(buffer) => {
                buffer.extend(part).map_err(|_| lengths::length_error(self.head.function))?;
                return Ok(Output::default());
            }
            Stage::Hashed(running) => {
                running.update(part);
                return Ok(Output::default());
            }
            Stage::Streamed(stream) if stream.buffer.bytes().len() + part.len() <= STREAM_BYTES => {
                stream.buffer.extend(part)?;
                return Ok(Output::default());
            }
            stage => advance(&mut self.head, asking, stage, part),
        };
        let (stage, output) = outcome.map_err(|error| self.not_permitted(error))?;
        if let Some(stage) = stage {
            self.stage = stage;
        }
        Ok(output)
    }

    /// Final with an output.
    pub(crate) fn finish(&mut self, asking: &Asking<'_>, room: Room) -> Result<Produced> {
        match &self.stage {
            Stage::Kept { by_final: true, .. } => return self.give_kept(room),
            Stage::Kept { by_final: false, .. } => return Err(Rv::OPERATION_NOT_INITIALIZED.into()),
            _ => {}
        }
        if let Some(answer) = self.expected_final()?.answer(room) {
            return Ok(answer);
        }
        let output =
            conclude(&mut self.head, asking, &self.stage, &[]).map_err(|error| self.not_permitted(error))?;
        Ok(self.give_or_keep(output, true, room))
    }

    /// Final with a verdict.
    pub(crate) fn finish_verify(&mut self, asking: &Asking<'_>, signature: &[u8]) -> Result<()> {
        conclude(&mut self.head, asking, &self.stage, signature)
            .map(drop)
            .map_err(|error| self.not_permitted(error))
    }

    /// Gives an output that fits the room; keeps one that does not, for the retry (RULES 1.2).
    fn give_or_keep(&mut self, output: Output, by_final: bool, room: Room) -> Produced {
        lengths::fit(output, room).unwrap_or_else(|(output, answer)| {
            self.stage = Stage::Kept { output, by_final };
            answer
        })
    }

    /// The same for the output that was kept.
    #[cold]
    fn give_kept(&mut self, room: Room) -> Result<Produced> {
        match std::mem::replace(&mut self.stage, Stage::Fresh) {
            Stage::Kept { output, by_final } => Ok(self.give_or_keep(output, by_final, room)),
            _ => Err(Rv::OPERATION_NOT_INITIALIZED.into()),
        }
    }

    /// A plan of another shape after data was consumed: the key no longer permits what was begun (RULES 1.1).
    fn not_permitted(&self, error: Error) -> Error {
        match (error, self.head.function) {
            (Error::PlanChanged, KeyFunction::SIGN) => Rv::FUNCTION_REJECTED.into(),
            (Error::PlanChanged, _) => Rv::FUNCTION_FAILED.into(),
            (error, _) => error,
        }
    }
}
