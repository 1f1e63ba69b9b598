//! Contract: the convention for outputs (PKCS #11 v3.1, 5.2): a query tells the length, a small buffer keeps the
//! operation, an exact buffer is enough, and nothing behind it is written.

use std::ptr::null_mut;

use cryptoki_sys::*;

use super::vectors::{CURVES, HASHES};
use super::{Context, Object, Session, answered, plain, refused};
use crate::p11::{Mech, Outcome, p256_pair, pair_templates};

rows! {
    "v3.1, 5.2" => sign_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => sign_final_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => ecdsa_sign_final_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => signature_lengths_are_those_of_key_and_mechanism,
    "v3.1, 5.2" => digest_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => digest_final_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => encrypt_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => encrypt_update_with_short_buffer_takes_the_part_once,
    "v3.1, 5.2" => encrypt_final_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => decrypt_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => decrypt_of_padded_data_with_exact_buffer_succeeds,
    "v3.1, 5.2" => decrypt_final_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => rsa_decrypt_with_exact_buffer_succeeds,
    "v3.1, 5.2" => gcm_with_short_buffer_keeps_the_operation,
    "v3.1, 5.2" => output_may_lie_over_the_input,
    "v3.1, 5.2" => zero_room_is_a_short_buffer_and_no_query,
}

/// The call whose output is looked at: output pointer, then its length.
type Produce<'a> = &'a dyn Fn(*mut CK_BYTE, *mut CK_ULONG) -> CK_RV;

fn count(length: usize) -> CK_ULONG {
    CK_ULONG::try_from(length).expect("lengths of tests fit")
}

/// What a query answers.
#[track_caller]
fn query(produce: Produce) -> usize {
    let mut length = 0xdead;
    answered(produce(null_mut(), &mut length), &[CKR_OK]);
    usize::try_from(length).expect("a length fits")
}

/// A call with so much room, and a guard behind it.
#[track_caller]
fn with_room(produce: Produce, room: usize) -> (CK_RV, usize, Vec<u8>) {
    let mut buffer = vec![0xee; room + 64];
    let mut length = count(room);
    let rv = produce(buffer.as_mut_ptr(), &mut length);
    assert!(buffer[room..].iter().all(|byte| *byte == 0xee), "a byte behind the buffer was written");
    (rv, usize::try_from(length).expect("a length fits"), buffer)
}

/// Queries, short buffers, then the exact one, of an output of known length; answers the output.
#[track_caller]
fn all_rooms(produce: Produce, wanted: usize) -> Vec<u8> {
    assert_eq!(query(produce), wanted, "the length of the first query");
    assert_eq!(query(produce), wanted, "the length of the second query");
    for room in [wanted - 1, wanted / 2] {
        let (rv, length, _) = with_room(produce, room);
        answered(rv, &[CKR_BUFFER_TOO_SMALL]);
        assert_eq!(length, wanted, "CKR_BUFFER_TOO_SMALL tells the length");
    }
    assert_eq!(query(produce), wanted, "the length of the query after a short buffer");
    let (rv, length, mut buffer) = with_room(produce, wanted);
    answered(rv, &[CKR_OK]);
    assert_eq!(length, wanted);
    buffer.truncate(wanted);
    buffer
}

/// An input pointer: the standard's inputs are never written.
fn input(data: &[u8]) -> *mut CK_BYTE {
    data.as_ptr().cast_mut()
}

fn sign_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let data = b"data";
    let judge = |kind, (public, private): (Object, Object), length| {
        cx.p11.sign_init(session, plain(kind), private)?;
        let produce = |out, room| raw!(cx, C_Sign(session, input(data), 4, out, room));
        let signature = all_rooms(&produce, length);
        cx.p11.verify_once(session, plain(kind), public, data, &signature)?;
        refused(cx.p11.sign(session, data), &[CKR_OPERATION_NOT_INITIALIZED]);
        Ok(())
    };
    let pair = cx.rsa(session)?;
    judge(CKM_RSA_PKCS, pair, 256)?;
    judge(CKM_SHA256_RSA_PKCS, pair, 256)?;
    judge(CKM_ECDSA, p256_pair(&cx.p11, session, false, "short", 1)?, 64)?;
    let mac = cx.mac(session)?;
    judge(CKM_SHA256_HMAC, (mac, mac), 32)
}

/// A signature in parts with all rooms for its end.
fn final_rooms(
    cx: &Context,
    session: Session,
    kind: CK_MECHANISM_TYPE,
    (public, private): (Object, Object),
    length: usize,
) -> Outcome<()> {
    cx.p11.sign_init(session, plain(kind), private)?;
    cx.p11.sign_update(session, b"some ")?;
    cx.p11.sign_update(session, b"parts")?;
    let produce = |out, room| raw!(cx, C_SignFinal(session, out, room));
    let signature = all_rooms(&produce, length);
    cx.p11.verify_once(session, plain(kind), public, b"some parts", &signature)
}

fn sign_final_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    final_rooms(cx, session, CKM_SHA256_RSA_PKCS, cx.rsa(session)?, 256)?;
    let mac = cx.mac(session)?;
    final_rooms(cx, session, CKM_SHA512_HMAC, (mac, mac), 64)
}

fn ecdsa_sign_final_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let pair = p256_pair(&cx.p11, session, false, "short", 1)?;
    final_rooms(cx, session, CKM_ECDSA_SHA256, pair, 64)
}

fn signature_lengths_are_those_of_key_and_mechanism(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, private) = pair_templates(false, "lengths", 1);
        let public = public.bytes(CKA_EC_PARAMS, curve.params);
        let (_, private) = cx.p11.generate_pair(session, plain(CKM_EC_KEY_PAIR_GEN), public, private)?;
        cx.p11.sign_init(session, plain(CKM_ECDSA), private)?;
        assert_eq!(cx.p11.sign_length(session, &[1; 32])?, 2 * curve.bytes);
        assert_eq!(cx.p11.sign(session, &[1; 32])?.len(), 2 * curve.bytes);
    }
    let mac = cx.mac(session)?;
    for hash in HASHES {
        cx.p11.sign_init(session, plain(hash.hmac), mac)?;
        assert_eq!(cx.p11.sign_length(session, b"data")?, hash.bytes());
        assert_eq!(cx.p11.sign(session, b"data")?.len(), hash.bytes());
    }
    Ok(())
}

fn digest_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    for hash in HASHES {
        cx.p11.digest_init(session, plain(hash.digest))?;
        let produce = |out, room| raw!(cx, C_Digest(session, input(b"abc"), 3, out, room));
        assert_eq!(all_rooms(&produce, hash.bytes()), hash.of(b"abc"));
        refused(cx.p11.digest_final(session), &[CKR_OPERATION_NOT_INITIALIZED]);
    }
    Ok(())
}

fn digest_final_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    cx.p11.digest_init(session, plain(CKM_SHA256))?;
    cx.p11.digest_update(session, b"abc")?;
    let produce = |out, room| raw!(cx, C_DigestFinal(session, out, room));
    assert_eq!(all_rooms(&produce, 32), HASHES[2].of(b"abc"));
    Ok(())
}

/// AES-CBC-PAD.
fn pad() -> Mech {
    Mech::iv(CKM_AES_CBC_PAD, &[9; 16])
}

fn sealed(cx: &Context, session: Session, key: Object, data: &[u8]) -> Outcome<Vec<u8>> {
    cx.p11.encrypt_init(session, pad(), key)?;
    cx.p11.encrypt(session, data)
}

fn encrypt_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let wanted = sealed(cx, session, key, &[1; 20])?;
    cx.p11.encrypt_init(session, pad(), key)?;
    let produce = |out, room| raw!(cx, C_Encrypt(session, input(&[1; 20]), 20, out, room));
    assert_eq!(all_rooms(&produce, 32), wanted);
    refused(cx.p11.encrypt(session, &[1; 20]), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn encrypt_update_with_short_buffer_takes_the_part_once(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    cx.p11.encrypt_init(session, Mech::iv(CKM_AES_CBC, &[9; 16]), key)?;
    let whole = cx.p11.encrypt(session, &[1; 48])?;
    cx.p11.encrypt_init(session, Mech::iv(CKM_AES_CBC, &[9; 16]), key)?;
    let produce = |out, room| raw!(cx, C_EncryptUpdate(session, input(&[1; 32]), 32, out, room));
    assert_eq!(all_rooms(&produce, 32), whole[..32]);
    assert_eq!(cx.p11.encrypt_update(session, &[1; 16])?, whole[32..], "no part was taken twice");
    assert!(cx.p11.encrypt_final(session)?.is_empty());
    Ok(())
}

fn encrypt_final_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let wanted = sealed(cx, session, key, &[1; 20])?;
    cx.p11.encrypt_init(session, pad(), key)?;
    let mut all = cx.p11.encrypt_update(session, &[1; 20])?;
    let produce = |out, room| raw!(cx, C_EncryptFinal(session, out, room));
    all.extend(all_rooms(&produce, 16));
    assert_eq!(all, wanted);
    Ok(())
}

/// Queries and short buffers of an output whose length only its bound tells; answers the output.
#[track_caller]
fn bounded(produce: Produce, wanted: usize) -> Vec<u8> {
    assert!(query(produce) >= wanted, "a query answers a bound");
    let (rv, length, _) = with_room(produce, wanted - 1);
    answered(rv, &[CKR_BUFFER_TOO_SMALL]);
    assert!(length >= wanted, "CKR_BUFFER_TOO_SMALL tells a bound");
    let (rv, length, mut buffer) = with_room(produce, length);
    answered(rv, &[CKR_OK]);
    buffer.truncate(length);
    buffer
}

fn decrypt_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let data = sealed(cx, session, key, &[1; 20])?;
    cx.p11.decrypt_init(session, pad(), key)?;
    let produce = |out, room| raw!(cx, C_Decrypt(session, input(&data), 32, out, room));
    assert_eq!(bounded(&produce, 20), [1; 20]);
    refused(cx.p11.decrypt(session, &data), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn decrypt_of_padded_data_with_exact_buffer_succeeds(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let data = sealed(cx, session, key, &[1; 20])?;
    cx.p11.decrypt_init(session, pad(), key)?;
    let produce = |out, room| raw!(cx, C_Decrypt(session, input(&data), 32, out, room));
    let (rv, length, buffer) = with_room(&produce, 20);
    answered(rv, &[CKR_OK]);
    assert_eq!(buffer[..length], [1; 20]);
    Ok(())
}

fn decrypt_final_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let data = sealed(cx, session, key, &[1; 20])?;
    cx.p11.decrypt_init(session, pad(), key)?;
    let mut all = cx.p11.decrypt_update(session, &data)?;
    let produce = |out, room| raw!(cx, C_DecryptFinal(session, out, room));
    all.extend(bounded(&produce, 20 - all.len()));
    assert_eq!(all, [1; 20]);
    Ok(())
}

fn rsa_decrypt_with_exact_buffer_succeeds(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    for mech in [plain(CKM_RSA_PKCS), Mech::oaep(CKM_SHA_1, CKG_MGF1_SHA1, b"")] {
        cx.p11.encrypt_init(session, mech.clone(), public)?;
        let data = cx.p11.encrypt(session, &[3; 32])?;
        cx.p11.decrypt_init(session, mech, private)?;
        let produce = |out, room| raw!(cx, C_Decrypt(session, input(&data), 256, out, room));
        assert!((32..=256).contains(&query(&produce)));
        let (rv, length, buffer) = with_room(&produce, 32);
        answered(rv, &[CKR_OK]);
        assert_eq!(buffer[..length], [3; 32]);
    }
    Ok(())
}

fn gcm_with_short_buffer_keeps_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let mech = || Mech::gcm(&[7; 12], b"aad", 128);
    cx.p11.encrypt_init(session, mech(), key)?;
    let produce = |out, room| raw!(cx, C_Encrypt(session, input(&[1; 20]), 20, out, room));
    let data = all_rooms(&produce, 36);
    cx.p11.decrypt_init(session, mech(), key)?;
    let produce = |out, room| raw!(cx, C_Decrypt(session, input(&data), 36, out, room));
    assert_eq!(bounded(&produce, 20), [1; 20]);
    Ok(())
}

fn output_may_lie_over_the_input(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let wanted = sealed(cx, session, key, &[1; 20])?;
    let (mut buffer, mut length) = ([1u8; 32], 32);
    cx.p11.encrypt_init(session, pad(), key)?;
    let place = buffer.as_mut_ptr();
    answered(raw!(cx, C_Encrypt(session, place, 20, place, &mut length)), &[CKR_OK]);
    assert_eq!(buffer[..], wanted);
    cx.p11.decrypt_init(session, pad(), key)?;
    let place = buffer.as_mut_ptr();
    answered(raw!(cx, C_Decrypt(session, place, 32, place, &mut length)), &[CKR_OK]);
    assert_eq!((&buffer[..20], length), (&[1; 20][..], 20));
    Ok(())
}

fn zero_room_is_a_short_buffer_and_no_query(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mac = cx.mac(session)?;
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    let produce = |out, room| raw!(cx, C_Sign(session, input(b"data"), 4, out, room));
    let (rv, length, _) = with_room(&produce, 0);
    answered(rv, &[CKR_BUFFER_TOO_SMALL]);
    assert_eq!(length, 32);
    assert_eq!(cx.p11.sign(session, b"data")?.len(), 32);
    Ok(())
}
