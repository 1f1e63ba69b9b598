//! What the choice of members must know of a call: class, object, mechanism, cost, deadline (HA 4.2).
use spec::Ouid;
use spec::calls::{self, Class};
use spec::messages::{Call, MakeKind, MechanismMessage, UseParts};
use spec::platform::Moment;

use crate::cost::Cost;

/// What the choice of members must know of a call.
#[derive(Clone, Copy)]
pub(crate) struct Errand {
    /// What may be done when an outcome is unknown.
    pub(crate) class: Class,
    /// The token object that it is about.
    pub(crate) object: Option<Ouid>,
    /// The mechanism that it needs, `CKM_*`.
    pub(crate) mechanism: Option<u64>,
    /// What it costs.
    pub(crate) cost: Cost,
    /// When it must have ended.
    pub(crate) deadline: Moment,
    /// Whether only members with the newest credentials may serve (RULES 2.5).
    pub(crate) newest_credentials: bool,
}

impl Errand {
    /// The errand of a call that must have ended at this moment.
    pub(crate) fn of(call: &Call, deadline: Moment) -> Errand {
        Errand {
            class: class_of(call),
            object: object_of(call),
            mechanism: mechanism_of(call),
            cost: Cost::of(call),
            deadline,
            newest_credentials: matches!(call, Call::Login(_)),
        }
    }

    /// The errand of a use that must have ended at this moment.
    pub(crate) fn of_parts(parts: &UseParts<'_>, deadline: Moment) -> Errand {
        Errand {
            class: Class::Use,
            object: Ouid::from_bytes(parts.ouid),
            mechanism: Some(parts.mechanism.number),
            cost: Cost::of_parts(parts),
            deadline,
            newest_credentials: false,
        }
    }

    /// Whether it may be sent to a second member while the first one works on it (HA 4.3, 4.4).
    pub(crate) fn may_be_doubled(&self) -> bool {
        match self.class {
            Class::Read | Class::Use => true,
            Class::Local | Class::Make | Class::Store | Class::Change | Class::Destroy | Class::Role => false,
        }
    }
}

/// The class of a call, by the table (HA 4.2).
fn class_of(call: &Call) -> Class {
    calls::call(call.number()).map_or(Class::Role, |row| row.class)
}

/// The token object that a call speaks of: a member that owes a write of it does not serve it (HA 2.5).
fn object_of(call: &Call) -> Option<Ouid> {
    let object = match call {
        Call::Plan(plan) => plan.key.as_ref(),
        Call::Use(one) => one.key.as_ref(),
        Call::Make(make) => make.source.as_ref(),
        Call::GetAttributes(get) => get.object.as_ref(),
        Call::SetAttributes(set) => set.object.as_ref(),
        Call::Destroy(destroy) => destroy.object.as_ref(),
        Call::Status(_)
        | Call::Login(_)
        | Call::SetPin(_)
        | Call::Random(_)
        | Call::Store(_)
        | Call::Commit(_)
        | Call::Discard(_)
        | Call::Find(_)
        | Call::ChangeManifest(_)
        | Call::Adopt(_)
        | Call::Compare(_)
        | Call::Export(_)
        | Call::Join(_)
        | Call::Lease(_) => None,
    };
    object.and_then(|object| Ouid::from_bytes(&object.ouid))
}

/// The mechanism that a call needs: a member that does not offer it is passed over.
fn mechanism_of(call: &Call) -> Option<u64> {
    let number = |mechanism: &Option<MechanismMessage>| mechanism.as_ref().map(|mechanism| mechanism.number);
    match call {
        Call::Plan(plan) => number(&plan.mechanism),
        Call::Use(one) => number(&one.mechanism),
        Call::Make(make) => number(&make.mechanism),
        _ => None,
    }
}

/// Whether the call makes new keys, which may take long.
pub(crate) fn generates(call: &Call) -> bool {
    matches!(call, Call::Make(make) if make.kind == MakeKind::GENERATE.0 || make.kind == MakeKind::GENERATE_PAIR.0)
}

/// Whether an OK to this call acknowledges a write of this process (HA 3.1).
pub(crate) fn is_write(call: u32) -> bool {
    const LOGIN: u32 = 11;
    match calls::call(call).map(|row| row.class) {
        Some(Class::Store | Class::Change | Class::Destroy) => true,
        Some(Class::Role) => call != LOGIN,
        Some(Class::Local | Class::Read | Class::Use | Class::Make) | None => false,
    }
}

/// Whether the call reads objects, so that the member must have reached this process's last write (HA 3.1): Plan, Use,
/// Make, Find, GetAttributes, SetAttributes.
pub(crate) fn reads_objects(call: u32) -> bool {
    [13, 14, 16, 20, 21, 22].contains(&call)
}

#[cfg(test)]
mod tests {
    use spec::messages::{ObjectRef, Use};

    use super::*;

    #[test]
    fn a_use_in_parts_is_the_errand_of_its_message() {
        let mechanism = MechanismMessage { number: 0x1041, ..MechanismMessage::default() };
        let key = ObjectRef { ouid: vec![7; 16], ..ObjectRef::default() };
        for (function, data, pin) in
            [(1, vec![0; 32], vec![]), (3, vec![0; 70_000], vec![]), (1, vec![1], vec![2])]
        {
            let message = Use {
                function,
                mechanism: Some(mechanism.clone()),
                key: Some(key.clone()),
                plan: None,
                how: 1,
                data,
                signature: Vec::new(),
                last: true,
                state: Vec::new(),
                part: 0,
                pin,
            };
            let parts = UseParts {
                function,
                mechanism: &mechanism,
                iv: None,
                ouid: &key.ouid,
                least: None,
                blob_hash: &[],
                blob: &[],
                changed: &[],
                plan: None,
                how: 1,
                data: &message.data,
                signature: &[],
                last: true,
                state: &[],
                part: 0,
                pin: &message.pin,
            };
            let shape =
                |one: &Errand| (one.class, one.object, one.mechanism, one.cost, one.newest_credentials);
            let one = Errand::of_parts(&parts, Moment(9));
            assert_eq!(shape(&one), shape(&Errand::of(&Call::Use(message.clone()), Moment(9))));
        }
        assert_eq!(UseParts::NUMBER, Call::Use(Use::default()).number());
    }

    #[test]
    fn writes_and_reads_of_objects_are_told_apart_by_the_table() {
        let names = |wanted: fn(u32) -> bool| -> Vec<&str> {
            calls::CALLS.iter().filter(|row| wanted(row.number)).map(|row| row.name).collect()
        };
        assert_eq!(
            names(is_write),
            [
                "SetPin",
                "Store",
                "Commit",
                "Discard",
                "SetAttributes",
                "Destroy",
                "ChangeManifest",
                "Adopt",
                "Join"
            ]
        );
        assert_eq!(names(reads_objects), ["Plan", "Use", "Make", "Find", "GetAttributes", "SetAttributes"]);
    }
}
