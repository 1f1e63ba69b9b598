//! A group of partitions behind an `InProcess` seam and a module over it.
use std::path::Path;
use std::sync::Arc;

use client::conf::Configuration;
use client::{InitializeOptions, Module, Produced, Room};
use ntls::platform::System;
use partition::in_process::InProcess;
use partition::store::MemoryStore;
use partition::{Caller, DomainSecret, Partition, Settings, SystemRandom};
use prost::Message;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Export, Login, Outcome, ReplyBody, RequestBody, RequestHeader,
    Status, StatusAnswer,
};
use spec::platform::Platform;
use spec::record::{Manifest, ManifestMember, MemberRole};
use spec::seam::MemberId;
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, KeyType, Mechanism, MechanismType as M,
    ObjectClass, SlotId, Template, UserType,
};
use zeroize::Zeroizing;

use crate::clock::Clock;

pub(crate) const SLOT: SlotId = SlotId(0);
pub(crate) const SO_PIN: &[u8] = b"so-pin-1";
pub(crate) const CO_PIN: &[u8] = b"co-pin-1";
pub(crate) const GROUP_SERIAL: u64 = 11_001;
const CALLER: Caller = Caller { client: [7; 32], instance: [8; 32] };

/// See the head of this file.
pub(crate) struct Lab {
    pub(crate) seam: Arc<InProcess>,
    pub(crate) module: Module,
    pub(crate) members: Vec<MemberId>,
    platform: Arc<dyn Platform>,
    stores: Vec<Arc<MemoryStore>>,
    domain: [u8; 32],
    ha_only: bool,
    options: &'static str,
}

impl Lab {
    /// Three members, all up, the module initialised without threads of its own: requests can be counted.
    pub(crate) fn new() -> Self {
        Self::with(3, true, false)
    }

    /// So many members, as a group or with member slots besides.
    pub(crate) fn with(members: u64, ha_only: bool, threads: bool) -> Self {
        Self::with_options(members, ha_only, threads, "")
    }

    /// As [`Lab::with`], with more lines for the section `Hatoki`.
    pub(crate) fn with_options(members: u64, ha_only: bool, threads: bool, options: &'static str) -> Self {
        Self::on(Arc::new(System), members, ha_only, threads, options)
    }

    /// As [`Lab::with_options`] without threads, under a clock that the test moves.
    pub(crate) fn with_clock(members: u64, options: &'static str) -> (Self, Arc<Clock>) {
        let clock = Clock::new();
        (Self::on(clock.clone(), members, true, false, options), clock)
    }

    fn on(
        platform: Arc<dyn Platform>,
        members: u64,
        ha_only: bool,
        threads: bool,
        options: &'static str,
    ) -> Self {
        let members: Vec<MemberId> = (1..=members).map(|number| MemberId(1_000 + number)).collect();
        let stores: Vec<Arc<MemoryStore>> = members.iter().map(|_| Arc::new(MemoryStore::new())).collect();
        let domain = [9; 32];
        let secret = || DomainSecret::new(Zeroizing::new(domain));
        let create = |(member, store): (&MemberId, &Arc<MemoryStore>)| {
            let settings = Settings::for_tests();
            let label = format!("member{}", member.0);
            let now = platform.wall_ms();
            let partition = Partition::create(
                store.clone(),
                secret(),
                member.0,
                &label,
                SO_PIN,
                CO_PIN,
                settings,
                now,
                &SystemRandom,
            );
            Arc::new(partition.unwrap())
        };
        let partitions: Vec<Arc<Partition>> = members.iter().zip(&stores).map(create).collect();
        found(&partitions, platform.wall_ms());
        let pairs = members.iter().copied().zip(partitions).collect();
        let seam = InProcess::new(platform.clone(), CALLER, pairs);
        let lab = Self { seam, module: Module::new(), members, platform, stores, domain, ha_only, options };
        lab.initialize(threads);
        lab
    }

    pub(crate) fn initialize(&self, threads: bool) {
        self.start(&self.module, self.options, threads);
    }

    /// Another application over the same members, with lines of its own for the section `Hatoki`.
    pub(crate) fn another(&self, options: &str) -> Module {
        let module = Module::new();
        self.start(&module, options, false);
        module
    }

    fn start(&self, module: &Module, options: &str, threads: bool) {
        module
            .initialize_over(
                self.seam.clone(),
                self.platform.clone(),
                self.configured(options),
                InitializeOptions { may_create_threads: threads },
            )
            .unwrap();
    }

    pub(crate) fn configuration(&self) -> Configuration {
        self.configured(self.options)
    }

    fn configured(&self, options: &str) -> Configuration {
        let serials: Vec<String> = self.members.iter().map(|member| member.0.to_string()).collect();
        let text = format!(
            "VirtualToken = {{ VirtualToken00Label = lab; VirtualToken00SN = {GROUP_SERIAL}; \
             VirtualToken00Members = {}; }}\n\
             HAConfiguration = {{ HAOnly = {}; }}\n\
             Hatoki = {{ {} LogLevel = off; {} }}\n",
            serials.join(","),
            u8::from(self.ha_only),
            if options.contains("OutageWaitMs") { "" } else { "OutageWaitMs = 200;" },
            options
        );
        Configuration::from_bytes(text.as_bytes(), Path::new("/lab/Chrystoki.conf")).unwrap()
    }

    /// Takes all members down or brings them back.
    pub(crate) fn all_down(&self, down: bool) {
        for member in &self.members {
            self.seam.set_down(*member, down);
        }
    }

    /// Restarts every member over its store: all caches are empty.
    pub(crate) fn restart_all(&self) {
        for (member, store) in self.members.iter().zip(&self.stores) {
            self.seam.swap(*member, self.open(*member, store.clone()));
        }
    }

    fn open(&self, member: MemberId, store: Arc<MemoryStore>) -> Arc<Partition> {
        let secret = DomainSecret::new(Zeroizing::new(self.domain));
        Arc::new(Partition::open(store, secret, member.0, Settings::for_tests()).unwrap())
    }

    /// A copy of a member as it is now, and an application that reaches this copy and the other members as they are.
    pub(crate) fn beside_a_copy_of(&self, place: usize) -> (Arc<Partition>, Module) {
        let copy = self.open(self.members[place], Arc::new(self.stores[place].image()));
        let reached = |(at, member): (usize, &MemberId)| match at == place {
            true => (*member, copy.clone()),
            false => (*member, self.seam.partition(*member).unwrap()),
        };
        let pairs = self.members.iter().enumerate().map(reached).collect();
        let module = Module::new();
        let seam = InProcess::new(self.platform.clone(), CALLER, pairs);
        let options = InitializeOptions { may_create_threads: true };
        module.initialize_over(seam, self.platform.clone(), self.configuration(), options).unwrap();
        (copy, module)
    }

    pub(crate) fn session(&self) -> HandleSession {
        self.module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap()
    }

    pub(crate) fn read_only_session(&self) -> HandleSession {
        self.module.open_session(SLOT, SERIAL_SESSION).unwrap()
    }

    /// A R/W session with the Crypto Officer logged in.
    pub(crate) fn user(&self) -> HandleSession {
        let session = self.session();
        self.module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
        session
    }

    pub(crate) fn aes(&self, session: HandleSession, token: bool) -> HandleObject {
        let template = Template::from(vec![
            Attribute::bool(A::TOKEN, token),
            Attribute::ulong(A::VALUE_LEN, 32),
            Attribute::bool(A::ENCRYPT, true),
            Attribute::bool(A::DECRYPT, true),
        ]);
        self.module.generate_key(session, Mechanism::plain(M::AES_KEY_GEN), template).unwrap()
    }

    pub(crate) fn hmac_key(&self, session: HandleSession, token: bool) -> HandleObject {
        let template = Template::from(vec![
            Attribute::bool(A::TOKEN, token),
            Attribute::ulong(A::VALUE_LEN, 32),
            Attribute::bool(A::SIGN, true),
            Attribute::bool(A::VERIFY, true),
        ]);
        self.module.generate_key(session, Mechanism::plain(M::GENERIC_SECRET_KEY_GEN), template).unwrap()
    }

    pub(crate) fn rsa(&self, session: HandleSession, token: bool) -> (HandleObject, HandleObject) {
        let public = Template::from(vec![
            Attribute::bool(A::TOKEN, token),
            Attribute::ulong(A::MODULUS_BITS, 2048),
            Attribute::new(A::PUBLIC_EXPONENT, vec![1, 0, 1]),
            Attribute::bool(A::VERIFY, true),
            Attribute::bool(A::ENCRYPT, true),
        ]);
        let private = Template::from(vec![
            Attribute::bool(A::TOKEN, token),
            Attribute::bool(A::SIGN, true),
            Attribute::bool(A::DECRYPT, true),
        ]);
        self.module
            .generate_key_pair(session, Mechanism::plain(M::RSA_PKCS_KEY_PAIR_GEN), public, private)
            .unwrap()
    }

    pub(crate) fn p256(&self, session: HandleSession, token: bool) -> (HandleObject, HandleObject) {
        let (public, private) = p256_templates(token);
        self.module.generate_key_pair(session, Mechanism::plain(M::EC_KEY_PAIR_GEN), public, private).unwrap()
    }

    /// A data object; its handle.
    pub(crate) fn data(
        &self,
        session: HandleSession,
        token: bool,
        label: &str,
    ) -> client::Result<HandleObject> {
        self.module.create_object(
            session,
            Template::from(vec![
                Attribute::ulong(A::CLASS, ObjectClass::DATA.0),
                Attribute::bool(A::TOKEN, token),
                Attribute::new(A::LABEL, label.as_bytes()),
                Attribute::new(A::VALUE, b"content".to_vec()),
            ]),
        )
    }

    /// What a member says of itself, asked past the module.
    pub(crate) fn status(&self, member: MemberId) -> StatusAnswer {
        let body = RequestBody {
            call: Some(Call::Status(Status { mechanisms: false, seen: Vec::new() })),
            ..RequestBody::default()
        };
        let partition = self.seam.partition(member).unwrap();
        let header = RequestHeader { partition: member.0, ..RequestHeader::default() };
        let (_, reply) = partition.handle(&CALLER, &header, &body.encode_to_vec(), System.wall_ms());
        match ReplyBody::decode(reply.as_slice()).unwrap().answer {
            Some(Answer::Status(status)) => status,
            other => panic!("wanted a status, found {}", other.is_some()),
        }
    }

    /// Everything a search finds.
    pub(crate) fn find(&self, session: HandleSession, template: Vec<Attribute>) -> Vec<HandleObject> {
        self.module.find_init(session, Template::from(template)).unwrap();
        let found = self.module.find(session, 10_000).unwrap();
        self.module.find_final(session).unwrap();
        found
    }
}

/// The templates of a P-256 pair: public, private.
pub(crate) fn p256_templates(token: bool) -> (Template, Template) {
    let oid = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let public = vec![
        Attribute::bool(A::TOKEN, token),
        Attribute::new(A::EC_PARAMS, oid),
        Attribute::bool(A::VERIFY, true),
    ];
    let private = vec![Attribute::bool(A::TOKEN, token), Attribute::bool(A::SIGN, true)];
    (public.into(), private.into())
}

/// A secret key of known bytes, made in a session.
pub(crate) fn secret_template(key_type: KeyType, value: &[u8]) -> Template {
    Template::from(vec![
        Attribute::ulong(A::CLASS, ObjectClass::SECRET_KEY.0),
        Attribute::ulong(A::KEY_TYPE, key_type.0),
        Attribute::new(A::VALUE, value),
        Attribute::bool(A::SIGN, true),
        Attribute::bool(A::VERIFY, true),
        Attribute::bool(A::ENCRYPT, true),
        Attribute::bool(A::DECRYPT, true),
        Attribute::bool(A::SENSITIVE, false),
        Attribute::bool(A::EXTRACTABLE, true),
    ])
}

/// The bytes of an output that fitted.
pub(crate) fn bytes(produced: client::Result<Produced>) -> Vec<u8> {
    match produced.unwrap() {
        Produced::Bytes(output) => output.to_vec(),
        other => panic!("wanted bytes, found {other:?}"),
    }
}

pub(crate) const ROOM: Room = Room::Bytes(1 << 24);

/// The code of a call that must fail.
pub(crate) fn rv<T: std::fmt::Debug>(result: client::Result<T>) -> spec::Rv {
    result.unwrap_err().rv()
}

/// Makes one group of the partitions as `vtl haAdmin newGroup` and `addMember` do (RULES 3.3).
fn found(partitions: &[Arc<Partition>], now_ms: u64) {
    let ask = |partition: &Partition, ticket: &[u8], call: Call| {
        let body =
            RequestBody { group: Vec::new(), generation: 0, ticket: ticket.to_vec(), call: Some(call) };
        let header = RequestHeader { partition: partition.serial(), ..RequestHeader::default() };
        let (_, reply) = partition.handle(&CALLER, &header, &body.encode_to_vec(), now_ms);
        let reply = ReplyBody::decode(reply.as_slice()).unwrap();
        assert_eq!(Outcome(reply.outcome), Outcome::OK, "{}", reply.text);
        reply.answer.unwrap()
    };
    let ticket = |partition: &Partition| {
        let login = Login { user: UserType::USER.0, pin: CO_PIN.to_vec(), tag: vec![1; 16] };
        match ask(partition, &[], Call::Login(login)) {
            Answer::Login(answer) => answer.ticket,
            _ => panic!("wanted a ticket"),
        }
    };
    let home = &partitions[0];
    let officer = ticket(home);
    let Answer::Status(status) = ask(home, &[], Call::Status(Status { mechanisms: false, seen: Vec::new() }))
    else {
        panic!("wanted a status")
    };
    let old = status.manifest.clone().unwrap();
    let member = |partition: &Arc<Partition>| ManifestMember {
        serial: partition.serial(),
        role: MemberRole::Active as i32,
        weight: 100,
    };
    let manifest = Manifest {
        serial: GROUP_SERIAL,
        label: "lab".to_owned(),
        members: partitions.iter().map(member).collect(),
        ..old.clone()
    };
    let change = ChangeManifest { expected_epoch: old.epoch, manifest: Some(manifest), tag: vec![2; 16] };
    let Answer::ChangeManifest(changed) = ask(home, &officer, Call::ChangeManifest(change)) else {
        panic!("wanted a manifest")
    };
    let export = Export { credentials: true, ..Export::default() };
    let Answer::Export(exported) = ask(home, &officer, Call::Export(export)) else {
        panic!("wanted credentials")
    };
    for joiner in &partitions[1..] {
        let adopt = Adopt {
            group: old.group.clone(),
            generation: old.generation,
            manifest: changed.sealed.clone(),
            credentials: exported.credentials.clone(),
        };
        ask(joiner, &ticket(joiner), Call::Adopt(adopt));
    }
}
