//! A small PKCS #11 caller over `dlopen`, for the threads of the demo and of `chaos`. It plays the C application, so this is the
//! one file of the crate with unsafe code.
use std::path::Path;
use std::ptr::null_mut;

use cryptoki_sys as c;
use libloading::Library;

/// A call that did not answer CKR_OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The function.
    pub(crate) function: &'static str,
    /// What it answered.
    pub(crate) rv: u64,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered 0x{:08x}", self.function, self.rv)
    }
}

/// A loaded and initialised module; finalised when dropped.
pub(crate) struct Module {
    functions: *const c::CK_FUNCTION_LIST,
    /// Keeps the functions in memory.
    _library: Library,
}

// SAFETY: the pointer leads to the module's constant table, and the standard lets any thread call through it once
// C_Initialize was told that the system's locks may be used.
unsafe impl Send for Module {}
// SAFETY: as above; the table is only read.
unsafe impl Sync for Module {}

/// Calls a function of the table and turns everything but CKR_OK into a failure.
macro_rules! call {
    ($module:expr, $function:ident ( $($argument:expr),* )) => {{
        // SAFETY: the table came from C_GetFunctionList of a library that stays loaded, and is never changed.
        let function = unsafe { (*$module.functions).$function };
        let rv = match function {
            // SAFETY: the arguments are as the standard's prototype wants them: pointers to live values of the given
            // lengths, or null where it allows null.
            Some(function) => unsafe { function($($argument),*) },
            None => c::CKR_FUNCTION_NOT_SUPPORTED,
        };
        match rv {
            c::CKR_OK => Ok(()),
            rv => Err(Failure { function: stringify!($function), rv }),
        }
    }};
}

/// The length of a slice as the standard counts.
fn count<T>(slice: &[T]) -> c::CK_ULONG {
    slice.len() as c::CK_ULONG
}

impl Module {
    /// Loads and initialises a module; threads and locks of the system may be used.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers; it is the module under demonstration, chosen by our caller.
        let library =
            unsafe { Library::new(path) }.map_err(|error| format!("{}: {error}", path.display()))?;
        type GetFunctionList = unsafe extern "C" fn(*mut *mut c::CK_FUNCTION_LIST) -> c::CK_RV;
        let mut functions = null_mut();
        let rv = {
            // SAFETY: the symbol has this type by the standard.
            let get = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") };
            let get = get.map_err(|error| format!("{}: {error}", path.display()))?;
            // SAFETY: the pointer leads to a live variable of the type wanted.
            unsafe { get(&mut functions) }
        };
        if rv != c::CKR_OK || functions.is_null() {
            return Err(format!("C_GetFunctionList answered 0x{rv:08x}"));
        }
        let module = Self { functions, _library: library };
        let mut arguments = c::CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: c::CKF_OS_LOCKING_OK,
            pReserved: null_mut(),
        };
        call!(module, C_Initialize((&raw mut arguments).cast())).map_err(|failure| failure.to_string())?;
        Ok(module)
    }

    /// The slot whose token has this label.
    pub(crate) fn slot(&self, label: &str) -> Result<c::CK_SLOT_ID, String> {
        let mut found = 0;
        call!(self, C_GetSlotList(c::CK_TRUE, null_mut(), &mut found))
            .map_err(|failure| failure.to_string())?;
        let mut slots = vec![0; usize::try_from(found).unwrap_or_default()];
        call!(self, C_GetSlotList(c::CK_TRUE, slots.as_mut_ptr(), &mut found))
            .map_err(|failure| failure.to_string())?;
        for slot in &slots {
            let mut info = c::CK_TOKEN_INFO::default();
            call!(self, C_GetTokenInfo(*slot, &mut info)).map_err(|failure| failure.to_string())?;
            if String::from_utf8_lossy(&info.label).trim_end() == label {
                return Ok(*slot);
            }
        }
        Err(format!("wanted a token labelled {label:?}, found {} other tokens", slots.len()))
    }

    /// A read-only session.
    pub(crate) fn session(&self, slot: c::CK_SLOT_ID) -> Result<c::CK_SESSION_HANDLE, Failure> {
        let mut session = 0;
        call!(self, C_OpenSession(slot, c::CKF_SERIAL_SESSION, null_mut(), None, &mut session))
            .map(|()| session)
    }

    /// Logs the application in as user.
    pub(crate) fn login(&self, session: c::CK_SESSION_HANDLE, pin: &str) -> Result<(), Failure> {
        let mut pin = pin.as_bytes().to_vec();
        call!(self, C_Login(session, c::CKU_USER, pin.as_mut_ptr(), count(&pin)))
    }

    /// The private key of this label.
    pub(crate) fn private_key(
        &self,
        session: c::CK_SESSION_HANDLE,
        label: &str,
    ) -> Result<c::CK_OBJECT_HANDLE, String> {
        let mut class = c::CKO_PRIVATE_KEY;
        let mut label_bytes = label.as_bytes().to_vec();
        let mut template = [
            c::CK_ATTRIBUTE {
                type_: c::CKA_CLASS,
                pValue: (&raw mut class).cast(),
                ulValueLen: size_of_val(&class) as c::CK_ULONG,
            },
            c::CK_ATTRIBUTE {
                type_: c::CKA_LABEL,
                pValue: label_bytes.as_mut_ptr().cast(),
                ulValueLen: count(&label_bytes),
            },
        ];
        let (mut handle, mut found) = (0, 0);
        let outcome = call!(self, C_FindObjectsInit(session, template.as_mut_ptr(), count(&template)))
            .and_then(|()| call!(self, C_FindObjects(session, &mut handle, 1, &mut found)))
            .and_then(|()| call!(self, C_FindObjectsFinal(session)));
        match outcome {
            Ok(()) if found == 1 => Ok(handle),
            Ok(()) => Err(format!("wanted a private key labelled {label:?}, found none")),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// One signature: C_SignInit, then C_Sign once. The answer is as long as the signature.
    pub(crate) fn sign(
        &self,
        session: c::CK_SESSION_HANDLE,
        mechanism: c::CK_MECHANISM_TYPE,
        key: c::CK_OBJECT_HANDLE,
        data: &mut [u8],
    ) -> Result<Vec<u8>, Failure> {
        let mut mechanism = c::CK_MECHANISM { mechanism, pParameter: null_mut(), ulParameterLen: 0 };
        call!(self, C_SignInit(session, &mut mechanism, key))?;
        let mut signature = vec![0; 512];
        let mut length = count(&signature);
        call!(self, C_Sign(session, data.as_mut_ptr(), count(data), signature.as_mut_ptr(), &mut length))?;
        signature.truncate(usize::try_from(length).unwrap_or_default());
        Ok(signature)
    }
}

impl Module {
    /// A session that may create token objects.
    pub(crate) fn writing_session(&self, slot: c::CK_SLOT_ID) -> Result<c::CK_SESSION_HANDLE, Failure> {
        let mut session = 0;
        let flags = c::CKF_SERIAL_SESSION | c::CKF_RW_SESSION;
        call!(self, C_OpenSession(slot, flags, null_mut(), None, &mut session)).map(|()| session)
    }

    /// Generates a P-256 pair of token objects: public, private.
    pub(crate) fn pair(
        &self,
        session: c::CK_SESSION_HANDLE,
        label: &str,
    ) -> Result<(c::CK_OBJECT_HANDLE, c::CK_OBJECT_HANDLE), Failure> {
        self.generate(session, c::CKM_EC_KEY_PAIR_GEN, c::CKA_EC_PARAMS, &mut P256.to_vec(), label)
    }

    /// Generates an RSA pair of so many bits, of token objects: public, private.
    pub(crate) fn rsa_pair(
        &self,
        session: c::CK_SESSION_HANDLE,
        key_bits: c::CK_ULONG,
        label: &str,
    ) -> Result<(c::CK_OBJECT_HANDLE, c::CK_OBJECT_HANDLE), Failure> {
        let mut bits = key_bits.to_ne_bytes().to_vec();
        self.generate(session, c::CKM_RSA_PKCS_KEY_PAIR_GEN, c::CKA_MODULUS_BITS, &mut bits, label)
    }

    /// Generates a pair that signs and verifies, with one attribute of the public key that says how.
    fn generate(
        &self,
        session: c::CK_SESSION_HANDLE,
        mechanism: c::CK_MECHANISM_TYPE,
        kind: c::CK_ATTRIBUTE_TYPE,
        value: &mut Vec<u8>,
        label: &str,
    ) -> Result<(c::CK_OBJECT_HANDLE, c::CK_OBJECT_HANDLE), Failure> {
        let (mut yes, mut label) = (c::CK_TRUE, label.as_bytes().to_vec());
        let mut flag = |type_| c::CK_ATTRIBUTE { type_, pValue: (&raw mut yes).cast(), ulValueLen: 1 };
        let (token, sign, verify) = (flag(c::CKA_TOKEN), flag(c::CKA_SIGN), flag(c::CKA_VERIFY));
        let bytes = |type_, value: &mut Vec<u8>| c::CK_ATTRIBUTE {
            type_,
            pValue: value.as_mut_ptr().cast(),
            ulValueLen: count(value),
        };
        let (named, shaped) = (bytes(c::CKA_LABEL, &mut label), bytes(kind, value));
        let (mut public, mut private) = ([token, named, shaped, verify], [token, named, sign]);
        let mut mechanism = c::CK_MECHANISM { mechanism, pParameter: null_mut(), ulParameterLen: 0 };
        let (mut public_key, mut private_key) = (0, 0);
        call!(
            self,
            C_GenerateKeyPair(
                session,
                &mut mechanism,
                public.as_mut_ptr(),
                count(&public),
                private.as_mut_ptr(),
                count(&private),
                &mut public_key,
                &mut private_key
            )
        )?;
        Ok((public_key, private_key))
    }

    /// Destroys an object.
    pub(crate) fn destroy(
        &self,
        session: c::CK_SESSION_HANDLE,
        object: c::CK_OBJECT_HANDLE,
    ) -> Result<(), Failure> {
        call!(self, C_DestroyObject(session, object))
    }
}

/// CKA_EC_PARAMS of P-256: its object identifier in DER.
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

impl Drop for Module {
    fn drop(&mut self) {
        // The process is about to end; there is nobody left to tell of a failure.
        let _ = call!(self, C_Finalize(null_mut()));
    }
}
