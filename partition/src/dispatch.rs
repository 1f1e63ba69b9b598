//! From an encoded request to an encoded reply. Every refusal has its outcome; hostile bytes never panic.
//!
//! ```text
//! count -> decode -> group and generation -> recovering? -> at_least -> ticket -> the call
//! ```
use prost::Message;
use spec::Rv;
use spec::messages::{
    Answer, Call, Outcome, Random, RandomAnswer, ReplyBody, ReplyHeader, RequestBody, RequestHeader,
};
use zeroize::Zeroizing;

use crate::bounds;
use crate::census;
use crate::error::Refusal;
use crate::partition::{Caller, LinkFacts, Partition};
use crate::random::{Random as _, SystemRandom};
use crate::roles::{Access, open_ticket};

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
        let reply = match self.answer(link, caller, header, body, now_ms) {
            Ok(answer) => ReplyBody { answer: Some(answer), ..ReplyBody::default() },
            Err(refusal) => refusal.into_reply(),
        };
        let mut encoded = Zeroizing::new(Vec::with_capacity(reply.encoded_len()));
        reply.encode(&mut *encoded).expect("a vector with room takes an encoding");
        (self.reply_header(header.tag), encoded)
    }

    fn answer(
        &self,
        link: &LinkFacts,
        caller: &Caller,
        header: &RequestHeader,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Answer, Refusal> {
        let counted = census::count(body)?;
        let request = RequestBody::decode(body)
            .map_err(|_| Refusal::malformed("wanted an encoded request, found bytes that are none"))?;
        let call = bounds::present("a call that this release knows", request.call.as_ref())?;
        debug_assert_eq!(call.number(), counted.row.number, "what is counted is what is run");
        self.check_standing(&request, call, header)?;
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
            | Call::Adopt(_) => {
                let text = "a peer may ask for Status, Compare, Export, Join and Lease, nothing else";
                return Err(Refusal::rv(Rv::FUNCTION_REJECTED, text));
            }
        })
    }

    /// The member's own reasons not to answer this call.
    fn check_standing(
        &self,
        request: &RequestBody,
        call: &Call,
        header: &RequestHeader,
    ) -> Result<(), Refusal> {
        let contents = self.contents.read();
        let group = contents.group();
        let named = request.group == group.id && request.generation == group.generation;
        let left_open = request.group.is_empty() && may_name_no_group(call);
        if !named && !left_open {
            let text =
                "wanted a request for this partition's group and generation, found another; read its status";
            return Err(Refusal::new(Outcome::WRONG_GROUP, text));
        }
        if contents.recovering && !while_recovering(call) {
            let text = "this member is being repaired; ask another, or let an operator say `adopt`";
            return Err(Refusal::new(Outcome::RECOVERING, text));
        }
        if header.incarnation == contents.incarnation && header.at_least > contents.seq {
            let text =
                format!("wanted commit {}, found {}; ask another member", header.at_least, contents.seq);
            return Err(Refusal::new(Outcome::BEHIND, text));
        }
        Ok(())
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
            Call::Use(wanted) => Answer::Use(self.use_key(access, wanted, body, now_ms)?),
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

/// Random bytes (PKCS #11 v3.1, 5.21.2).
fn fill(random: &Random) -> Result<RandomAnswer, Refusal> {
    let bytes = random.bytes as usize;
    bounds::at_most("random bytes", bytes, bounds::RANDOM_BYTES_MAX)?;
    let mut output = vec![0; bytes];
    SystemRandom.fill(&mut output);
    Ok(RandomAnswer { output })
}
