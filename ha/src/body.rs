//! An encoded request body: made once, the same bytes for all its sends (RULES 1.5).
use std::sync::Arc;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use spec::messages::{Call, RequestBody, Use, UseParts};
use zeroize::Zeroizing;

use crate::cost::Cost;
use crate::error::Error;
use crate::view::View;

/// An encoded request body, shared by all its sends.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) bytes: Arc<Zeroizing<Vec<u8>>>,
    /// The number of its call.
    pub(crate) call: u32,
    /// What it costs.
    pub(crate) cost: Cost,
}

/// The body of a use that was sent and may have been carried out: whatever the use is asked for again with, its data,
/// signature, IV and state are these, for the application may have changed its buffers since (RULES 1.5).
pub struct SentUse(pub(crate) Body);

impl SentUse {
    /// What members were sent.
    ///
    /// # Errors
    /// [`Error::Ourselves`] when it is no use.
    pub fn read(self) -> Result<Use, Error> {
        match self.0.read()?.call.take() {
            Some(Call::Use(one)) => Ok(one),
            _ => Err(Error::Ourselves("a use of our own is something else".to_owned())),
        }
    }
}

impl Body {
    /// What was encoded.
    ///
    /// # Errors
    /// [`Error::Ourselves`] when it cannot be read.
    pub(crate) fn read(&self) -> Result<RequestBody, Error> {
        RequestBody::decode(self.bytes.as_slice())
            .map_err(|error| Error::Ourselves(format!("a body of our own cannot be read: {error}")))
    }

    /// Encodes a call, as [`spec::messages::RequestBody`] does, from borrowed parts into a buffer of exactly its length,
    /// so that no copy of a secret is left behind by growth.
    pub(crate) fn encode(group: &[u8], generation: u64, ticket: &[u8], call: &Call) -> Body {
        let generation_length = if generation == 0 { 0 } else { key_len(2) + encoded_len_varint(generation) };
        let length =
            bytes_length(1, group) + generation_length + bytes_length(3, ticket) + call.encoded_len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        put_bytes(1, group, &mut bytes);
        if generation != 0 {
            encode_key(2, WireType::Varint, &mut *bytes);
            encode_varint(generation, &mut *bytes);
        }
        put_bytes(3, ticket, &mut bytes);
        call.encode(&mut *bytes);
        Body { bytes: Arc::new(bytes), call: call.number(), cost: Cost::of(call) }
    }

    /// Encodes a use in place, into the memory of an earlier body (DESIGN 3).
    pub(crate) fn of_use(
        view: &View,
        ticket: &[u8],
        parts: &UseParts<'_>,
        cost: Cost,
        mut room: Arc<Zeroizing<Vec<u8>>>,
    ) -> Body {
        // A seam may hold on to the bytes of an earlier send.
        if Arc::get_mut(&mut room).is_none() {
            room = Arc::default();
        }
        if let Some(bytes) = Arc::get_mut(&mut room) {
            parts.encode(view.group(), view.generation(), ticket, bytes);
        }
        Body { bytes: room, call: UseParts::NUMBER, cost }
    }

    /// Encodes a call for the group as it is known.
    pub(crate) fn of(view: &View, ticket: &[u8], call: Call) -> Body {
        Body::encode(view.group(), view.generation(), ticket, &call)
    }
}

fn bytes_length(field: u32, bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { key_len(field) + encoded_len_varint(bytes.len() as u64) + bytes.len() }
}

fn put_bytes(field: u32, bytes: &[u8], buffer: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_key(field, WireType::LengthDelimited, buffer);
        encode_varint(bytes.len() as u64, buffer);
        buffer.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use spec::messages::Random;

    use super::*;

    #[test]
    fn a_body_from_borrowed_parts_is_the_one_that_the_message_gives() {
        for (group, generation, ticket) in
            [(vec![7; 16], 3_000, vec![1; 300]), (Vec::new(), 0, Vec::new()), (vec![1], 1, vec![])]
        {
            let call = Call::Random(Random { bytes: 77 });
            let body = Body::encode(&group, generation, &ticket, &call);
            let whole = RequestBody { group, generation, ticket, call: Some(call) };
            assert_eq!(**body.bytes, whole.encode_to_vec());
            assert_eq!((body.bytes.capacity(), body.call), (body.bytes.len(), 15));
        }
    }
}
