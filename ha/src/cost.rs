//! Cost classes: calls that take about as long as each other (HA 4.3). What a member usually takes is kept by class, so
//! that an RSA signature makes no HMAC look slow.
use spec::messages::{Call, KeyFunction, Use, UseParts};
use spec::{KeyType, MechanismType, mechanisms};

/// Data above so many bytes is work of its own kind.
const BULK_BYTES: usize = 4 << 10;
/// Data above so many bytes is long work.
const LONG_BYTES: usize = 64 << 10;

/// A cost class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cost {
    /// Reads of a few records: Status, Plan, attributes.
    Read,
    /// A page of a search.
    Search,
    /// Symmetric and elliptic-curve work over little data, random bytes.
    Short,
    /// RSA by the private key.
    Private,
    /// Work over more than 4 KiB.
    Bulk,
    /// Work over more than 64 KiB.
    Long,
    /// Everything else: makes, writes, logins, repair. Nothing is known of how long it takes.
    Other,
}

/// How many classes there are.
pub(crate) const COSTS: usize = 7;

impl Cost {
    /// The class's place in a table of `COSTS`.
    pub(crate) fn place(self) -> usize {
        match self {
            Cost::Read => 0,
            Cost::Search => 1,
            Cost::Short => 2,
            Cost::Private => 3,
            Cost::Bulk => 4,
            Cost::Long => 5,
            Cost::Other => 6,
        }
    }

    /// The class of a call.
    pub(crate) fn of(call: &Call) -> Cost {
        match call {
            Call::Status(_) | Call::Plan(_) | Call::GetAttributes(_) => Cost::Read,
            Call::Find(_) => Cost::Search,
            Call::Use(one) => of_use(one),
            Call::Random(random) => by_length(random.bytes as usize).unwrap_or(Cost::Short),
            Call::Login(_)
            | Call::SetPin(_)
            | Call::Make(_)
            | Call::Store(_)
            | Call::Commit(_)
            | Call::Discard(_)
            | Call::SetAttributes(_)
            | Call::Destroy(_)
            | Call::ChangeManifest(_)
            | Call::Adopt(_)
            | Call::Compare(_)
            | Call::Export(_)
            | Call::Join(_)
            | Call::Lease(_) => Cost::Other,
        }
    }
}

impl Cost {
    /// The class of a use.
    pub(crate) fn of_parts(parts: &UseParts<'_>) -> Cost {
        of_work(parts.function, parts.mechanism.number, parts.data.len(), parts.pin)
    }
}

fn of_use(one: &Use) -> Cost {
    let number = one.mechanism.as_ref().map_or(0, |mechanism| mechanism.number);
    of_work(one.function, number, one.data.len(), &one.pin)
}

fn of_work(function: u32, mechanism: u64, data_bytes: usize, pin: &[u8]) -> Cost {
    if !pin.is_empty() {
        // A context login is checked with it, which takes what a login takes (RULES 2.7).
        return Cost::Other;
    }
    let private = [KeyFunction::SIGN.0, KeyFunction::DECRYPT.0].contains(&function);
    let rsa =
        || mechanisms::row_of(MechanismType(mechanism)).is_some_and(|row| row.accepts_key(KeyType::RSA));
    by_length(data_bytes).unwrap_or_else(|| if private && rsa() { Cost::Private } else { Cost::Short })
}

fn by_length(bytes: usize) -> Option<Cost> {
    if bytes > LONG_BYTES {
        Some(Cost::Long)
    } else if bytes > BULK_BYTES {
        Some(Cost::Bulk)
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::field_reassign_with_default)]
mod tests {
    use super::*;
    use spec::messages::{MechanismMessage, Random};

    fn using(function: KeyFunction, mechanism: MechanismType, bytes: usize) -> Cost {
        let mut one = Use::default();
        one.function = function.0;
        one.mechanism = Some(MechanismMessage { number: mechanism.0, ..MechanismMessage::default() });
        one.data = vec![0; bytes];
        Cost::of(&Call::Use(one))
    }

    #[test]
    fn private_rsa_and_long_data_are_classes_of_their_own() {
        assert_eq!(using(KeyFunction::SIGN, MechanismType::ECDSA, 32), Cost::Short);
        assert_eq!(using(KeyFunction::SIGN, MechanismType::SHA256_RSA_PKCS, 32), Cost::Private);
        assert_eq!(using(KeyFunction::VERIFY, MechanismType::SHA256_RSA_PKCS, 32), Cost::Short);
        assert_eq!(using(KeyFunction::ENCRYPT, MechanismType::AES_GCM, 8 << 10), Cost::Bulk);
        assert_eq!(using(KeyFunction::ENCRYPT, MechanismType::AES_GCM, 1 << 20), Cost::Long);
        assert_eq!(Cost::of(&Call::Random(Random { bytes: 1 << 20 })), Cost::Long);
    }

    #[test]
    fn every_class_has_its_place() {
        let all = [Cost::Read, Cost::Search, Cost::Short, Cost::Private, Cost::Bulk, Cost::Long, Cost::Other];
        assert!(all.iter().enumerate().all(|(place, cost)| cost.place() == place));
        assert_eq!(all.len(), COSTS);
    }
}
