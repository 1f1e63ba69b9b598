//! Contract: HMAC.

use cryptoki_sys::*;

use super::vectors::{HASHES, MAC_DATA};
use super::{Context, hex, plain, refused};
use crate::p11::{Mech, Outcome};

rows! {
    "v3.1, 6.20.4" => hmac_gives_the_published_values,
    "v3.1, 6.20.4" => hmac_in_parts_is_the_same,
    "v3.1, 6.20.4" => hmac_of_nothing_is_a_mac,
    "v3.1, 6.20.4" => hmac_verify_tells_bad_macs_from_bad_lengths,
    "v3.1, 6.20.3" => hmac_general_is_cut_from_the_whole,
    "v3.1, 6.20.3" => hmac_general_of_a_bad_length_is_refused,
    "v3.1, 6.20.4" => hmac_under_a_short_key_gives_the_published_value,
}

fn hmac_gives_the_published_values(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for hash in HASHES {
        let key = cx.secret(session, CKK_GENERIC_SECRET, &hash.mac_key())?;
        let mac = cx.p11.sign_once(session, plain(hash.hmac), key, MAC_DATA)?;
        assert_eq!(mac, hex(hash.mac), "{} bytes", hash.bytes());
        cx.p11.verify_once(session, plain(hash.hmac), key, MAC_DATA, &mac)?;
    }
    Ok(())
}

fn hmac_in_parts_is_the_same(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for hash in HASHES {
        let key = cx.secret(session, CKK_GENERIC_SECRET, &hash.mac_key())?;
        cx.p11.sign_init(session, plain(hash.hmac), key)?;
        cx.p11.sign_update(session, &MAC_DATA[..7])?;
        cx.p11.sign_update(session, &[])?;
        cx.p11.sign_update(session, &MAC_DATA[7..])?;
        assert_eq!(cx.p11.sign_final(session)?, hex(hash.mac));
        cx.p11.verify_init(session, plain(hash.hmac), key)?;
        cx.p11.verify_update(session, &MAC_DATA[..30])?;
        cx.p11.verify_update(session, &MAC_DATA[30..])?;
        cx.p11.verify_final(session, &hex(hash.mac))?;
    }
    Ok(())
}

fn hmac_of_nothing_is_a_mac(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.mac(session)?;
    let mac = cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), key, &[])?;
    assert_eq!(mac.len(), 32);
    cx.p11.verify_once(session, plain(CKM_SHA256_HMAC), key, &[], &mac)
}

fn hmac_verify_tells_bad_macs_from_bad_lengths(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.mac(session)?;
    let mut mac = cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), key, b"data")?;
    let verify =
        |data: &[u8], mac: &[u8]| cx.p11.verify_once(session, plain(CKM_SHA256_HMAC), key, data, mac);
    refused(verify(b"other", &mac), &[CKR_SIGNATURE_INVALID]);
    refused(verify(b"data", &mac[..31]), &[CKR_SIGNATURE_LEN_RANGE]);
    refused(verify(b"data", &[]), &[CKR_SIGNATURE_LEN_RANGE]);
    mac[0] ^= 0x80;
    refused(verify(b"data", &mac), &[CKR_SIGNATURE_INVALID]);
    Ok(())
}

fn hmac_general_is_cut_from_the_whole(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.mac(session)?;
    let whole = cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), key, b"data")?;
    for bytes in [4usize, 16, 32] {
        let mech = || Mech::iv(CKM_SHA256_HMAC_GENERAL, &(bytes as CK_ULONG).to_ne_bytes());
        let mac = cx.p11.sign_once(session, mech(), key, b"data")?;
        assert_eq!(mac, whole[..bytes]);
        cx.p11.verify_once(session, mech(), key, b"data", &mac)?;
    }
    Ok(())
}

fn hmac_general_of_a_bad_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.mac(session)?;
    for bytes in [33 as CK_ULONG, CK_ULONG::MAX] {
        let mech = Mech::iv(CKM_SHA256_HMAC_GENERAL, &bytes.to_ne_bytes());
        refused(cx.p11.sign_init(session, mech, key), &[CKR_MECHANISM_PARAM_INVALID]);
    }
    let mech = Mech::iv(CKM_SHA256_HMAC_GENERAL, &[1, 2, 3]);
    refused(cx.p11.sign_init(session, mech, key), &[CKR_MECHANISM_PARAM_INVALID]);
    Ok(())
}

/// RFC 4231, 4.3.
fn hmac_under_a_short_key_gives_the_published_value(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.secret(session, CKK_GENERIC_SECRET, b"Jefe")?;
    let mac = cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), key, b"what do ya want for nothing?")?;
    assert_eq!(mac, hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
    Ok(())
}
