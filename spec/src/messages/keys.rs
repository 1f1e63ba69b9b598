//! Messages about the use of keys: mechanisms, plans, uses, random bytes (RULES 1).
use super::ObjectRef;
use crate::changes::Changes;
use crate::mechanisms::{Mechanism, Parameters};
use crate::numbers::{MechanismType, MgfType};
use crate::record::Stamp;

/// A mechanism and its parameters, field by field (RULES 1.1 names those that a plan depends on).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct MechanismMessage {
    /// `CKM_*`.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The kind of parameters: 0 none, 1 IV, 2 GCM, 3 PSS, 4 OAEP, 5 MAC length.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// IV or nonce.
    #[prost(bytes = "vec", tag = "3")]
    pub iv: Vec<u8>,
    /// Additional authenticated data.
    #[prost(bytes = "vec", tag = "4")]
    pub aad: Vec<u8>,
    /// Tag length in bits.
    #[prost(uint64, tag = "5")]
    pub tag_bits: u64,
    /// Hash (`CKM_*`) of PSS and OAEP.
    #[prost(uint64, tag = "6")]
    pub hash: u64,
    /// Mask generation function (`CKG_*`).
    #[prost(uint64, tag = "7")]
    pub mgf: u64,
    /// PSS salt length in bytes.
    #[prost(uint64, tag = "8")]
    pub salt_bytes: u64,
    /// OAEP label.
    #[prost(bytes = "vec", tag = "9")]
    pub label: Vec<u8>,
    /// Length of a general MAC in bytes.
    #[prost(uint64, tag = "10")]
    pub mac_bytes: u64,
}

impl From<&Mechanism> for MechanismMessage {
    fn from(mechanism: &Mechanism) -> Self {
        mechanism.clone().into()
    }
}

impl From<Mechanism> for MechanismMessage {
    fn from(mechanism: Mechanism) -> Self {
        let mut message = MechanismMessage { number: mechanism.mechanism_type.0, ..Default::default() };
        match mechanism.parameters {
            Parameters::None => {}
            Parameters::Iv(iv) => {
                message.kind = 1;
                message.iv = iv;
            }
            Parameters::Gcm { iv, aad, tag_bits } => {
                message.kind = 2;
                message.iv = iv;
                message.aad = aad;
                message.tag_bits = tag_bits;
            }
            Parameters::Pss { hash, mgf, salt_bytes } => {
                message.kind = 3;
                message.hash = hash.0;
                message.mgf = mgf.0;
                message.salt_bytes = salt_bytes;
            }
            Parameters::Oaep { hash, mgf, label } => {
                message.kind = 4;
                message.hash = hash.0;
                message.mgf = mgf.0;
                message.label = label;
            }
            Parameters::MacGeneral { mac_bytes } => {
                message.kind = 5;
                message.mac_bytes = mac_bytes;
            }
        }
        message
    }
}

impl MechanismMessage {
    /// The typed mechanism; `None` when the kind of parameters is not one that this release knows.
    pub fn to_mechanism(&self) -> Option<Mechanism> {
        let parameters = match self.kind {
            0 => Parameters::None,
            1 => Parameters::Iv(self.iv.clone()),
            2 => Parameters::Gcm { iv: self.iv.clone(), aad: self.aad.clone(), tag_bits: self.tag_bits },
            3 => Parameters::Pss {
                hash: MechanismType(self.hash),
                mgf: MgfType(self.mgf),
                salt_bytes: self.salt_bytes,
            },
            4 => Parameters::Oaep {
                hash: MechanismType(self.hash),
                mgf: MgfType(self.mgf),
                label: self.label.clone(),
            },
            5 => Parameters::MacGeneral { mac_bytes: self.mac_bytes },
            _ => return None,
        };
        Some(Mechanism { mechanism_type: MechanismType(self.number), parameters })
    }
}

/// What a key is used for; the numbers of `function` in [`Plan`] and [`Use`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyFunction(pub u32);

impl KeyFunction {
    /// C_Sign*.
    pub const SIGN: Self = Self(1);
    /// C_Verify*.
    pub const VERIFY: Self = Self(2);
    /// C_Encrypt*.
    pub const ENCRYPT: Self = Self(3);
    /// C_Decrypt*.
    pub const DECRYPT: Self = Self(4);
}

/// Asks how to run a mechanism with a key (RULES 1.1).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Plan {
    /// A [`KeyFunction`].
    #[prost(uint32, tag = "1")]
    pub function: u32,
    /// The mechanism; IV and AAD may be left out.
    #[prost(message, optional, tag = "2")]
    pub mechanism: Option<MechanismMessage>,
    /// The key.
    #[prost(message, optional, tag = "3")]
    pub key: Option<ObjectRef>,
}

/// How a mechanism runs in parts (DESIGN 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct How(pub u32);

impl How {
    /// Gathered to a bound and sent whole.
    pub const WHOLE: Self = Self(1);
    /// Hashed in the process with `prehash`; the digest is sent (RULES 1.4).
    pub const PREHASH: Self = Self(2);
    /// Whole blocks, continued from a public chaining value that the client has.
    pub const CHAIN: Self = Self(3);
    /// Each part goes to a member with a sealed running state.
    pub const STREAM: Self = Self(4);
}

/// How long an output is (RULES 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputRule(pub u32);

impl OutputRule {
    /// Exactly `output_bytes`.
    pub const FIXED: Self = Self(1);
    /// At most `output_bytes`; known afterwards.
    pub const AT_MOST: Self = Self(2);
    /// As long as the input.
    pub const SAME: Self = Self(3);
    /// The input padded to the next whole block of `block_bytes` (a whole block more when it fits).
    pub const PADDED: Self = Self(4);
    /// At most as long as the input; known afterwards.
    pub const UNPADDED: Self = Self(5);
    /// `output_bytes` longer than the input.
    pub const PLUS: Self = Self(6);
    /// `output_bytes` shorter than the input.
    pub const MINUS: Self = Self(7);
}

/// The plan.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PlanAnswer {
    /// A [`How`].
    #[prost(uint32, tag = "1")]
    pub how: u32,
    /// The digest mechanism of a prehash, `CKM_*`.
    #[prost(uint64, tag = "2")]
    pub prehash: u64,
    /// An [`OutputRule`].
    #[prost(uint32, tag = "3")]
    pub output_rule: u32,
    /// The number that the rule speaks of.
    #[prost(uint64, tag = "4")]
    pub output_bytes: u64,
    /// Block length of chained mechanisms; 0 otherwise.
    #[prost(uint32, tag = "5")]
    pub block_bytes: u32,
    /// Longest input in one operation; 0 for no limit but the wire's.
    #[prost(uint64, tag = "6")]
    pub input_bytes_max: u64,
    /// The key's greatest stamp when the plan was made.
    #[prost(message, optional, tag = "7")]
    pub version: Option<Stamp>,
    /// Whether each use demands a context login (RULES 2.7).
    #[prost(bool, tag = "8")]
    pub always_authenticate: bool,
    /// The public key, when what is planned may run with it in the client's process (RULES 1.10).
    #[prost(message, optional, tag = "9")]
    pub public: Option<PublicKeyMessage>,
    /// What was changed of the key since it was made, when the plan was.
    #[prost(message, optional, tag = "10")]
    pub changed: Option<Changes>,
}

/// The numbers of a public key: of RSA the first two, of a curve the others. All of the immutable core (HA 3.3).
#[derive(Clone, PartialEq, prost::Message)]
pub struct PublicKeyMessage {
    /// Modulus, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub modulus: Vec<u8>,
    /// Public exponent, big-endian.
    #[prost(bytes = "vec", tag = "2")]
    pub public_exponent: Vec<u8>,
    /// DER of the curve's object identifier, as CKA_EC_PARAMS.
    #[prost(bytes = "vec", tag = "3")]
    pub curve: Vec<u8>,
    /// The uncompressed point `04 || x || y`.
    #[prost(bytes = "vec", tag = "4")]
    pub point: Vec<u8>,
}

/// Uses a key once. Class Use.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Use {
    /// A [`KeyFunction`].
    #[prost(uint32, tag = "1")]
    pub function: u32,
    /// The mechanism; for `CHAIN` parts its IV is the chaining value.
    #[prost(message, optional, tag = "2")]
    pub mechanism: Option<MechanismMessage>,
    /// The key.
    #[prost(message, optional, tag = "3")]
    pub key: Option<ObjectRef>,
    /// The version of the plan that the client follows; absent when it follows none.
    #[prost(message, optional, tag = "4")]
    pub plan: Option<Stamp>,
    /// How the client runs it: `WHOLE` (data is all), `PREHASH` (data is the digest), `CHAIN`, `STREAM`.
    #[prost(uint32, tag = "5")]
    pub how: u32,
    /// The data, digest or part.
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
    /// The signature or MAC to be checked.
    #[prost(bytes = "vec", tag = "7")]
    pub signature: Vec<u8>,
    /// Whether this is the last part (`CHAIN`, `STREAM`).
    #[prost(bool, tag = "8")]
    pub last: bool,
    /// The sealed running state of the part before (`STREAM`); empty for the first part.
    #[prost(bytes = "vec", tag = "9")]
    pub state: Vec<u8>,
    /// The number of this part, from 0 (`STREAM`); bound into the seal of the state.
    #[prost(uint64, tag = "10")]
    pub part: u64,
    /// The PIN of a context login (RULES 2.7); empty otherwise.
    #[prost(bytes = "vec", tag = "11")]
    pub pin: Vec<u8>,
}

/// What the use gave.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct UseAnswer {
    /// Signature, ciphertext or plaintext; empty for a verdict.
    #[prost(bytes = "vec", tag = "1")]
    pub output: Vec<u8>,
    /// The sealed running state for the next part (`STREAM`).
    #[prost(bytes = "vec", tag = "2")]
    pub state: Vec<u8>,
}

/// Asks for random bytes (C_GenerateRandom).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Random {
    /// How many; at most 1 MiB a request.
    #[prost(uint32, tag = "1")]
    pub bytes: u32,
}

/// Random bytes.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct RandomAnswer {
    /// The bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub output: Vec<u8>,
}

secret! {
    Use { data, pin }
    UseAnswer { output }
    RandomAnswer { output }
}
secret!(@debug MechanismMessage);
secret!(@debug Plan);
