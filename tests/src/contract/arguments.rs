//! Contract: arguments that make no sense are refused, never a crash (PKCS #11 v3.1, 5.1.6: CKR_ARGUMENTS_BAD).

use std::ffi::c_void;
use std::ptr::null_mut;

use cryptoki_sys::*;

use super::{Context, answered, plain, refused};
use crate::p11::{Mech, Outcome};

rows! {
    "v3.1, 5.1.6" => null_outputs_of_information_calls_are_refused,
    "v3.1, 5.1.6" => null_session_output_is_refused,
    "v3.1, 5.1.6" => null_template_with_a_count_is_refused,
    "v3.1, 5.1.6" => null_attribute_value_with_a_length_is_refused,
    "v3.1, 5.1.6" => null_handle_outputs_are_refused,
    "v3.1, 5.1.6" => null_mechanism_of_generation_is_refused,
    "v3.1, 5.1.6" => null_mechanism_parameter_with_a_length_is_refused,
    "v3.1, 5.1.6" => null_data_with_a_length_is_refused,
    "v3.1, 5.1.6" => null_length_is_refused,
    "v3.1, 5.1.6" => null_signature_with_a_length_is_refused,
    "v3.1, 5.1.6" => null_pin_with_a_length_is_refused,
    "v3.1, 5.1.6" => null_find_outputs_are_refused,
    "v3.1, 5.1.6" => null_random_with_a_length_is_refused,
    "v3.1, 5.1.6" => huge_counts_are_refused,
    "v3.1, 5.1.6" => huge_attribute_lengths_are_refused,
    "v3.1, 5.1.6" => bad_object_handles_are_refused,
    "v3.1, 5.1.6" => gcm_parameter_with_null_iv_is_refused,
    "v3.1, 5.1.6" => oaep_parameter_with_null_label_is_refused,
}

const BAD: &[CK_RV] = &[CKR_ARGUMENTS_BAD];

fn null_outputs_of_information_calls_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    answered(raw!(cx, C_GetInfo(null_mut())), BAD);
    answered(raw!(cx, C_GetSlotList(CK_TRUE, null_mut(), null_mut())), BAD);
    answered(raw!(cx, C_GetSlotInfo(cx.slot, null_mut())), BAD);
    answered(raw!(cx, C_GetTokenInfo(cx.slot, null_mut())), BAD);
    answered(raw!(cx, C_GetMechanismList(cx.slot, null_mut(), null_mut())), BAD);
    answered(raw!(cx, C_GetMechanismInfo(cx.slot, CKM_RSA_PKCS, null_mut())), BAD);
    answered(raw!(cx, C_GetSessionInfo(session, null_mut())), BAD);
    Ok(())
}

fn null_session_output_is_refused(cx: &Context) -> Outcome<()> {
    answered(raw!(cx, C_OpenSession(cx.slot, CKF_SERIAL_SESSION, null_mut(), None, null_mut())), BAD);
    let count = cx.p11.token_info(cx.slot)?.ulSessionCount;
    assert!(count == 0 || count == CK_UNAVAILABLE_INFORMATION && !cx.hatoki, "no session is left behind");
    Ok(())
}

fn null_template_with_a_count_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut handle = 0;
    let mut mech = mechanism(CKM_AES_KEY_GEN);
    answered(raw!(cx, C_CreateObject(session, null_mut(), 1, &mut handle)), BAD);
    answered(raw!(cx, C_FindObjectsInit(session, null_mut(), 1)), BAD);
    answered(raw!(cx, C_GenerateKey(session, &mut mech, null_mut(), 2, &mut handle)), BAD);
    let object = cx.mac(session)?;
    answered(raw!(cx, C_GetAttributeValue(session, object, null_mut(), 1)), BAD);
    answered(raw!(cx, C_SetAttributeValue(session, object, null_mut(), 1)), BAD);
    answered(raw!(cx, C_CopyObject(session, object, null_mut(), 1, &mut handle)), BAD);
    Ok(())
}

fn mechanism(kind: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM { mechanism: kind, pParameter: null_mut(), ulParameterLen: 0 }
}

fn null_attribute_value_with_a_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut class = CKO_DATA;
    let mut template = [
        CK_ATTRIBUTE { type_: CKA_CLASS, pValue: (&raw mut class).cast::<c_void>(), ulValueLen: 8 },
        CK_ATTRIBUTE { type_: CKA_LABEL, pValue: null_mut(), ulValueLen: 5 },
    ];
    let mut handle = 0;
    let wanted = &[CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_VALUE_INVALID];
    answered(raw!(cx, C_CreateObject(session, template.as_mut_ptr(), 2, &mut handle)), wanted);
    answered(raw!(cx, C_FindObjectsInit(session, template.as_mut_ptr(), 2)), wanted);
    Ok(())
}

fn null_handle_outputs_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut class = CKO_DATA;
    let mut template =
        [CK_ATTRIBUTE { type_: CKA_CLASS, pValue: (&raw mut class).cast::<c_void>(), ulValueLen: 8 }];
    answered(raw!(cx, C_CreateObject(session, template.as_mut_ptr(), 1, null_mut())), BAD);
    let mut bytes: CK_ULONG = 16;
    let mut template =
        [CK_ATTRIBUTE { type_: CKA_VALUE_LEN, pValue: (&raw mut bytes).cast::<c_void>(), ulValueLen: 8 }];
    let mut mech = mechanism(CKM_AES_KEY_GEN);
    answered(raw!(cx, C_GenerateKey(session, &mut mech, template.as_mut_ptr(), 1, null_mut())), BAD);
    let object = cx.mac(session)?;
    answered(raw!(cx, C_CopyObject(session, object, null_mut(), 0, null_mut())), BAD);
    answered(raw!(cx, C_GetObjectSize(session, object, null_mut())), BAD);
    Ok(())
}

fn null_mechanism_of_generation_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mut first, mut second) = (0, 0);
    answered(raw!(cx, C_GenerateKey(session, null_mut(), null_mut(), 0, &mut first)), BAD);
    let rv = raw!(
        cx,
        C_GenerateKeyPair(session, null_mut(), null_mut(), 0, null_mut(), 0, &mut first, &mut second)
    );
    answered(rv, BAD);
    Ok(())
}

fn null_mechanism_parameter_with_a_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (aes, (_, private)) = (cx.aes(session)?, cx.rsa(session)?);
    let wanted = &[CKR_ARGUMENTS_BAD, CKR_MECHANISM_PARAM_INVALID];
    for kind in [CKM_AES_CBC, CKM_AES_GCM] {
        let mut mech = CK_MECHANISM { ulParameterLen: 16, ..mechanism(kind) };
        answered(raw!(cx, C_EncryptInit(session, &mut mech, aes)), wanted);
    }
    let mut mech = CK_MECHANISM { ulParameterLen: 24, ..mechanism(CKM_RSA_PKCS_PSS) };
    answered(raw!(cx, C_SignInit(session, &mut mech, private)), wanted);
    Ok(())
}

fn null_data_with_a_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mac, aes) = (cx.mac(session)?, cx.aes(session)?);
    let (mut room, mut length) = ([0; 64], 64);
    let out = room.as_mut_ptr();
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    answered(raw!(cx, C_Sign(session, null_mut(), 5, out, &mut length)), BAD);
    let session = cx.open()?;
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    answered(raw!(cx, C_SignUpdate(session, null_mut(), 5)), BAD);
    let session = cx.open()?;
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), aes)?;
    answered(raw!(cx, C_Encrypt(session, null_mut(), 16, out, &mut length)), BAD);
    let session = cx.open()?;
    cx.p11.decrypt_init(session, plain(CKM_AES_ECB), aes)?;
    answered(raw!(cx, C_Decrypt(session, null_mut(), 16, out, &mut length)), BAD);
    let session = cx.open()?;
    cx.p11.digest_init(session, plain(CKM_SHA256))?;
    answered(raw!(cx, C_DigestUpdate(session, null_mut(), 5)), BAD);
    Ok(())
}

fn null_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mac, aes) = (cx.mac(session)?, cx.aes(session)?);
    let (mut room, mut data) = ([0; 64], [1; 16]);
    let (out, place) = (room.as_mut_ptr(), data.as_mut_ptr());
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    answered(raw!(cx, C_Sign(session, place, 5, out, null_mut())), BAD);
    let session = cx.open()?;
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), aes)?;
    answered(raw!(cx, C_Encrypt(session, place, 16, out, null_mut())), BAD);
    let session = cx.open()?;
    cx.p11.digest_init(session, plain(CKM_SHA256))?;
    answered(raw!(cx, C_Digest(session, place, 16, out, null_mut())), BAD);
    Ok(())
}

fn null_signature_with_a_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mac = cx.mac(session)?;
    let mut data = [1; 16];
    cx.p11.verify_init(session, plain(CKM_SHA256_HMAC), mac)?;
    answered(raw!(cx, C_Verify(session, data.as_mut_ptr(), 16, null_mut(), 32)), BAD);
    Ok(())
}

fn null_pin_with_a_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    answered(raw!(cx, C_Login(session, CKU_USER, null_mut(), 8)), BAD);
    cx.login(session)
}

fn null_find_outputs_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mut handle, mut count) = (0, 0);
    cx.p11.find_init(session, crate::p11::Tmpl::new())?;
    answered(raw!(cx, C_FindObjects(session, null_mut(), 4, &mut count)), BAD);
    let session = cx.open()?;
    cx.p11.find_init(session, crate::p11::Tmpl::new())?;
    answered(raw!(cx, C_FindObjects(session, &mut handle, 1, null_mut())), BAD);
    Ok(())
}

fn null_random_with_a_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    answered(raw!(cx, C_GenerateRandom(session, null_mut(), 8)), BAD);
    Ok(())
}

fn huge_counts_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut handle = 0;
    for count in [CK_ULONG::MAX, CK_ULONG::MAX / 24, 1 << 60] {
        answered(raw!(cx, C_CreateObject(session, null_mut(), count, &mut handle)), BAD);
        answered(raw!(cx, C_FindObjectsInit(session, null_mut(), count)), BAD);
    }
    Ok(())
}

fn huge_attribute_lengths_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut handle = 0;
    for length in [CK_ULONG::MAX, 1 << 62] {
        let mut class = CKO_DATA;
        let mut template = [
            CK_ATTRIBUTE { type_: CKA_CLASS, pValue: (&raw mut class).cast::<c_void>(), ulValueLen: 8 },
            CK_ATTRIBUTE { type_: CKA_LABEL, pValue: null_mut(), ulValueLen: length },
        ];
        let rv = raw!(cx, C_CreateObject(session, template.as_mut_ptr(), 2, &mut handle));
        answered(rv, &[CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_VALUE_INVALID]);
    }
    Ok(())
}

fn bad_object_handles_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let unknown = &[CKR_OBJECT_HANDLE_INVALID];
    for handle in [CK_INVALID_HANDLE, CK_OBJECT_HANDLE::MAX, 0x7fff_0000] {
        let none = crate::p11::Tmpl::new;
        refused(cx.p11.attribute(session, handle, CKA_CLASS), unknown);
        refused(cx.p11.set_attributes(session, handle, none().bytes(CKA_LABEL, b"x")), unknown);
        refused(cx.p11.copy_object(session, handle, none()), unknown);
        refused(cx.p11.destroy_object(session, handle), unknown);
        refused(cx.p11.object_size(session, handle), unknown);
        let unknown = cx.no_key();
        refused(cx.p11.encrypt_init(session, plain(CKM_AES_ECB), handle), unknown);
        refused(cx.p11.decrypt_init(session, plain(CKM_AES_ECB), handle), unknown);
        refused(cx.p11.verify_init(session, plain(CKM_ECDSA), handle), unknown);
    }
    Ok(())
}

fn gcm_parameter_with_null_iv_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let aes = cx.aes(session)?;
    for words in [[0, 12, 96, 0, 0, 128], [8, 0, 0, 0, 0, 128], [0, 12, 96, 0, 16, 128], [0; 6]] {
        let words: [CK_ULONG; 6] = words;
        let parameter: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        refused(
            cx.p11.encrypt_init(session, Mech::iv(CKM_AES_GCM, &parameter), aes),
            &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD],
        );
    }
    let cut = Mech { kind: CKM_AES_GCM, parameter: vec![0; 47] };
    refused(cx.p11.encrypt_init(session, cut, aes), &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD]);
    Ok(())
}

fn oaep_parameter_with_null_label_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, _) = cx.rsa(session)?;
    let words: [CK_ULONG; 5] = [CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, 0, 8];
    let parameter: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    refused(
        cx.p11.encrypt_init(session, Mech::iv(CKM_RSA_PKCS_OAEP, &parameter), public),
        &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD],
    );
    Ok(())
}
