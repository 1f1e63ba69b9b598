//! Contract: ECDSA signatures over digests and over hashes, on all curves.

use cryptoki_sys::*;

use super::vectors::{CURVES, Curve, HASHES, point_of};
use super::{Context, Object, Session, plain, refused};
use crate::p11::{Outcome, pair_templates};

rows! {
    "v3.1, 6.3.13" => ecdsa_over_digests_of_all_hashes_verifies_outside,
    "v3.1, 6.3.14" => ecdsa_with_hash_verifies_outside,
    "v3.1, 6.3.14" => ecdsa_with_hash_in_parts_verifies,
    "v3.1, 6.3.13" => ecdsa_signature_is_two_numbers_of_the_order,
    "v3.1, 6.3.13" => ecdsa_signature_verifies_only_its_data,
    "v3.1, 6.3.13" => ecdsa_verify_tells_bad_signatures_from_bad_lengths,
    "v3.1, 6.3.13" => ecdsa_verify_refuses_zeros_and_the_order,
}

fn pair(cx: &Context, session: Session, curve: &Curve) -> Outcome<(Object, Object)> {
    let (public, private) = pair_templates(false, "ecdsa", 1);
    let public = public.bytes(CKA_EC_PARAMS, curve.params);
    cx.p11.generate_pair(session, plain(CKM_EC_KEY_PAIR_GEN), public, private)
}

fn ecdsa_over_digests_of_all_hashes_verifies_outside(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, private) = pair(cx, session, &curve)?;
        let point = point_of(cx, session, public)?;
        for hash in HASHES {
            let digest = hash.of(b"message");
            let signature = cx.p11.sign_once(session, plain(CKM_ECDSA), private, &digest)?;
            assert!(curve.verifies(&point, &digest, &signature), "{} of {}", hash.bytes(), curve.bytes);
            cx.p11.verify_once(session, plain(CKM_ECDSA), public, &digest, &signature)?;
        }
    }
    Ok(())
}

fn ecdsa_with_hash_verifies_outside(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, private) = pair(cx, session, &curve)?;
        let point = point_of(cx, session, public)?;
        for hash in HASHES {
            for data in [&b""[..], b"message", &[3; 3000]] {
                let signature = cx.p11.sign_once(session, plain(hash.ecdsa), private, data)?;
                assert!(curve.verifies(&point, &hash.of(data), &signature));
                cx.p11.verify_once(session, plain(hash.ecdsa), public, data, &signature)?;
            }
        }
    }
    Ok(())
}

fn ecdsa_with_hash_in_parts_verifies(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, private) = pair(cx, session, &curve)?;
        let point = point_of(cx, session, public)?;
        for hash in HASHES {
            cx.p11.sign_init(session, plain(hash.ecdsa), private)?;
            for part in [&b"mess"[..], b"", b"age"] {
                cx.p11.sign_update(session, part)?;
            }
            let signature = cx.p11.sign_final(session)?;
            assert!(curve.verifies(&point, &hash.of(b"message"), &signature));
            cx.p11.verify_init(session, plain(hash.ecdsa), public)?;
            cx.p11.verify_update(session, b"message")?;
            cx.p11.verify_final(session, &signature)?;
        }
    }
    Ok(())
}

fn ecdsa_signature_is_two_numbers_of_the_order(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (_, private) = pair(cx, session, &curve)?;
        // Numbers with zeros in front come up within so many tries; none of them may shorten the signature.
        for _ in 0..20 {
            let signature = cx.p11.sign_once(session, plain(CKM_ECDSA), private, &[1; 32])?;
            assert_eq!(signature.len(), 2 * curve.bytes);
        }
    }
    Ok(())
}

fn ecdsa_signature_verifies_only_its_data(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, private) = pair(cx, session, &curve)?;
        let (other, _) = pair(cx, session, &curve)?;
        let signature = cx.p11.sign_once(session, plain(CKM_ECDSA), private, &[1; 32])?;
        let wrong = &[CKR_SIGNATURE_INVALID];
        let verify = |key, data: &[u8]| cx.p11.verify_once(session, plain(CKM_ECDSA), key, data, &signature);
        verify(public, &[1; 32])?;
        refused(verify(public, &[2; 32]), wrong);
        refused(verify(other, &[1; 32]), wrong);
    }
    Ok(())
}

fn ecdsa_verify_tells_bad_signatures_from_bad_lengths(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, private) = pair(cx, session, &curve)?;
        let mut signature = cx.p11.sign_once(session, plain(CKM_ECDSA), private, &[1; 32])?;
        let verify =
            |signature: &[u8]| cx.p11.verify_once(session, plain(CKM_ECDSA), public, &[1; 32], signature);
        verify(&signature)?;
        refused(verify(&signature[1..]), &[CKR_SIGNATURE_LEN_RANGE]);
        refused(verify(&[]), &[CKR_SIGNATURE_LEN_RANGE]);
        refused(verify(&[&signature[..], &[0]].concat()), &[CKR_SIGNATURE_LEN_RANGE]);
        let last = signature.len() - 1;
        signature[last] ^= 1;
        refused(verify(&signature), &[CKR_SIGNATURE_INVALID]);
    }
    Ok(())
}

fn ecdsa_verify_refuses_zeros_and_the_order(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, _) = pair(cx, session, &curve)?;
        for byte in [0x00, 0xff] {
            let signature = vec![byte; 2 * curve.bytes];
            refused(
                cx.p11.verify_once(session, plain(CKM_ECDSA), public, &[1; 32], &signature),
                &[CKR_SIGNATURE_INVALID],
            );
        }
    }
    Ok(())
}
