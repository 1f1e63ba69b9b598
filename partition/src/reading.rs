//! An encoded request, read once before it is run: which call it holds, what that costs, and of a Use every field where it
//! lies, without a copy.
//!
//! ```text
//! body -> a Use as releases write it, fields in ascending order -> Hot: run from where it lies
//!      -> anything else -> census -> Counted: decoded when it is run
//!                                 -> Refused, unread
//! ```
//! Whatever [`Hot`] is not sure of goes the other way, so that every refusal and every rule of decoding is written once.
use std::borrow::Cow;

use spec::Stamp;
use spec::calls::{Row, call};
use spec::messages::{MechanismMessage, UseParts};

use crate::census;
use crate::cost::{Cost, cost_of, cost_of_hot};
use crate::error::Refusal;
use crate::fields::{self, Field};
use crate::objects::Named;
use crate::uses::Wanted;

/// A mechanism is copied here, on the thread of its link; a longer one goes the other way.
const MECHANISM_BYTES_MAX: usize = 4 << 10;

/// See the head of this file.
pub struct Reading<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) row: Option<&'static Row>,
    pub(crate) kind: Kind<'a>,
    cost: Cost,
}

/// What was found.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and the large one is the usual one")]
pub(crate) enum Kind<'a> {
    Hot(Hot<'a>),
    Counted,
    Refused(Refusal),
}

/// A Use in a request that holds nothing else.
#[derive(Default)]
pub(crate) struct Hot<'a> {
    pub(crate) group: &'a [u8],
    pub(crate) generation: u64,
    pub(crate) ticket: &'a [u8],
    pub(crate) wanted: Wanted<'a>,
}

impl<'a> Reading<'a> {
    /// Reads an encoded `RequestBody`. Costs less than a microsecond for what is usual and some ten for what is refused.
    pub fn of(body: &'a [u8]) -> Self {
        let mut hot = Hot::default();
        if let Some(row) = hot.read(body) {
            let cost = cost_of_hot(&hot.wanted);
            return Self { body, row: Some(row), kind: Kind::Hot(hot), cost };
        }
        let row = census::one_call(body).ok().map(|(row, _)| row);
        match census::count(body) {
            Ok(counted) => {
                let cost = cost_of(counted.row.number, counted.call);
                Self { body, row, kind: Kind::Counted, cost }
            }
            // What is refused before it is decoded is short, whatever it says it is.
            Err(refusal) => Self { body, row, kind: Kind::Refused(refusal), cost: Cost::Short },
        }
    }

    /// The encoded request.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// What it will cost: chooses the thread that runs it.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The row of its call; none when the bytes hold no call, or several, which are refused.
    pub fn row(&self) -> Option<&'static Row> {
        self.row
    }
}

/// The fields of a message, which have to stand in ascending order, each once.
fn ascending<'a>(mut bytes: &'a [u8], mut take: impl FnMut(Field<'a>) -> Option<()>) -> Option<()> {
    let mut last = 0;
    while !bytes.is_empty() {
        let field = fields::take(&mut bytes)?;
        let (Field::Number(number, _) | Field::Bytes(number, _)) = field else { return None };
        if number <= last {
            return None;
        }
        last = number;
        take(field)?;
    }
    Some(())
}

/// The low 32 bits of a number, which is what a decoder takes for a field of that size.
fn low(number: u64) -> u32 {
    u32::try_from(number & 0xFFFF_FFFF).unwrap_or(0)
}

impl<'a> Hot<'a> {
    /// Reads it into what is empty: it is too large to be moved about. The row of a Use; `None` when it is anything else.
    fn read(&mut self, body: &'a [u8]) -> Option<&'static Row> {
        let mut found = None;
        ascending(body, |field| {
            match field {
                Field::Bytes(1, bytes) => self.group = bytes,
                Field::Number(2, number) => self.generation = number,
                Field::Bytes(3, bytes) => self.ticket = bytes,
                Field::Bytes(UseParts::NUMBER, bytes) => found = Some(bytes),
                _ => return None,
            }
            Some(())
        })?;
        read_use(found?, &mut self.wanted)?;
        call(UseParts::NUMBER).filter(|row| body.len() <= row.body_bytes_max)
    }
}

fn read_use<'a>(bytes: &'a [u8], wanted: &mut Wanted<'a>) -> Option<()> {
    ascending(bytes, |field| {
        match field {
            Field::Number(1, number) => wanted.function = low(number),
            Field::Bytes(2, bytes) if bytes.len() <= MECHANISM_BYTES_MAX => {
                wanted.mechanism = Some(Cow::Owned(mechanism(bytes)?));
            }
            Field::Bytes(3, bytes) => read_named(bytes, wanted.key.insert(Named::default()))?,
            Field::Bytes(4, bytes) => wanted.plan = Some(stamp(bytes)?),
            Field::Number(5, number) => wanted.how = low(number),
            Field::Bytes(6, bytes) => wanted.data = bytes,
            Field::Bytes(7, bytes) => wanted.signature = bytes,
            Field::Number(8, number) => wanted.last = number != 0,
            Field::Bytes(9, bytes) => wanted.state = bytes,
            Field::Number(10, number) => wanted.part = number,
            Field::Bytes(11, bytes) => wanted.pin = bytes,
            _ => return None,
        }
        Some(())
    })
}

fn mechanism(bytes: &[u8]) -> Option<MechanismMessage> {
    let mut message = MechanismMessage::default();
    ascending(bytes, |field| {
        match field {
            Field::Number(1, number) => message.number = number,
            Field::Number(2, number) => message.kind = low(number),
            Field::Bytes(3, bytes) => message.iv = bytes.to_vec(),
            Field::Bytes(4, bytes) => message.aad = bytes.to_vec(),
            Field::Number(5, number) => message.tag_bits = number,
            Field::Number(6, number) => message.hash = number,
            Field::Number(7, number) => message.mgf = number,
            Field::Number(8, number) => message.salt_bytes = number,
            Field::Bytes(9, bytes) => message.label = bytes.to_vec(),
            Field::Number(10, number) => message.mac_bytes = number,
            _ => return None,
        }
        Some(())
    })?;
    Some(message)
}

fn read_named<'a>(bytes: &'a [u8], named: &mut Named<'a>) -> Option<()> {
    ascending(bytes, |field| {
        match field {
            Field::Bytes(1, bytes) => named.ouid = bytes,
            Field::Bytes(2, bytes) => named.least = Some(stamp(bytes)?),
            Field::Bytes(3, bytes) => named.blob_hash = bytes,
            Field::Bytes(4, bytes) => named.blob = bytes,
            Field::Bytes(5, bytes) => named.changed = bytes,
            _ => return None,
        }
        Some(())
    })
}

fn stamp(bytes: &[u8]) -> Option<Stamp> {
    let mut stamp = Stamp::default();
    ascending(bytes, |field| {
        match field {
            Field::Number(1, number) => stamp.ms = number,
            Field::Number(2, number) => stamp.counter = low(number),
            Field::Number(3, number) => stamp.incarnation = number,
            _ => return None,
        }
        Some(())
    })?;
    Some(stamp)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use prost::encoding::WireType;
    use spec::messages::{Call, RequestBody, Use};

    use super::*;

    /// A field in its encoding; numbers of it may be greater than 32 bits.
    fn field(number: u32, value: &Value) -> Vec<u8> {
        let mut encoded = Vec::new();
        match value {
            Value::Number(value) => {
                prost::encoding::encode_key(number, WireType::Varint, &mut encoded);
                prost::encoding::encode_varint(*value, &mut encoded);
            }
            Value::Bytes(bytes) => {
                prost::encoding::encode_key(number, WireType::LengthDelimited, &mut encoded);
                prost::encoding::encode_varint(bytes.len() as u64, &mut encoded);
                encoded.extend_from_slice(bytes);
            }
        }
        encoded
    }

    #[derive(Clone, Debug)]
    enum Value {
        Number(u64),
        Bytes(Vec<u8>),
    }

    fn leaf() -> impl Strategy<Value = Value> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..20);
        prop_oneof![any::<u64>().prop_map(Value::Number), bytes.prop_map(Value::Bytes)]
    }

    /// Fields of a message: the numbers that it has and some more, mostly in their order.
    fn message(
        numbers: u32,
        inside: impl Strategy<Value = Value> + 'static,
    ) -> impl Strategy<Value = Vec<u8>> {
        let fields = proptest::collection::vec((1..=numbers, inside), 0..8);
        (fields, 0..4_u8).prop_map(|(mut fields, order)| {
            if order > 0 {
                fields.sort_by_key(|(number, _)| *number);
            }
            if order > 1 {
                fields.dedup_by_key(|(number, _)| *number);
            }
            fields.iter().flat_map(|(number, value)| field(*number, value)).collect()
        })
    }

    /// A Use whose fields have the right types mostly.
    fn using() -> impl Strategy<Value = Vec<u8>> {
        let stamp = || message(3, any::<u64>().prop_map(Value::Number)).prop_map(Value::Bytes);
        let value = prop_oneof![
            4 => leaf(),
            1 => message(10, leaf()).prop_map(Value::Bytes),
            1 => message(5, prop_oneof![leaf(), stamp()]).prop_map(Value::Bytes),
            1 => stamp(),
        ];
        message(12, value)
    }

    /// The Use that a decoder makes of the borrowed one.
    fn decoded(wanted: &Wanted<'_>) -> Use {
        let mut message = Use::default();
        let object = |named: &Named<'_>| spec::messages::ObjectRef {
            ouid: named.ouid.to_vec(),
            least: named.least,
            blob_hash: named.blob_hash.to_vec(),
            blob: named.blob.to_vec(),
            changed: named.changed.to_vec(),
        };
        (message.function, message.how, message.part) = (wanted.function, wanted.how, wanted.part);
        message.mechanism = wanted.mechanism.as_deref().cloned();
        message.key = wanted.key.as_ref().map(object);
        (message.plan, message.last) = (wanted.plan, wanted.last);
        (message.data, message.signature) = (wanted.data.to_vec(), wanted.signature.to_vec());
        (message.state, message.pin) = (wanted.state.to_vec(), wanted.pin.to_vec());
        message
    }

    fn hot(body: &[u8]) -> Option<Hot<'_>> {
        let mut hot = Hot::default();
        hot.read(body).map(|_| hot)
    }

    /// What both ways say of a body; whether it was read hot.
    fn compare(body: &[u8]) -> bool {
        let Some(hot) = hot(body) else { return false };
        let counted = census::count(body).expect("what is read hot passes the census");
        assert_eq!(cost_of_hot(&hot.wanted), cost_of(counted.row.number, counted.call));
        let request = RequestBody::decode(body).expect("what is read hot can be decoded");
        assert_eq!((hot.group, hot.generation), (request.group.as_slice(), request.generation));
        assert_eq!(hot.ticket, request.ticket);
        let Some(Call::Use(message)) = &request.call else { panic!("a Use is a Use") };
        assert!(decoded(&hot.wanted) == *message);
        assert!(decoded(&Wanted::from(message)) == *message);
        true
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_where_it_lies_is_what_a_decoder_makes_of_it_at_the_same_cost(
            using in using(),
            generation in any::<u64>(),
            other in message(15, leaf()),
            alone in any::<bool>(),
        ) {
            let front = [field(1, &Value::Bytes(vec![1; 16])), field(2, &Value::Number(generation))].concat();
            let body = [front, field(14, &Value::Bytes(using))].concat();
            compare(&body);
            if !alone {
                compare(&[body, other].concat());
            }
        }
    }

    #[test]
    fn a_use_as_releases_write_it_is_read_where_it_lies_and_anything_odd_is_not() {
        let mechanism = MechanismMessage {
            number: 0x1087,
            kind: 2,
            iv: vec![1; 12],
            tag_bits: 128,
            ..Default::default()
        };
        let stamp = Some(spec::messages::EncodedStamp::from(Stamp { ms: 7, counter: 1, incarnation: 3 }));
        let parts = UseParts {
            function: 3,
            mechanism: &mechanism,
            iv: None,
            ouid: &[9; 16],
            least: stamp.as_ref(),
            blob_hash: &[],
            blob: &[],
            changed: b"changes",
            plan: stamp.as_ref(),
            how: 1,
            data: b"data",
            signature: &[],
            last: true,
            state: b"state",
            part: 2,
            pin: b"1234",
        };
        let mut body = Vec::new();
        parts.encode(&[1; 16], 5, b"ticket", &mut body);
        assert!(compare(&body));
        for end in [&[0x72, 0][..], &[0x0A, 0], &[0xFA, 1, 0], &[0x0B, 0x0C], &[0xFF]] {
            assert!(hot(&[&body, end].concat()).is_none(), "{end:?}");
        }
        assert!((0..body.len()).filter(|cut| compare(&body[..*cut])).count() < body.len());
        let flipped = |at: usize, bit: u8| {
            let mut body = body.clone();
            body[at] ^= 1 << bit;
            body
        };
        let read = (0..body.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        assert!(read.filter(|(at, bit)| compare(&flipped(*at, *bit))).count() > 100);
    }
}
