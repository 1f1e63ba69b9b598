//! The application's memory is read once in a call (RULES 1.5): whatever a use is sent again for, members are sent the same
//! data, signature, IV and state, though the application changes its buffers while the call runs.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use client::conf::Configuration;
use client::{InitializeOptions, Module, Produced, Room};
use partition::in_process::InProcess;
use partition::store::MemoryStore;
use partition::{Caller, DomainSecret, Partition, Settings, SystemRandom};
use prost::Message;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::messages::{Answer, Call, How, Outcome, ReplyBody, RequestBody, Use};
use spec::platform::{Lock, Moment};
use spec::seam::{Event, MemberId, Outgoing, Seam, Standing, Tag, Waiter};
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, Mechanism, MechanismType as M, Parameters,
    Rv, SlotId, Template, UserType,
};

const MEMBER: MemberId = MemberId(1_001);
const CO_PIN: &[u8] = b"officer-pin";
/// The partition's own slot; the group in front of it has no manifest here.
const SLOT: SlotId = SlotId(1);
const ROOM: Room = Room::Bytes(1 << 22);

/// Memory of the application, which another of its threads writes.
struct Memory(Vec<AtomicU8>);

impl Memory {
    fn new(length: usize) -> Arc<Self> {
        Arc::new(Self((0..length).map(|at| AtomicU8::new(at.to_le_bytes()[0])).collect()))
    }

    fn of(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self(bytes.iter().copied().map(AtomicU8::new).collect()))
    }

    /// As the border to C hands it on for the length of a call.
    fn bytes(&self) -> &[u8] {
        // SAFETY: as many bytes as the vector has, which lives as long; that they change meanwhile is what is tried here.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
    }

    fn change(&self) {
        for byte in &self.0 {
            byte.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What becomes of a use.
#[derive(Clone, Copy)]
enum Turn {
    /// The member carries it out and its reply is lost.
    Lost,
    /// The member answers this.
    Says(Outcome),
    /// The member lacks every state of the key that is asked for by its stamp, from now on.
    LacksWhatIsNamed,
}

/// A member whose answers to uses are told in advance. Whenever it is sent one, the application changes its memory.
struct Told {
    inner: Arc<InProcess>,
    turns: Lock<Vec<Turn>>,
    /// What was sent.
    uses: Lock<Vec<Use>>,
    memory: Lock<Vec<Arc<Memory>>>,
    /// From now on plans have another shape.
    replans: AtomicBool,
}

impl Told {
    fn answer(&self, waiter: &Arc<Waiter>, change: impl FnOnce(&mut ReplyBody)) {
        let Some(Event::Reply(tag, mut reply)) = waiter.take() else { panic!("a partition answers at once") };
        let mut body = ReplyBody::decode(reply.body.as_slice()).unwrap();
        change(&mut body);
        *reply.body = body.encode_to_vec();
        waiter.deliver(Event::Reply(tag, reply));
    }

    fn turn(&self, one: &Use) -> Option<Turn> {
        let mut turns = self.turns.lock();
        match turns.first().copied()? {
            Turn::LacksWhatIsNamed => {
                let is_named = one.key.as_ref().is_some_and(|key| key.least.is_some());
                is_named.then_some(Turn::Says(Outcome::BEHIND))
            }
            _ => Some(turns.remove(0)),
        }
    }
}

impl Seam for Told {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        const USE: u32 = 14;
        let call = RequestBody::decode(request.body.as_slice()).unwrap().call.unwrap();
        let turn = match call {
            Call::Use(one) => {
                let turn = self.turn(&one);
                self.uses.lock().push(one);
                self.memory.lock().iter().for_each(|memory| memory.change());
                turn
            }
            Call::Plan(_) if self.replans.load(Ordering::SeqCst) => {
                let tag = self.inner.submit(waiter, member, request, deadline);
                self.answer(waiter, |reply| match &mut reply.answer {
                    Some(Answer::Plan(plan)) => plan.always_authenticate = true,
                    _ => panic!("wanted a plan"),
                });
                return tag;
            }
            _ => None,
        };
        if let Some(Turn::Lost) = turn {
            self.inner.lose_reply_once(member, USE);
        }
        let tag = self.inner.submit(waiter, member, request, deadline);
        if let Some(Turn::Says(outcome)) = turn {
            self.answer(waiter, |reply| *reply = ReplyBody { outcome: outcome.0, ..ReplyBody::default() });
        }
        tag
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        self.inner.cancel(member, tag);
    }

    fn standing(&self, member: MemberId) -> Standing {
        self.inner.standing(member)
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        self.inner.abandon(member, reason);
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.inner.subscribe(waiter);
    }
}

/// A module over one such member, and its officer's session.
struct Bench {
    seam: Arc<Told>,
    module: Module,
    session: HandleSession,
}

impl Bench {
    fn new() -> Self {
        let settings = Settings { argon2_memory_kib: 64, argon2_passes: 1, ..Settings::default() };
        let born = Partition::create(
            Arc::new(MemoryStore::new()),
            DomainSecret::new(zeroize::Zeroizing::new([7; 32])),
            MEMBER.0,
            "tests",
            b"security-pin",
            CO_PIN,
            settings,
            1,
            &SystemRandom,
        );
        let platform = ntls::platform::System::shared();
        let caller = Caller { client: [1; 32], instance: [2; 32] };
        let inner = InProcess::new(platform.clone(), caller, vec![(MEMBER, Arc::new(born.unwrap()))]);
        let seam = Arc::new(Told {
            inner,
            turns: Lock::default(),
            uses: Lock::default(),
            memory: Lock::default(),
            replans: AtomicBool::new(false),
        });
        let text = format!(
            "VirtualToken = {{\n VirtualToken00Label = g;\n VirtualToken00SN = 11000000000001;\n \
             VirtualToken00Members = {};\n}}\nHAConfiguration = {{\n HAOnly = 0;\n}}\n\
             Hatoki = {{\n LogLevel = off;\n OutageWaitMs = 300;\n}}\n",
            MEMBER.0
        );
        let configuration = Configuration::from_bytes(text.as_bytes(), Path::new("test.conf")).unwrap();
        let module = Module::new();
        let options = InitializeOptions { may_create_threads: false };
        module.initialize_over(seam.clone(), platform, configuration, options).unwrap();
        let session = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
        module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
        Self { seam, module, session }
    }

    /// A key, of the token or of the session.
    fn key(&self, generate: M, token: bool, uses: &[A]) -> HandleObject {
        let mut template = vec![Attribute::bool(A::TOKEN, token), Attribute::ulong(A::VALUE_LEN, 32)];
        template.extend(uses.iter().map(|one| Attribute::bool(*one, true)));
        self.module.generate_key(self.session, Mechanism::plain(generate), Template::from(template)).unwrap()
    }

    fn aes(&self, token: bool) -> HandleObject {
        self.key(M::AES_KEY_GEN, token, &[A::ENCRYPT, A::DECRYPT])
    }

    /// From now on uses are answered so, and the application changes its memory at each of them.
    fn tell(&self, turns: &[Turn], memory: &[&Arc<Memory>]) {
        *self.seam.turns.lock() = turns.to_vec();
        *self.seam.memory.lock() = memory.iter().map(|one| (*one).clone()).collect();
        self.seam.uses.lock().clear();
    }

    /// What was sent of one use in these many sends: the same each time.
    fn sent(&self, sends: usize) -> Use {
        let uses = std::mem::take(&mut *self.seam.uses.lock());
        assert_eq!(uses.len(), sends);
        let read = |one: &Use| {
            let iv = one.mechanism.as_ref().map(|mechanism| mechanism.iv.clone());
            (one.data.clone(), one.signature.clone(), iv, one.state.clone(), one.how, one.part, one.last)
        };
        assert!(uses.iter().all(|one| read(one) == read(&uses[0])), "two sends differ in what they carry");
        uses[0].clone()
    }
}

fn gcm() -> Option<Mechanism> {
    let parameters = Parameters::Gcm { iv: vec![1; 12], aad: b"aad".to_vec(), tag_bits: 128 };
    Some(Mechanism { mechanism_type: M::AES_GCM, parameters })
}

fn cbc() -> Option<Mechanism> {
    Some(Mechanism { mechanism_type: M::AES_CBC, parameters: Parameters::Iv(vec![9; 16]) })
}

fn bytes(produced: client::Result<Produced>) -> Vec<u8> {
    match produced.unwrap() {
        Produced::Bytes(output) => output.to_vec(),
        other => panic!("wanted bytes, found {other:?}"),
    }
}

#[test]
fn rules_1_5_a_blob_that_is_wanted_after_a_lost_reply_goes_with_the_first_data() {
    let bench = Bench::new();
    let key = bench.aes(false);
    let memory = Memory::new(1_000);
    let first = memory.bytes().to_vec();
    bench.module.encrypt_init(bench.session, gcm(), key).unwrap();
    bench.tell(&[Turn::Lost, Turn::Says(Outcome::NEED_BLOB)], &[&memory]);
    let ciphertext = bytes(bench.module.encrypt(bench.session, memory.bytes(), ROOM));
    assert_eq!(bench.sent(3).data, first);
    assert_ne!(memory.bytes(), first, "the application has changed its buffer");
    bench.tell(&[], &[]);
    bench.module.decrypt_init(bench.session, gcm(), key).unwrap();
    assert_eq!(bytes(bench.module.decrypt(bench.session, &ciphertext, ROOM)), first);
}

#[test]
fn rules_1_5_a_plan_made_again_after_a_lost_reply_is_sent_the_first_data() {
    let bench = Bench::new();
    let key = bench.aes(true);
    let memory = Memory::new(70_000);
    let first = memory.bytes().to_vec();
    // The second time the plan is made again, the third time none is named.
    let turns =
        [Turn::Lost, Turn::Says(Outcome::PLAN_CHANGED), Turn::Lost, Turn::Says(Outcome::PLAN_CHANGED)];
    bench.module.encrypt_init(bench.session, gcm(), key).unwrap();
    bench.tell(&turns, &[&memory]);
    bytes(bench.module.encrypt(bench.session, memory.bytes(), ROOM));
    assert_eq!(bench.sent(5).data, first);
    // A part of a chain, whose IV is the chaining value.
    bench.module.encrypt_init(bench.session, cbc(), key).unwrap();
    bench.module.encrypt_update(bench.session, &[7; 32], ROOM).unwrap();
    let memory = Memory::new(64);
    let first = memory.bytes().to_vec();
    bench.tell(&turns, &[&memory]);
    bytes(bench.module.encrypt_update(bench.session, memory.bytes(), ROOM));
    assert_eq!(bench.sent(5).data, first);
}

#[test]
fn rules_1_5_an_older_state_that_is_settled_for_after_a_lost_reply_is_sent_the_first_data_and_signature() {
    let bench = Bench::new();
    let key = bench.key(M::GENERIC_SECRET_KEY_GEN, true, &[A::SIGN, A::VERIFY]);
    let hmac = || Some(Mechanism::plain(M::SHA256_HMAC));
    bench.module.sign_init(bench.session, hmac(), key).unwrap();
    let data = Memory::new(200);
    let mac = Memory::of(&bytes(bench.module.sign(bench.session, data.bytes(), ROOM)));
    let first = (data.bytes().to_vec(), mac.bytes().to_vec());
    bench.module.verify_init(bench.session, hmac(), key).unwrap();
    bench.tell(&[Turn::Lost, Turn::LacksWhatIsNamed], &[&data, &mac]);
    bench.module.verify(bench.session, data.bytes(), mac.bytes()).unwrap();
    let sends = bench.seam.uses.lock().len();
    let sent = bench.sent(sends);
    assert!(sends >= 3, "{sends}");
    assert_eq!((sent.data.clone(), sent.signature.clone()), first);
    // A streamed part, which carries a state.
    bench.tell(&[], &[]);
    bench.module.sign_init(bench.session, hmac(), key).unwrap();
    bench.module.sign_update(bench.session, &[7; 100_000]).unwrap();
    let memory = Memory::new(100_000);
    let first = memory.bytes().to_vec();
    bench.tell(&[Turn::Lost, Turn::Says(Outcome::PLAN_CHANGED)], &[&memory]);
    bench.module.sign_update(bench.session, memory.bytes()).unwrap();
    let sent = bench.sent(3);
    assert!(sent.data == first && !sent.state.is_empty());
}

#[test]
fn rules_1_5_a_plan_of_another_shape_is_sent_the_data_that_went_out_under_the_one_before() {
    let bench = Bench::new();
    let key = bench.aes(true);
    let memory = Memory::new(1_000);
    let first = memory.bytes().to_vec();
    bench.module.encrypt_init(bench.session, gcm(), key).unwrap();
    bench.seam.replans.store(true, Ordering::SeqCst);
    bench.tell(&[Turn::Lost, Turn::Says(Outcome::PLAN_CHANGED)], &[&memory]);
    bytes(bench.module.encrypt(bench.session, memory.bytes(), ROOM));
    let sent = bench.sent(3);
    assert_eq!((How(sent.how), sent.data.clone()), (How::WHOLE, first));
}

#[test]
fn rules_1_5_what_was_begun_in_pieces_under_an_iv_is_not_begun_again() {
    let bench = Bench::new();
    let key = bench.aes(true);
    let memory = Memory::new(3 << 20);
    let first = memory.bytes()[..1 << 20].to_vec();
    bench.module.encrypt_init(bench.session, cbc(), key).unwrap();
    bench.seam.replans.store(true, Ordering::SeqCst);
    bench.tell(&[Turn::Lost, Turn::Says(Outcome::PLAN_CHANGED)], &[&memory]);
    let answer = bench.module.encrypt(bench.session, memory.bytes(), ROOM);
    assert_eq!(answer.unwrap_err().rv(), Rv::FUNCTION_FAILED);
    assert!(bench.sent(2).data == first);
}
