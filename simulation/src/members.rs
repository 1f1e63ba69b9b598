//! The members: real partitions over simulated disks, founded once as one group and copied for every run.
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use partition::store::Store;
use partition::{Caller, DomainSecret, LinkFacts, Partition, Settings, SystemRandom};
use prost::Message;
use spec::UserType;
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Export, Login, Outcome, ReplyBody, ReplyHeader, RequestBody,
    RequestHeader, Status,
};
use spec::planted::{self, Bug};
use spec::record::{Manifest, ManifestMember, MemberRole};
use spec::seam::MemberId;
use zeroize::Zeroizing;

use crate::disk::{Disk, Image};
use crate::platform::{BORN_MS, wall_ms};

/// How many members a group has here.
pub(crate) const MEMBERS: usize = 3;
/// The Crypto Officer's PIN.
pub(crate) const CO_PIN: &[u8] = b"co-pin-1";
/// The group's serial number.
pub(crate) const GROUP_SERIAL: u64 = 11_001;
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

/// One member.
pub(crate) struct Member {
    /// Its disk.
    pub(crate) disk: Arc<Disk>,
    state: Mutex<State>,
}

struct State {
    partition: Option<Arc<Partition>>,
    /// Counts the starts.
    life: u64,
    paused_until: u64,
    clock_offset_ms: i64,
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
        self.alive(open(&self.disk, place));
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

    /// Puts the kept image in place of the disk while the member is down; whether there was one. The operator says so
    /// at the start, as `hsm restore` does: the member takes a new incarnation and is recovering (HA 1.5).
    pub(crate) fn start_restored(&self, place: usize) -> bool {
        let Some(image) = self.state().older.take() else { return false };
        self.disk.put_back(image);
        self.disk.set_full(false);
        self.state().restored = true;
        let partition = open(&self.disk, place);
        if !planted::is(Bug::IncarnationKept) {
            partition.reincarnate(true).expect("a disk with room takes an incarnation");
        }
        self.alive(partition);
        true
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
            (state.partition.clone()?, state.clock_offset_ms)
        };
        let now_ms = wall_ms(now).saturating_add_signed(offset);
        Some(partition.handle_on(&LinkFacts::default(), caller, header, body, now_ms))
    }

    /// The root of its digests (HA 1.6).
    pub(crate) fn root(&self) -> Option<Vec<u8>> {
        let partition = self.partition()?;
        match ask(&partition, &caller(0), &[], Call::Status(Status { mechanisms: false }), BORN_MS)? {
            Answer::Status(status) => Some(status.root.clone()),
            _ => None,
        }
    }
}

fn open(disk: &Arc<Disk>, place: usize) -> Partition {
    let store: Arc<dyn Store> = disk.clone();
    let secret = DomainSecret::new(Zeroizing::new(DOMAIN));
    Partition::open(store, secret, id(place).0, Settings::for_tests())
        .expect("what a member wrote can be read")
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
pub(crate) fn ticket(partition: &Partition, caller: &Caller, now_ms: u64) -> Vec<u8> {
    let login = Login { user: UserType::USER.0, pin: CO_PIN.to_vec(), tag: vec![1; 16] };
    match ask(partition, caller, &[], Call::Login(login), now_ms) {
        Some(Answer::Login(answer)) => answer.ticket.clone(),
        _ => Vec::new(),
    }
}

/// The members of a new world.
pub(crate) fn members() -> Arc<Vec<Member>> {
    static FOUNDED: OnceLock<Vec<Image>> = OnceLock::new();
    let member = |(place, image): (usize, &Image)| {
        let disk = Disk::of(image.clone());
        let partition = Some(Arc::new(open(&disk, place)));
        let state =
            State { partition, life: 0, paused_until: 0, clock_offset_ms: 0, older: None, restored: false };
        Member { disk, state: Mutex::new(state) }
    };
    Arc::new(FOUNDED.get_or_init(found).iter().enumerate().map(member).collect())
}

/// Makes one group of new partitions as `vtl haAdmin newGroup` and `addMember` do (RULES 3.3).
fn found() -> Vec<Image> {
    let disks: Vec<Arc<Disk>> = (0..MEMBERS).map(|_| Disk::empty()).collect();
    let create = |(place, disk): (usize, &Arc<Disk>)| {
        let secret = DomainSecret::new(Zeroizing::new(DOMAIN));
        let (label, settings) = (format!("member{place}"), Settings::for_tests());
        let (store, serial): (Arc<dyn Store>, u64) = (disk.clone(), id(place).0);
        Partition::create(
            store,
            secret,
            serial,
            &label,
            b"so-pin-1",
            CO_PIN,
            settings,
            BORN_MS,
            &SystemRandom,
        )
        .expect("an empty disk takes a partition")
    };
    let partitions: Vec<Partition> = disks.iter().enumerate().map(create).collect();
    let own = caller(0);
    let home = &partitions[0];
    let officer = ticket(home, &own, BORN_MS);
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
        let officer = ticket(joiner, &own, BORN_MS);
        ask(joiner, &own, &officer, Call::Adopt(adopt), BORN_MS).expect("a new partition joins the group");
    }
    disks.iter().map(|disk| disk.image()).collect()
}
