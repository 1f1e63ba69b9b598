//! What the application's threads do, and what each answer must be (HA 3.4, 8).
use std::path::Path;
use std::sync::Arc;

use client::conf::Configuration;
use client::{InitializeOptions, Module, Produced, Room};
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::platform::Platform;
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, Mechanism, MechanismType as M, Rv, SlotId,
    Template, UserType,
};

use crate::history::{Fate, History, Object, is_gone, is_of_the_world};
use crate::members::{CO_PIN, GROUP_SERIAL, MEMBERS, Member, id};
use crate::network::{MS, Network};
use crate::world::{World, current_thread};

const SLOT: SlotId = SlotId(0);
/// `DefaultTimeOut` of the processes here.
const CALL_MS_MAX: u64 = 12_000;
/// What may come on top: the tombstones of a failed create, a login's wait.
const SLACK_MS: u64 = 6_000;
/// Copies that a write needs (HA 2.2).
const MINIMUM: usize = 2;

/// One application process: a module over its own seam.
pub(crate) struct Process {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Its module.
    pub(crate) module: Module,
    world: Arc<World>,
    network: Arc<Network>,
    members: Arc<Vec<Member>>,
    history: Arc<History>,
}

impl Process {
    /// Starts a process.
    pub(crate) fn start(
        number: usize,
        world: &Arc<World>,
        platform: Arc<dyn Platform>,
        network: &Arc<Network>,
        members: &Arc<Vec<Member>>,
        history: &Arc<History>,
    ) -> Arc<Self> {
        let module = Module::new();
        module
            .initialize_over(
                network.seam(number),
                platform,
                configuration(),
                InitializeOptions { may_create_threads: true },
            )
            .expect("a fresh module takes a configuration");
        Arc::new(Self {
            number,
            module,
            world: world.clone(),
            network: network.clone(),
            members: members.clone(),
            history: history.clone(),
        })
    }

    /// What one thread of the process does, so many calls long.
    pub(crate) fn run(&self, calls: u32) {
        let session = self.module.open_session(SLOT, SERIAL_SESSION | RW_SESSION);
        let session = session.expect("a session opens without any member");
        while !self.log_in(session) {
            self.world.sleep(200 * MS);
        }
        for _ in 0..calls {
            let pause = self.world.chance(|chance| chance.between(0, 150 * MS));
            self.world.sleep(pause);
            match self.world.chance(|chance| chance.below(100)) {
                0..22 => self.create(session),
                22..58 => self.sign(session),
                58..66 => self.find(session),
                66..74 => self.borrow(session),
                74..80 => self.harden(session),
                80..86 => self.rename(session),
                86..92 => self.read(session),
                _ => self.destroy(session),
            }
        }
    }

    fn log_in(&self, session: HandleSession) -> bool {
        let answer = self.timed("C_Login", || self.module.login(session, UserType::USER, Some(CO_PIN)));
        match answer {
            Ok(()) => true,
            Err(client::Error::Rv(Rv::USER_ALREADY_LOGGED_IN)) => true,
            Err(error) if is_of_the_world(&error) => false,
            Err(error) => {
                self.world.fail(format!("C_Login with the right PIN answered: {error}"));
                true
            }
        }
    }

    /// Every call ends by its deadline.
    fn timed<T>(&self, name: &str, call: impl FnOnce() -> client::Result<T>) -> client::Result<T> {
        let begun = self.world.now();
        let answer = call();
        let took = (self.world.now() - begun) / MS;
        self.world.note(3, || {
            let said = answer.as_ref().map_or_else(|error| format!("error: {error}"), |_| "done".into());
            format!("process {} {name} after {took} ms: {said}", self.number)
        });
        let paused = self.world.paused(self.number) / MS;
        if took > CALL_MS_MAX + SLACK_MS + paused {
            self.world.fail(format!("{name} took {took} ms, which is past its deadline"));
        }
        answer
    }

    /// The application was told that a handle is invalid: this process uses it no more.
    fn drop_handle<T>(&self, place: usize, answer: &client::Result<T>) {
        if answer.as_ref().is_err_and(is_gone) {
            self.history.set(place, |object| object.handle = None);
        }
    }

    fn own(&self, wanted: impl Fn(&Object) -> bool) -> Option<usize> {
        let objects = self.history.objects();
        let fit: Vec<usize> = (0..objects.len())
            .filter(|at| {
                objects[*at].process == self.number && objects[*at].handle.is_some() && wanted(&objects[*at])
            })
            .collect();
        drop(objects);
        (!fit.is_empty()).then(|| fit[self.world.chance(|chance| chance.place(fit.len()))])
    }

    fn create(&self, session: HandleSession) {
        let pair = self.world.chance(|chance| chance.once_in(4));
        let (place, label) = self.history.begin(self.number, if pair { 2 } else { 1 });
        self.network.take_committed(current_thread());
        let answer = self.timed("create", || {
            if pair {
                let (public, private) = pair_templates(&label);
                let mechanism = Mechanism::plain(M::EC_KEY_PAIR_GEN);
                let made = self.module.generate_key_pair(session, mechanism, public, private);
                made.map(|(public, private)| (Some(public), private))
            } else {
                let mechanism = Mechanism::plain(M::GENERIC_SECRET_KEY_GEN);
                self.module.generate_key(session, mechanism, key_template(&label)).map(|key| (None, key))
            }
        });
        let ouids = self.network.take_committed(current_thread());
        if let Err(error) = &answer
            && !is_of_the_world(error)
        {
            self.world.fail(format!("a create answered: {error}"));
        }
        let destroyed = self.history.get(place).destroy != Fate::Not;
        if answer.is_ok() && !destroyed {
            for ouid in &ouids {
                self.check_copies("a create", *ouid, |state| state >= 1);
            }
        }
        self.history.set(place, |object| {
            object.create = Fate::of(&answer);
            object.ouids = ouids;
            if let Ok((public, key)) = answer {
                (object.public, object.handle) = (public, Some(key));
            }
        });
    }

    /// What was acknowledged is durable on the minimum of members (HA 2.2).
    fn check_copies(&self, what: &str, ouid: spec::Ouid, wanted: impl Fn(i32) -> bool) {
        let holds = |member: &&Member| member.disk.durable_state(ouid).is_some_and(&wanted);
        let copies = self.members.iter().filter(holds).count();
        if copies + self.restored() < MINIMUM {
            self.world.fail(format!("{what} was acknowledged and {copies} disks hold it: {ouid:?}"));
        }
    }

    /// What contradicts an earlier answer. Where a member has lost its store, or this process reaches one member alone,
    /// all that can be reached may agree on what is older (HA 3.1, 4.6): then only the end is looked at.
    fn contradicts(&self, what: String) {
        if self.network.connected(self.number) > 1 {
            self.denies(what);
        }
    }

    /// An object that is there was called invalid. One member alone must not do so either (HA 3.1).
    fn denies(&self, what: String) {
        if self.restored() == 0 {
            self.world.fail(what);
        }
    }

    /// A call on an object that is there failed.
    fn failed(&self, what: String, error: &client::Error) {
        match is_gone(error) {
            true => self.denies(what),
            false => self.contradicts(what),
        }
    }

    /// Members whose disk was put back count as lost.
    fn restored(&self) -> usize {
        self.members.iter().filter(|member| member.was_restored()).count()
    }

    fn sign(&self, session: HandleSession) {
        let Some(place) = self.own(|object| object.parts == 1) else { return };
        let before = self.history.get(place);
        let Some(handle) = before.handle else { return };
        let answer = self.timed("sign", || self.mac(session, handle));
        self.drop_handle(place, &answer);
        let after = self.history.get(place);
        match answer {
            Ok(mac) => {
                if before.is_gone() {
                    self.contradicts(format!("{} signed after its end", name(&before)));
                }
                if after.mac.as_ref().is_some_and(|known| *known != mac) {
                    self.contradicts(format!("{} is another key than before", name(&before)));
                }
                self.history.set(place, |object| object.mac = Some(mac));
            }
            Err(error) if is_gone(&error) => {
                if after.is_there() {
                    self.denies(format!("{} is there and signing answered: {error}", name(&before)));
                }
            }
            Err(error) if is_of_the_world(&error) => {}
            Err(error) => self.contradicts(format!("signing with {} answered: {error}", name(&before))),
        }
    }

    fn mac(&self, session: HandleSession, key: HandleObject) -> client::Result<Vec<u8>> {
        self.module.sign_init(session, Some(Mechanism::plain(M::SHA256_HMAC)), key)?;
        match self.module.sign(session, b"the same message", Room::Bytes(64))? {
            Produced::Bytes(mac) => Ok(mac.to_vec()),
            Produced::Length(_) | Produced::TooSmall(_) => Ok(Vec::new()),
        }
    }

    fn find(&self, session: HandleSession) {
        let count = self.history.objects().len();
        if count == 0 {
            return;
        }
        let place = self.world.chance(|chance| chance.place(count));
        let before = self.history.get(place);
        let answer = self.timed("find", || {
            self.module
                .find_init(session, Template::from(vec![Attribute::new(A::LABEL, before.label.clone())]))?;
            let found = self.module.find(session, 10)?;
            self.module.find_final(session)?;
            Ok(found.len())
        });
        let after = self.history.get(place);
        let own = before.process == self.number;
        match answer {
            Ok(found) if found > before.parts => {
                self.contradicts(format!("{} was found {found} times", name(&before)));
            }
            Ok(found) if own && before.is_there() && after.is_there() && found != before.parts => {
                self.contradicts(format!("{} is there and was found {found} times", name(&before)));
            }
            Ok(found) if own && before.is_gone() && found > after.parts - 1 => {
                self.contradicts(format!("{} is gone and was found {found} times", name(&before)));
            }
            Ok(_) => {}
            Err(error) if is_of_the_world(&error) => {}
            Err(error) => self.world.fail(format!("a search answered: {error}")),
        }
    }

    /// Finds another process's key and signs with it: whoever has seen it once finds it everywhere (HA 3.1).
    fn borrow(&self, session: HandleSession) {
        let others: Vec<usize> = {
            let objects = self.history.objects();
            let fits = |at: &usize| objects[*at].process != self.number && objects[*at].parts == 1;
            (0..objects.len()).filter(fits).collect()
        };
        if others.is_empty() {
            return;
        }
        let place = others[self.world.chance(|chance| chance.place(others.len()))];
        let before = self.history.get(place);
        let template = Template::from(vec![Attribute::new(A::LABEL, before.label.clone())]);
        let found = self.timed("find another's", || {
            self.module.find_init(session, template)?;
            let found = self.module.find(session, 10)?;
            self.module.find_final(session)?;
            Ok(found)
        });
        let Some(key) = found.ok().and_then(|found| found.first().copied()) else { return };
        let before = self.history.get(place);
        let answer = self.timed("sign with another's", || self.mac(session, key));
        if let Err(error) = answer
            && is_gone(&error)
            && before.is_there()
            && self.history.get(place).is_there()
        {
            self.denies(format!("{} was found, is there, and signing answered: {error}", name(&before)));
        }
    }

    fn destroy(&self, session: HandleSession) {
        let Some(place) = self.own(|object| object.is_there()) else { return };
        let before = self.history.get(place);
        let Some(handle) = before.handle else { return };
        self.history.set(place, |object| object.destroy = Fate::Running);
        let answer = self.timed("destroy", || self.module.destroy_object(session, handle));
        self.drop_handle(place, &answer);
        match &answer {
            Ok(()) => {
                if let Some(ouid) = before.ouids.last() {
                    self.check_copies("a destroy", *ouid, |state| state == 2);
                }
            }
            Err(error) if is_of_the_world(error) => {}
            Err(error) => self.failed(format!("destroying {} answered: {error}", name(&before)), error),
        }
        // A destroy that failed may have reached members: only its success is sure.
        let fate = if answer.is_ok() { Fate::Done } else { Fate::Unknown };
        self.history.set(place, |object| object.destroy = fate);
    }

    fn change(&self, session: HandleSession, what: &str, place: usize, wanted: Vec<Attribute>) -> Fate {
        let before = self.history.get(place);
        let Some(handle) = before.handle else { return Fate::Failed };
        let answer = self.timed(what, || self.module.set_attributes(session, handle, Template::from(wanted)));
        self.drop_handle(place, &answer);
        match &answer {
            Ok(()) => Fate::Done,
            Err(error) if is_of_the_world(error) => Fate::Unknown,
            Err(error) if is_gone(error) && !self.history.get(place).is_there() => Fate::Failed,
            Err(client::Error::Rv(Rv::ATTRIBUTE_READ_ONLY))
                if self.history.get(place).harden != Fate::Not =>
            {
                Fate::Failed
            }
            Err(error) => {
                self.failed(format!("{what} of {} answered: {error}", name(&before)), error);
                Fate::Unknown
            }
        }
    }

    fn harden(&self, session: HandleSession) {
        let Some(place) = self.own(|object| object.is_there() && object.harden != Fate::Done) else { return };
        self.history.set(place, |object| {
            if object.harden == Fate::Not {
                object.harden = Fate::Running;
            }
        });
        let fate = self.change(session, "harden", place, vec![Attribute::bool(A::EXTRACTABLE, false)]);
        self.history.set(place, |object| {
            if object.harden != Fate::Done {
                object.harden = if fate == Fate::Failed { Fate::Unknown } else { fate };
            }
        });
    }

    /// Sets CKA_ID; one thread at a time for each object, so that the last value is known.
    fn rename(&self, session: HandleSession) {
        let idle = |object: &Object| object.id.is_none_or(|(_, fate)| fate != Fate::Running);
        let Some(place) = self.own(|object| object.is_there() && idle(object)) else { return };
        let value = self.world.chance(|chance| chance.bits().to_le_bytes()[0]);
        self.history.set(place, |object| object.id = Some((value, Fate::Running)));
        // Now and then CKA_EXTRACTABLE is written as it was made: refused once somebody has set it to false.
        let mut wanted = vec![Attribute::new(A::ID, vec![value])];
        if self.history.get(place).harden == Fate::Not && self.world.chance(|chance| chance.once_in(2)) {
            wanted.push(Attribute::bool(A::EXTRACTABLE, true));
        }
        let fate = self.change(session, "rename", place, wanted);
        self.history.set(place, |object| object.id = Some((value, fate)));
    }

    fn read(&self, session: HandleSession) {
        let Some(place) = self.own(|object| object.create == Fate::Done) else { return };
        let before = self.history.get(place);
        let Some(handle) = before.handle else { return };
        let answer =
            self.timed("read", || self.module.get_attributes(session, handle, &[A::EXTRACTABLE, A::ID]));
        self.drop_handle(place, &answer);
        let after = self.history.get(place);
        match answer {
            Ok(values) => {
                let value =
                    |at: usize| values.get(at).and_then(|value| value.as_ref().ok().map(|v| v.to_vec()));
                if before.harden == Fate::Done && value(0) != Some(vec![0]) {
                    self.contradicts(format!("{} is extractable again", name(&before)));
                }
                if before.is_gone() {
                    self.contradicts(format!("{} was read after its end", name(&before)));
                }
                if let (Some((id, Fate::Done)), true) = (before.id, before.id == after.id)
                    && value(1) != Some(vec![id])
                {
                    self.contradicts(format!(
                        "{} has an older CKA_ID: {:?}, not {id}",
                        name(&before),
                        value(1)
                    ));
                }
            }
            Err(error) if is_gone(&error) && !after.is_there() => {}
            Err(error) if is_of_the_world(&error) => {}
            Err(error) => self.failed(format!("reading {} answered: {error}", name(&before)), &error),
        }
    }
}

fn name(object: &Object) -> String {
    String::from_utf8_lossy(&object.label).into_owned()
}

fn key_template(label: &[u8]) -> Template {
    Template::from(vec![
        Attribute::bool(A::TOKEN, true),
        Attribute::new(A::LABEL, label),
        Attribute::ulong(A::VALUE_LEN, 32),
        Attribute::bool(A::SIGN, true),
        Attribute::bool(A::EXTRACTABLE, true),
    ])
}

fn pair_templates(label: &[u8]) -> (Template, Template) {
    let curve = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07".as_slice();
    let public = vec![
        Attribute::bool(A::TOKEN, true),
        Attribute::new(A::LABEL, label),
        Attribute::new(A::EC_PARAMS, curve),
        Attribute::bool(A::VERIFY, true),
    ];
    let private = vec![
        Attribute::bool(A::TOKEN, true),
        Attribute::new(A::LABEL, label),
        Attribute::bool(A::SIGN, true),
        Attribute::bool(A::EXTRACTABLE, true),
    ];
    (public.into(), private.into())
}

fn configuration() -> Configuration {
    let serials: Vec<String> = (0..MEMBERS).map(|place| id(place).0.to_string()).collect();
    let text = format!(
        "Luna = {{ DefaultTimeOut = {CALL_MS_MAX}; KeypairGenTimeOut = {CALL_MS_MAX}; }}\n\
         LunaSA Client = {{ ReceiveTimeout = 3000; }}\n\
         VirtualToken = {{ VirtualToken00Label = sim; VirtualToken00SN = {GROUP_SERIAL}; \
         VirtualToken00Members = {}; }}\n\
         Hatoki = {{ LogLevel = off; OutageWaitMs = 4000; }}\n",
        serials.join(",")
    );
    Configuration::from_bytes(text.as_bytes(), Path::new("/simulation/Chrystoki.conf"))
        .expect("the configuration of the simulation can be read")
}
