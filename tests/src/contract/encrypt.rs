//! Contract: AES in its modes, and RSA encryption.

use cryptoki_sys::*;

use super::vectors::{HASHES, rsa_of, rsa_public};
use super::{Context, Object, Session, hex, plain, refused};
use crate::p11::{Mech, Outcome, Tmpl};

rows! {
    "v3.1, 6.10.4" => aes_ecb_gives_the_published_values,
    "v3.1, 6.10.5" => aes_cbc_gives_the_published_values,
    "v3.1, 6.10.5" => aes_cbc_in_parts_is_the_same,
    "v3.1, 6.10.4" => aes_without_padding_refuses_broken_blocks,
    "v3.1, 6.10.6" => aes_cbc_pad_takes_every_length,
    "v3.1, 6.10.6" => aes_cbc_pad_in_parts_is_the_same,
    "v3.1, 6.10.6" => aes_cbc_pad_refuses_bad_padding_and_lengths,
    "v3.1, 6.10.5" => aes_cbc_with_a_bad_iv_is_refused,
    "v3.1, 6.13.2" => aes_gcm_gives_the_published_values,
    "v3.1, 6.13.2" => aes_gcm_in_parts_is_the_same,
    "v3.1, 6.13.2" => aes_gcm_refuses_every_change,
    "v3.1, 6.13.2" => aes_gcm_decryption_in_parts_yields_nothing_before_the_end,
    "v3.1, 6.13.2" => aes_gcm_of_nothing_is_a_tag,
    "v3.1, 6.1.6" => rsa_pkcs_decrypts_what_was_encrypted,
    "v3.1, 6.1.6" => rsa_pkcs_encryption_is_padded_at_random,
    "v3.1, 6.1.6" => rsa_pkcs_encryption_of_too_much_is_refused,
    "v3.1, 6.1.8" => rsa_oaep_decrypts_what_was_encrypted,
    "v3.1, 6.1.8" => rsa_oaep_takes_any_hash_and_a_label,
    "v3.1, 6.1.8" => rsa_oaep_decrypts_what_was_encrypted_outside,
    "v3.1, 6.1.8" => rsa_oaep_refuses_another_label_and_changes,
    "v3.1, 6.1.12" => rsa_raw_decryption_undoes_the_public_power,
    "v3.1, 5.10.2" => rsa_decryption_of_a_bad_length_is_refused,
    "v3.1, 5.8.1" => encryption_needs_the_permission_of_the_key,
    "RULES 2.16" => rsa_pkcs_decryption_does_not_tell_bad_padding,
}

const IV: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn encrypt(cx: &Context, session: Session, mech: Mech, key: Object, data: &[u8]) -> Outcome<Vec<u8>> {
    cx.p11.encrypt_init(session, mech, key)?;
    cx.p11.encrypt(session, data)
}

fn decrypt(cx: &Context, session: Session, mech: Mech, key: Object, data: &[u8]) -> Outcome<Vec<u8>> {
    cx.p11.decrypt_init(session, mech, key)?;
    cx.p11.decrypt(session, data)
}

/// All parts through an operation already begun, and what its end adds.
fn in_parts(cx: &Context, session: Session, encrypting: bool, data: &[u8], step: usize) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    for part in data.chunks(step) {
        all.extend(if encrypting {
            cx.p11.encrypt_update(session, part)?
        } else {
            cx.p11.decrypt_update(session, part)?
        });
    }
    all.extend(if encrypting { cx.p11.encrypt_final(session)? } else { cx.p11.decrypt_final(session)? });
    Ok(all)
}

/// FIPS 197, appendix C.
fn aes_ecb_gives_the_published_values(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let data = hex("00112233445566778899aabbccddeeff");
    for (bytes, wanted) in [
        (16u8, "69c4e0d86a7b0430d8cdb78070b4c55a"),
        (24, "dda97ca4864cdfe06eaf70a0ec0d7191"),
        (32, "8ea2b7ca516745bfeafc49904b496089"),
    ] {
        let key = cx.secret(session, CKK_AES, &(0..bytes).collect::<Vec<_>>())?;
        assert_eq!(encrypt(cx, session, plain(CKM_AES_ECB), key, &data)?, hex(wanted));
        assert_eq!(decrypt(cx, session, plain(CKM_AES_ECB), key, &hex(wanted))?, data);
    }
    Ok(())
}

/// SP 800-38A, F.2.1: key, plaintext, ciphertext of two blocks.
fn cbc(cx: &Context, session: Session) -> Outcome<(Object, Vec<u8>, Vec<u8>)> {
    let key = cx.secret(session, CKK_AES, &hex("2b7e151628aed2a6abf7158809cf4f3c"))?;
    let data = hex("6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51");
    Ok((key, data, hex("7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2")))
}

fn aes_cbc_gives_the_published_values(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (key, data, wanted) = cbc(cx, session)?;
    let mech = || Mech::iv(CKM_AES_CBC, &IV);
    assert_eq!(encrypt(cx, session, mech(), key, &data)?, wanted);
    assert_eq!(decrypt(cx, session, mech(), key, &wanted)?, data);
    Ok(())
}

fn aes_cbc_in_parts_is_the_same(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (key, data, wanted) = cbc(cx, session)?;
    for step in [1, 7, 16, 17, 32] {
        cx.p11.encrypt_init(session, Mech::iv(CKM_AES_CBC, &IV), key)?;
        assert_eq!(in_parts(cx, session, true, &data, step)?, wanted, "parts of {step}");
        cx.p11.decrypt_init(session, Mech::iv(CKM_AES_CBC, &IV), key)?;
        assert_eq!(in_parts(cx, session, false, &wanted, step)?, data, "parts of {step}");
    }
    Ok(())
}

fn aes_without_padding_refuses_broken_blocks(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    for mech in [plain(CKM_AES_ECB), Mech::iv(CKM_AES_CBC, &IV)] {
        refused(encrypt(cx, session, mech.clone(), key, &[1; 15]), &[CKR_DATA_LEN_RANGE]);
        refused(decrypt(cx, session, mech.clone(), key, &[1; 17]), &[CKR_ENCRYPTED_DATA_LEN_RANGE]);
        cx.p11.encrypt_init(session, mech, key)?;
        cx.p11.encrypt_update(session, &[1; 20])?;
        refused(cx.p11.encrypt_final(session), &[CKR_DATA_LEN_RANGE]);
    }
    Ok(())
}

fn aes_cbc_pad_takes_every_length(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let mech = || Mech::iv(CKM_AES_CBC_PAD, &IV);
    for bytes in [0usize, 1, 15, 16, 17, 31, 32, 33, 1000] {
        let data = vec![0x21; bytes];
        let sealed = encrypt(cx, session, mech(), key, &data)?;
        assert_eq!(sealed.len(), (bytes / 16 + 1) * 16);
        assert_eq!(decrypt(cx, session, mech(), key, &sealed)?, data);
    }
    Ok(())
}

fn aes_cbc_pad_in_parts_is_the_same(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let mech = || Mech::iv(CKM_AES_CBC_PAD, &IV);
    for bytes in [1usize, 16, 47, 48, 100] {
        let data: Vec<u8> = (0..100u8).take(bytes).collect();
        let sealed = encrypt(cx, session, mech(), key, &data)?;
        for step in [1, 15, 16, 33] {
            cx.p11.encrypt_init(session, mech(), key)?;
            assert_eq!(in_parts(cx, session, true, &data, step)?, sealed, "{bytes} by {step}");
            cx.p11.decrypt_init(session, mech(), key)?;
            assert_eq!(in_parts(cx, session, false, &sealed, step)?, data, "{bytes} by {step}");
        }
    }
    Ok(())
}

fn aes_cbc_pad_refuses_bad_padding_and_lengths(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    // A block that ends in zero is no padding.
    let zeros = encrypt(cx, session, Mech::iv(CKM_AES_CBC, &IV), key, &[0; 16])?;
    let mech = || Mech::iv(CKM_AES_CBC_PAD, &IV);
    refused(decrypt(cx, session, mech(), key, &zeros), &[CKR_ENCRYPTED_DATA_INVALID]);
    refused(decrypt(cx, session, mech(), key, &zeros[1..]), &[CKR_ENCRYPTED_DATA_LEN_RANGE]);
    refused(
        decrypt(cx, session, mech(), key, &[]),
        &[CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID],
    );
    Ok(())
}

fn aes_cbc_with_a_bad_iv_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    for iv in [&[][..], &[1; 15], &[1; 17]] {
        for kind in [CKM_AES_CBC, CKM_AES_CBC_PAD] {
            refused(
                cx.p11.encrypt_init(session, Mech::iv(kind, iv), key),
                &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD],
            );
        }
    }
    Ok(())
}

const GCM_IV: &[u8] = &[0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88];
const GCM_AAD: &[u8] = &[
    0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xab,
    0xad, 0xda, 0xd2,
];

/// "The Galois/Counter Mode of Operation", McGrew and Viega, appendix B, test case 4.
fn gcm(cx: &Context, session: Session) -> Outcome<(Object, Vec<u8>, Vec<u8>)> {
    let key = cx.secret(session, CKK_AES, &hex("feffe9928665731c6d6a8f9467308308"))?;
    let data = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let sealed = hex("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
                      21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091\
                      5bc94fbc3221a5db94fae95ae7121a47");
    Ok((key, data, sealed))
}

fn aes_gcm_gives_the_published_values(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (key, data, sealed) = gcm(cx, session)?;
    assert_eq!(encrypt(cx, session, Mech::gcm(GCM_IV, GCM_AAD, 128), key, &data)?, sealed);
    assert_eq!(decrypt(cx, session, Mech::gcm(GCM_IV, GCM_AAD, 128), key, &sealed)?, data);
    Ok(())
}

fn aes_gcm_in_parts_is_the_same(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (key, data, sealed) = gcm(cx, session)?;
    for step in [1, 16, 25] {
        cx.p11.encrypt_init(session, Mech::gcm(GCM_IV, GCM_AAD, 128), key)?;
        assert_eq!(in_parts(cx, session, true, &data, step)?, sealed, "parts of {step}");
        cx.p11.decrypt_init(session, Mech::gcm(GCM_IV, GCM_AAD, 128), key)?;
        assert_eq!(in_parts(cx, session, false, &sealed, step)?, data, "parts of {step}");
    }
    Ok(())
}

fn aes_gcm_refuses_every_change(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (key, _, sealed) = gcm(cx, session)?;
    let wrong = &[CKR_ENCRYPTED_DATA_INVALID, CKR_AEAD_DECRYPT_FAILED];
    for at in [0, 30, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        refused(decrypt(cx, session, Mech::gcm(GCM_IV, GCM_AAD, 128), key, &changed), wrong);
    }
    refused(decrypt(cx, session, Mech::gcm(GCM_IV, &[], 128), key, &sealed), wrong);
    let wrong = &[CKR_ENCRYPTED_DATA_INVALID, CKR_AEAD_DECRYPT_FAILED, CKR_ENCRYPTED_DATA_LEN_RANGE];
    refused(decrypt(cx, session, Mech::gcm(GCM_IV, GCM_AAD, 128), key, &sealed[..15]), wrong);
    Ok(())
}

fn aes_gcm_decryption_in_parts_yields_nothing_before_the_end(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (key, _, mut sealed) = gcm(cx, session)?;
    sealed[0] ^= 1;
    cx.p11.decrypt_init(session, Mech::gcm(GCM_IV, GCM_AAD, 128), key)?;
    for part in sealed.chunks(20) {
        assert!(cx.p11.decrypt_update(session, part)?.is_empty(), "unverified plaintext never leaves");
    }
    refused(cx.p11.decrypt_final(session), &[CKR_ENCRYPTED_DATA_INVALID, CKR_AEAD_DECRYPT_FAILED]);
    Ok(())
}

fn aes_gcm_of_nothing_is_a_tag(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.secret(session, CKK_AES, &[0; 16])?;
    // The same source, test case 1.
    let tag = encrypt(cx, session, Mech::gcm(&[0; 12], &[], 128), key, &[])?;
    assert_eq!(tag, hex("58e2fccefa7e3061367f1d57a4e7455a"));
    assert!(decrypt(cx, session, Mech::gcm(&[0; 12], &[], 128), key, &tag)?.is_empty());
    Ok(())
}

fn rsa_pkcs_decrypts_what_was_encrypted(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    for data in [&b""[..], b"secret", &[7; 245]] {
        let sealed = encrypt(cx, session, plain(CKM_RSA_PKCS), public, data)?;
        assert_eq!(sealed.len(), 256);
        assert_eq!(decrypt(cx, session, plain(CKM_RSA_PKCS), private, &sealed)?, data);
    }
    Ok(())
}

fn rsa_pkcs_encryption_is_padded_at_random(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, _) = cx.rsa(session)?;
    let first = encrypt(cx, session, plain(CKM_RSA_PKCS), public, b"secret")?;
    assert_ne!(first, encrypt(cx, session, plain(CKM_RSA_PKCS), public, b"secret")?);
    Ok(())
}

fn rsa_pkcs_encryption_of_too_much_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, _) = cx.rsa(session)?;
    refused(encrypt(cx, session, plain(CKM_RSA_PKCS), public, &[1; 246]), &[CKR_DATA_LEN_RANGE]);
    let mech = Mech::oaep(CKM_SHA_1, CKG_MGF1_SHA1, b"");
    refused(encrypt(cx, session, mech, public, &[1; 215]), &[CKR_DATA_LEN_RANGE]);
    Ok(())
}

fn rsa_oaep_decrypts_what_was_encrypted(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let mech = || Mech::oaep(CKM_SHA_1, CKG_MGF1_SHA1, b"");
    for bytes in [0, 16, 214] {
        let data = vec![0x4f; bytes];
        let sealed = encrypt(cx, session, mech(), public, &data)?;
        assert_eq!(decrypt(cx, session, mech(), private, &sealed)?, data);
    }
    let mut sealed = encrypt(cx, session, mech(), public, b"secret")?;
    sealed[200] ^= 1;
    assert!(decrypt(cx, session, mech(), private, &sealed).is_err());
    Ok(())
}

fn rsa_oaep_takes_any_hash_and_a_label(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    for hash in HASHES {
        let mech = || Mech::oaep(hash.digest, hash.mgf, b"label");
        let data = vec![0x4f; 256 - 2 * hash.bytes() - 2];
        let sealed = encrypt(cx, session, mech(), public, &data)?;
        assert_eq!(decrypt(cx, session, mech(), private, &sealed)?, data);
        refused(encrypt(cx, session, mech(), public, &[&data[..], &[1]].concat()), &[CKR_DATA_LEN_RANGE]);
    }
    Ok(())
}

fn rsa_oaep_decrypts_what_was_encrypted_outside(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let key = rsa_of(cx, session, public)?;
    let scheme = rsa::Oaep::new::<rsa::sha2::Sha256>();
    let sealed = key.encrypt(&mut rsa::rand_core::OsRng, scheme, b"made outside").expect("a short text fits");
    let mech = Mech::oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    assert_eq!(decrypt(cx, session, mech, private, &sealed)?, b"made outside");
    Ok(())
}

fn rsa_oaep_refuses_another_label_and_changes(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let mech = |label| Mech::oaep(CKM_SHA_1, CKG_MGF1_SHA1, label);
    let mut sealed = encrypt(cx, session, mech(b"one"), public, b"secret")?;
    let wrong = &[CKR_ENCRYPTED_DATA_INVALID];
    refused(decrypt(cx, session, mech(b"two"), private, &sealed), wrong);
    sealed[200] ^= 1;
    refused(decrypt(cx, session, mech(b"one"), private, &sealed), wrong);
    Ok(())
}

fn rsa_raw_decryption_undoes_the_public_power(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let mut data = [0x31; 256];
    data[0] = 0;
    let sealed = encrypt(cx, session, plain(CKM_RSA_X_509), public, &data)?;
    assert_eq!(sealed, rsa_public(&rsa_of(cx, session, public)?, &data));
    assert_eq!(decrypt(cx, session, plain(CKM_RSA_X_509), private, &sealed)?, data);
    Ok(())
}

fn rsa_decryption_of_a_bad_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    let mechs = [plain(CKM_RSA_PKCS), plain(CKM_RSA_X_509), Mech::oaep(CKM_SHA_1, CKG_MGF1_SHA1, b"")];
    for mech in mechs {
        for bytes in [0, 255, 257] {
            refused(
                decrypt(cx, session, mech.clone(), private, &vec![1; bytes]),
                &[CKR_ENCRYPTED_DATA_LEN_RANGE],
            );
        }
    }
    Ok(())
}

fn encryption_needs_the_permission_of_the_key(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = Tmpl::new()
        .ulong(CKA_VALUE_LEN, 16)
        .bool(CKA_TOKEN, false)
        .bool(CKA_ENCRYPT, true)
        .bool(CKA_DECRYPT, false);
    let key = cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl)?;
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), key)?;
    refused(
        cx.p11.decrypt_init(session, plain(CKM_AES_ECB), key),
        &[CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_OPERATION_ACTIVE],
    );
    cx.p11.encrypt(session, &[1; 16])?;
    refused(cx.p11.decrypt_init(session, plain(CKM_AES_ECB), key), &[CKR_KEY_FUNCTION_NOT_PERMITTED]);
    Ok(())
}

/// Implicit rejection: a ciphertext with bad padding decrypts to bytes that depend on key and ciphertext alone.
fn rsa_pkcs_decryption_does_not_tell_bad_padding(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let mut data = [0x31; 256];
    data[0] = 0;
    let bad = encrypt(cx, session, plain(CKM_RSA_X_509), public, &data)?;
    let open = || decrypt(cx, session, plain(CKM_RSA_PKCS), private, &bad);
    let first = open()?;
    assert!(first.len() <= 245);
    assert_eq!(open()?, first, "the same on every try");
    Ok(())
}
