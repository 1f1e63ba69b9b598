//! Every raw pointer that C gives us is read or written here and nowhere else. Two rules hold throughout: NULL with a
//! length above zero is CKR_ARGUMENTS_BAD, and a pointer beside a length of zero is not looked at.
//!
//! Alignment is never assumed: packed structures and byte buffers cast to structures exist in the field.

use std::marker::PhantomData;
use std::os::raw::c_void;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_C_INITIALIZE_ARGS, CK_GCM_PARAMS, CK_MECHANISM, CK_RSA_PKCS_OAEP_PARAMS,
    CK_RSA_PKCS_PSS_PARAMS, CK_ULONG, CK_VERSION,
};
use spec::Rv;

/// Proof that we are inside a C call: whoever called promised that each pointer is NULL or valid for the length that
/// stands beside it, until the call returns. It lends what it reads for that time only.
pub(super) struct Caller(());

/// A structure of C that any bytes make valid.
///
/// # Safety
/// Every bit pattern must be a valid value of the type.
pub(super) unsafe trait Plain: Copy {}

/// Marks structures of integers, raw pointers and optional function pointers.
macro_rules! plain {
    ($($name:ty),* $(,)?) => {
        $(
            // SAFETY: integers, raw pointers and `Option` of function pointers only; no bit pattern is invalid.
            unsafe impl Plain for $name {}
        )*
    };
}
plain!(
    u8,
    CK_ULONG,
    CK_ATTRIBUTE,
    CK_C_INITIALIZE_ARGS,
    CK_GCM_PARAMS,
    CK_MECHANISM,
    CK_RSA_PKCS_OAEP_PARAMS,
    CK_RSA_PKCS_PSS_PARAMS,
    CK_VERSION,
);

/// A place that the application gave for one value; known not to be NULL.
pub(super) struct Target<'a, T> {
    place: *mut T,
    caller: PhantomData<&'a Caller>,
}

impl Caller {
    /// The proof for one call.
    ///
    /// # Safety
    /// Only the body of a C function may make it, and only for its own duration: the application has then promised,
    /// by PKCS #11 v3.1, 5.1 and 5.2, that its pointers are NULL or valid for the lengths it gave.
    pub(super) const unsafe fn promised() -> Self {
        Self(())
    }

    /// Input bytes.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL with a length, or a length that no memory has.
    pub(super) fn bytes(&self, place: *const u8, length: CK_ULONG) -> Result<&[u8], Rv> {
        let length = length_of::<u8>(length)?;
        if length == 0 {
            return Ok(&[]);
        }
        if place.is_null() {
            return Err(Rv::ARGUMENTS_BAD);
        }
        // SAFETY: the application promised (`Caller`) that `place`, which is not NULL, holds `length` bytes during the
        // call, and `length_of` bounds them by `isize::MAX`.
        Ok(unsafe { std::slice::from_raw_parts(place, length) })
    }

    /// So many structures, copied; at most `count_max`.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL with a count, or a count above the bound.
    pub(super) fn array<T: Plain>(
        &self,
        place: *const T,
        count: CK_ULONG,
        count_max: usize,
    ) -> Result<Vec<T>, Rv> {
        let count = length_of::<T>(count)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        if place.is_null() || count > count_max {
            return Err(Rv::ARGUMENTS_BAD);
        }
        let mut copied = Vec::with_capacity(count);
        for index in 0..count {
            // SAFETY: the application promised (`Caller`) that `place`, which is not NULL, holds `count` structures
            // during the call; `Plain` says that any bytes are one, and the read assumes no alignment.
            copied.push(unsafe { place.add(index).read_unaligned() });
        }
        Ok(copied)
    }

    /// One structure, copied.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL.
    pub(super) fn value<T: Plain>(&self, place: *const T) -> Result<T, Rv> {
        if place.is_null() {
            return Err(Rv::ARGUMENTS_BAD);
        }
        // SAFETY: the application promised (`Caller`) that `place`, which is not NULL, holds one structure during the
        // call; `Plain` says that any bytes are one, and the read assumes no alignment.
        Ok(unsafe { place.read_unaligned() })
    }

    /// A text that ends with NUL, without it; none when NUL does not come within `bytes_max`.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL.
    pub(super) fn text(&self, place: *const u8, bytes_max: usize) -> Result<Option<Vec<u8>>, Rv> {
        let mut text = Vec::new();
        while text.len() < bytes_max {
            match self.value(place.wrapping_add(text.len()))? {
                0 => return Ok(Some(text)),
                byte => text.push(byte),
            }
        }
        Ok(None)
    }

    /// A place for one value.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL.
    pub(super) fn target<T>(&self, place: *mut T) -> Result<Target<'_, T>, Rv> {
        if place.is_null() {
            return Err(Rv::ARGUMENTS_BAD);
        }
        Ok(Target { place, caller: PhantomData })
    }

    /// Writes bytes into a buffer that the application gave, from its start.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL with bytes to write, or a buffer of `room` bytes that is too small for them.
    pub(super) fn copy_out(&self, place: *mut u8, room: usize, bytes: &[u8]) -> Result<(), Rv> {
        if bytes.is_empty() {
            return Ok(());
        }
        if place.is_null() || bytes.len() > room {
            return Err(Rv::ARGUMENTS_BAD);
        }
        // SAFETY: the application promised (`Caller`) that `place`, which is not NULL, has room for `room` bytes, which
        // are no fewer than are copied; the source is memory of ours, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }
}

impl<T> Target<'_, T> {
    /// Writes the value.
    pub(super) fn set(&self, value: T) {
        // SAFETY: the application promised (`Caller`) that the place, which is not NULL, may be written with one `T`
        // during the call; the write assumes no alignment and drops nothing.
        unsafe { self.place.write_unaligned(value) };
    }
}

/// The element `index` behind a pointer; nothing is read.
pub(super) fn element<T>(place: *mut T, index: usize) -> *mut T {
    place.wrapping_add(index)
}

/// A void pointer as one to bytes.
pub(super) fn as_bytes(place: *mut c_void) -> *mut u8 {
    place.cast()
}

/// A count of `T` that memory can hold.
fn length_of<T>(count: CK_ULONG) -> Result<usize, Rv> {
    let count = usize::try_from(count).map_err(|_| Rv::ARGUMENTS_BAD)?;
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Rv::ARGUMENTS_BAD)?;
    if isize::try_from(bytes).is_ok() { Ok(count) } else { Err(Rv::ARGUMENTS_BAD) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::ptr::{dangling, null, null_mut};

    fn caller() -> Caller {
        // SAFETY: each test passes pointers into buffers of its own, with their lengths.
        unsafe { Caller::promised() }
    }

    #[test]
    fn input_bytes_null_zero_short_and_impossible() {
        let caller = caller();
        let data = [1_u8, 2, 3];
        assert_eq!(caller.bytes(null(), 0), Ok(&[][..]));
        assert_eq!(caller.bytes(dangling(), 0), Ok(&[][..]));
        assert_eq!(caller.bytes(null(), 1), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(caller.bytes(data.as_ptr(), 2), Ok(&data[..2]));
        assert_eq!(caller.bytes(data.as_ptr(), 3), Ok(&data[..]));
        assert_eq!(caller.bytes(data.as_ptr(), CK_ULONG::MAX), Err(Rv::ARGUMENTS_BAD));
    }

    #[test]
    fn arrays_null_zero_too_many_and_unaligned() {
        let caller = caller();
        let numbers: [CK_ULONG; 2] = [7, 9];
        assert_eq!(caller.array::<CK_ULONG>(null(), 0, 4), Ok(vec![]));
        assert_eq!(caller.array::<CK_ULONG>(null(), 1, 4), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(caller.array(numbers.as_ptr(), 2, 2), Ok(vec![7, 9]));
        assert_eq!(caller.array(numbers.as_ptr(), 2, 1), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(caller.array(numbers.as_ptr(), CK_ULONG::MAX / 2, 1 << 20), Err(Rv::ARGUMENTS_BAD));
        let mut shifted = vec![0_u8];
        numbers.iter().for_each(|number| shifted.extend(number.to_ne_bytes()));
        let unaligned = shifted[1..].as_ptr().cast::<CK_ULONG>();
        assert_eq!(caller.array(unaligned, 2, 2), Ok(vec![7, 9]));
    }

    #[test]
    fn a_value_is_read_unaligned_and_never_from_null() {
        let caller = caller();
        assert_eq!(caller.value::<CK_ULONG>(null()), Err(Rv::ARGUMENTS_BAD));
        let mut shifted = vec![0_u8];
        shifted.extend(CK_ULONG::MAX.to_ne_bytes());
        assert_eq!(caller.value(shifted[1..].as_ptr().cast::<CK_ULONG>()), Ok(CK_ULONG::MAX));
    }

    #[test]
    fn a_text_ends_with_nul_or_is_none() {
        let caller = caller();
        assert_eq!(caller.text(null(), 8), Err(Rv::ARGUMENTS_BAD));
        let (name, empty) = (c"PKCS 11".as_ptr().cast(), c"".as_ptr().cast());
        assert_eq!(caller.text(name, 8), Ok(Some(b"PKCS 11".to_vec())));
        assert_eq!(caller.text(name, 7), Ok(None));
        assert_eq!(caller.text(empty, 8), Ok(Some(vec![])));
    }

    #[test]
    fn a_target_is_written_unaligned_and_never_to_null() {
        let caller = caller();
        assert_eq!(caller.target::<CK_ULONG>(null_mut()).map(|_| ()), Err(Rv::ARGUMENTS_BAD));
        let mut buffer = [0_u8; size_of::<CK_ULONG>() + 2];
        let place = buffer[1..].as_mut_ptr().cast::<CK_ULONG>();
        caller.target(place).unwrap().set(CK_ULONG::MAX);
        assert_eq!((buffer[0], buffer[1], buffer[size_of::<CK_ULONG>()]), (0, 0xff, 0xff));
        assert_eq!(buffer[size_of::<CK_ULONG>() + 1], 0);
    }

    #[test]
    fn output_bytes_null_zero_short_and_exact() {
        let caller = caller();
        let mut buffer = [0_u8; 4];
        assert_eq!(caller.copy_out(null_mut(), 0, &[]), Ok(()));
        assert_eq!(caller.copy_out(null_mut(), 4, &[1]), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(caller.copy_out(buffer.as_mut_ptr(), 2, &[1, 2, 3]), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(buffer, [0; 4]);
        assert_eq!(caller.copy_out(buffer.as_mut_ptr(), 3, &[1, 2, 3]), Ok(()));
        assert_eq!(buffer, [1, 2, 3, 0]);
    }
}
