//! The model's member is the partition: every message in every state of a pair leads both to the same state.
use std::sync::Arc;

use partition::store::MemoryStore;
use partition::{Caller, DomainSecret, Partition, Settings, SystemRandom};
use prost::Message;
use spec::messages::*;
use spec::record::State;
use spec::{Attribute, AttributeType as A, MechanismType as M, UserType};

use crate::rules::{EMPTY, Scope};
use crate::world::{Rules, Step, World};
use stateright::Model;

const CALLER: Caller = Caller { client: [1; 32], instance: [2; 32] };
const NOW_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A real member with the real pair of a batch.
struct Real {
    member: Partition,
    ticket: Vec<u8>,
    made: MakeAnswer,
    now_ms: u64,
}

const TAG: [u8; 16] = [3; 16];

impl Real {
    fn new() -> Self {
        let domain = DomainSecret::new(zeroize::Zeroizing::new([7; 32]));
        let store = Arc::new(MemoryStore::new());
        let member = Partition::create(
            store,
            domain,
            1,
            "model",
            b"so pin",
            b"co pin",
            Settings::for_tests(),
            NOW_MS,
            &SystemRandom,
        );
        let made = MakeAnswer::default();
        let mut real = Self { member: member.unwrap(), ticket: Vec::new(), made, now_ms: NOW_MS };
        let login = Login { user: UserType::USER.0, pin: b"co pin".to_vec(), tag: TAG.to_vec() };
        let Some(Answer::Login(login)) = real.send(Call::Login(login)).answer else { panic!("no login") };
        real.ticket.clone_from(&login.ticket);
        let token = || Attribute::bool(A::TOKEN, true);
        let curve = Attribute::new(A::EC_PARAMS, b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07".as_slice());
        let make = Make {
            kind: MakeKind::GENERATE_PAIR.0,
            tag: TAG.to_vec(),
            mechanism: Some(MechanismMessage { number: M::EC_KEY_PAIR_GEN.0, ..MechanismMessage::default() }),
            templates: vec![vec![token(), curve].into(), vec![token()].into()],
            ..Make::default()
        };
        let Some(Answer::Make(made)) = real.send(Call::Make(make)).answer else { panic!("no pair") };
        real.made = made;
        real
    }

    fn send(&self, call: Call) -> ReplyBody {
        let manifest = self.member.manifest();
        let body = RequestBody {
            group: manifest.group,
            generation: manifest.generation,
            ticket: self.ticket.clone(),
            call: Some(call),
        };
        let header = RequestHeader { tag: 1, remaining_ms: 1_000, ..RequestHeader::default() };
        let (_, reply) = self.member.handle(&CALLER, &header, &body.encode_to_vec(), self.now_ms);
        ReplyBody::decode(reply.as_slice()).unwrap()
    }

    fn ouid(&self, slot: usize) -> Vec<u8> {
        self.made.outputs[slot].ouid.clone()
    }

    /// Whether the member did it.
    fn take(&mut self, step: &Step) -> bool {
        let ouids = vec![self.ouid(0), self.ouid(1)];
        let tag = TAG.to_vec();
        let call = match step {
            Step::Store(..) => Call::Store(Store { batch: self.made.batch.clone(), tag, provisional: true }),
            Step::Commit(..) => Call::Commit(Commit { ouids, tag }),
            Step::Discard(_) => Call::Discard(Discard { ouids, tag }),
            Step::Destroy(_) => {
                let object = ObjectRef { ouid: self.ouid(0), ..ObjectRef::default() };
                Call::Destroy(Destroy { object: Some(object) })
            }
            Step::Forget(_) => {
                self.now_ms += DAY_MS + 1;
                return self.member.forget_provisional(self.now_ms).unwrap() > 0;
            }
            other => panic!("{other:?} is no message to a member"),
        };
        let outcome = Outcome(self.send(call).outcome);
        outcome == Outcome::OK || outcome == Outcome::DESTROYED
    }

    /// The states of both objects as the outside sees them; a provisional one shows by what Commit would answer, so
    /// that is asked of the model only.
    fn shown(&self, slot: usize) -> Option<State> {
        let object = ObjectRef { ouid: self.ouid(slot), ..ObjectRef::default() };
        let get = GetAttributes { object: Some(object), numbers: vec![A::CLASS.0] };
        match Outcome(self.send(Call::GetAttributes(get)).outcome) {
            Outcome::OK => Some(State::Committed),
            Outcome::DESTROYED => Some(State::Deleted),
            _ => None,
        }
    }
}

/// The model's member after the same steps, and whether it did the last one.
fn modelled(rules: &Rules, steps: &[Step]) -> (World, bool) {
    let mut world = rules.init_states().remove(0);
    let mut did = false;
    for step in steps {
        did = rules.take(&mut world, step).is_some();
    }
    (world, did)
}

/// Every sequence of up to four messages to one member.
fn sequences() -> Vec<Vec<Step>> {
    let messages =
        [Step::Store(0, 0), Step::Commit(0, 0), Step::Discard(0), Step::Destroy(0), Step::Forget(0)];
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..4 {
        last = last
            .iter()
            .flat_map(|steps: &Vec<Step>| {
                messages.iter().map(|next| steps.iter().chain([next]).cloned().collect())
            })
            .collect();
        all.extend(last.clone());
    }
    all
}

#[test]
fn the_partition_does_what_the_model_says_after_every_sequence_of_messages() {
    let scope = Scope { objects: 2, destroyer: true, ..EMPTY };
    for steps in sequences() {
        let rules = Rules::new(scope, None);
        let (world, did) = modelled(&rules, &steps);
        let mut real = Real::new();
        let done = steps.iter().map(|step| real.take(step)).last().unwrap_or(false);
        assert_eq!(done, did, "{steps:?}");
        for slot in 0..2 {
            let held = rules.facts(&world, 0, slot).map(|facts| facts.state);
            let visible = held.filter(|state| *state != State::Provisional);
            assert_eq!(real.shown(slot), visible, "object {slot} after {steps:?}");
        }
    }
}
