//! The module's static face: one life at a time, and every call of the standard as a safe function.
//!
//! ```text
//! not initialised --initialize--> alive --finalize--> not initialised
//!                                  |  ^
//!                                forked (inherited) --initialize--> alive, afresh (RULES 2.14)
//! ```
#![allow(private_interfaces, private_bounds, reason = "lives are found through a sealed trait")]

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};
use spec::messages::MechanismFacts;
use spec::platform::Platform;
use spec::seam::Seam;
use spec::trace::{Entered as Traced, Traces};
use spec::{
    AttributeType, HandleObject, HandleSession, Mechanism, MechanismType, Rv, SlotId, Template, UserType,
};
use zeroize::Zeroizing;

use crate::conf::{self, Configuration};
use crate::digest;
use crate::error::Result;
use crate::face::{
    AttributeResult, HaState, InitializeOptions, Produced, Room, SessionInfo, SlotInfo, TokenInfo,
};
use crate::page::Mapper;
use crate::process::{Driver, Process, Start, Through};
use crate::reload::Mark;
use crate::{encrypt, log, login, objects, random, sessions, sign, slots};

/// The module. One static of it stands in the C boundary. Every call errs with CKR_CRYPTOKI_NOT_INITIALIZED outside a
/// life, and otherwise as the standard's section of the C function of the same name says.
pub struct Module<L: Life = Root> {
    life: L,
}

/// Every life of the module, one after the other.
pub struct Root {
    life: ArcSwapOption<Process>,
    mapper: OnceLock<&'static dyn Mapper>,
    traces: Traces,
}

/// The life in which one call runs, looked up once.
pub struct Entered(Guard<Option<Arc<Process>>>);

/// Where the calls of a module find its life.
pub trait Life: sealed::Life {}

impl<L: sealed::Life> Life for L {}

mod sealed {
    use super::{Arc, Deref, Process};

    pub trait Life {
        fn process(&self) -> impl Deref<Target = Option<Arc<Process>>>;
    }
}

impl sealed::Life for Root {
    fn process(&self) -> impl Deref<Target = Option<Arc<Process>>> {
        self.life.load()
    }
}

impl sealed::Life for Entered {
    fn process(&self) -> impl Deref<Target = Option<Arc<Process>>> {
        &*self.0
    }
}

impl Default for Module {
    fn default() -> Self {
        Self::new()
    }
}

impl Module {
    /// A module that is not initialised.
    pub const fn new() -> Self {
        Self {
            life: Root { life: ArcSwapOption::const_empty(), mapper: OnceLock::new(), traces: Traces::new() },
        }
    }

    /// The module in its present life, for one call; `None` when it is not initialised. It keeps that life in memory, and
    /// C_Finalize ends it all the same.
    pub fn enter(&self) -> Option<Module<Entered>> {
        let life = self.life.life.load();
        life.is_some().then(|| Module { life: Entered(life) })
    }

    /// A call of the application begins: until what is returned is dropped, its number stands in each line that is logged and
    /// in each request that is sent by this thread.
    pub fn trace(&self) -> Traced {
        self.life.traces.enter()
    }

    fn seed_traces(&self, platform: &dyn Platform) {
        let mut seed = [0; 8];
        platform.random(&mut seed);
        self.life.traces.seed(u64::from_le_bytes(seed));
    }

    /// Every life that begins from now on keeps metrics pages, mapped so ([`spec::stats`]). The first mapper given stays.
    pub fn map_pages_with(&self, mapper: &'static dyn Mapper) {
        let _ = self.life.mapper.set(mapper);
    }

    /// C_Initialize (PKCS #11 v3.1, 5.4.1). Reads the configuration; no network I/O, and members may all be down.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_ALREADY_INITIALIZED; CKR_GENERAL_ERROR for a malformed configuration (RULES 2.13).
    pub fn initialize(&self, options: InitializeOptions) -> Result<()> {
        self.check_dead()?;
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let mark = Mark::of(&conf::folder().join(conf::FILE_NAME));
        let configuration = conf::load().inspect_err(|error| log::fault(&platform, &error.to_string()))?;
        let driver = Driver::Links(Arc::new(ntls::instance::InstanceKey::generate()));
        self.begin((configuration, mark), platform, driver, options)
    }

    /// As [`Module::initialize`], over a given seam, platform and configuration: partitions in the process, a
    /// simulated network.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_ALREADY_INITIALIZED.
    pub fn initialize_over(
        &self,
        seam: Arc<dyn Seam>,
        platform: Arc<dyn Platform>,
        configuration: Configuration,
        options: InitializeOptions,
    ) -> Result<()> {
        self.check_dead()?;
        self.begin(given(configuration), platform, Driver::Given(seam), options)
    }

    /// As [`Module::initialize`], over a given platform and configuration, with links of its own to the servers of that
    /// configuration and what `through` puts between them and the calls: the simulated world looks at what passes.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_ALREADY_INITIALIZED.
    pub fn initialize_through(
        &self,
        platform: Arc<dyn Platform>,
        configuration: Configuration,
        through: Through,
        options: InitializeOptions,
    ) -> Result<()> {
        self.check_dead()?;
        let driver = Driver::LinksThrough(Arc::new(ntls::instance::InstanceKey::generate()), through);
        self.begin(given(configuration), platform, driver, options)
    }

    fn check_dead(&self) -> Result<()> {
        match &*self.life.life.load() {
            Some(process) if !process.is_inherited() => Err(Rv::CRYPTOKI_ALREADY_INITIALIZED.into()),
            _ => Ok(()),
        }
    }

    fn begin(
        &self,
        (configuration, mark): (Option<Configuration>, Option<Mark>),
        platform: Arc<dyn Platform>,
        driver: Driver,
        options: InitializeOptions,
    ) -> Result<()> {
        self.seed_traces(&*platform);
        let process = Process::new(Start {
            configuration,
            mark,
            platform,
            driver,
            may_create_threads: options.may_create_threads,
            mapper: self.life.mapper.get().copied(),
        });
        if let Some(conf) = &*process.configuration() {
            log::begin(&process.platform, &conf.hatoki);
            for warning in &conf.warnings {
                tracing::warn!("{warning}");
            }
        }
        let previous = self.life.life.load_full();
        if previous.as_ref().is_some_and(|previous| !previous.is_inherited()) {
            return Err(Rv::CRYPTOKI_ALREADY_INITIALIZED.into());
        }
        let seen = self.life.life.compare_and_swap(&previous, Some(process));
        let won = match (&*seen, &previous) {
            (None, None) => true,
            (Some(seen), Some(previous)) => Arc::ptr_eq(seen, previous),
            _ => false,
        };
        if !won {
            return Err(Rv::CRYPTOKI_ALREADY_INITIALIZED.into());
        }
        if let Some(inherited) = previous {
            inherited.world().close();
        }
        Ok(())
    }

    /// C_Finalize (PKCS #11 v3.1, 5.4.2): gives members that can be reached what they owe (HA 2.5), for a second at most, and joins
    /// the threads; in a forked child touches nothing of the parent.
    ///
    /// # Errors
    /// CKR_CRYPTOKI_NOT_INITIALIZED.
    pub fn finalize(&self) -> Result<()> {
        let logged = log::life();
        let process = self.life.life.swap(None).ok_or(Rv::CRYPTOKI_NOT_INITIALIZED)?;
        process.world().close();
        log::end(logged);
        Ok(())
    }

    /// The first call in a forked child: an empty `World`; sessions, handles and logins stay (HA 6).
    pub fn forked(&self) {
        if let Some(process) = &*self.life.life.load() {
            self.seed_traces(&*process.platform);
            process.forked();
        }
    }
}

impl<L: Life> Module<L> {
    /// Whether the module is alive.
    pub fn is_initialized(&self) -> bool {
        self.life.process().is_some()
    }

    fn run<T>(&self, call: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        let life = self.life.process();
        call(life.as_ref().ok_or(Rv::CRYPTOKI_NOT_INITIALIZED)?)
    }

    // Slots and tokens.

    /// C_GetSlotList.
    pub fn slots(&self, token_present: bool) -> Result<Vec<SlotId>> {
        self.run(|process| slots::list(process, token_present))
    }

    /// C_GetSlotInfo.
    pub fn slot_info(&self, slot: SlotId) -> Result<SlotInfo> {
        self.run(|process| slots::slot_info(process, slot))
    }

    /// C_GetTokenInfo.
    pub fn token_info(&self, slot: SlotId) -> Result<TokenInfo> {
        self.run(|process| slots::token_info(process, slot))
    }

    /// CA_GetHAState: how the members of a group stand, from what is known; nothing is sent. CKR_SLOT_ID_INVALID for a slot
    /// without a group.
    pub fn ha_state(&self, slot: SlotId) -> Result<HaState> {
        self.run(|process| slots::ha_state(process, slot))
    }

    /// C_GetMechanismList.
    pub fn mechanisms(&self, slot: SlotId) -> Result<Vec<MechanismType>> {
        self.run(|process| {
            let facts = slots::mechanisms(process, slot)?;
            Ok(facts.iter().map(|facts| MechanismType(facts.number)).collect())
        })
    }

    /// C_GetMechanismInfo.
    pub fn mechanism_info(&self, slot: SlotId, mechanism: MechanismType) -> Result<MechanismFacts> {
        self.run(|process| slots::mechanism_info(process, slot, mechanism))
    }

    /// C_WaitForSlotEvent: a group has entered or left the configuration, or its generation has changed (RULES 2.11).
    /// CKR_NO_EVENT when nothing has happened and it may not block; C_Finalize ends the wait of one that may.
    pub fn wait_for_slot_event(&self, block: bool) -> Result<SlotId> {
        let process = self.life.process().clone().ok_or(Rv::CRYPTOKI_NOT_INITIALIZED)?;
        let world = process.world().into_inner();
        world.upkeep(&process);
        match world.events().take() {
            Some(slot) => Ok(slot),
            None if block => world.wait_for_event(&process),
            None => Err(Rv::NO_EVENT.into()),
        }
    }

    // Sessions and login.

    /// C_OpenSession; `flags` are those of `spec::flags::session`.
    pub fn open_session(&self, slot: SlotId, flags: u64) -> Result<HandleSession> {
        self.run(|process| sessions::open(process, slot, flags))
    }

    /// What every call with a session answers before it looks at its other arguments (PKCS #11 v3.1, 5.1.2):
    /// CKR_SESSION_HANDLE_INVALID; CKR_DEVICE_REMOVED while the slot's group is not in the configuration.
    pub fn check_session(&self, session: HandleSession) -> Result<()> {
        self.run(|process| sessions::check(process, session))
    }

    /// C_CloseSession.
    pub fn close_session(&self, session: HandleSession) -> Result<()> {
        self.run(|process| sessions::close(process, session))
    }

    /// C_CloseAllSessions.
    pub fn close_all_sessions(&self, slot: SlotId) -> Result<()> {
        self.run(|process| sessions::close_all(process, slot))
    }

    /// C_GetSessionInfo.
    pub fn session_info(&self, session: HandleSession) -> Result<SessionInfo> {
        self.run(|process| sessions::info(process, session))
    }

    /// C_SessionCancel; `flags` name operations as in `spec::flags::mechanism`.
    pub fn session_cancel(&self, session: HandleSession, flags: u64) -> Result<()> {
        self.run(|process| sessions::cancel(process, session, flags))
    }

    /// C_Login. The PIN is wiped everywhere but in the caller's buffer when this returns.
    pub fn login(&self, session: HandleSession, user: UserType, pin: Option<&[u8]>) -> Result<()> {
        self.run(|process| login::log_in(process, session, user, pin))
    }

    /// C_Logout.
    pub fn logout(&self, session: HandleSession) -> Result<()> {
        self.run(|process| login::log_out(process, session))
    }

    /// C_SetPIN.
    pub fn set_pin(&self, session: HandleSession, old: Option<&[u8]>, new: Option<&[u8]>) -> Result<()> {
        self.run(|process| login::set_pin(process, session, old, new))
    }

    // Objects.

    /// C_CreateObject.
    pub fn create_object(&self, session: HandleSession, template: Template) -> Result<HandleObject> {
        self.run(|process| objects::create(process, session, template))
    }

    /// C_CopyObject.
    pub fn copy_object(
        &self,
        session: HandleSession,
        object: HandleObject,
        template: Template,
    ) -> Result<HandleObject> {
        self.run(|process| objects::copy(process, session, object, template))
    }

    /// C_DestroyObject.
    pub fn destroy_object(&self, session: HandleSession, object: HandleObject) -> Result<()> {
        self.run(|process| objects::destroy(process, session, object))
    }

    /// C_GetObjectSize: bytes of a session object's blob; `UNAVAILABLE_INFORMATION` for token objects.
    pub fn object_size(&self, session: HandleSession, object: HandleObject) -> Result<u64> {
        self.run(|process| objects::size(process, session, object))
    }

    /// C_GetAttributeValue: one result for each attribute asked for, in that order.
    pub fn get_attributes(
        &self,
        session: HandleSession,
        object: HandleObject,
        attributes: &[AttributeType],
    ) -> Result<Vec<AttributeResult>> {
        self.run(|process| objects::get(process, session, object, attributes))
    }

    /// C_SetAttributeValue.
    pub fn set_attributes(
        &self,
        session: HandleSession,
        object: HandleObject,
        template: Template,
    ) -> Result<()> {
        self.run(|process| objects::set(process, session, object, template))
    }

    /// C_FindObjectsInit: the whole result is taken now, in ouid order (RULES 2.4).
    pub fn find_init(&self, session: HandleSession, template: Template) -> Result<()> {
        self.run(|process| objects::find_init(process, session, template))
    }

    /// C_FindObjects: at most `max` more.
    pub fn find(&self, session: HandleSession, max: usize) -> Result<Vec<HandleObject>> {
        self.run(|process| objects::find(process, session, max))
    }

    /// C_FindObjectsFinal.
    pub fn find_final(&self, session: HandleSession) -> Result<()> {
        self.run(|process| objects::find_final(process, session))
    }

    /// C_GenerateKey.
    pub fn generate_key(
        &self,
        session: HandleSession,
        mechanism: Mechanism,
        template: Template,
    ) -> Result<HandleObject> {
        self.run(|process| objects::generate_key(process, session, &mechanism, template))
    }

    /// C_GenerateKeyPair: the handles of the public and of the private key.
    pub fn generate_key_pair(
        &self,
        session: HandleSession,
        mechanism: Mechanism,
        public: Template,
        private: Template,
    ) -> Result<(HandleObject, HandleObject)> {
        self.run(|process| objects::generate_key_pair(process, session, &mechanism, public, private))
    }

    // Signing and verifying.

    /// C_SignInit; no mechanism cancels.
    pub fn sign_init(
        &self,
        session: HandleSession,
        mechanism: Option<Mechanism>,
        key: HandleObject,
    ) -> Result<()> {
        self.run(|process| sign::sign_init(process, session, mechanism, key))
    }

    /// C_Sign.
    pub fn sign(&self, session: HandleSession, data: &[u8], room: Room) -> Result<Produced> {
        self.run(|process| sign::sign(process, session, data, room))
    }

    /// C_SignUpdate.
    pub fn sign_update(&self, session: HandleSession, part: &[u8]) -> Result<()> {
        self.run(|process| sign::sign_update(process, session, part))
    }

    /// C_SignFinal.
    pub fn sign_final(&self, session: HandleSession, room: Room) -> Result<Produced> {
        self.run(|process| sign::sign_final(process, session, room))
    }

    /// C_VerifyInit; no mechanism cancels.
    pub fn verify_init(
        &self,
        session: HandleSession,
        mechanism: Option<Mechanism>,
        key: HandleObject,
    ) -> Result<()> {
        self.run(|process| sign::verify_init(process, session, mechanism, key))
    }

    /// C_Verify.
    pub fn verify(&self, session: HandleSession, data: &[u8], signature: &[u8]) -> Result<()> {
        self.run(|process| sign::verify(process, session, data, signature))
    }

    /// C_VerifyUpdate.
    pub fn verify_update(&self, session: HandleSession, part: &[u8]) -> Result<()> {
        self.run(|process| sign::verify_update(process, session, part))
    }

    /// C_VerifyFinal.
    pub fn verify_final(&self, session: HandleSession, signature: &[u8]) -> Result<()> {
        self.run(|process| sign::verify_final(process, session, signature))
    }

    // Encrypting and decrypting.

    /// C_EncryptInit; no mechanism cancels.
    pub fn encrypt_init(
        &self,
        session: HandleSession,
        mechanism: Option<Mechanism>,
        key: HandleObject,
    ) -> Result<()> {
        self.run(|process| encrypt::encrypt_init(process, session, mechanism, key))
    }

    /// C_Encrypt.
    pub fn encrypt(&self, session: HandleSession, data: &[u8], room: Room) -> Result<Produced> {
        self.run(|process| encrypt::encrypt(process, session, data, room))
    }

    /// C_EncryptUpdate.
    pub fn encrypt_update(&self, session: HandleSession, part: &[u8], room: Room) -> Result<Produced> {
        self.run(|process| encrypt::encrypt_update(process, session, part, room))
    }

    /// C_EncryptFinal.
    pub fn encrypt_final(&self, session: HandleSession, room: Room) -> Result<Produced> {
        self.run(|process| encrypt::encrypt_final(process, session, room))
    }

    /// C_DecryptInit; no mechanism cancels.
    pub fn decrypt_init(
        &self,
        session: HandleSession,
        mechanism: Option<Mechanism>,
        key: HandleObject,
    ) -> Result<()> {
        self.run(|process| encrypt::decrypt_init(process, session, mechanism, key))
    }

    /// C_Decrypt.
    pub fn decrypt(&self, session: HandleSession, data: &[u8], room: Room) -> Result<Produced> {
        self.run(|process| encrypt::decrypt(process, session, data, room))
    }

    /// C_DecryptUpdate.
    pub fn decrypt_update(&self, session: HandleSession, part: &[u8], room: Room) -> Result<Produced> {
        self.run(|process| encrypt::decrypt_update(process, session, part, room))
    }

    /// C_DecryptFinal.
    pub fn decrypt_final(&self, session: HandleSession, room: Room) -> Result<Produced> {
        self.run(|process| encrypt::decrypt_final(process, session, room))
    }

    // Digesting.

    /// C_DigestInit; no mechanism cancels.
    pub fn digest_init(&self, session: HandleSession, mechanism: Option<Mechanism>) -> Result<()> {
        self.run(|process| digest::init(process, session, mechanism))
    }

    /// C_Digest.
    pub fn digest(&self, session: HandleSession, data: &[u8], room: Room) -> Result<Produced> {
        self.run(|process| digest::whole(process, session, data, room))
    }

    /// C_DigestUpdate.
    pub fn digest_update(&self, session: HandleSession, part: &[u8]) -> Result<()> {
        self.run(|process| digest::update(process, session, part))
    }

    /// C_DigestKey: CKR_KEY_INDIGESTIBLE unless the key's value may be read.
    pub fn digest_key(&self, session: HandleSession, key: HandleObject) -> Result<()> {
        self.run(|process| digest::key(process, session, key))
    }

    /// C_DigestFinal.
    pub fn digest_final(&self, session: HandleSession, room: Room) -> Result<Produced> {
        self.run(|process| digest::last(process, session, room))
    }

    // Chance.

    /// C_GenerateRandom.
    pub fn random(&self, session: HandleSession, bytes: usize) -> Result<Zeroizing<Vec<u8>>> {
        self.run(|process| random::generate(process, session, bytes))
    }

    /// C_SeedRandom: CKR_RANDOM_SEED_NOT_SUPPORTED (RULES 2.17).
    pub fn seed_random(&self, session: HandleSession, _seed: &[u8]) -> Result<()> {
        self.run(|process| {
            process.session(session)?;
            Err(Rv::RANDOM_SEED_NOT_SUPPORTED.into())
        })
    }
}

/// A configuration that the caller has read, with the mark of its file, where it has one.
fn given(configuration: Configuration) -> (Option<Configuration>, Option<Mark>) {
    let mark = Mark::of(&configuration.file);
    (Some(configuration), mark)
}
