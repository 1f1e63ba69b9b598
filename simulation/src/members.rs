//! The members: real partitions over simulated disks, founded once as one group and copied for every run.
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use partition::store::Store;
use partition::{Caller, DomainSecret, LinkFacts, Partition, Random, Settings};
use prost::Message;
use spec::UserType;
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Export, Join, Login, Outcome, ReplyBody, ReplyHeader, RequestBody,
    RequestHeader, Status,
};
use spec::planted::{self, Bug};
use spec::record::{Manifest, ManifestMember, MemberRole};
use spec::seam::MemberId;
use zeroize::Zeroizing;

use crate::chance::Chance;
use crate::disk::{Disk, Image};
use crate::platform::{BORN_MS, wall_ms};

/// How many members a group has here.
pub(crate) const MEMBERS: usize = 3;
/// The Crypto Officer's PIN.
pub(crate) const CO_PIN: &[u8] = b"co-pin-1";
/// The group's serial number.
pub(crate) const GROUP_SERIAL: u64 = 11_001;
/// The drift of a clock that stands still, in milliseconds in a second.
pub(crate) const STANDS_STILL: i64 = -1_000;
const DOMAIN: [u8; 32] = [9; 32];

/// The member at a place.
pub(crate) fn id(place: usize) -> MemberId {
    MemberId(1_001 + place as u64)
}

/// The place of a member.
pub(crate) fn place(member: MemberId) -> Option<usize> {
    (0..MEMBERS).find(|place| id(*place) == member)
}

/// Who an application process is for the members.
pub(crate) fn caller(process: usize) -> Caller {
    let byte = u8::try_from(process).expect("few processes");
    Caller { client: [byte; 32], instance: [byte; 32] }
}

/// What the ouids and incarnations of a member are drawn from: their order decides between equal stamps (HA 1.4).
#[derive(Clone)]
struct Names(Arc<Mutex<Chance>>);

impl Names {
    /// Those of a member in the world of a seed.
    fn new(seed: u64, place: usize) -> Self {
        Self(Arc::new(Mutex::new(Chance::new(seed ^ id(place).0.rotate_left(32)))))
    }
}

impl Random for Names {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(buffer);
    }
}

/// One member.
pub(crate) struct Member {
    /// Its disk.
    pub(crate) disk: Arc<Disk>,
    names: Names,
    state: Mutex<State>,
}

struct State {
    partition: Option<Arc<Partition>>,
    /// Counts the starts.
    life: u64,
    paused_until: u64,
    clock_offset_ms: i64,
    drift_ms: i64,
    /// Until when its disk takes long for each commit, and until when it answers Busy.
    slow_until: u64,
    overloaded_until: u64,
    older: Option<Image>,
    restored: bool,
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition, while the member is up.
    pub(crate) fn partition(&self) -> Option<Arc<Partition>> {
        self.state().partition.clone()
    }

    /// The power fails.
    pub(crate) fn crash(&self) {
        self.state().partition = None;
        self.disk.lose_power();
    }

    /// Starts again over what the disk holds.
    pub(crate) fn start(&self, place: usize) {
        self.alive(open(&self.disk, place, &self.names));
    }

    fn alive(&self, partition: Partition) {
        let mut state = self.state();
        (state.partition, state.life) = (Some(Arc::new(partition)), state.life + 1);
    }

    /// How often it was started.
    pub(crate) fn life(&self) -> u64 {
        self.state().life
    }

    /// Keeps an image of the disk that may be put back later.
    pub(crate) fn keep_image(&self) {
        let image = self.disk.durable();
        self.state().older = Some(image);
    }

    /// Puts the kept image in place of the disk while the member is down. When the operator says so at the start, as
    /// `hsm restore` does, the member takes a new incarnation and is recovering (HA 1.5).
    pub(crate) fn start_restored(&self, place: usize, owned_up: bool) {
        let Some(image) = self.state().older.take() else { return };
        self.disk.put_back(image, owned_up);
        self.disk.set_full(false);
        self.state().restored = true;
        let partition = open(&self.disk, place, &self.names);
        if owned_up && !planted::is(Bug::IncarnationKept) {
            partition.reincarnate(true).expect("a disk with room takes an incarnation");
        }
        self.alive(partition);
    }

    /// Puts a new partition with nothing in it in place of the one that is up, unless a store was lost before; whether it
    /// did.
    pub(crate) fn replace_store(&self, place: usize) -> bool {
        if self.partition().is_none() {
            return false;
        }
        self.crash();
        self.disk.put_back(Disk::empty().image(), true);
        self.disk.set_full(false);
        self.state().restored = true;
        self.alive(create(&self.disk, place, &self.names));
        true
    }

    /// Starts over the other of two copies of its disk; this one is kept.
    pub(crate) fn start_other_copy(&self, place: usize) {
        let now = self.disk.durable();
        self.start_restored(place, false);
        self.state().older = Some(now);
    }

    /// Whether its disk was ever put back.
    pub(crate) fn was_restored(&self) -> bool {
        self.state().restored
    }

    /// Until when the member does nothing.
    pub(crate) fn paused_until(&self) -> u64 {
        self.state().paused_until
    }

    /// The member does nothing until this moment.
    pub(crate) fn pause(&self, until: u64) {
        let mut state = self.state();
        state.paused_until = state.paused_until.max(until);
    }

    /// The member goes on.
    pub(crate) fn go_on(&self) {
        self.state().paused_until = 0;
    }

    /// Each commit takes long until this moment.
    pub(crate) fn slow_down(&self, until: u64) {
        self.state().slow_until = until;
    }

    /// Whether a commit takes long at this moment.
    pub(crate) fn is_slow(&self, now: u64) -> bool {
        self.state().slow_until > now
    }

    /// It answers Busy to nearly everything until this moment.
    pub(crate) fn overload(&self, until: u64) {
        self.state().overloaded_until = until;
    }

    /// Whether it has more work than it can do.
    pub(crate) fn is_overloaded(&self, now: u64) -> bool {
        self.state().overloaded_until > now
    }

    /// Its clock gains so many milliseconds in each second.
    pub(crate) fn set_drift(&self, ms: i64) {
        self.state().drift_ms = ms;
    }

    /// A clock that stood still goes on from where it is. No `hsmd` has one for good: what it measures time with stands only
    /// while its machine does.
    pub(crate) fn let_clock_go_on(&self, now: u64) {
        let mut state = self.state();
        if state.drift_ms == STANDS_STILL {
            state.clock_offset_ms -= i64::try_from(now / 1_000_000).unwrap_or(0);
            state.drift_ms = 0;
        }
    }

    /// Its wall clock jumps.
    pub(crate) fn jump_clock(&self, ms: i64) {
        self.state().clock_offset_ms += ms;
    }

    /// Runs a request, if the member is up.
    pub(crate) fn handle(
        &self,
        caller: &Caller,
        header: &RequestHeader,
        body: &[u8],
        now: u64,
    ) -> Option<(ReplyHeader, Zeroizing<Vec<u8>>)> {
        let (partition, offset) = {
            let state = self.state();
            let ms = i64::try_from(now / 1_000_000).unwrap_or(0);
            (state.partition.clone()?, state.clock_offset_ms + state.drift_ms * ms / 1_000)
        };
        let now_ms = wall_ms(now).saturating_add_signed(offset);
        Some(partition.handle_on(&LinkFacts::default(), caller, header, body, now_ms))
    }

    /// The root of its digests (HA 1.6).
    pub(crate) fn root(&self) -> Option<Vec<u8>> {
        let partition = self.partition()?;
        match ask(
            &partition,
            &caller(0),
            &[],
            Call::Status(Status { mechanisms: false, seen: Vec::new() }),
            BORN_MS,
        )? {
            Answer::Status(status) => Some(status.root.clone()),
            _ => None,
        }
    }
}

fn open(disk: &Arc<Disk>, place: usize, names: &Names) -> Partition {
    let store: Arc<dyn Store> = disk.clone();
    let secret = DomainSecret::new(Zeroizing::new(DOMAIN));
    Partition::open(store, secret, id(place).0, Settings::for_tests())
        .expect("what a member wrote can be read")
        .with_names(Box::new(names.clone()))
}

/// A new partition on an empty disk.
fn create(disk: &Arc<Disk>, place: usize, names: &Names) -> Partition {
    let secret = DomainSecret::new(Zeroizing::new(DOMAIN));
    let (label, settings) = (format!("member{place}"), Settings::for_tests());
    let (store, serial): (Arc<dyn Store>, u64) = (disk.clone(), id(place).0);
    let created =
        Partition::create(store, secret, serial, &label, b"so-pin-1", CO_PIN, settings, BORN_MS, names);
    created.expect("an empty disk takes a partition").with_names(Box::new(names.clone()))
}

/// One request without a network; `None` when it was refused.
pub(crate) fn ask(
    partition: &Partition,
    caller: &Caller,
    ticket: &[u8],
    call: Call,
    now_ms: u64,
) -> Option<Answer> {
    let Manifest { group, generation, .. } = partition.manifest();
    let body = RequestBody { group, generation, ticket: ticket.to_vec(), call: Some(call) };
    let header = RequestHeader { partition: partition.serial(), ..RequestHeader::default() };
    let (_, reply) = partition.handle(caller, &header, &body.encode_to_vec(), now_ms);
    let reply = ReplyBody::decode(reply.as_slice()).ok()?;
    (Outcome(reply.outcome) == Outcome::OK).then_some(reply.answer)?
}

/// A ticket of the Crypto Officer for a caller.
pub(crate) fn ticket(partition: &Partition, caller: &Caller, pin: &[u8], now_ms: u64) -> Vec<u8> {
    let login = Login { user: UserType::USER.0, pin: pin.to_vec(), tag: vec![1; 16] };
    match ask(partition, caller, &[], Call::Login(login), now_ms) {
        Some(Answer::Login(answer)) => answer.ticket.clone(),
        _ => Vec::new(),
    }
}

/// The members of the world of a seed.
pub(crate) fn members(seed: u64) -> Arc<Vec<Member>> {
    static FOUNDED: OnceLock<Vec<Image>> = OnceLock::new();
    let member = |(place, image): (usize, &Image)| {
        let (disk, names) = (Disk::of(image.clone()), Names::new(seed, place));
        let partition = Some(Arc::new(open(&disk, place, &names)));
        let state = State {
            partition,
            life: 0,
            paused_until: 0,
            clock_offset_ms: 0,
            drift_ms: 0,
            slow_until: 0,
            overloaded_until: 0,
            older: None,
            restored: false,
        };
        Member { disk, names, state: Mutex::new(state) }
    };
    Arc::new(FOUNDED.get_or_init(found).iter().enumerate().map(member).collect())
}

/// Makes one group of new partitions as `vtl haAdmin newGroup` and `addMember` do (RULES 3.3).
fn found() -> Vec<Image> {
    let disks: Vec<Arc<Disk>> = (0..MEMBERS).map(|_| Disk::empty()).collect();
    let create = |(place, disk): (usize, &Arc<Disk>)| create(disk, place, &Names::new(0, place));
    let partitions: Vec<Partition> = disks.iter().enumerate().map(create).collect();
    let own = caller(0);
    let home = &partitions[0];
    let officer = ticket(home, &own, CO_PIN, BORN_MS);
    let old = home.manifest();
    let member = |partition: &Partition| ManifestMember {
        serial: partition.serial(),
        role: MemberRole::Active as i32,
        weight: 100,
    };
    let manifest = Manifest {
        serial: GROUP_SERIAL,
        label: "sim".to_owned(),
        members: partitions.iter().map(member).collect(),
        ..old.clone()
    };
    let change = ChangeManifest { expected_epoch: old.epoch, manifest: Some(manifest), tag: vec![2; 16] };
    let changed = ask(home, &own, &officer, Call::ChangeManifest(change), BORN_MS);
    let export = Export { credentials: true, ..Export::default() };
    let exported = ask(home, &own, &officer, Call::Export(export), BORN_MS);
    let (Some(Answer::ChangeManifest(changed)), Some(Answer::Export(exported))) = (changed, exported) else {
        panic!("the home member makes the group");
    };
    for joiner in &partitions[1..] {
        let adopt = Adopt {
            group: old.group.clone(),
            generation: old.generation,
            manifest: changed.sealed.clone(),
            credentials: exported.credentials.clone(),
        };
        let officer = ticket(joiner, &own, CO_PIN, BORN_MS);
        ask(joiner, &own, &officer, Call::Adopt(adopt), BORN_MS).expect("a new partition joins the group");
    }
    disks.iter().map(|disk| disk.image()).collect()
}

/// The operator changes the manifest at the home (HA 2.6) and tells the members that are up; whether it could be done.
pub(crate) fn change_manifest(
    members: &[Member],
    pin: impl Fn(u64) -> Vec<u8>,
    now_ms: u64,
    change: impl FnOnce(&mut Manifest),
) -> bool {
    let up: Vec<Arc<Partition>> = members.iter().filter_map(Member::partition).collect();
    let Some(home) = up.iter().find(|one| one.manifest().home == one.serial() && !one.is_recovering()) else {
        return false;
    };
    let own = caller(0);
    let ticket = ticket(home, &own, &pin(home.header().credential_epoch), now_ms);
    let old = home.manifest();
    let mut manifest = old.clone();
    change(&mut manifest);
    let tag = now_ms.to_be_bytes().repeat(2);
    let change = ChangeManifest { expected_epoch: old.epoch, manifest: Some(manifest), tag };
    let Some(Answer::ChangeManifest(changed)) =
        ask(home, &own, &ticket, Call::ChangeManifest(change), now_ms)
    else {
        return false;
    };
    for other in up.iter().filter(|other| other.serial() != home.serial()) {
        let join = Join { manifest: changed.sealed.clone(), ..Join::default() };
        // Who does not take it now takes it over from a client's repair.
        drop(ask(other, &own, &ticket, Call::Join(join), now_ms));
    }
    true
}
