//! A stand-in for appliances: one partition each, with the rules of HA 2.6 and RULES 3.2, 3.3 that the verbs rely on.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use client::conf::{Configuration, Serial, Server};
use ntls::certificate::{Wanted, self_signed};
use ntls::platform::System;
use prost::Message as _;
use spec::messages::*;
use spec::numbers::Rv;
use spec::platform::Moment;
use spec::record::{Manifest, ManifestMember};
use spec::seam::{Event, Fault, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use crate::arguments::{AddMember, NewGroup, Secret};
use crate::census::{Appliance, Network, Opened};
use crate::members::active;
use crate::place::Place;
use crate::verbs::{add_member, new_group};

/// Serial of the partition on `hsm0`; the others follow.
pub(crate) const FIRST: Serial = Serial(1_000_000_000_000);

/// The wall clock of the stand-in, milliseconds since 1970.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// A password given by option.
pub(crate) fn secret(pin: &str) -> Secret {
    Secret { password: Some(Zeroizing::new(pin.to_owned())) }
}

fn text(servers: usize, rest: &str) -> String {
    let names: String = (0..servers).map(|at| format!("   ServerName{at:02} = hsm{at};\n")).collect();
    format!("# kept\nLunaSA Client = {{\n{names}}}\n{rest}")
}

/// A configuration of so many servers and more sections.
pub(crate) fn configuration(servers: usize, rest: &str) -> Configuration {
    Configuration::from_bytes(text(servers, rest).as_bytes(), Path::new("/conf/Chrystoki.conf")).unwrap()
}

/// A folder with a configuration of so many servers.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new(servers: usize) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::write(folder.place().file(), text(servers, "")).unwrap();
        folder
    }

    pub(crate) fn place(&self) -> Place {
        Place::new(Some(self.0.path().to_path_buf())).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.place().file()).unwrap()
    }

    pub(crate) fn configuration(&self) -> Configuration {
        self.place().configuration().unwrap()
    }

    /// What tells the file from one that replaces it.
    pub(crate) fn inode(&self) -> u64 {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(self.place().file()).unwrap())
    }

    /// Adds sections to the file.
    pub(crate) fn append(&self, text: &str) {
        fs::write(self.place().file(), self.text() + text).unwrap();
    }

    /// A new self-signed certificate of this name, in a file.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        let wanted = Wanted { name, hosts: &[], now_ms: NOW_MS, days: 100 };
        let path = self.place().join(&format!("{name}.pem"));
        fs::write(&path, self_signed(&wanted).unwrap().certificate_pem).unwrap();
        path
    }

    /// The names of the trusted certificates.
    pub(crate) fn trusted(&self) -> Vec<String> {
        let all = crate::pem::blocks_of(&self.configuration().server_ca).unwrap();
        all.iter().map(|block| block.certificate.name().to_owned()).collect()
    }
}

#[derive(Clone)]
struct Partition {
    manifest: Manifest,
    records: BTreeMap<Vec<u8>, u8>,
    pin: String,
    tries: u32,
    refuses_adoption: bool,
    mechanisms: Vec<u64>,
    seq: u64,
    certificate_ends_ms: u64,
}

#[derive(Default)]
struct Inner {
    partitions: BTreeMap<u64, Partition>,
    stopped: BTreeSet<String>,
    unassigned: BTreeSet<u64>,
    tags: u8,
    repair_fails: bool,
}

/// Appliances `hsm0`, `hsm1`, …
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<Inner>>);

impl World {
    pub(crate) fn new(servers: u64, pin: &str) -> World {
        let world = World::default();
        for at in 0..servers {
            let serial = Serial(FIRST.0 + at);
            let manifest = Manifest {
                group: vec![at as u8 + 1; 16],
                epoch: 1,
                generation: 1,
                members: vec![active(serial)],
                home: serial.0,
                ..Manifest::default()
            };
            let records = BTreeMap::new();
            let partition = Partition {
                manifest,
                records,
                pin: pin.to_owned(),
                tries: 0,
                refuses_adoption: false,
                mechanisms: Vec::new(),
                seq: 1,
                certificate_ends_ms: 0,
            };
            world.0.lock().unwrap().partitions.insert(serial.0, partition);
        }
        world
    }

    pub(crate) fn stop(&self, server: &str) {
        self.0.lock().unwrap().stopped.insert(server.to_owned());
    }

    /// The client may use the partition no more.
    pub(crate) fn assign_nothing(&self, serial: Serial) {
        self.0.lock().unwrap().unassigned.insert(serial.0);
    }

    pub(crate) fn start(&self, server: &str) {
        self.0.lock().unwrap().stopped.remove(server);
    }

    pub(crate) fn manifest(&self, serial: Serial) -> Manifest {
        self.0.lock().unwrap().partitions[&serial.0].manifest.clone()
    }

    pub(crate) fn tries(&self, serial: Serial) -> u32 {
        self.0.lock().unwrap().partitions[&serial.0].tries
    }

    pub(crate) fn objects(&self, serial: Serial) -> usize {
        self.0.lock().unwrap().partitions[&serial.0].records.len()
    }

    pub(crate) fn offer(&self, serial: Serial, mechanisms: &[u64]) {
        let offered = mechanisms.to_vec();
        self.0.lock().unwrap().partitions.get_mut(&serial.0).unwrap().mechanisms = offered;
    }

    pub(crate) fn refuse_adoption(&self, serial: Serial, refuses: bool) {
        self.0.lock().unwrap().partitions.get_mut(&serial.0).unwrap().refuses_adoption = refuses;
    }

    /// When the certificate of the server of a partition ends, milliseconds since 1970.
    pub(crate) fn set_certificate_end(&self, serial: Serial, ends_ms: u64) {
        self.0.lock().unwrap().partitions.get_mut(&serial.0).unwrap().certificate_ends_ms = ends_ms;
    }

    pub(crate) fn fail_repair(&self) {
        self.0.lock().unwrap().repair_fails = true;
    }

    pub(crate) fn set_pin(&self, serial: Serial, pin: &str) {
        pin.clone_into(&mut self.0.lock().unwrap().partitions.get_mut(&serial.0).unwrap().pin);
    }

    /// Puts an object into one partition.
    pub(crate) fn put(&self, serial: Serial, name: u8) {
        let ouid = vec![name.wrapping_mul(37); 16];
        self.0.lock().unwrap().partitions.get_mut(&serial.0).unwrap().records.insert(ouid, name);
    }

    /// Names the group of a partition as another client would have.
    pub(crate) fn set_group(&self, serial: Serial, label: &str, members: &[Serial]) {
        let mut inner = self.0.lock().unwrap();
        let manifest = &mut inner.partitions.get_mut(&serial.0).unwrap().manifest;
        label.clone_into(&mut manifest.label);
        manifest.serial = Serial::of_group(members[0]).unwrap().0;
        manifest.home = members[0].0;
        manifest.members = members.iter().copied().map(active).collect();
        manifest.epoch += 1;
    }
}

impl Network for World {
    fn open(&self, server: &Server) -> Result<Box<dyn Appliance>, String> {
        let at: u64 = server.name.strip_prefix("hsm").unwrap().parse().unwrap();
        if self.0.lock().unwrap().stopped.contains(&server.name) {
            return Err("connection refused".to_owned());
        }
        Ok(Box::new(Link { world: self.clone(), serial: FIRST.0 + at }))
    }

    fn tag(&self) -> Vec<u8> {
        let mut inner = self.0.lock().unwrap();
        inner.tags += 1;
        vec![inner.tags; 16]
    }

    fn now_ms(&self) -> u64 {
        NOW_MS
    }

    fn links(&self, _: &Configuration) -> Result<Opened, String> {
        if self.0.lock().unwrap().repair_fails {
            return Err("no repair today".to_owned());
        }
        let seam = Arc::new(Links { world: self.clone(), tags: AtomicU64::new(1) });
        Ok(Opened { platform: System::shared(), seam, close: Box::new(|| {}) })
    }
}

/// The appliances behind the seam, for the code of `ha`: every request is answered at once.
struct Links {
    world: World,
    tags: AtomicU64,
}

impl Seam for Links {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, _: Moment) -> Tag {
        let tag = Tag(self.tags.fetch_add(1, Ordering::Relaxed));
        let body = RequestBody::decode(request.body.as_slice()).unwrap();
        let event = match self.standing(member) {
            Standing::Down { .. } => Event::Fault(tag, Fault::NotSent),
            Standing::Up { .. } => {
                let (header, reply) = self.world.answer(member.0, &body.ticket, body.call.clone().unwrap());
                Event::Reply(tag, Reply { header, body: Zeroizing::new(reply.encode_to_vec()) })
            }
        };
        waiter.deliver(event);
        tag
    }

    fn cancel(&self, _: MemberId, _: Tag) {}

    fn standing(&self, member: MemberId) -> Standing {
        let inner = self.world.0.lock().unwrap();
        let server = format!("hsm{}", member.0.wrapping_sub(FIRST.0));
        if inner.stopped.contains(&server) || !inner.partitions.contains_key(&member.0) {
            return Standing::Down { reason: format!("{server}: connection refused") };
        }
        Standing::Up { since: Moment(1), heard: System::shared().now() }
    }

    fn abandon(&self, _: MemberId, _: &str) {}

    fn subscribe(&self, _: &Arc<Waiter>) {}
}

struct Link {
    world: World,
    serial: u64,
}

impl Appliance for Link {
    fn partitions(&self) -> Vec<PartitionName> {
        if self.world.0.lock().unwrap().unassigned.contains(&self.serial) {
            return Vec::new();
        }
        vec![PartitionName { serial: self.serial, label: format!("p{}", self.serial - FIRST.0) }]
    }

    fn call(
        &mut self,
        partition: Serial,
        ticket: &[u8],
        call: Call,
    ) -> Result<(ReplyHeader, ReplyBody), String> {
        assert_eq!(partition.0, self.serial, "a call for a partition of another appliance");
        Ok(self.world.answer(self.serial, ticket, call))
    }
}

impl World {
    fn answer(&self, serial: u64, ticket: &[u8], call: Call) -> (ReplyHeader, ReplyBody) {
        let mut inner = self.0.lock().unwrap();
        let partition = inner.partitions.get_mut(&serial).unwrap();
        let result = partition.answer(serial, ticket, call);
        let header = ReplyHeader {
            incarnation: serial,
            seq: partition.seq,
            credential_epoch: 1,
            manifest_epoch: partition.manifest.epoch,
            window: 64,
            ..ReplyHeader::default()
        };
        let reply = match result {
            Ok(answer) => ReplyBody { answer: Some(answer), ..ReplyBody::default() },
            Err((outcome, rv)) => ReplyBody { outcome: outcome.0, rv: rv.0, ..ReplyBody::default() },
        };
        (header, reply)
    }
}

type Refusal = (Outcome, Rv);

impl Partition {
    fn answer(&mut self, serial: u64, ticket: &[u8], call: Call) -> Result<Answer, Refusal> {
        let role = |this: &Partition| {
            if ticket == this.manifest.group { Ok(()) } else { Err((Outcome::RV, Rv::USER_NOT_LOGGED_IN)) }
        };
        match call {
            Call::Status(_) => Ok(Answer::Status(self.status(serial))),
            Call::Login(login) if login.pin == self.pin.as_bytes() => {
                Ok(Answer::Login(LoginAnswer { ticket: self.manifest.group.clone() }))
            }
            Call::Login(_) => {
                self.tries += 1;
                Err((Outcome::RV, Rv::PIN_INCORRECT))
            }
            Call::ChangeManifest(change) => {
                role(self)?;
                self.change_manifest(serial, change)
            }
            Call::Export(export) => {
                role(self)?;
                Ok(Answer::Export(self.export(&export)))
            }
            Call::Adopt(adopt) => {
                role(self)?;
                self.adopt(serial, &adopt)
            }
            Call::Join(join) => {
                role(self)?;
                Ok(Answer::Join(self.join(join)))
            }
            Call::Compare(compare) => Ok(Answer::Compare(self.compare(&compare))),
            Call::Lease(_) => {
                role(self)?;
                Ok(Answer::Lease(LeaseAnswer { granted: true, left_ms: 1_000 }))
            }
            _ => Err((Outcome::MALFORMED, Rv(0))),
        }
    }

    fn compare(&self, compare: &Compare) -> CompareAnswer {
        let bucket = |ouid: &[u8]| u32::from(u16::from_be_bytes([ouid[0], ouid[1]]) >> 4);
        let mut buckets = vec![0; 4096 * 32];
        for (ouid, name) in &self.records {
            buckets[bucket(ouid) as usize * 32 + usize::from(*name) % 32] ^= *name;
        }
        let wanted = self.records.iter().filter(|(ouid, _)| compare.buckets.contains(&bucket(ouid)));
        let digest =
            |(ouid, name): (&Vec<u8>, &u8)| RecordDigest { ouid: ouid.clone(), digest: vec![*name; 32] };
        CompareAnswer {
            root: self.root(),
            records: wanted.map(digest).collect(),
            buckets: if compare.buckets.is_empty() { buckets } else { Vec::new() },
        }
    }

    fn root(&self) -> Vec<u8> {
        let mut root = vec![0; 32];
        self.records.values().for_each(|name| root[usize::from(*name) % 32] ^= *name);
        root
    }

    fn status(&self, serial: u64) -> StatusAnswer {
        let facts = |number| MechanismFacts { number, ..MechanismFacts::default() };
        StatusAnswer {
            label: format!("p{}", serial - FIRST.0),
            serial,
            manifest: Some(self.manifest.clone()),
            root: self.root(),
            objects: self.records.len() as u64,
            mechanisms: self.mechanisms.iter().map(|number| facts(*number)).collect(),
            server_certificate_ends_ms: self.certificate_ends_ms,
            ..StatusAnswer::default()
        }
    }

    fn change_manifest(&mut self, serial: u64, change: ChangeManifest) -> Result<Answer, Refusal> {
        let home = change.manifest.as_ref().unwrap().home;
        if self.manifest.home != serial && home != serial {
            return Err((Outcome::NOT_HOME, Rv(0)));
        }
        if self.manifest.epoch != change.expected_epoch {
            return Err((Outcome::EPOCH_CHANGED, Rv(0)));
        }
        self.manifest = Manifest { epoch: change.expected_epoch + 1, ..change.manifest.unwrap() };
        self.seq += 1;
        let sealed = sealed(&self.manifest);
        Ok(Answer::ChangeManifest(ChangeManifestAnswer { manifest: Some(self.manifest.clone()), sealed }))
    }

    fn export(&self, export: &Export) -> ExportAnswer {
        let record = |ouid: &Vec<u8>| SealedRecord {
            ouid: ouid.clone(),
            maker: 0,
            envelope: vec![self.records[ouid]],
        };
        ExportAnswer {
            records: export
                .ouids
                .iter()
                .filter(|ouid| self.records.contains_key(*ouid))
                .map(record)
                .collect(),
            credentials: if export.credentials { self.pin.clone().into_bytes() } else { Vec::new() },
            manifest: if export.manifest { sealed(&self.manifest) } else { Vec::new() },
        }
    }

    fn adopt(&mut self, serial: u64, adopt: &Adopt) -> Result<Answer, Refusal> {
        let manifest = unsealed(&adopt.manifest);
        if self.refuses_adoption || !manifest.members.iter().any(|member| member.serial == serial) {
            return Err((Outcome::NOT_OPENED, Rv(0)));
        }
        assert!(
            self.records.is_empty()
                && adopt.group == manifest.group
                && adopt.generation == manifest.generation
        );
        self.pin = String::from_utf8(adopt.credentials.clone()).unwrap();
        self.manifest = manifest;
        self.seq += 1;
        Ok(Answer::Adopt(Done {}))
    }

    fn join(&mut self, join: Join) -> JoinAnswer {
        for record in join.records {
            self.records.insert(record.ouid, record.envelope[0]);
        }
        if !join.manifest.is_empty() && unsealed(&join.manifest).epoch > self.manifest.epoch {
            self.manifest = unsealed(&join.manifest);
        }
        self.seq += 1;
        JoinAnswer::default()
    }
}

/// "Sealed": the fields that the verbs may not look at, as text.
fn sealed(manifest: &Manifest) -> Vec<u8> {
    let word = |member: &ManifestMember| format!("{}:{}:{}", member.serial, member.role, member.weight);
    let members: Vec<String> = manifest.members.iter().map(word).collect();
    let group = manifest.group[0];
    let text = format!(
        "{group}|{}|{}|{}|{}|{}|{}",
        manifest.serial,
        manifest.label,
        manifest.epoch,
        manifest.generation,
        manifest.home,
        members.join(",")
    );
    text.into_bytes()
}

fn unsealed(sealed: &[u8]) -> Manifest {
    let member = |text: &str| {
        let numbers: Vec<u64> = text.split(':').map(|number| number.parse().unwrap()).collect();
        ManifestMember { serial: numbers[0], role: numbers[1] as i32, weight: numbers[2] as u32 }
    };
    let text = std::str::from_utf8(sealed).unwrap();
    let parts: Vec<&str> = text.split('|').collect();
    Manifest {
        group: vec![parts[0].parse().unwrap(); 16],
        serial: parts[1].parse().unwrap(),
        label: parts[2].to_owned(),
        epoch: parts[3].parse().unwrap(),
        generation: parts[4].parse().unwrap(),
        home: parts[5].parse().unwrap(),
        members: parts[6].split(',').map(member).collect(),
        tag: Vec::new(),
        credential_epoch: 0,
    }
}

/// The members of [`three`].
pub(crate) const THREE: [Serial; 3] = [FIRST, Serial(FIRST.0 + 1), Serial(FIRST.0 + 2)];

/// The group `prodha` of three members, the first one home, in a configuration.
pub(crate) fn three() -> (Folder, World) {
    new_group_of(3, &THREE[1..])
}

/// The group `prodha` of the first of so many partitions and of these.
pub(crate) fn new_group_of(partitions: u64, more: &[Serial]) -> (Folder, World) {
    let (folder, world) = (Folder::new(partitions as usize), World::new(partitions, "pin"));
    let new = NewGroup { serial: FIRST, label: "prodha".to_owned(), secret: secret("pin") };
    new_group::run(&folder.place(), &world, &folder.configuration(), new).unwrap();
    for serial in more {
        let add = AddMember { group: "prodha".to_owned(), serial: *serial, secret: secret("pin") };
        add_member::run(&folder.place(), &world, &folder.configuration(), add).unwrap();
    }
    (folder, world)
}
