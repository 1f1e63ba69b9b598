//! What SoftHSM2 2.6 does otherwise than a row wants, each with its reason. A row that passes must not stand here.

/// A row that a module is known to fail.
pub struct Deviation {
    /// The row's name.
    pub row: &'static str,
    /// What the module does instead, and why the row stands all the same.
    pub reason: &'static str,
}

/// SoftHSM2 2.6.
pub const SOFTHSM2: &[Deviation] = &[
    Deviation {
        row: "interfaces_name_the_standard_and_its_versions",
        reason: "a module of version 2.40: C_GetInterfaceList came with 3.0",
    },
    Deviation {
        row: "mechanisms_of_the_first_phase_are_listed",
        reason: "has no CKM_ECDSA_SHA1 to CKM_ECDSA_SHA512",
    },
    Deviation {
        row: "ecdsa_with_hash_verifies_outside",
        reason: "has no CKM_ECDSA_SHA1 to CKM_ECDSA_SHA512",
    },
    Deviation {
        row: "ecdsa_with_hash_in_parts_verifies",
        reason: "has no CKM_ECDSA_SHA1 to CKM_ECDSA_SHA512",
    },
    Deviation {
        row: "ecdsa_sign_final_with_short_buffer_keeps_the_operation",
        reason: "has no CKM_ECDSA_SHA1 to CKM_ECDSA_SHA512",
    },
    Deviation {
        row: "hmac_general_is_cut_from_the_whole",
        reason: "has no CKM_SHA256_HMAC_GENERAL and its like",
    },
    Deviation {
        row: "hmac_general_of_a_bad_length_is_refused",
        reason: "has no CKM_SHA256_HMAC_GENERAL and its like",
    },
    Deviation {
        row: "hmac_under_a_short_key_gives_the_published_value",
        reason: "demands an HMAC key as long as the hash; the standard and RFC 4231 do not",
    },
    Deviation {
        row: "rsa_oaep_takes_any_hash_and_a_label",
        reason: "takes OAEP with SHA-1 and without a label only",
    },
    Deviation {
        row: "rsa_oaep_decrypts_what_was_encrypted_outside",
        reason: "takes OAEP with SHA-1 and without a label only",
    },
    Deviation {
        row: "rsa_oaep_refuses_another_label_and_changes",
        reason: "takes OAEP with SHA-1 and without a label only",
    },
    Deviation {
        row: "init_without_a_mechanism_cancels",
        reason: "a module of version 2.40: cancelling by a null mechanism came with 3.0",
    },
    Deviation {
        row: "raw_signatures_in_parts_are_buffered",
        reason: "refuses parts of CKM_RSA_PKCS, as it may; RULES 1.11 is ours",
    },
    Deviation {
        row: "operations_of_two_kinds_do_not_meet",
        reason: "one operation of any kind a session; a search beside a signature is refused",
    },
    Deviation { row: "logout_without_a_login_is_refused", reason: "C_Logout without a login answers CKR_OK" },
    Deviation {
        row: "logout_ends_operations_with_private_keys",
        reason: "an operation begun before C_Logout still signs after it",
    },
    Deviation {
        row: "attribute_named_twice_is_inconsistent",
        reason: "takes the last value of an attribute named twice",
    },
    Deviation {
        row: "bad_change_changes_nothing",
        reason: "sets attributes one by one: those before the refused one are changed",
    },
    Deviation {
        row: "secret_values_cannot_be_searched_for",
        reason: "finds a sensitive key by its value, which tells whether a guess is right",
    },
    Deviation {
        row: "aes_key_of_a_bad_size_is_refused",
        reason: "C_CreateObject does not check the length of an AES key",
    },
    Deviation {
        row: "pair_on_an_unknown_curve_is_refused",
        reason: "CKR_GENERAL_ERROR for a curve that OpenSSL does not know",
    },
    Deviation {
        row: "rsa_pair_of_a_bad_size_is_refused",
        reason: "CKR_GENERAL_ERROR for sizes that OpenSSL does not generate",
    },
    Deviation {
        row: "rsa_pkcs_refuses_one_byte_more_than_the_most",
        reason: "CKR_GENERAL_ERROR for data too long to be padded",
    },
    Deviation {
        row: "rsa_pkcs_encryption_of_too_much_is_refused",
        reason: "CKR_GENERAL_ERROR for data too long to be padded",
    },
    Deviation {
        row: "rsa_raw_refuses_what_is_not_below_the_modulus",
        reason: "CKR_GENERAL_ERROR for a number that is not below the modulus",
    },
    Deviation {
        row: "rsa_decryption_of_a_bad_length_is_refused",
        reason: "CKR_GENERAL_ERROR for a ciphertext that is not as long as the modulus",
    },
    Deviation {
        row: "rsa_pkcs_decryption_does_not_tell_bad_padding",
        reason: "tells bad padding by CKR_GENERAL_ERROR, the oracle that RULES 2.16 closes",
    },
    Deviation {
        row: "rsa_pss_of_a_digest_of_another_length_is_refused",
        reason: "CKR_GENERAL_ERROR for a digest of another length than the hash",
    },
    Deviation {
        row: "rsa_pss_with_another_hash_than_the_mechanism_is_refused",
        reason: "CKR_ARGUMENTS_BAD where the standard has CKR_MECHANISM_PARAM_INVALID",
    },
    Deviation {
        row: "rsa_pss_with_bad_parameters_is_refused",
        reason: "CKM_RSA_PKCS_PSS is begun with parameters that cannot be, and fails at the end",
    },
    Deviation {
        row: "sign_with_a_key_of_another_type_is_refused",
        reason: "C_SignInit does not compare the key's type with the mechanism's",
    },
    Deviation {
        row: "sign_with_a_parameter_that_the_mechanism_has_not_is_refused",
        reason: "does not look at parameters of mechanisms that have none",
    },
    Deviation {
        row: "digest_with_a_parameter_is_refused",
        reason: "does not look at parameters of mechanisms that have none",
    },
    Deviation {
        row: "digest_of_a_null_pointer_to_nothing_is_the_digest_of_nothing",
        reason: "CKR_ARGUMENTS_BAD for a null pointer even where the length is zero",
    },
    Deviation {
        row: "sensitive_key_is_indigestible",
        reason: "digests the value of a sensitive key, which the standard leaves to the token",
    },
    Deviation {
        row: "aes_cbc_pad_refuses_bad_padding_and_lengths",
        reason: "CKR_GENERAL_ERROR for bad padding",
    },
    Deviation {
        row: "aes_cbc_with_a_bad_iv_is_refused",
        reason: "CKR_MECHANISM_INVALID for an IV of a bad length",
    },
    Deviation {
        row: "aes_gcm_refuses_every_change",
        reason: "CKR_GENERAL_ERROR for a tag that does not fit",
    },
    Deviation {
        row: "aes_gcm_decryption_in_parts_yields_nothing_before_the_end",
        reason: "CKR_GENERAL_ERROR for a tag that does not fit",
    },
    Deviation {
        row: "decrypt_of_padded_data_with_exact_buffer_succeeds",
        reason: "demands room for the bound before it decrypts",
    },
    Deviation {
        row: "rsa_decrypt_with_exact_buffer_succeeds",
        reason: "demands room for the bound before it decrypts",
    },
    Deviation {
        row: "single_call_after_parts_is_refused_and_ends_the_operation",
        reason: "C_Digest ends an operation in parts and answers CKR_OK",
    },
    Deviation {
        row: "null_attribute_value_with_a_length_is_refused",
        reason: "takes a null value with a length for an empty one",
    },
    Deviation {
        row: "gcm_parameter_with_null_iv_is_refused",
        reason: "reads a null IV and kills the process",
    },
];
