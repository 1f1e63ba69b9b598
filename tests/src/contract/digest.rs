//! Contract: digests.

use std::ptr::null_mut;

use cryptoki_sys::*;

use super::vectors::HASHES;
use super::{Context, answered, hex, plain, refused};
use crate::p11::{Mech, Outcome};

rows! {
    "v3.1, 5.12.2" => digests_have_the_published_values,
    "v3.1, 5.12.3" => digest_in_parts_is_the_same,
    "v3.1, 5.12.2" => digest_of_nothing_is_a_digest,
    "v3.1, 5.1.6" => digest_of_a_null_pointer_to_nothing_is_the_digest_of_nothing,
    "v3.1, 5.12.2" => digest_needs_no_login,
    "v3.1, 5.12.1" => mechanism_that_does_not_digest_is_refused,
    "v3.1, 5.12.1" => digest_with_a_parameter_is_refused,
    "v3.1, 5.12.5" => digest_final_without_a_part_is_the_digest_of_nothing,
    "v3.1, 5.12.4" => sensitive_key_is_indigestible,
    "v3.1, 5.12.2" => digest_of_a_megabyte_is_right,
}

fn digests_have_the_published_values(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    for hash in HASHES {
        assert_eq!(cx.p11.digest(session, plain(hash.digest), b"abc")?, hex(hash.abc));
    }
    Ok(())
}

fn digest_in_parts_is_the_same(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    for hash in HASHES {
        cx.p11.digest_init(session, plain(hash.digest))?;
        for part in [&b"a"[..], b"", b"bc"] {
            cx.p11.digest_update(session, part)?;
        }
        assert_eq!(cx.p11.digest_final(session)?, hex(hash.abc));
    }
    Ok(())
}

fn digest_of_nothing_is_a_digest(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    for hash in HASHES {
        assert_eq!(cx.p11.digest(session, plain(hash.digest), &[])?, hash.of(&[]));
    }
    Ok(())
}

fn digest_of_a_null_pointer_to_nothing_is_the_digest_of_nothing(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    let (mut mech, mut room, mut length) = (mechanism(CKM_SHA256), [0; 32], 32);
    answered(raw!(cx, C_DigestInit(session, &mut mech)), &[CKR_OK]);
    let rv = raw!(cx, C_Digest(session, null_mut(), 0, room.as_mut_ptr(), &mut length));
    answered(rv, &[CKR_OK]);
    assert_eq!(room[..], HASHES[2].of(&[]));
    Ok(())
}

fn mechanism(kind: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM { mechanism: kind, pParameter: null_mut(), ulParameterLen: 0 }
}

fn digest_needs_no_login(cx: &Context) -> Outcome<()> {
    let session = cx.p11.open(cx.slot, 0)?;
    assert_eq!(cx.p11.digest(session, plain(CKM_SHA256), b"abc")?, hex(HASHES[2].abc));
    Ok(())
}

fn mechanism_that_does_not_digest_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    for kind in [CKM_RSA_PKCS, CKM_SHA256_HMAC, CKM_AES_CBC, 0x7fff_ffff] {
        refused(cx.p11.digest_init(session, plain(kind)), &[CKR_MECHANISM_INVALID]);
    }
    Ok(())
}

fn digest_with_a_parameter_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    refused(cx.p11.digest_init(session, Mech::iv(CKM_SHA256, &[1; 4])), &[CKR_MECHANISM_PARAM_INVALID]);
    Ok(())
}

fn digest_final_without_a_part_is_the_digest_of_nothing(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    cx.p11.digest_init(session, plain(CKM_SHA384))?;
    assert_eq!(cx.p11.digest_final(session)?, HASHES[3].of(&[]));
    Ok(())
}

fn sensitive_key_is_indigestible(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = crate::p11::secret_key(&cx.p11, session, CKM_GENERIC_SECRET_KEY_GEN, 32, false, "digest")?;
    cx.p11.digest_init(session, plain(CKM_SHA256))?;
    refused(cx.p11.digest_key(session, key), &[CKR_KEY_INDIGESTIBLE]);
    Ok(())
}

fn digest_of_a_megabyte_is_right(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    let data: Vec<u8> = (0..1_000_003u32).map(|at| (at * 7).to_le_bytes()[1]).collect();
    for hash in HASHES {
        assert_eq!(cx.p11.digest(session, plain(hash.digest), &data)?, hash.of(&data));
        cx.p11.digest_init(session, plain(hash.digest))?;
        for part in data.chunks(65_521) {
            cx.p11.digest_update(session, part)?;
        }
        assert_eq!(cx.p11.digest_final(session)?, hash.of(&data));
    }
    Ok(())
}
