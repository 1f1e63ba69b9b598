//! Known answers, each with its source, and the second opinions that judge signatures outside the module.

use cryptoki_sys::*;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::BigUint;

use super::{Context, Object, Session, hex};
use crate::p11::Outcome;

/// A hash and its mechanisms.
pub(super) struct Hash {
    /// Its digest mechanism.
    pub(super) digest: CK_MECHANISM_TYPE,
    /// RSA PKCS #1 v1.5 over it.
    pub(super) rsa_pkcs: CK_MECHANISM_TYPE,
    /// RSA PSS over it.
    pub(super) rsa_pss: CK_MECHANISM_TYPE,
    /// ECDSA over it.
    pub(super) ecdsa: CK_MECHANISM_TYPE,
    /// HMAC with it.
    pub(super) hmac: CK_MECHANISM_TYPE,
    /// Its MGF1.
    pub(super) mgf: CK_ULONG,
    /// The digest of "abc" (FIPS 180-2, appendices, and its change notice 1).
    pub(super) abc: &'static str,
    /// The DigestInfo in front of a digest (RFC 8017, 9.2, note 1).
    pub(super) prefix: &'static str,
    /// The MAC of RFC 4231, 4.7 (for SHA-1 RFC 2202, 3, case 6) over `MAC_DATA` under a key of 0xaa.
    pub(super) mac: &'static str,
}

/// The data of `Hash::mac`.
pub(super) const MAC_DATA: &[u8] = b"Test Using Larger Than Block-Size Key - Hash Key First";

impl Hash {
    /// The bytes of a digest.
    pub(super) fn bytes(&self) -> usize {
        self.abc.len() / 2
    }

    /// The digest by another implementation than the module's.
    pub(super) fn of(&self, data: &[u8]) -> Vec<u8> {
        let hash = digests::Hash::from_mechanism(self.digest).expect("every hash here is known");
        digests::digest(hash, data).to_vec()
    }

    /// The DigestInfo of data.
    pub(super) fn digest_info(&self, data: &[u8]) -> Vec<u8> {
        [hex(self.prefix), self.of(data)].concat()
    }

    /// The key of `Hash::mac`.
    pub(super) fn mac_key(&self) -> Vec<u8> {
        vec![0xaa; if self.digest == CKM_SHA_1 { 80 } else { 131 }]
    }
}

/// SHA-1 and SHA-2.
pub(super) const HASHES: [Hash; 5] = [
    Hash {
        digest: CKM_SHA_1,
        rsa_pkcs: CKM_SHA1_RSA_PKCS,
        rsa_pss: CKM_SHA1_RSA_PKCS_PSS,
        ecdsa: CKM_ECDSA_SHA1,
        hmac: CKM_SHA_1_HMAC,
        mgf: CKG_MGF1_SHA1,
        abc: "a9993e364706816aba3e25717850c26c9cd0d89d",
        prefix: "3021300906052b0e03021a05000414",
        mac: "aa4ae5e15272d00e95705637ce8a3b55ed402112",
    },
    Hash {
        digest: CKM_SHA224,
        rsa_pkcs: CKM_SHA224_RSA_PKCS,
        rsa_pss: CKM_SHA224_RSA_PKCS_PSS,
        ecdsa: CKM_ECDSA_SHA224,
        hmac: CKM_SHA224_HMAC,
        mgf: CKG_MGF1_SHA224,
        abc: "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
        prefix: "302d300d06096086480165030402040500041c",
        mac: "95e9a0db962095adaebe9b2d6f0dbce2d499f112f2d2b7273fa6870e",
    },
    Hash {
        digest: CKM_SHA256,
        rsa_pkcs: CKM_SHA256_RSA_PKCS,
        rsa_pss: CKM_SHA256_RSA_PKCS_PSS,
        ecdsa: CKM_ECDSA_SHA256,
        hmac: CKM_SHA256_HMAC,
        mgf: CKG_MGF1_SHA256,
        abc: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        prefix: "3031300d060960864801650304020105000420",
        mac: "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    },
    Hash {
        digest: CKM_SHA384,
        rsa_pkcs: CKM_SHA384_RSA_PKCS,
        rsa_pss: CKM_SHA384_RSA_PKCS_PSS,
        ecdsa: CKM_ECDSA_SHA384,
        hmac: CKM_SHA384_HMAC,
        mgf: CKG_MGF1_SHA384,
        abc: "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        prefix: "3041300d060960864801650304020205000430",
        mac: "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
    },
    Hash {
        digest: CKM_SHA512,
        rsa_pkcs: CKM_SHA512_RSA_PKCS,
        rsa_pss: CKM_SHA512_RSA_PKCS_PSS,
        ecdsa: CKM_ECDSA_SHA512,
        hmac: CKM_SHA512_HMAC,
        mgf: CKG_MGF1_SHA512,
        abc: "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
              2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        prefix: "3051300d060960864801650304020305000440",
        mac: "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
              6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
    },
];

/// A curve of this phase.
pub(super) struct Curve {
    /// DER of its object identifier.
    pub(super) params: &'static [u8],
    /// Bytes of the order, half of a signature.
    pub(super) bytes: usize,
}

/// P-256, P-384, P-521.
pub(super) const CURVES: [Curve; 3] = [
    Curve { params: crate::p11::P256_PARAMS, bytes: 32 },
    Curve { params: &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], bytes: 48 },
    Curve { params: &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], bytes: 66 },
];

impl Curve {
    /// Whether the signature over the digest is good, by RustCrypto; the digest is cut to the order as FIPS 186-5 says.
    pub(super) fn verifies(&self, point: &[u8], digest: &[u8], signature: &[u8]) -> bool {
        let digest = &digest[..digest.len().min(self.bytes)];
        // RustCrypto wants at least half the order's bytes; zeros in front leave the number as it is.
        let digest = [vec![0; self.bytes - digest.len()], digest.to_vec()].concat();
        macro_rules! judge {
            ($curve:ident) => {{
                let key =
                    $curve::ecdsa::VerifyingKey::from_sec1_bytes(point).expect("the point is on the curve");
                let signature =
                    $curve::ecdsa::Signature::from_slice(signature).expect("two numbers below the order");
                key.verify_prehash(&digest, &signature).is_ok()
            }};
        }
        match self.bytes {
            32 => judge!(p256),
            48 => judge!(p384),
            _ => judge!(p521),
        }
    }
}

/// The point of a public key without the OCTET STRING around it (PKCS #11 v3.1, 6.3.3).
pub(super) fn point_of(cx: &Context, session: Session, public: Object) -> Outcome<Vec<u8>> {
    let der = cx.p11.attribute(session, public, CKA_EC_POINT)?;
    assert_eq!(der[0], 0x04, "CKA_EC_POINT is an OCTET STRING");
    let header = if der[1] == 0x81 { 3 } else { 2 };
    assert_eq!(usize::from(der[header - 1]), der.len() - header, "the OCTET STRING holds the point alone");
    Ok(der[header..].to_vec())
}

/// Modulus and exponent of a public key.
pub(super) fn rsa_of(cx: &Context, session: Session, public: Object) -> Outcome<rsa::RsaPublicKey> {
    let number = |kind| Ok(BigUint::from_bytes_be(&cx.p11.attribute(session, public, kind)?));
    let (modulus, exponent) = (number(CKA_MODULUS)?, number(CKA_PUBLIC_EXPONENT)?);
    Ok(rsa::RsaPublicKey::new(modulus, exponent).expect("the public key is well formed"))
}

/// input^e mod n, as long as the modulus, by the `rsa` crate's numbers.
pub(super) fn rsa_public(key: &rsa::RsaPublicKey, input: &[u8]) -> Vec<u8> {
    use rsa::traits::PublicKeyParts;
    let power = BigUint::from_bytes_be(input).modpow(key.e(), key.n()).to_bytes_be();
    [vec![0; key.size() - power.len()], power].concat()
}
