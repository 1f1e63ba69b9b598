//! The operations that are measured, and what a contestant is.

use ::tests::p11::Failed;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// CKM_ECDSA with P-256 over a digest of 32 bytes.
    P256Sign,
    /// The verification of that.
    P256Verify,
    /// CKM_SHA256_RSA_PKCS with 2048 bits over 64 bytes.
    Rsa2048Sign,
    /// The verification of that.
    Rsa2048Verify,
    /// CKM_SHA256_HMAC over 1 KiB, 32-byte key.
    Hmac1k,
    /// The verification of that.
    Hmac1kVerify,
    /// CKM_AES_GCM, 256-bit key, encryption of 1 KiB.
    Gcm1k,
    /// The decryption of that.
    Gcm1kDecrypt,
    /// The same, 1 MiB.
    Gcm1m,
    /// CKM_AES_CBC, 256-bit key, encryption of 1 KiB.
    Cbc1k,
    /// The same, 1 MiB.
    Cbc1m,
    /// CKM_AES_CBC in parts, 256-bit key, encryption of 256 MiB in one operation of parts of 1 MiB.
    Stream256m,
    /// The same, 1 GiB.
    Stream1g,
    /// CKM_SHA256 of 1 KiB.
    Digest1k,
    /// C_OpenSession and C_CloseSession.
    Session,
    /// C_Login and C_Logout of a user who was logged in before, by one thread: the state is one for all sessions of a process.
    Login,
    /// C_GenerateRandom of 32 bytes.
    Random,
    /// A search by class and label that finds one of a hundred data objects.
    Find,
    /// C_GetAttributeValue of two attributes of a public key.
    Attributes,
    /// One request that makes the member do next to nothing, and its reply.
    RoundTrip,
}

/// All of them with the names that programs and tables use.
pub const NAMES: &[(&str, Work)] = &[
    ("p256-sign", Work::P256Sign),
    ("p256-verify", Work::P256Verify),
    ("rsa2048-sign", Work::Rsa2048Sign),
    ("rsa2048-verify", Work::Rsa2048Verify),
    ("hmac-1k", Work::Hmac1k),
    ("hmac-1k-verify", Work::Hmac1kVerify),
    ("gcm-1k", Work::Gcm1k),
    ("gcm-1k-decrypt", Work::Gcm1kDecrypt),
    ("gcm-1m", Work::Gcm1m),
    ("cbc-1k", Work::Cbc1k),
    ("cbc-1m", Work::Cbc1m),
    ("stream-256m", Work::Stream256m),
    ("stream-1g", Work::Stream1g),
    ("digest-1k", Work::Digest1k),
    ("session", Work::Session),
    ("login", Work::Login),
    ("random-32", Work::Random),
    ("find", Work::Find),
    ("attributes", Work::Attributes),
    ("round-trip", Work::RoundTrip),
];

impl Work {
    /// The operation of a name.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, work)| *work)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, work)| *work == self).map_or("", |(name, _)| name)
    }
}

impl Work {
    /// How many pieces of 1 MiB an operation sends, and gets back; none for work that carries less.
    pub fn pieces(self) -> Option<usize> {
        match self {
            Self::Gcm1m | Self::Cbc1m => Some(1),
            Self::Stream256m => Some(256),
            Self::Stream1g => Some(1024),
            Self::P256Sign
            | Self::P256Verify
            | Self::Rsa2048Sign
            | Self::Rsa2048Verify
            | Self::Hmac1k
            | Self::Hmac1kVerify
            | Self::Gcm1k
            | Self::Gcm1kDecrypt
            | Self::Cbc1k
            | Self::Digest1k
            | Self::Session
            | Self::Login
            | Self::Random
            | Self::Find
            | Self::Attributes
            | Self::RoundTrip => None,
        }
    }

    /// Whether an operation is longer than a window: each thread does one, however long that takes.
    pub fn is_long(self) -> bool {
        self.pieces().is_some_and(|pieces| pieces > 1)
    }
}

/// One operation of one thread, again and again. What it needs it has: a session, keys, memory for results.
pub type Worker<'a> = Box<dyn FnMut() -> Result<(), Failed> + 'a>;

/// Who does the operations.
pub trait Contestant: Sync {
    /// A worker with a number of its own, whose first result has been proven right; `None` for work that is not offered.
    ///
    /// # Errors
    /// When the first result is not right, or there is none.
    fn worker(&self, work: Work, number: usize) -> Result<Option<Worker<'_>>, Failed>;
}

/// A wrong result, told as the function that made it with CKR_GENERAL_ERROR.
///
/// # Errors
/// Unless it holds.
pub fn prove(holds: bool, function: &'static str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed { function, rv: cryptoki_sys::CKR_GENERAL_ERROR }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_work_and_back() {
        assert!(NAMES.iter().all(|(name, work)| Work::parse(name) == Some(*work) && work.name() == *name));
        assert_eq!(Work::parse("no such work"), None);
    }
}
