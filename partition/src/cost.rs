//! What a request will cost, read from its fields without decoding it: the appliance chooses a thread by it.
//!
//! A field of a message may stand more than once, and a decoder takes the last one. The cost is the greatest over all of
//! them, so that no order of fields makes a request look cheaper than it is.
use spec::messages::{KeyFunction, MakeKind};
use spec::{AttributeType, KeyType, MechanismType, mechanisms};

use crate::census;
use crate::fields::{Field, fields};
use crate::reading::Reading;
use crate::uses::Wanted;

/// Which kind of thread should run a request.
///
/// Ascending by how much they may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cost {
    /// Microseconds: may run where it was read.
    Short,
    /// Waits for a durable write.
    Disk,
    /// Milliseconds of computing: RSA private operations, checks of keys, long data, long searches.
    Long,
    /// Seconds of computing: the generation of RSA keys.
    Slow,
    /// Argon2id with durable writes before and after it: whatever carries a PIN (RULES 2.8).
    Pin,
}

/// Data above so many bytes makes any use long.
const LONG_BYTES: u64 = 64 << 10;
/// With more attributes than that a search is long, whatever index it can use.
const FIND_ATTRIBUTES_SHORT: usize = 16;

impl crate::Partition {
    /// The cost of an encoded request. What is refused before it is decoded is short, whatever it says it is.
    pub fn cost(body: &[u8]) -> Cost {
        Reading::of(body).cost()
    }

    /// The name of the call in an encoded request ([`spec::calls`]); none when the bytes hold no call, or several, which
    /// are refused.
    pub fn call_name(body: &[u8]) -> Option<&'static str> {
        census::one_call(body).ok().map(|(row, _)| row.name)
    }
}

/// The fields of a message that the census has read to its end.
fn readable(bytes: &[u8]) -> impl Iterator<Item = Field<'_>> {
    fields(bytes).map_while(Result::ok)
}

/// The low 32 bits of a number, which is what a decoder takes for a field of that size.
const fn low(number: u64) -> u64 {
    number & 0xFFFF_FFFF
}

/// The cost of a call that has been counted.
pub(crate) fn cost_of(number: u32, call: &[u8]) -> Cost {
    match number {
        14 => cost_of_use(call),
        16 => cost_of_make(call),
        20 => cost_of_find(call),
        // Login, SetPin.
        11 | 12 => Cost::Pin,
        // Plan parses a key at its first use, which checks an RSA key. Compare, Export: many records.
        13 | 26 | 27 => Cost::Long,
        17..=19 | 22..=25 | 28 => Cost::Disk,
        _ => Cost::Short,
    }
}

fn cost_of_make(call: &[u8]) -> Cost {
    let (mut generate, mut pair, mut rsa) = (false, false, false);
    let mut other = false;
    for field in readable(call) {
        match field {
            Field::Number(1, kind) => match MakeKind(u32::try_from(low(kind)).unwrap_or(0)) {
                MakeKind::GENERATE => generate = true,
                MakeKind::GENERATE_PAIR => pair = true,
                // Creating checks an RSA key and copying parses one.
                MakeKind(_) => other = true,
            },
            Field::Bytes(2, mechanism) => rsa |= is_rsa(mechanism),
            Field::Number(..) | Field::Bytes(..) | Field::Other => {}
        }
    }
    match (pair && rsa, generate && !pair && !other) {
        (true, _) => Cost::Slow,
        (false, true) => Cost::Short,
        (false, false) => Cost::Long,
    }
}

/// A search for a label or an id has an index that names few objects, unless many have the same; any other looks at all
/// of a page.
fn cost_of_find(call: &[u8]) -> Cost {
    let attributes = || {
        let templates = readable(call).filter_map(|field| bytes_of(&field, 1));
        templates.flat_map(readable).filter_map(|field| bytes_of(&field, 1))
    };
    let is_narrow = |attribute| {
        let mut kinds = readable(attribute).filter_map(|field| match field {
            Field::Number(1, kind) => Some(AttributeType(kind)),
            Field::Number(..) | Field::Bytes(..) | Field::Other => None,
        });
        let narrow = |kind| matches!(kind, AttributeType::LABEL | AttributeType::ID);
        kinds.next().is_some_and(narrow) && kinds.all(narrow)
    };
    let few = attributes().take(FIND_ATTRIBUTES_SHORT + 1).count() <= FIND_ATTRIBUTES_SHORT;
    if few && attributes().any(is_narrow) { Cost::Short } else { Cost::Long }
}

/// The bytes of a field of that number.
fn bytes_of<'a>(field: &Field<'a>, wanted: u32) -> Option<&'a [u8]> {
    match field {
        Field::Bytes(number, bytes) if *number == wanted => Some(bytes),
        Field::Number(..) | Field::Bytes(..) | Field::Other => None,
    }
}

fn cost_of_use(call: &[u8]) -> Cost {
    let (mut private, mut rsa, mut long, mut pin) = (false, false, false, false);
    for field in readable(call) {
        match field {
            Field::Number(1, function) => {
                private |= [KeyFunction::SIGN, KeyFunction::DECRYPT]
                    .map(|f| u64::from(f.0))
                    .contains(&low(function));
            }
            Field::Bytes(2, mechanism) => rsa |= is_rsa(mechanism),
            Field::Bytes(6, data) => long |= data.len() as u64 > LONG_BYTES,
            Field::Bytes(11, given) => pin |= !given.is_empty(),
            Field::Number(..) | Field::Bytes(..) | Field::Other => {}
        }
    }
    match (pin, long || (private && rsa)) {
        (true, _) => Cost::Pin,
        (false, true) => Cost::Long,
        (false, false) => Cost::Short,
    }
}

/// As [`cost_of`] says of the same bytes, for a Use that has been read: every field of it stands once.
pub(crate) fn cost_of_hot(wanted: &Wanted<'_>) -> Cost {
    let private = [KeyFunction::SIGN.0, KeyFunction::DECRYPT.0].contains(&wanted.function);
    let rsa = || wanted.mechanism.as_ref().is_some_and(|mechanism| takes_rsa(mechanism.number));
    if !wanted.pin.is_empty() {
        Cost::Pin
    } else if wanted.data.len() as u64 > LONG_BYTES || (private && rsa()) {
        Cost::Long
    } else {
        Cost::Short
    }
}

/// Whether it is the number of a mechanism for RSA keys.
fn takes_rsa(number: u64) -> bool {
    mechanisms::row_of(MechanismType(number)).is_some_and(|row| row.accepts_key(KeyType::RSA))
}

/// Whether any number in this mechanism is that of one for RSA keys. Left out, it is 0, which generates RSA keys.
fn is_rsa(mechanism: &[u8]) -> bool {
    let mut numbers = readable(mechanism)
        .filter_map(|field| match field {
            Field::Number(1, number) => Some(number),
            Field::Number(..) | Field::Bytes(..) | Field::Other => None,
        })
        .peekable();
    numbers.peek().is_none() || numbers.any(takes_rsa)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use prost::encoding::WireType;
    use spec::messages::{Call, Find, Login, Make, MechanismMessage, Plan, RequestBody, Status, Store, Use};
    use spec::{Attribute, Template};

    use super::*;
    use crate::Partition;

    fn of(call: Call) -> Cost {
        let body = RequestBody { group: vec![1; 16], generation: 1, ticket: vec![2; 99], call: Some(call) };
        Partition::cost(&body.encode_to_vec())
    }

    fn using(function: KeyFunction, mechanism: MechanismType, bytes: usize) -> Cost {
        let mechanism = MechanismMessage { number: mechanism.0, ..MechanismMessage::default() };
        let fill = |mut wanted: Use| {
            (wanted.function, wanted.mechanism, wanted.data) = (function.0, Some(mechanism), vec![0; bytes]);
            wanted
        };
        of(Call::Use(fill(Use::default())))
    }

    #[test]
    fn rsa_private_operations_logins_and_long_data_are_long_and_writes_wait_for_the_disk() {
        assert_eq!(of(Call::Status(Status::default())), Cost::Short);
        assert_eq!(of(Call::Login(Login::default())), Cost::Pin);
        assert_eq!(of(Call::Plan(Plan::default())), Cost::Long, "it may parse an RSA key");
        assert_eq!(of(Call::Store(Store::default())), Cost::Disk);
        assert_eq!(using(KeyFunction::SIGN, MechanismType::SHA256_RSA_PKCS, 32), Cost::Long);
        assert_eq!(using(KeyFunction::VERIFY, MechanismType::SHA256_RSA_PKCS, 32), Cost::Short);
        assert_eq!(using(KeyFunction::SIGN, MechanismType::ECDSA, 32), Cost::Short);
        assert_eq!(using(KeyFunction::ENCRYPT, MechanismType::AES_GCM, 1 << 20), Cost::Long);
        let make = |kind: MakeKind| of(Call::Make(Make { kind: kind.0, ..Make::default() }));
        assert_eq!(make(MakeKind::GENERATE_PAIR), Cost::Long, "without a mechanism it is refused");
        assert_eq!(make(MakeKind::GENERATE), Cost::Short);
    }

    #[test]
    fn rsa_pairs_are_slow_and_whatever_carries_a_pin_checks_one() {
        let make = |kind: MakeKind, mechanism: MechanismType| {
            let mechanism = MechanismMessage { number: mechanism.0, ..MechanismMessage::default() };
            of(Call::Make(Make { kind: kind.0, mechanism: Some(mechanism), ..Make::default() }))
        };
        assert_eq!(make(MakeKind::GENERATE_PAIR, MechanismType::RSA_PKCS_KEY_PAIR_GEN), Cost::Slow);
        assert_eq!(make(MakeKind::GENERATE_PAIR, MechanismType::EC_KEY_PAIR_GEN), Cost::Long);
        let mut wanted = Use::default();
        wanted.pin = b"1234".to_vec();
        assert_eq!(of(Call::Use(wanted)), Cost::Pin, "RULES 2.7, 2.8");
    }

    #[test]
    fn a_search_without_label_and_id_is_long() {
        let find = |kinds: &[AttributeType]| {
            let attributes = kinds.iter().map(|kind| Attribute::new(*kind, vec![1])).collect();
            of(Call::Find(Find { template: Some(Template { attributes }), ..Find::default() }))
        };
        let (class, label) = (AttributeType::CLASS, AttributeType::LABEL);
        assert_eq!(find(&[class, label]), Cost::Short);
        assert_eq!(find(&[AttributeType::ID]), Cost::Short);
        assert_eq!(find(&[class]), Cost::Long);
        assert_eq!(find(&[]), Cost::Long);
        assert_eq!(find(&[label; 17]), Cost::Long);
        assert_eq!(of(Call::Find(Find::default())), Cost::Long);
        // The second number of an attribute is the one that is decoded.
        let both = [varint(1, label.0), varint(1, class.0)].concat();
        assert_eq!(Partition::cost(&field(20, &field(1, &field(1, &both)))), Cost::Long);
    }

    /// A field of bytes: its key, its length, the bytes.
    fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        prost::encoding::encode_key(number, WireType::LengthDelimited, &mut encoded);
        prost::encoding::encode_varint(bytes.len() as u64, &mut encoded);
        [encoded, bytes.to_vec()].concat()
    }

    fn varint(number: u32, value: u64) -> Vec<u8> {
        let mut encoded = Vec::new();
        prost::encoding::encode_key(number, WireType::Varint, &mut encoded);
        prost::encoding::encode_varint(value, &mut encoded);
        encoded
    }

    /// Numbers that look like others once they are cut to 32 bits.
    fn number() -> impl Strategy<Value = u64> {
        (0_u64..5, any::<bool>()).prop_map(|(number, high)| number | u64::from(high) << 32)
    }

    /// One field of a Use or a Make, in any order and as often as the strategy likes.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        let mechanisms = [MechanismType::SHA256_RSA_PKCS, MechanismType::ECDSA, MechanismType::AES_GCM];
        let mechanism = proptest::collection::vec(proptest::sample::select(mechanisms.to_vec()), 0..3);
        prop_oneof![
            number().prop_map(|number| varint(1, number)),
            mechanism
                .prop_map(|list| field(2, &list.iter().flat_map(|m| varint(1, m.0)).collect::<Vec<_>>())),
            proptest::sample::select(&[0_usize, 32, (64 << 10) + 1][..])
                .prop_map(|bytes| field(6, &vec![0; bytes])),
            proptest::sample::select(&[0_usize, 4][..]).prop_map(|bytes| field(11, &vec![0; bytes])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_order_of_fields_makes_a_request_look_cheaper_than_what_is_decoded(
            calls in proptest::collection::vec(
                (proptest::sample::select(&[10_u32, 11, 14, 16, 17][..]), proptest::collection::vec(part(), 0..5)),
                1..3,
            ),
        ) {
            let body: Vec<u8> = calls.iter().flat_map(|(number, parts)| field(*number, &parts.concat())).collect();
            prop_assert_eq!(Partition::call_name(&body).is_some(), calls.len() == 1);
            // What is refused before it is decoded costs nothing, whatever a decoder would merge it to.
            if census::count(&body).is_err() {
                return Ok(());
            }
            let Ok(decoded) = RequestBody::decode(body.as_slice()) else { return Ok(()) };
            let canonical = decoded.encode_to_vec();
            prop_assert!(Partition::cost(&body) >= Partition::cost(&canonical));
            prop_assert_eq!(Partition::call_name(&body), Partition::call_name(&canonical));
        }
    }

    #[test]
    fn a_second_mechanism_function_or_kind_does_not_hide_the_first() {
        let sign = varint(1, u64::from(KeyFunction::SIGN.0) | 1 << 40);
        let number = |mechanism: MechanismType| varint(1, mechanism.0);
        let both = [number(MechanismType::ECDSA), number(MechanismType::SHA256_RSA_PKCS)].concat();
        assert_eq!(Partition::cost(&field(14, &[sign, field(2, &both)].concat())), Cost::Long);
        let kinds = [MakeKind::GENERATE, MakeKind::GENERATE_PAIR].map(|kind| varint(1, u64::from(kind.0)));
        assert_eq!(Partition::cost(&field(16, &kinds.concat())), Cost::Long);
        assert_eq!(
            Partition::cost(&[field(10, b""), field(11, b"")].concat()),
            Cost::Short,
            "refused unseen"
        );
    }

    #[test]
    fn bytes_that_are_no_request_are_short() {
        for bytes in [&b""[..], &[0xFF; 20], &[0x72, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[0x0B, 0x0C]] {
            assert_eq!(Partition::cost(bytes), Cost::Short);
        }
    }
}
