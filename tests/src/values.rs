//! Templates and mechanisms as an application lays them out in memory.
#![allow(clippy::cast_possible_truncation, reason = "lengths of test data fit")]

use std::ffi::c_void;
use std::ptr::null_mut;

use cryptoki_sys::*;

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

    pub(crate) fn raw(&mut self) -> Vec<CK_ATTRIBUTE> {
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

    /// AES-GCM. The parameter points into `iv` and `aad`, which therefore live for the program.
    pub fn gcm(iv: &'static [u8], aad: &'static [u8], tag_bits: CK_ULONG) -> Self {
        let words = [
            iv.as_ptr().addr() as CK_ULONG,
            iv.len() as CK_ULONG,
            iv.len() as CK_ULONG * 8,
            if aad.is_empty() { 0 } else { aad.as_ptr().addr() as CK_ULONG },
            aad.len() as CK_ULONG,
            tag_bits,
        ];
        Self { kind: CKM_AES_GCM, parameter: words.iter().flat_map(|word| word.to_ne_bytes()).collect() }
    }

    /// RSA-OAEP with a label, which lives for the program.
    pub fn oaep(hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, label: &'static [u8]) -> Self {
        let pointer = if label.is_empty() { 0 } else { label.as_ptr().addr() as CK_ULONG };
        let words = [hash, mgf, CKZ_DATA_SPECIFIED, pointer, label.len() as CK_ULONG];
        Self {
            kind: CKM_RSA_PKCS_OAEP,
            parameter: words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
        }
    }

    pub(crate) fn raw(&mut self) -> CK_MECHANISM {
        let pointer =
            if self.parameter.is_empty() { null_mut() } else { self.parameter.as_mut_ptr().cast::<c_void>() };
        CK_MECHANISM {
            mechanism: self.kind,
            pParameter: pointer,
            ulParameterLen: self.parameter.len() as CK_ULONG,
        }
    }
}
