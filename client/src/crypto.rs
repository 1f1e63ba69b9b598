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
//! A part is taken only when the member has answered: every step computes the next stage beside the present one.
use std::sync::Arc;

use digests::{Hash, Running};
use spec::messages::{
    Answer, Call, How, KeyFunction, MechanismMessage, OutputRule, Plan, PlanAnswer, Use, UseAnswer,
};
use spec::{HandleObject, HandleSession, Mechanism, MechanismType, Rv};
use zeroize::Zeroizing;

use crate::asking::{Asking, strange};
use crate::buffer::{Buffer, OPERATION_BYTES_MAX};
use crate::error::{Error, Result};
use crate::face::{Produced, Room};
use crate::handles::Handled;
use crate::lengths::{self, Expected};
use crate::objects;
use crate::operation::{Cell, Outcome};
use crate::parameters::{self, Relevant};
use crate::plans::Key;
use crate::process::Process;
use crate::sessions::Session;

/// Longer data of chained and streamed mechanisms goes in pieces of so many bytes: a multiple of every block length.
const PIECE_BYTES: usize = 4 << 20;
/// Parts of streamed mechanisms are gathered up to so many bytes before they are sent.
const STREAM_BYTES: usize = 64 << 10;

/// An operation with a key.
pub(crate) struct KeyOperation {
    head: Head,
    stage: Stage,
}

/// What Init decided.
struct Head {
    function: KeyFunction,
    key: Handled,
    mechanism: MechanismMessage,
    plan: Arc<PlanAnswer>,
}

enum Stage {
    Fresh,
    Gathered(Buffer),
    Hashed(Running),
    Chained(Chain),
    Streamed(Stream),
    Kept { output: Zeroizing<Vec<u8>>, by_final: bool },
}

/// The public chaining value and the input that is held back.
struct Chain {
    iv: Vec<u8>,
    held: Zeroizing<Vec<u8>>,
}

/// The sealed running state, the number of the next part, and the input not sent yet.
struct Stream {
    state: Vec<u8>,
    part: u64,
    buffer: Buffer,
}

/// One send.
#[derive(Clone, Copy)]
struct Part<'a> {
    how: How,
    data: &'a [u8],
    iv: Option<&'a [u8]>,
    last: bool,
    state: &'a [u8],
    number: u64,
    signature: &'a [u8],
}

impl<'a> Part<'a> {
    fn new(how: How, data: &'a [u8]) -> Self {
        Self { how, data, iv: None, last: true, state: &[], number: 0, signature: &[] }
    }
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
    let mut cell = pick(&session).take(process.epoch())?;
    let Some(mechanism) = mechanism else {
        cell.cancel();
        return Ok(());
    };
    cell.check_idle()?;
    parameters::check(&mechanism, function.1)?;
    let key = process.handles.look_up(session.slot.id, key).ok_or(Rv::KEY_HANDLE_INVALID)?;
    let asking = Asking { process, slot: &session.slot };
    let mechanism = MechanismMessage::from(&mechanism);
    let plan = plan(&asking, function.0, &key, &mechanism)?;
    cell.begin(KeyOperation {
        head: Head { function: function.0, key, mechanism, plan },
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

/// The plan for a key: remembered, or asked of a member.
fn plan(
    asking: &Asking<'_>,
    function: KeyFunction,
    key: &Handled,
    mechanism: &MechanismMessage,
) -> Result<Arc<PlanAnswer>> {
    let world = asking.process.world();
    let now = asking.process.platform.now();
    let relevant = Relevant::of(mechanism);
    let role = crate::login::role(asking.slot).map(|role| role.0);
    let cache_key =
        |version| Key { slot: key.slot, ouid: key.ouid, version, function: function.0, relevant, role };
    match world.plans().look_up(&cache_key(key.state().version), now) {
        Some(Ok(plan)) => return Ok(plan),
        Some(Err(rv)) => return Err(rv.into()),
        None => {}
    }
    let general = MechanismMessage { iv: Vec::new(), aad: Vec::new(), ..mechanism.clone() };
    let answer = crate::asking::with_blob(|with_blob| {
        let reference = Some(key.reference(with_blob));
        asking.any(Call::Plan(Plan {
            function: function.0,
            mechanism: Some(general.clone()),
            key: reference,
        }))
    });
    objects::gone(asking.process, key, &answer);
    match answer {
        Ok(Answer::Plan(plan)) => {
            let plan = Arc::new(plan);
            key.learn(plan.version);
            world.plans().keep(cache_key(plan.version.or(key.state().version)), plan.clone());
            Ok(plan)
        }
        Ok(_) => Err(strange("Plan")),
        Err(Error::Gone | Error::Rv(Rv::OBJECT_HANDLE_INVALID)) => Err(Rv::KEY_HANDLE_INVALID.into()),
        Err(Error::Rv(rv)) => {
            world.plans().refuse(cache_key(key.state().version), rv, now);
            Err(rv.into())
        }
        Err(error) => Err(error),
    }
}

impl Head {
    /// Sends one part and waits for the answer: with the blob when the member wants it, and once more under a new plan
    /// when the key has changed but is still run the same way.
    fn send(&mut self, asking: &Asking<'_>, part: Part<'_>) -> Result<UseAnswer> {
        let (mut with_blob, mut planned_again) = (false, false);
        loop {
            match asking.any(Call::Use(self.message(&part, with_blob))) {
                Ok(Answer::Use(answer)) => return Ok(answer),
                Ok(_) => return Err(strange("Use")),
                Err(Error::NeedBlob) if !with_blob => with_blob = true,
                Err(Error::PlanChanged) if !planned_again => {
                    planned_again = true;
                    self.plan_again(asking)?;
                }
                Err(error) => return Err(self.world_changed(asking, error)),
            }
        }
    }

    fn message(&self, part: &Part<'_>, with_blob: bool) -> Use {
        let mut mechanism = self.mechanism.clone();
        if let Some(iv) = part.iv {
            mechanism.iv = iv.to_vec();
        }
        Use {
            function: self.function.0,
            mechanism: Some(mechanism),
            key: Some(self.key.reference(with_blob)),
            plan: self.plan.version,
            how: part.how.0,
            data: part.data.to_vec(),
            signature: part.signature.to_vec(),
            last: part.last,
            state: part.state.to_vec(),
            part: part.number,
            pin: Vec::new(),
        }
    }

    /// The key has changed since its plan was made: plans again (RULES 1.1). Errs with `PlanChanged` when it is now run
    /// another way.
    fn plan_again(&mut self, asking: &Asking<'_>) -> Result<()> {
        asking.process.world().plans().forget(self.key.slot, self.key.ouid);
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

    fn how(&self) -> How {
        How(self.plan.how)
    }

    /// The most that is gathered for one send, in bytes.
    fn whole_bytes_max(&self) -> usize {
        match usize::try_from(self.plan.input_bytes_max) {
            Ok(0) | Err(_) => OPERATION_BYTES_MAX,
            Ok(bytes) => bytes.min(OPERATION_BYTES_MAX),
        }
    }

    /// Whether parts may continue from a public chaining value: those mechanisms whose value this code knows.
    fn is_chained(&self) -> bool {
        let known = [MechanismType::AES_ECB, MechanismType::AES_CBC, MechanismType::AES_CBC_PAD];
        self.how() == How::CHAIN && known.contains(&MechanismType(self.mechanism.number))
    }

    /// The chaining value behind a part.
    fn next_iv(&self, iv: &[u8], input: &[u8], output: &[u8]) -> Vec<u8> {
        let ciphertext = if self.function == KeyFunction::ENCRYPT { output } else { input };
        match ciphertext.len().checked_sub(iv.len()) {
            Some(start) if !ciphertext.is_empty() => ciphertext[start..].to_vec(),
            _ => iv.to_vec(),
        }
    }

    fn hash(&self) -> Result<Hash> {
        Hash::from_mechanism(self.plan.prehash).ok_or_else(|| {
            Error::Protocol(format!(
                "wanted a digest of this release in a plan, found {:#x}",
                self.plan.prehash
            ))
        })
    }

    fn is_streamed(&self) -> bool {
        self.how() == How::STREAM && matches!(self.function, KeyFunction::SIGN | KeyFunction::VERIFY)
    }
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

    /// Single call with an output.
    pub(crate) fn whole(&mut self, asking: &Asking<'_>, data: &[u8], room: Room) -> Result<Produced> {
        match &self.stage {
            Stage::Fresh => {}
            Stage::Kept { by_final: false, .. } => return self.keep_or_give(None, false, room),
            _ => return Err(Rv::OPERATION_ACTIVE.into()),
        }
        if let Some(answer) = self.expected_whole(data)?.answer(room) {
            return Ok(answer);
        }
        let output = self.execute(asking, data, &[])?;
        self.keep_or_give(Some(output), false, room)
    }

    /// Single call with a verdict.
    pub(crate) fn verify(&mut self, asking: &Asking<'_>, data: &[u8], signature: &[u8]) -> Result<()> {
        match self.stage {
            Stage::Fresh => self.execute(asking, data, signature).map(drop),
            _ => Err(Rv::OPERATION_ACTIVE.into()),
        }
    }

    /// All the data at once; planned anew once when the key has changed: no data has been consumed yet.
    fn execute(&mut self, asking: &Asking<'_>, data: &[u8], signature: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        match self.execute_once(asking, data, signature) {
            Err(Error::PlanChanged) => {
                let outcome = self.execute_once(asking, data, signature);
                outcome.map_err(|error| self.not_permitted(error))
            }
            outcome => outcome,
        }
    }

    fn execute_once(
        &mut self,
        asking: &Asking<'_>,
        data: &[u8],
        signature: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let head = &mut self.head;
        if head.how() == How::PREHASH {
            let digest = digests::digest(head.hash()?, data);
            return head.give(asking, Part { signature, ..Part::new(How::PREHASH, &digest) });
        }
        if data.len() > PIECE_BYTES && (head.is_chained() || head.is_streamed()) {
            let (stage, mut output) = advance(head, asking, &Stage::Fresh, data)?;
            let rest = conclude(head, asking, stage.as_ref().unwrap_or(&Stage::Fresh), signature)?;
            let mut joined = Zeroizing::new(Vec::with_capacity(output.len() + rest.len()));
            joined.append(&mut output);
            joined.extend_from_slice(&rest);
            return Ok(joined);
        }
        if data.len() > head.whole_bytes_max() {
            return Err(lengths::length_error(head.function).into());
        }
        head.give(asking, Part { signature, ..Part::new(How::WHOLE, data) })
    }

    /// Update: takes a part and gives what can be given. The caller has checked the room.
    pub(crate) fn update(&mut self, asking: &Asking<'_>, part: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let outcome = match &mut self.stage {
            Stage::Kept { .. } => return Err(Rv::OPERATION_ACTIVE.into()),
            Stage::Gathered(buffer) => {
                buffer.extend(part).map_err(|_| lengths::length_error(self.head.function))?;
                return Ok(Zeroizing::default());
            }
            Stage::Hashed(running) => {
                running.update(part);
                return Ok(Zeroizing::default());
            }
            Stage::Streamed(stream) if stream.buffer.bytes().len() + part.len() <= STREAM_BYTES => {
                stream.buffer.extend(part)?;
                return Ok(Zeroizing::default());
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
            Stage::Kept { by_final: true, .. } => return self.keep_or_give(None, true, room),
            Stage::Kept { by_final: false, .. } => return Err(Rv::OPERATION_ACTIVE.into()),
            _ => {}
        }
        if let Some(answer) = self.expected_final()?.answer(room) {
            return Ok(answer);
        }
        let output =
            conclude(&mut self.head, asking, &self.stage, &[]).map_err(|error| self.not_permitted(error))?;
        self.keep_or_give(Some(output), true, room)
    }

    /// Final with a verdict.
    pub(crate) fn finish_verify(&mut self, asking: &Asking<'_>, signature: &[u8]) -> Result<()> {
        conclude(&mut self.head, asking, &self.stage, signature)
            .map(drop)
            .map_err(|error| self.not_permitted(error))
    }

    /// Gives an output that fits the room; keeps one that does not, for the retry (RULES 1.2).
    fn keep_or_give(
        &mut self,
        output: Option<Zeroizing<Vec<u8>>>,
        by_final: bool,
        room: Room,
    ) -> Result<Produced> {
        let output = match (output, std::mem::replace(&mut self.stage, Stage::Fresh)) {
            (Some(output), _) => output,
            (None, Stage::Kept { output, .. }) => output,
            (None, _) => return Err(Rv::OPERATION_NOT_INITIALIZED.into()),
        };
        lengths::fit(output, room).or_else(|(output, answer)| {
            self.stage = Stage::Kept { output, by_final };
            Ok(answer)
        })
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

impl Head {
    fn give(&mut self, asking: &Asking<'_>, part: Part<'_>) -> Result<Zeroizing<Vec<u8>>> {
        let mut answer = self.send(asking, part)?;
        Ok(Zeroizing::new(std::mem::take(&mut answer.output)))
    }
}

/// The stage behind a part and the output so far; no stage where the present one stays. The present stage is not
/// touched, so that a part which met an outage was not taken (RULES 1.3).
fn advance(
    head: &mut Head,
    asking: &Asking<'_>,
    stage: &Stage,
    part: &[u8],
) -> Result<(Option<Stage>, Zeroizing<Vec<u8>>)> {
    let pool = &asking.process.pool;
    match stage {
        Stage::Fresh if head.is_chained() => {
            let chain = Chain { iv: head.mechanism.iv.clone(), held: Zeroizing::default() };
            advance_chain(head, asking, &chain, part)
        }
        Stage::Chained(chain) => advance_chain(head, asking, chain, part),
        Stage::Fresh if head.is_streamed() => {
            let stream = Stream { state: Vec::new(), part: 0, buffer: Buffer::new(pool, STREAM_BYTES) };
            Ok((Some(Stage::Streamed(advance_stream(head, asking, &stream, part)?)), Zeroizing::default()))
        }
        Stage::Streamed(stream) => {
            Ok((Some(Stage::Streamed(advance_stream(head, asking, stream, part)?)), Zeroizing::default()))
        }
        Stage::Fresh if head.how() == How::PREHASH => {
            let mut running = Running::new(head.hash()?);
            running.update(part);
            Ok((Some(Stage::Hashed(running)), Zeroizing::default()))
        }
        Stage::Fresh => {
            let mut buffer = Buffer::new(pool, head.whole_bytes_max());
            buffer.extend(part).map_err(|_| lengths::length_error(head.function))?;
            Ok((Some(Stage::Gathered(buffer)), Zeroizing::default()))
        }
        Stage::Gathered(_) | Stage::Hashed(_) | Stage::Kept { .. } => Err(Rv::OPERATION_ACTIVE.into()),
    }
}

fn advance_chain(
    head: &mut Head,
    asking: &Asking<'_>,
    chain: &Chain,
    part: &[u8],
) -> Result<(Option<Stage>, Zeroizing<Vec<u8>>)> {
    let mut input = Zeroizing::new(Vec::with_capacity(chain.held.len() + part.len()));
    input.extend_from_slice(&chain.held);
    input.extend_from_slice(part);
    let (now, rest) = input.split_at(lengths::chained(&head.plan, input.len()));
    let mut output = Zeroizing::new(Vec::with_capacity(now.len()));
    let mut iv = chain.iv.clone();
    for piece in now.chunks(PIECE_BYTES) {
        let answer =
            head.send(asking, Part { iv: Some(&iv), last: false, ..Part::new(How::CHAIN, piece) })?;
        if answer.output.len() != piece.len() {
            return Err(strange("Use of a chained part"));
        }
        iv = head.next_iv(&iv, piece, &answer.output);
        output.extend_from_slice(&answer.output);
    }
    let held = Zeroizing::new(rest.to_vec());
    Ok((Some(Stage::Chained(Chain { iv, held })), output))
}

fn advance_stream(head: &mut Head, asking: &Asking<'_>, stream: &Stream, part: &[u8]) -> Result<Stream> {
    let mut next = Stream {
        state: stream.state.clone(),
        part: stream.part,
        buffer: Buffer::new(&asking.process.pool, STREAM_BYTES),
    };
    let gathered = stream.buffer.bytes();
    if gathered.len() + part.len() <= STREAM_BYTES {
        next.buffer.extend(gathered)?;
        next.buffer.extend(part)?;
        return Ok(next);
    }
    for piece in [gathered].into_iter().chain(part.chunks(PIECE_BYTES)).filter(|piece| !piece.is_empty()) {
        let send =
            Part { last: false, state: &next.state, number: next.part, ..Part::new(How::STREAM, piece) };
        let mut answer = head.send(asking, send)?;
        next.state = std::mem::take(&mut answer.state);
        next.part += 1;
    }
    Ok(next)
}

/// The last send of an operation in parts.
fn conclude(
    head: &mut Head,
    asking: &Asking<'_>,
    stage: &Stage,
    signature: &[u8],
) -> Result<Zeroizing<Vec<u8>>> {
    match stage {
        Stage::Fresh => match advance(head, asking, &Stage::Fresh, &[])? {
            (Some(begun), _) => conclude(head, asking, &begun, signature),
            (None, _) => Err(Rv::OPERATION_NOT_INITIALIZED.into()),
        },
        Stage::Gathered(buffer) => {
            head.give(asking, Part { signature, ..Part::new(How::WHOLE, buffer.bytes()) })
        }
        Stage::Hashed(running) => {
            let digest = running.clone().finish();
            head.give(asking, Part { signature, ..Part::new(How::PREHASH, &digest) })
        }
        Stage::Chained(chain) => conclude_chain(head, asking, chain),
        Stage::Streamed(stream) if stream.part == 0 => {
            head.give(asking, Part { signature, ..Part::new(How::WHOLE, stream.buffer.bytes()) })
        }
        Stage::Streamed(stream) => {
            let part = Part::new(How::STREAM, stream.buffer.bytes());
            head.give(asking, Part { state: &stream.state, number: stream.part, signature, ..part })
        }
        Stage::Kept { .. } => Err(Rv::OPERATION_ACTIVE.into()),
    }
}

fn conclude_chain(head: &mut Head, asking: &Asking<'_>, chain: &Chain) -> Result<Zeroizing<Vec<u8>>> {
    let block_bytes = lengths::block_bytes(&head.plan);
    let whole_blocks = chain.held.len() % block_bytes == 0;
    let wrong = lengths::length_error(head.function);
    match OutputRule(head.plan.output_rule) {
        OutputRule::SAME if chain.held.is_empty() => return Ok(Zeroizing::default()),
        OutputRule::SAME => return Err(wrong.into()),
        OutputRule::UNPADDED if chain.held.is_empty() || !whole_blocks => return Err(wrong.into()),
        _ => {}
    }
    head.give(asking, Part { iv: Some(&chain.iv), ..Part::new(How::CHAIN, &chain.held) })
}
