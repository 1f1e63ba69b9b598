//! Who asks for memory, and which locks are taken, in a warm call over a real TLS link (DESIGN 3). Each time that a calling thread does, the way there is kept:
//! whichever of our crates or rustls stands innermost in it has asked. rustls may; we have memory from before.
#![allow(clippy::unwrap_used)]

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;

use client::{InitializeOptions, Module, Produced, Room};
use ntls::frame::{Frame, encode};
use ntls::links::Links;
use ntls::platform::System;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::platform::when_locked;
use spec::seam::Seam;
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, Mechanism, MechanismType as M, Parameters,
    SlotId, Template, UserType,
};
use tests::lab::Lab;
use tests::memory::Told;

/// The crates of the module, by their folders.
const OURS: &[&str] = &["spec", "digests", "awsraw", "ha", "ntls", "client", "pkcs11"];
/// Calls of each thread before, and while, it is watched.
const WARM: usize = 200;
const CALLS: usize = 25;
/// How often it is watched: what is needed once and kept is asked for when the host lets it happen.
const ROUNDS: usize = 4;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static WAYS: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

/// Keeps how a watched thread came to ask the system for memory.
fn ask() {
    // A thread that is being taken down is not watched any more.
    if WATCHED.try_with(|watched| watched.replace(false)).unwrap_or_default() {
        WAYS.with_borrow_mut(|ways| ways.push(Backtrace::force_capture()));
        WATCHED.set(true);
    }
}

#[global_allocator]
static MEMORY: Told = Told(ask);

/// The ways to the allocator while the calling thread does something.
fn watched(act: impl FnOnce()) -> Vec<Backtrace> {
    WATCHED.set(true);
    act();
    WATCHED.set(false);
    WAYS.take()
}

/// Who has asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// A crate of ours: file and line.
    We(String),
    /// rustls, or what it calls: file and line within it.
    Rustls(String),
    /// Neither: the test itself.
    Nobody,
}

fn who(way: &Backtrace) -> Who {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = way.to_string();
    // A frame is a line with the function and, for code whose lines are known, a line with the file: `at FILE:LINE:COLUMN`.
    let places = text.lines().filter_map(|line| line.trim_start().strip_prefix("at "));
    for place in places {
        let (file, _column) = place.rsplit_once(':').unwrap();
        let inside = Path::new(file).strip_prefix(root).unwrap_or(Path::new(file));
        let mut folders = inside.components().map(|part| part.as_os_str().to_string_lossy());
        if !inside.is_absolute() && folders.next().is_some_and(|folder| OURS.contains(&&*folder)) {
            return Who::We(inside.display().to_string());
        }
        if let Some((_, inside)) = file.split_once("/rustls-0") {
            return Who::Rustls(format!("rustls-0{inside}"));
        }
    }
    Who::Nobody
}

/// How often each has asked.
fn counted(ways: &[Backtrace]) -> BTreeMap<Who, usize> {
    let mut all = BTreeMap::new();
    for way in ways {
        *all.entry(who(way)).or_default() += 1;
    }
    all
}

/// The module of this process with links to the appliances of a lab.
fn module(lab: &Lab) -> Module {
    let folder = Path::new(lab.value("ChrystokiConfigurationPath"));
    let configuration = client::conf::location::load_from(folder).unwrap().unwrap();
    let module = Module::new();
    let options = InitializeOptions { may_create_threads: true };
    let bare = Arc::new(|links: &Arc<Links>| -> Arc<dyn Seam> { links.clone() });
    module.initialize_through(Arc::new(System), configuration, bare, options).unwrap();
    module
}

/// The keys of the calls.
#[derive(Clone, Copy)]
struct Keys {
    p256: HandleObject,
    aes: HandleObject,
    mac: HandleObject,
}

impl Keys {
    fn new(module: &Module, session: HandleSession) -> Self {
        let oid = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let public = vec![Attribute::new(A::EC_PARAMS, oid), Attribute::bool(A::VERIFY, true)];
        let private = vec![Attribute::bool(A::TOKEN, true), Attribute::bool(A::SIGN, true)];
        let generate = Mechanism::plain(M::EC_KEY_PAIR_GEN);
        let pair = module.generate_key_pair(session, generate, public.into(), private.into());
        let mut secret = vec![Attribute::bool(A::TOKEN, true), Attribute::ulong(A::VALUE_LEN, 32)];
        secret.extend([A::ENCRYPT, A::DECRYPT].map(|one| Attribute::bool(one, true)));
        let generate = Mechanism::plain(M::AES_KEY_GEN);
        let aes = module.generate_key(session, generate, Template::from(secret));
        let mut secret = vec![Attribute::bool(A::TOKEN, true), Attribute::ulong(A::VALUE_LEN, 32)];
        secret.extend([A::SIGN, A::VERIFY].map(|one| Attribute::bool(one, true)));
        let generate = Mechanism::plain(M::GENERIC_SECRET_KEY_GEN);
        let mac = module.generate_key(session, generate, Template::from(secret));
        Self { p256: pair.unwrap().1, aes: aes.unwrap(), mac: mac.unwrap() }
    }
}

/// Puts an output into memory of the caller's, as the C border does; how long it is.
fn take(produced: Produced, memory: &mut [u8]) -> usize {
    let Produced::Bytes(bytes) = produced else { panic!("wanted an output") };
    let length = bytes.len();
    memory[..length].copy_from_slice(&bytes);
    client::give_back(bytes);
    length
}

/// Requests of one [`call`].
const REQUESTS: usize = 5;

/// A signature, an encryption and a decryption of 1 KiB, a MAC and its verification.
fn call(module: &Module, session: HandleSession, keys: Keys) {
    let (mut sealed, mut clear, room) = ([0; 2_048], [0; 2_048], Room::Bytes(2_048));
    module.sign_init(session, Some(Mechanism::plain(M::ECDSA)), keys.p256).unwrap();
    take(module.sign(session, &[0x5a; 32], room).unwrap(), &mut clear);
    let mechanism = || {
        let iv = client::parameter_bytes(&[5; 12]);
        let parameters = Parameters::Gcm { iv, aad: Vec::new(), tag_bits: 128 };
        Some(Mechanism { mechanism_type: M::AES_GCM, parameters })
    };
    module.encrypt_init(session, mechanism(), keys.aes).unwrap();
    let length = take(module.encrypt(session, &[7; 1_024], room).unwrap(), &mut sealed);
    module.decrypt_init(session, mechanism(), keys.aes).unwrap();
    let length = take(module.decrypt(session, &sealed[..length], room).unwrap(), &mut clear);
    assert_eq!(clear[..length], [7; 1_024]);
    let hmac = || Some(Mechanism::plain(M::SHA256_HMAC));
    module.sign_init(session, hmac(), keys.mac).unwrap();
    let length = take(module.sign(session, &[7; 1_024], room).unwrap(), &mut sealed);
    module.verify_init(session, hmac(), keys.mac).unwrap();
    module.verify(session, &[7; 1_024], &sealed[..length]).unwrap();
}

/// What so many threads ask for in warm calls, all at the same time.
fn asked(module: &Module, keys: Keys, threads: usize) -> BTreeMap<Who, usize> {
    let ready = Barrier::new(threads);
    let one = || {
        let session = module.open_session(SlotId(0), SERIAL_SESSION | RW_SESSION).unwrap();
        (0..WARM).for_each(|_| call(module, session, keys));
        ready.wait();
        let ways = watched(|| (0..CALLS).for_each(|_| call(module, session, keys)));
        module.close_session(session).unwrap();
        ways
    };
    let ways: Vec<Backtrace> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    counted(&ways)
}

/// One member, a module with links to it and a login, and keys.
fn logged_in() -> (Lab, Module, Keys) {
    let lab = Lab::up(1);
    let module = module(&lab);
    let session = module.open_session(SlotId(0), SERIAL_SESSION | RW_SESSION).unwrap();
    module.login(session, UserType::USER, Some(lab.value("P11_PIN").as_bytes())).unwrap();
    let keys = Keys::new(&module, session);
    (lab, module, keys)
}

/// One member: of two, a request that is answered late is sent to the other one too, and what is left of it is cancelled.
#[test]
fn a_warm_call_over_tls_asks_for_no_memory_but_rustls_does() {
    let (_lab, module, keys) = logged_in();
    for threads in [1, 4] {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| asked(&module, keys, threads)).collect();
        println!("{threads} threads, {} requests in each round: {rounds:#?}", REQUESTS * CALLS * threads);
        let is_theirs = |who: &Who| matches!(who, Who::Rustls(_));
        assert!(rounds.iter().any(|asked| asked.keys().all(is_theirs)), "{rounds:#?}");
    }
    module.finalize().unwrap();
}

thread_local!(static LOCKED: RefCell<Vec<&'static Location<'static>>> = const { RefCell::new(Vec::new()) });

fn note(place: &'static Location<'static>) {
    LOCKED.with_borrow_mut(|locked| locked.push(place));
}

/// Sessions share the link's own lock, which is never held across a system call (ADR 0007), and none besides. A thread's
/// mailbox has one, which only who reads its reply takes too.
#[test]
fn a_warm_call_over_tls_takes_no_lock_but_those_of_its_link_and_its_mailbox() {
    let (_lab, module, keys) = logged_in();
    for threads in [1, 4] {
        let locked = || {
            let session = module.open_session(SlotId(0), SERIAL_SESSION | RW_SESSION).unwrap();
            (0..WARM).for_each(|_| call(&module, session, keys));
            when_locked(Some(note));
            (0..CALLS).for_each(|_| call(&module, session, keys));
            when_locked(None);
            LOCKED.take()
        };
        let places: BTreeSet<String> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(locked)).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).map(ToString::to_string).collect()
        });
        println!("{threads} threads: {places:#?}");
        let is_known = |place: &String| {
            ["ntls/src/link", "ntls/src/duty.rs:", "spec/src/seam.rs:"]
                .iter()
                .any(|known| place.starts_with(known))
        };
        assert!(places.iter().any(|place| place.starts_with("ntls/src/link")), "locks are counted");
        assert!(places.iter().all(is_known), "{places:#?}");
    }
    module.finalize().unwrap();
}

#[test]
fn whoever_asks_is_known_by_the_way_to_the_allocator() {
    let own = watched(|| drop(std::hint::black_box(vec![0u8; 10])));
    assert_eq!(counted(&own), BTreeMap::from([(Who::Nobody, 1)]));
    let frame = Frame::Cancel(7);
    let ours = counted(&watched(|| drop(std::hint::black_box(encode(&frame)))));
    let is_frame = |who: &Who| matches!(who, Who::We(place) if place.starts_with("ntls/src/frame.rs:"));
    assert!(!ours.is_empty() && ours.keys().all(is_frame), "{ours:?}");
}
