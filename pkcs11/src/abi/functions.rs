//! Every function of PKCS #11 v3.2, in header order: its raw signature and, where it works, one safe
//! expression.
//!
//! A row without an expression answers what the table of functions says ([`spec::functions`]); that the table and
//! these rows agree is checked while compiling. `=` needs `C_Initialize`, `=>` works in any state. `m` is the module,
//! `c` the proof that we are inside a call of C.
//!
//! A row with `hSession` looks at the session before anything else of its arguments: what the standard says of sessions
//! comes before what it says of a call (PKCS #11 v3.1, 5.1.2, 5.1.7).
#![allow(non_snake_case, reason = "the names are those of the header")]
#![allow(unused_variables, reason = "a row that is not supported does not look at its arguments")]

use std::os::raw::c_void;

use cryptoki_sys::*;
use spec::flags::mechanism::{DECRYPT, DIGEST, ENCRYPT, GENERATE, GENERATE_KEY_PAIR, SIGN, VERIFY};
use spec::flags::wait::DONT_BLOCK;
use spec::functions::refusal;
use spec::{MechanismType, UserType};

use super::convert::{object, session, slot, wide};
use super::extensions::CK_HA_STATE;
use super::pointer::Caller;
use super::trampoline::{answer, answer_always};
use super::{attributes, general, lists};

/// Makes one exported function.
macro_rules! function {
    ($m:ident, $c:ident, $name:ident($($argument:ident: $kind:ty),*) = $body:expr) => {
        function!(@export ($m), $c, answer, $name($($argument: $kind),*), {
            $(function!(@session $m, $name, $argument $argument);)*
            $body
        });
        const _: () = assert!(refusal(stringify!($name)).is_none(), "the table says that this is not supported");
    };
    ($m:ident, $c:ident, $name:ident($($argument:ident: $kind:ty),*) => $body:expr) => {
        function!(@export (), $c, answer_always, $name($($argument: $kind),*), $body);
        const _: () = assert!(refusal(stringify!($name)).is_none(), "the table says that this is not supported");
    };
    ($m:ident, $c:ident, $name:ident($($argument:ident: $kind:ty),*)) => {
        function!(@export (_), $c, answer, $name($($argument: $kind),*), {
            const REFUSAL: spec::Rv = refusal(stringify!($name)).expect("the table says that this is not supported");
            Err(REFUSAL.into())
        });
    };
    (@export ($($m:pat_param)?), $c:ident, $trampoline:ident, $name:ident($($argument:ident: $kind:ty),*), $body:expr) => {
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name($($argument: $kind),*) -> CK_RV {
            $trampoline(stringify!($name), |$($m)?| {
                // SAFETY: this is the body of a C function; the proof ends with it.
                let $c = &unsafe { Caller::promised() };
                $body
            })
        }
    };
    // What ends something works whatever has become of the token, and looks at nothing but the session.
    (@session $m:ident, C_CloseSession, hSession $handle:ident) => {};
    (@session $m:ident, C_FindObjectsFinal, hSession $handle:ident) => {};
    (@session $m:ident, C_Logout, hSession $handle:ident) => {};
    (@session $m:ident, C_SessionCancel, hSession $handle:ident) => {};
    (@session $m:ident, $name:ident, hSession $handle:ident) => { $m.check_session(session($handle))?; };
    (@session $m:ident, $name:ident, $other:ident $argument:ident) => {};
}

/// Makes the functions and, from the same rows, the three function lists.
macro_rules! functions {
    (
        |$m:ident, $c:ident|
        V2_40 { $($old:ident($($old_argument:ident: $old_kind:ty),*) $(= $old_body:expr)? $(=> $old_any:expr)?;)* }
        V3_0 { $($new:ident($($new_argument:ident: $new_kind:ty),*) $(= $new_body:expr)? $(=> $new_any:expr)?;)* }
        V3_2 { $($newest:ident($($newest_argument:ident: $newest_kind:ty),*) $(= $newest_body:expr)?;)* }
        EXTENSIONS { $($extension:ident($($extension_argument:ident: $extension_kind:ty),*) = $extension_body:expr;)* }
    ) => {
        $(function!($m, $c, $old($($old_argument: $old_kind),*) $(= $old_body)? $(=> $old_any)?);)*
        $(function!($m, $c, $new($($new_argument: $new_kind),*) $(= $new_body)? $(=> $new_any)?);)*
        $(function!($m, $c, $newest($($newest_argument: $newest_kind),*) $(= $newest_body)?);)*

        $(function!($m, $c, $extension($($extension_argument: $extension_kind),*) = $extension_body);)*

        /// The function list of 2.40.
        pub(super) static LIST_2_40: CK_FUNCTION_LIST =
            CK_FUNCTION_LIST { version: CK_VERSION { major: 2, minor: 40 }, $($old: Some($old),)* };

        /// The function list of 3.0.
        pub(super) static LIST_3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 },
            $($old: Some($old),)*
            $($new: Some($new),)*
        };

        /// The function list of 3.2.
        pub(super) static LIST_3_2: CK_FUNCTION_LIST_3_2 = CK_FUNCTION_LIST_3_2 {
            version: CK_VERSION { major: 3, minor: 2 },
            $($old: Some($old),)*
            $($new: Some($new),)*
            $($newest: Some($newest),)*
        };

        /// The names in this order, for the comparison with the table.
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($old),)* $(stringify!($new),)* $(stringify!($newest),)*];

        /// The names of the extensions, for the same.
        #[cfg(test)]
        const EXTENSION_NAMES: &[&str] = &[$(stringify!($extension),)*];
    };
}

functions! {
    |m, c|
    V2_40 {
        C_Initialize(pInitArgs: *mut c_void) => general::initialize(c, pInitArgs);
        C_Finalize(pReserved: *mut c_void) = general::finalize(pReserved);
        C_GetInfo(pInfo: *mut CK_INFO) = c.fill(pInfo, || Ok(general::info()));
        C_GetFunctionList(ppFunctionList: *mut *mut CK_FUNCTION_LIST)
            => lists::function_list(c, ppFunctionList);
        C_GetSlotList(tokenPresent: CK_BBOOL, pSlotList: *mut CK_SLOT_ID, pulCount: *mut CK_ULONG)
            = c.list(pSlotList, pulCount, || m.slots(tokenPresent != CK_FALSE));
        C_GetSlotInfo(slotID: CK_SLOT_ID, pInfo: *mut CK_SLOT_INFO)
            = c.fill(pInfo, || m.slot_info(slot(slotID)));
        C_GetTokenInfo(slotID: CK_SLOT_ID, pInfo: *mut CK_TOKEN_INFO)
            = c.fill(pInfo, || m.token_info(slot(slotID)));
        C_GetMechanismList(
            slotID: CK_SLOT_ID, pMechanismList: *mut CK_MECHANISM_TYPE, pulCount: *mut CK_ULONG
        ) = c.list(pMechanismList, pulCount, || m.mechanisms(slot(slotID)));
        C_GetMechanismInfo(slotID: CK_SLOT_ID, type_: CK_MECHANISM_TYPE, pInfo: *mut CK_MECHANISM_INFO)
            = c.fill(pInfo, || m.mechanism_info(slot(slotID), MechanismType(wide(type_))));
        C_InitToken(slotID: CK_SLOT_ID, pPin: *mut CK_UTF8CHAR, ulPinLen: CK_ULONG, pLabel: *mut CK_UTF8CHAR);
        C_InitPIN(hSession: CK_SESSION_HANDLE, pPin: *mut CK_UTF8CHAR, ulPinLen: CK_ULONG);
        C_SetPIN(
            hSession: CK_SESSION_HANDLE, pOldPin: *mut CK_UTF8CHAR, ulOldLen: CK_ULONG,
            pNewPin: *mut CK_UTF8CHAR, ulNewLen: CK_ULONG
        ) = {
            let (old, new) = (c.optional_bytes(pOldPin, ulOldLen)?, c.optional_bytes(pNewPin, ulNewLen)?);
            m.set_pin(session(hSession), old, new)
        };
        C_OpenSession(
            slotID: CK_SLOT_ID, flags: CK_FLAGS, pApplication: *mut c_void, Notify: CK_NOTIFY,
            phSession: *mut CK_SESSION_HANDLE
        ) = c.fill(phSession, || m.open_session(slot(slotID), wide(flags)));
        C_CloseSession(hSession: CK_SESSION_HANDLE) = m.close_session(session(hSession));
        C_CloseAllSessions(slotID: CK_SLOT_ID) = m.close_all_sessions(slot(slotID));
        C_GetSessionInfo(hSession: CK_SESSION_HANDLE, pInfo: *mut CK_SESSION_INFO)
            = c.fill(pInfo, || m.session_info(session(hSession)));
        C_GetOperationState(
            hSession: CK_SESSION_HANDLE, pOperationState: *mut CK_BYTE, pulOperationStateLen: *mut CK_ULONG
        );
        C_SetOperationState(
            hSession: CK_SESSION_HANDLE, pOperationState: *mut CK_BYTE, ulOperationStateLen: CK_ULONG,
            hEncryptionKey: CK_OBJECT_HANDLE, hAuthenticationKey: CK_OBJECT_HANDLE
        );
        C_Login(
            hSession: CK_SESSION_HANDLE, userType: CK_USER_TYPE, pPin: *mut CK_UTF8CHAR, ulPinLen: CK_ULONG
        ) = m.login(session(hSession), UserType(wide(userType)), c.optional_bytes(pPin, ulPinLen)?);
        C_Logout(hSession: CK_SESSION_HANDLE) = m.logout(session(hSession));
        C_CreateObject(
            hSession: CK_SESSION_HANDLE, pTemplate: *mut CK_ATTRIBUTE, ulCount: CK_ULONG,
            phObject: *mut CK_OBJECT_HANDLE
        ) = c.fill(phObject, || m.create_object(session(hSession), c.template(pTemplate, ulCount)?));
        C_CopyObject(
            hSession: CK_SESSION_HANDLE, hObject: CK_OBJECT_HANDLE, pTemplate: *mut CK_ATTRIBUTE,
            ulCount: CK_ULONG, phNewObject: *mut CK_OBJECT_HANDLE
        ) = c.fill(phNewObject, || {
            m.copy_object(session(hSession), object(hObject), c.template(pTemplate, ulCount)?)
        });
        C_DestroyObject(hSession: CK_SESSION_HANDLE, hObject: CK_OBJECT_HANDLE)
            = m.destroy_object(session(hSession), object(hObject));
        C_GetObjectSize(hSession: CK_SESSION_HANDLE, hObject: CK_OBJECT_HANDLE, pulSize: *mut CK_ULONG)
            = c.fill(pulSize, || m.object_size(session(hSession), object(hObject)));
        C_GetAttributeValue(
            hSession: CK_SESSION_HANDLE, hObject: CK_OBJECT_HANDLE, pTemplate: *mut CK_ATTRIBUTE,
            ulCount: CK_ULONG
        ) = attributes::get(c, m, session(hSession), object(hObject), pTemplate, ulCount);
        C_SetAttributeValue(
            hSession: CK_SESSION_HANDLE, hObject: CK_OBJECT_HANDLE, pTemplate: *mut CK_ATTRIBUTE,
            ulCount: CK_ULONG
        ) = m.set_attributes(session(hSession), object(hObject), c.template(pTemplate, ulCount)?);
        C_FindObjectsInit(hSession: CK_SESSION_HANDLE, pTemplate: *mut CK_ATTRIBUTE, ulCount: CK_ULONG)
            = m.find_init(session(hSession), c.template(pTemplate, ulCount)?);
        C_FindObjects(
            hSession: CK_SESSION_HANDLE, phObject: *mut CK_OBJECT_HANDLE, ulMaxObjectCount: CK_ULONG,
            pulObjectCount: *mut CK_ULONG
        ) = c.list_up_to(phObject, ulMaxObjectCount, pulObjectCount, |count_max| {
            m.find(session(hSession), count_max)
        });
        C_FindObjectsFinal(hSession: CK_SESSION_HANDLE) = m.find_final(session(hSession));
        C_EncryptInit(hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE)
            = m.encrypt_init(session(hSession), c.mechanism(pMechanism, ENCRYPT)?, object(hKey));
        C_Encrypt(
            hSession: CK_SESSION_HANDLE, pData: *mut CK_BYTE, ulDataLen: CK_ULONG,
            pEncryptedData: *mut CK_BYTE, pulEncryptedDataLen: *mut CK_ULONG
        ) = c.produce(m, ENCRYPT, hSession, pEncryptedData, pulEncryptedDataLen, |s, room| {
            m.encrypt(s, c.bytes(pData, ulDataLen)?, room)
        });
        C_EncryptUpdate(
            hSession: CK_SESSION_HANDLE, pPart: *mut CK_BYTE, ulPartLen: CK_ULONG,
            pEncryptedPart: *mut CK_BYTE, pulEncryptedPartLen: *mut CK_ULONG
        ) = c.produce(m, ENCRYPT, hSession, pEncryptedPart, pulEncryptedPartLen, |s, room| {
            m.encrypt_update(s, c.bytes(pPart, ulPartLen)?, room)
        });
        C_EncryptFinal(
            hSession: CK_SESSION_HANDLE, pLastEncryptedPart: *mut CK_BYTE,
            pulLastEncryptedPartLen: *mut CK_ULONG
        ) = c.produce(m, ENCRYPT, hSession, pLastEncryptedPart, pulLastEncryptedPartLen, |s, room| {
            m.encrypt_final(s, room)
        });
        C_DecryptInit(hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE)
            = m.decrypt_init(session(hSession), c.mechanism(pMechanism, DECRYPT)?, object(hKey));
        C_Decrypt(
            hSession: CK_SESSION_HANDLE, pEncryptedData: *mut CK_BYTE, ulEncryptedDataLen: CK_ULONG,
            pData: *mut CK_BYTE, pulDataLen: *mut CK_ULONG
        ) = c.produce(m, DECRYPT, hSession, pData, pulDataLen, |s, room| {
            m.decrypt(s, c.bytes(pEncryptedData, ulEncryptedDataLen)?, room)
        });
        C_DecryptUpdate(
            hSession: CK_SESSION_HANDLE, pEncryptedPart: *mut CK_BYTE, ulEncryptedPartLen: CK_ULONG,
            pPart: *mut CK_BYTE, pulPartLen: *mut CK_ULONG
        ) = c.produce(m, DECRYPT, hSession, pPart, pulPartLen, |s, room| {
            m.decrypt_update(s, c.bytes(pEncryptedPart, ulEncryptedPartLen)?, room)
        });
        C_DecryptFinal(hSession: CK_SESSION_HANDLE, pLastPart: *mut CK_BYTE, pulLastPartLen: *mut CK_ULONG)
            = c.produce(m, DECRYPT, hSession, pLastPart, pulLastPartLen, |s, room| {
            m.decrypt_final(s, room)
        });
        C_DigestInit(hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM)
            = m.digest_init(session(hSession), c.mechanism(pMechanism, DIGEST)?);
        C_Digest(
            hSession: CK_SESSION_HANDLE, pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pDigest: *mut CK_BYTE,
            pulDigestLen: *mut CK_ULONG
        ) = c.produce(m, DIGEST, hSession, pDigest, pulDigestLen, |s, room| {
            m.digest(s, c.bytes(pData, ulDataLen)?, room)
        });
        C_DigestUpdate(hSession: CK_SESSION_HANDLE, pPart: *mut CK_BYTE, ulPartLen: CK_ULONG)
            = c.operate(m, DIGEST, hSession, |s| m.digest_update(s, c.bytes(pPart, ulPartLen)?));
        C_DigestKey(hSession: CK_SESSION_HANDLE, hKey: CK_OBJECT_HANDLE)
            = m.digest_key(session(hSession), object(hKey));
        C_DigestFinal(hSession: CK_SESSION_HANDLE, pDigest: *mut CK_BYTE, pulDigestLen: *mut CK_ULONG)
            = c.produce(m, DIGEST, hSession, pDigest, pulDigestLen, |s, room| {
            m.digest_final(s, room)
        });
        C_SignInit(hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE)
            = m.sign_init(session(hSession), c.mechanism(pMechanism, SIGN)?, object(hKey));
        C_Sign(
            hSession: CK_SESSION_HANDLE, pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pSignature: *mut CK_BYTE,
            pulSignatureLen: *mut CK_ULONG
        ) = c.produce(m, SIGN, hSession, pSignature, pulSignatureLen, |s, room| {
            m.sign(s, c.bytes(pData, ulDataLen)?, room)
        });
        C_SignUpdate(hSession: CK_SESSION_HANDLE, pPart: *mut CK_BYTE, ulPartLen: CK_ULONG)
            = c.operate(m, SIGN, hSession, |s| m.sign_update(s, c.bytes(pPart, ulPartLen)?));
        C_SignFinal(hSession: CK_SESSION_HANDLE, pSignature: *mut CK_BYTE, pulSignatureLen: *mut CK_ULONG)
            = c.produce(m, SIGN, hSession, pSignature, pulSignatureLen, |s, room| {
            m.sign_final(s, room)
        });
        C_SignRecoverInit(hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE);
        C_SignRecover(
            hSession: CK_SESSION_HANDLE, pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pSignature: *mut CK_BYTE,
            pulSignatureLen: *mut CK_ULONG
        );
        C_VerifyInit(hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE)
            = m.verify_init(session(hSession), c.mechanism(pMechanism, VERIFY)?, object(hKey));
        C_Verify(
            hSession: CK_SESSION_HANDLE, pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pSignature: *mut CK_BYTE,
            ulSignatureLen: CK_ULONG
        ) = c.operate(m, VERIFY, hSession, |s| {
            m.verify(s, c.bytes(pData, ulDataLen)?, c.bytes(pSignature, ulSignatureLen)?)
        });
        C_VerifyUpdate(hSession: CK_SESSION_HANDLE, pPart: *mut CK_BYTE, ulPartLen: CK_ULONG)
            = c.operate(m, VERIFY, hSession, |s| m.verify_update(s, c.bytes(pPart, ulPartLen)?));
        C_VerifyFinal(hSession: CK_SESSION_HANDLE, pSignature: *mut CK_BYTE, ulSignatureLen: CK_ULONG)
            = c.operate(m, VERIFY, hSession, |s| m.verify_final(s, c.bytes(pSignature, ulSignatureLen)?));
        C_VerifyRecoverInit(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE
        );
        C_VerifyRecover(
            hSession: CK_SESSION_HANDLE, pSignature: *mut CK_BYTE, ulSignatureLen: CK_ULONG,
            pData: *mut CK_BYTE, pulDataLen: *mut CK_ULONG
        );
        C_DigestEncryptUpdate(
            hSession: CK_SESSION_HANDLE, pPart: *mut CK_BYTE, ulPartLen: CK_ULONG,
            pEncryptedPart: *mut CK_BYTE, pulEncryptedPartLen: *mut CK_ULONG
        );
        C_DecryptDigestUpdate(
            hSession: CK_SESSION_HANDLE, pEncryptedPart: *mut CK_BYTE, ulEncryptedPartLen: CK_ULONG,
            pPart: *mut CK_BYTE, pulPartLen: *mut CK_ULONG
        );
        C_SignEncryptUpdate(
            hSession: CK_SESSION_HANDLE, pPart: *mut CK_BYTE, ulPartLen: CK_ULONG,
            pEncryptedPart: *mut CK_BYTE, pulEncryptedPartLen: *mut CK_ULONG
        );
        C_DecryptVerifyUpdate(
            hSession: CK_SESSION_HANDLE, pEncryptedPart: *mut CK_BYTE, ulEncryptedPartLen: CK_ULONG,
            pPart: *mut CK_BYTE, pulPartLen: *mut CK_ULONG
        );
        C_GenerateKey(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, pTemplate: *mut CK_ATTRIBUTE,
            ulCount: CK_ULONG, phKey: *mut CK_OBJECT_HANDLE
        ) = c.fill(phKey, || {
            m.generate_key(session(hSession), c.required_mechanism(pMechanism, GENERATE)?, c.template(pTemplate, ulCount)?)
        });
        C_GenerateKeyPair(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM,
            pPublicKeyTemplate: *mut CK_ATTRIBUTE, ulPublicKeyAttributeCount: CK_ULONG,
            pPrivateKeyTemplate: *mut CK_ATTRIBUTE, ulPrivateKeyAttributeCount: CK_ULONG,
            phPublicKey: *mut CK_OBJECT_HANDLE, phPrivateKey: *mut CK_OBJECT_HANDLE
        ) = c.fill_pair(phPublicKey, phPrivateKey, || {
            let public = c.template(pPublicKeyTemplate, ulPublicKeyAttributeCount)?;
            let private = c.template(pPrivateKeyTemplate, ulPrivateKeyAttributeCount)?;
            m.generate_key_pair(session(hSession), c.required_mechanism(pMechanism, GENERATE_KEY_PAIR)?, public, private)
        });
        C_WrapKey(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hWrappingKey: CK_OBJECT_HANDLE,
            hKey: CK_OBJECT_HANDLE, pWrappedKey: *mut CK_BYTE, pulWrappedKeyLen: *mut CK_ULONG
        );
        C_UnwrapKey(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hUnwrappingKey: CK_OBJECT_HANDLE,
            pWrappedKey: *mut CK_BYTE, ulWrappedKeyLen: CK_ULONG, pTemplate: *mut CK_ATTRIBUTE,
            ulAttributeCount: CK_ULONG, phKey: *mut CK_OBJECT_HANDLE
        );
        C_DeriveKey(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hBaseKey: CK_OBJECT_HANDLE,
            pTemplate: *mut CK_ATTRIBUTE, ulAttributeCount: CK_ULONG, phKey: *mut CK_OBJECT_HANDLE
        );
        C_SeedRandom(hSession: CK_SESSION_HANDLE, pSeed: *mut CK_BYTE, ulSeedLen: CK_ULONG);
        C_GenerateRandom(hSession: CK_SESSION_HANDLE, pRandomData: *mut CK_BYTE, ulRandomLen: CK_ULONG)
            = c.fill_bytes(pRandomData, ulRandomLen, |bytes| m.random(session(hSession), bytes));
        C_GetFunctionStatus(hSession: CK_SESSION_HANDLE);
        C_CancelFunction(hSession: CK_SESSION_HANDLE);
        C_WaitForSlotEvent(flags: CK_FLAGS, pSlot: *mut CK_SLOT_ID, pReserved: *mut c_void)
            = c.fill(pSlot, || m.wait_for_slot_event(wide(flags) & DONT_BLOCK == 0));
    }
    V3_0 {
        C_GetInterfaceList(pInterfacesList: *mut CK_INTERFACE, pulCount: *mut CK_ULONG)
            => lists::interface_list(c, pInterfacesList, pulCount);
        C_GetInterface(
            pInterfaceName: *mut CK_UTF8CHAR, pVersion: *mut CK_VERSION, ppInterface: *mut *mut CK_INTERFACE,
            flags: CK_FLAGS
        ) => lists::one_interface(c, pInterfaceName, pVersion, ppInterface, flags);
        C_LoginUser(
            hSession: CK_SESSION_HANDLE, userType: CK_USER_TYPE, pPin: *mut CK_UTF8CHAR, ulPinLen: CK_ULONG,
            pUsername: *mut CK_UTF8CHAR, ulUsernameLen: CK_ULONG
        );
        C_SessionCancel(hSession: CK_SESSION_HANDLE, flags: CK_FLAGS)
            = m.session_cancel(session(hSession), wide(flags));
        C_MessageEncryptInit(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE
        );
        C_EncryptMessage(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pAssociatedData: *mut CK_BYTE, ulAssociatedDataLen: CK_ULONG, pPlaintext: *mut CK_BYTE,
            ulPlaintextLen: CK_ULONG, pCiphertext: *mut CK_BYTE, pulCiphertextLen: *mut CK_ULONG
        );
        C_EncryptMessageBegin(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pAssociatedData: *mut CK_BYTE, ulAssociatedDataLen: CK_ULONG
        );
        C_EncryptMessageNext(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pPlaintextPart: *mut CK_BYTE, ulPlaintextPartLen: CK_ULONG, pCiphertextPart: *mut CK_BYTE,
            pulCiphertextPartLen: *mut CK_ULONG, flags: CK_FLAGS
        );
        C_MessageEncryptFinal(hSession: CK_SESSION_HANDLE);
        C_MessageDecryptInit(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE
        );
        C_DecryptMessage(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pAssociatedData: *mut CK_BYTE, ulAssociatedDataLen: CK_ULONG, pCiphertext: *mut CK_BYTE,
            ulCiphertextLen: CK_ULONG, pPlaintext: *mut CK_BYTE, pulPlaintextLen: *mut CK_ULONG
        );
        C_DecryptMessageBegin(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pAssociatedData: *mut CK_BYTE, ulAssociatedDataLen: CK_ULONG
        );
        C_DecryptMessageNext(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pCiphertextPart: *mut CK_BYTE, ulCiphertextPartLen: CK_ULONG, pPlaintextPart: *mut CK_BYTE,
            pulPlaintextPartLen: *mut CK_ULONG, flags: CK_FLAGS
        );
        C_MessageDecryptFinal(hSession: CK_SESSION_HANDLE);
        C_MessageSignInit(hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE);
        C_SignMessage(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pSignature: *mut CK_BYTE,
            pulSignatureLen: *mut CK_ULONG
        );
        C_SignMessageBegin(hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG);
        C_SignMessageNext(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pSignature: *mut CK_BYTE,
            pulSignatureLen: *mut CK_ULONG
        );
        C_MessageSignFinal(hSession: CK_SESSION_HANDLE);
        C_MessageVerifyInit(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE
        );
        C_VerifyMessage(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pSignature: *mut CK_BYTE, ulSignatureLen: CK_ULONG
        );
        C_VerifyMessageBegin(hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG);
        C_VerifyMessageNext(
            hSession: CK_SESSION_HANDLE, pParameter: *mut c_void, ulParameterLen: CK_ULONG,
            pData: *mut CK_BYTE, ulDataLen: CK_ULONG, pSignature: *mut CK_BYTE, ulSignatureLen: CK_ULONG
        );
        C_MessageVerifyFinal(hSession: CK_SESSION_HANDLE);
    }
    V3_2 {
        C_EncapsulateKey(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hPublicKey: CK_OBJECT_HANDLE,
            pTemplate: *mut CK_ATTRIBUTE, ulAttributeCount: CK_ULONG, pCiphertext: *mut CK_BYTE,
            pulCiphertextLen: *mut CK_ULONG, phKey: *mut CK_OBJECT_HANDLE
        );
        C_DecapsulateKey(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hPrivateKey: CK_OBJECT_HANDLE,
            pTemplate: *mut CK_ATTRIBUTE, ulAttributeCount: CK_ULONG, pCiphertext: *mut CK_BYTE,
            ulCiphertextLen: CK_ULONG, phKey: *mut CK_OBJECT_HANDLE
        );
        C_VerifySignatureInit(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hKey: CK_OBJECT_HANDLE,
            pSignature: *mut CK_BYTE, ulSignatureLen: CK_ULONG
        );
        C_VerifySignature(hSession: CK_SESSION_HANDLE, pData: *mut CK_BYTE, ulDataLen: CK_ULONG);
        C_VerifySignatureUpdate(hSession: CK_SESSION_HANDLE, pPart: *mut CK_BYTE, ulPartLen: CK_ULONG);
        C_VerifySignatureFinal(hSession: CK_SESSION_HANDLE);
        C_GetSessionValidationFlags(
            hSession: CK_SESSION_HANDLE, type_: CK_SESSION_VALIDATION_FLAGS_TYPE, pFlags: *mut CK_FLAGS
        );
        C_AsyncComplete(
            hSession: CK_SESSION_HANDLE, pFunctionName: *mut CK_UTF8CHAR, pResult: *mut CK_ASYNC_DATA
        );
        C_AsyncGetID(hSession: CK_SESSION_HANDLE, pFunctionName: *mut CK_UTF8CHAR, pulID: *mut CK_ULONG);
        C_AsyncJoin(
            hSession: CK_SESSION_HANDLE, pFunctionName: *mut CK_UTF8CHAR, ulID: CK_ULONG,
            pData: *mut CK_BYTE, ulData: CK_ULONG
        );
        C_WrapKeyAuthenticated(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hWrappingKey: CK_OBJECT_HANDLE,
            hKey: CK_OBJECT_HANDLE, pAssociatedData: *mut CK_BYTE, ulAssociatedDataLen: CK_ULONG,
            pWrappedKey: *mut CK_BYTE, pulWrappedKeyLen: *mut CK_ULONG
        );
        C_UnwrapKeyAuthenticated(
            hSession: CK_SESSION_HANDLE, pMechanism: *mut CK_MECHANISM, hUnwrappingKey: CK_OBJECT_HANDLE,
            pWrappedKey: *mut CK_BYTE, ulWrappedKeyLen: CK_ULONG, pTemplate: *mut CK_ATTRIBUTE,
            ulAttributeCount: CK_ULONG, pAssociatedData: *mut CK_BYTE, ulAssociatedDataLen: CK_ULONG,
            phKey: *mut CK_OBJECT_HANDLE
        );
    }
    EXTENSIONS {
        CA_GetHAState(slotId: CK_SLOT_ID, pState: *mut CK_HA_STATE)
            = c.fill(pState, || m.ha_state(slot(slotId)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_table() {
        let table: Vec<_> = spec::functions::ROWS.iter().map(|row| row.name).collect();
        assert_eq!(NAMES, table);
        let extensions: Vec<_> = spec::functions::EXTENSIONS.iter().map(|row| row.name).collect();
        assert_eq!(EXTENSION_NAMES, extensions);
    }

    #[test]
    fn the_lists_hold_nothing_but_a_version_and_the_functions() {
        let pointer = size_of::<CK_C_Sign>();
        assert_eq!(size_of::<CK_FUNCTION_LIST>(), pointer * (1 + 68));
        assert_eq!(size_of::<CK_FUNCTION_LIST_3_0>(), pointer * (1 + 68 + 24));
        assert_eq!(size_of::<CK_FUNCTION_LIST_3_2>(), pointer * (1 + NAMES.len()));
    }
}
