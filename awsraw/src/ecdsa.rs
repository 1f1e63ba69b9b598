//! ECDSA over a digest of any length, for inputs longer than `aws-lc-rs` takes (more than 64 bytes on P-521).

use crate::{Error, Number, failed};
use aws_lc_sys as sys;

/// A curve of SP 800-186.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

impl Curve {
    /// The number of the curve in AWS-LC and the length of a scalar in bytes.
    fn facts(self) -> (i32, usize) {
        match self {
            Curve::P256 => (sys::NID_X9_62_prime256v1, 32),
            Curve::P384 => (sys::NID_secp384r1, 48),
            Curve::P521 => (sys::NID_secp521r1, 66),
        }
    }
}

/// `r || s` over `digest`, of which the leftmost bits count, as many as the order has (FIPS 186-5, 6.4.1). `private` is a
/// scalar of 1 to n - 1, else `Key`.
pub fn ecdsa_sign_digest(curve: Curve, private: &[u8], digest: &[u8]) -> Result<Vec<u8>, Error> {
    let (nid, scalar_bytes) = curve.facts();
    let scalar = Number::from_bytes(private)?;
    let mut out = vec![0; 2 * scalar_bytes];
    let (r, s) = out.split_at_mut(scalar_bytes);
    // SAFETY: key and signature are made and freed here (free takes null); slices promise their lengths; r and s live in the signature.
    let (keyed, done) = unsafe {
        let key = sys::EC_KEY_new_by_curve_name(nid);
        let keyed = !key.is_null() && sys::EC_KEY_set_private_key(key, scalar.0.as_ptr()) == 1;
        let signature =
            if keyed { sys::ECDSA_do_sign(digest.as_ptr(), digest.len(), key) } else { std::ptr::null_mut() };
        let done = !signature.is_null()
            && sys::BN_bn2bin_padded(r.as_mut_ptr(), r.len(), sys::ECDSA_SIG_get0_r(signature)) == 1
            && sys::BN_bn2bin_padded(s.as_mut_ptr(), s.len(), sys::ECDSA_SIG_get0_s(signature)) == 1;
        sys::ECDSA_SIG_free(signature);
        sys::EC_KEY_free(key);
        (keyed, done)
    };
    if done { Ok(out) } else { Err(failed(if keyed { Error::Failed } else { Error::Key })) }
}
