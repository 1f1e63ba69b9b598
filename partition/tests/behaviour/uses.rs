//! Plan and Use: rights, prehash, streams, chains, context login (RULES 1.1, 1.4 to 1.7, 2.7).
use partition::{Caller, Settings};
use spec::messages::*;
use spec::{Attribute, AttributeType as A, KeyType, Mechanism, MechanismType as M, Parameters, Rv, UserType};

use crate::bench::*;

fn planned(bench: &Bench, function: KeyFunction, mechanism: &Mechanism, key: &ObjectRef) -> PlanAnswer {
    match bench.ok(plan(function, mechanism, key)) {
        Answer::Plan(answer) => answer,
        _ => unreachable!("a plan is answered by a plan"),
    }
}

fn limited(to: &[M]) -> Attribute {
    let list: Vec<u8> = to.iter().flat_map(|mechanism| mechanism.0.to_le_bytes()).collect();
    Attribute::new(A::ALLOWED_MECHANISMS, list)
}

fn prehashed(mechanism: &Mechanism, key: &ObjectRef, data: &[u8]) -> Use {
    let data = digests::digest(digests::Hash::Sha256, data).to_vec();
    changed!(whole(KeyFunction::SIGN, mechanism, key, &data); how: How::PREHASH.0)
}

const SHA256_RSA: Mechanism = Mechanism::plain(M::SHA256_RSA_PKCS);
const HMAC: Mechanism = Mechanism::plain(M::SHA256_HMAC);

#[test]
fn rules_1_4_a_prehashed_request_is_refused_unless_the_raw_form_is_permitted() {
    let bench = Bench::logged_in();
    let pair = |allowed: Vec<Attribute>| {
        bench.create(rsa_pair(vec![token()], [vec![token()], allowed].concat())).remove(1)
    };
    let hash_only = pair(vec![limited(&[M::SHA256_RSA_PKCS])]);
    let answer = planned(&bench, KeyFunction::SIGN, &SHA256_RSA, &hash_only);
    assert_eq!((answer.how, answer.prehash), (How::STREAM.0, 0));
    assert_eq!(bench.rv(Call::Use(prehashed(&SHA256_RSA, &hash_only, b"m"))), Rv::FUNCTION_REJECTED);
    let raw = whole(KeyFunction::SIGN, &Mechanism::plain(M::RSA_PKCS), &hash_only, b"anything");
    assert_eq!(bench.rv(Call::Use(raw)), Rv::MECHANISM_INVALID);
    let signature = bench.used(whole(KeyFunction::SIGN, &SHA256_RSA, &hash_only, b"m")).output.clone();
    for free in [pair(vec![]), pair(vec![limited(&[M::SHA256_RSA_PKCS, M::RSA_PKCS])])] {
        let answer = planned(&bench, KeyFunction::SIGN, &SHA256_RSA, &free);
        assert_eq!((answer.how, answer.prehash), (How::PREHASH.0, M::SHA256.0));
        let prehashed = bench.used(prehashed(&SHA256_RSA, &free, b"m")).output.clone();
        assert_eq!(prehashed, bench.used(whole(KeyFunction::SIGN, &SHA256_RSA, &free, b"m")).output);
        assert_ne!(prehashed, signature, "another key");
    }
}

#[test]
fn rules_1_1_a_plan_may_leave_iv_and_aad_out() {
    let bench = Bench::logged_in();
    let aes = bench.key(vec![token()]);
    for (mechanism_type, parameters) in [
        (M::AES_CBC, Parameters::Iv(Vec::new())),
        (M::AES_CBC_PAD, Parameters::Iv(Vec::new())),
        (M::AES_GCM, Parameters::Gcm { iv: Vec::new(), aad: Vec::new(), tag_bits: 128 }),
    ] {
        planned(&bench, KeyFunction::ENCRYPT, &Mechanism { mechanism_type, parameters }, &aes);
    }
}

#[test]
fn rules_1_4_under_the_policy_hash_in_member_no_digest_from_outside_is_signed() {
    let settings = Settings { hash_in_member: true, ..Settings::for_tests() };
    let mut bench = Bench::with(1001, settings);
    bench.ticket = bench.login(UserType::USER, CO_PIN);
    let key = bench.create(ec_pair(vec![], vec![])).remove(1);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    assert_eq!(planned(&bench, KeyFunction::SIGN, &mechanism, &key).how, How::STREAM.0);
    assert_eq!(bench.rv(Call::Use(prehashed(&mechanism, &key, b"m"))), Rv::FUNCTION_REJECTED);
}

#[test]
fn rights_are_those_of_the_key_and_the_mechanism() {
    let bench = Bench::logged_in();
    let objects = bench.create(rsa_pair(vec![token(), no(A::ENCRYPT)], vec![token(), no(A::SIGN)]));
    let aes = bench.key(vec![token()]);
    let certificate_like = bench.create(data(vec![token()])).remove(0);
    let cbc = Mechanism { mechanism_type: M::AES_CBC, parameters: Parameters::Iv(vec![0; 16]) };
    let short = Mechanism { mechanism_type: M::AES_CBC, parameters: Parameters::Iv(vec![0; 15]) };
    let (public, private) = (&objects[0], &objects[1]);
    let rsa = Mechanism::plain(M::RSA_PKCS);
    let rows = [
        (KeyFunction::SIGN, &rsa, private, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::SIGN, &rsa, public, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::ENCRYPT, &rsa, public, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::VERIFY, &rsa, private, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::DECRYPT, &rsa, private, Rv::OK),
        (KeyFunction::VERIFY, &rsa, public, Rv::OK),
        (KeyFunction::SIGN, &rsa, &aes, Rv::KEY_TYPE_INCONSISTENT),
        (KeyFunction::DECRYPT, &cbc, private, Rv::KEY_TYPE_INCONSISTENT),
        (KeyFunction::DECRYPT, &short, private, Rv::KEY_TYPE_INCONSISTENT),
        (KeyFunction::ENCRYPT, &cbc, &aes, Rv::OK),
        (KeyFunction::ENCRYPT, &short, &aes, Rv::MECHANISM_PARAM_INVALID),
        (KeyFunction::SIGN, &cbc, &aes, Rv::MECHANISM_INVALID),
        (KeyFunction::ENCRYPT, &Mechanism::plain(M::DES3_ECB), &aes, Rv::MECHANISM_INVALID),
        (KeyFunction::ENCRYPT, &cbc, &certificate_like, Rv::KEY_HANDLE_INVALID),
    ];
    for (function, mechanism, key, expected) in rows {
        assert_eq!(bench.rv(plan(function, mechanism, key)), expected, "{function:?} {mechanism:?}");
        let used = bench.rv(Call::Use(whole(function, mechanism, key, b"")));
        if expected != Rv::OK {
            assert_eq!(used, expected, "the member checks again: {function:?} {mechanism:?}");
        }
    }
}

#[test]
fn a_right_taken_away_holds_at_once_and_the_old_plan_is_refused() {
    let bench = Bench::logged_in();
    let key = bench.create(secret(KeyType::GENERIC_SECRET, b"secret", vec![token()])).remove(0);
    let version = planned(&bench, KeyFunction::SIGN, &HMAC, &key).version;
    let wanted = changed!(whole(KeyFunction::SIGN, &HMAC, &key, b"m"); plan: version);
    bench.used(wanted.clone());
    bench.ok(bench.set(&key, vec![label("new version")]));
    let reply = bench.send(Call::Use(wanted.clone()));
    assert_eq!((Outcome(reply.outcome), &reply.object), (Outcome::PLAN_CHANGED, &key.ouid));
    bench.ok(bench.set(&key, vec![no(A::SIGN)]));
    assert_eq!(bench.rv(plan(KeyFunction::SIGN, &HMAC, &key)), Rv::KEY_FUNCTION_NOT_PERMITTED);
    let mut later = wanted;
    later.plan = later.plan.map(|mut stamp| {
        stamp.ms += 1_000_000;
        stamp
    });
    assert_eq!(bench.outcome(Call::Use(later)), Outcome::BEHIND);
}

#[test]
fn private_keys_are_used_with_a_login_only() {
    let mut bench = Bench::logged_in();
    let key = bench.create(ec_pair(vec![token()], vec![token()])).remove(1);
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    for ticket in [vec![], bench.login(UserType::SO, SO_PIN)] {
        bench.ticket = ticket;
        assert_eq!(bench.rv(plan(KeyFunction::SIGN, &mechanism, &key)), Rv::USER_NOT_LOGGED_IN);
        let wanted = whole(KeyFunction::SIGN, &mechanism, &key, b"m");
        assert_eq!(bench.rv(Call::Use(wanted)), Rv::USER_NOT_LOGGED_IN);
    }
}

/// Runs a stream in three parts and gives the uses made on the way.
fn stream(
    first: &Bench,
    rest: &Bench,
    key: &ObjectRef,
    mechanism: &Mechanism,
    signature: &[u8],
) -> (Vec<Use>, Vec<u8>) {
    let function = if signature.is_empty() { KeyFunction::SIGN } else { KeyFunction::VERIFY };
    let part = |part: u64, data: &[u8], state: Vec<u8>| changed!(whole(function, mechanism, key, data); how: How::STREAM.0, part: part, state: state, last: part == 2, signature: if part == 2 { signature.to_vec() } else { vec![] });
    let zero = part(0, b"one ", vec![]);
    let one = part(1, b"two ", first.used(zero.clone()).state.clone());
    let two = part(2, b"three", rest.used(one.clone()).state.clone());
    let output = rest.used(two.clone()).output.clone();
    (vec![zero, one, two], output)
}

#[test]
fn streams_go_on_on_another_member_and_give_what_the_whole_gives() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let key = home.create(secret(KeyType::GENERIC_SECRET, b"secret", vec![])).remove(0);
    let (_, mac) = stream(&home, &other, &key, &HMAC, b"");
    assert_eq!(mac, home.used(whole(KeyFunction::SIGN, &HMAC, &key, b"one two three")).output);
    stream(&other, &home, &key, &HMAC, &mac);
    let rsa = home.create(rsa_pair(vec![], vec![limited(&[M::SHA256_RSA_PKCS])])).remove(1);
    let (_, signature) = stream(&home, &other, &rsa, &SHA256_RSA, b"");
    assert_eq!(signature, home.used(whole(KeyFunction::SIGN, &SHA256_RSA, &rsa, b"one two three")).output);
}

#[test]
fn rules_3_1_a_running_state_opens_for_its_key_function_mechanism_part_and_instance_only() {
    let mut bench = Bench::logged_in();
    let key = bench.create(secret(KeyType::GENERIC_SECRET, b"secret", vec![token()])).remove(0);
    let other_key = bench.create(secret(KeyType::GENERIC_SECRET, b"other", vec![token()])).remove(0);
    let (parts, _) = stream(&bench, &bench, &key, &HMAC, b"");
    let general = |mac_bytes| Mechanism {
        mechanism_type: M::SHA256_HMAC_GENERAL,
        parameters: Parameters::MacGeneral { mac_bytes },
    };
    let right = parts[1].clone();
    let wrong = [
        changed!(right.clone(); key: Some(other_key)),
        changed!(right.clone(); function: KeyFunction::VERIFY.0),
        changed!(right.clone(); mechanism: message(&Mechanism::plain(M::SHA512_HMAC))),
        changed!(right.clone(); mechanism: message(&general(8))),
        changed!(right.clone(); part: 2),
        changed!(right.clone(); state: parts[2].state.clone()),
        changed!(right.clone(); state: bench.ticket.clone()),
        changed!(right.clone(); state: right.state[..right.state.len() - 1].to_vec()),
    ];
    for (at, wanted) in wrong.into_iter().enumerate() {
        assert_eq!(bench.outcome(Call::Use(wanted)), Outcome::NOT_OPENED, "{at}");
    }
    assert_eq!(bench.outcome(Call::Use(changed!(right.clone(); part: 0))), Outcome::MALFORMED);
    assert_eq!(bench.outcome(Call::Use(changed!(right.clone(); state: vec![]))), Outcome::MALFORMED);
    bench.used(right.clone());
    bench.caller = Caller { instance: [7; 32], ..CALLER };
    bench.ticket = bench.login(UserType::USER, CO_PIN);
    assert_eq!(bench.outcome(Call::Use(right)), Outcome::NOT_OPENED);
}

#[test]
fn chains_of_blocks_go_on_from_public_chaining_values() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![]);
    let cbc = |iv: &[u8]| Mechanism { mechanism_type: M::AES_CBC, parameters: Parameters::Iv(iv.to_vec()) };
    let data = [7; 64];
    let expected = bench.used(whole(KeyFunction::ENCRYPT, &cbc(&[3; 16]), &key, &data)).output.clone();
    let chain = |iv: &[u8], data: &[u8], last| {
        let wanted =
            changed!(whole(KeyFunction::ENCRYPT, &cbc(iv), &key, data); how: How::CHAIN.0, last: last);
        bench.used(wanted).output.clone()
    };
    let first = chain(&[3; 16], &data[..32], false);
    let second = chain(&first[16..], &data[32..], true);
    assert_eq!([first, second].concat(), expected);
}

#[test]
fn verification_gives_a_verdict_only() {
    let bench = Bench::logged_in();
    let objects = bench.create(ec_pair(vec![], vec![]));
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    let signature = bench.used(whole(KeyFunction::SIGN, &mechanism, &objects[1], b"m")).output.clone();
    let verify = |signature: &[u8]| changed!(whole(KeyFunction::VERIFY, &mechanism, &objects[0], b"m"); signature: signature.to_vec());
    assert!(bench.used(verify(&signature)).output.is_empty());
    let mut wrong = signature.clone();
    wrong[5] ^= 1;
    assert_eq!(bench.rv(Call::Use(verify(&wrong))), Rv::SIGNATURE_INVALID);
    assert_eq!(bench.rv(Call::Use(verify(&signature[1..]))), Rv::SIGNATURE_LEN_RANGE);
}

#[test]
fn rules_2_7_a_key_that_always_authenticates_wants_the_pin_with_each_result() {
    let bench = Bench::logged_in();
    let private = vec![token(), yes(A::ALWAYS_AUTHENTICATE)];
    let key = bench.create(rsa_pair(vec![token()], private)).remove(1);
    assert!(planned(&bench, KeyFunction::SIGN, &SHA256_RSA, &key).always_authenticate);
    let with = |pin: &[u8]| changed!(whole(KeyFunction::SIGN, &SHA256_RSA, &key, b"m"); pin: pin.to_vec());
    assert_eq!(bench.rv(Call::Use(with(b""))), Rv::USER_NOT_LOGGED_IN);
    let wrong = Call::Use(with(b"wrong"));
    assert_eq!(bench.rv(wrong.clone()), Rv::PIN_INCORRECT);
    assert_eq!(bench.rv(wrong), Rv::PIN_INCORRECT);
    assert_eq!(bench.status().failed_tries_user, 1, "the same bytes are the same try");
    assert_eq!(bench.used(with(CO_PIN)).output.len(), 256);
    assert_eq!(bench.status().failed_tries_user, 0);
    let zero = changed!(with(b""); how: How::STREAM.0);
    let state = bench.used(zero.clone()).state.clone();
    let last = changed!(zero; part: 1, last: true, state: state);
    assert_eq!(bench.rv(Call::Use(last.clone())), Rv::USER_NOT_LOGGED_IN);
    bench.used(changed!(last; pin: CO_PIN.to_vec()));
}

#[test]
fn a_key_that_always_authenticates_is_private() {
    let bench = Bench::logged_in();
    let make = |private| Call::Make(ec_pair(vec![], private));
    let always = yes(A::ALWAYS_AUTHENTICATE);
    assert_eq!(bench.rv(make(vec![always.clone(), no(A::PRIVATE)])), Rv::TEMPLATE_INCONSISTENT);
    assert_eq!(bench.rv(make(vec![always.clone(), yes(A::PRIVATE)])), Rv::OK);
    assert_eq!(
        bench.rv(make(vec![always])),
        Rv::OK,
        "private keys are private unless they are said not to be"
    );
    assert_eq!(bench.rv(make(vec![no(A::ALWAYS_AUTHENTICATE), no(A::PRIVATE)])), Rv::OK);
}

#[test]
fn random_bytes_are_bounded_and_differ() {
    let bench = Bench::new();
    let random = |bytes| match bench.ok(Call::Random(Random { bytes })) {
        Answer::Random(answer) => answer.output.clone(),
        _ => unreachable!("random is answered by random"),
    };
    assert_eq!(random(0).len(), 0);
    assert_ne!(random(32), random(32));
    assert_eq!(random(1 << 20).len(), 1 << 20);
    assert_eq!(bench.outcome(Call::Random(Random { bytes: (1 << 20) + 1 })), Outcome::MALFORMED);
}
