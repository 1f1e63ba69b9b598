//! Contract: RSA signatures: PKCS #1 v1.5 over anything, over hashes, PSS, raw.

use cryptoki_sys::*;

use super::vectors::{HASHES, rsa_of, rsa_public};
use super::{Context, Object, Session, plain, refused};
use crate::p11::{Mech, Outcome, Tmpl, pair_templates};

rows! {
    "v3.1, 6.1.6" => rsa_pkcs_signs_digest_infos_of_all_hashes,
    "v3.1, 6.1.6" => rsa_pkcs_signs_the_36_bytes_of_tls_1_0,
    "v3.1, 6.1.6" => rsa_pkcs_signs_nothing_and_the_most,
    "v3.1, 6.1.6" => rsa_pkcs_refuses_one_byte_more_than_the_most,
    "v3.1, 6.1.14" => rsa_hash_and_sign_is_the_digest_info_signed,
    "v3.1, 6.1.14" => rsa_hash_and_sign_in_parts_is_the_same,
    "v3.1, 6.1.10" => rsa_pss_over_a_digest_verifies_outside,
    "v3.1, 6.1.17" => rsa_pss_with_hash_verifies_outside,
    "v3.1, 6.1.10" => rsa_pss_of_a_digest_of_another_length_is_refused,
    "v3.1, 6.1.17" => rsa_pss_with_another_hash_than_the_mechanism_is_refused,
    "v3.1, 6.1.10" => rsa_pss_with_bad_parameters_is_refused,
    "v3.1, 6.1.12" => rsa_raw_signature_is_the_private_power,
    "v3.1, 6.1.12" => rsa_raw_refuses_what_is_not_below_the_modulus,
    "v3.1, 5.15.2" => rsa_verify_tells_bad_signatures_from_bad_lengths,
    "v3.1, 5.15.2" => rsa_pkcs_verify_compares_the_data,
    "v3.1, 5.13.1" => sign_needs_the_permission_of_the_key,
    "v3.1, 5.13.1" => sign_with_a_key_of_another_type_is_refused,
    "v3.1, 5.13.1" => sign_with_a_mechanism_that_does_not_sign_is_refused,
    "v3.1, 5.13.1" => sign_with_a_parameter_that_the_mechanism_has_not_is_refused,
    "v3.1, 5.13.1" => sign_with_a_handle_of_no_key_is_refused,
    "v3.1, 5.13.1" => sign_with_a_private_key_needs_a_login,
    "v3.1, 4.8" => allowed_mechanisms_are_the_only_ones,
}

/// What a PKCS #1 v1.5 signature over `data` must be when raised to the public exponent (RFC 8017, 9.2).
fn padded(data: &[u8]) -> Vec<u8> {
    [&[0, 1][..], &vec![0xff; 256 - 3 - data.len()], &[0], data].concat()
}

/// Signs with CKM_RSA_PKCS, judges outside the module and has the module verify.
fn sign_and_judge(
    cx: &Context,
    session: Session,
    (public, private): (Object, Object),
    data: &[u8],
) -> Outcome<()> {
    let signature = cx.p11.sign_once(session, plain(CKM_RSA_PKCS), private, data)?;
    let key = rsa_of(cx, session, public)?;
    assert_eq!(rsa_public(&key, &signature), padded(data), "{} bytes", data.len());
    cx.p11.verify_once(session, plain(CKM_RSA_PKCS), public, data, &signature)
}

fn rsa_pkcs_signs_digest_infos_of_all_hashes(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let pair = cx.rsa(session)?;
    HASHES.iter().try_for_each(|hash| sign_and_judge(cx, session, pair, &hash.digest_info(b"message")))
}

fn rsa_pkcs_signs_the_36_bytes_of_tls_1_0(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    sign_and_judge(cx, session, cx.rsa(session)?, &[0x36; 36])
}

fn rsa_pkcs_signs_nothing_and_the_most(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let pair = cx.rsa(session)?;
    sign_and_judge(cx, session, pair, &[])?;
    sign_and_judge(cx, session, pair, &[0x42; 256 - 11])
}

fn rsa_pkcs_refuses_one_byte_more_than_the_most(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    for bytes in [256 - 10, 256, 1000] {
        refused(
            cx.p11.sign_once(session, plain(CKM_RSA_PKCS), private, &vec![1; bytes]),
            &[CKR_DATA_LEN_RANGE],
        );
    }
    Ok(())
}

fn rsa_hash_and_sign_is_the_digest_info_signed(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let key = rsa_of(cx, session, public)?;
    for hash in HASHES {
        for data in [&b""[..], b"message", &[9; 5000]] {
            let signature = cx.p11.sign_once(session, plain(hash.rsa_pkcs), private, data)?;
            assert_eq!(rsa_public(&key, &signature), padded(&hash.digest_info(data)));
            cx.p11.verify_once(session, plain(hash.rsa_pkcs), public, data, &signature)?;
        }
    }
    Ok(())
}

fn rsa_hash_and_sign_in_parts_is_the_same(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    for hash in HASHES {
        let whole = cx.p11.sign_once(session, plain(hash.rsa_pkcs), private, b"in some parts")?;
        cx.p11.sign_init(session, plain(hash.rsa_pkcs), private)?;
        for part in [&b"in "[..], b"", b"some parts"] {
            cx.p11.sign_update(session, part)?;
        }
        assert_eq!(cx.p11.sign_final(session)?, whole);
        cx.p11.verify_init(session, plain(hash.rsa_pkcs), public)?;
        cx.p11.verify_update(session, b"in some ")?;
        cx.p11.verify_update(session, b"parts")?;
        cx.p11.verify_final(session, &whole)?;
    }
    Ok(())
}

/// Judges a PSS signature by the `rsa` crate; SHA-1 by the module alone.
fn judge_pss(key: &rsa::RsaPublicKey, digest: &[u8], salt_bytes: usize, signature: &[u8]) {
    use rsa::sha2::{Sha224, Sha256, Sha384, Sha512};
    let scheme = match digest.len() {
        28 => rsa::Pss::new_with_salt::<Sha224>(salt_bytes),
        32 => rsa::Pss::new_with_salt::<Sha256>(salt_bytes),
        48 => rsa::Pss::new_with_salt::<Sha384>(salt_bytes),
        64 => rsa::Pss::new_with_salt::<Sha512>(salt_bytes),
        _ => return,
    };
    key.verify(scheme, digest, signature).expect("the signature is good");
}

fn rsa_pss_over_a_digest_verifies_outside(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let key = rsa_of(cx, session, public)?;
    for hash in HASHES {
        for salt in [0, hash.bytes(), 20] {
            let mech = || Mech::pss(CKM_RSA_PKCS_PSS, hash.digest, hash.mgf, salt as CK_ULONG);
            let digest = hash.of(b"message");
            let signature = cx.p11.sign_once(session, mech(), private, &digest)?;
            judge_pss(&key, &digest, salt, &signature);
            cx.p11.verify_once(session, mech(), public, &digest, &signature)?;
            let other = hash.of(b"another message");
            refused(
                cx.p11.verify_once(session, mech(), public, &other, &signature),
                &[CKR_SIGNATURE_INVALID],
            );
        }
    }
    Ok(())
}

fn rsa_pss_with_hash_verifies_outside(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let key = rsa_of(cx, session, public)?;
    for hash in HASHES {
        let mech = || Mech::pss(hash.rsa_pss, hash.digest, hash.mgf, hash.bytes() as CK_ULONG);
        let signature = cx.p11.sign_once(session, mech(), private, b"message")?;
        judge_pss(&key, &hash.of(b"message"), hash.bytes(), &signature);
        cx.p11.verify_once(session, mech(), public, b"message", &signature)?;
        cx.p11.sign_init(session, mech(), private)?;
        cx.p11.sign_update(session, b"mess")?;
        cx.p11.sign_update(session, b"age")?;
        let in_parts = cx.p11.sign_final(session)?;
        assert_ne!(in_parts, signature, "the salt is random");
        judge_pss(&key, &hash.of(b"message"), hash.bytes(), &in_parts);
    }
    Ok(())
}

fn rsa_pss_of_a_digest_of_another_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    for bytes in [0, 31, 33] {
        let mech = Mech::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32);
        refused(cx.p11.sign_once(session, mech, private, &vec![1; bytes]), &[CKR_DATA_LEN_RANGE]);
    }
    Ok(())
}

fn rsa_pss_with_another_hash_than_the_mechanism_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    let mech = Mech::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA256, 32);
    refused(cx.p11.sign_init(session, mech, private), &[CKR_MECHANISM_PARAM_INVALID]);
    Ok(())
}

fn rsa_pss_with_bad_parameters_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    let bad = [
        Mech::pss(CKM_RSA_PKCS_PSS, CKM_AES_CBC, CKG_MGF1_SHA256, 32),
        Mech::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, 0x7777, 32),
        Mech::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 1 << 40),
        Mech::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 223),
        Mech::iv(CKM_RSA_PKCS_PSS, &[0; 8]),
        plain(CKM_RSA_PKCS_PSS),
    ];
    for mech in bad {
        refused(cx.p11.sign_init(session, mech, private), &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD]);
    }
    Ok(())
}

fn rsa_raw_signature_is_the_private_power(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let key = rsa_of(cx, session, public)?;
    let mut whole = [0x77; 256];
    whole[0] = 0;
    let signature = cx.p11.sign_once(session, plain(CKM_RSA_X_509), private, &whole)?;
    assert_eq!(rsa_public(&key, &signature), whole);
    cx.p11.verify_once(session, plain(CKM_RSA_X_509), public, &whole, &signature)?;
    let short = cx.p11.sign_once(session, plain(CKM_RSA_X_509), private, &[5; 20])?;
    assert_eq!(rsa_public(&key, &short), [vec![0; 236], vec![5; 20]].concat(), "zeros go in front");
    Ok(())
}

fn rsa_raw_refuses_what_is_not_below_the_modulus(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    let sign = |data: &[u8]| cx.p11.sign_once(session, plain(CKM_RSA_X_509), private, data);
    refused(sign(&[0xff; 256]), &[CKR_DATA_INVALID, CKR_DATA_LEN_RANGE]);
    refused(sign(&[0; 257]), &[CKR_DATA_LEN_RANGE]);
    Ok(())
}

fn rsa_verify_tells_bad_signatures_from_bad_lengths(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    for kind in [CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS] {
        let mut signature = cx.p11.sign_once(session, plain(kind), private, b"data")?;
        let verify =
            |data: &[u8], signature: &[u8]| cx.p11.verify_once(session, plain(kind), public, data, signature);
        verify(b"data", &signature)?;
        refused(verify(b"other", &signature), &[CKR_SIGNATURE_INVALID]);
        refused(verify(b"data", &signature[1..]), &[CKR_SIGNATURE_LEN_RANGE]);
        refused(verify(b"data", &[]), &[CKR_SIGNATURE_LEN_RANGE]);
        signature[100] ^= 1;
        refused(verify(b"data", &signature), &[CKR_SIGNATURE_INVALID]);
        signature.push(0);
        refused(verify(b"data", &signature), &[CKR_SIGNATURE_LEN_RANGE]);
    }
    Ok(())
}

fn rsa_pkcs_verify_compares_the_data(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let signature = cx.p11.sign_once(session, plain(CKM_RSA_PKCS), private, b"12345678")?;
    for data in [&b"1234567"[..], b"123456789", b"12345679", b""] {
        refused(
            cx.p11.verify_once(session, plain(CKM_RSA_PKCS), public, data, &signature),
            &[CKR_SIGNATURE_INVALID],
        );
    }
    Ok(())
}

fn sign_needs_the_permission_of_the_key(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = pair_templates(false, "verify only", 1);
    drop(private);
    let private = Tmpl::new().bool(CKA_TOKEN, false).bool(CKA_SIGN, false).bool(CKA_PRIVATE, true);
    let public = public.bytes(CKA_EC_PARAMS, crate::p11::P256_PARAMS);
    let (_, private) = cx.p11.generate_pair(session, plain(CKM_EC_KEY_PAIR_GEN), public, private)?;
    refused(cx.p11.sign_init(session, plain(CKM_ECDSA), private), &[CKR_KEY_FUNCTION_NOT_PERMITTED]);
    Ok(())
}

fn sign_with_a_key_of_another_type_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let mac = cx.mac(session)?;
    let wanted = &[CKR_KEY_TYPE_INCONSISTENT];
    refused(cx.p11.sign_init(session, plain(CKM_ECDSA), private), wanted);
    refused(cx.p11.sign_init(session, plain(CKM_RSA_PKCS), mac), wanted);
    refused(cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), private), wanted);
    let wanted = &[CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_FUNCTION_NOT_PERMITTED];
    refused(cx.p11.sign_init(session, plain(CKM_RSA_PKCS), public), wanted);
    Ok(())
}

fn sign_with_a_mechanism_that_does_not_sign_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    for kind in [CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_SHA256, CKM_AES_CBC, 0x7fff_ffff] {
        refused(cx.p11.sign_init(session, plain(kind), private), &[CKR_MECHANISM_INVALID]);
    }
    Ok(())
}

fn sign_with_a_parameter_that_the_mechanism_has_not_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    refused(
        cx.p11.sign_init(session, Mech::iv(CKM_RSA_PKCS, &[1; 16]), private),
        &[CKR_MECHANISM_PARAM_INVALID],
    );
    Ok(())
}

fn sign_with_a_handle_of_no_key_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let data = cx.p11.create_object(session, super::data_template(false, true, "no key", b"x"))?;
    for handle in [CK_INVALID_HANDLE, CK_OBJECT_HANDLE::MAX, 0x7fff_0000] {
        refused(cx.p11.sign_init(session, plain(CKM_RSA_PKCS), handle), cx.no_key());
    }
    let wanted = &[CKR_KEY_HANDLE_INVALID, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_FUNCTION_NOT_PERMITTED];
    refused(cx.p11.sign_init(session, plain(CKM_RSA_PKCS), data), wanted);
    Ok(())
}

fn sign_with_a_private_key_needs_a_login(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    cx.p11.logout(session)?;
    refused(
        cx.p11.sign_init(session, plain(CKM_RSA_PKCS), private),
        &[CKR_USER_NOT_LOGGED_IN, CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID],
    );
    Ok(())
}

fn allowed_mechanisms_are_the_only_ones(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = super::secret_template(CKK_GENERIC_SECRET, &[1; 64])
        .bytes(CKA_ALLOWED_MECHANISMS, &CKM_SHA256_HMAC.to_ne_bytes());
    let key = cx.p11.create_object(session, tmpl)?;
    let mac = cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), key, b"data")?;
    cx.p11.verify_once(session, plain(CKM_SHA256_HMAC), key, b"data", &mac)?;
    refused(cx.p11.sign_init(session, plain(CKM_SHA512_HMAC), key), &[CKR_MECHANISM_INVALID]);
    refused(cx.p11.verify_init(session, plain(CKM_SHA512_HMAC), key), &[CKR_MECHANISM_INVALID]);
    Ok(())
}
