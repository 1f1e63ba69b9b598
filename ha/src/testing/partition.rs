//! A partition in a few lines: objects that only move down the lattice, a PIN, a manifest.
use std::collections::{BTreeMap, BTreeSet};

use spec::messages::{
    Answer, Call, ChangeManifest, ChangeManifestAnswer, CompareAnswer, Done, ExportAnswer, Find, FindAnswer,
    Found, GetAttributesAnswer, JoinAnswer, LeaseAnswer, LoginAnswer, MadeObject, MakeAnswer, MechanismFacts,
    MechanismMessage, ObjectRef, Outcome, PlanAnswer, RandomAnswer, RecordDigest, ReplyBody, ReplyHeader,
    RequestBody, RequestHeader, SealedRecord, SetAttributesAnswer, SetPinAnswer, StatusAnswer, UseAnswer,
};
use spec::record::{Manifest, ManifestMember, State};
use spec::{AttributeType, Ouid, Rv, Stamp};

use super::{SERIAL, TICKET};

/// One object: its state, and one changeable attribute with its stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Thing {
    pub(crate) state: State,
    pub(crate) version: u64,
}

impl Thing {
    fn join(self, other: Thing) -> Thing {
        Thing { state: self.state.max(other.state), version: self.version.max(other.version) }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.state as u8];
        let version = if self.state == State::Deleted { 0 } else { self.version };
        bytes.extend(version.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Thing {
        let state = [State::Provisional, State::Committed, State::Deleted][usize::from(bytes[0])];
        Thing { state, version: u64::from_le_bytes(bytes[1..9].try_into().unwrap()) }
    }
}

/// The partition.
#[derive(Clone)]
pub(crate) struct Model {
    serial: u64,
    pub(crate) things: BTreeMap<Ouid, Thing>,
    pub(crate) manifest: Manifest,
    pub(crate) recovering: bool,
    pub(crate) pin: Vec<u8>,
    pub(crate) credential_epoch: u64,
    /// Wrong PINs, by tag: the same tag resent spends no second try.
    pub(crate) tries: BTreeSet<Vec<u8>>,
    pub(crate) change_tags: BTreeSet<Vec<u8>>,
    pub(crate) incarnation: u64,
    /// It gives out records that it was not asked for.
    pub(crate) exports_strangers: bool,
    /// The mechanisms that it lists and carries out; empty for all.
    pub(crate) mechanisms: Vec<u64>,
    /// Who holds its repair lease.
    pub(crate) lease: Vec<u8>,
    /// How often it was asked for the lease; a lease of a living holder has another time left each time.
    pub(crate) lease_asked: u32,
    pub(crate) clock_stands_still: bool,
    /// The window that it grants; 0 for none.
    pub(crate) window: u32,
    /// It answers Status with another digest: a clone that has gone its own way.
    pub(crate) other_root: bool,
    seq: u64,
    made: u8,
}

impl Model {
    pub(crate) fn new(serial: u64, members: u64) -> Self {
        let member = |serial| ManifestMember { serial, role: 0, weight: 100 };
        Self {
            serial,
            things: BTreeMap::new(),
            manifest: Manifest {
                group: vec![9; 16],
                serial: SERIAL,
                label: "test".to_owned(),
                epoch: 1,
                generation: 1,
                members: (1..=members).map(member).collect(),
                home: 1,
                tag: Vec::new(),
                credential_epoch: 1,
            },
            recovering: false,
            pin: b"1234567".to_vec(),
            credential_epoch: 1,
            tries: BTreeSet::new(),
            change_tags: BTreeSet::new(),
            incarnation: serial,
            exports_strangers: false,
            mechanisms: Vec::new(),
            lease: Vec::new(),
            lease_asked: 0,
            clock_stands_still: false,
            window: 0,
            other_root: false,
            seq: 0,
            made: 0,
        }
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }

    pub(crate) fn is_live(&self, ouid: Ouid) -> bool {
        self.state(ouid) == Some(State::Committed)
    }

    pub(crate) fn state(&self, ouid: Ouid) -> Option<State> {
        self.things.get(&ouid).map(|thing| thing.state)
    }

    pub(crate) fn put(&mut self, ouid: Ouid, state: State) {
        self.join(ouid, Thing { state, version: 1 });
    }

    pub(crate) fn header(&self) -> ReplyHeader {
        ReplyHeader {
            incarnation: self.incarnation,
            seq: self.seq,
            credential_epoch: self.credential_epoch,
            manifest_epoch: self.manifest.epoch,
            window: self.window,
            ..ReplyHeader::default()
        }
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        let mut root = vec![0_u8; 32];
        for record in self.digests(|_| true) {
            root.iter_mut()
                .zip(&record.digest)
                .for_each(|(sum, byte)| *sum = sum.wrapping_mul(31).wrapping_add(*byte));
        }
        root
    }

    fn buckets(&self) -> Vec<u8> {
        let mut buckets = vec![0_u8; 4_096 * 32];
        for record in self.digests(|_| true) {
            let at = usize::from(Ouid::from_bytes(&record.ouid).unwrap().bucket()) * 32;
            buckets[at..at + 32]
                .iter_mut()
                .zip(&record.digest)
                .for_each(|(sum, byte)| *sum = sum.wrapping_add(*byte));
        }
        buckets
    }

    fn digests(&self, wanted: impl Fn(Ouid) -> bool) -> Vec<RecordDigest> {
        let counted =
            self.things.iter().filter(|(ouid, thing)| wanted(**ouid) && thing.state != State::Provisional);
        counted
            .map(|(ouid, thing)| {
                let mut digest = ouid.0.to_vec();
                digest.extend(thing.bytes());
                digest.resize(32, 1);
                RecordDigest { ouid: ouid.0.to_vec(), digest }
            })
            .collect()
    }

    fn join(&mut self, ouid: Ouid, thing: Thing) {
        let joined = self.things.get(&ouid).map_or(thing, |held| held.join(thing));
        self.things.insert(ouid, joined);
        self.seq += 1;
    }

    /// Runs one request.
    pub(crate) fn handle(&mut self, mut body: RequestBody, header: &RequestHeader) -> ReplyBody {
        let call = body.call.take().unwrap();
        let is_status = matches!(call, Call::Status(_));
        if !is_status && (body.group != self.manifest.group || body.generation != self.manifest.generation) {
            return refused(Outcome::WRONG_GROUP);
        }
        let service = matches!(
            call,
            Call::Login(_) | Call::Use(_) | Call::Plan(_) | Call::GetAttributes(_) | Call::Find(_)
        );
        if self.recovering && service {
            return refused(Outcome::RECOVERING);
        }
        if header.incarnation == self.incarnation && header.at_least > self.seq {
            return refused(Outcome::BEHIND);
        }
        match self.answer(call, &body.ticket) {
            Ok(answer) => ReplyBody { answer: Some(answer), ..ReplyBody::default() },
            Err(reply) => *reply,
        }
    }

    fn answer(&mut self, call: Call, ticket: &[u8]) -> Result<Answer, Box<ReplyBody>> {
        let officer = || if ticket == TICKET { Ok(()) } else { Err(rv(Rv::USER_NOT_LOGGED_IN)) };
        Ok(match call {
            Call::Status(status) => Answer::Status(self.status(status.mechanisms)),
            Call::Login(login) => self.login(&login)?,
            Call::SetPin(set) => self.set_pin(&set)?,
            Call::Use(one) if !self.carries_out(one.mechanism.as_ref()) => {
                return Err(rv(Rv::MECHANISM_INVALID));
            }
            Call::Plan(plan) => self.live(plan.key.as_ref()).map(|_| Answer::Plan(PlanAnswer::default()))?,
            Call::Use(one) => {
                self.live(one.key.as_ref())?;
                Answer::Use(UseAnswer::default())
            }
            Call::Random(random) => Answer::Random(RandomAnswer { output: vec![4; random.bytes as usize] }),
            Call::Make(make) => self.make(&make)?,
            Call::Store(store) => {
                officer()?;
                let state = if store.provisional { State::Provisional } else { State::Committed };
                self.join(Ouid::from_bytes(&store.batch).unwrap(), Thing { state, version: 1 });
                Answer::Store(Done {})
            }
            Call::Commit(commit) => self.advance(&commit.ouids, State::Committed).map(Answer::Commit)?,
            Call::Discard(discard) => self.advance(&discard.ouids, State::Deleted).map(Answer::Discard)?,
            Call::Find(find) => Answer::Find(self.find(&find)),
            Call::GetAttributes(get) => {
                self.live(get.object.as_ref())?;
                Answer::GetAttributes(GetAttributesAnswer::default())
            }
            Call::SetAttributes(set) => self.change(set.object.as_ref(), &set.tag)?,
            Call::Destroy(destroy) => {
                let ouid = named(destroy.object.as_ref());
                self.live(destroy.object.as_ref())?;
                self.join(ouid, Thing { state: State::Deleted, version: 1 });
                Answer::Destroy(Done {})
            }
            Call::Compare(compare) => Answer::Compare(self.compare(&compare.buckets)),
            Call::Export(export) => {
                officer()?;
                Answer::Export(self.export(&export.ouids))
            }
            Call::Join(join) => {
                officer()?;
                self.take(join)
            }
            Call::Lease(lease) => {
                officer()?;
                let granted = self.lease.is_empty() || self.lease == lease.holder;
                if granted {
                    self.lease = if lease.ms > 0 { lease.holder } else { Vec::new() };
                }
                self.lease_asked += u32::from(!self.clock_stands_still);
                Answer::Lease(LeaseAnswer { granted, left_ms: 15_000 - self.lease_asked % 7_500 })
            }
            Call::ChangeManifest(change) => {
                officer()?;
                self.change_manifest(change)?
            }
            Call::Adopt(_) => return Err(rv(Rv::FUNCTION_NOT_SUPPORTED)),
        })
    }

    fn carries_out(&self, mechanism: Option<&MechanismMessage>) -> bool {
        self.mechanisms.is_empty()
            || mechanism.is_none_or(|mechanism| self.mechanisms.contains(&mechanism.number))
    }

    fn change_manifest(&mut self, change: ChangeManifest) -> Result<Answer, Box<ReplyBody>> {
        let wanted = change.manifest.unwrap();
        if self.manifest.home != self.serial && wanted.home != self.serial {
            return Err(Box::new(refused(Outcome::NOT_HOME)));
        }
        if self.manifest.tag != change.tag {
            if self.manifest.epoch != change.expected_epoch {
                return Err(Box::new(refused(Outcome::EPOCH_CHANGED)));
            }
            self.manifest = Manifest { epoch: change.expected_epoch + 1, tag: change.tag, ..wanted };
        }
        let sealed = prost::Message::encode_to_vec(&self.manifest);
        Ok(Answer::ChangeManifest(ChangeManifestAnswer { manifest: Some(self.manifest.clone()), sealed }))
    }

    fn status(&self, mechanisms: bool) -> StatusAnswer {
        let fact = |number: &u64| MechanismFacts { number: *number, ..MechanismFacts::default() };
        StatusAnswer {
            mechanisms: if mechanisms { self.mechanisms.iter().map(fact).collect() } else { Vec::new() },
            incarnation: self.incarnation,
            seq: self.seq,
            label: "test".to_owned(),
            serial: self.serial,
            manifest: Some(self.manifest.clone()),
            root: if self.other_root { vec![9; 32] } else { self.root() },
            recovering: self.recovering,
            objects: self.things.len() as u64,
            ..StatusAnswer::default()
        }
    }

    fn login(&mut self, login: &spec::messages::Login) -> Result<Answer, Box<ReplyBody>> {
        if login.pin != self.pin {
            self.tries.insert(login.tag.clone());
            return Err(rv(Rv::PIN_INCORRECT));
        }
        Ok(Answer::Login(LoginAnswer { ticket: TICKET.to_vec() }))
    }

    fn set_pin(&mut self, set: &spec::messages::SetPin) -> Result<Answer, Box<ReplyBody>> {
        if self.manifest.home != self.serial {
            return Err(Box::new(refused(Outcome::NOT_HOME)));
        }
        if !self.change_tags.contains(&set.tag) {
            if set.old != self.pin {
                return Err(rv(Rv::PIN_INCORRECT));
            }
            self.change_tags.insert(set.tag.clone());
            self.pin = set.new.clone();
            self.credential_epoch += 1;
            self.seq += 1;
        }
        let mut credentials = vec![self.credential_epoch as u8];
        credentials.extend(&self.pin);
        Ok(Answer::SetPin(SetPinAnswer { credentials }))
    }

    fn make(&mut self, make: &spec::messages::Make) -> Result<Answer, Box<ReplyBody>> {
        if let Some(source) = &make.source {
            self.live(Some(source))?;
        }
        self.made += 1;
        let ouid = Ouid([self.serial as u8, self.made, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let token = make.templates.iter().any(|template| template.bool(AttributeType::TOKEN) == Some(true));
        let output = MadeObject { ouid: ouid.0.to_vec(), token, ..MadeObject::default() };
        let batch = if token { ouid.0.to_vec() } else { Vec::new() };
        Ok(Answer::Make(MakeAnswer { batch, outputs: vec![output] }))
    }

    fn live(&self, object: Option<&ObjectRef>) -> Result<Thing, Box<ReplyBody>> {
        let ouid = named(object);
        let reply = |outcome: Outcome| {
            Box::new(ReplyBody { outcome: outcome.0, object: ouid.0.to_vec(), ..ReplyBody::default() })
        };
        match self.things.get(&ouid) {
            Some(thing) if thing.state == State::Committed => Ok(*thing),
            Some(thing) if thing.state == State::Deleted => Err(reply(Outcome::DESTROYED)),
            _ => Err(reply(Outcome::UNKNOWN)),
        }
    }

    fn advance(&mut self, ouids: &[Vec<u8>], state: State) -> Result<Done, Box<ReplyBody>> {
        for ouid in ouids.iter().filter_map(|ouid| Ouid::from_bytes(ouid)) {
            let Some(held) = self.things.get(&ouid).copied() else {
                return Err(Box::new(refused(Outcome::UNKNOWN)));
            };
            if state == State::Committed && held.state == State::Deleted {
                return Err(Box::new(refused(Outcome::DESTROYED)));
            }
            self.join(ouid, Thing { state, version: held.version });
        }
        Ok(Done {})
    }

    fn find(&self, find: &Find) -> FindAnswer {
        let mut page = FindAnswer::default();
        let behind = |ouid: &Ouid| find.after.is_empty() || ouid.0.to_vec() > find.after;
        for (ouid, thing) in self.things.iter().filter(|(ouid, _)| behind(ouid)) {
            if page.found.len() == find.limit as usize {
                page.more = true;
                break;
            }
            page.looked = ouid.0.to_vec();
            match thing.state {
                State::Committed => page.found.push(Found { ouid: ouid.0.to_vec(), ..Found::default() }),
                State::Deleted => page.deleted.push(ouid.0.to_vec()),
                State::Provisional => {}
            }
        }
        page
    }

    fn change(&mut self, object: Option<&ObjectRef>, tag: &[u8]) -> Result<Answer, Box<ReplyBody>> {
        let ouid = named(object);
        let held = self.live(object)?;
        self.change_tags.insert(tag.to_vec());
        let thing = Thing { version: held.version + 1, ..held };
        self.join(ouid, thing);
        let record = SealedRecord { ouid: ouid.0.to_vec(), maker: 1, envelope: thing.bytes() };
        let version = Stamp { ms: thing.version, counter: 0, incarnation: self.incarnation };
        let record = prost::Message::encode_to_vec(&record);
        Ok(Answer::SetAttributes(SetAttributesAnswer {
            version: Some(version),
            record,
            ..SetAttributesAnswer::default()
        }))
    }

    fn compare(&self, buckets: &[u32]) -> CompareAnswer {
        let all = if buckets.is_empty() { self.buckets() } else { Vec::new() };
        let records = if buckets.is_empty() {
            Vec::new()
        } else {
            self.digests(|ouid| buckets.contains(&u32::from(ouid.bucket())))
        };
        CompareAnswer { root: self.root(), buckets: all, records }
    }

    fn export(&self, ouids: &[Vec<u8>]) -> ExportAnswer {
        let wanted = ouids.iter().filter_map(|ouid| Ouid::from_bytes(ouid));
        let records = wanted.filter_map(|ouid| {
            let thing = self.things.get(&ouid).filter(|thing| thing.state != State::Provisional)?;
            Some(SealedRecord { ouid: ouid.0.to_vec(), maker: 1, envelope: thing.bytes() })
        });
        let mut records: Vec<SealedRecord> = records.collect();
        if self.exports_strangers {
            records.iter_mut().for_each(|record| record.ouid = vec![0xee; 16]);
        }
        let mut credentials = vec![self.credential_epoch as u8];
        credentials.extend(&self.pin);
        ExportAnswer { records, credentials, manifest: prost::Message::encode_to_vec(&self.manifest) }
    }

    fn take(&mut self, join: spec::messages::Join) -> Answer {
        for record in &join.records {
            self.join(Ouid::from_bytes(&record.ouid).unwrap(), Thing::read(&record.envelope));
        }
        let newer = |(epoch, pin): &(&u8, &[u8])| {
            (u64::from(**epoch), *pin) > (self.credential_epoch, self.pin.as_slice())
        };
        if let Some((epoch, pin)) = join.credentials.split_first().filter(newer) {
            self.credential_epoch = u64::from(*epoch);
            self.pin = pin.to_vec();
            self.seq += 1;
        }
        if let Ok(manifest) = <Manifest as prost::Message>::decode(join.manifest.as_slice())
            && (manifest.epoch, &manifest.tag) > (self.manifest.epoch, &self.manifest.tag)
        {
            self.manifest = manifest;
        }
        self.recovering &= !join.repaired;
        Answer::Join(JoinAnswer::default())
    }
}

fn named(object: Option<&ObjectRef>) -> Ouid {
    Ouid::from_bytes(&object.unwrap().ouid).unwrap()
}

fn refused(outcome: Outcome) -> ReplyBody {
    ReplyBody { outcome: outcome.0, ..ReplyBody::default() }
}

fn rv(rv: Rv) -> Box<ReplyBody> {
    Box::new(ReplyBody { outcome: Outcome::RV.0, rv: rv.0, ..ReplyBody::default() })
}
