//! RSA primitives and ECDSA over `aws-lc-sys`: the C border below `partition` (RULES 4). Paddings and policies
//! live above. Every number is big-endian; private ones are wiped when dropped. Randomness (primes, blinding, nonces) is AWS-LC's.

use aws_lc_sys as sys;
use std::{error, fmt, os::raw::c_int, ptr, ptr::NonNull};
use zeroize::Zeroizing;

mod ecdsa;
pub use ecdsa::{Curve, EcdsaPrivate};

/// Least and greatest length of a modulus in bytes (512 to 16384 bits); a larger one costs minutes, which makes it a weapon.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 64..=2048;

/// Why a primitive refused. It never carries key or message bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The key is malformed, inconsistent or of a size that is not taken.
    Key,
    /// The message is not exactly as long as the modulus, or not below it.
    Input,
    /// AWS-LC failed: no memory, no randomness, or a result that did not verify.
    Failed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Key => "wanted a consistent key of a supported size, found another; check its components",
            Error::Input => {
                "wanted a number as long as the modulus and below it, found another; pad it first"
            }
            Error::Failed => {
                "wanted a result of AWS-LC, found a failure; check memory and the randomness source"
            }
        })
    }
}

impl error::Error for Error {}

/// Empties this thread's error queue, so that one refused key does not colour a later call of another user of AWS-LC.
fn failed(error: Error) -> Error {
    // SAFETY: ERR_clear_error takes no argument and touches only this thread's queue.
    unsafe { sys::ERR_clear_error() };
    error
}

/// An owned `BIGNUM`, wiped when dropped.
struct Number(NonNull<sys::BIGNUM>);

impl Number {
    fn from_bytes(bytes: &[u8]) -> Result<Number, Error> {
        // SAFETY: the slice promises `len` readable bytes; a null third argument asks for a new BIGNUM, which is then ours.
        let raw = unsafe { sys::BN_bin2bn(bytes.as_ptr(), bytes.len(), ptr::null_mut()) };
        NonNull::new(raw).map(Number).ok_or_else(|| failed(Error::Failed))
    }

    /// Gives the number away to a `set0` function.
    fn into_raw(self) -> *mut sys::BIGNUM {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: we own the BIGNUM and nobody uses it after drop.
        unsafe { sys::BN_clear_free(self.0.as_ptr()) };
    }
}

/// An owned `RSA`, freed and wiped by AWS-LC when dropped.
struct Handle(NonNull<sys::RSA>);

// SAFETY: AWS-LC promises that an RSA may be used and freed on a thread other than the one that made it.
unsafe impl Send for Handle {}
// SAFETY: AWS-LC promises that non-mutating functions, all that we call on a finished key, may run on one RSA concurrently.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: we own the only reference and nobody uses it after drop.
        unsafe { sys::RSA_free(self.0.as_ptr()) };
    }
}

type RawOperation =
    unsafe extern "C" fn(*mut sys::RSA, *mut usize, *mut u8, usize, *const u8, usize, c_int) -> c_int;

impl Handle {
    fn from_raw(raw: *mut sys::RSA) -> Result<Handle, Error> {
        NonNull::new(raw).map(Handle).ok_or_else(|| failed(Error::Key))
    }

    /// An unchecked key of modulus, public and, for private keys, private exponent.
    fn of_exponents(n: &[u8], e: &[u8], d: Option<&[u8]>) -> Result<Handle, Error> {
        if !MODULUS_BYTES.contains(&significant(n).len()) || e.len() > n.len() {
            return Err(Error::Key);
        }
        // SAFETY: RSA_new takes no argument; what it returns is ours.
        let handle = Handle::from_raw(unsafe { sys::RSA_new() })?;
        let (n, e) = (Number::from_bytes(n)?, Number::from_bytes(e)?);
        let d = d.map(Number::from_bytes).transpose()?.map_or(ptr::null_mut(), Number::into_raw);
        // SAFETY: the live handle is ours alone; RSA_set0_key refuses only null n or e, and takes all three numbers over.
        unsafe {
            sys::RSA_set_flags(handle.0.as_ptr(), sys::RSA_FLAG_LARGE_PUBLIC_EXPONENT);
            sys::RSA_set0_key(handle.0.as_ptr(), n.into_raw(), e.into_raw(), d);
        }
        Ok(handle)
    }

    /// The modulus of a key whose numbers fit together, else `Key`.
    fn checked_modulus(&self) -> Result<Vec<u8>, Error> {
        // SAFETY: the handle is a live RSA.
        let consistent = unsafe { sys::RSA_check_key(self.0.as_ptr()) } == 1;
        let modulus = self.component(sys::RSA_get0_n).to_vec();
        let accepted = consistent && MODULUS_BYTES.contains(&modulus.len());
        if accepted { Ok(modulus) } else { Err(failed(Error::Key)) }
    }

    /// A component by its accessor, empty when the key has none.
    fn component(
        &self,
        get0: unsafe extern "C" fn(*const sys::RSA) -> *const sys::BIGNUM,
    ) -> Zeroizing<Vec<u8>> {
        // SAFETY: the live RSA goes on owning the number; BN_bn2bin writes BN_num_bytes bytes, and so many are there.
        unsafe {
            let number = get0(self.0.as_ptr());
            let bytes = if number.is_null() { 0 } else { sys::BN_num_bytes(number) };
            let mut out = Zeroizing::new(vec![0; bytes as usize]);
            if bytes > 0 {
                sys::BN_bn2bin(number, out.as_mut_ptr());
            }
            out
        }
    }

    /// A raw operation on `input`, which has exactly the bytes of `modulus` and is below it, into as many bytes.
    fn raw(&self, f: RawOperation, input: &[u8], modulus: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // Big-endian numbers of one length compare as their bytes do.
        if input.len() != modulus.len() || input >= modulus || out.len() != input.len() {
            return Err(Error::Input);
        }
        let (rsa, to, mut written) = (self.0.as_ptr(), out.as_mut_ptr(), 0);
        // SAFETY: the RSA is live; both slices have `input.len()` bytes, the one writable, and outlive the call.
        let done = unsafe {
            f(rsa, &mut written, to, input.len(), input.as_ptr(), input.len(), sys::RSA_NO_PADDING)
        };
        if done == 1 && written == out.len() { Ok(()) } else { Err(failed(Error::Failed)) }
    }

    /// The same into memory of its own.
    fn raw_to_new(&self, f: RawOperation, input: &[u8], modulus: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut out = Zeroizing::new(vec![0; modulus.len()]);
        self.raw(f, input, modulus, &mut out).map(|()| out)
    }
}

/// All numbers of a private key (RFC 8017, 3.2) without leading zeros.
pub struct Components {
    /// Modulus n.
    pub modulus: Vec<u8>,
    /// Public exponent e.
    pub public_exponent: Vec<u8>,
    /// Private exponent d.
    pub private_exponent: Zeroizing<Vec<u8>>,
    /// p, q, d mod (p - 1), d mod (q - 1), the inverse of q modulo p; `None` if the key was given without them.
    pub crt: Option<[Zeroizing<Vec<u8>>; 5]>,
}

/// An RSA private key, usable by many threads at once.
pub struct RsaPrivate(Handle, Vec<u8>);

impl RsaPrivate {
    /// The key of an `RSAPrivateKey` (RFC 8017, A.1.2). Errs with `Key` if it does not parse to its end or is inconsistent.
    pub fn from_pkcs1_der(der: &[u8]) -> Result<RsaPrivate, Error> {
        // SAFETY: the slice promises `len` readable bytes; what is returned is ours.
        RsaPrivate::tried(Handle::from_raw(unsafe {
            sys::RSA_private_key_from_bytes(der.as_ptr(), der.len())
        })?)
    }

    /// A fresh key. Errs with `Key` unless `bits` is a multiple of 128 (AWS-LC rounds others down) and e odd, of 2 to 32 bits.
    pub fn generate(bits: u32, public_exponent: &[u8]) -> Result<RsaPrivate, Error> {
        let e = significant(public_exponent);
        let odd = e.last().is_some_and(|last| last & 1 == 1);
        if !MODULUS_BYTES.contains(&(bits as usize / 8))
            || !bits.is_multiple_of(128)
            || !odd
            || e == [1]
            || e.len() > 4
        {
            return Err(Error::Key);
        }
        let bits = c_int::try_from(bits).map_err(|_| Error::Key)?;
        let e = Number::from_bytes(e)?;
        // SAFETY: RSA_new takes no argument; what it returns is ours.
        let handle = Handle::from_raw(unsafe { sys::RSA_new() })?;
        // SAFETY: both objects are live, the RSA is not shared yet, and a null callback asks for none.
        let done =
            unsafe { sys::RSA_generate_key_ex(handle.0.as_ptr(), bits, e.0.as_ptr(), ptr::null_mut()) };
        if done == 1 { RsaPrivate::tried(handle) } else { Err(failed(Error::Failed)) }
    }

    /// The key of given numbers, `crt` in the order of [`Components::crt`]; without it the key works, three to four times
    /// slower. Errs with `Key` if the numbers contradict each other.
    pub fn from_components(
        n: &[u8],
        e: &[u8],
        d: &[u8],
        crt: Option<[&[u8]; 5]>,
    ) -> Result<RsaPrivate, Error> {
        if significant(d).is_empty() || significant(d).len() > n.len() {
            return Err(Error::Key);
        }
        let handle = Handle::of_exponents(n, e, Some(d))?;
        if let Some(crt) = crt {
            let [p, q, dp, dq, inverse] = crt.map(Number::from_bytes);
            let (p, q, dp, dq, inverse) = (p?, q?, dp?, dq?, inverse?);
            // SAFETY: the handle is ours alone; these functions refuse only null numbers, and take them over.
            unsafe {
                sys::RSA_set0_factors(handle.0.as_ptr(), p.into_raw(), q.into_raw());
                sys::RSA_set0_crt_params(handle.0.as_ptr(), dp.into_raw(), dq.into_raw(), inverse.into_raw());
            }
        }
        RsaPrivate::tried(handle)
    }

    /// Checks a key and tries it on 2: AWS-LC verifies each result with the public exponent, so that a wrong d shows here.
    fn tried(handle: Handle) -> Result<RsaPrivate, Error> {
        let modulus = handle.checked_modulus()?;
        let key = RsaPrivate(handle, modulus);
        let mut two = vec![0; key.modulus_bytes()];
        *two.last_mut().ok_or(Error::Key)? = 2;
        key.private_op(&two).map(|_| key).map_err(|_| Error::Key)
    }

    /// Length of the modulus in bytes, k.
    #[must_use]
    pub fn modulus_bytes(&self) -> usize {
        self.1.len()
    }

    /// All numbers of the key.
    #[must_use]
    pub fn components(&self) -> Components {
        let [e, d] = [sys::RSA_get0_e, sys::RSA_get0_d].map(|get0| self.0.component(get0));
        let factors =
            [sys::RSA_get0_p, sys::RSA_get0_q, sys::RSA_get0_dmp1, sys::RSA_get0_dmq1, sys::RSA_get0_iqmp];
        let crt = Some(factors.map(|get0| self.0.component(get0))).filter(|crt| !crt[4].is_empty());
        Components { modulus: self.1.clone(), public_exponent: e.to_vec(), private_exponent: d, crt }
    }

    /// `input ^ d mod n`, blinded and verified (RFC 8017, 5.1.2). Errs with `Input` unless `input` has k bytes and is below n.
    pub fn private_op(&self, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        // AWS-LC refuses 0, 1 and n - 1, which d, being odd, maps to themselves; n is odd, so n - 1 differs in its last bit.
        if let (Some((last, head)), Some((n_last, n_head))) = (input.split_last(), self.1.split_last())
            && input.len() == self.1.len()
            && ((*last <= 1 && significant(head).is_empty()) || (head == n_head && *last == n_last - 1))
        {
            return Ok(Zeroizing::new(input.to_vec()));
        }
        self.0.raw_to_new(sys::RSA_sign_raw, input, &self.1)
    }
}

/// An RSA public key, usable by many threads at once.
pub struct RsaPublic(Handle, Vec<u8>);

impl RsaPublic {
    /// The key of modulus and exponent. Errs with `Key` unless n is odd, of 64 to 2048 bytes, and e odd, above 1, below n.
    pub fn new(n: &[u8], e: &[u8]) -> Result<RsaPublic, Error> {
        let handle = Handle::of_exponents(n, e, None)?;
        handle.checked_modulus().map(|modulus| RsaPublic(handle, modulus))
    }

    /// Length of the modulus in bytes, k.
    #[must_use]
    pub fn modulus_bytes(&self) -> usize {
        self.1.len()
    }

    /// `input ^ e mod n` (RFC 8017, 5.1.1). Errs with `Input` unless `input` has k bytes and is below n.
    pub fn public_op(&self, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.0.raw_to_new(sys::RSA_verify_raw, input, &self.1)
    }

    /// The same into `out`. Errs with `Input`, too, unless that has k bytes.
    pub fn public_op_into(&self, input: &[u8], out: &mut [u8]) -> Result<(), Error> {
        self.0.raw(sys::RSA_verify_raw, input, &self.1, out)
    }
}

/// The bytes of a number from its first that is not zero.
fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}
