//! What the application's threads do, and what each answer must be (HA 3.4, 8).
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use client::{Module, Produced, Room};
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, Mechanism, MechanismType as M, ObjectClass,
    SlotId, Template,
};

use crate::history::{Fate, History, Object, is_gone, is_logged_out, is_of_the_world};
use crate::members::Member;
use crate::network::MS;
use crate::platform::Simulated;
use crate::theme::{Theme, Work};
use crate::watch::{LinkEpoch, Sends};
use crate::ways::Ways;
use crate::world::{World, current_thread};

const SLOT: SlotId = SlotId(0);
/// `DefaultTimeOut` of the processes here.
pub(crate) const CALL_MS_MAX: u64 = 12_000;
/// What may come on top: the tombstones of a failed create, a login's wait.
const SLACK_MS: u64 = 6_000;
/// A create, a signature and a destroy take so long at most when nothing goes wrong.
const WORK_AGAIN_MS_MAX: u64 = 1_000;
/// Copies that a write needs (HA 2.2).
const MINIMUM: usize = 2;

/// One application process: a module over its own seam.
pub(crate) struct Process {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Its module.
    pub(crate) module: Module,
    pub(crate) platform: Arc<Simulated>,
    pub(crate) world: Arc<World>,
    pub(crate) network: Arc<dyn Ways>,
    pub(crate) members: Arc<Vec<Member>>,
    pub(crate) history: Arc<History>,
    pub(crate) theme: Theme,
    /// Logins begun and ended, so that tries can be told apart.
    pub(crate) logins: AtomicU64,
    /// Changes of a PIN and tries at one that ended without an answer.
    pub(crate) unheard: AtomicU64,
}

impl Process {
    /// Starts a process whose calls end after so many milliseconds at the latest.
    pub(crate) fn start(
        call_ms_max: u64,
        platform: Arc<Simulated>,
        network: &Arc<dyn Ways>,
        members: &Arc<Vec<Member>>,
        history: &Arc<History>,
        theme: &Theme,
    ) -> Arc<Self> {
        let module = Module::new();
        network.start(&module, &platform, call_ms_max);
        Arc::new(Self {
            number: platform.process(),
            module,
            world: platform.world().clone(),
            platform,
            network: network.clone(),
            members: members.clone(),
            history: history.clone(),
            theme: theme.clone(),
            logins: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
        })
    }

    /// What one thread of the process does.
    pub(crate) fn run(&self) {
        let session = self.open_session();
        for _ in 0..self.theme.calls(self.number) {
            if self.world.is_judged() || !self.log_in(session) {
                return;
            }
            let (pause, drawn) = self.world.chance(|chance| {
                (chance.between(0, self.theme.pause_ms_max * MS), self.theme.work(self.number, chance))
            });
            self.world.sleep(pause);
            if self.world.takes_fork(self.number) {
                self.fork();
            }
            match self.needed().unwrap_or(drawn) {
                Work::Create => self.create(session),
                Work::Sign => self.sign(session),
                Work::Find => self.find(session),
                Work::List => self.list(session),
                Work::Borrow => self.borrow(session),
                Work::Harden => self.harden(session),
                Work::Rename => self.rename(session),
                Work::Read => self.read(session),
                Work::Destroy => self.destroy(session),
                Work::Random => self.draw(session),
                Work::SetPin => self.set_pin(session),
                Work::WrongPin => self.give_wrong_pin(session),
            }
        }
    }

    /// Where two processes are to meet at one object: what is missing for that.
    fn needed(&self) -> Option<Work> {
        let nothing = self.theme.duel() && self.held(|object| object.is_there()).is_none();
        nothing.then_some(if self.theme.writes(self.number) { Work::Create } else { Work::Borrow })
    }

    pub(crate) fn open_session(&self) -> HandleSession {
        let session = self.module.open_session(SLOT, SERIAL_SESSION | RW_SESSION);
        session.expect("a session opens without any member")
    }

    /// Every call ends by its deadline.
    pub(crate) fn timed<T>(&self, name: &str, call: impl FnOnce() -> client::Result<T>) -> client::Result<T> {
        self.counted(name, call).0
    }

    /// As [`Process::timed`], with what was sent; that is bounded too (HA 4.2, 4.5).
    pub(crate) fn counted<T>(
        &self,
        name: &str,
        call: impl FnOnce() -> client::Result<T>,
    ) -> (client::Result<T>, Sends) {
        let begun = self.world.now();
        self.network.watch().begin(current_thread());
        let answer = call();
        let took = (self.world.now() - begun) / MS;
        let (sends, broken) = self.network.watch().end(current_thread(), took);
        self.world.note(3, || {
            let said = answer.as_ref().map_or_else(|error| format!("error: {error}"), |_| "done".into());
            format!("process {} {name} after {took} ms and {} requests: {said}", self.number, sends.all)
        });
        let paused = self.world.paused(self.number) / MS;
        if took > CALL_MS_MAX + SLACK_MS + paused {
            self.world.fail(format!("{name} took {took} ms, which is past its deadline"));
        }
        if let Some(broken) = broken {
            self.world.fail(format!("{name}: {broken}"));
        }
        (answer, sends)
    }

    /// Whether an error only says that members could not be reached or are on their way into the group, or that all tickets
    /// were ended.
    pub(crate) fn is_excused(&self, error: &client::Error) -> bool {
        let ended = is_gone(error) || is_logged_out(error) || matches!(error, client::Error::TicketDead);
        // A member that was added is in the manifest before it has adopted the group.
        let joining =
            matches!(error, client::Error::WrongGroup(_)) && self.network.watch().has_anybody_left();
        is_of_the_world(error) || joining || ended && self.network.watch().was_revoked()
    }

    /// The application was told that a handle is invalid: this process uses it no more.
    pub(crate) fn drop_handle<T>(&self, place: usize, answer: &client::Result<T>) {
        if answer.as_ref().is_err_and(is_gone) {
            self.history.set(place, |object| {
                let _ = object.handles.remove(&self.number);
            });
        }
    }

    /// An object that this process has made and holds a handle of.
    fn own(&self, wanted: impl Fn(&Object) -> bool) -> Option<usize> {
        self.held(|object| object.process == self.number && wanted(object))
    }

    /// An object that this process holds a handle of; where that is the theme, mostly the newest.
    pub(crate) fn held(&self, wanted: impl Fn(&Object) -> bool) -> Option<usize> {
        self.any(|object| object.handles.contains_key(&self.number) && wanted(object))
    }

    fn any(&self, wanted: impl Fn(&Object) -> bool) -> Option<usize> {
        let fit: Vec<usize> = {
            let objects = self.history.objects();
            (0..objects.len()).filter(|at| wanted(&objects[*at])).collect()
        };
        let newest = *fit.last()?;
        let hot = self.theme.hot;
        Some(self.world.chance(
            |chance| {
                if hot && !chance.once_in(3) { newest } else { fit[chance.place(fit.len())] }
            },
        ))
    }

    pub(crate) fn handle(&self, object: &Object) -> Option<HandleObject> {
        object.handles.get(&self.number).copied()
    }

    fn create(&self, session: HandleSession) {
        let pair = self.world.chance(|chance| chance.once_in(self.theme.pair_in));
        let (place, label) = self.history.begin(self.number, if pair { 2 } else { 1 });
        self.network.books().take_committed(current_thread());
        let connected = self.network.connections(self.number);
        let (answer, sends) = self.counted("create", || {
            if pair {
                let (public, private) = pair_templates(&label);
                let mechanism = Mechanism::plain(M::EC_KEY_PAIR_GEN);
                let made = self.module.generate_key_pair(session, mechanism, public, private);
                made.map(|(_, private)| private)
            } else {
                let mechanism = Mechanism::plain(M::GENERIC_SECRET_KEY_GEN);
                self.module.generate_key(session, mechanism, key_template(&label))
            }
        });
        let ouids = self.network.books().take_committed(current_thread());
        match &answer {
            Ok(_) => self.check_write_set("a create", &connected, &sends),
            Err(error) if self.is_excused(error) => {}
            Err(error) => self.world.fail(format!("a create answered: {error}")),
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
            if let Ok(key) = answer {
                object.handles.insert(self.number, key);
            }
        });
    }

    /// A write goes to every member that was connected all the time, whatever its role (HA 2.4).
    fn check_write_set(&self, what: &str, before: &[LinkEpoch], sends: &Sends) {
        let after = self.network.connections(self.number);
        let all_the_time =
            before.iter().filter(|link| after.contains(link) && !self.network.watch().has_left(link.1));
        if let Some((_, member, _)) =
            all_the_time.into_iter().find(|(_, member, _)| !sends.written.contains(member))
        {
            self.world.fail(format!("{what} was not sent to member {member}, which was connected (HA 2.4)"));
        }
    }

    /// What was acknowledged is durable on the minimum of members (HA 2.2).
    pub(crate) fn check_copies(&self, what: &str, ouid: spec::Ouid, wanted: impl Fn(i32) -> bool) {
        let holds = |member: &&Member| member.disk.durable_state(ouid).is_some_and(&wanted);
        let copies = self.members.iter().filter(holds).count();
        if copies + self.restored() < MINIMUM {
            self.world.fail(format!("{what} was acknowledged and {copies} disks hold it: {ouid:?}"));
        }
    }

    /// What contradicts an earlier answer. Where a member has lost its store, or this process reaches one member alone,
    /// all that can be reached may agree on what is older (HA 3.1, 4.6): then only the end is looked at.
    pub(crate) fn contradicts(&self, what: String) {
        if self.network.connected(self.number) > 1 {
            self.denies(what);
        }
    }

    /// An object that is there was called invalid. One member alone must not do so either (HA 3.1).
    pub(crate) fn denies(&self, what: String) {
        if self.restored() == 0 {
            self.world.fail(what);
        }
    }

    /// A call on an object that is there failed.
    pub(crate) fn failed(&self, what: String, error: &client::Error) {
        match is_gone(error) {
            true => self.denies(what),
            false => self.contradicts(what),
        }
    }

    /// Members whose disk was put back count as lost.
    pub(crate) fn restored(&self) -> usize {
        self.members.iter().filter(|member| member.was_restored()).count()
    }

    fn sign(&self, session: HandleSession) {
        let Some(place) = self.own(|object| object.parts == 1) else { return };
        let before = self.history.get(place);
        let Some(handle) = self.handle(&before) else { return };
        let (answer, sends) = self.counted("sign", || self.mac(session, handle));
        self.drop_handle(place, &answer);
        let after = self.history.get(place);
        match answer {
            Ok(mac) => {
                if before.is_gone() && !before.inherited {
                    self.contradicts(format!("{} signed after its end", name(&before)));
                }
                if after.mac.as_ref().is_some_and(|known| *known != mac) {
                    self.contradicts(format!("{} is another key than before", name(&before)));
                }
                self.check_new(place, &mac);
                if before.mac.is_some() {
                    self.history.note_sends(sends.all);
                }
                self.history.set(place, |object| object.mac = Some(mac));
            }
            Err(error) if self.is_excused(&error) => {}
            Err(error) if is_gone(&error) => {
                if after.is_there() {
                    self.denies(format!("{} is there and signing answered: {error}", name(&before)));
                }
            }
            Err(error) => self.contradicts(format!("signing with {} answered: {error}", name(&before))),
        }
    }

    /// A key of its own, with which the process has signed once.
    pub(crate) fn key_to_sign_with(&self) -> HandleObject {
        let session = self.open_session();
        let _ = self.log_in(session);
        let (_, label) = self.history.begin(self.number, 1);
        let mechanism = Mechanism::plain(M::GENERIC_SECRET_KEY_GEN);
        let made = self.module.generate_key(session, mechanism, key_template(&label));
        let key = made.expect("nothing is wrong yet");
        let _ = self.signs(session, key);
        key
    }

    /// Whether a signature comes.
    pub(crate) fn signs(&self, session: HandleSession, key: HandleObject) -> bool {
        self.timed("sign", || self.mac(session, key)).is_ok()
    }

    /// Nothing random twice: no two keys are the same.
    fn check_new(&self, place: usize, mac: &[u8]) {
        let same = |(at, other): &(usize, &Object)| *at != place && other.mac.as_deref() == Some(mac);
        let twin = self.history.objects().iter().enumerate().find(same).map(|(_, other)| name(other));
        if let Some(twin) = twin {
            self.world.fail(format!("object {place} and {twin} are the same key"));
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
        let Some(place) = self.any(|_| true) else { return };
        let before = self.history.get(place);
        let answer = self.timed("find", || {
            self.module
                .find_init(session, Template::from(vec![Attribute::new(A::LABEL, before.label.clone())]))?;
            let found = self.module.find(session, 10)?;
            self.module.find_final(session)?;
            Ok(found.len())
        });
        let after = self.history.get(place);
        let own = before.process == self.number && !before.inherited;
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
            Err(error) if self.is_excused(&error) => {}
            Err(error) => self.world.fail(format!("a search answered: {error}")),
        }
    }

    /// Searches for all keys: those that are there are among them and those that are gone are not (HA 2.5, 3.2, 3.4).
    fn list(&self, session: HandleSession) {
        let own = |object: &&Object| object.process == self.number && object.parts == 1 && !object.inherited;
        let before: Vec<Object> = self.history.objects().iter().filter(own).cloned().collect();
        let answer = self.timed("list", || {
            let keys = Attribute::ulong(A::CLASS, ObjectClass::SECRET_KEY.0);
            self.module.find_init(session, Template::from(vec![keys]))?;
            let found = self.module.find(session, 1_000)?;
            self.module.find_final(session)?;
            Ok(found)
        });
        let Ok(found) = answer else { return };
        let after: Vec<Object> = self.history.objects().iter().filter(own).cloned().collect();
        for (before, after) in before.iter().zip(&after) {
            let Some(handle) = self.handle(before).filter(|_| self.handle(after) == self.handle(before))
            else {
                continue;
            };
            let listed = found.contains(&handle);
            if before.is_there() && after.is_there() && !listed {
                self.contradicts(format!("{} is there and was not listed", name(before)));
            }
            if before.is_gone() && listed {
                self.contradicts(format!("{} is gone and was listed", name(before)));
            }
        }
    }

    /// Finds a key of which the process has no handle and signs with it: whoever has seen it once finds it everywhere
    /// (HA 3.1).
    fn borrow(&self, session: HandleSession) {
        let new = |object: &Object| object.parts == 1 && !object.handles.contains_key(&self.number);
        let Some(place) = self.any(new) else { return };
        let before = self.history.get(place);
        let template = Template::from(vec![Attribute::new(A::LABEL, before.label.clone())]);
        let found = self.timed("find another's", || {
            self.module.find_init(session, template)?;
            let found = self.module.find(session, 10)?;
            self.module.find_final(session)?;
            Ok(found)
        });
        let Some(key) = found.ok().and_then(|found| found.first().copied()) else { return };
        self.history.set(place, |object| {
            let _ = object.handles.insert(self.number, key);
        });
        let before = self.history.get(place);
        let answer = self.timed("sign with another's", || self.mac(session, key));
        self.drop_handle(place, &answer);
        if let Err(error) = answer
            && is_gone(&error)
            && !self.is_excused(&error)
            && before.is_there()
            && self.history.get(place).is_there()
        {
            self.denies(format!("{} was found, is there, and signing answered: {error}", name(&before)));
        }
    }

    /// A key is made, used and destroyed as if nothing had ever gone wrong.
    pub(crate) fn work_again(&self) {
        let session = self.open_session();
        if !self.log_in(session) {
            return;
        }
        let begun = self.world.now();
        let mechanism = Mechanism::plain(M::GENERIC_SECRET_KEY_GEN);
        let answer = self.timed("the last work", || {
            let key = self.module.generate_key(session, mechanism, key_template(b"the last"))?;
            self.mac(session, key)?;
            self.module.destroy_object(session, key)
        });
        let took_ms = (self.world.now() - begun) / MS;
        match answer {
            Ok(()) if took_ms <= WORK_AGAIN_MS_MAX => {}
            Ok(()) => self.world.fail(format!("work took {took_ms} ms after all faults had ended")),
            Err(error) => self.world.fail(format!("work after all faults had ended answered: {error}")),
        }
    }

    fn destroy(&self, session: HandleSession) {
        let Some(place) = self.own(|object| object.is_there()) else { return };
        let before = self.history.get(place);
        let Some(handle) = self.handle(&before) else { return };
        self.history.set(place, |object| object.destroy = Fate::Running);
        let connected = self.network.connections(self.number);
        let (answer, sends) = self.counted("destroy", || self.module.destroy_object(session, handle));
        self.drop_handle(place, &answer);
        match &answer {
            Ok(()) => {
                self.check_write_set("a destroy", &connected, &sends);
                if let Some(ouid) = before.ouids.last() {
                    self.check_copies("a destroy", *ouid, |state| state == 2);
                }
            }
            Err(error) if self.is_excused(error) => {}
            Err(error) => self.failed(format!("destroying {} answered: {error}", name(&before)), error),
        }
        // A destroy that failed may have reached members: only its success is sure.
        let fate = if answer.is_ok() { Fate::Done } else { Fate::Unknown };
        self.history.set(place, |object| object.destroy = fate);
    }
}

pub(crate) fn name(object: &Object) -> String {
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
