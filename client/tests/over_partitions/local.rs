//! Public keys used in the process (RULES 1.10): as a member would, to the code, and only while a member said so within the last
//! second (HA 3.3).
use client::{Module, Produced, Room};
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::numbers::MgfType;
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, Mechanism, MechanismType as M, ObjectClass,
    Parameters, Rv, Template, UserType,
};

use crate::lab::{CO_PIN, Lab, ROOM, SLOT, bytes, rv};

/// One application: a module with a session that is logged in.
struct Application<'a> {
    module: &'a Module,
    session: HandleSession,
}

impl<'a> Application<'a> {
    fn new(module: &'a Module) -> Self {
        let session = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
        module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
        Self { module, session }
    }

    fn find(&self, label: &str, class: ObjectClass) -> HandleObject {
        let wanted = vec![Attribute::new(A::LABEL, label.as_bytes()), Attribute::ulong(A::CLASS, class.0)];
        self.module.find_init(self.session, Template::from(wanted)).unwrap();
        let found = self.module.find(self.session, 10).unwrap();
        self.module.find_final(self.session).unwrap();
        found[0]
    }

    fn sign(&self, mechanism: &Mechanism, key: HandleObject, data: &[u8]) -> Vec<u8> {
        self.module.sign_init(self.session, Some(mechanism.clone()), key).unwrap();
        bytes(self.module.sign(self.session, data, ROOM))
    }

    fn verify(&self, mechanism: &Mechanism, key: HandleObject, data: &[u8], signature: &[u8]) -> Rv {
        let verified = self
            .module
            .verify_init(self.session, Some(mechanism.clone()), key)
            .and_then(|()| self.module.verify(self.session, data, signature));
        verified.map_or_else(|error| error.rv(), |()| Rv::OK)
    }

    fn verify_in_parts(&self, mechanism: &Mechanism, key: HandleObject, data: &[u8], signature: &[u8]) -> Rv {
        let (first, rest) = data.split_at(data.len() / 2);
        let verified = self
            .module
            .verify_init(self.session, Some(mechanism.clone()), key)
            .and_then(|()| self.module.verify_update(self.session, first))
            .and_then(|()| self.module.verify_update(self.session, rest))
            .and_then(|()| self.module.verify_final(self.session, signature));
        verified.map_or_else(|error| error.rv(), |()| Rv::OK)
    }

    fn encrypt(
        &self,
        mechanism: &Mechanism,
        key: HandleObject,
        data: &[u8],
        room: Room,
    ) -> Result<Produced, Rv> {
        let module = self.module;
        let produced = module
            .encrypt_init(self.session, Some(mechanism.clone()), key)
            .and_then(|()| module.encrypt(self.session, data, room))
            .map_err(|error| error.rv());
        if !matches!(produced, Ok(Produced::Bytes(_))) {
            let _ = module.encrypt_init(self.session, None, key);
        }
        produced
    }

    fn decrypt(&self, mechanism: &Mechanism, key: HandleObject, data: &[u8]) -> Vec<u8> {
        self.module.decrypt_init(self.session, Some(mechanism.clone()), key).unwrap();
        bytes(self.module.decrypt(self.session, data, ROOM))
    }

    fn set(&self, key: HandleObject, attribute: Attribute) {
        self.module.set_attributes(self.session, key, Template::from(vec![attribute])).unwrap();
    }
}

const HASHES: [(M, MgfType); 5] = [
    (M::SHA_1, MgfType::MGF1_SHA1),
    (M::SHA224, MgfType::MGF1_SHA224),
    (M::SHA256, MgfType::MGF1_SHA256),
    (M::SHA384, MgfType::MGF1_SHA384),
    (M::SHA512, MgfType::MGF1_SHA512),
];
const PKCS: [M; 5] =
    [M::SHA1_RSA_PKCS, M::SHA224_RSA_PKCS, M::SHA256_RSA_PKCS, M::SHA384_RSA_PKCS, M::SHA512_RSA_PKCS];
const PSS: [M; 5] = [
    M::SHA1_RSA_PKCS_PSS,
    M::SHA224_RSA_PKCS_PSS,
    M::SHA256_RSA_PKCS_PSS,
    M::SHA384_RSA_PKCS_PSS,
    M::SHA512_RSA_PKCS_PSS,
];
const ECDSA: [M; 5] = [M::ECDSA_SHA1, M::ECDSA_SHA224, M::ECDSA_SHA256, M::ECDSA_SHA384, M::ECDSA_SHA512];

fn pss(mechanism_type: M, (hash, mgf): (M, MgfType), salt_bytes: u64) -> Mechanism {
    Mechanism { mechanism_type, parameters: Parameters::Pss { hash, mgf, salt_bytes } }
}

fn oaep((hash, mgf): (M, MgfType), label: &[u8]) -> Mechanism {
    let parameters = Parameters::Oaep { hash, mgf, label: label.to_vec() };
    Mechanism { mechanism_type: M::RSA_PKCS_OAEP, parameters }
}

/// Every mechanism that verifies with an RSA key, and data that it signs.
fn rsa_mechanisms() -> Vec<(Mechanism, Vec<u8>)> {
    let raw = [(M::RSA_PKCS, vec![7; 100]), (M::RSA_X_509, vec![7; 200])];
    let mut all: Vec<_> = raw.map(|(number, data)| (Mechanism::plain(number), data)).into();
    all.extend(PKCS.map(|number| (Mechanism::plain(number), b"some data".to_vec())));
    let salted = PSS.into_iter().zip(HASHES);
    all.extend(salted.map(|(number, hash)| (pss(number, hash, 20), b"some data".to_vec())));
    all.push((pss(M::RSA_PKCS_PSS, HASHES[2], 0), vec![9; 32]));
    all
}

/// Every mechanism that verifies with a key on a curve.
fn ec_mechanisms() -> Vec<(Mechanism, Vec<u8>)> {
    let hashed = ECDSA.map(|number| (Mechanism::plain(number), b"some data".to_vec()));
    let raw = [20, 32, 64, 70].map(|bytes| (Mechanism::plain(M::ECDSA), vec![9; bytes]));
    [&hashed[..], &raw].concat()
}

/// A signature and what may become of it on its way.
fn spoilt(signature: &[u8]) -> Vec<Vec<u8>> {
    let flipped = |at: usize| {
        let mut other = signature.to_vec();
        other[at] ^= 1;
        other
    };
    vec![
        signature.to_vec(),
        flipped(0),
        flipped(signature.len() / 2),
        flipped(signature.len() - 1),
        signature[1..].to_vec(),
        signature[..signature.len() - 1].to_vec(),
        [signature, &[0]].concat(),
        Vec::new(),
        vec![0; signature.len()],
        vec![0xff; signature.len()],
    ]
}

fn labelled(label: &str, more: Vec<Attribute>) -> Template {
    let mut all = vec![Attribute::bool(A::TOKEN, true), Attribute::new(A::LABEL, label.as_bytes())];
    all.extend(more);
    Template::from(all)
}

/// A token pair of a label; its private key.
fn pair(application: &Application<'_>, label: &str, mechanism: M, more: Vec<Attribute>) -> HandleObject {
    let public = labelled(label, [vec![Attribute::bool(A::VERIFY, true)], more].concat());
    let private = labelled(label, vec![Attribute::bool(A::SIGN, true), Attribute::bool(A::DECRYPT, true)]);
    let private = if mechanism == M::EC_KEY_PAIR_GEN {
        labelled(label, vec![Attribute::bool(A::SIGN, true)])
    } else {
        private
    };
    let made = application.module.generate_key_pair(
        application.session,
        Mechanism::plain(mechanism),
        public,
        private,
    );
    made.unwrap().1
}

fn rsa(application: &Application<'_>, label: &str) -> HandleObject {
    let more = vec![
        Attribute::ulong(A::MODULUS_BITS, 2048),
        Attribute::new(A::PUBLIC_EXPONENT, vec![1, 0, 1]),
        Attribute::bool(A::ENCRYPT, true),
    ];
    pair(application, label, M::RSA_PKCS_KEY_PAIR_GEN, more)
}

fn ec(application: &Application<'_>, label: &str, curve: digests::EcCurve) -> HandleObject {
    let more = vec![Attribute::new(A::EC_PARAMS, curve.parameters().to_vec())];
    pair(application, label, M::EC_KEY_PAIR_GEN, more)
}

/// Every case of a key in both modules: the same code, and no request by the one that verifies here.
fn compare(
    lab: &Lab,
    here: &Application<'_>,
    there: &Application<'_>,
    label: &str,
    rows: Vec<(Mechanism, Vec<u8>)>,
) {
    let private = there.find(label, ObjectClass::PRIVATE_KEY);
    let keys = [here, there].map(|application| application.find(label, ObjectClass::PUBLIC_KEY));
    for (mechanism, data) in rows {
        let signature = there.sign(&mechanism, private, &data);
        here.verify(&mechanism, keys[0], &data, &signature);
        let other = [&data[..data.len() - 1], &[1]].concat();
        for data in [&data, &other, &Vec::new(), &data[1..].to_vec(), &vec![3; 300]] {
            for signature in spoilt(&signature) {
                let case = format!("{label} {mechanism:?} {} {}", data.len(), signature.len());
                let before = lab.seam.count_all();
                let found = here.verify(&mechanism, keys[0], data, &signature);
                let in_parts = here.verify_in_parts(&mechanism, keys[0], data, &signature);
                assert_eq!(lab.seam.count_all(), before, "{case}: verified in the process");
                let wanted = there.verify(&mechanism, keys[1], data, &signature);
                assert_eq!(found, wanted, "{case}");
                assert_eq!(in_parts, there.verify_in_parts(&mechanism, keys[1], data, &signature), "{case}");
            }
        }
    }
}

#[test]
fn every_verification_here_answers_as_a_member_does() {
    let (lab, clock) = Lab::with_clock(1, "");
    let remote = lab.another("LocalVerify = 0;");
    let (here, there) = (Application::new(&lab.module), Application::new(&remote));
    clock.advance_ms(1);
    rsa(&there, "rsa");
    compare(&lab, &here, &there, "rsa", rsa_mechanisms());
    for (label, curve) in ["p256", "p384", "p521"].into_iter().zip(digests::EcCurve::ALL) {
        ec(&there, label, curve);
        compare(&lab, &here, &there, label, ec_mechanisms());
    }
}

#[test]
fn every_encryption_here_answers_as_a_member_does_and_is_undone_there() {
    let (lab, clock) = Lab::with_clock(1, "");
    let remote = lab.another("LocalVerify = 0;");
    let (here, there) = (Application::new(&lab.module), Application::new(&remote));
    clock.advance_ms(1);
    let private = rsa(&there, "rsa");
    let keys = [&here, &there].map(|application| application.find("rsa", ObjectClass::PUBLIC_KEY));
    let mut mechanisms = vec![Mechanism::plain(M::RSA_PKCS), Mechanism::plain(M::RSA_X_509)];
    mechanisms.extend(HASHES.map(|hash| oaep(hash, b"")));
    mechanisms.push(oaep((M::SHA256, MgfType::MGF1_SHA1), b"a label"));
    for mechanism in mechanisms {
        here.encrypt(&mechanism, keys[0], b"x", ROOM).unwrap();
        for data in [
            vec![],
            vec![0xff],
            vec![5; 60],
            vec![5; 190],
            vec![5; 245],
            vec![5; 256],
            vec![0xff; 256],
            vec![5; 257],
        ] {
            let case = format!("{mechanism:?} {} bytes", data.len());
            for room in [Room::Ask, Room::Bytes(255), ROOM] {
                let before = lab.seam.count_all();
                let found = here.encrypt(&mechanism, keys[0], &data, room);
                assert_eq!(lab.seam.count_all(), before, "{case}: encrypted in the process");
                let wanted = there.encrypt(&mechanism, keys[1], &data, room);
                match (found, wanted) {
                    (Ok(Produced::Bytes(found)), Ok(Produced::Bytes(wanted))) => {
                        assert_eq!(found.len(), wanted.len());
                        let plain = there.decrypt(&mechanism, private, &found);
                        let start = plain.len() - data.len();
                        assert_eq!(&plain[start..], data, "{case}");
                        assert!(plain[..start].iter().all(|byte| *byte == 0), "{case}");
                    }
                    (found, wanted) => assert_eq!(found, wanted, "{case} into {room:?}"),
                }
            }
        }
    }
}

#[test]
fn a_warm_verification_costs_one_request_a_second_and_each_one_when_switched_off() {
    let (lab, clock) = Lab::with_clock(3, "");
    let remote = lab.another("LocalVerify = 0;");
    let (here, there) = (Application::new(&lab.module), Application::new(&remote));
    clock.advance_ms(1);
    ec(&here, "key", digests::EcCurve::P256);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    let signature = here.sign(&mechanism, here.find("key", ObjectClass::PRIVATE_KEY), b"data");
    let twenty = |application: &Application<'_>| {
        let key = application.find("key", ObjectClass::PUBLIC_KEY);
        assert_eq!(application.verify(&mechanism, key, b"data", &signature), Rv::OK);
        let before = lab.seam.count_all();
        (0..20).for_each(|_| {
            assert_eq!(application.verify(&mechanism, key, b"data", &signature), Rv::OK);
        });
        lab.seam.count_all() - before
    };
    assert_eq!(twenty(&here), 0);
    assert_eq!(twenty(&there), 20);
    let key = here.find("key", ObjectClass::PUBLIC_KEY);
    for _ in 0..3 {
        clock.advance_ms(1_000);
        let before = lab.seam.count_all();
        (0..20).for_each(|_| assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::OK));
        assert_eq!(lab.seam.count_all(), before + 1, "the first one asks a member, which checks everything");
    }
}

#[test]
fn what_another_process_does_to_a_key_is_noticed_within_a_second() {
    let (lab, clock) = Lab::with_clock(3, "");
    let other = lab.another("");
    let (here, there) = (Application::new(&lab.module), Application::new(&other));
    clock.advance_ms(1);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    for (label, wanted) in [("forbidden", Rv::FUNCTION_FAILED), ("destroyed", Rv::KEY_HANDLE_INVALID)] {
        let private = ec(&here, label, digests::EcCurve::P256);
        let signature = here.sign(&mechanism, private, b"data");
        let key = here.find(label, ObjectClass::PUBLIC_KEY);
        let elsewhere = there.find(label, ObjectClass::PUBLIC_KEY);
        assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::OK);
        match wanted {
            Rv::FUNCTION_FAILED => there.set(elsewhere, Attribute::bool(A::VERIFY, false)),
            _ => other.destroy_object(there.session, elsewhere).unwrap(),
        }
        clock.advance_ms(1_000);
        assert_eq!(here.verify(&mechanism, key, b"data", &signature), wanted, "{label}");
    }
}

#[test]
fn what_this_process_does_to_a_key_is_noticed_at_once() {
    let (lab, clock) = Lab::with_clock(3, "");
    let here = Application::new(&lab.module);
    clock.advance_ms(1);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    let signature = here.sign(&mechanism, ec(&here, "key", digests::EcCurve::P256), b"data");
    let key = here.find("key", ObjectClass::PUBLIC_KEY);
    let begun = || {
        assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::OK);
        lab.module.verify_init(here.session, Some(mechanism.clone()), key).unwrap();
    };
    begun();
    here.set(key, Attribute::bool(A::VERIFY, false));
    assert_eq!(rv(lab.module.verify(here.session, b"data", &signature)), Rv::FUNCTION_FAILED);
    assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::KEY_FUNCTION_NOT_PERMITTED);
    here.set(key, Attribute::bool(A::VERIFY, true));
    begun();
    lab.module.destroy_object(here.session, key).unwrap();
    assert_eq!(rv(lab.module.verify(here.session, b"data", &signature)), Rv::KEY_HANDLE_INVALID);
}

#[test]
fn a_private_public_key_needs_the_login_also_here() {
    let (lab, clock) = Lab::with_clock(1, "");
    let here = Application::new(&lab.module);
    clock.advance_ms(1);
    let more = vec![
        Attribute::bool(A::PRIVATE, true),
        Attribute::new(A::EC_PARAMS, digests::EcCurve::P256.parameters().to_vec()),
    ];
    let private = pair(&here, "key", M::EC_KEY_PAIR_GEN, more);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    let signature = here.sign(&mechanism, private, b"data");
    let key = here.find("key", ObjectClass::PUBLIC_KEY);
    assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::OK);
    lab.module.verify_init(here.session, Some(mechanism.clone()), key).unwrap();
    lab.module.logout(here.session).unwrap();
    assert_eq!(rv(lab.module.verify(here.session, b"data", &signature)), Rv::USER_NOT_LOGGED_IN);
}

#[test]
fn a_member_confirms_a_plan_anew_after_a_login() {
    let (lab, clock) = Lab::with_clock(1, "");
    let here = Application::new(&lab.module);
    clock.advance_ms(1);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    let signature = here.sign(&mechanism, ec(&here, "key", digests::EcCurve::P256), b"data");
    let key = here.find("key", ObjectClass::PUBLIC_KEY);
    let requests = || {
        let before = lab.seam.count_all();
        assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::OK);
        lab.seam.count_all() - before
    };
    requests();
    assert_eq!(requests(), 0);
    lab.module.logout(here.session).unwrap();
    lab.module.login(here.session, UserType::USER, Some(CO_PIN)).unwrap();
    clock.advance_ms(1);
    assert_eq!((requests(), requests()), (1, 0));
}

#[test]
fn a_key_that_wants_its_data_hashed_on_a_member_is_verified_there() {
    let (lab, clock) = Lab::with_clock(1, "");
    let here = Application::new(&lab.module);
    clock.advance_ms(1);
    let only = M::ECDSA_SHA256.0.to_le_bytes().to_vec();
    let more = vec![
        Attribute::new(A::ALLOWED_MECHANISMS, only),
        Attribute::new(A::EC_PARAMS, digests::EcCurve::P256.parameters().to_vec()),
    ];
    let private = pair(&here, "key", M::EC_KEY_PAIR_GEN, more);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    let signature = here.sign(&mechanism, private, b"data");
    let key = here.find("key", ObjectClass::PUBLIC_KEY);
    assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::OK);
    let before = lab.seam.count_all();
    assert_eq!(here.verify(&mechanism, key, b"data", &signature), Rv::OK);
    assert_eq!(lab.seam.count_all(), before + 1);
    let refused = here.verify(&Mechanism::plain(M::ECDSA), key, &[1; 32], &signature);
    assert_eq!(refused, Rv::MECHANISM_INVALID);
}

#[test]
fn session_keys_are_used_here_too_and_for_a_second_without_any_member() {
    let (lab, clock) = Lab::with_clock(2, "");
    let session = lab.user();
    clock.advance_ms(1);
    let (public, private) = lab.p256(session, false);
    let here = Application { module: &lab.module, session };
    let mechanism = Mechanism::plain(M::ECDSA_SHA384);
    let signature = here.sign(&mechanism, private, b"data");
    assert_eq!(here.verify(&mechanism, public, b"data", &signature), Rv::OK);
    lab.all_down(true);
    assert_eq!(here.verify(&mechanism, public, b"data", &signature), Rv::OK);
    assert_eq!(here.verify(&mechanism, public, b"other", &signature), Rv::SIGNATURE_INVALID);
    lab.all_down(false);
    clock.advance_ms(1_000);
    assert_eq!(here.verify(&mechanism, public, b"data", &signature), Rv::OK);
}
