//! ECDSA over a digest of any length. `aws-lc-rs` takes no more than 64 bytes of it on P-521, and wraps each signature in DER, a
//! context and 4.6 KiB of room, which it clears.

use crate::{Error, Number, failed};
use aws_lc_sys as sys;
use std::ptr::NonNull;

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

/// A private key on a curve, usable by many threads at once; freed and wiped by AWS-LC when dropped.
pub struct EcdsaPrivate(NonNull<sys::EC_KEY>, usize);

// SAFETY: AWS-LC promises that an EC_KEY may be used and freed on a thread other than the one that made it.
unsafe impl Send for EcdsaPrivate {}
// SAFETY: AWS-LC promises that non-mutating functions, all that we call on a finished key, may run on one EC_KEY concurrently.
unsafe impl Sync for EcdsaPrivate {}

impl Drop for EcdsaPrivate {
    fn drop(&mut self) {
        // SAFETY: we own the only reference and nobody uses it after drop.
        unsafe { sys::EC_KEY_free(self.0.as_ptr()) };
    }
}

impl EcdsaPrivate {
    /// The key of a scalar. Errs with `Key` unless it is of 1 to n - 1.
    pub fn new(curve: Curve, private: &[u8]) -> Result<EcdsaPrivate, Error> {
        let (nid, scalar_bytes) = curve.facts();
        let scalar = Number::from_bytes(private)?;
        // SAFETY: the function takes a number; what it returns is ours.
        let key = NonNull::new(unsafe { sys::EC_KEY_new_by_curve_name(nid) });
        let key = EcdsaPrivate(key.ok_or_else(|| failed(Error::Failed))?, scalar_bytes);
        // SAFETY: key and number are live, the key is not shared yet, and the number is copied.
        let set = unsafe { sys::EC_KEY_set_private_key(key.0.as_ptr(), scalar.0.as_ptr()) } == 1;
        if set { Ok(key) } else { Err(failed(Error::Key)) }
    }

    /// `r || s` over `digest`, of which the leftmost bits count, as many as the order has (FIPS 186-5, 6.4.1).
    pub fn sign_digest(&self, digest: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = vec![0; 2 * self.1];
        let (r, s) = out.split_at_mut(self.1);
        // SAFETY: the key is live; slices promise their lengths; the signature is freed here (free takes null), r and s live in it.
        let done = unsafe {
            let signature = sys::ECDSA_do_sign(digest.as_ptr(), digest.len(), self.0.as_ptr());
            let done = !signature.is_null()
                && sys::BN_bn2bin_padded(r.as_mut_ptr(), r.len(), sys::ECDSA_SIG_get0_r(signature)) == 1
                && sys::BN_bn2bin_padded(s.as_mut_ptr(), s.len(), sys::ECDSA_SIG_get0_s(signature)) == 1;
            sys::ECDSA_SIG_free(signature);
            done
        };
        if done { Ok(out) } else { Err(failed(Error::Failed)) }
    }
}
