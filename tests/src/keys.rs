//! Keys that the tests generate again and again.

use cryptoki_sys::*;

use crate::p11::{Mech, Outcome, P11, Tmpl};

/// DER of the curve's object identifier (`CKA_EC_PARAMS`) of P-256.
pub const P256_PARAMS: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Templates of a token or session key pair for signing.
pub fn pair_templates(token: bool, label: &str, id: u8) -> (Tmpl, Tmpl) {
    let common =
        |tmpl: Tmpl| tmpl.bool(CKA_TOKEN, token).bytes(CKA_LABEL, label.as_bytes()).bytes(CKA_ID, &[id]);
    let public = common(Tmpl::new()).bool(CKA_VERIFY, true);
    let private = common(Tmpl::new()).bool(CKA_SIGN, true).bool(CKA_PRIVATE, true).bool(CKA_SENSITIVE, true);
    (public, private)
}

/// Generates a P-256 pair.
///
/// # Errors
/// Those of `C_GenerateKeyPair`.
pub fn p256_pair(
    p11: &P11,
    session: CK_SESSION_HANDLE,
    token: bool,
    label: &str,
    id: u8,
) -> Outcome<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
    let (public, private) = pair_templates(token, label, id);
    p11.generate_pair(
        session,
        Mech::plain(CKM_EC_KEY_PAIR_GEN),
        public.bytes(CKA_EC_PARAMS, P256_PARAMS),
        private,
    )
}

/// Generates an RSA-2048 pair.
///
/// # Errors
/// Those of `C_GenerateKeyPair`.
pub fn rsa_pair(
    p11: &P11,
    session: CK_SESSION_HANDLE,
    token: bool,
    label: &str,
    id: u8,
) -> Outcome<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
    let (public, private) = pair_templates(token, label, id);
    let public =
        public.ulong(CKA_MODULUS_BITS, 2048).bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1]).bool(CKA_ENCRYPT, true);
    p11.generate_pair(
        session,
        Mech::plain(CKM_RSA_PKCS_KEY_PAIR_GEN),
        public,
        private.bool(CKA_DECRYPT, true),
    )
}

/// Generates a secret key of this many bytes that does everything.
///
/// # Errors
/// Those of `C_GenerateKey`.
pub fn secret_key(
    p11: &P11,
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_TYPE,
    bytes: CK_ULONG,
    token: bool,
    label: &str,
) -> Outcome<CK_OBJECT_HANDLE> {
    let tmpl = Tmpl::new()
        .bool(CKA_TOKEN, token)
        .ulong(CKA_VALUE_LEN, bytes)
        .bytes(CKA_LABEL, label.as_bytes())
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_ENCRYPT, mechanism == CKM_AES_KEY_GEN)
        .bool(CKA_DECRYPT, mechanism == CKM_AES_KEY_GEN)
        .bool(CKA_SIGN, true)
        .bool(CKA_VERIFY, true);
    p11.generate_key(session, Mech::plain(mechanism), tmpl)
}
