//! What a call on a warm session costs the client besides the member's answer: allocations and locks, counted (DESIGN 3). The
//! member is one that answers at once, so that nothing but the module is counted.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use client::{InitializeOptions, Module, Produced, Room};
use hatoki::Surroundings;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::messages::ReplyHeader;
use spec::platform::{Moment, when_locked};
use spec::seam::{Event, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, Mechanism, MechanismType as M, Parameters,
    SlotId, Template, UserType,
};
use tests::inside::{Group, PIN};
use tests::memory::Told;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
    static REPEATS: Cell<bool> = const { Cell::new(false) };
    static PLACES: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts what the calling thread asks the system for.
fn ask() {
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

#[global_allocator]
static MEMORY: Told = Told(ask);

/// Members that answer at once with what a real one has answered before, once the calling thread wants them to.
struct AtOnce {
    real: Arc<dyn Seam>,
    recorded: OnceLock<(ReplyHeader, Vec<u8>)>,
    next: AtomicU64,
}

impl Seam for AtOnce {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        if !REPEATS.get() {
            return self.real.submit(waiter, member, request, deadline);
        }
        if let Some((header, body)) = self.recorded.get() {
            let tag = Tag(1 << 63 | self.next.fetch_add(1, Ordering::Relaxed));
            let mut memory = waiter.lend().unwrap_or_default();
            memory.extend_from_slice(body);
            let header = ReplyHeader { tag: tag.0, ..header.clone() };
            waiter.deliver(Event::Reply(tag, Reply { header, body: memory }));
            return tag;
        }
        self.real.submit(waiter, member, request, deadline);
        let Some(Event::Reply(tag, reply)) = waiter.take().filter(|event| matches!(event, Event::Reply(..)))
        else {
            panic!("a member answers at once")
        };
        let _ = self.recorded.set((reply.header.clone(), reply.body.to_vec()));
        waiter.deliver(Event::Reply(tag, reply));
        tag
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        self.real.cancel(member, tag);
    }

    fn standing(&self, _: MemberId) -> Standing {
        Standing::Up { since: Moment(1), heard: Moment::NEVER }
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        self.real.abandon(member, reason);
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.real.subscribe(waiter);
    }
}

/// A module over two such members.
struct Bench {
    module: Module,
    session: HandleSession,
}

impl Bench {
    fn new() -> Self {
        let group = Group::new(2);
        let Surroundings { seam: real, platform, configuration } = group.surroundings();
        let seam = Arc::new(AtOnce { real, recorded: OnceLock::new(), next: AtomicU64::new(1) });
        let module = Module::new();
        let options = InitializeOptions { may_create_threads: true };
        module.initialize_over(seam, platform, configuration, options).unwrap();
        let session = module.open_session(SlotId(0), SERIAL_SESSION | RW_SESSION).unwrap();
        module.login(session, UserType::USER, Some(PIN.as_bytes())).unwrap();
        Self { module, session }
    }

    fn p256(&self) -> HandleObject {
        self.p256_pair().1
    }

    /// The public key, and the private one.
    fn p256_pair(&self) -> (HandleObject, HandleObject) {
        let oid = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        self.pair(M::EC_KEY_PAIR_GEN, Attribute::new(A::EC_PARAMS, oid))
    }

    /// The same of a key pair that is generated so.
    fn pair(&self, generate: M, kind: Attribute) -> (HandleObject, HandleObject) {
        let public = Template::from(vec![kind, Attribute::bool(A::VERIFY, true)]);
        let private = Template::from(vec![Attribute::bool(A::TOKEN, true), Attribute::bool(A::SIGN, true)]);
        self.module.generate_key_pair(self.session, Mechanism::plain(generate), public, private).unwrap()
    }

    fn secret(&self, generate: M, uses: &[A]) -> HandleObject {
        let mut template = vec![Attribute::bool(A::TOKEN, true), Attribute::ulong(A::VALUE_LEN, 32)];
        template.extend(uses.iter().map(|one| Attribute::bool(*one, true)));
        let template = Template::from(template);
        self.module.generate_key(self.session, Mechanism::plain(generate), template).unwrap()
    }

    /// What a hundred calls, warm, ask the allocator for, and the locks that one of them takes, by place. The least of a few
    /// hundreds: what is learnt of a member when it is first chosen is kept, and when that is depends on the host.
    fn counted(&self, call: &dyn Fn()) -> (u64, BTreeMap<String, u64>) {
        call();
        REPEATS.set(true);
        (0..100).for_each(|_| call());
        let hundred = |_| {
            let before = ASKED.get();
            (0..100).for_each(|_| call());
            ASKED.get() - before
        };
        let asked = (0..4).map(hundred).min().unwrap();
        when_locked(Some(note));
        call();
        when_locked(None);
        (asked, PLACES.take())
    }
}

fn note(place: &'static Location<'static>) {
    PLACES.with_borrow_mut(|places| *places.entry(place.file().to_owned()).or_default() += 1);
}

/// Reads an output as the C border does.
fn take(produced: Produced) {
    let Produced::Bytes(bytes) = produced else { panic!("wanted an output") };
    client::give_back(bytes);
}

const ROOM: Room = Room::Bytes(512);

#[test]
fn a_warm_signature_allocates_nothing_and_takes_no_lock() {
    let bench = Bench::new();
    let key = bench.p256();
    let (asked, places) = bench.counted(&|| {
        bench.module.sign_init(bench.session, Some(Mechanism::plain(M::ECDSA)), key).unwrap();
        take(bench.module.sign(bench.session, &[0x5a; 32], ROOM).unwrap());
    });
    assert_eq!(asked, 0, "allocations in a hundred signatures");
    assert!(places.is_empty(), "{places:?}");
}

#[test]
fn a_warm_verification_on_a_member_allocates_nothing_and_takes_no_lock() {
    let bench = Bench::new();
    let key = bench.secret(M::GENERIC_SECRET_KEY_GEN, &[A::SIGN, A::VERIFY]);
    let mechanism = || Some(Mechanism::plain(M::SHA256_HMAC));
    bench.module.sign_init(bench.session, mechanism(), key).unwrap();
    let Produced::Bytes(mac) = bench.module.sign(bench.session, b"data", ROOM).unwrap() else {
        panic!("wanted a MAC")
    };
    let (asked, places) = bench.counted(&|| {
        bench.module.verify_init(bench.session, mechanism(), key).unwrap();
        bench.module.verify(bench.session, b"data", &mac).unwrap();
    });
    assert_eq!(asked, 0, "allocations in a hundred verifications");
    assert!(places.is_empty(), "{places:?}");
}

#[test]
fn a_warm_verification_here_asks_for_no_memory_and_takes_no_lock() {
    let ec = |bench: &Bench| (M::ECDSA_SHA256, bench.p256_pair());
    let rsa = |bench: &Bench| {
        let bits = Attribute::ulong(A::MODULUS_BITS, 2_048);
        (M::SHA256_RSA_PKCS, bench.pair(M::RSA_PKCS_KEY_PAIR_GEN, bits))
    };
    for keys in [&ec as &dyn Fn(&Bench) -> _, &rsa] {
        let bench = Bench::new();
        let (kind, (public, private)) = keys(&bench);
        let mechanism = || Some(Mechanism::plain(kind));
        bench.module.sign_init(bench.session, mechanism(), private).unwrap();
        let Produced::Bytes(signature) = bench.module.sign(bench.session, b"data", ROOM).unwrap() else {
            panic!("wanted a signature")
        };
        let verify = |data: &[u8]| {
            bench.module.verify_init(bench.session, mechanism(), public).unwrap();
            bench.module.verify(bench.session, data, &signature)
        };
        let (asked, places) = bench.counted(&|| verify(b"data").unwrap());
        assert_eq!(asked, 0, "allocations in a hundred verifications by {kind:?}");
        assert!(places.is_empty(), "{places:?}");
        // Members would repeat themselves.
        assert_eq!(verify(b"other").unwrap_err().rv(), spec::Rv::SIGNATURE_INVALID);
        REPEATS.set(false);
    }
}

#[test]
fn warm_encryption_and_decryption_allocate_nothing_and_take_no_lock() {
    let bench = Bench::new();
    let key = bench.secret(M::AES_KEY_GEN, &[A::ENCRYPT, A::DECRYPT]);
    let mechanism = || Some(Mechanism::plain(M::AES_ECB));
    let (asked, places) = bench.counted(&|| {
        bench.module.encrypt_init(bench.session, mechanism(), key).unwrap();
        take(bench.module.encrypt(bench.session, &[7; 64], ROOM).unwrap());
        bench.module.decrypt_init(bench.session, mechanism(), key).unwrap();
        take(bench.module.decrypt(bench.session, &[7; 64], ROOM).unwrap());
    });
    assert_eq!(asked, 0, "allocations in a hundred encryptions and decryptions");
    assert!(places.is_empty(), "{places:?}");
}

#[test]
fn a_warm_digest_allocates_nothing_and_takes_no_lock() {
    let bench = Bench::new();
    let (asked, places) = bench.counted(&|| {
        bench.module.digest_init(bench.session, Some(Mechanism::plain(M::SHA256))).unwrap();
        take(bench.module.digest(bench.session, &[7; 1_024], ROOM).unwrap());
    });
    assert_eq!(asked, 0, "allocations in a hundred digests");
    assert!(places.is_empty(), "{places:?}");
}

/// The C border copies IV and AAD as here.
#[test]
fn a_warm_encryption_with_iv_and_aad_allocates_nothing_and_takes_no_lock() {
    let bench = Bench::new();
    let key = bench.secret(M::AES_KEY_GEN, &[A::ENCRYPT]);
    let (asked, places) = bench.counted(&|| {
        let (iv, aad) = (client::parameter_bytes(&[5; 12]), client::parameter_bytes(&[6; 40]));
        let parameters = Parameters::Gcm { iv, aad, tag_bits: 128 };
        let mechanism = Mechanism { mechanism_type: M::AES_GCM, parameters };
        bench.module.encrypt_init(bench.session, Some(mechanism), key).unwrap();
        take(bench.module.encrypt(bench.session, &[7; 1_024], Room::Bytes(2_048)).unwrap());
    });
    assert_eq!(asked, 0, "allocations in a hundred encryptions, each with IV and AAD");
    assert!(places.is_empty(), "{places:?}");
}

#[test]
fn a_warm_signature_that_hashes_here_allocates_nothing_and_takes_no_lock() {
    let bench = Bench::new();
    let key = bench.p256();
    let (asked, places) = bench.counted(&|| {
        bench.module.sign_init(bench.session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
        take(bench.module.sign(bench.session, &[0x5a; 1_024], ROOM).unwrap());
    });
    assert_eq!(asked, 0, "allocations in a hundred signatures");
    assert!(places.is_empty(), "{places:?}");
}

/// A member that answers every request for random bytes with the same ones.
#[test]
fn random_bytes_are_a_members_combined_with_the_systems() {
    // From the buffer, which is filled anew after four, and past it.
    for (bytes, every) in [(1_024, 4), (3_000, 1)] {
        let bench = Bench::new();
        REPEATS.set(true);
        let drawn: Vec<_> = (0..8).map(|_| bench.module.random(bench.session, bytes).unwrap()).collect();
        REPEATS.set(false);
        let differ = |(one, other): (&zeroize::Zeroizing<Vec<u8>>, &zeroize::Zeroizing<Vec<u8>>)| {
            one.iter().zip(other.iter()).filter(|(one, other)| one != other).count() > bytes * 9 / 10
        };
        assert!(drawn.iter().zip(&drawn[every..]).all(differ), "{bytes} bytes");
    }
}
