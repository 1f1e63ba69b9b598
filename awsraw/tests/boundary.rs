//! Boundary tests of the C border: empty, short, exact, long and inconsistent input, each result against the `rsa` crate.
#![allow(missing_docs, clippy::unwrap_used)]

use awsraw::{Components, Curve, EcdsaPrivate, Error, RsaPrivate, RsaPublic};
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey};
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BigUint, RsaPrivateKey};

const F4: &[u8] = &[1, 0, 1];

fn fields(parts: &Components) -> [&[u8]; 5] {
    parts.crt.as_ref().unwrap().each_ref().map(|number| number.as_slice())
}

/// The same key in the `rsa` crate.
fn second(parts: &Components) -> RsaPrivateKey {
    let [p, q, ..] = fields(parts).map(BigUint::from_bytes_be);
    let (n, e) = (BigUint::from_bytes_be(&parts.modulus), BigUint::from_bytes_be(&parts.public_exponent));
    RsaPrivateKey::from_components(n, e, BigUint::from_bytes_be(&parts.private_exponent), vec![p, q]).unwrap()
}

fn padded(number: &BigUint, bytes: usize) -> Vec<u8> {
    let digits = number.to_bytes_be();
    let mut out = vec![0; bytes - digits.len()];
    out.extend(digits);
    out
}

#[test]
fn private_and_public_operation_agree_with_the_rsa_crate() {
    for bits in [1024, 2048] {
        let key = RsaPrivate::generate(bits, F4).unwrap();
        let parts = key.components();
        let other = second(&parts);
        assert_eq!(key.modulus_bytes() * 8, bits as usize);
        let public = RsaPublic::new(&parts.modulus, F4).unwrap();
        let mut messages = vec![vec![0x5a; key.modulus_bytes()], vec![0; key.modulus_bytes()]];
        messages[0][0] = 0;
        for last in [1, 2, 3] {
            let mut small = vec![0; key.modulus_bytes()];
            small[key.modulus_bytes() - 1] = last;
            messages.push(small);
        }
        let mut greatest = parts.modulus.clone();
        *greatest.last_mut().unwrap() -= 1;
        messages.push(greatest);
        for message in messages {
            let expected = BigUint::from_bytes_be(&message).modpow(other.d(), other.n());
            let got = key.private_op(&message).unwrap();
            assert_eq!(*got, padded(&expected, key.modulus_bytes()));
            assert_eq!(*public.public_op(&got).unwrap(), message);
            let mut own = vec![7; got.len()];
            public.public_op_into(&got, &mut own).unwrap();
            assert_eq!(own, message);
        }
    }
}

#[test]
fn message_of_wrong_length_or_not_below_the_modulus_is_refused() {
    let key = RsaPrivate::generate(1024, F4).unwrap();
    let modulus = key.components().modulus;
    let public = RsaPublic::new(&modulus, F4).unwrap();
    let above = padded(&(BigUint::from_bytes_be(&modulus) + 1u32), 128);
    let long = [&[0], modulus.as_slice()].concat();
    for message in [&[][..], &[1], &modulus[1..], &long, &modulus, &above, &[0xff; 128]] {
        assert_eq!(key.private_op(message).err(), Some(Error::Input));
        assert_eq!(public.public_op(message).err(), Some(Error::Input));
        assert_eq!(public.public_op_into(message, &mut [7; 128]).err(), Some(Error::Input));
    }
    let mut small = [0; 128];
    small[127] = 2;
    for room in [0, 1, 127, 129] {
        let mut out = vec![7; room];
        assert_eq!(public.public_op_into(&small, &mut out).err(), Some(Error::Input));
        assert_eq!(out, vec![7; room], "what has no room is not touched");
    }
}

#[test]
fn key_of_components_with_and_without_primes_gives_the_same_result() {
    let parts = RsaPrivate::generate(1024, F4).unwrap().components();
    let (n, e, d) = (&parts.modulus, &parts.public_exponent, &parts.private_exponent);
    let full = RsaPrivate::from_components(n, e, d, Some(fields(&parts))).unwrap();
    let bare = RsaPrivate::from_components(n, e, d, None).unwrap();
    let unaligned = [&[0, 0], n.as_slice()].concat();
    let offset = RsaPrivate::from_components(&unaligned, &[0, 1, 0, 1], d, None).unwrap();
    let message = [&[0], &[7; 127][..]].concat();
    let expected = full.private_op(&message).unwrap();
    assert_eq!(expected, bare.private_op(&message).unwrap());
    assert_eq!(expected, offset.private_op(&message).unwrap());
    assert!(bare.components().crt.is_none());
    assert_eq!(full.components().private_exponent, parts.private_exponent);
}

#[test]
fn inconsistent_components_are_refused() {
    let parts = RsaPrivate::generate(1024, F4).unwrap().components();
    let (n, e, d) = (&parts.modulus, &parts.public_exponent, &parts.private_exponent);
    let refused = |n: &[u8], e: &[u8], d: &[u8], crt: Option<[&[u8]; 5]>| {
        assert_eq!(RsaPrivate::from_components(n, e, d, crt).err(), Some(Error::Key));
    };
    let mut wrong = d.to_vec();
    wrong[40] ^= 4;
    refused(n, e, &wrong, None);
    refused(n, e, &wrong, Some(fields(&parts)));
    refused(n, &[3], d, None);
    refused(n, &[1], d, None);
    refused(n, &[], d, None);
    refused(n, e, &[], None);
    refused(&[], e, d, None);
    refused(&[0; 128], e, d, None);
    refused(&n[64..], e, &d[64..], None);
    refused(&[0xff; 2049], e, d, None);
    for i in 0..5 {
        let mut changed = fields(&parts)[i].to_vec();
        changed[20] ^= 0x10;
        for wrong in [&changed[..], &[]] {
            let mut crt = fields(&parts);
            crt[i] = wrong;
            refused(n, e, d, Some(crt));
        }
    }
}

#[test]
fn pkcs1_der_is_read_and_damaged_der_refused() {
    let parts = RsaPrivate::generate(1024, F4).unwrap().components();
    let der = second(&parts).to_pkcs1_der().unwrap();
    let der = der.as_bytes();
    let key = RsaPrivate::from_pkcs1_der(der).unwrap();
    assert_eq!(key.components().modulus, parts.modulus);
    assert_eq!(RsaPrivateKey::from_pkcs1_der(der).unwrap().size(), 128);
    let long = [der, &[0]].concat();
    for damaged in [&[][..], &der[..1], &der[..der.len() - 1], &long, &der[1..]] {
        assert_eq!(RsaPrivate::from_pkcs1_der(damaged).err(), Some(Error::Key));
    }
}

#[test]
fn generation_refuses_sizes_and_exponents_it_cannot_honour() {
    for (bits, e) in [
        (0, F4),
        (384, F4),
        (1000, F4),
        (1025, F4),
        (32_768, F4),
        (u32::MAX, F4),
        (1024, &[][..]),
        (1024, &[0]),
        (1024, &[1]),
        (1024, &[0, 0, 1]),
        (1024, &[2]),
        (1024, &[1, 0, 0, 0, 1]),
    ] {
        assert_eq!(RsaPrivate::generate(bits, e).err(), Some(Error::Key), "{bits} {e:?}");
    }
    let three = RsaPrivate::generate(1024, &[0, 3]).unwrap();
    assert_eq!(three.components().public_exponent, [3]);
}

#[test]
fn public_key_takes_a_large_exponent_and_refuses_a_bad_one() {
    let parts = RsaPrivate::generate(1024, F4).unwrap().components();
    // With e and d exchanged the public exponent is as long as the modulus.
    let large = RsaPublic::new(&parts.modulus, &parts.private_exponent).unwrap();
    let key = RsaPrivate::from_components(
        &parts.modulus,
        &parts.public_exponent,
        &parts.private_exponent,
        Some(fields(&parts)),
    )
    .unwrap();
    let message = [&[0], &[9; 127][..]].concat();
    assert_eq!(large.public_op(&message).unwrap(), key.private_op(&message).unwrap());
    for e in [&[][..], &[0], &[1], &[4], &parts.modulus] {
        assert_eq!(RsaPublic::new(&parts.modulus, e).err(), Some(Error::Key));
    }
    assert_eq!(RsaPublic::new(&[0x80; 128], F4).err(), Some(Error::Key), "even modulus");
    assert_eq!(RsaPublic::new(&[0xff; 63], F4).err(), Some(Error::Key));
}

#[test]
fn one_key_serves_many_threads() {
    let key = RsaPrivate::generate(1024, F4).unwrap();
    let message = [&[0], &[3; 127][..]].concat();
    let expected = key.private_op(&message).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(key.private_op(&message).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn ecdsa_over_a_digest_of_any_length_is_verified_by_other_crates() {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    let scalar = [&[0], &[0x17; 31][..]].concat();
    for length in [1, 20, 32, 33, 48, 64, 65, 66, 67, 200] {
        let digest: Vec<u8> = (0..length).map(|i| 0xff ^ i).collect();
        // The other crates refuse short digests, and P-521 does not shift; so they get the leftmost bits as a number.
        let number = |bytes: usize, shift: u32| {
            let cut = &digest[..digest.len().min(bytes)];
            let value = BigUint::from_bytes_be(cut) >> if cut.len() == 66 { shift as usize } else { 0 };
            padded(&value, bytes)
        };
        let signature = EcdsaPrivate::new(Curve::P256, &scalar).unwrap().sign_digest(&digest).unwrap();
        let key = p256::ecdsa::SigningKey::from_slice(&scalar).unwrap();
        let parsed = p256::ecdsa::Signature::from_slice(&signature).unwrap();
        key.verifying_key().verify_prehash(&number(32, 0), &parsed).unwrap();

        let wide = padded(&BigUint::from_bytes_be(&scalar), 66);
        let signature = EcdsaPrivate::new(Curve::P521, &scalar).unwrap().sign_digest(&digest).unwrap();
        let key = p521::ecdsa::SigningKey::from_slice(&wide).unwrap();
        let parsed = p521::ecdsa::Signature::from_slice(&signature).unwrap();
        p521::ecdsa::VerifyingKey::from(&key).verify_prehash(&number(66, 7), &parsed).unwrap();

        let signature = EcdsaPrivate::new(Curve::P384, &scalar).unwrap().sign_digest(&digest).unwrap();
        let key = p384::ecdsa::SigningKey::from_slice(&padded(&BigUint::from_bytes_be(&scalar), 48)).unwrap();
        let parsed = p384::ecdsa::Signature::from_slice(&signature).unwrap();
        key.verifying_key().verify_prehash(&number(48, 0), &parsed).unwrap();
    }
}

#[test]
fn ecdsa_refuses_a_scalar_out_of_range_and_takes_an_empty_digest() {
    for scalar in [&[][..], &[0], &[0; 32], &[0xff; 32], &[0x11; 33]] {
        assert_eq!(EcdsaPrivate::new(Curve::P256, scalar).err(), Some(Error::Key));
    }
    assert_eq!(EcdsaPrivate::new(Curve::P521, &[0xff; 66]).err(), Some(Error::Key));
    assert_eq!(EcdsaPrivate::new(Curve::P256, &[5]).unwrap().sign_digest(&[]).unwrap().len(), 64);
}
