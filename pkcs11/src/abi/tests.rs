//! The rows of the table of functions, called as C calls them, over a partition in this process: what each expression
//! hands on and where it writes.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::{Arc, OnceLock};

use cryptoki_sys::*;
use spec::seam::MemberId;

use super::functions::LIST_3_2;
use super::trampoline::MODULE;

const CO_PIN: &[u8] = b"officer-pin";
const SERIAL: u64 = 1_000_000_000_001;
/// The partition's own slot; the group in front of it has no manifest here.
const SLOT: CK_SLOT_ID = 1;

/// Calls a function of the 3.2 list.
macro_rules! c {
    ($name:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: every pointer goes to a buffer of the test, with its length beside it.
        unsafe { LIST_3_2.$name.unwrap()($($argument),*) }
    };
}

/// Starts the module over one partition and logs in, once for all tests; each opens its own session.
fn session() -> CK_SESSION_HANDLE {
    static STARTED: OnceLock<CK_SESSION_HANDLE> = OnceLock::new();
    STARTED.get_or_init(|| {
        let settings =
            partition::Settings { argon2_memory_kib: 64, argon2_passes: 1, ..partition::Settings::default() };
        let born = partition::Partition::create(
            Arc::new(partition::store::MemoryStore::new()),
            partition::DomainSecret::new(zeroize::Zeroizing::new([7; 32])),
            SERIAL,
            "tests",
            b"security-pin",
            CO_PIN,
            settings,
            1,
            &partition::SystemRandom,
        );
        let platform = ntls::platform::System::shared();
        let caller = partition::Caller { client: [1; 32], instance: [2; 32] };
        let members = vec![(MemberId(SERIAL), Arc::new(born.unwrap()))];
        let seam = partition::in_process::InProcess::new(platform.clone(), caller, members);
        let text = format!(
            "VirtualToken = {{\n VirtualToken00Label = g;\n VirtualToken00SN = 11000000000001;\n \
             VirtualToken00Members = {SERIAL};\n}}\nHAConfiguration = {{\n HAOnly = 0;\n}}\n"
        );
        let configuration =
            client::conf::Configuration::from_bytes(text.as_bytes(), Path::new("test.conf")).unwrap();
        let options = client::InitializeOptions { may_create_threads: true };
        MODULE.initialize_over(seam, platform, configuration, options).unwrap();
        let first = open();
        assert_eq!(
            c!(C_Login(first, CKU_USER, CO_PIN.as_ptr().cast_mut(), CO_PIN.len() as CK_ULONG)),
            CKR_OK
        );
        first
    });
    open()
}

fn open() -> CK_SESSION_HANDLE {
    let mut handle = 0;
    let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    assert_eq!(c!(C_OpenSession(SLOT, flags, null_mut(), None, &raw mut handle)), CKR_OK);
    assert_ne!(handle, CK_INVALID_HANDLE);
    handle
}

fn attribute<T>(kind: CK_ATTRIBUTE_TYPE, value: &T) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: std::ptr::from_ref(value).cast_mut().cast(),
        ulValueLen: size_of::<T>() as CK_ULONG,
    }
}

fn mechanism(kind: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM { mechanism: kind, pParameter: null_mut(), ulParameterLen: 0 }
}

fn secret(session: CK_SESSION_HANDLE, kind: CK_MECHANISM_TYPE, bytes: CK_ULONG) -> CK_OBJECT_HANDLE {
    let mut handle = 0;
    let mut template = [attribute(CKA_VALUE_LEN, &bytes), attribute(CKA_LABEL, b"secret")];
    let mut generation = mechanism(kind);
    let rv = c!(C_GenerateKey(session, &raw mut generation, template.as_mut_ptr(), 2, &raw mut handle));
    assert_eq!(rv, CKR_OK, "{rv:#x}");
    handle
}

fn pair(session: CK_SESSION_HANDLE) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
    /// secp256r1 as DER.
    const P_256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let (mut public, mut private) = (0, 0);
    let mut public_template = [attribute(CKA_EC_PARAMS, &P_256)];
    let mut private_template = [attribute(CKA_LABEL, b"private")];
    let mut generation = mechanism(CKM_EC_KEY_PAIR_GEN);
    let rv = c!(C_GenerateKeyPair(
        session,
        &raw mut generation,
        public_template.as_mut_ptr(),
        1,
        private_template.as_mut_ptr(),
        1,
        &raw mut public,
        &raw mut private,
    ));
    assert_eq!(rv, CKR_OK, "{rv:#x}");
    assert_ne!(public, private);
    (public, private)
}

#[test]
fn signatures_are_asked_for_made_and_verified() {
    let session = session();
    let (public, private) = pair(session);
    let mut ecdsa = mechanism(CKM_ECDSA_SHA256);
    let mut data = *b"to be signed";
    let mut signature = [0_u8; 64];
    let mut length: CK_ULONG = 0;
    assert_eq!(c!(C_SignInit(session, &raw mut ecdsa, private)), CKR_OK);
    assert_eq!(c!(C_Sign(session, data.as_mut_ptr(), 12, null_mut(), &raw mut length)), CKR_OK);
    assert_eq!(length, 64);
    length = 63;
    let short = c!(C_Sign(session, data.as_mut_ptr(), 12, signature.as_mut_ptr(), &raw mut length));
    assert_eq!((short, length, signature), (CKR_BUFFER_TOO_SMALL, 64, [0; 64]));
    let rv = c!(C_Sign(session, data.as_mut_ptr(), 12, signature.as_mut_ptr(), &raw mut length));
    assert_eq!(rv, CKR_OK, "{rv:#x}");
    assert_eq!(c!(C_VerifyInit(session, &raw mut ecdsa, public)), CKR_OK);
    assert_eq!(c!(C_Verify(session, data.as_mut_ptr(), 12, signature.as_mut_ptr(), 64)), CKR_OK);
    assert_eq!(c!(C_VerifyInit(session, &raw mut ecdsa, public)), CKR_OK);
    assert_eq!(c!(C_VerifyUpdate(session, data.as_mut_ptr(), 6)), CKR_OK);
    assert_eq!(c!(C_VerifyUpdate(session, data[6..].as_mut_ptr(), 6)), CKR_OK);
    assert_eq!(c!(C_VerifyFinal(session, signature.as_mut_ptr(), 64)), CKR_OK);
    data[0] ^= 1;
    assert_eq!(c!(C_VerifyInit(session, &raw mut ecdsa, public)), CKR_OK);
    assert_eq!(
        c!(C_Verify(session, data.as_mut_ptr(), 12, signature.as_mut_ptr(), 64)),
        CKR_SIGNATURE_INVALID
    );
}

#[test]
fn a_mac_in_parts_equals_the_mac_of_the_whole() {
    let session = session();
    let key = secret(session, CKM_GENERIC_SECRET_KEY_GEN, 32);
    let mut hmac = mechanism(CKM_SHA256_HMAC);
    let mut data = *b"abcdef";
    let (mut whole, mut parts) = ([0_u8; 32], [0_u8; 40]);
    let mut length: CK_ULONG = 32;
    assert_eq!(c!(C_SignInit(session, &raw mut hmac, key)), CKR_OK);
    assert_eq!(c!(C_Sign(session, data.as_mut_ptr(), 6, whole.as_mut_ptr(), &raw mut length)), CKR_OK);
    assert_eq!(c!(C_SignInit(session, &raw mut hmac, key)), CKR_OK);
    for part in data.chunks_exact_mut(2) {
        assert_eq!(c!(C_SignUpdate(session, part.as_mut_ptr(), 2)), CKR_OK);
    }
    length = 40;
    assert_eq!(c!(C_SignFinal(session, parts.as_mut_ptr(), &raw mut length)), CKR_OK);
    assert_eq!((length, &parts[..32], &parts[32..]), (32, &whole[..], &[0; 8][..]));
}

#[test]
fn encryption_works_in_place_and_in_parts() {
    let session = session();
    let key = secret(session, CKM_AES_KEY_GEN, 32);
    let mut iv = [9_u8; 16];
    let mut cbc =
        CK_MECHANISM { mechanism: CKM_AES_CBC, pParameter: iv.as_mut_ptr().cast(), ulParameterLen: 16 };
    let clear: [u8; 32] = std::array::from_fn(|index| index as u8);
    let mut buffer = clear;
    let mut length: CK_ULONG = 32;
    assert_eq!(c!(C_EncryptInit(session, &raw mut cbc, key)), CKR_OK);
    let place = buffer.as_mut_ptr();
    assert_eq!(c!(C_Encrypt(session, place, 32, place, &raw mut length)), CKR_OK);
    assert_eq!(length, 32);
    assert_ne!(buffer, clear);
    let sealed = buffer;
    assert_eq!(c!(C_DecryptInit(session, &raw mut cbc, key)), CKR_OK);
    let mut opened: Vec<u8> = Vec::new();
    for part in buffer.chunks_exact_mut(16) {
        let mut piece = [0_u8; 32];
        length = 32;
        assert_eq!(
            c!(C_DecryptUpdate(session, part.as_mut_ptr(), 16, piece.as_mut_ptr(), &raw mut length)),
            CKR_OK
        );
        opened.extend(&piece[..length as usize]);
    }
    let mut piece = [0_u8; 32];
    length = 32;
    assert_eq!(c!(C_DecryptFinal(session, piece.as_mut_ptr(), &raw mut length)), CKR_OK);
    opened.extend(&piece[..length as usize]);
    assert_eq!(opened, clear);
    assert_eq!(c!(C_EncryptInit(session, &raw mut cbc, key)), CKR_OK);
    let mut again: Vec<u8> = Vec::new();
    for part in clear.chunks_exact(16) {
        length = 32;
        let input = part.as_ptr().cast_mut();
        assert_eq!(c!(C_EncryptUpdate(session, input, 16, piece.as_mut_ptr(), &raw mut length)), CKR_OK);
        again.extend(&piece[..length as usize]);
    }
    length = 32;
    assert_eq!(c!(C_EncryptFinal(session, piece.as_mut_ptr(), &raw mut length)), CKR_OK);
    again.extend(&piece[..length as usize]);
    assert_eq!(again, sealed);
}

#[test]
fn gcm_parameters_reach_the_key_and_a_changed_tag_is_refused() {
    let session = session();
    let key = secret(session, CKM_AES_KEY_GEN, 16);
    let (mut iv, mut aad) = ([3_u8; 12], *b"header");
    let mut parameters = CK_GCM_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: 12,
        ulIvBits: 96,
        pAAD: aad.as_mut_ptr(),
        ulAADLen: 6,
        ulTagBits: 128,
    };
    let mut gcm = CK_MECHANISM {
        mechanism: CKM_AES_GCM,
        pParameter: (&raw mut parameters).cast(),
        ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG,
    };
    let mut clear = *b"attack at dawn";
    let (mut sealed, mut opened) = ([0_u8; 30], [0_u8; 14]);
    let mut length: CK_ULONG = 30;
    assert_eq!(c!(C_EncryptInit(session, &raw mut gcm, key)), CKR_OK);
    assert_eq!(c!(C_Encrypt(session, clear.as_mut_ptr(), 14, sealed.as_mut_ptr(), &raw mut length)), CKR_OK);
    assert_eq!(length, 30);
    length = 14;
    assert_eq!(c!(C_DecryptInit(session, &raw mut gcm, key)), CKR_OK);
    assert_eq!(c!(C_Decrypt(session, sealed.as_mut_ptr(), 30, opened.as_mut_ptr(), &raw mut length)), CKR_OK);
    assert_eq!((length, opened), (14, clear));
    sealed[29] ^= 1;
    opened = [0; 14];
    assert_eq!(c!(C_DecryptInit(session, &raw mut gcm, key)), CKR_OK);
    let refused = c!(C_Decrypt(session, sealed.as_mut_ptr(), 30, opened.as_mut_ptr(), &raw mut length));
    assert_ne!(refused, CKR_OK);
    assert_eq!(opened, [0; 14]);
}

#[test]
fn digests_whole_and_in_parts_are_those_of_fips_180() {
    /// SHA-256 of "abc": FIPS 180-2, B.1.
    const ABC: &[u8; 32] = b"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad";
    let session = session();
    let mut sha256 = mechanism(CKM_SHA256);
    let mut data = *b"abc";
    for parts in [false, true] {
        let mut digest = [0_u8; 32];
        let mut length: CK_ULONG = 32;
        assert_eq!(c!(C_DigestInit(session, &raw mut sha256)), CKR_OK);
        let rv = if parts {
            assert_eq!(c!(C_DigestUpdate(session, data.as_mut_ptr(), 1)), CKR_OK);
            assert_eq!(c!(C_DigestUpdate(session, data[1..].as_mut_ptr(), 2)), CKR_OK);
            c!(C_DigestFinal(session, digest.as_mut_ptr(), &raw mut length))
        } else {
            c!(C_Digest(session, data.as_mut_ptr(), 3, digest.as_mut_ptr(), &raw mut length))
        };
        assert_eq!((rv, length, &digest), (CKR_OK, 32, ABC));
    }
}

#[test]
fn bad_arguments_end_the_operation() {
    let session = session();
    let mut sha256 = mechanism(CKM_SHA256);
    let mut length: CK_ULONG = 32;
    let mut digest = [0_u8; 32];
    assert_eq!(c!(C_DigestInit(session, &raw mut sha256)), CKR_OK);
    assert_eq!(c!(C_DigestUpdate(session, null_mut(), 5)), CKR_ARGUMENTS_BAD);
    let ended = c!(C_DigestFinal(session, digest.as_mut_ptr(), &raw mut length));
    assert_eq!(ended, CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(c!(C_DigestInit(session, &raw mut sha256)), CKR_OK);
    assert_eq!(c!(C_Digest(session, null_mut(), 0, digest.as_mut_ptr(), null_mut())), CKR_ARGUMENTS_BAD);
    assert_eq!(c!(C_DigestUpdate(session, null_mut(), 0)), CKR_OPERATION_NOT_INITIALIZED);
}

#[test]
fn null_as_mechanism_and_session_cancel_end_an_operation() {
    let session = session();
    let key = secret(session, CKM_GENERIC_SECRET_KEY_GEN, 32);
    let mut hmac = mechanism(CKM_SHA256_HMAC);
    let mut byte = 1_u8;
    assert_eq!(c!(C_SignInit(session, &raw mut hmac, key)), CKR_OK);
    assert_eq!(c!(C_SignInit(session, &raw mut hmac, key)), CKR_OPERATION_ACTIVE);
    assert_eq!(c!(C_SignInit(session, null_mut(), key)), CKR_OK);
    assert_eq!(c!(C_SignUpdate(session, &raw mut byte, 1)), CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(c!(C_SignInit(session, &raw mut hmac, key)), CKR_OK);
    assert_eq!(c!(C_SessionCancel(session, CKF_SIGN)), CKR_OK);
    assert_eq!(c!(C_SignUpdate(session, &raw mut byte, 1)), CKR_OPERATION_NOT_INITIALIZED);
}

#[test]
fn attributes_are_read_changed_copied_found_and_destroyed() {
    let session = session();
    let key = secret(session, CKM_AES_KEY_GEN, 32);
    let (mut label, mut value, mut class) = ([0_u8; 16], [0_u8; 32], 0 as CK_ULONG);
    let mut template = [
        CK_ATTRIBUTE { ulValueLen: 16, ..attribute(CKA_LABEL, &label) },
        attribute(CKA_VALUE, &value),
        attribute(CKA_CLASS, &class),
    ];
    template[0].pValue = label.as_mut_ptr().cast();
    template[1].pValue = value.as_mut_ptr().cast();
    template[2].pValue = (&raw mut class).cast();
    assert_eq!(c!(C_GetAttributeValue(session, key, template.as_mut_ptr(), 3)), CKR_ATTRIBUTE_SENSITIVE);
    let class_bytes = size_of::<CK_ULONG>() as CK_ULONG;
    assert_eq!(template.map(|entry| entry.ulValueLen), [6, CK_UNAVAILABLE_INFORMATION, class_bytes]);
    assert_eq!((&label[..6], value, class), (&b"secret"[..], [0; 32], CKO_SECRET_KEY));
    let name = *b"found by this name";
    let mut change = [attribute(CKA_LABEL, &name)];
    assert_eq!(c!(C_SetAttributeValue(session, key, change.as_mut_ptr(), 1)), CKR_OK);
    let mut copy = 0;
    assert_eq!(c!(C_CopyObject(session, key, null_mut(), 0, &raw mut copy)), CKR_OK);
    assert_ne!(copy, key);
    assert_eq!(find(session, &mut change).len(), 2);
    let mut bytes: CK_ULONG = 0;
    assert_eq!(c!(C_GetObjectSize(session, key, &raw mut bytes)), CKR_OK);
    assert_eq!(c!(C_DestroyObject(session, copy)), CKR_OK);
    assert_eq!(find(session, &mut change), [key]);
    assert_eq!(c!(C_DestroyObject(session, copy)), CKR_OBJECT_HANDLE_INVALID);
}

fn find(session: CK_SESSION_HANDLE, template: &mut [CK_ATTRIBUTE]) -> Vec<CK_OBJECT_HANDLE> {
    let rv = c!(C_FindObjectsInit(session, template.as_mut_ptr(), template.len() as CK_ULONG));
    assert_eq!(rv, CKR_OK, "{rv:#x}");
    let mut found = Vec::new();
    loop {
        let (mut handle, mut count) = (0, 0);
        assert_eq!(c!(C_FindObjects(session, &raw mut handle, 1, &raw mut count)), CKR_OK);
        if count == 0 {
            break;
        }
        found.push(handle);
    }
    assert_eq!(c!(C_FindObjectsFinal(session)), CKR_OK);
    found
}

#[test]
fn objects_are_created_from_canonical_and_odd_templates() {
    let session = session();
    let mut handle = 0;
    let value = *b"data";
    let mut template = [attribute(CKA_CLASS, &CKO_DATA), attribute(CKA_VALUE, &value)];
    assert_eq!(c!(C_CreateObject(session, template.as_mut_ptr(), 2, &raw mut handle)), CKR_OK);
    assert_eq!(c!(C_DestroyObject(session, handle)), CKR_OK);
    assert_eq!(c!(C_CreateObject(session, template.as_mut_ptr(), 2, null_mut())), CKR_ARGUMENTS_BAD);
    template[1].pValue = null_mut();
    assert_eq!(c!(C_CreateObject(session, template.as_mut_ptr(), 2, &raw mut handle)), CKR_ARGUMENTS_BAD);
}

#[test]
fn slots_tokens_sessions_and_mechanisms_are_described() {
    let session = session();
    let mut slots = [9 as CK_SLOT_ID; 2];
    let mut count: CK_ULONG = 2;
    assert_eq!(c!(C_GetSlotList(CK_FALSE, slots.as_mut_ptr(), &raw mut count)), CKR_OK);
    assert_eq!((count, slots), (2, [0, SLOT]));
    let mut token = std::mem::MaybeUninit::<CK_TOKEN_INFO>::zeroed();
    assert_eq!(c!(C_GetTokenInfo(SLOT, token.as_mut_ptr())), CKR_OK);
    // SAFETY: zeroed, then written.
    let token = unsafe { token.assume_init() };
    assert_ne!(token.flags & CKF_TOKEN_INITIALIZED, 0);
    assert_eq!((token.ulMaxSessionCount, token.ulMaxRwSessionCount), (CK_EFFECTIVELY_INFINITE, 0));
    let mut slot = std::mem::MaybeUninit::<CK_SLOT_INFO>::zeroed();
    assert_eq!(c!(C_GetSlotInfo(SLOT, slot.as_mut_ptr())), CKR_OK);
    assert_eq!(c!(C_GetSlotInfo(99, slot.as_mut_ptr())), CKR_SLOT_ID_INVALID);
    let mut info = CK_SESSION_INFO::default();
    assert_eq!(c!(C_GetSessionInfo(session, &raw mut info)), CKR_OK);
    assert_eq!((info.slotID, info.state), (SLOT, CKS_RW_USER_FUNCTIONS));
    assert_eq!(info.flags, CKF_SERIAL_SESSION | CKF_RW_SESSION);
    assert_eq!(c!(C_GetMechanismList(SLOT, null_mut(), &raw mut count)), CKR_OK);
    let mut mechanisms = vec![0; count as usize];
    assert_eq!(c!(C_GetMechanismList(SLOT, mechanisms.as_mut_ptr(), &raw mut count)), CKR_OK);
    assert!(mechanisms.contains(&CKM_AES_GCM));
    let mut facts = CK_MECHANISM_INFO::default();
    assert_eq!(c!(C_GetMechanismInfo(SLOT, CKM_AES_KEY_GEN, &raw mut facts)), CKR_OK);
    assert_eq!((facts.ulMinKeySize, facts.ulMaxKeySize), (16, 32));
    assert_eq!(c!(C_GetMechanismInfo(SLOT, CKM_DES3_CBC, &raw mut facts)), CKR_MECHANISM_INVALID);
}

#[test]
fn logins_pins_and_random_bytes() {
    let session = session();
    let pin = CO_PIN.as_ptr().cast_mut();
    let bytes = CO_PIN.len() as CK_ULONG;
    assert_eq!(c!(C_Login(session, CKU_USER, pin, bytes)), CKR_USER_ALREADY_LOGGED_IN);
    assert_eq!(c!(C_Login(session, CKU_SO, pin, bytes)), CKR_USER_ANOTHER_ALREADY_LOGGED_IN);
    assert_eq!(c!(C_Login(session, CKU_USER, null_mut(), 4)), CKR_ARGUMENTS_BAD);
    let mut short = *b"1";
    assert_eq!(c!(C_SetPIN(session, pin, bytes, short.as_mut_ptr(), 1)), CKR_PIN_LEN_RANGE);
    let mut random = [0_u8; 64];
    assert_eq!(c!(C_GenerateRandom(session, random.as_mut_ptr(), 64)), CKR_OK);
    assert_ne!(random, [0; 64]);
    assert_eq!(c!(C_SeedRandom(session, random.as_mut_ptr(), 64)), CKR_RANDOM_SEED_NOT_SUPPORTED);
    let mut slot = 0;
    assert_eq!(c!(C_WaitForSlotEvent(CKF_DONT_BLOCK, &raw mut slot, null_mut())), CKR_NO_EVENT);
    assert_eq!(c!(C_CloseSession(session)), CKR_OK);
    assert_eq!(c!(C_CloseSession(session)), CKR_SESSION_HANDLE_INVALID);
    assert_eq!(c!(C_GenerateRandom(session, null::<u8>().cast_mut(), 0)), CKR_SESSION_HANDLE_INVALID);
}

#[test]
fn the_state_of_a_group_is_written_where_the_caller_says_and_nowhere_else() {
    use super::extensions::CK_HA_STATE;
    use super::functions::CA_GetHAState;
    session();
    let mut buffer = vec![0xaa_u8; size_of::<CK_HA_STATE>() + 2];
    // SAFETY: room for one structure begins at the second byte, at an odd address perhaps; NULL is allowed.
    let (answered, refused, wrong_slot) = unsafe {
        (
            CA_GetHAState(0, buffer.as_mut_ptr().add(1).cast()),
            CA_GetHAState(0, null_mut()),
            CA_GetHAState(77, buffer.as_mut_ptr().add(1).cast()),
        )
    };
    assert_eq!((answered, refused, wrong_slot), (CKR_OK, CKR_ARGUMENTS_BAD, CKR_SLOT_ID_INVALID));
    assert_eq!((buffer[0], buffer[buffer.len() - 1]), (0xaa, 0xaa));
    let number = |at: usize| {
        CK_ULONG::from_ne_bytes(
            buffer[1 + at * size_of::<CK_ULONG>()..][..size_of::<CK_ULONG>()].try_into().unwrap(),
        )
    };
    assert_eq!((number(0), number(1), number(65)), (11_000_000_000_001, SERIAL as CK_ULONG, 1));
    assert_eq!(number(3), 0);
}
