//! Every function of PKCS #11 v3.2 in the order of the header: since when, where defined, and whether it works here.
//!
//! An unsupported function is a row with the value it answers, never a silent gap. The C boundary lists the same names in
//! the same order and a test there compares.

use core::fmt;
use core::fmt::Write as _;

use crate::numbers::Rv;
use Status::{NotSupported, Supported};
use Version::{V2_40, V3_0, V3_2};

/// The version of the function list that first has a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 2.40 and before.
    V2_40,
    /// 3.0.
    V3_0,
    /// 3.2.
    V3_2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2_40 => "2.40",
            Self::V3_0 => "3.0",
            Self::V3_2 => "3.2",
        })
    }
}

/// Whether a function works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It does.
    Supported,
    /// It answers this value, whatever its arguments.
    NotSupported(Rv),
}

/// One function.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in C.
    pub name: &'static str,
    /// Since when it exists.
    pub since: Version,
    /// Where the standard defines it.
    pub section: &'static str,
    /// Whether it works.
    pub status: Status,
}

const fn row(name: &'static str, since: Version, section: &'static str, status: Status) -> Row {
    Row { name, since, section, status }
}

const NOT_SUPPORTED: Status = NotSupported(Rv::FUNCTION_NOT_SUPPORTED);

/// The row of a function; none for a name that the standard does not have.
pub fn row_of(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// The value that an unsupported function answers; none for one that works or does not exist. Constant, so that the
/// C boundary can hold it at build time.
pub const fn refusal(name: &str) -> Option<Rv> {
    let mut index = 0;
    while index < ROWS.len() {
        if same(ROWS[index].name, name) {
            return match ROWS[index].status {
                Supported => None,
                NotSupported(rv) => Some(rv),
            };
        }
        index += 1;
    }
    None
}

/// Whether two texts are equal, at build time.
const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Every function, in the order of the function lists.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    // The list of 2.40.
    row("C_Initialize", V2_40, "v3.1, 5.4.1", Supported),
    row("C_Finalize", V2_40, "v3.1, 5.4.2", Supported),
    row("C_GetInfo", V2_40, "v3.1, 5.4.3", Supported),
    row("C_GetFunctionList", V2_40, "v3.1, 5.4.4", Supported),
    row("C_GetSlotList", V2_40, "v3.1, 5.5.1", Supported),
    row("C_GetSlotInfo", V2_40, "v3.1, 5.5.2", Supported),
    row("C_GetTokenInfo", V2_40, "v3.1, 5.5.3", Supported),
    row("C_GetMechanismList", V2_40, "v3.1, 5.5.5", Supported),
    row("C_GetMechanismInfo", V2_40, "v3.1, 5.5.6", Supported),
    row("C_InitToken", V2_40, "v3.1, 5.5.7", NOT_SUPPORTED),
    row("C_InitPIN", V2_40, "v3.1, 5.5.8", NOT_SUPPORTED),
    row("C_SetPIN", V2_40, "v3.1, 5.5.9", Supported),
    row("C_OpenSession", V2_40, "v3.1, 5.6.1", Supported),
    row("C_CloseSession", V2_40, "v3.1, 5.6.2", Supported),
    row("C_CloseAllSessions", V2_40, "v3.1, 5.6.3", Supported),
    row("C_GetSessionInfo", V2_40, "v3.1, 5.6.4", Supported),
    row("C_GetOperationState", V2_40, "v3.1, 5.6.6", NOT_SUPPORTED),
    row("C_SetOperationState", V2_40, "v3.1, 5.6.7", NOT_SUPPORTED),
    row("C_Login", V2_40, "v3.1, 5.6.8", Supported),
    row("C_Logout", V2_40, "v3.1, 5.6.10", Supported),
    row("C_CreateObject", V2_40, "v3.1, 5.7.1", Supported),
    row("C_CopyObject", V2_40, "v3.1, 5.7.2", Supported),
    row("C_DestroyObject", V2_40, "v3.1, 5.7.3", Supported),
    row("C_GetObjectSize", V2_40, "v3.1, 5.7.4", Supported),
    row("C_GetAttributeValue", V2_40, "v3.1, 5.7.5", Supported),
    row("C_SetAttributeValue", V2_40, "v3.1, 5.7.6", Supported),
    row("C_FindObjectsInit", V2_40, "v3.1, 5.7.7", Supported),
    row("C_FindObjects", V2_40, "v3.1, 5.7.8", Supported),
    row("C_FindObjectsFinal", V2_40, "v3.1, 5.7.9", Supported),
    row("C_EncryptInit", V2_40, "v3.1, 5.8.1", Supported),
    row("C_Encrypt", V2_40, "v3.1, 5.8.2", Supported),
    row("C_EncryptUpdate", V2_40, "v3.1, 5.8.3", Supported),
    row("C_EncryptFinal", V2_40, "v3.1, 5.8.4", Supported),
    row("C_DecryptInit", V2_40, "v3.1, 5.10.1", Supported),
    row("C_Decrypt", V2_40, "v3.1, 5.10.2", Supported),
    row("C_DecryptUpdate", V2_40, "v3.1, 5.10.3", Supported),
    row("C_DecryptFinal", V2_40, "v3.1, 5.10.4", Supported),
    row("C_DigestInit", V2_40, "v3.1, 5.12.1", Supported),
    row("C_Digest", V2_40, "v3.1, 5.12.2", Supported),
    row("C_DigestUpdate", V2_40, "v3.1, 5.12.3", Supported),
    row("C_DigestKey", V2_40, "v3.1, 5.12.4", Supported),
    row("C_DigestFinal", V2_40, "v3.1, 5.12.5", Supported),
    row("C_SignInit", V2_40, "v3.1, 5.13.1", Supported),
    row("C_Sign", V2_40, "v3.1, 5.13.2", Supported),
    row("C_SignUpdate", V2_40, "v3.1, 5.13.3", Supported),
    row("C_SignFinal", V2_40, "v3.1, 5.13.4", Supported),
    row("C_SignRecoverInit", V2_40, "v3.1, 5.13.5", NOT_SUPPORTED),
    row("C_SignRecover", V2_40, "v3.1, 5.13.6", NOT_SUPPORTED),
    row("C_VerifyInit", V2_40, "v3.1, 5.15.1", Supported),
    row("C_Verify", V2_40, "v3.1, 5.15.2", Supported),
    row("C_VerifyUpdate", V2_40, "v3.1, 5.15.3", Supported),
    row("C_VerifyFinal", V2_40, "v3.1, 5.15.4", Supported),
    row("C_VerifyRecoverInit", V2_40, "v3.1, 5.15.5", NOT_SUPPORTED),
    row("C_VerifyRecover", V2_40, "v3.1, 5.15.6", NOT_SUPPORTED),
    row("C_DigestEncryptUpdate", V2_40, "v3.1, 5.17.1", NOT_SUPPORTED),
    row("C_DecryptDigestUpdate", V2_40, "v3.1, 5.17.2", NOT_SUPPORTED),
    row("C_SignEncryptUpdate", V2_40, "v3.1, 5.17.3", NOT_SUPPORTED),
    row("C_DecryptVerifyUpdate", V2_40, "v3.1, 5.17.4", NOT_SUPPORTED),
    row("C_GenerateKey", V2_40, "v3.1, 5.18.1", Supported),
    row("C_GenerateKeyPair", V2_40, "v3.1, 5.18.2", Supported),
    row("C_WrapKey", V2_40, "v3.1, 5.18.3", NOT_SUPPORTED),
    row("C_UnwrapKey", V2_40, "v3.1, 5.18.4", NOT_SUPPORTED),
    row("C_DeriveKey", V2_40, "v3.1, 5.18.5", NOT_SUPPORTED),
    row("C_SeedRandom", V2_40, "v3.1, 5.19.1", NotSupported(Rv::RANDOM_SEED_NOT_SUPPORTED)),
    row("C_GenerateRandom", V2_40, "v3.1, 5.19.2", Supported),
    row("C_GetFunctionStatus", V2_40, "v3.1, 5.20.1", NotSupported(Rv::FUNCTION_NOT_PARALLEL)),
    row("C_CancelFunction", V2_40, "v3.1, 5.20.2", NotSupported(Rv::FUNCTION_NOT_PARALLEL)),
    row("C_WaitForSlotEvent", V2_40, "v3.1, 5.5.4", Supported),
    // Added by 3.0.
    row("C_GetInterfaceList", V3_0, "v3.1, 5.4.5", Supported),
    row("C_GetInterface", V3_0, "v3.1, 5.4.6", Supported),
    row("C_LoginUser", V3_0, "v3.1, 5.6.9", NOT_SUPPORTED),
    row("C_SessionCancel", V3_0, "v3.1, 5.6.5", Supported),
    row("C_MessageEncryptInit", V3_0, "v3.1, 5.9.1", NOT_SUPPORTED),
    row("C_EncryptMessage", V3_0, "v3.1, 5.9.2", NOT_SUPPORTED),
    row("C_EncryptMessageBegin", V3_0, "v3.1, 5.9.3", NOT_SUPPORTED),
    row("C_EncryptMessageNext", V3_0, "v3.1, 5.9.4", NOT_SUPPORTED),
    row("C_MessageEncryptFinal", V3_0, "v3.1, 5.9.5", NOT_SUPPORTED),
    row("C_MessageDecryptInit", V3_0, "v3.1, 5.11.1", NOT_SUPPORTED),
    row("C_DecryptMessage", V3_0, "v3.1, 5.11.2", NOT_SUPPORTED),
    row("C_DecryptMessageBegin", V3_0, "v3.1, 5.11.3", NOT_SUPPORTED),
    row("C_DecryptMessageNext", V3_0, "v3.1, 5.11.4", NOT_SUPPORTED),
    row("C_MessageDecryptFinal", V3_0, "v3.1, 5.11.5", NOT_SUPPORTED),
    row("C_MessageSignInit", V3_0, "v3.1, 5.14.1", NOT_SUPPORTED),
    row("C_SignMessage", V3_0, "v3.1, 5.14.2", NOT_SUPPORTED),
    row("C_SignMessageBegin", V3_0, "v3.1, 5.14.3", NOT_SUPPORTED),
    row("C_SignMessageNext", V3_0, "v3.1, 5.14.4", NOT_SUPPORTED),
    row("C_MessageSignFinal", V3_0, "v3.1, 5.14.5", NOT_SUPPORTED),
    row("C_MessageVerifyInit", V3_0, "v3.1, 5.16.1", NOT_SUPPORTED),
    row("C_VerifyMessage", V3_0, "v3.1, 5.16.2", NOT_SUPPORTED),
    row("C_VerifyMessageBegin", V3_0, "v3.1, 5.16.3", NOT_SUPPORTED),
    row("C_VerifyMessageNext", V3_0, "v3.1, 5.16.4", NOT_SUPPORTED),
    row("C_MessageVerifyFinal", V3_0, "v3.1, 5.16.5", NOT_SUPPORTED),
    // Added by 3.2.
    row("C_EncapsulateKey", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_DecapsulateKey", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_VerifySignatureInit", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_VerifySignature", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_VerifySignatureUpdate", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_VerifySignatureFinal", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_GetSessionValidationFlags", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_AsyncComplete", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_AsyncGetID", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_AsyncJoin", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_WrapKeyAuthenticated", V3_2, "v3.2, 5", NOT_SUPPORTED),
    row("C_UnwrapKeyAuthenticated", V3_2, "v3.2, 5", NOT_SUPPORTED),
];

/// A function of the vendor's client, exported besides those of the standard; it stands in no function list.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// The name in C.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Every extension.
pub const EXTENSIONS: &[Extension] = &[Extension {
    name: "CA_GetHAState",
    meaning: "`CK_RV CA_GetHAState(CK_SLOT_ID slotId, CK_HA_STATE_PTR pState)`: serial number of the slot's group and, for each of at \
              most 32 members, its serial number and `CKR_OK` (used), `CKR_DEVICE_ERROR` (answers, not used yet, or suspected) \
              or `CKR_TOKEN_NOT_PRESENT`, as this process last saw them: nothing is sent",
}];

/// The text of `docs/functions.md`.
pub fn render() -> String {
    let supported = ROWS.iter().filter(|row| row.status == Supported).count();
    let mut page = format!(
        "# Functions\n\n\
         Rendered from the table in `spec/src/functions.rs`; regenerate with `cargo xtask docs`. All {} functions of \
         PKCS #11 v3.2 are present in the function lists; {supported} work, the others answer the value given.\n\
         Sections are those of the PKCS #11 specification.\n\n\
         | function | since | answers | section |\n|---|---|---|---|\n",
        ROWS.len(),
    );
    for row in ROWS {
        let answers = match row.status {
            Supported => String::from("supported"),
            NotSupported(rv) => format!("`{rv}`"),
        };
        writeln!(page, "| `{}` | {} | {answers} | {} |", row.name, row.since, row.section)
            .expect("writing to a String cannot fail");
    }
    page.push_str(
        "\n## Extensions\n\nExported by name and in no function list, as in the vendor's client.\n\n\
         | function | what it does |\n|---|---|\n",
    );
    for extension in EXTENSIONS {
        writeln!(page, "| `{}` | {} |", extension.name, extension.meaning)
            .expect("writing to a String cannot fail");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_are_unique_in_order_of_version_and_cite_a_section() {
        let names: HashSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        assert!(ROWS.windows(2).all(|pair| pair[0].since <= pair[1].since));
        assert!(ROWS.iter().all(|row| row.name.starts_with("C_") && !row.section.is_empty()));
    }

    #[test]
    fn each_list_has_the_length_of_the_standards() {
        let count = |version| ROWS.iter().filter(|row| row.since == version).count();
        assert_eq!((count(V2_40), count(V3_0), count(V3_2)), (68, 24, 12));
    }

    #[test]
    fn an_unsupported_function_never_answers_ok() {
        assert!(ROWS.iter().all(|row| row.status != NotSupported(Rv::OK)));
        assert_eq!(refusal("C_Sign"), None);
        assert_eq!(refusal("C_WrapKey"), Some(Rv::FUNCTION_NOT_SUPPORTED));
        assert_eq!(refusal("C_SeedRandom"), Some(Rv::RANDOM_SEED_NOT_SUPPORTED));
        assert_eq!(
            row_of("C_CancelFunction").map(|row| row.status),
            Some(NotSupported(Rv::FUNCTION_NOT_PARALLEL))
        );
        assert!(row_of("C_NoSuch").is_none());
    }

    #[test]
    fn the_page_of_functions_is_the_table() {
        let page = include_str!("../../docs/functions.md");
        assert!(page == render(), "docs/functions.md is not what the table says; run `cargo xtask docs`");
    }
}
