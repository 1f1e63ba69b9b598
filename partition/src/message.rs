//! From messages to typed values: mechanisms within their bounds.
use spec::Mechanism;
use spec::messages::MechanismMessage;

use crate::bounds;
use crate::error::Refusal;

/// Longest IV, AAD or label, in bytes.
const PARAMETER_BYTES_MAX: usize = 1 << 20;

/// The mechanism of a message. Whether its parameters suit it is checked where it is used.
pub(crate) fn mechanism_of(message: &MechanismMessage) -> Result<Mechanism, Refusal> {
    let longest = message.iv.len().max(message.aad.len()).max(message.label.len());
    bounds::at_most("bytes in a parameter", longest, PARAMETER_BYTES_MAX)?;
    message.to_mechanism().ok_or_else(|| {
        Refusal::malformed(format!("wanted a known kind of parameters, found {}", message.kind))
    })
}
