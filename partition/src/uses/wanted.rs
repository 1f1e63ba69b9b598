//! A Use, borrowed: from its message, or from the bytes of the request where they lie.
use std::borrow::Cow;

use spec::Stamp;
use spec::messages::{MechanismMessage, Use};

use crate::objects::Named;

/// The fields of a [`Use`].
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) function: u32,
    pub(crate) mechanism: Option<Cow<'a, MechanismMessage>>,
    pub(crate) key: Option<Named<'a>>,
    pub(crate) plan: Option<Stamp>,
    pub(crate) how: u32,
    pub(crate) data: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) last: bool,
    pub(crate) state: &'a [u8],
    pub(crate) part: u64,
    pub(crate) pin: &'a [u8],
}

impl<'a> From<&'a Use> for Wanted<'a> {
    fn from(message: &'a Use) -> Self {
        Self {
            function: message.function,
            mechanism: message.mechanism.as_ref().map(Cow::Borrowed),
            key: message.key.as_ref().map(Named::from),
            plan: message.plan,
            how: message.how,
            data: &message.data,
            signature: &message.signature,
            last: message.last,
            state: &message.state,
            part: message.part,
            pin: &message.pin,
        }
    }
}
