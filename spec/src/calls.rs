//! THE TABLE of calls between client and member: number, name, resend class, secrecy, section. Codec, dispatch,
//! resend rule, log redaction and documentation read it.

/// What may be done when the outcome of a send is unknown (HA 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Answered in the process; never sent.
    Local,
    /// Any member, any number of times within the bound.
    Read,
    /// Any member; changes nothing that lasts.
    Use,
    /// Any member; makes something and stores nothing.
    Make,
    /// The same bytes, on every member, for ever.
    Store,
    /// Attribute changes: resent with the same tag; a resent one yields to other writers (HA 2.3).
    Change,
    /// Terminal, hence idempotent.
    Destroy,
    /// Credentials and manifest: at the home or one member, with the same tag (HA 4.2).
    Role,
}

/// How much of a call a log may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Everything but attribute values.
    Open,
    /// Lengths only.
    Data,
    /// The call's name only: it carries a PIN or key material.
    Secret,
}

/// One call.
#[derive(Debug)]
pub struct Row {
    /// The number on the wire: the tag of the `oneof` in [`RequestBody`](crate::messages::RequestBody).
    pub number: u32,
    /// The name in logs and documentation.
    pub name: &'static str,
    /// What may be done when its outcome is unknown.
    pub class: Class,
    /// How much of it a log may show.
    pub secrecy: Secrecy,
    /// Whether a ticket is demanded whatever the object (object rules demand one besides).
    pub ticket: bool,
    /// The longest request, its ticket and envelope included, in bytes; a member decodes no longer one.
    pub body_bytes_max: usize,
    /// The rule or section that it carries out.
    pub section: &'static str,
}

const fn row(
    number: u32,
    name: &'static str,
    class: Class,
    secrecy: Secrecy,
    ticket: bool,
    body_bytes_max: usize,
    section: &'static str,
) -> Row {
    Row { number, name, class, secrecy, ticket, body_bytes_max, section }
}

/// Numbers, names and lists of them.
const SMALL: usize = 64 << 10;
/// A template or a session object's blob, and what stands beside it.
const OBJECT: usize = 2 << 20;
/// The sealed objects of one create.
const BATCH: usize = 4 << 20;
/// Data or records, up to what a frame may hold.
const FULL: usize = crate::messages::BODY_BYTES_MAX;

/// Every call, by number.
pub static CALLS: &[Row] = &[
    row(10, "Status", Class::Read, Secrecy::Open, false, SMALL, "HA 1.5, 1.6, 2.6"),
    row(11, "Login", Class::Role, Secrecy::Secret, false, SMALL, "RULES 2.5, 2.6; PKCS #11 v3.1, 5.6.8"),
    row(12, "SetPin", Class::Role, Secrecy::Secret, false, SMALL, "HA 2.7; PKCS #11 v3.1, 5.5.9"),
    row(13, "Plan", Class::Read, Secrecy::Open, false, OBJECT, "RULES 1.1"),
    row(14, "Use", Class::Use, Secrecy::Data, false, FULL, "RULES 1.2-1.7"),
    row(15, "Random", Class::Use, Secrecy::Data, false, SMALL, "PKCS #11 v3.1, 5.19.2"),
    row(16, "Make", Class::Make, Secrecy::Secret, false, OBJECT, "HA 2.1; PKCS #11 v3.1, 5.7, 5.18"),
    row(17, "Store", Class::Store, Secrecy::Secret, false, BATCH, "HA 2.1, 2.2"),
    row(18, "Commit", Class::Store, Secrecy::Open, false, SMALL, "HA 2.2"),
    row(19, "Discard", Class::Destroy, Secrecy::Open, false, SMALL, "HA 2.2"),
    row(20, "Find", Class::Read, Secrecy::Data, false, OBJECT, "RULES 2.4; PKCS #11 v3.1, 5.7.7"),
    row(21, "GetAttributes", Class::Read, Secrecy::Data, false, OBJECT, "PKCS #11 v3.1, 5.7.5"),
    row(22, "SetAttributes", Class::Change, Secrecy::Data, false, OBJECT, "HA 2.3; PKCS #11 v3.1, 5.7.6"),
    row(23, "Destroy", Class::Destroy, Secrecy::Open, false, OBJECT, "HA 1.2, 2.3; PKCS #11 v3.1, 5.7.3"),
    row(24, "ChangeManifest", Class::Role, Secrecy::Open, true, SMALL, "HA 2.6, RULES 3.3"),
    row(25, "Adopt", Class::Role, Secrecy::Secret, true, SMALL, "RULES 3.2, 3.3"),
    row(26, "Compare", Class::Read, Secrecy::Open, false, SMALL, "HA 1.6, 4.6"),
    row(27, "Export", Class::Read, Secrecy::Secret, true, SMALL, "HA 4.6, RULES 3.3"),
    row(28, "Join", Class::Store, Secrecy::Secret, true, FULL, "HA 1.2, 4.6, RULES 3.3"),
    row(29, "Lease", Class::Use, Secrecy::Open, true, SMALL, "HA 4.6, RULES 3.3"),
];

/// The row of a call's number.
pub fn call(number: u32) -> Option<&'static Row> {
    CALLS.iter().find(|row| row.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Call;

    #[test]
    fn numbers_ascend_and_every_message_has_its_row() {
        assert!(CALLS.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert_eq!(CALLS.len(), Call::NUMBERS.len());
        assert!(Call::NUMBERS.iter().all(|number| call(*number).is_some()));
        assert!(CALLS.iter().all(|row| !row.section.is_empty()));
    }

    #[test]
    fn only_data_and_records_may_fill_a_frame() {
        let full = CALLS.iter().filter(|row| row.body_bytes_max == FULL).map(|row| row.name);
        assert_eq!(full.collect::<Vec<_>>(), ["Use", "Join"]);
    }
}
