//! A group of partitions over stores in memory, behind the seam of HA 4.1.
use std::path::Path;
use std::sync::Arc;

use client::conf::Configuration;
use hatoki::Surroundings;
use ntls::platform::System;
use partition::in_process::InProcess;
use partition::store::MemoryStore;
use partition::{Caller, DomainSecret, Partition, Settings, SystemRandom};
use prost::Message;
use spec::UserType;
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Export, Login, Outcome, ReplyBody, RequestBody, RequestHeader,
    Status,
};
use spec::platform::Platform;
use spec::record::{Manifest, ManifestMember, MemberRole};
use spec::seam::MemberId;
use zeroize::Zeroizing;

/// The token's label.
pub const LABEL: &str = "inside";
/// The Crypto Officer's PIN.
pub const PIN: &str = "user PIN 1234";
/// The security officer's PIN.
pub const SO_PIN: &str = "officer PIN 1234";
const SERIAL: u64 = 11_001;
const CALLER: Caller = Caller { client: [7; 32], instance: [8; 32] };

/// Partitions that are one group.
pub struct Group {
    /// What carries requests to them, with its controls.
    pub seam: Arc<InProcess>,
    /// The members, the home first.
    pub members: Vec<MemberId>,
    platform: Arc<dyn Platform>,
}

impl Group {
    /// So many partitions, made one group as `vtl haAdmin newGroup` and `addMember` do (RULES 3.3).
    ///
    /// # Panics
    /// When the partitions refuse it.
    pub fn new(members: u64) -> Self {
        let platform: Arc<dyn Platform> = Arc::new(System);
        let now_ms = platform.wall_ms();
        let create = |number: u64| {
            let partition = Partition::create(
                Arc::new(MemoryStore::new()),
                DomainSecret::new(Zeroizing::new([9; 32])),
                1_000 + number,
                &format!("member{number}"),
                SO_PIN.as_bytes(),
                PIN.as_bytes(),
                Settings::for_tests(),
                now_ms,
                &SystemRandom,
            );
            Arc::new(partition.expect("an empty store takes a partition"))
        };
        let partitions: Vec<Arc<Partition>> = (1..=members).map(create).collect();
        found(&partitions, now_ms);
        let members: Vec<MemberId> =
            partitions.iter().map(|partition| MemberId(partition.serial())).collect();
        let pairs = members.iter().copied().zip(partitions).collect();
        let seam = InProcess::new(platform.clone(), CALLER, pairs);
        Self { seam, platform, members }
    }

    /// What a `C_Initialize` works over: the same partitions each time.
    ///
    /// # Panics
    /// Never: its own configuration can be read.
    pub fn surroundings(&self) -> Surroundings {
        let serials: Vec<String> = self.members.iter().map(|member| member.0.to_string()).collect();
        let text = format!(
            "VirtualToken = {{ VirtualToken00Label = {LABEL}; VirtualToken00SN = {SERIAL}; \
             VirtualToken00Members = {}; }}\nHAConfiguration = {{ HAOnly = 1; }}\n\
             Hatoki = {{ LogLevel = off; }}\n",
            serials.join(",")
        );
        let configuration = Configuration::from_bytes(text.as_bytes(), Path::new("/inside/Chrystoki.conf"))
            .expect("the text is a configuration");
        Surroundings { seam: self.seam.clone(), platform: self.platform.clone(), configuration }
    }
}

/// Asks a partition for what it must answer.
fn ask(partition: &Partition, ticket: &[u8], call: Call, now_ms: u64) -> Answer {
    let body = RequestBody { group: Vec::new(), generation: 0, ticket: ticket.to_vec(), call: Some(call) };
    let header = RequestHeader { partition: partition.serial(), ..RequestHeader::default() };
    let (_, reply) = partition.handle(&CALLER, &header, &body.encode_to_vec(), now_ms);
    let mut reply = ReplyBody::decode(reply.as_slice()).expect("a partition's reply can be read");
    assert_eq!(Outcome(reply.outcome), Outcome::OK, "{}", reply.text);
    reply.answer.take().expect("what went well has an answer")
}

fn ticket(partition: &Partition, now_ms: u64) -> Vec<u8> {
    let login = Login { user: UserType::USER.0, pin: PIN.as_bytes().to_vec(), tag: vec![1; 16] };
    match ask(partition, &[], Call::Login(login), now_ms) {
        Answer::Login(answer) => answer.ticket,
        _ => panic!("wanted a ticket"),
    }
}

/// Makes one group of the partitions.
fn found(partitions: &[Arc<Partition>], now_ms: u64) {
    let home = &partitions[0];
    let officer = ticket(home, now_ms);
    let Answer::Status(status) =
        ask(home, &[], Call::Status(Status { mechanisms: false, seen: Vec::new() }), now_ms)
    else {
        panic!("wanted a status")
    };
    let old = status.manifest.clone().expect("every partition has a manifest");
    let member = |partition: &Arc<Partition>| ManifestMember {
        serial: partition.serial(),
        role: MemberRole::Active as i32,
        weight: 100,
    };
    let manifest = Manifest {
        serial: SERIAL,
        label: LABEL.to_owned(),
        members: partitions.iter().map(member).collect(),
        ..old.clone()
    };
    let change = ChangeManifest { expected_epoch: old.epoch, manifest: Some(manifest), tag: vec![2; 16] };
    let Answer::ChangeManifest(changed) = ask(home, &officer, Call::ChangeManifest(change), now_ms) else {
        panic!("wanted a manifest")
    };
    let export = Export { credentials: true, ..Export::default() };
    let Answer::Export(exported) = ask(home, &officer, Call::Export(export), now_ms) else {
        panic!("wanted credentials")
    };
    for joiner in &partitions[1..] {
        let adopt = Adopt {
            group: old.group.clone(),
            generation: old.generation,
            manifest: changed.sealed.clone(),
            credentials: exported.credentials.clone(),
        };
        ask(joiner, &ticket(joiner, now_ms), Call::Adopt(adopt), now_ms);
    }
}
