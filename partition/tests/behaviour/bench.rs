//! A member on the bench: a partition over a store in memory, a caller, a clock that stands still.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use partition::store::{self, MemoryStore};
use partition::{Caller, DomainSecret, Partition, Settings, SystemRandom};
use prost::Message;
use spec::messages::*;
use spec::record::Manifest;
use spec::{
    Attribute, AttributeType as A, KeyType, Mechanism, MechanismType as M, ObjectClass, Rv, Template,
    UserType,
};
use zeroize::Zeroizing;

pub const SO_PIN: &[u8] = b"so pin 1";
pub const CO_PIN: &[u8] = b"co pin 1";
pub const NOW_MS: u64 = 1_700_000_000_000;
pub const CALLER: Caller = Caller { client: [1; 32], instance: [2; 32] };

pub fn domain() -> DomainSecret {
    DomainSecret::new(Zeroizing::new([9; 32]))
}

/// Compares, when it is dropped, the digests that a store keeps with those of the records in it (HA 1.6): opening the
/// partition does. A test that damages its store on purpose takes the store out.
pub struct Audit {
    pub store: Option<Arc<dyn store::Store>>,
    serial: u64,
}

impl Drop for Audit {
    fn drop(&mut self) {
        let Some(store) = self.store.take().filter(|_| !std::thread::panicking()) else { return };
        if let Err(error) = Partition::open(store, domain(), self.serial, Settings::for_tests()) {
            panic!("what the test left in the store does not open: {error}");
        }
    }
}

/// One member and who talks to it.
pub struct Bench {
    pub partition: Partition,
    pub store: Arc<dyn store::Store>,
    pub caller: Caller,
    pub ticket: Vec<u8>,
    pub now_ms: u64,
    pub attempt: u32,
    pub audit: Audit,
}

/// Sixteen bytes that no other call of this process has had.
pub fn tag() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes().to_vec()
}

impl Bench {
    pub fn new() -> Self {
        Self::with(1001, Settings::for_tests())
    }

    pub fn with(serial: u64, settings: Settings) -> Self {
        Self::over(Arc::new(MemoryStore::new()), serial, settings)
    }

    pub fn over(store: Arc<dyn store::Store>, serial: u64, settings: Settings) -> Self {
        let partition = Partition::create(
            store.clone(),
            domain(),
            serial,
            "bench",
            SO_PIN,
            CO_PIN,
            settings,
            NOW_MS,
            &SystemRandom,
        )
        .unwrap();
        let audit = Audit { store: Some(store.clone()), serial };
        Self { partition, store, caller: CALLER, ticket: Vec::new(), now_ms: NOW_MS, attempt: 0, audit }
    }

    /// With the Crypto Officer logged in.
    pub fn logged_in() -> Self {
        let mut bench = Self::new();
        bench.ticket = bench.login(UserType::USER, CO_PIN);
        bench
    }

    /// Another client of the same partition's group over another member: the group of `self`, adopted.
    pub fn joined(&self, serial: u64) -> Self {
        let mut other = Self::with(serial, Settings::for_tests());
        self.join(&mut other, serial);
        other
    }

    /// The other one, which is empty, becomes a member of this one's group.
    pub fn join(&self, other: &mut Self, serial: u64) {
        other.ticket = other.login(UserType::USER, CO_PIN);
        let mut manifest = self.partition.manifest();
        let member = spec::record::ManifestMember { serial, role: 0, weight: 100 };
        manifest.members.push(member);
        let expected_epoch = manifest.epoch;
        self.ok(Call::ChangeManifest(ChangeManifest {
            expected_epoch,
            manifest: Some(manifest),
            tag: tag(),
        }));
        let Answer::Export(export) =
            self.ok(Call::Export(Export { ouids: vec![], credentials: true, manifest: true }))
        else {
            unreachable!("an export is answered by an export")
        };
        let manifest = self.partition.manifest();
        other.ok(Call::Adopt(Adopt {
            group: manifest.group,
            generation: manifest.generation,
            manifest: export.manifest,
            credentials: export.credentials,
        }));
        other.ticket.clone_from(&self.ticket);
    }

    pub fn header(&self) -> RequestHeader {
        RequestHeader { tag: 7, remaining_ms: 1_000, attempt: self.attempt, ..RequestHeader::default() }
    }

    pub fn body(&self, call: Call) -> Vec<u8> {
        let Manifest { group, generation, .. } = self.partition.manifest();
        RequestBody { group, generation, ticket: self.ticket.clone(), call: Some(call) }.encode_to_vec()
    }

    pub fn raw(&self, body: &[u8]) -> ReplyBody {
        let (header, reply) = self.partition.handle(&self.caller, &self.header(), body, self.now_ms);
        assert_eq!(header.tag, 7);
        ReplyBody::decode(reply.as_slice()).unwrap()
    }

    pub fn send(&self, call: Call) -> ReplyBody {
        self.raw(&self.body(call))
    }

    pub fn ok(&self, call: Call) -> Answer {
        let mut reply = self.send(call);
        assert_eq!((Outcome(reply.outcome), Rv(reply.rv)), (Outcome::OK, Rv::OK), "{}", reply.text);
        reply.answer.take().unwrap()
    }

    pub fn outcome(&self, call: Call) -> Outcome {
        Outcome(self.send(call).outcome)
    }

    /// The code of the standard that the call is refused with.
    pub fn rv(&self, call: Call) -> Rv {
        let reply = self.send(call);
        match Outcome(reply.outcome) {
            Outcome::OK => Rv::OK,
            Outcome::RV => Rv(reply.rv),
            other => panic!("wanted a code of the standard, found {other:?}: {}", reply.text),
        }
    }

    pub fn login(&self, user: UserType, pin: &[u8]) -> Vec<u8> {
        match self.ok(login(user, pin)) {
            Answer::Login(answer) => answer.ticket,
            _ => unreachable!("a login is answered by a login"),
        }
    }

    pub fn make(&self, make: Make) -> MakeAnswer {
        match self.ok(Call::Make(make)) {
            Answer::Make(answer) => answer,
            _ => unreachable!("a make is answered by a make"),
        }
    }

    /// Makes and stores, committed at once; the references in the order of the outputs.
    pub fn create(&self, make: Make) -> Vec<ObjectRef> {
        let tag = make.tag.clone();
        let made = self.make(make);
        if !made.batch.is_empty() {
            self.ok(Call::Store(Store { batch: made.batch.clone(), tag, provisional: false }));
        }
        made.outputs.iter().map(reference).collect()
    }

    pub fn key(&self, template: Vec<Attribute>) -> ObjectRef {
        self.create(generate(M::AES_KEY_GEN, template)).remove(0)
    }

    pub fn attributes(&self, object: &ObjectRef, kinds: &[A]) -> GetAttributesAnswer {
        let numbers = kinds.iter().map(|kind| kind.0).collect();
        match self.ok(Call::GetAttributes(GetAttributes { object: Some(object.clone()), numbers })) {
            Answer::GetAttributes(answer) => answer,
            _ => unreachable!("attributes are answered by attributes"),
        }
    }

    pub fn attribute(&self, object: &ObjectRef, kind: A) -> Result<Vec<u8>, Rv> {
        let mut value = self.attributes(object, &[kind]).values.remove(0);
        Rv(value.rv).ok().map(|()| std::mem::take(&mut value.value))
    }

    pub fn find(&self, template: Vec<Attribute>) -> Vec<Found> {
        let find = Find { template: Some(template.into()), after: vec![], limit: 1000 };
        match self.ok(Call::Find(find)) {
            Answer::Find(answer) => answer.found,
            _ => unreachable!("a search is answered by a search"),
        }
    }

    pub fn set(&self, object: &ObjectRef, template: Vec<Attribute>) -> Call {
        Call::SetAttributes(SetAttributes {
            object: Some(object.clone()),
            template: Some(template.into()),
            tag: tag(),
            seen: None,
        })
    }

    pub fn status(&self) -> StatusAnswer {
        match self.ok(Call::Status(Status { mechanisms: true, seen: Vec::new() })) {
            Answer::Status(answer) => answer,
            _ => unreachable!("a status is answered by a status"),
        }
    }

    pub fn used(&self, wanted: Use) -> UseAnswer {
        match self.ok(Call::Use(wanted)) {
            Answer::Use(answer) => answer,
            _ => unreachable!("a use is answered by a use"),
        }
    }
}

pub fn login(user: UserType, pin: &[u8]) -> Call {
    Call::Login(Login { user: user.0, pin: pin.to_vec(), tag: tag() })
}

pub fn reference(made: &MadeObject) -> ObjectRef {
    let blob_hash = match made.blob.as_slice() {
        [] => Vec::new(),
        blob => digests::digest(digests::Hash::Sha256, blob).to_vec(),
    };
    ObjectRef { ouid: made.ouid.clone(), blob_hash, blob: made.blob.clone(), ..ObjectRef::default() }
}

pub fn message(mechanism: &Mechanism) -> Option<MechanismMessage> {
    Some(MechanismMessage::from(mechanism))
}

/// Generation of a secret key; AES keys get 32 bytes unless the template says otherwise.
pub fn generate(mechanism: M, mut template: Vec<Attribute>) -> Make {
    if !template.iter().any(|attribute| attribute.kind() == A::VALUE_LEN) {
        template.push(Attribute::ulong(A::VALUE_LEN, 32));
    }
    Make {
        kind: MakeKind::GENERATE.0,
        mechanism: message(&Mechanism::plain(mechanism)),
        templates: vec![template.into()],
        source: None,
        tag: tag(),
    }
}

pub const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

pub fn ec_pair(mut public: Vec<Attribute>, private: Vec<Attribute>) -> Make {
    public.push(Attribute::new(A::EC_PARAMS, P256));
    pair(M::EC_KEY_PAIR_GEN, public, private)
}

pub fn rsa_pair(mut public: Vec<Attribute>, private: Vec<Attribute>) -> Make {
    public.push(Attribute::ulong(A::MODULUS_BITS, 2048));
    pair(M::RSA_PKCS_KEY_PAIR_GEN, public, private)
}

fn pair(mechanism: M, public: Vec<Attribute>, private: Vec<Attribute>) -> Make {
    Make {
        kind: MakeKind::GENERATE_PAIR.0,
        mechanism: message(&Mechanism::plain(mechanism)),
        templates: vec![public.into(), private.into()],
        source: None,
        tag: tag(),
    }
}

pub fn create(template: Vec<Attribute>) -> Make {
    let templates = vec![Template::from(template)];
    Make { kind: MakeKind::CREATE.0, mechanism: None, templates, source: None, tag: tag() }
}

pub fn data(more: Vec<Attribute>) -> Make {
    let mut template = vec![Attribute::ulong(A::CLASS, ObjectClass::DATA.0)];
    template.extend(more);
    create(template)
}

/// A secret key of these bytes.
pub fn secret(key_type: KeyType, value: &[u8], more: Vec<Attribute>) -> Make {
    let mut template = vec![
        Attribute::ulong(A::CLASS, ObjectClass::SECRET_KEY.0),
        Attribute::ulong(A::KEY_TYPE, key_type.0),
        Attribute::new(A::VALUE, value),
    ];
    template.extend(more);
    create(template)
}

pub fn token() -> Attribute {
    Attribute::bool(A::TOKEN, true)
}

pub fn yes(kind: A) -> Attribute {
    Attribute::bool(kind, true)
}

pub fn no(kind: A) -> Attribute {
    Attribute::bool(kind, false)
}

pub fn label(text: &str) -> Attribute {
    Attribute::new(A::LABEL, text.as_bytes())
}

pub fn whole(function: KeyFunction, mechanism: &Mechanism, key: &ObjectRef, data: &[u8]) -> Use {
    changed!(Use::default(); function: function.0, mechanism: message(mechanism), key: Some(key.clone()), how: How::WHOLE.0, data: data.to_vec())
}

pub fn plan(function: KeyFunction, mechanism: &Mechanism, key: &ObjectRef) -> Call {
    Call::Plan(Plan { function: function.0, mechanism: message(mechanism), key: Some(key.clone()) })
}
