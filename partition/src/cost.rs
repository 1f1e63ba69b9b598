//! What a request will cost, read from its first bytes without decoding the rest: the appliance chooses a thread by it.
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use spec::messages::{KeyFunction, MakeKind};
use spec::{KeyType, MechanismType, mechanisms};

/// Which kind of thread should run a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cost {
    /// Microseconds: may run where it was read.
    Short,
    /// Milliseconds and more of computing: RSA private operations, making, Argon2id, long data.
    Long,
    /// Waits for a durable write.
    Disk,
}

/// Data above so many bytes makes any use long.
const LONG_BYTES: u64 = 64 << 10;

impl crate::Partition {
    /// The cost of an encoded request. Bytes that are none are short: refusing them is.
    pub fn cost(body: &[u8]) -> Cost {
        cost(body).unwrap_or(Cost::Short)
    }

    /// The name of the call in an encoded request ([`spec::calls`]); none when the bytes hold no call.
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

/// The call of an encoded request: its number and its bytes.
fn call_of(mut body: &[u8]) -> Option<(u32, &[u8])> {
    loop {
        match next(&mut body)? {
            Field::Bytes(number, call) if spec::calls::call(number).is_some() => return Some((number, call)),
            Field::Bytes(..) | Field::Number(..) => {}
        }
    }
}

/// The number of the call of an encoded request (`spec::calls`).
pub(crate) fn call_number(body: &[u8]) -> Option<u32> {
    call_of(body).map(|(number, _)| number)
}

fn cost(body: &[u8]) -> Option<Cost> {
    let (number, call) = call_of(body)?;
    let cost = match number {
        14 => cost_of_use(call),
        16 => cost_of_make(call),
        // Login, SetPin: Argon2id. Compare, Export: many records.
        11 | 12 | 26 | 27 => Cost::Long,
        17..=19 | 22..=25 | 28 => Cost::Disk,
        _ => Cost::Short,
    };
    Some(cost)
}

fn cost_of_make(mut call: &[u8]) -> Cost {
    let kind = match next(&mut call) {
        Some(Field::Number(1, kind)) => kind,
        _ => 0,
    };
    // Creating checks an RSA key and copying parses one.
    let short = kind == u64::from(MakeKind::GENERATE.0);
    if short { Cost::Short } else { Cost::Long }
}

fn cost_of_use(mut call: &[u8]) -> Cost {
    let (mut function, mut mechanism, mut bytes, mut pin) = (0, 0, 0, false);
    while let Some(field) = next(&mut call) {
        match field {
            Field::Number(1, number) => function = number,
            Field::Bytes(2, mut inside) => {
                if let Some(Field::Number(1, number)) = next(&mut inside) {
                    mechanism = number;
                }
            }
            Field::Bytes(6, data) => bytes = data.len() as u64,
            Field::Bytes(11, given) => pin = !given.is_empty(),
            Field::Number(..) | Field::Bytes(..) => {}
        }
    }
    let private = [KeyFunction::SIGN.0, KeyFunction::DECRYPT.0].map(u64::from).contains(&function);
    let rsa = mechanisms::row_of(MechanismType(mechanism)).is_some_and(|row| row.accepts_key(KeyType::RSA));
    if pin || bytes > LONG_BYTES || (private && rsa) { Cost::Long } else { Cost::Short }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use spec::messages::{Call, Login, Make, MechanismMessage, RequestBody, Status, Store, Use};

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
        assert_eq!(of(Call::Store(Store::default())), Cost::Disk);
        assert_eq!(using(KeyFunction::SIGN, MechanismType::SHA256_RSA_PKCS, 32), Cost::Long);
        assert_eq!(using(KeyFunction::VERIFY, MechanismType::SHA256_RSA_PKCS, 32), Cost::Short);
        assert_eq!(using(KeyFunction::SIGN, MechanismType::ECDSA, 32), Cost::Short);
        assert_eq!(using(KeyFunction::ENCRYPT, MechanismType::AES_GCM, 1 << 20), Cost::Long);
        let make = |kind: MakeKind| of(Call::Make(Make { kind: kind.0, ..Make::default() }));
        assert_eq!(make(MakeKind::GENERATE_PAIR), Cost::Long);
        assert_eq!(make(MakeKind::GENERATE), Cost::Short);
    }

    #[test]
    fn bytes_that_are_no_request_are_short() {
        for bytes in [&b""[..], &[0xFF; 20], &[0x72, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[0x0B, 0x0C]] {
            assert_eq!(Partition::cost(bytes), Cost::Short);
        }
    }
}
