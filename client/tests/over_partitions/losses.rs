//! Members lost in turn, and all of them in any order of return, under operations that are under way (RULES 1.3, DESIGN 1):
//! nothing is initialised again.
use client::{Error, Produced};
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, Mechanism, MechanismType as M, Parameters,
    Rv, UserType,
};

use crate::lab::{CO_PIN, GROUP_SERIAL, Lab, ROOM, SLOT, bytes};

/// The number of the call.
const USE: u32 = 14;

fn cbc() -> Option<Mechanism> {
    Some(Mechanism { mechanism_type: M::AES_CBC_PAD, parameters: Parameters::Iv(vec![1; 16]) })
}

fn plain(mechanism: M) -> Option<Mechanism> {
    Some(Mechanism::plain(mechanism))
}

/// Every order of three members.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// An outage: the call was not taken.
fn outage<T: std::fmt::Debug>(result: client::Result<T>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Outage(_)), "{error}");
    assert_eq!(error.rv(), Rv::DEVICE_ERROR);
}

/// Five sessions with an operation each, half done.
struct Halves {
    encrypting: HandleSession,
    macing: HandleSession,
    signing: HandleSession,
    digesting: HandleSession,
    finding: HandleSession,
}

#[test]
fn after_the_loss_of_all_members_everything_goes_on_with_whichever_returns_first() {
    let lab = Lab::new();
    let module = &lab.module;
    let (aes, hmac) = {
        let session = lab.user();
        (lab.aes(session, true), lab.hmac_key(session, true))
    };
    let session = lab.session();
    let (_, private) = lab.rsa(session, true);
    for _ in 0..4 {
        lab.data(session, true, "many").unwrap();
    }
    let info = module.token_info(SLOT).unwrap();
    let big = vec![7; 100_000];
    for order in ORDERS {
        let [encrypting, macing, signing, digesting, finding] = std::array::from_fn(|_| lab.session());
        let halves = Halves { encrypting, macing, signing, digesting, finding };
        module.encrypt_init(halves.encrypting, cbc(), aes).unwrap();
        let mut ciphertext = bytes(module.encrypt_update(halves.encrypting, &big, ROOM));
        module.sign_init(halves.macing, plain(M::SHA256_HMAC), hmac).unwrap();
        module.sign_update(halves.macing, &big).unwrap();
        module.sign_init(halves.signing, plain(M::SHA256_RSA_PKCS), private).unwrap();
        module.sign_update(halves.signing, &big).unwrap();
        module.digest_init(halves.digesting, plain(M::SHA256)).unwrap();
        module.digest_update(halves.digesting, &big).unwrap();
        module.find_init(halves.finding, vec![Attribute::new(A::LABEL, b"many".to_vec())].into()).unwrap();
        assert_eq!(module.find(halves.finding, 1).unwrap().len(), 1);

        lab.all_down(true);
        outage(module.encrypt_update(halves.encrypting, &big, ROOM));
        outage(module.sign_update(halves.macing, &big));
        outage(module.sign_final(halves.signing, ROOM));
        // Slots, sessions, digests and searches ask nobody.
        assert_eq!(module.slots(true).unwrap(), [SLOT]);
        assert_eq!(module.token_info(SLOT).unwrap().serial, GROUP_SERIAL.to_string());
        module.digest_update(halves.digesting, &big).unwrap();
        assert_eq!(module.find(halves.finding, 10).unwrap().len(), 3);
        module.open_session(SLOT, 4).map(|session| module.close_session(session).unwrap()).unwrap();

        for member in order {
            lab.seam.set_down(lab.members[member], false);
            if member == order[0] {
                // The first one alone suffices.
                ciphertext.extend(bytes(module.encrypt_update(halves.encrypting, &big, ROOM)));
                module.sign_update(halves.macing, &big).unwrap();
            }
        }
        ciphertext.extend(bytes(module.encrypt_final(halves.encrypting, ROOM)));
        let mac = bytes(module.sign_final(halves.macing, ROOM));
        let signature = bytes(module.sign_final(halves.signing, ROOM));
        bytes(module.digest_final(halves.digesting, ROOM));
        module.find_final(halves.finding).unwrap();

        let twice = [big.as_slice(), big.as_slice()].concat();
        module.encrypt_init(session, cbc(), aes).unwrap();
        assert_eq!(bytes(module.encrypt(session, &twice, ROOM)), ciphertext, "{order:?}");
        module.sign_init(session, plain(M::SHA256_HMAC), hmac).unwrap();
        assert_eq!(bytes(module.sign(session, &twice, ROOM)), mac, "{order:?}");
        module.sign_init(session, plain(M::SHA256_RSA_PKCS), private).unwrap();
        assert_eq!(bytes(module.sign(session, &big, ROOM)), signature, "{order:?}");
        for session in [encrypting, macing, signing, digesting, finding] {
            module.close_session(session).unwrap();
        }
    }
    assert_eq!(module.token_info(SLOT).unwrap().serial, info.serial);
}

#[test]
fn streams_outlive_the_loss_of_every_member_in_turn() {
    let lab = Lab::new();
    let module = &lab.module;
    let session = lab.user();
    let (aes, hmac) = (lab.aes(session, true), lab.hmac_key(session, true));
    let (_, private) = lab.rsa(session, true);
    let piece: Vec<u8> = (0..300_001_u32).map(|at| at.to_le_bytes()[0]).collect();
    let whole = piece.repeat(9);
    module.encrypt_init(session, cbc(), aes).unwrap();
    let ciphertext = bytes(module.encrypt(session, &whole, ROOM));
    module.sign_init(session, plain(M::SHA256_HMAC), hmac).unwrap();
    let mac = bytes(module.sign(session, &whole, ROOM));
    module.sign_init(session, plain(M::SHA256_RSA_PKCS), private).unwrap();
    let signature = bytes(module.sign(session, &whole, ROOM));

    let signing = lab.session();
    module.encrypt_init(session, cbc(), aes).unwrap();
    module.sign_init(session, plain(M::SHA256_HMAC), hmac).unwrap();
    module.sign_init(signing, plain(M::SHA256_RSA_PKCS), private).unwrap();
    let mut parts = Vec::new();
    for turn in 0..9 {
        let victim = lab.members[turn % 3];
        lab.seam.set_down(victim, true);
        parts.extend(bytes(module.encrypt_update(session, &piece, ROOM)));
        module.sign_update(session, &piece).unwrap();
        module.sign_update(signing, &piece).unwrap();
        lab.seam.set_down(victim, false);
    }
    parts.extend(bytes(module.encrypt_final(session, ROOM)));
    assert!(parts == ciphertext);
    assert_eq!(bytes(module.sign_final(session, ROOM)), mac);
    assert_eq!(bytes(module.sign_final(signing, ROOM)), signature);

    module.decrypt_init(session, cbc(), aes).unwrap();
    module.verify_init(session, plain(M::SHA256_HMAC), hmac).unwrap();
    let mut back = Vec::new();
    for (turn, part) in ciphertext.chunks(400_003).enumerate() {
        let victim = lab.members[turn % 3];
        lab.seam.set_down(victim, true);
        back.extend(bytes(module.decrypt_update(session, part, ROOM)));
        lab.seam.set_down(victim, false);
    }
    back.extend(bytes(module.decrypt_final(session, ROOM)));
    assert!(back == whole);
    for (turn, part) in whole.chunks(400_003).enumerate() {
        let victim = lab.members[turn % 3];
        lab.seam.set_down(victim, true);
        module.verify_update(session, part).unwrap();
        lab.seam.set_down(victim, false);
    }
    module.verify_final(session, &mac).unwrap();
}

#[test]
fn one_update_of_more_than_sixteen_mebibytes_is_split_and_not_refused() {
    let lab = Lab::new();
    let module = &lab.module;
    let session = lab.user();
    let (aes, hmac) = (lab.aes(session, true), lab.hmac_key(session, true));
    let big = vec![9; (17 << 20) + 5];
    let room = client::Room::Bytes(big.len() + 64);
    module.encrypt_init(session, cbc(), aes).unwrap();
    let mut ciphertext = bytes(module.encrypt_update(session, &big, room));
    ciphertext.extend(bytes(module.encrypt_final(session, room)));
    module.decrypt_init(session, cbc(), aes).unwrap();
    assert!(bytes(module.decrypt(session, &ciphertext, room)) == big);
    module.sign_init(session, plain(M::SHA256_HMAC), hmac).unwrap();
    module.sign_update(session, &big).unwrap();
    let mac = bytes(module.sign_final(session, ROOM));
    module.verify_init(session, plain(M::SHA256_HMAC), hmac).unwrap();
    module.verify(session, &big, &mac).unwrap();
    let mut digest = [Vec::new(), Vec::new()];
    for (parts, output) in [1, 3].into_iter().zip(&mut digest) {
        module.digest_init(session, plain(M::SHA256)).unwrap();
        for part in big.chunks(big.len().div_ceil(parts)) {
            module.digest_update(session, part).unwrap();
        }
        *output = bytes(module.digest_final(session, ROOM));
    }
    assert_eq!(digest[0], digest[1]);
}

#[test]
fn the_state_of_the_group_is_told_from_what_is_known() {
    let lab = Lab::with(3, false, true);
    let module = &lab.module;
    lab.user();
    let states = || module.ha_state(SLOT).unwrap().members.into_iter().map(|(_, rv)| rv).collect::<Vec<_>>();
    let soon = |wanted: [Rv; 3]| {
        let begun = std::time::Instant::now();
        while states() != wanted {
            assert!(begun.elapsed().as_secs() < 5, "{:?}", states());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    soon([Rv::OK; 3]);
    assert_eq!(module.ha_state(SLOT).unwrap().serial, GROUP_SERIAL);
    lab.seam.set_down(lab.members[1], true);
    soon([Rv::OK, Rv::TOKEN_NOT_PRESENT, Rv::OK]);
    lab.all_down(true);
    soon([Rv::TOKEN_NOT_PRESENT; 3]);
    lab.all_down(false);
    soon([Rv::OK; 3]);
    assert_eq!(module.ha_state(spec::SlotId(1)).unwrap_err().rv(), Rv::SLOT_ID_INVALID);
    assert_eq!(module.ha_state(spec::SlotId(99)).unwrap_err().rv(), Rv::SLOT_ID_INVALID);
    module.finalize().unwrap();
}

/// Another application that has seen a label of a MAC key which the first member alone holds: the change was made while all
/// others were down.
fn seen_at_one(members: u64) -> (Lab, client::Module, HandleSession, HandleObject) {
    let lab = Lab::with_options(members, true, false, "MinimumCopies = available;");
    let session = lab.user();
    let key = lab.hmac_key(session, true);
    let other = lab.another("MinimumCopies = available;");
    let theirs = other.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
    other.login(theirs, UserType::USER, Some(CO_PIN)).unwrap();
    other.find_init(theirs, vec![Attribute::bool(A::SIGN, true)].into()).unwrap();
    let found = other.find(theirs, 2).unwrap();
    assert_eq!(found.len(), 1);
    mac_of(&other, theirs, found[0]).unwrap();
    lab.members[1..].iter().for_each(|member| lab.seam.set_down(*member, true));
    lab.module.set_attributes(session, key, vec![label("new")].into()).unwrap();
    assert_eq!(label_of(&other, theirs, found[0]), Ok(b"new".to_vec()));
    (lab, other, theirs, found[0])
}

/// The others come back when that one goes.
fn it_goes(lab: &Lab) {
    lab.members[1..].iter().for_each(|member| lab.seam.set_down(*member, false));
    lab.seam.set_down(lab.members[0], true);
}

fn seen_at_one_that_goes(members: u64) -> (Lab, client::Module, HandleSession, HandleObject) {
    let (lab, other, theirs, key) = seen_at_one(members);
    let mac = bytes(mac_of(&other, theirs, key));
    it_goes(&lab);
    assert_eq!(bytes(mac_of(&other, theirs, key)), mac, "the use of a key does not end with a label");
    (lab, other, theirs, key)
}

/// The uses that all members but the first were sent.
fn uses_of_the_others(lab: &Lab) -> u64 {
    lab.members[1..].iter().map(|member| lab.seam.count(*member, USE)).sum()
}

fn mac_of(module: &client::Module, session: HandleSession, key: HandleObject) -> client::Result<Produced> {
    module.sign_init(session, plain(M::SHA256_HMAC), key)?;
    module.sign(session, b"data", ROOM)
}

fn label(text: &str) -> Attribute {
    Attribute::new(A::LABEL, text.as_bytes().to_vec())
}

fn label_of(module: &client::Module, session: HandleSession, object: HandleObject) -> Result<Vec<u8>, Rv> {
    let values = module.get_attributes(session, object, &[A::LABEL]).map_err(|error| error.rv())?;
    values[0].as_ref().map(|value| value.to_vec()).map_err(|rv| *rv)
}

#[test]
fn ha_4_6_the_last_member_is_used_as_it_is_though_it_lacks_a_change_that_was_seen() {
    let (lab, other, session, key) = seen_at_one_that_goes(2);
    assert_eq!(label_of(&other, session, key), Ok(Vec::new()), "the one that is left has no other");
    other.set_attributes(session, key, vec![label("newer")].into()).unwrap();
    let before = lab.seam.count_all();
    assert_eq!(label_of(&other, session, key), Ok(b"newer".to_vec()));
    mac_of(&other, session, key).unwrap();
    mac_of(&other, session, key).unwrap();
    assert!(lab.seam.count_all() - before <= 5, "nobody is asked twice: {}", lab.seam.count_all() - before);
}

#[test]
fn ha_3_1_a_key_is_used_in_an_older_state_until_who_has_the_one_that_was_seen_comes_back() {
    let (lab, other, session, key) = seen_at_one_that_goes(3);
    assert_eq!(label_of(&other, session, key), Err(Rv::DEVICE_ERROR), "what was seen is not unsaid");
    let before = uses_of_the_others(&lab);
    for _ in 0..10 {
        mac_of(&other, session, key).unwrap();
    }
    assert_eq!(uses_of_the_others(&lab) - before, 10, "nobody is asked twice");
    lab.seam.set_down(lab.members[0], false);
    // It is read again once it has been compared with the others and they with it (HA 4.6).
    let read = (0..100).find_map(|_| label_of(&other, session, key).ok());
    assert_eq!(read, Some(b"new".to_vec()));
    mac_of(&other, session, key).unwrap();
}

#[test]
fn ha_3_1_a_running_operation_gives_the_state_that_was_seen_up_once() {
    let (lab, other, session, key) = seen_at_one(3);
    other.sign_init(session, plain(M::SHA256_HMAC), key).unwrap();
    other.sign_update(session, &[7; 100_000]).unwrap();
    it_goes(&lab);
    other.sign_update(session, &[7; 100_000]).unwrap();
    let before = uses_of_the_others(&lab);
    for _ in 0..10 {
        other.sign_update(session, &[7; 100_000]).unwrap();
    }
    let mac = bytes(other.sign_final(session, ROOM));
    assert!(uses_of_the_others(&lab) - before <= 11, "{} uses", uses_of_the_others(&lab) - before);
    other.sign_init(session, plain(M::SHA256_HMAC), key).unwrap();
    assert_eq!(bytes(other.sign(session, &[7; 1_200_000], ROOM)), mac);
}
