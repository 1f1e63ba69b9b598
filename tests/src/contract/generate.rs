//! Contract: generating keys and random bytes.

use cryptoki_sys::*;

use super::vectors::{CURVES, point_of};
use super::{Context, answered, plain, refused, ulong};
use crate::p11::{Outcome, Tmpl, p256_pair, pair_templates, rsa_pair, secret_key};

rows! {
    "v3.1, 5.18.1" => generated_secret_key_is_local_and_says_how,
    "v3.1, 6.10.3" => aes_keys_of_all_sizes_are_generated,
    "v3.1, 6.10.3" => aes_key_of_another_size_is_not_generated,
    "v3.1, 6.10.3" => aes_key_without_a_length_is_incomplete,
    "v3.1, 6.8.3" => generic_secrets_are_generated,
    "v3.1, 5.18.1" => two_generated_keys_differ,
    "v3.1, 5.18.1" => key_of_a_class_that_contradicts_the_mechanism_is_refused,
    "v3.1, 5.18.2" => generated_pair_has_its_attributes,
    "v3.1, 6.3.9" => pairs_on_all_curves_have_their_points,
    "v3.1, 6.3.9" => pair_without_a_curve_is_incomplete,
    "v3.1, 6.3.9" => pair_on_an_unknown_curve_is_refused,
    "v3.1, 6.1.4" => rsa_pair_has_modulus_and_exponent,
    "v3.1, 6.1.4" => rsa_pair_without_a_size_is_incomplete,
    "v3.1, 6.1.4" => rsa_pair_of_a_bad_size_is_refused,
    "v3.1, 5.18.2" => token_pair_is_found_again_and_destroyed,
    "v3.1, 5.18.1" => mechanism_that_generates_no_key_is_refused,
    "v3.1, 5.19.2" => random_bytes_are_as_many_as_asked_and_differ,
    "v3.1, 5.19.1" => seed_is_taken_or_refused_by_name,
}

fn generated_secret_key_is_local_and_says_how(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = secret_key(&cx.p11, session, CKM_AES_KEY_GEN, 32, false, "generated")?;
    let is = |kind| cx.p11.attribute(session, key, kind);
    assert_eq!(ulong(&is(CKA_CLASS)?), CKO_SECRET_KEY);
    assert_eq!(ulong(&is(CKA_KEY_TYPE)?), CKK_AES);
    assert_eq!(ulong(&is(CKA_VALUE_LEN)?), 32);
    assert_eq!(ulong(&is(CKA_KEY_GEN_MECHANISM)?), CKM_AES_KEY_GEN);
    for (kind, wanted) in [
        (CKA_LOCAL, CK_TRUE),
        (CKA_SENSITIVE, CK_TRUE),
        (CKA_ALWAYS_SENSITIVE, CK_TRUE),
        (CKA_TOKEN, CK_FALSE),
        (CKA_ENCRYPT, CK_TRUE),
    ] {
        assert_eq!(is(kind)?, [wanted], "attribute {kind:#x}");
    }
    Ok(())
}

fn aes_keys_of_all_sizes_are_generated(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for bytes in [16, 24, 32] {
        let key = secret_key(&cx.p11, session, CKM_AES_KEY_GEN, bytes, false, "sizes")?;
        cx.p11.encrypt_init(session, plain(CKM_AES_ECB), key)?;
        assert_eq!(cx.p11.encrypt(session, &[0; 16])?.len(), 16);
    }
    Ok(())
}

fn aes_key_of_another_size_is_not_generated(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let wanted = &[
        CKR_KEY_SIZE_RANGE,
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_TEMPLATE_INCOMPLETE,
    ];
    for bytes in [0, 1, 15, 20, 33, 1 << 40] {
        refused(secret_key(&cx.p11, session, CKM_AES_KEY_GEN, bytes, false, "bad size"), wanted);
    }
    Ok(())
}

fn aes_key_without_a_length_is_incomplete(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = Tmpl::new().bool(CKA_TOKEN, false).bool(CKA_ENCRYPT, true);
    refused(cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl), &[CKR_TEMPLATE_INCOMPLETE]);
    Ok(())
}

fn generic_secrets_are_generated(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for bytes in [20, 32, 64] {
        let key = secret_key(&cx.p11, session, CKM_GENERIC_SECRET_KEY_GEN, bytes, false, "generic")?;
        assert_eq!(ulong(&cx.p11.attribute(session, key, CKA_KEY_TYPE)?), CKK_GENERIC_SECRET);
        assert_eq!(ulong(&cx.p11.attribute(session, key, CKA_VALUE_LEN)?), bytes);
    }
    Ok(())
}

fn two_generated_keys_differ(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut values = Vec::new();
    for _ in 0..2 {
        let tmpl = Tmpl::new()
            .ulong(CKA_VALUE_LEN, 32)
            .bool(CKA_TOKEN, false)
            .bool(CKA_SENSITIVE, false)
            .bool(CKA_EXTRACTABLE, true);
        let key = cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl)?;
        values.push(cx.p11.attribute(session, key, CKA_VALUE)?);
    }
    assert_eq!(values[0].len(), 32);
    assert_ne!(values[0], values[1]);
    Ok(())
}

fn key_of_a_class_that_contradicts_the_mechanism_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let base = || Tmpl::new().bool(CKA_TOKEN, false).ulong(CKA_VALUE_LEN, 16);
    for tmpl in [base().ulong(CKA_CLASS, CKO_PUBLIC_KEY), base().ulong(CKA_KEY_TYPE, CKK_DES3)] {
        refused(
            cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl),
            &[CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID],
        );
    }
    Ok(())
}

fn generated_pair_has_its_attributes(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = p256_pair(&cx.p11, session, false, "a pair", 0x31)?;
    for key in [public, private] {
        let is = |kind| cx.p11.attribute(session, key, kind);
        assert_eq!(is(CKA_LABEL)?, b"a pair");
        assert_eq!(is(CKA_ID)?, [0x31]);
        assert_eq!(ulong(&is(CKA_KEY_TYPE)?), CKK_EC);
        assert_eq!(is(CKA_LOCAL)?, [CK_TRUE]);
        assert_eq!(ulong(&is(CKA_KEY_GEN_MECHANISM)?), CKM_EC_KEY_PAIR_GEN);
        assert_eq!(is(CKA_EC_PARAMS)?, crate::p11::P256_PARAMS);
    }
    let private_is = |kind| cx.p11.attribute(session, private, kind);
    for (kind, wanted) in [
        (CKA_PRIVATE, CK_TRUE),
        (CKA_SENSITIVE, CK_TRUE),
        (CKA_ALWAYS_SENSITIVE, CK_TRUE),
        (CKA_EXTRACTABLE, CK_FALSE),
        (CKA_NEVER_EXTRACTABLE, CK_TRUE),
        (CKA_SIGN, CK_TRUE),
        (CKA_ALWAYS_AUTHENTICATE, CK_FALSE),
    ] {
        assert_eq!(private_is(kind)?, [wanted], "attribute {kind:#x}");
    }
    assert_eq!(cx.p11.attribute(session, public, CKA_PRIVATE)?, [CK_FALSE]);
    Ok(())
}

fn pairs_on_all_curves_have_their_points(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for curve in CURVES {
        let (public, private) = pair_templates(false, "curves", 1);
        let public = public.bytes(CKA_EC_PARAMS, curve.params);
        let (public, private) = cx.p11.generate_pair(session, plain(CKM_EC_KEY_PAIR_GEN), public, private)?;
        let point = point_of(cx, session, public)?;
        assert_eq!((point[0], point.len()), (0x04, 2 * curve.bytes + 1), "an uncompressed point");
        assert_eq!(cx.p11.attribute(session, private, CKA_EC_PARAMS)?, curve.params);
    }
    Ok(())
}

fn pair_without_a_curve_is_incomplete(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = pair_templates(false, "no curve", 1);
    let outcome = cx.p11.generate_pair(session, plain(CKM_EC_KEY_PAIR_GEN), public, private);
    refused(outcome, &[CKR_TEMPLATE_INCOMPLETE]);
    Ok(())
}

fn pair_on_an_unknown_curve_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for params in [&[0x06, 0x03, 0x2a, 0x03, 0x04][..], &[0xff; 4], &[]] {
        let (public, private) = pair_templates(false, "no such curve", 1);
        let public = public.bytes(CKA_EC_PARAMS, params);
        let outcome = cx.p11.generate_pair(session, plain(CKM_EC_KEY_PAIR_GEN), public, private);
        refused(
            outcome,
            &[
                CKR_CURVE_NOT_SUPPORTED,
                CKR_DOMAIN_PARAMS_INVALID,
                CKR_ATTRIBUTE_VALUE_INVALID,
                CKR_TEMPLATE_INCONSISTENT,
            ],
        );
    }
    Ok(())
}

fn rsa_pair_has_modulus_and_exponent(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = rsa_pair(&cx.p11, session, false, "rsa", 1)?;
    let modulus = cx.p11.attribute(session, public, CKA_MODULUS)?;
    assert!(modulus.len() == 256 && modulus[0] >= 0x80, "2048 bits without a zero in front");
    assert_eq!(cx.p11.attribute(session, private, CKA_MODULUS)?, modulus);
    assert_eq!(cx.p11.attribute(session, public, CKA_PUBLIC_EXPONENT)?, [1, 0, 1]);
    assert_eq!(ulong(&cx.p11.attribute(session, public, CKA_MODULUS_BITS)?), 2048);
    Ok(())
}

fn rsa_pair_without_a_size_is_incomplete(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = pair_templates(false, "no size", 1);
    let outcome = cx.p11.generate_pair(session, plain(CKM_RSA_PKCS_KEY_PAIR_GEN), public, private);
    refused(outcome, &[CKR_TEMPLATE_INCOMPLETE]);
    Ok(())
}

fn rsa_pair_of_a_bad_size_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for bits in [0, 128, 1 << 20, CK_ULONG::MAX] {
        let (public, private) = pair_templates(false, "bad size", 1);
        let public = public.ulong(CKA_MODULUS_BITS, bits);
        let outcome = cx.p11.generate_pair(session, plain(CKM_RSA_PKCS_KEY_PAIR_GEN), public, private);
        refused(
            outcome,
            &[
                CKR_KEY_SIZE_RANGE,
                CKR_ATTRIBUTE_VALUE_INVALID,
                CKR_TEMPLATE_INCONSISTENT,
                CKR_TEMPLATE_INCOMPLETE,
            ],
        );
    }
    Ok(())
}

fn token_pair_is_found_again_and_destroyed(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = p256_pair(&cx.p11, session, true, "token pair", 1)?;
    let mut found = cx.p11.find(session, Tmpl::new().bytes(CKA_LABEL, b"token pair"))?;
    found.sort_unstable();
    let mut made = [public, private];
    made.sort_unstable();
    assert_eq!(found, made);
    for key in made {
        cx.p11.destroy_object(session, key)?;
    }
    assert!(cx.p11.find(session, Tmpl::new().bytes(CKA_LABEL, b"token pair"))?.is_empty());
    Ok(())
}

fn mechanism_that_generates_no_key_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = || Tmpl::new().bool(CKA_TOKEN, false).ulong(CKA_VALUE_LEN, 16);
    for kind in [CKM_AES_CBC, CKM_EC_KEY_PAIR_GEN, 0x7fff_ffff] {
        refused(cx.p11.generate_key(session, plain(kind), tmpl()), &[CKR_MECHANISM_INVALID]);
    }
    let (public, private) = pair_templates(false, "none", 1);
    refused(cx.p11.generate_pair(session, plain(CKM_AES_KEY_GEN), public, private), &[CKR_MECHANISM_INVALID]);
    Ok(())
}

fn random_bytes_are_as_many_as_asked_and_differ(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    let (first, second) = (cx.p11.random(session, 32)?, cx.p11.random(session, 32)?);
    assert!(first != second && first != [0; 32]);
    let many = cx.p11.random(session, 100_000)?;
    assert!(many.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)), "every part is filled");
    assert_eq!(cx.p11.random(session, 1)?.len(), 1);
    Ok(())
}

fn seed_is_taken_or_refused_by_name(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    let mut seed = [1u8; 16];
    let wanted: &[CK_RV] =
        if cx.hatoki { &[CKR_RANDOM_SEED_NOT_SUPPORTED] } else { &[CKR_OK, CKR_RANDOM_SEED_NOT_SUPPORTED] };
    answered(raw!(cx, C_SeedRandom(session, seed.as_mut_ptr(), 16)), wanted);
    Ok(())
}
