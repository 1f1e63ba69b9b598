//! The standard as data: numbers, attributes, templates, the table of calls; messages, records, the seam and
//! Platform. Types, tables and traits only: no network, disk, clock or chance.
#![forbid(unsafe_code)]

pub mod attributes;
pub mod calls;
pub mod changes;
pub mod classes;
pub mod flags;
pub mod functions;
pub mod long;
pub mod mechanisms;
pub mod messages;
pub mod meter;
pub mod numbers;
pub mod planted;
pub mod platform;
pub mod record;
pub mod seam;
pub mod sightings;
pub mod stats;
pub mod trace;
pub mod value;
pub mod wipe;

pub use mechanisms::{Mechanism, Parameters};
pub use numbers::{
    AttributeType, CertificateType, HandleObject, HandleSession, KeyType, MechanismType, ObjectClass, Rv,
    SlotId, UserType,
};
pub use record::{Ouid, Stamp};
pub use value::{Attribute, Template};
