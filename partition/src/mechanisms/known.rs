//! What the tests of the mechanisms share: keys of named sources, their twins in other crates, and short ways to run a job.
#![allow(clippy::unwrap_used)]

use super::{Bytes, Input, Job, KeyMaterial, Output, plan, run};
use crate::mechanisms::key::to_octet_string;
use digests::{EcCurve, Hash};
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BigUint, RsaPrivateKey};
use spec::messages::{How, KeyFunction, PlanAnswer};
use spec::{Attribute, AttributeType as A, KeyType, Mechanism, MechanismType, ObjectClass, Rv};

/// Source: OpenSSL, test/recipes/30-test_evp_data/evppkey_rsa_common.txt, the key "RSA-2048". Published, hence good for tests only.
const RSA_2048: &str = "-----BEGIN PRIVATE KEY-----
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQDNAIHqeyrh6gbV
n3xz2f+5SglhXC5Lp8Y2zvCN01M+wxhVJbAVx2m5mnfWclv5w1Mqm25fZifV+4UW
B2jT3anL01l0URcX3D0wnS/EfuQfl+Mq23+d2GShxHZ6Zm7NcbwarPXnUX9LOFlP
6psF5C1a2pkSAIAT5FMWpNm7jtCGuI0odYusr5ItRqhotIXSOcm66w4rZFknEPQr
LR6gpLSALAvsqzKPimiwBzvbVG/uqYCdKEmRKzkMFTK8finHZY+BdfrkbzQzL/h7
yrPkBkm5hXeGnaDqcYNT8HInVIhpE2SHYNEivmduD8SD3SD/wxvalqMZZsmqLnWt
A95H4cRPAgMBAAECggEAYCl6x5kbFnoG1rJHWLjL4gi+ubLZ7Jc4vYD5Ci41AF3X
ziktnim6iFvTFv7x8gkTvArJDWsICLJBTYIQREHYYkozzgIzyPeApIs3Wv8C12cS
IopwJITbP56+zM+77hcJ26GCgA2Unp5CFuC/81WDiPi9kNo3Oh2CdD7D+90UJ/0W
glplejFpEuhpU2URfKL4RckJQF/KxV+JX8FdIDhsJu54yemQdQKaF4psHkzwwgDo
qc+yfp0Vb4bmwq3CKxqEoc1cpbJ5CHXXlAfISzUjlcuBzD/tW7BDtp7eDAcgRVAC
XO6MX0QBcLYSC7SOD3R7zY9SIRCFDfBDxCjf0YcFMQKBgQD2+WG0fLwDXTrt68fe
hQqVa2Xs25z2B2QGPxWqSFU8WNly/mZ1BW413f3De/O58vYi7icTNyVoScm+8hdv
6PfD+LuRujdN1TuvPeyBTSvewQwf3IjN0Wh28mse36PwlBl+301C/x+ylxEDuJjK
hZxCcocIaoQqtBC7ac8tNa9r4wKBgQDUfnJKf/QQSLJwwlJKQQGHi3MVm7c9PbwY
eyIOY1s1NPluJDoYTZP4YLa/u2txwe2aHh9FhYMCPDAelqaSwaCLU9DsnKkQEA2A
RR47fcagG6xK7O+N95iEa8I1oIy7os9MBoBMwRIZ6VYIxxTj8UMNSR+tu6MqV1Gg
T5d0WDTJpQKBgCHyRSu5uV39AoyRS/eZ8cp36JqV1Q08FtOE+EVfi9evnrPfo9WR
2YQt7yNfdjCo5IwIj/ZkLhAXlFNakz4el2+oUJ/HKLLaDEoaCNf883q6rh/zABrK
HcG7sF2d/7qhoJ9/se7zgjfZ68zHIrkzhDbd5xGREnmMJoCcGo3sQyBhAoGAH3UQ
qmLC2N5KPFMoJ4H0HgLQ6LQCrnhDLkScSBEBYaEUA/AtAYgKjcyTgVLXlyGkcRpg
esRHHr+WSBD5W+R6ReYEmeKfTJdzyDdzQE9gZjdyjC0DUbsDwybIu3OnIef6VEDq
IXK7oUZfzDDcsNn4mTDoFaoff5cpqFfgDgM43VkCgYBNHw11b+d+AQmaZS9QqIt7
aF3FvwCYHV0jdv0Mb+Kc1bY4c0R5MFpzrTwVmdOerjuuA1+9b+0Hwo3nBZM4eaBu
SOamA2hu2OJWCl9q8fLCT69KqWDjghhvFe7c6aJJGucwaA3Uz3eLcPqoaCarMiNH
fMkTd7GabVourqIZdgvu1Q==
-----END PRIVATE KEY-----
";

/// Source: SP 800-38A, F.1.1: the key and, in every example of that publication, the four blocks of plaintext.
pub(crate) const AES_128_KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c";
/// Source: SP 800-38A, F.1.3.
pub(crate) const AES_192_KEY: &str = "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b";
/// Source: SP 800-38A, F.1.5.
pub(crate) const AES_256_KEY: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
/// Source: SP 800-38A, F.1.1.
pub(crate) const SP_800_38A: &str = concat!(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
);

/// Bytes of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd digit is a misprint");
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// A value in a list of attributes.
pub(crate) fn attributes(list: &[Attribute], kind: A) -> Option<&[u8]> {
    list.iter().find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value.as_slice())
}

fn material(class: ObjectClass, key_type: KeyType, list: &[Attribute]) -> KeyMaterial {
    match KeyMaterial::from_attributes(class, key_type, &|kind| attributes(list, kind)) {
        Ok(key) => key,
        Err(rv) => panic!("the key of the test is refused: {rv}"),
    }
}

/// The RSA key in the rsa crate.
pub(crate) fn second_rsa() -> RsaPrivateKey {
    let mut key = RsaPrivateKey::from_pkcs8_pem(RSA_2048).unwrap();
    key.precompute().unwrap();
    key
}

/// The PSS choices of the rsa crate.
pub(crate) fn second_pss(hash: Hash, salt_bytes: usize) -> impl Fn() -> rsa::Pss {
    move || match hash {
        Hash::Sha1 => rsa::Pss::new_with_salt::<sha1_010::Sha1>(salt_bytes),
        Hash::Sha224 => rsa::Pss::new_with_salt::<rsa::sha2::Sha224>(salt_bytes),
        Hash::Sha256 => rsa::Pss::new_with_salt::<rsa::sha2::Sha256>(salt_bytes),
        Hash::Sha384 => rsa::Pss::new_with_salt::<rsa::sha2::Sha384>(salt_bytes),
        Hash::Sha512 => rsa::Pss::new_with_salt::<rsa::sha2::Sha512>(salt_bytes),
    }
}

/// Modulus, exponents and the five CRT numbers, in this order.
pub(crate) fn rsa_private_attributes() -> Vec<Attribute> {
    let key = second_rsa();
    let bytes = |number: &BigUint| number.to_bytes_be();
    let (p, q) = (&key.primes()[0], &key.primes()[1]);
    let inverse = key.crt_coefficient().unwrap();
    vec![
        Attribute::new(A::MODULUS, bytes(key.n())),
        Attribute::new(A::PUBLIC_EXPONENT, bytes(key.e())),
        Attribute::new(A::PRIVATE_EXPONENT, bytes(key.d())),
        Attribute::new(A::PRIME_1, bytes(p)),
        Attribute::new(A::PRIME_2, bytes(q)),
        Attribute::new(A::EXPONENT_1, bytes(key.dp().unwrap())),
        Attribute::new(A::EXPONENT_2, bytes(key.dq().unwrap())),
        Attribute::new(A::COEFFICIENT, bytes(&inverse)),
    ]
}

/// Modulus and public exponent.
pub(crate) fn rsa_public_attributes() -> Vec<Attribute> {
    rsa_private_attributes()[..2].to_vec()
}

pub(crate) fn rsa_private() -> KeyMaterial {
    rsa_private_of(&rsa_private_attributes())
}

pub(crate) fn rsa_private_of(list: &[Attribute]) -> KeyMaterial {
    material(ObjectClass::PRIVATE_KEY, KeyType::RSA, list)
}

pub(crate) fn rsa_public() -> KeyMaterial {
    rsa_public_of(&rsa_public_attributes())
}

pub(crate) fn rsa_public_of(list: &[Attribute]) -> KeyMaterial {
    material(ObjectClass::PUBLIC_KEY, KeyType::RSA, list)
}

/// Source: RFC 6979, A.2.5, A.2.6 and A.2.7: the private keys.
pub(crate) fn ec_scalar(curve: EcCurve) -> Vec<u8> {
    unhex(match curve {
        EcCurve::P256 => "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
        EcCurve::P384 => concat!(
            "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA",
            "9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5"
        ),
        EcCurve::P521 => concat!(
            "00FAD06DAA62BA3B25D2FB40133DA757205DE67F5BB0018FEE8C86E1B68C7E75CAA8",
            "96EB32F1F47C70855836A6D16FCC1466F6D8FBEC67DB89EC0C08B0E996B83538"
        ),
    })
}

pub(crate) fn ec_private(curve: EcCurve) -> KeyMaterial {
    let parameters = Attribute::new(A::EC_PARAMS, curve.parameters());
    material(ObjectClass::PRIVATE_KEY, KeyType::EC, &[parameters, Attribute::new(A::VALUE, ec_scalar(curve))])
}

/// The public half, computed by the crate of the curve.
pub(crate) fn ec_public(curve: EcCurve) -> KeyMaterial {
    use p256::elliptic_curve::sec1::ToEncodedPoint;
    let scalar = ec_scalar(curve);
    let point = match curve {
        EcCurve::P256 => p256::SecretKey::from_slice(&scalar)
            .unwrap()
            .public_key()
            .to_encoded_point(false)
            .as_bytes()
            .to_vec(),
        EcCurve::P384 => p384::SecretKey::from_slice(&scalar)
            .unwrap()
            .public_key()
            .to_encoded_point(false)
            .as_bytes()
            .to_vec(),
        EcCurve::P521 => p521::SecretKey::from_slice(&scalar)
            .unwrap()
            .public_key()
            .to_encoded_point(false)
            .as_bytes()
            .to_vec(),
    };
    let parameters = Attribute::new(A::EC_PARAMS, curve.parameters());
    let point = Attribute::new(A::EC_POINT, to_octet_string(&point));
    material(ObjectClass::PUBLIC_KEY, KeyType::EC, &[parameters, point])
}

/// An AES key of hexadecimal digits.
pub(crate) fn aes(key: &str) -> KeyMaterial {
    secret_key(KeyType::AES, &unhex(key))
}

pub(crate) fn secret_key(key_type: KeyType, value: &[u8]) -> KeyMaterial {
    material(ObjectClass::SECRET_KEY, key_type, &[Attribute::new(A::VALUE, value)])
}

/// A mechanism without parameters.
pub(crate) fn plain(mechanism: MechanismType) -> Mechanism {
    Mechanism::plain(mechanism)
}

/// A whole use; the shortest way to all of [`run`].
pub(crate) fn whole(data: &[u8]) -> Input<'_> {
    Input { how: How::WHOLE, data, signature: &[], last: true, state: None }
}

fn job<'a>(mechanism: &'a Mechanism, function: KeyFunction, key: &'a KeyMaterial) -> Job<'a> {
    Job { mechanism, function, key, prehash_permitted: true }
}

pub(crate) fn plan_of(
    mechanism: &Mechanism,
    function: KeyFunction,
    key: &KeyMaterial,
    prehash_permitted: bool,
) -> Result<PlanAnswer, Rv> {
    plan(&Job { prehash_permitted, ..job(mechanism, function, key) })
}

fn used(
    mechanism: &Mechanism,
    function: KeyFunction,
    key: &KeyMaterial,
    input: &Input<'_>,
) -> Result<Bytes, Rv> {
    let output = run(&job(mechanism, function, key), input)?;
    assert!(output.state.is_none(), "a last part leaves no state");
    Ok(output.data.into_bytes())
}

pub(crate) fn sign(mechanism: &Mechanism, key: &KeyMaterial, data: &[u8]) -> Result<Bytes, Rv> {
    used(mechanism, KeyFunction::SIGN, key, &whole(data))
}

pub(crate) fn verify(
    mechanism: &Mechanism,
    key: &KeyMaterial,
    data: &[u8],
    signature: &[u8],
) -> Result<(), Rv> {
    let input = Input { signature, ..whole(data) };
    used(mechanism, KeyFunction::VERIFY, key, &input).map(|nothing| assert!(nothing.is_empty()))
}

pub(crate) fn encrypt(mechanism: &Mechanism, key: &KeyMaterial, data: &[u8]) -> Result<Bytes, Rv> {
    used(mechanism, KeyFunction::ENCRYPT, key, &whole(data))
}

pub(crate) fn decrypt(mechanism: &Mechanism, key: &KeyMaterial, data: &[u8]) -> Result<Bytes, Rv> {
    used(mechanism, KeyFunction::DECRYPT, key, &whole(data))
}

/// Signs a digest made outside.
pub(crate) fn use_prehash(mechanism: &Mechanism, key: &KeyMaterial, digest: &[u8]) -> Result<Bytes, Rv> {
    used(mechanism, KeyFunction::SIGN, key, &Input { how: How::PREHASH, ..whole(digest) })
}

/// One part of a chain.
pub(crate) fn use_chain(
    mechanism: &Mechanism,
    function: KeyFunction,
    key: &KeyMaterial,
    data: &[u8],
    last: bool,
) -> Result<Bytes, Rv> {
    used(mechanism, function, key, &Input { how: How::CHAIN, last, ..whole(data) })
}

/// Signs in parts, each with the state of the one before.
pub(crate) fn use_stream(mechanism: &Mechanism, key: &KeyMaterial, parts: &[&[u8]]) -> Result<Bytes, Rv> {
    stream(mechanism, KeyFunction::SIGN, key, parts, &[])
}

/// Verifies in parts.
pub(crate) fn verify_stream(
    mechanism: &Mechanism,
    key: &KeyMaterial,
    parts: &[&[u8]],
    signature: &[u8],
) -> Result<(), Rv> {
    stream(mechanism, KeyFunction::VERIFY, key, parts, signature).map(|nothing| assert!(nothing.is_empty()))
}

fn stream(
    mechanism: &Mechanism,
    function: KeyFunction,
    key: &KeyMaterial,
    parts: &[&[u8]],
    signature: &[u8],
) -> Result<Bytes, Rv> {
    let (last, before) = parts.split_last().unwrap();
    let mut state: Option<Bytes> = None;
    for part in before {
        let input = Input {
            how: How::STREAM,
            data: part,
            signature: &[],
            last: false,
            state: state.as_ref().map(|state| state.as_slice()),
        };
        let output = run(&job(mechanism, function, key), &input)?;
        assert!(output.data.is_empty(), "parts give nothing");
        state = Some(output.state.expect("a part before the last leaves its state"));
    }
    let state = state.as_ref().map(|state| state.as_slice());
    let input = Input { how: How::STREAM, data: last, signature, last: true, state };
    used(mechanism, function, key, &input)
}

/// One part of a stream that goes on from a given state.
pub(crate) fn stream_from(mechanism: &Mechanism, key: &KeyMaterial, state: &[u8]) -> Result<Output, Rv> {
    let input = Input { how: How::STREAM, state: Some(state), last: false, ..whole(b"part") };
    run(&job(mechanism, KeyFunction::SIGN, key), &input)
}
