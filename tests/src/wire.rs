//! A raw wire client: speaks to an appliance without the library, so that every refusal of the partition itself can
//! be tried.
#![allow(clippy::unwrap_used, reason = "a test's client stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use client::conf::configuration::Configuration;
use client::conf::location;
use ntls::ServerAddress;
use ntls::certificate::Identity;
use ntls::exchange::{ExchangeError, Session, Target};
use ntls::frame::Frame;
use ntls::instance::InstanceKey;
use ntls::tls::ServerTrust;
use prost::Message as _;
use spec::messages::{
    Answer, Call, GetAttributes, KeyFunction, Login, Make, MakeAnswer, MakeKind, MechanismMessage, ObjectRef,
    Outcome, ReplyBody, RequestBody, RequestHeader, Status, StatusAnswer, Store, Use,
};
use spec::record::Manifest;
use spec::value::{Attribute, Template};
use spec::{AttributeType, KeyType, MechanismType, ObjectClass};

use crate::lab::Lab;
use crate::p11::P256_PARAMS;

/// What a laboratory's client has on its disk.
pub struct Client {
    /// The configuration.
    pub configuration: Configuration,
    /// Its certificate and key.
    pub identity: Identity,
    /// The servers it trusts.
    pub trust: Arc<ServerTrust>,
    /// Its application instance.
    pub instance: InstanceKey,
}

impl Client {
    /// The client that the laboratory registered.
    ///
    /// # Panics
    /// When its files cannot be read.
    pub fn of(lab: &Lab) -> Self {
        let folder = std::path::PathBuf::from(lab.value("ChrystokiConfigurationPath"));
        let configuration = location::load_from(&folder).unwrap().unwrap();
        let identity = Identity::load(
            configuration.client_certificate.as_ref().unwrap(),
            configuration.client_private_key.as_ref().unwrap(),
        )
        .unwrap();
        let trust = Arc::new(ServerTrust::load(&configuration.server_ca).unwrap());
        Self { configuration, identity, trust, instance: InstanceKey::generate() }
    }

    /// Connects to the first appliance.
    ///
    /// # Errors
    /// Those of the exchange.
    pub fn connect(&self) -> Result<Session, ExchangeError> {
        self.connect_to(0)
    }

    /// Connects to an appliance of the configuration, from 0.
    ///
    /// # Errors
    /// Those of the exchange.
    pub fn connect_to(&self, server: usize) -> Result<Session, ExchangeError> {
        let server = &self.configuration.servers[server];
        Session::open(&Target {
            server: ServerAddress { host: server.name.clone(), port: server.port },
            identity: &self.identity,
            trust: &self.trust,
            instance: &self.instance,
            software: "raw wire client",
            timeout_ms: 10_000,
        })
    }
}

/// A connection to one partition, with what later calls need.
pub struct Wire {
    /// The connection.
    pub session: Session,
    /// The partition.
    pub serial: u64,
    /// A Crypto Officer's ticket; empty before `login`.
    pub ticket: Vec<u8>,
}

impl Wire {
    /// Connects to the laboratory's first appliance and learns the group of its partition.
    ///
    /// # Panics
    /// When that fails.
    pub fn open(client: &Client) -> Self {
        Self::open_at(client, 0)
    }

    /// As [`open`](Self::open), at the appliance of this place in the configuration, from 0.
    ///
    /// # Panics
    /// When that fails.
    pub fn open_at(client: &Client, server: usize) -> Self {
        let mut session = client.connect_to(server).unwrap();
        let serial = session.hello().partitions[0].serial;
        let reply =
            session.call(serial, Call::Status(Status { mechanisms: false, seen: Vec::new() }), &[]).unwrap();
        let Some(Answer::Status(status)) = &reply.answer else { panic!("wanted a status: {}", reply.text) };
        let manifest = status.manifest.clone().unwrap();
        session.in_group(&manifest.group, manifest.generation);
        Self { session, serial, ticket: Vec::new() }
    }

    /// Sends a call with the ticket.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn call(&mut self, call: Call) -> ReplyBody {
        let ticket = self.ticket.clone();
        self.session.call(self.serial, call, &ticket).unwrap()
    }

    /// Sends an encoded body as it is.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn raw(&mut self, body: &[u8]) -> ReplyBody {
        self.session.call_bytes(self.serial, body).unwrap()
    }

    /// The encoded body of a call in this group, with the ticket.
    ///
    /// # Panics
    /// When the manifest is not told.
    pub fn body(&mut self, call: Call) -> Vec<u8> {
        let Manifest { group, generation, .. } = self.manifest();
        RequestBody { group, generation, ticket: self.ticket.clone(), call: Some(call) }.encode_to_vec()
    }

    /// Sends a call under a header of one's own; its tag and partition are filled in.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn call_under(&mut self, header: RequestHeader, call: Call) -> ReplyBody {
        // Far from the tags that the session counts up.
        let tag = u64::MAX - 7;
        let header = RequestHeader { tag, partition: self.serial, remaining_ms: 10_000, ..header };
        let body = self.body(call);
        self.session.send(&Frame::Request(header, body.into())).unwrap();
        loop {
            match self.session.receive().unwrap() {
                Frame::Reply(header, body) if header.tag == tag => {
                    return ReplyBody::decode(body.as_slice()).unwrap();
                }
                Frame::Close(reason) => panic!("the appliance closed the link: {reason}"),
                _ => {}
            }
        }
    }

    /// The partition's standing.
    ///
    /// # Panics
    /// When it is not told.
    pub fn status(&mut self) -> StatusAnswer {
        let reply = self.call(Call::Status(Status { mechanisms: false, seen: Vec::new() }));
        match &reply.answer {
            Some(Answer::Status(status)) => status.clone(),
            _ => panic!("wanted a status: {}", reply.text),
        }
    }

    /// The manifest.
    ///
    /// # Panics
    /// When it is not told.
    pub fn manifest(&mut self) -> Manifest {
        self.status().manifest.unwrap()
    }

    /// Logs in as Crypto Officer.
    ///
    /// # Panics
    /// When the PIN is refused.
    pub fn login(&mut self, pin: &str) {
        self.login_as(1, pin);
    }

    /// Logs in as a user of the standard (`CKU_*`).
    ///
    /// # Panics
    /// When the PIN is refused.
    pub fn login_as(&mut self, user: u64, pin: &str) {
        let login = Login { user, pin: pin.as_bytes().to_vec(), tag: tag() };
        let reply = self.call(Call::Login(login));
        let Some(Answer::Login(answer)) = reply.answer.as_ref() else {
            panic!("login was refused: {}", reply.text)
        };
        self.ticket = answer.ticket.clone();
    }

    /// Makes and stores a P-256 pair; answers the references of public and private key.
    ///
    /// # Panics
    /// When it is refused.
    pub fn pair(&mut self, extra: Vec<Attribute>) -> (ObjectRef, ObjectRef) {
        let token = || Attribute::bool(AttributeType::TOKEN, true);
        let public = vec![
            token(),
            Attribute::new(AttributeType::EC_PARAMS, P256_PARAMS),
            Attribute::bool(AttributeType::VERIFY, true),
        ];
        let mut private = vec![
            token(),
            Attribute::bool(AttributeType::SIGN, true),
            Attribute::bool(AttributeType::SENSITIVE, true),
        ];
        // What the caller says of an attribute stands in the place of what is usual.
        private.retain(|usual| extra.iter().all(|attribute| attribute.kind() != usual.kind()));
        private.extend(extra);
        let make = Make {
            kind: MakeKind::GENERATE_PAIR.0,
            mechanism: Some(plain(MechanismType::EC_KEY_PAIR_GEN)),
            templates: vec![public.into(), private.into()],
            source: None,
            tag: tag(),
        };
        let made = self.stored(make);
        (made[0].clone(), made[1].clone())
    }

    /// Makes and stores; answers a reference of each output, with its blob when it is a session object.
    ///
    /// # Panics
    /// When it is refused.
    pub fn stored(&mut self, make: Make) -> Vec<ObjectRef> {
        let tag = make.tag.clone();
        let made = self.make(make);
        if !made.batch.is_empty() {
            let reply = self.call(Call::Store(Store { batch: made.batch.clone(), tag, provisional: false }));
            assert_eq!(Outcome(reply.outcome), Outcome::OK, "{}", reply.text);
        }
        made.outputs.iter().map(|made| with_blob(&made.ouid, &made.blob)).collect()
    }

    /// Makes.
    ///
    /// # Panics
    /// When it is refused.
    pub fn make(&mut self, make: Make) -> MakeAnswer {
        let reply = self.call(Call::Make(make));
        match &reply.answer {
            Some(Answer::Make(made)) => made.clone(),
            _ => panic!("make was refused: outcome {} rv {:#x} {}", reply.outcome, reply.rv, reply.text),
        }
    }

    /// A signature request.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn sign(&mut self, mechanism: MechanismType, key: &ObjectRef, how: u32, data: &[u8]) -> ReplyBody {
        self.call(Call::Use(use_key(KeyFunction::SIGN, mechanism, key, how, data)))
    }

    /// Reads attributes.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn attributes(&mut self, object: &ObjectRef, kinds: &[AttributeType]) -> ReplyBody {
        let numbers = kinds.iter().map(|kind| kind.0).collect();
        self.call(Call::GetAttributes(GetAttributes { object: Some(object.clone()), numbers }))
    }
}

/// A use of a key under no plan.
pub fn use_key(
    function: KeyFunction,
    mechanism: MechanismType,
    key: &ObjectRef,
    how: u32,
    data: &[u8],
) -> Use {
    let mut request = Use::default();
    request.function = function.0;
    request.mechanism = Some(plain(mechanism));
    request.key = Some(key.clone());
    request.how = how;
    request.data = data.to_vec();
    request
}

/// A mechanism without parameters.
pub fn plain(mechanism: MechanismType) -> MechanismMessage {
    MechanismMessage { number: mechanism.0, ..Default::default() }
}

/// A reference to a token object.
pub fn token_ref(ouid: &[u8]) -> ObjectRef {
    ObjectRef { ouid: ouid.to_vec(), ..Default::default() }
}

/// A reference to an object by its blob; to a token object when there is none.
pub fn with_blob(ouid: &[u8], blob: &[u8]) -> ObjectRef {
    let blob_hash = match blob {
        [] => Vec::new(),
        blob => digests::digest(digests::Hash::Sha256, blob).to_vec(),
    };
    ObjectRef { ouid: ouid.to_vec(), blob_hash, blob: blob.to_vec(), ..ObjectRef::default() }
}

/// Sixteen bytes that no other call of this process has had.
pub fn tag() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes().to_vec()
}

/// Makes an object of this template.
pub fn create(template: Vec<Attribute>) -> Make {
    Make {
        kind: MakeKind::CREATE.0,
        mechanism: None,
        templates: vec![template.into()],
        source: None,
        tag: tag(),
    }
}

/// Generates a key.
pub fn generate(mechanism: MechanismType, template: Vec<Attribute>) -> Make {
    Make {
        kind: MakeKind::GENERATE.0,
        mechanism: Some(plain(mechanism)),
        templates: vec![template.into()],
        source: None,
        tag: tag(),
    }
}

/// The template of an AES key made from outside.
pub fn aes_template(token: bool, value: &[u8]) -> Template {
    Template::from(vec![
        Attribute::ulong(AttributeType::CLASS, ObjectClass::SECRET_KEY.0),
        Attribute::ulong(AttributeType::KEY_TYPE, KeyType::AES.0),
        Attribute::bool(AttributeType::TOKEN, token),
        Attribute::bool(AttributeType::ENCRYPT, true),
        Attribute::new(AttributeType::VALUE, value.to_vec()),
    ])
}
