//! A C caller of any PKCS#11 module, through its function list only, as an application would be.
#![allow(clippy::cast_possible_truncation, reason = "lengths of test data fit")]

use std::ffi::c_void;
use std::path::Path;
use std::ptr::null_mut;

use cryptoki_sys::*;

/// A return value other than `CKR_OK`, with the function that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The C function.
    pub function: &'static str,
    /// Its `CKR`.
    pub rv: CK_RV,
}

/// Result of a call.
pub type Outcome<T> = Result<T, Failed>;

/// A loaded module; never unloaded.
pub struct P11 {
    list: *mut CK_FUNCTION_LIST,
}

// SAFETY: the list is constant for the life of the process, and PKCS #11 functions may be called from any thread.
unsafe impl Send for P11 {}
// SAFETY: as above.
unsafe impl Sync for P11 {}

/// A template under construction.
#[derive(Clone, Default)]
pub struct Tmpl(Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>);

impl Tmpl {
    /// An empty template.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        self.0.push((kind, value.to_vec()));
        self
    }

    /// Adds a `CK_ULONG`.
    #[must_use]
    pub fn ulong(self, kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a `CK_BBOOL`.
    #[must_use]
    pub fn bool(self, kind: CK_ATTRIBUTE_TYPE, value: bool) -> Self {
        self.bytes(kind, &[u8::from(value)])
    }

    fn raw(&mut self) -> Vec<CK_ATTRIBUTE> {
        self.0
            .iter_mut()
            .map(|(kind, value)| CK_ATTRIBUTE {
                type_: *kind,
                pValue: value.as_mut_ptr().cast::<c_void>(),
                ulValueLen: value.len() as CK_ULONG,
            })
            .collect()
    }
}

/// A mechanism with its parameter bytes.
#[derive(Clone)]
pub struct Mech {
    /// `CKM_*`.
    pub kind: CK_MECHANISM_TYPE,
    /// The parameter as it lies in memory.
    pub parameter: Vec<u8>,
}

impl Mech {
    /// Without a parameter.
    pub fn plain(kind: CK_MECHANISM_TYPE) -> Self {
        Self { kind, parameter: Vec::new() }
    }

    /// With an IV.
    pub fn iv(kind: CK_MECHANISM_TYPE, iv: &[u8]) -> Self {
        Self { kind, parameter: iv.to_vec() }
    }

    /// With PSS parameters.
    pub fn pss(
        kind: CK_MECHANISM_TYPE,
        hash: CK_MECHANISM_TYPE,
        mgf: CK_ULONG,
        salt_bytes: CK_ULONG,
    ) -> Self {
        let parameter = [hash, mgf, salt_bytes].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self { kind, parameter }
    }

    fn raw(&mut self) -> CK_MECHANISM {
        let pointer =
            if self.parameter.is_empty() { null_mut() } else { self.parameter.as_mut_ptr().cast::<c_void>() };
        CK_MECHANISM {
            mechanism: self.kind,
            pParameter: pointer,
            ulParameterLen: self.parameter.len() as CK_ULONG,
        }
    }
}

/// Calls one function of the list.
macro_rules! call {
    ($self:ident, $name:ident ( $($argument:expr),* )) => {{
        // SAFETY: the list is valid for the life of the process; the arguments are valid for the call.
        let rv = unsafe { ((*$self.list).$name.expect("every function is present"))($($argument),*) };
        if rv == CKR_OK { Ok(()) } else { Err(Failed { function: stringify!($name), rv }) }
    }};
}

/// Calls a function with an output buffer of the given room and answers what was written.
macro_rules! produce {
    ($self:ident, $name:ident ( $($argument:expr),* ; $room:expr )) => {{
        let mut output = vec![0u8; $room];
        let mut length = output.len() as CK_ULONG;
        call!($self, $name($($argument,)* output.as_mut_ptr(), &mut length))?;
        assert!(length as usize <= output.len(), "a module must not enlarge the length it was given");
        output.truncate(length as usize);
        Ok(output)
    }};
}

/// Room enough for every output of these tests but bulk data.
const ROOM: usize = 1024;

#[allow(missing_docs, reason = "each method is the C function of the same name")]
impl P11 {
    /// Loads a module and takes its function list; does not initialise it.
    ///
    /// # Panics
    /// When the file is no PKCS#11 module.
    pub fn load(path: &Path) -> Self {
        // SAFETY: loading runs the library's initialisers; PKCS #11 modules are made to be loaded.
        let library = unsafe { libloading::Library::new(path) }.expect("the module loads");
        let library = Box::leak(Box::new(library));
        // SAFETY: the symbol has the type that the standard gives it.
        let get = unsafe {
            library.get::<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV>(b"C_GetFunctionList\0")
        }
        .expect("C_GetFunctionList is exported");
        let mut list = null_mut();
        // SAFETY: the pointer is valid for writing.
        let rv = unsafe { get(&mut list) };
        assert_eq!(rv, CKR_OK);
        Self { list }
    }

    pub fn initialize(&self) -> Outcome<()> {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: CKF_OS_LOCKING_OK,
            pReserved: null_mut(),
        };
        call!(self, C_Initialize((&raw mut arguments).cast::<c_void>()))
    }

    pub fn finalize(&self) -> Outcome<()> {
        call!(self, C_Finalize(null_mut()))
    }

    pub fn slots(&self) -> Outcome<Vec<CK_SLOT_ID>> {
        let mut count = 0;
        call!(self, C_GetSlotList(CK_TRUE, null_mut(), &mut count))?;
        let mut slots = vec![0; count as usize];
        call!(self, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &mut count))?;
        slots.truncate(count as usize);
        Ok(slots)
    }

    pub fn token_info(&self, slot: CK_SLOT_ID) -> Outcome<CK_TOKEN_INFO> {
        // SAFETY: a structure of numbers and bytes; all zeros is a value of it.
        let mut info: CK_TOKEN_INFO = unsafe { std::mem::zeroed() };
        call!(self, C_GetTokenInfo(slot, &mut info))?;
        Ok(info)
    }

    /// The slot whose token has this label.
    pub fn slot_of(&self, label: &str) -> Outcome<CK_SLOT_ID> {
        for slot in self.slots()? {
            let info = self.token_info(slot)?;
            if String::from_utf8_lossy(&info.label).trim_end() == label {
                return Ok(slot);
            }
        }
        Err(Failed { function: "slot_of", rv: CKR_TOKEN_NOT_PRESENT })
    }

    pub fn mechanisms(&self, slot: CK_SLOT_ID) -> Outcome<Vec<CK_MECHANISM_TYPE>> {
        let mut count = 0;
        call!(self, C_GetMechanismList(slot, null_mut(), &mut count))?;
        let mut list = vec![0; count as usize];
        call!(self, C_GetMechanismList(slot, list.as_mut_ptr(), &mut count))?;
        Ok(list)
    }

    pub fn open(&self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Outcome<CK_SESSION_HANDLE> {
        let mut session = 0;
        call!(self, C_OpenSession(slot, flags | CKF_SERIAL_SESSION, null_mut(), None, &mut session))?;
        Ok(session)
    }

    pub fn close(&self, session: CK_SESSION_HANDLE) -> Outcome<()> {
        call!(self, C_CloseSession(session))
    }

    pub fn close_all(&self, slot: CK_SLOT_ID) -> Outcome<()> {
        call!(self, C_CloseAllSessions(slot))
    }

    pub fn login(&self, session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: &mut [u8]) -> Outcome<()> {
        call!(self, C_Login(session, user, pin.as_mut_ptr(), pin.len() as CK_ULONG))
    }

    pub fn logout(&self, session: CK_SESSION_HANDLE) -> Outcome<()> {
        call!(self, C_Logout(session))
    }

    pub fn set_pin(&self, session: CK_SESSION_HANDLE, old: &str, new: &str) -> Outcome<()> {
        let (mut old, mut new) = (old.as_bytes().to_vec(), new.as_bytes().to_vec());
        call!(
            self,
            C_SetPIN(
                session,
                old.as_mut_ptr(),
                old.len() as CK_ULONG,
                new.as_mut_ptr(),
                new.len() as CK_ULONG
            )
        )
    }

    pub fn session_info(&self, session: CK_SESSION_HANDLE) -> Outcome<CK_SESSION_INFO> {
        // SAFETY: a structure of numbers; all zeros is a value of it.
        let mut info: CK_SESSION_INFO = unsafe { std::mem::zeroed() };
        call!(self, C_GetSessionInfo(session, &mut info))?;
        Ok(info)
    }

    pub fn generate_key(
        &self,
        session: CK_SESSION_HANDLE,
        mut mech: Mech,
        mut tmpl: Tmpl,
    ) -> Outcome<CK_OBJECT_HANDLE> {
        let (mut mechanism, mut template, mut key) = (mech.raw(), tmpl.raw(), 0);
        call!(
            self,
            C_GenerateKey(
                session,
                &mut mechanism,
                template.as_mut_ptr(),
                template.len() as CK_ULONG,
                &mut key
            )
        )?;
        Ok(key)
    }

    pub fn generate_pair(
        &self,
        session: CK_SESSION_HANDLE,
        mut mech: Mech,
        mut public: Tmpl,
        mut private: Tmpl,
    ) -> Outcome<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let (mut mechanism, mut public, mut private) = (mech.raw(), public.raw(), private.raw());
        let (mut public_key, mut private_key) = (0, 0);
        call!(
            self,
            C_GenerateKeyPair(
                session,
                &mut mechanism,
                public.as_mut_ptr(),
                public.len() as CK_ULONG,
                private.as_mut_ptr(),
                private.len() as CK_ULONG,
                &mut public_key,
                &mut private_key
            )
        )?;
        Ok((public_key, private_key))
    }

    pub fn create_object(&self, session: CK_SESSION_HANDLE, mut tmpl: Tmpl) -> Outcome<CK_OBJECT_HANDLE> {
        let (mut template, mut object) = (tmpl.raw(), 0);
        call!(self, C_CreateObject(session, template.as_mut_ptr(), template.len() as CK_ULONG, &mut object))?;
        Ok(object)
    }

    pub fn copy_object(
        &self,
        session: CK_SESSION_HANDLE,
        from: CK_OBJECT_HANDLE,
        mut tmpl: Tmpl,
    ) -> Outcome<CK_OBJECT_HANDLE> {
        let (mut template, mut object) = (tmpl.raw(), 0);
        call!(
            self,
            C_CopyObject(session, from, template.as_mut_ptr(), template.len() as CK_ULONG, &mut object)
        )?;
        Ok(object)
    }

    pub fn destroy_object(&self, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> Outcome<()> {
        call!(self, C_DestroyObject(session, object))
    }

    /// One attribute, asked for its length first.
    pub fn attribute(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Outcome<Vec<u8>> {
        let mut attribute = CK_ATTRIBUTE { type_: kind, pValue: null_mut(), ulValueLen: 0 };
        call!(self, C_GetAttributeValue(session, object, &mut attribute, 1))?;
        let mut value = vec![0u8; attribute.ulValueLen as usize];
        attribute.pValue = value.as_mut_ptr().cast::<c_void>();
        call!(self, C_GetAttributeValue(session, object, &mut attribute, 1))?;
        value.truncate(attribute.ulValueLen as usize);
        Ok(value)
    }

    pub fn set_attributes(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        mut tmpl: Tmpl,
    ) -> Outcome<()> {
        let mut template = tmpl.raw();
        call!(self, C_SetAttributeValue(session, object, template.as_mut_ptr(), template.len() as CK_ULONG))
    }

    /// All matches.
    pub fn find(&self, session: CK_SESSION_HANDLE, mut tmpl: Tmpl) -> Outcome<Vec<CK_OBJECT_HANDLE>> {
        let mut template = tmpl.raw();
        call!(self, C_FindObjectsInit(session, template.as_mut_ptr(), template.len() as CK_ULONG))?;
        let mut all = Vec::new();
        loop {
            let (mut page, mut count) = ([0; 16], 0);
            call!(self, C_FindObjects(session, page.as_mut_ptr(), page.len() as CK_ULONG, &mut count))?;
            if count == 0 {
                break;
            }
            all.extend_from_slice(&page[..count as usize]);
        }
        call!(self, C_FindObjectsFinal(session))?;
        Ok(all)
    }

    pub fn sign_init(
        &self,
        session: CK_SESSION_HANDLE,
        mut mech: Mech,
        key: CK_OBJECT_HANDLE,
    ) -> Outcome<()> {
        let mut mechanism = mech.raw();
        call!(self, C_SignInit(session, &mut mechanism, key))
    }

    pub fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Outcome<Vec<u8>> {
        produce!(self, C_Sign(session, data.as_ptr().cast_mut(), data.len() as CK_ULONG; ROOM))
    }

    /// The length that C_Sign would write.
    pub fn sign_length(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Outcome<usize> {
        let mut length = 0;
        call!(
            self,
            C_Sign(session, data.as_ptr().cast_mut(), data.len() as CK_ULONG, null_mut(), &mut length)
        )?;
        Ok(length as usize)
    }

    pub fn sign_update(&self, session: CK_SESSION_HANDLE, part: &[u8]) -> Outcome<()> {
        call!(self, C_SignUpdate(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG))
    }

    pub fn sign_final(&self, session: CK_SESSION_HANDLE) -> Outcome<Vec<u8>> {
        produce!(self, C_SignFinal(session; ROOM))
    }

    /// C_SignInit without a mechanism: cancels (PKCS #11 v3.1, 5.13.1).
    pub fn cancel_sign(&self, session: CK_SESSION_HANDLE) -> Outcome<()> {
        call!(self, C_SignInit(session, null_mut(), 0))
    }

    /// Init and sign.
    pub fn sign_once(
        &self,
        session: CK_SESSION_HANDLE,
        mech: Mech,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
    ) -> Outcome<Vec<u8>> {
        self.sign_init(session, mech, key)?;
        self.sign(session, data)
    }

    pub fn verify_init(
        &self,
        session: CK_SESSION_HANDLE,
        mut mech: Mech,
        key: CK_OBJECT_HANDLE,
    ) -> Outcome<()> {
        let mut mechanism = mech.raw();
        call!(self, C_VerifyInit(session, &mut mechanism, key))
    }

    pub fn verify(&self, session: CK_SESSION_HANDLE, data: &[u8], signature: &[u8]) -> Outcome<()> {
        call!(
            self,
            C_Verify(
                session,
                data.as_ptr().cast_mut(),
                data.len() as CK_ULONG,
                signature.as_ptr().cast_mut(),
                signature.len() as CK_ULONG
            )
        )
    }

    /// Init and verify.
    pub fn verify_once(
        &self,
        session: CK_SESSION_HANDLE,
        mech: Mech,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        signature: &[u8],
    ) -> Outcome<()> {
        self.verify_init(session, mech, key)?;
        self.verify(session, data, signature)
    }

    pub fn encrypt_init(
        &self,
        session: CK_SESSION_HANDLE,
        mut mech: Mech,
        key: CK_OBJECT_HANDLE,
    ) -> Outcome<()> {
        let mut mechanism = mech.raw();
        call!(self, C_EncryptInit(session, &mut mechanism, key))
    }

    pub fn encrypt(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Outcome<Vec<u8>> {
        produce!(self, C_Encrypt(session, data.as_ptr().cast_mut(), data.len() as CK_ULONG; data.len() + ROOM))
    }

    pub fn encrypt_update(&self, session: CK_SESSION_HANDLE, part: &[u8]) -> Outcome<Vec<u8>> {
        produce!(self, C_EncryptUpdate(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG; part.len() + ROOM))
    }

    pub fn encrypt_final(&self, session: CK_SESSION_HANDLE) -> Outcome<Vec<u8>> {
        produce!(self, C_EncryptFinal(session; ROOM))
    }

    pub fn decrypt_init(
        &self,
        session: CK_SESSION_HANDLE,
        mut mech: Mech,
        key: CK_OBJECT_HANDLE,
    ) -> Outcome<()> {
        let mut mechanism = mech.raw();
        call!(self, C_DecryptInit(session, &mut mechanism, key))
    }

    pub fn decrypt(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Outcome<Vec<u8>> {
        produce!(self, C_Decrypt(session, data.as_ptr().cast_mut(), data.len() as CK_ULONG; data.len() + ROOM))
    }

    pub fn digest(&self, session: CK_SESSION_HANDLE, mut mech: Mech, data: &[u8]) -> Outcome<Vec<u8>> {
        let mut mechanism = mech.raw();
        call!(self, C_DigestInit(session, &mut mechanism))?;
        produce!(self, C_Digest(session, data.as_ptr().cast_mut(), data.len() as CK_ULONG; ROOM))
    }

    pub fn random(&self, session: CK_SESSION_HANDLE, bytes: usize) -> Outcome<Vec<u8>> {
        let mut output = vec![0u8; bytes];
        call!(self, C_GenerateRandom(session, output.as_mut_ptr(), output.len() as CK_ULONG))?;
        Ok(output)
    }
}

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
