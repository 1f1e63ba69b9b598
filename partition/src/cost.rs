//! What a request will cost, read from its fields without decoding it: the appliance chooses a thread by it.
//!
//! A field of a message may stand more than once, and a decoder takes the last one. The cost is the greatest over all of
//! them, so that no order of fields makes a request look cheaper than it is.
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use spec::messages::{KeyFunction, MakeKind};
use spec::{KeyType, MechanismType, mechanisms};

/// Which kind of thread should run a request.
///
/// Ascending by how much they may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cost {
    /// Microseconds: may run where it was read.
    Short,
    /// Waits for a durable write.
    Disk,
    /// Milliseconds and more of computing: RSA private operations, making, Argon2id, long data.
    Long,
}

/// Data above so many bytes makes any use long.
const LONG_BYTES: u64 = 64 << 10;

impl crate::Partition {
    /// The cost of an encoded request. Bytes that are none are short: refusing them is.
    pub fn cost(body: &[u8]) -> Cost {
        calls(body).map(|(number, call)| cost_of(number, call)).max().unwrap_or(Cost::Short)
    }

    /// The name of the call in an encoded request ([`spec::calls`]); none when the bytes hold no call, or several, which
    /// are refused.
    pub fn call_name(body: &[u8]) -> Option<&'static str> {
        call_number(body).and_then(spec::calls::call).map(|row| row.name)
    }
}

/// One field of a message: its number, and its varint or its bytes.
enum Field<'a> {
    Number(u32, u64),
    Bytes(u32, &'a [u8]),
}

/// Takes the next field; none at the end, for a kind of field that is not in use, and for bytes that are no message.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    loop {
        if bytes.is_empty() {
            return None;
        }
        let (number, wire_type) = decode_key(bytes).ok()?;
        match wire_type {
            WireType::Varint => return Some(Field::Number(number, decode_varint(bytes).ok()?)),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
                let (inside, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                return Some(Field::Bytes(number, inside));
            }
            other => skip_field(other, number, bytes, DecodeContext::default()).ok()?,
        }
    }
}

/// The fields of a message; they end early where the bytes are no message, which decoding refuses.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || next(&mut bytes))
}

/// The low 32 bits of a number, which is what a decoder takes for a field of that size.
const fn low(number: u64) -> u64 {
    number & 0xFFFF_FFFF
}

/// The calls of an encoded request, of which there must be one: their numbers and bytes.
fn calls(body: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    fields(body).filter_map(|field| match field {
        Field::Bytes(number, call) => spec::calls::call(number).map(|row| (row.number, call)),
        Field::Number(..) => None,
    })
}

/// The number of the one call of an encoded request (`spec::calls`); none when there are none or several.
pub(crate) fn call_number(body: &[u8]) -> Option<u32> {
    let mut calls = calls(body);
    let (number, _) = calls.next()?;
    calls.next().is_none().then_some(number)
}

fn cost_of(number: u32, call: &[u8]) -> Cost {
    match number {
        14 => cost_of_use(call),
        16 => cost_of_make(call),
        // Login, SetPin: Argon2id. Plan: parses a key at its first use, which checks an RSA key. Compare, Export: many
        // records.
        11..=13 | 26 | 27 => Cost::Long,
        17..=19 | 22..=25 | 28 => Cost::Disk,
        _ => Cost::Short,
    }
}

fn cost_of_make(call: &[u8]) -> Cost {
    let mut kinds = fields(call).filter_map(|field| match field {
        Field::Number(1, kind) => Some(low(kind)),
        Field::Number(..) | Field::Bytes(..) => None,
    });
    // Creating checks an RSA key and copying parses one.
    let generate = |kind: u64| kind == u64::from(MakeKind::GENERATE.0);
    if kinds.next().is_some_and(generate) && kinds.all(generate) { Cost::Short } else { Cost::Long }
}

fn cost_of_use(call: &[u8]) -> Cost {
    let (mut private, mut rsa, mut long) = (false, false, false);
    for field in fields(call) {
        match field {
            Field::Number(1, function) => {
                private |= [KeyFunction::SIGN, KeyFunction::DECRYPT]
                    .map(|f| u64::from(f.0))
                    .contains(&low(function));
            }
            Field::Bytes(2, mechanism) => rsa |= fields(mechanism).any(|field| is_rsa(&field)),
            Field::Bytes(6, data) => long |= data.len() as u64 > LONG_BYTES,
            Field::Bytes(11, pin) => long |= !pin.is_empty(),
            Field::Number(..) | Field::Bytes(..) => {}
        }
    }
    if long || (private && rsa) { Cost::Long } else { Cost::Short }
}

/// Whether this field of a mechanism is the number of one for RSA keys.
fn is_rsa(field: &Field<'_>) -> bool {
    let Field::Number(1, number) = field else { return false };
    mechanisms::row_of(MechanismType(*number)).is_some_and(|row| row.accepts_key(KeyType::RSA))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use spec::messages::{Call, Login, Make, MechanismMessage, Plan, RequestBody, Status, Store, Use};

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
        assert_eq!(of(Call::Login(Login::default())), Cost::Long);
        assert_eq!(of(Call::Plan(Plan::default())), Cost::Long, "it may parse an RSA key");
        assert_eq!(of(Call::Store(Store::default())), Cost::Disk);
        assert_eq!(using(KeyFunction::SIGN, MechanismType::SHA256_RSA_PKCS, 32), Cost::Long);
        assert_eq!(using(KeyFunction::VERIFY, MechanismType::SHA256_RSA_PKCS, 32), Cost::Short);
        assert_eq!(using(KeyFunction::SIGN, MechanismType::ECDSA, 32), Cost::Short);
        assert_eq!(using(KeyFunction::ENCRYPT, MechanismType::AES_GCM, 1 << 20), Cost::Long);
        let make = |kind: MakeKind| of(Call::Make(Make { kind: kind.0, ..Make::default() }));
        assert_eq!(make(MakeKind::GENERATE_PAIR), Cost::Long);
        assert_eq!(make(MakeKind::GENERATE), Cost::Short);
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
            // Several calls are refused unseen, whatever a decoder would merge them to.
            if calls.len() > 1 {
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
        assert_eq!(Partition::cost(&[field(10, b""), field(11, b"")].concat()), Cost::Long);
    }

    #[test]
    fn bytes_that_are_no_request_are_short() {
        for bytes in [&b""[..], &[0xFF; 20], &[0x72, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[0x0B, 0x0C]] {
            assert_eq!(Partition::cost(bytes), Cost::Short);
        }
    }
}
