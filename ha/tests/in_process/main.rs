//! The group over real partitions in this process: the rules of HA 2, 3 and 4 with real seals, digests and roles.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod system;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ha::{Error, Group, GroupSettings, MemberState, Minimum};
use partition::in_process::InProcess;
use partition::store::{MemoryStore, Store};
use partition::{Caller, DomainSecret, Partition, Settings, SystemRandom};
use prost::Message;
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Export, GetAttributes, Login, Make, MakeKind, MechanismMessage,
    ObjectRef, Outcome, Plan, ReplyBody, RequestBody, RequestHeader, SetAttributes, SetPin,
};
use spec::platform::Platform;
use spec::record::{ManifestMember, MemberRole};
use spec::seam::MemberId;
use spec::{
    Attribute, AttributeType as A, Mechanism, MechanismType as M, ObjectClass, Rv, Template, UserType,
};
use zeroize::Zeroizing;

use crate::system::{Shared, System};

const SERIAL: u64 = 1_154;
const CO_PIN: &[u8] = b"co pin 1";
const CALLER: Caller = Caller { client: [1; 32], instance: [2; 32] };

fn domain() -> DomainSecret {
    DomainSecret::new(Zeroizing::new([9; 32]))
}

/// Three members of one group, as `vtl haAdmin newGroup` and `addMember` make it.
struct Bench {
    system: Arc<System>,
    seam: Arc<InProcess>,
    stores: Vec<Arc<dyn Store>>,
    group: Arc<Group>,
    ticket: Vec<u8>,
}

fn direct(partition: &Partition, ticket: &[u8], call: Call) -> Answer {
    let manifest = partition.manifest();
    let body = RequestBody {
        group: manifest.group,
        generation: manifest.generation,
        ticket: ticket.to_vec(),
        call: Some(call),
    };
    let header = RequestHeader::default();
    let (_, reply) = partition.handle(&CALLER, &header, &body.encode_to_vec(), 1_700_000_000_000);
    let mut reply = ReplyBody::decode(reply.as_slice()).unwrap();
    assert_eq!(Outcome(reply.outcome), Outcome::OK, "{} {}", Rv(reply.rv), reply.text);
    reply.answer.take().unwrap()
}

fn direct_login(partition: &Partition) -> Vec<u8> {
    let login = Login { user: UserType::USER.0, pin: CO_PIN.to_vec(), tag: vec![3; 16] };
    match direct(partition, &[], Call::Login(login)) {
        Answer::Login(answer) => answer.ticket.clone(),
        _ => unreachable!("a login is answered by a login"),
    }
}

fn settings() -> GroupSettings {
    GroupSettings {
        members: (1..=3).map(MemberId).collect(),
        serial: Some(SERIAL),
        outage_wait_ms: 300,
        ..GroupSettings::default()
    }
}

impl Bench {
    fn new() -> Self {
        let stores: Vec<Arc<dyn Store>> =
            (0..3).map(|_| Arc::new(MemoryStore::new()) as Arc<dyn Store>).collect();
        let born = |serial: u64, store: &Arc<dyn Store>| {
            let settings = Settings::for_tests();
            let (label, now_ms) = ("bench", 1_700_000_000_000);
            Partition::create(
                store.clone(),
                domain(),
                serial,
                label,
                b"so pin 1",
                CO_PIN,
                settings,
                now_ms,
                &SystemRandom,
            )
            .unwrap()
        };
        let partitions: Vec<Arc<Partition>> =
            (1..).zip(&stores).map(|(serial, store)| Arc::new(born(serial, store))).collect();
        join_up(&partitions);
        let system = Arc::new(System { skipped_ms: AtomicU64::new(0) });
        let platform: Arc<dyn Platform> = Arc::new(Shared(system.clone()));
        let members =
            (1..).zip(partitions).map(|(serial, partition)| (MemberId(serial), partition)).collect();
        let seam = InProcess::new(platform.clone(), CALLER, members);
        let group = Group::new(platform, seam.clone(), settings());
        let login = Login { user: UserType::USER.0, pin: CO_PIN.to_vec(), tag: Vec::new() };
        let ticket = group.login(login, &[]).unwrap();
        group.tend();
        Self { system, seam, stores, group, ticket }
    }

    /// Another process of the same client, which knows nothing yet.
    fn process(&self, change: impl FnOnce(&mut GroupSettings)) -> Arc<Group> {
        let mut settings = settings();
        change(&mut settings);
        Group::new(Arc::new(Shared(self.system.clone())), self.seam.clone(), settings)
    }

    fn down(&self, member: u64) {
        self.seam.set_down(MemberId(member), true);
    }

    fn up(&self, member: u64) {
        self.system.skip(1);
        self.seam.set_down(MemberId(member), false);
    }

    /// Another process of the same store: what a restart after SIGKILL gives.
    fn restart(&self, member: u64) {
        self.system.skip(1);
        let store = self.stores[member as usize - 1].clone();
        let partition = Partition::open(store, domain(), member, Settings::for_tests()).unwrap();
        self.seam.swap(MemberId(member), Arc::new(partition));
    }

    fn make(label: &str) -> Make {
        let template = vec![
            Attribute::bool(A::TOKEN, true),
            Attribute::bool(A::SIGN, true),
            Attribute::new(A::LABEL, label.as_bytes()),
            Attribute::ulong(A::VALUE_LEN, 32),
        ];
        Make {
            kind: MakeKind::GENERATE.0,
            mechanism: Some(MechanismMessage::from(&Mechanism::plain(M::GENERIC_SECRET_KEY_GEN))),
            templates: vec![Template::from(template)],
            ..Make::default()
        }
    }

    fn create(&self, label: &str) -> Result<ObjectRef, Error> {
        let made = self.group.create(Self::make(label), &self.ticket)?;
        Ok(ObjectRef { ouid: made.outputs[0].ouid.clone(), ..ObjectRef::default() })
    }

    /// Reads the label through the group.
    fn read(&self, object: &ObjectRef) -> Result<Vec<u8>, Error> {
        let get = GetAttributes { object: Some(object.clone()), numbers: vec![A::LABEL.0] };
        match self.group.any(Call::GetAttributes(get), &self.ticket)?.answer {
            Answer::GetAttributes(answer) => Ok(answer.values[0].value.clone()),
            _ => unreachable!("attributes are answered by attributes"),
        }
    }

    fn set_label(&self, object: &ObjectRef, label: &str) -> Result<(), Error> {
        let template = Template::from(vec![Attribute::new(A::LABEL, label.as_bytes())]);
        let change = SetAttributes {
            object: Some(object.clone()),
            template: Some(template),
            ..SetAttributes::default()
        };
        self.group.change(change, &self.ticket).map(drop)
    }

    fn find(&self) -> Vec<Vec<u8>> {
        self.group
            .find(&Template::default(), &self.ticket)
            .unwrap()
            .into_iter()
            .map(|found| found.ouid)
            .collect()
    }

    fn objects(&self) -> Vec<u64> {
        (1..=3).map(|member| self.seam.partition(MemberId(member)).unwrap().objects()).collect()
    }

    fn states(&self) -> Vec<MemberState> {
        self.group.refresh();
        self.group.status().members.into_iter().map(|member| member.state).collect()
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        self.group.refresh();
        self.group.status().members.into_iter().map(|member| member.report.unwrap().root).collect()
    }

    fn assert_equal(&self) {
        let roots = self.roots();
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "{roots:02x?}");
        assert_eq!(self.states(), [MemberState::Up, MemberState::Up, MemberState::Up]);
    }
}

/// Makes the first partition the home of a group and lets the others join it (RULES 3.3).
fn join_up(partitions: &[Arc<Partition>]) {
    let home = &partitions[0];
    let ticket = direct_login(home);
    let mut manifest = home.manifest();
    (manifest.serial, manifest.label) = (SERIAL, "group".to_owned());
    manifest.members = partitions
        .iter()
        .map(|partition| ManifestMember {
            serial: partition.serial(),
            role: MemberRole::Active as i32,
            weight: 100,
        })
        .collect();
    let change =
        ChangeManifest { expected_epoch: manifest.epoch, manifest: Some(manifest), tag: vec![5; 16] };
    direct(home, &ticket, Call::ChangeManifest(change));
    let export = Export { ouids: Vec::new(), credentials: true, manifest: true };
    let Answer::Export(exported) = direct(home, &ticket, Call::Export(export)) else {
        unreachable!("an export is answered by an export")
    };
    let manifest = home.manifest();
    for joiner in &partitions[1..] {
        let adopt = Adopt {
            group: manifest.group.clone(),
            generation: manifest.generation,
            manifest: exported.manifest.clone(),
            credentials: exported.credentials.clone(),
        };
        direct(joiner, &direct_login(joiner), Call::Adopt(adopt));
    }
}

#[test]
fn a_created_key_is_on_every_member_and_a_change_and_a_destroy_reach_all() {
    let bench = Bench::new();
    let key = bench.create("one").unwrap();
    assert_eq!(bench.objects(), [1, 1, 1]);
    bench.set_label(&key, "two").unwrap();
    for member in 1..=3 {
        (1..=3).filter(|other| *other != member).for_each(|other| bench.down(other));
        assert_eq!(bench.read(&key).unwrap(), b"two", "member {member}");
        (1..=3).filter(|other| *other != member).for_each(|other| bench.up(other));
        bench.group.tend();
    }
    bench.assert_equal();
    bench.group.destroy(key.clone(), &bench.ticket).unwrap();
    assert_eq!(bench.objects(), [0, 0, 0]);
    assert_eq!(bench.read(&key), Err(Error::Gone(key.ouid.clone())));
    bench.assert_equal();
}

#[test]
fn a_member_that_is_killed_and_returns_is_not_noticed() {
    let bench = Bench::new();
    let key = bench.create("kept").unwrap();
    for member in 1..=3 {
        bench.down(member);
        (0..4).for_each(|_| assert_eq!(bench.read(&key).unwrap(), b"kept"));
        bench.restart(member);
        (0..4).for_each(|_| assert_eq!(bench.read(&key).unwrap(), b"kept"));
        bench.group.tend();
        bench.assert_equal();
    }
}

#[test]
fn a_lost_reply_in_mid_call_moves_the_call() {
    let bench = Bench::new();
    let key = bench.create("kept").unwrap();
    for member in 1..=3 {
        bench.seam.lose_reply_once(MemberId(member), 21);
        bench.seam.lose_request_once(MemberId(member), 20);
    }
    (0..3).for_each(|_| assert_eq!(bench.read(&key).unwrap(), b"kept"));
    (0..3).for_each(|_| assert_eq!(bench.find(), std::slice::from_ref(&key.ouid)));
}

#[test]
fn creates_survive_lost_requests_and_replies_of_every_step() {
    let bench = Bench::new();
    let mut made = 0;
    // A lost Make is asked again of any member; nothing was left behind.
    (1..=2).for_each(|member| bench.seam.lose_reply_once(MemberId(member), 16));
    for call in [17, 18] {
        for member in 1..=3 {
            for lose in [InProcess::lose_reply_once, InProcess::lose_request_once] {
                lose(&bench.seam, MemberId(member), call);
                made += 1;
                let key = bench.create(&format!("key {made}")).unwrap();
                assert_eq!(bench.read(&key).unwrap(), format!("key {made}").into_bytes());
            }
        }
    }
    bench.group.tend();
    assert_eq!(bench.objects(), [made, made, made], "no orphan, no second key");
    bench.assert_equal();
}

#[test]
fn what_was_created_and_destroyed_while_a_member_was_down_is_repaired_and_not_resurrected() {
    let bench = Bench::new();
    let (kept, gone) = (bench.create("kept").unwrap(), bench.create("gone").unwrap());
    bench.down(3);
    let new = bench.create("new").unwrap();
    bench.set_label(&kept, "changed").unwrap();
    bench.group.destroy(gone.clone(), &bench.ticket).unwrap();
    // Another process finds the member back: it knows nothing of debts and compares.
    let other = bench.process(|_| {});
    other.tend();
    bench.restart(3);
    other.tend();
    assert_eq!(other.status().members[2].state, MemberState::Recovering);
    let reads = bench.seam.count(MemberId(3), 20);
    let search = || -> Vec<Vec<u8>> {
        other.find(&Template::default(), &bench.ticket).unwrap().into_iter().map(|found| found.ouid).collect()
    };
    let mut wanted = vec![kept.ouid.clone(), new.ouid.clone()];
    wanted.sort();
    assert_eq!(search(), wanted);
    assert_eq!(bench.seam.count(MemberId(3), 20), reads, "a member is repaired before it is read");
    other.set_repair_ticket(Some(&bench.ticket));
    other.tend();
    assert_eq!(other.status().members[2].state, MemberState::Up);
    (1..=2).for_each(|member| bench.down(member));
    assert_eq!(search(), wanted);
    assert_eq!(bench.read(&kept).unwrap(), b"changed");
    assert_eq!(bench.read(&gone), Err(Error::Gone(gone.ouid.clone())));
    (1..=2).for_each(|member| bench.up(member));
    bench.group.tend();
    bench.group.tend();
    bench.assert_equal();
}

#[test]
fn a_debt_is_paid_without_repair() {
    let bench = Bench::new();
    bench.down(2);
    let key = bench.create("owed").unwrap();
    bench.set_label(&key, "changed").unwrap();
    assert_eq!(bench.group.status().members[1].debt, 2);
    bench.up(2);
    bench.group.tend();
    assert_eq!(bench.group.status().members[1].debt, 0);
    bench.assert_equal();
}

#[test]
fn contents_that_differ_at_start_are_merged_until_they_are_repaired() {
    let bench = Bench::new();
    let mut wanted = Vec::new();
    // Each key is made while only one member is there, by a process that then ends.
    for member in 1..=3 {
        (1..=3).filter(|other| *other != member).for_each(|other| bench.down(other));
        let process = bench.process(|settings| settings.minimum = Minimum::Available);
        let made = process.create(Bench::make(&format!("of {member}")), &bench.ticket).unwrap();
        wanted.push(ObjectRef { ouid: made.outputs[0].ouid.clone(), ..ObjectRef::default() });
        (1..=3).filter(|other| *other != member).for_each(|other| bench.up(other));
    }
    let other = bench.process(|_| {});
    let mut ouids: Vec<Vec<u8>> = wanted.iter().map(|object| object.ouid.clone()).collect();
    ouids.sort();
    let search = || -> Vec<Vec<u8>> {
        other.find(&Template::default(), &bench.ticket).unwrap().into_iter().map(|found| found.ouid).collect()
    };
    assert_eq!(search(), ouids);
    for object in &wanted {
        let plan = Plan {
            function: 1,
            mechanism: Some(MechanismMessage::from(&Mechanism::plain(M::SHA256_HMAC))),
            key: Some(object.clone()),
        };
        (0..3).for_each(|_| drop(other.any(Call::Plan(plan.clone()), &bench.ticket).unwrap()));
    }
    other.set_repair_ticket(Some(&bench.ticket));
    other.tend();
    assert_eq!(bench.objects(), [3, 3, 3]);
    assert!(!other.status().divergent);
}

#[test]
fn a_clone_that_was_told_to_recover_serves_after_comparison() {
    let bench = Bench::new();
    let key = bench.create("kept").unwrap();
    bench.seam.partition(MemberId(1)).unwrap().reincarnate(true).unwrap();
    (0..6).for_each(|_| assert_eq!(bench.read(&key).unwrap(), b"kept"));
    bench.group.tend();
    assert_eq!(bench.states()[0], MemberState::Recovering);
    bench.group.set_repair_ticket(Some(&bench.ticket));
    bench.group.tend();
    bench.assert_equal();
    assert!(!bench.seam.partition(MemberId(1)).unwrap().is_recovering());
}

#[test]
fn a_pin_change_reaches_every_member_also_one_that_was_down() {
    let bench = Bench::new();
    bench.down(3);
    let set = SetPin {
        user: UserType::USER.0,
        old: CO_PIN.to_vec(),
        new: b"another pin".to_vec(),
        tag: Vec::new(),
    };
    bench.group.set_pin(set, &bench.ticket).unwrap();
    bench.up(3);
    bench.group.set_repair_ticket(Some(&bench.ticket));
    bench.group.tend();
    bench.group.tend();
    for member in 1..=3 {
        (1..=3).filter(|other| *other != member).for_each(|other| bench.down(other));
        let login = |pin: &[u8]| {
            bench.group.login(Login { user: UserType::USER.0, pin: pin.to_vec(), tag: Vec::new() }, &[])
        };
        assert_eq!(login(CO_PIN).map(drop), Err(Error::Rv(Rv::PIN_INCORRECT)), "member {member}");
        assert!(login(b"another pin").is_ok(), "member {member}");
        (1..=3).filter(|other| *other != member).for_each(|other| bench.up(other));
        bench.group.tend();
    }
}

/// HA 2.7: the PIN is to be changed while the home is down, and an operator makes another member the home meanwhile. It is
/// changed there as soon as the process has heard of it, and not at the old home, where the change would be lost.
#[test]
fn ha_2_7_a_home_that_was_deposed_while_it_was_down_is_told_of_no_new_pin() {
    let bench = Bench::new();
    let key = bench.create("kept").unwrap();
    let patient = bench.process(|settings| settings.outage_wait_ms = 10_000);
    patient.set_repair_ticket(Some(&bench.ticket));
    patient.tend();
    bench.down(1);
    let (old, new) = (CO_PIN.to_vec(), b"another pin".to_vec());
    let set = SetPin { user: UserType::USER.0, old, new: new.clone(), tag: Vec::new() };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| patient.set_pin(set, &bench.ticket));
        std::thread::sleep(Duration::from_millis(100));
        let operator = bench.process(|_| {});
        operator.tend();
        operator.promote(MemberId(2), &bench.ticket).unwrap();
        let get = GetAttributes { object: Some(key), numbers: vec![A::LABEL.0] };
        patient.any(Call::GetAttributes(get), &bench.ticket).unwrap();
        bench.restart(1);
        waiting.join().unwrap().unwrap();
    });
    for _ in 0..3 {
        patient.tend();
    }
    for member in 1..=3 {
        let partition = bench.seam.partition(MemberId(member)).unwrap();
        assert_eq!(partition.manifest().home, 2, "member {member}");
        let login = Login { user: UserType::USER.0, pin: new.clone(), tag: vec![3; 16] };
        direct(&partition, &[], Call::Login(login));
    }
}

#[test]
fn the_tickets_of_one_member_are_good_on_all_and_a_wrong_pin_spends_one_try() {
    let bench = Bench::new();
    let wrong = Login { user: UserType::USER.0, pin: b"wrong pin".to_vec(), tag: Vec::new() };
    assert_eq!(bench.group.login(wrong, &[]).map(drop), Err(Error::Rv(Rv::PIN_INCORRECT)));
    bench.group.refresh();
    let tries: u32 = bench
        .group
        .status()
        .members
        .iter()
        .map(|member| member.report.as_ref().unwrap().failed_tries_user)
        .sum();
    assert_eq!(tries, 1);
}

#[test]
fn an_outage_ends_calls_in_time_and_everything_works_after_it() {
    let bench = Bench::new();
    let key = bench.create("kept").unwrap();
    (1..=3).for_each(|member| bench.down(member));
    let begun = Instant::now();
    assert!(matches!(bench.read(&key), Err(Error::Outage { .. })));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(matches!(
        bench.create("never"),
        Err(Error::BelowMinimum { reachable: 0, .. } | Error::Outage { .. })
    ));
    (1..=3).for_each(|member| bench.restart(member));
    assert_eq!(bench.read(&key).unwrap(), b"kept");
    bench.create("after").unwrap();
    bench.group.tend();
    bench.assert_equal();
    assert_eq!(bench.objects(), [2, 2, 2]);
}

#[test]
fn data_objects_and_copies_go_the_same_way() {
    let bench = Bench::new();
    let data = vec![
        Attribute::ulong(A::CLASS, ObjectClass::DATA.0),
        Attribute::bool(A::TOKEN, true),
        Attribute::new(A::LABEL, b"note".as_slice()),
    ];
    let make = Make { kind: MakeKind::CREATE.0, templates: vec![data.into()], ..Make::default() };
    let made = bench.group.create(make, &bench.ticket).unwrap();
    let source = ObjectRef { ouid: made.outputs[0].ouid.clone(), ..ObjectRef::default() };
    let template = Template::from(vec![Attribute::new(A::LABEL, b"copy".as_slice())]);
    let make =
        Make { kind: MakeKind::COPY.0, templates: vec![template], source: Some(source), ..Make::default() };
    let copy = bench.group.create(make, &bench.ticket).unwrap();
    assert_eq!(bench.objects(), [2, 2, 2]);
    let copy = ObjectRef { ouid: copy.outputs[0].ouid.clone(), ..ObjectRef::default() };
    assert_eq!(bench.read(&copy).unwrap(), b"copy");
}

#[test]
fn eight_threads_notice_nothing_while_members_are_killed_and_return() {
    let bench = Bench::new();
    let key = bench.create("kept").unwrap();
    bench.group.set_repair_ticket(Some(&bench.ticket));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (reads, creates) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (bench, key, stop, reads, creates) = (&bench, &key, &stop, &reads, &creates);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(bench.read(key).unwrap(), b"kept");
                    reads.fetch_add(1, Ordering::SeqCst);
                    if thread == 0 {
                        let made = bench.create("more").unwrap();
                        bench.read(&made).unwrap();
                        creates.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        for round in 0..6 {
            let member = round % 3 + 1;
            bench.down(member);
            std::thread::sleep(Duration::from_millis(20));
            bench.group.tend();
            bench.restart(member);
            bench.group.tend();
            bench.group.tend();
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::SeqCst);
    });
    bench.group.tend();
    bench.group.tend();
    let made = creates.load(Ordering::SeqCst) + 1;
    assert!(reads.load(Ordering::SeqCst) > 100 && made > 5);
    assert_eq!(bench.objects(), [made, made, made]);
    bench.assert_equal();
}
