//! The calls under measurement as a C application makes them: its own memory for results, used again and again. (`tests::p11`
//! gives each result memory of its own, which would be measured too.)
#![allow(clippy::cast_possible_truncation, reason = "lengths of what is measured fit")]

use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::*;
use tests::p11::{Failed, Outcome, P11};

/// Calls one function of the list of a module.
macro_rules! call {
    ($p11:expr, $name:ident ( $($argument:expr),* )) => {{
        // SAFETY: the list is valid for the life of the process; the arguments are valid for the call.
        let rv = unsafe { ($p11.list().$name.expect("every function is present"))($($argument),*) };
        if rv == CKR_OK { Ok(()) } else { Err(Failed { function: stringify!($name), rv }) }
    }};
}

/// A mechanism with its parameter in memory of its own.
pub enum Mechanism {
    /// Without one.
    Plain(CK_MECHANISM_TYPE),
    /// CKM_AES_CBC with its IV.
    Cbc([u8; 16]),
    /// CKM_AES_GCM with an IV of 12 bytes, no additional data and a tag of 16 bytes.
    Gcm([u8; 12]),
}

/// IVs of GCM that this process has given out.
static IVS: AtomicU64 = AtomicU64::new(0);

impl Mechanism {
    /// Gives CKM_AES_GCM an IV that this process has not used.
    pub fn renew(&mut self) {
        if let Self::Gcm(iv) = self {
            iv[4..].copy_from_slice(&IVS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        }
    }

    /// Lends it in the shape of the standard.
    fn with<T>(&mut self, use_it: impl FnOnce(&mut CK_MECHANISM) -> T) -> T {
        let mut gcm;
        let (mechanism, pointer, length) = match self {
            Self::Plain(kind) => (*kind, null_mut(), 0),
            Self::Cbc(iv) => (CKM_AES_CBC, iv.as_mut_ptr().cast(), iv.len()),
            Self::Gcm(iv) => {
                gcm = CK_GCM_PARAMS {
                    pIv: iv.as_mut_ptr(),
                    ulIvLen: iv.len() as CK_ULONG,
                    ulIvBits: iv.len() as CK_ULONG * 8,
                    pAAD: null_mut(),
                    ulAADLen: 0,
                    ulTagBits: 128,
                };
                (CKM_AES_GCM, (&raw mut gcm).cast(), size_of::<CK_GCM_PARAMS>())
            }
        };
        use_it(&mut CK_MECHANISM { mechanism, pParameter: pointer, ulParameterLen: length as CK_ULONG })
    }
}

/// Calls two functions, Init and the operation, that write into `output`; how many bytes they wrote.
macro_rules! init_and_run {
    ($session:ident, $init:ident, $run:ident, $mechanism:ident, $key:ident, $data:ident, $output:ident) => {{
        $mechanism.with(|mechanism| call!($session.p11, $init($session.handle, mechanism, $key)))?;
        let mut length = $output.len() as CK_ULONG;
        let (pointer, count) = ($data.as_ptr().cast_mut(), $data.len() as CK_ULONG);
        call!($session.p11, $run($session.handle, pointer, count, $output.as_mut_ptr(), &mut length))?;
        Ok(length as usize)
    }};
}

/// A session of one thread; closed when it is dropped.
pub struct Session<'a> {
    pub(crate) p11: &'a P11,
    pub(crate) handle: CK_SESSION_HANDLE,
}

impl Session<'_> {
    /// C_SignInit and C_Sign; how long the signature is.
    ///
    /// # Errors
    /// What the functions answer.
    pub fn sign(
        &self,
        mechanism: &mut Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        output: &mut [u8],
    ) -> Outcome<usize> {
        init_and_run!(self, C_SignInit, C_Sign, mechanism, key, data, output)
    }

    /// C_VerifyInit and C_Verify.
    ///
    /// # Errors
    /// What the functions answer.
    pub fn verify(
        &self,
        mechanism: &mut Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        signature: &[u8],
    ) -> Outcome<()> {
        mechanism.with(|mechanism| call!(self.p11, C_VerifyInit(self.handle, mechanism, key)))?;
        let (pointer, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let (signature, length) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
        call!(self.p11, C_Verify(self.handle, pointer, count, signature, length))
    }

    /// C_EncryptInit and C_Encrypt; how long the result is.
    ///
    /// # Errors
    /// What the functions answer.
    pub fn encrypt(
        &self,
        mechanism: &mut Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        output: &mut [u8],
    ) -> Outcome<usize> {
        init_and_run!(self, C_EncryptInit, C_Encrypt, mechanism, key, data, output)
    }

    /// C_EncryptInit, C_EncryptUpdate of the same piece so many times, and C_EncryptFinal; how long the result is.
    ///
    /// # Errors
    /// What the functions answer.
    pub fn encrypt_stream(
        &self,
        mechanism: &mut Mechanism,
        key: CK_OBJECT_HANDLE,
        (piece, pieces): (&[u8], usize),
        output: &mut [u8],
    ) -> Outcome<usize> {
        mechanism.with(|mechanism| call!(self.p11, C_EncryptInit(self.handle, mechanism, key)))?;
        let (pointer, count) = (piece.as_ptr().cast_mut(), piece.len() as CK_ULONG);
        let mut made = 0;
        for _ in 0..pieces {
            let mut length = output.len() as CK_ULONG;
            call!(self.p11, C_EncryptUpdate(self.handle, pointer, count, output.as_mut_ptr(), &mut length))?;
            made += length as usize;
        }
        let mut rest = [0; 32];
        let mut length = rest.len() as CK_ULONG;
        call!(self.p11, C_EncryptFinal(self.handle, rest.as_mut_ptr(), &mut length))?;
        Ok(made + length as usize)
    }

    /// C_DecryptInit and C_Decrypt; how long the result is.
    ///
    /// # Errors
    /// What the functions answer.
    pub fn decrypt(
        &self,
        mechanism: &mut Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        output: &mut [u8],
    ) -> Outcome<usize> {
        init_and_run!(self, C_DecryptInit, C_Decrypt, mechanism, key, data, output)
    }

    /// C_DigestInit and C_Digest, with CKM_SHA256; how long the digest is.
    ///
    /// # Errors
    /// What the functions answer.
    pub fn digest(&self, data: &[u8], output: &mut [u8]) -> Outcome<usize> {
        Mechanism::Plain(CKM_SHA256)
            .with(|mechanism| call!(self.p11, C_DigestInit(self.handle, mechanism)))?;
        let mut length = output.len() as CK_ULONG;
        let (pointer, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        call!(self.p11, C_Digest(self.handle, pointer, count, output.as_mut_ptr(), &mut length))?;
        Ok(length as usize)
    }

    /// C_GenerateRandom.
    ///
    /// # Errors
    /// What the function answers.
    pub fn random(&self, output: &mut [u8]) -> Outcome<()> {
        call!(self.p11, C_GenerateRandom(self.handle, output.as_mut_ptr(), output.len() as CK_ULONG))
    }

    /// C_GetAttributeValue of two attributes; how long they are.
    ///
    /// # Errors
    /// What the function answers.
    pub fn attributes(
        &self,
        object: CK_OBJECT_HANDLE,
        kinds: [CK_ATTRIBUTE_TYPE; 2],
        output: &mut [[u8; 256]; 2],
    ) -> Outcome<[usize; 2]> {
        let [first, second] = output;
        let mut template = [(kinds[0], first), (kinds[1], second)].map(|(type_, value)| CK_ATTRIBUTE {
            type_,
            pValue: value.as_mut_ptr().cast(),
            ulValueLen: value.len() as CK_ULONG,
        });
        call!(self.p11, C_GetAttributeValue(self.handle, object, template.as_mut_ptr(), 2))?;
        Ok(template.map(|attribute| attribute.ulValueLen as usize))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // The module may have lost it already.
        let _ = self.p11.close(self.handle);
    }
}
