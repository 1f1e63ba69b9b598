//! From an encoded request to an encoded reply. Every refusal has its outcome; hostile bytes never panic.
//!
//! ```text
//! read -> decode -> group and generation -> recovering? -> at_least -> ticket -> the call
//! ```
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use spec::Rv;
use spec::calls::Row;
use spec::messages::{
    Answer, Call, Outcome, Random, RandomAnswer, ReplyBody, ReplyHeader, RequestBody, RequestHeader, UseParts,
};
use zeroize::Zeroizing;

use crate::bounds;
use crate::contents::Contents;
use crate::error::Refusal;
use crate::partition::{Caller, LinkFacts, Partition};
use crate::random::{Random as _, SystemRandom};
use crate::reading::{Hot, Kind, Reading};
use crate::roles::{Access, open_ticket};
use crate::uses::Used;

/// Whether a call may leave the group open: Status, Login and the calls of tools.
const fn may_name_no_group(call: &Call) -> bool {
    match call {
        Call::Status(_)
        | Call::Login(_)
        | Call::SetPin(_)
        | Call::ChangeManifest(_)
        | Call::Adopt(_)
        | Call::Compare(_)
        | Call::Export(_)
        | Call::Join(_)
        | Call::Lease(_) => true,
        Call::Plan(_)
        | Call::Use(_)
        | Call::Random(_)
        | Call::Make(_)
        | Call::Store(_)
        | Call::Commit(_)
        | Call::Discard(_)
        | Call::Find(_)
        | Call::GetAttributes(_)
        | Call::SetAttributes(_)
        | Call::Destroy(_) => false,
    }
}

/// Whether a recovering member carries it out: what writes the same everywhere, and what repairs (HA 1.5, 2.4).
const fn while_recovering(call: &Call) -> bool {
    match call {
        Call::Status(_)
        | Call::Store(_)
        | Call::Commit(_)
        | Call::Discard(_)
        | Call::Destroy(_)
        | Call::ChangeManifest(_)
        | Call::Adopt(_)
        | Call::Compare(_)
        | Call::Export(_)
        | Call::Join(_)
        | Call::Lease(_) => true,
        Call::Login(_)
        | Call::SetPin(_)
        | Call::Plan(_)
        | Call::Use(_)
        | Call::Random(_)
        | Call::Make(_)
        | Call::Find(_)
        | Call::GetAttributes(_)
        | Call::SetAttributes(_) => false,
    }
}

impl Partition {
    /// Runs one request; `body` is an encoded [`RequestBody`], `now_ms` the wall time in milliseconds since 1970. The
    /// answer is an encoded [`ReplyBody`]. Never panics on hostile bytes.
    pub fn handle(
        &self,
        caller: &Caller,
        header: &RequestHeader,
        body: &[u8],
        now_ms: u64,
    ) -> (ReplyHeader, Zeroizing<Vec<u8>>) {
        self.handle_on(&LinkFacts::default(), caller, header, body, now_ms)
    }

    /// As [`handle`](Self::handle), for a request that came over a link of which more is known.
    pub fn handle_on(
        &self,
        link: &LinkFacts,
        caller: &Caller,
        header: &RequestHeader,
        body: &[u8],
        now_ms: u64,
    ) -> (ReplyHeader, Zeroizing<Vec<u8>>) {
        let mut reply = Zeroizing::default();
        let header = self.handle_read(link, caller, header, &Reading::of(body), now_ms, &mut reply);
        (header, reply)
    }

    /// As [`handle_on`](Self::handle_on), for a request that has been read; the answer is put into `reply`, whose memory is
    /// used again. It has to be empty and must not hold anything unwiped.
    pub fn handle_read(
        &self,
        link: &LinkFacts,
        caller: &Caller,
        header: &RequestHeader,
        reading: &Reading<'_>,
        now_ms: u64,
        reply: &mut Zeroizing<Vec<u8>>,
    ) -> ReplyHeader {
        let Reading { body, row, .. } = *reading;
        let answer = match &reading.kind {
            Kind::Hot(hot) => self.answer_use(link, caller, header, hot, body, now_ms).map(|used| {
                put_use_answer(used, reply);
                None
            }),
            Kind::Counted => self.answer(link, caller, header, row, body, now_ms).map(Some),
            Kind::Refused(refusal) => Err(refusal.clone()),
        };
        match answer {
            Ok(None) => {}
            Ok(answer) => put(&ReplyBody { answer, ..ReplyBody::default() }, reply),
            Err(refusal) => put(&refusal.into_reply(), reply),
        }
        self.reply_header(header.tag)
    }

    /// A Use that was read where it lies: as [`answer`](Self::answer), with one look at the contents.
    fn answer_use(
        &self,
        link: &LinkFacts,
        caller: &Caller,
        header: &RequestHeader,
        hot: &Hot<'_>,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Used, Refusal> {
        self.keep_up(header);
        let contents = self.contents.read();
        let open = Open { may_name_no_group: false, while_recovering: false };
        check_standing(&contents, (hot.group, hot.generation), open, header)?;
        if link.replicator {
            return Err(not_for_peers());
        }
        let access = open_ticket(&self.sealer, &self.opened, &contents, caller, hot.ticket)?;
        self.use_key(contents, &access, &hot.wanted, body, now_ms)
    }

    fn answer(
        &self,
        link: &LinkFacts,
        caller: &Caller,
        header: &RequestHeader,
        row: Option<&'static Row>,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Answer, Refusal> {
        let request = RequestBody::decode(body)
            .map_err(|_| Refusal::malformed("wanted an encoded request, found bytes that are none"))?;
        let call = bounds::present("a call that this release knows", request.call.as_ref())?;
        debug_assert_eq!(Some(call.number()), row.map(|row| row.number), "what is counted is what is run");
        self.keep_up(header);
        let open =
            Open { may_name_no_group: may_name_no_group(call), while_recovering: while_recovering(call) };
        check_standing(&self.contents.read(), (&request.group, request.generation), open, header)?;
        match call {
            Call::Status(status) => return Ok(Answer::Status(self.status(link, caller, status, now_ms)?)),
            call if link.replicator => return self.replicate(caller, call, now_ms),
            Call::Login(login) => return Ok(Answer::Login(self.login(caller, login, now_ms)?)),
            Call::SetPin(set) => return Ok(Answer::SetPin(self.set_pin(caller, set, now_ms)?)),
            Call::Adopt(adopt) if self.has_adopted(adopt) => {
                return Ok(Answer::Adopt(spec::messages::Done {}));
            }
            _ => {}
        }
        let access = open_ticket(&self.sealer, &self.opened, &self.contents.read(), caller, &request.ticket)?;
        self.run(&access, call, header, body, now_ms)
    }

    /// What a peer may do beside Status (HA 4.7): it carries no ticket, and nothing else is open to it.
    fn replicate(&self, caller: &Caller, call: &Call, now_ms: u64) -> Result<Answer, Refusal> {
        let access = Access { caller, login: None, replicator: true };
        Ok(match call {
            Call::Compare(compare) => Answer::Compare(self.compare(compare)?),
            Call::Export(export) => Answer::Export(self.export(&access, export)?),
            Call::Join(join) => Answer::Join(self.join(&access, join)?),
            Call::Lease(lease) => Answer::Lease(self.lease(&access, lease, now_ms)?),
            Call::Status(_)
            | Call::Login(_)
            | Call::SetPin(_)
            | Call::Plan(_)
            | Call::Use(_)
            | Call::Random(_)
            | Call::Make(_)
            | Call::Store(_)
            | Call::Commit(_)
            | Call::Discard(_)
            | Call::Find(_)
            | Call::GetAttributes(_)
            | Call::SetAttributes(_)
            | Call::Destroy(_)
            | Call::ChangeManifest(_)
            | Call::Adopt(_) => return Err(not_for_peers()),
        })
    }

    fn run(
        &self,
        access: &Access<'_>,
        call: &Call,
        header: &RequestHeader,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Answer, Refusal> {
        Ok(match call {
            Call::Status(status) => {
                Answer::Status(self.status(&LinkFacts::default(), access.caller, status, now_ms)?)
            }
            Call::Login(login) => Answer::Login(self.login(access.caller, login, now_ms)?),
            Call::SetPin(set) => Answer::SetPin(self.set_pin(access.caller, set, now_ms)?),
            Call::Plan(plan) => Answer::Plan(self.plan(access, plan)?),
            Call::Use(message) => {
                Answer::Use(self.use_key(self.contents.read(), access, &message.into(), body, now_ms)?.into())
            }
            Call::Random(random) => Answer::Random(fill(random)?),
            Call::Make(make) => Answer::Make(self.make(access, make, now_ms)?),
            Call::Store(store) => Answer::Store(self.store_batch(access, store, now_ms)?),
            Call::Commit(commit) => Answer::Commit(self.commit_batch(access, commit)?),
            Call::Discard(discard) => Answer::Discard(self.discard_batch(access, discard)?),
            Call::Find(find) => Answer::Find(self.find(access, find)?),
            Call::GetAttributes(get) => Answer::GetAttributes(self.get_attributes(access, get)?),
            Call::SetAttributes(set) => {
                Answer::SetAttributes(self.set_attributes(access, set, header.attempt, now_ms)?)
            }
            Call::Destroy(destroy) => Answer::Destroy(self.destroy(access, destroy)?),
            Call::ChangeManifest(change) => Answer::ChangeManifest(self.change_manifest(access, change)?),
            Call::Adopt(adopt) => Answer::Adopt(self.adopt(access, adopt)?),
            Call::Compare(compare) => Answer::Compare(self.compare(compare)?),
            Call::Export(export) => Answer::Export(self.export(access, export)?),
            Call::Join(join) => Answer::Join(self.join(access, join)?),
            Call::Lease(lease) => Answer::Lease(self.lease(access, lease, now_ms)?),
        })
    }
}

/// What is open to a call ([`may_name_no_group`], [`while_recovering`]).
#[derive(Clone, Copy)]
struct Open {
    may_name_no_group: bool,
    while_recovering: bool,
}

/// The member's own reasons not to answer a call.
fn check_standing(
    contents: &Contents,
    (named, generation): (&[u8], u64),
    open: Open,
    header: &RequestHeader,
) -> Result<(), Refusal> {
    let group = contents.group();
    let is_ours = named == group.id && generation == group.generation;
    let left_open = named.is_empty() && open.may_name_no_group;
    if !is_ours && !left_open {
        let text =
            "wanted a request for this partition's group and generation, found another; read its status";
        return Err(Refusal::new(Outcome::WRONG_GROUP, text));
    }
    if contents.recovering && !open.while_recovering {
        let text = "this member is being repaired; ask another, or let an operator say `adopt`";
        return Err(Refusal::new(Outcome::RECOVERING, text));
    }
    if header.incarnation == contents.incarnation && header.at_least > contents.seq {
        let text = format!("wanted commit {}, found {}; ask another member", header.at_least, contents.seq);
        return Err(Refusal::new(Outcome::BEHIND, text));
    }
    Ok(())
}

fn not_for_peers() -> Refusal {
    let text = "a peer may ask for Status, Compare, Export, Join and Lease, nothing else";
    Refusal::rv(Rv::FUNCTION_REJECTED, text)
}

/// Puts an encoded reply into an empty buffer; it never grows while it is written, so nothing stays behind.
fn put(body: &ReplyBody, reply: &mut Zeroizing<Vec<u8>>) {
    make_room(body.encoded_len(), reply);
    body.encode(&mut **reply).expect("a vector with room takes an encoding");
}

fn make_room(bytes: usize, reply: &mut Zeroizing<Vec<u8>>) {
    if reply.capacity() < bytes {
        **reply = Vec::with_capacity(bytes);
    }
}

/// As [`put`], for the answer to a use: the same bytes, in place. A long output becomes the reply, if it has the room for its head.
fn put_use_answer(Used { output, state }: Used, reply: &mut Zeroizing<Vec<u8>>) {
    let placed = if state.is_empty() { output.into_reply() } else { Err(output) };
    let output = match placed {
        Ok(mut whole) => {
            **reply = std::mem::take(&mut *whole);
            return;
        }
        Err(output) => output,
    };
    let fields = [(1, &*output), (2, &*state)];
    let mut inside = 0;
    for (_, bytes) in fields.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        inside += 1 + encoded_len_varint(bytes.len() as u64) + bytes.len();
    }
    make_room(1 + encoded_len_varint(inside as u64) + inside, reply);
    encode_key(UseParts::NUMBER, WireType::LengthDelimited, &mut **reply);
    encode_varint(inside as u64, &mut **reply);
    for (number, bytes) in fields.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        encode_key(*number, WireType::LengthDelimited, &mut **reply);
        encode_varint(bytes.len() as u64, &mut **reply);
        reply.extend_from_slice(bytes);
    }
}

/// Random bytes (PKCS #11 v3.1, 5.21.2).
fn fill(random: &Random) -> Result<RandomAnswer, Refusal> {
    let bytes = random.bytes as usize;
    bounds::at_most("random bytes", bytes, bounds::RANDOM_BYTES_MAX)?;
    let mut output = vec![0; bytes];
    SystemRandom.fill(&mut output);
    Ok(RandomAnswer { output })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use spec::messages::{How, KeyFunction, UseAnswer};
    use spec::{Mechanism, MechanismType as M, Parameters};

    use super::*;
    use crate::mechanisms::known::{AES_128_KEY, aes, whole};
    use crate::mechanisms::{Input, Job, run};
    use crate::placed::{MOVED_BYTES_MIN, Placed};

    /// Where the bytes at the end of a buffer lie.
    fn end_of(buffer: &[u8], bytes: usize) -> *const u8 {
        buffer[buffer.len() - bytes..].as_ptr()
    }

    fn pattern(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| at.to_le_bytes()[0]).collect()
    }

    /// Puts an answer and compares it with the other codec's. Whether the output is where it was.
    fn stays(output: Placed, state: usize) -> bool {
        let whole = UseAnswer { output: output.to_vec(), state: vec![8; state] };
        let (bytes, place) = (output.len(), output.as_ptr());
        let mut reply = Zeroizing::default();
        put_use_answer(Used { output, state: vec![8; state] }, &mut reply);
        let body = ReplyBody { answer: Some(Answer::Use(whole)), ..ReplyBody::default() };
        assert!(*reply == body.encode_to_vec(), "{bytes} and {state} bytes");
        end_of(&reply, bytes) == place
    }

    #[test]
    fn the_answer_to_a_use_is_put_as_the_codec_of_all_others_would() {
        let without_state = [0, 1, 64, 127, 300].into_iter().chain(16_370..16_390).chain([
            (1 << 21) - 6,
            (1 << 21) - 5,
            (1 << 21) - 4,
            (1 << 21) - 1,
            1 << 21,
            (1 << 21) + 1,
        ]);
        let with_state = [(0, 200), (127, 1), (300, 70_000), (1 << 20, 1)];
        for (output, state) in without_state.map(|output| (output, 0)).chain(with_state) {
            let data = pattern(output);
            let stayed = stays(Zeroizing::new(data.clone()).into(), state);
            assert!(!stayed || output == 0, "{output} and {state} bytes, made elsewhere");
            let stayed = stays(Placed::working_copy(&data, output), state);
            assert_eq!(stayed, output >= MOVED_BYTES_MIN && state == 0, "{output} and {state} bytes");
            let used = Used { output: Placed::working_copy(&data, output), state: vec![8; state] };
            assert!(UseAnswer::from(used) == UseAnswer { output: data, state: vec![8; state] });
        }
    }

    #[test]
    fn an_output_that_is_shorter_than_expected_is_copied_where_its_head_is_shorter_too() {
        for (expected, bytes, stayed) in [
            ((1 << 14) + 16, 1 << 14, true),
            (1 << 14, (1 << 14) - 1, false),
            ((1 << 14) - 1, (1 << 14) - 2, false),
            ((1 << 21) - 5, (1 << 21) - 6, true),
            ((1 << 21) - 4, (1 << 21) - 5, false),
            (1 << 21, (1 << 21) - 1, false),
            (1 << 21, (1 << 21) - 16, false),
            ((1 << 21) + 16, 1 << 21, true),
        ] {
            let mut output = Placed::working_copy(&pattern(expected), expected);
            output.truncate(bytes);
            assert_eq!(stays(output, 0), stayed, "{expected} and {bytes} bytes");
        }
    }

    #[test]
    fn a_long_output_lies_in_the_reply_where_the_mechanism_worked_on_it() {
        let (key, iv) = (aes(AES_128_KEY), || Parameters::Iv(vec![3; 16]));
        let gcm = Parameters::Gcm { iv: vec![3; 12], aad: Vec::new(), tag_bits: 128 };
        for (mechanism_type, parameters, more) in [
            (M::AES_ECB, Parameters::None, 0),
            (M::AES_CBC, iv(), 0),
            (M::AES_CBC_PAD, iv(), 16),
            (M::AES_GCM, gcm, 16),
        ] {
            let mechanism = Mechanism { mechanism_type, parameters };
            let reply_of = |function, how, data: &[u8]| {
                let job = Job { mechanism: &mechanism, function, key: &key, prehash_permitted: true };
                let output = run(&job, &Input { how, ..whole(data) }).unwrap().data;
                let (bytes, place) = (output.len(), output.as_ptr());
                let mut reply = Zeroizing::default();
                put_use_answer(Used { output, state: Vec::new() }, &mut reply);
                assert_eq!(end_of(&reply, bytes), place, "{mechanism_type}, {} bytes", data.len());
                let head = reply.len() - bytes;
                assert_eq!(reply.capacity(), head + bytes.max(data.len()), "{mechanism_type} never grew");
                reply[head..].to_vec()
            };
            for bytes in [MOVED_BYTES_MIN, 1 << 20, (1 << 21) + 16] {
                let ways =
                    if mechanism_type == M::AES_GCM { &[How::WHOLE][..] } else { &[How::WHOLE, How::CHAIN] };
                for how in ways {
                    let sealed = reply_of(KeyFunction::ENCRYPT, *how, &pattern(bytes));
                    assert_eq!(sealed.len(), bytes + more);
                    assert!(reply_of(KeyFunction::DECRYPT, *how, &sealed) == pattern(bytes));
                }
            }
        }
    }
}
