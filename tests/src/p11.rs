//! A C caller of any PKCS#11 module, through its function list only, as an application would be.
#![allow(clippy::cast_possible_truncation, reason = "lengths of test data fit")]

use std::ffi::c_void;
use std::path::Path;
use std::ptr::null_mut;

use cryptoki_sys::*;

pub use crate::keys::{P256_PARAMS, p256_pair, pair_templates, rsa_pair, secret_key};
pub use crate::values::{Mech, Tmpl};

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
    interfaces: Option<InterfaceList>,
    ha_state: Option<HaState>,
}

/// `C_GetInterfaceList`.
type InterfaceList = unsafe extern "C" fn(*mut CK_INTERFACE, *mut CK_ULONG) -> CK_RV;
/// `CA_GetHAState`; the structure is the group's serial number, 32 pairs of a member's serial number and state, and how
/// many of them count.
type HaState = unsafe extern "C" fn(CK_SLOT_ID, *mut [CK_ULONG; 66]) -> CK_RV;
/// `C_GetFunctionList`.
type FunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;

// SAFETY: the list is constant for the life of the process, and PKCS #11 functions may be called from any thread.
unsafe impl Send for P11 {}
// SAFETY: as above.
unsafe impl Sync for P11 {}

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
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        // SAFETY: the symbol has the type that the standard gives it.
        let get = unsafe { library.get::<FunctionList>(b"C_GetFunctionList\0") };
        let get = get.expect("C_GetFunctionList is exported");
        // SAFETY: the symbol has the type that the standard gives it.
        let interfaces = unsafe { library.get::<InterfaceList>(b"C_GetInterfaceList\0") };
        // SAFETY: the symbol has the type that our documentation gives it.
        let ha_state = unsafe { library.get::<HaState>(b"CA_GetHAState\0") };
        let ha_state = ha_state.ok().map(|get| *get);
        Self { ha_state, ..Self::of(*get, interfaces.ok().map(|get| *get)) }
    }

    /// The module behind its two entries; the second is missing where the module is older than 3.0.
    ///
    /// # Panics
    /// When it gives no function list.
    pub fn of(functions: FunctionList, interfaces: Option<InterfaceList>) -> Self {
        let mut list = null_mut();
        // SAFETY: the pointer is valid for writing.
        let rv = unsafe { functions(&mut list) };
        assert_eq!(rv, CKR_OK);
        Self { list, interfaces, ha_state: None }
    }

    /// The function list itself, for the calls with arguments that no method here expresses.
    pub fn list(&self) -> &CK_FUNCTION_LIST {
        // SAFETY: the list is valid and constant for the life of the process.
        unsafe { &*self.list }
    }

    /// The members of the slot's group as this process sees them: serial numbers with CKR_OK for those in use.
    pub fn ha_state(&self, slot: CK_SLOT_ID) -> Outcome<Vec<(u64, CK_RV)>> {
        let get = self.ha_state.expect("the module has CA_GetHAState");
        let mut state = [0; 66];
        // SAFETY: the pointer leads to room for the structure.
        match unsafe { get(slot, &mut state) } {
            CKR_OK => {}
            rv => return Err(Failed { function: "CA_GetHAState", rv }),
        }
        let members = state[1..65].chunks(2).map(|pair| (pair[0], pair[1]));
        Ok(members.take(state[65] as usize).collect())
    }

    /// The names and versions of `C_GetInterfaceList`, or none where the module is older than 3.0.
    pub fn interfaces(&self) -> Outcome<Option<Vec<(String, CK_VERSION)>>> {
        let Some(get) = self.interfaces else { return Ok(None) };
        let failed = |rv| Failed { function: "C_GetInterfaceList", rv };
        let mut count = 0;
        // SAFETY: a null list asks for the count.
        match unsafe { get(null_mut(), &mut count) } {
            CKR_OK => {}
            rv => return Err(failed(rv)),
        }
        let empty = CK_INTERFACE { pInterfaceName: null_mut(), pFunctionList: null_mut(), flags: 0 };
        let mut list = vec![empty; count as usize];
        // SAFETY: the list has room for `count` interfaces.
        match unsafe { get(list.as_mut_ptr(), &mut count) } {
            CKR_OK => {}
            rv => return Err(failed(rv)),
        }
        let read = |interface: &CK_INTERFACE| {
            // SAFETY: the name is a constant string of the module that ends with a zero byte.
            let name = unsafe { std::ffi::CStr::from_ptr(interface.pInterfaceName.cast()) };
            // SAFETY: every function list begins with its version.
            let version = unsafe { *interface.pFunctionList.cast::<CK_VERSION>() };
            (name.to_string_lossy().into_owned(), version)
        };
        Ok(Some(list.iter().map(read).collect()))
    }

    pub fn initialize(&self) -> Outcome<()> {
        self.initialize_with(CKF_OS_LOCKING_OK)
    }

    /// `C_Initialize` with these flags.
    pub fn initialize_with(&self, flags: CK_FLAGS) -> Outcome<()> {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags,
            pReserved: null_mut(),
        };
        call!(self, C_Initialize((&raw mut arguments).cast::<c_void>()))
    }

    pub fn finalize(&self) -> Outcome<()> {
        call!(self, C_Finalize(null_mut()))
    }

    pub fn info(&self) -> Outcome<CK_INFO> {
        // SAFETY: a structure of numbers and bytes; all zeros is a value of it.
        let mut info: CK_INFO = unsafe { std::mem::zeroed() };
        call!(self, C_GetInfo(&mut info))?;
        Ok(info)
    }

    pub fn slot_info(&self, slot: CK_SLOT_ID) -> Outcome<CK_SLOT_INFO> {
        // SAFETY: a structure of numbers and bytes; all zeros is a value of it.
        let mut info: CK_SLOT_INFO = unsafe { std::mem::zeroed() };
        call!(self, C_GetSlotInfo(slot, &mut info))?;
        Ok(info)
    }

    pub fn mechanism_info(&self, slot: CK_SLOT_ID, kind: CK_MECHANISM_TYPE) -> Outcome<CK_MECHANISM_INFO> {
        let mut info = CK_MECHANISM_INFO { ulMinKeySize: 0, ulMaxKeySize: 0, flags: 0 };
        call!(self, C_GetMechanismInfo(slot, kind, &mut info))?;
        Ok(info)
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

    pub fn object_size(&self, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> Outcome<CK_ULONG> {
        let mut bytes = 0;
        call!(self, C_GetObjectSize(session, object, &mut bytes))?;
        Ok(bytes)
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

    pub fn find_init(&self, session: CK_SESSION_HANDLE, mut tmpl: Tmpl) -> Outcome<()> {
        let mut template = tmpl.raw();
        call!(self, C_FindObjectsInit(session, template.as_mut_ptr(), template.len() as CK_ULONG))
    }

    /// The next matches, at most `most` of them.
    pub fn find_page(&self, session: CK_SESSION_HANDLE, most: usize) -> Outcome<Vec<CK_OBJECT_HANDLE>> {
        let (mut page, mut count) = (vec![0; most], 0);
        call!(self, C_FindObjects(session, page.as_mut_ptr(), page.len() as CK_ULONG, &mut count))?;
        assert!(count as usize <= most, "more objects than there is room for");
        page.truncate(count as usize);
        Ok(page)
    }

    pub fn find_final(&self, session: CK_SESSION_HANDLE) -> Outcome<()> {
        call!(self, C_FindObjectsFinal(session))
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

    pub fn verify_update(&self, session: CK_SESSION_HANDLE, part: &[u8]) -> Outcome<()> {
        call!(self, C_VerifyUpdate(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG))
    }

    pub fn verify_final(&self, session: CK_SESSION_HANDLE, signature: &[u8]) -> Outcome<()> {
        call!(self, C_VerifyFinal(session, signature.as_ptr().cast_mut(), signature.len() as CK_ULONG))
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

    pub fn decrypt_update(&self, session: CK_SESSION_HANDLE, part: &[u8]) -> Outcome<Vec<u8>> {
        produce!(self, C_DecryptUpdate(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG; part.len() + ROOM))
    }

    pub fn decrypt_final(&self, session: CK_SESSION_HANDLE) -> Outcome<Vec<u8>> {
        produce!(self, C_DecryptFinal(session; ROOM))
    }

    pub fn digest_init(&self, session: CK_SESSION_HANDLE, mut mech: Mech) -> Outcome<()> {
        let mut mechanism = mech.raw();
        call!(self, C_DigestInit(session, &mut mechanism))
    }

    pub fn digest_update(&self, session: CK_SESSION_HANDLE, part: &[u8]) -> Outcome<()> {
        call!(self, C_DigestUpdate(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG))
    }

    pub fn digest_key(&self, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Outcome<()> {
        call!(self, C_DigestKey(session, key))
    }

    pub fn digest_final(&self, session: CK_SESSION_HANDLE) -> Outcome<Vec<u8>> {
        produce!(self, C_DigestFinal(session; ROOM))
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
