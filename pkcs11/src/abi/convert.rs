//! Between the shapes of C and ours: numbers of the width of `unsigned long`, padded text, the information structures.

use client::{SessionInfo, SlotInfo, TokenInfo, Version};
use cryptoki_sys::{
    CK_INFO, CK_MECHANISM_INFO, CK_SESSION_INFO, CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG,
    CK_UNAVAILABLE_INFORMATION, CK_VERSION,
};
use spec::messages::MechanismFacts;
use spec::{HandleObject, HandleSession, MechanismType, SlotId};

/// A value of ours as the C value that stands for it.
pub(super) trait ToC<C> {
    /// The C value.
    fn to_c(self) -> C;
}

/// A number in the width of `CK_ULONG`; what does not fit saturates to `CK_UNAVAILABLE_INFORMATION`.
pub(super) fn ulong<T>(number: T) -> CK_ULONG
where
    CK_ULONG: TryFrom<T>,
{
    CK_ULONG::try_from(number).unwrap_or(CK_UNAVAILABLE_INFORMATION)
}

/// A C number in the width of the standard's numbers inside: `CK_UNAVAILABLE_INFORMATION` widens to itself.
#[allow(clippy::useless_conversion, reason = "CK_ULONG has 32 bits on some platforms")]
pub(super) fn wide(number: CK_ULONG) -> u64 {
    if number == CK_UNAVAILABLE_INFORMATION {
        spec::numbers::UNAVAILABLE_INFORMATION
    } else {
        u64::from(number)
    }
}

/// A session handle.
pub(super) fn session(handle: CK_ULONG) -> HandleSession {
    HandleSession(wide(handle))
}

/// An object handle.
pub(super) fn object(handle: CK_ULONG) -> HandleObject {
    HandleObject(wide(handle))
}

/// A slot's number.
pub(super) fn slot(number: CK_ULONG) -> SlotId {
    SlotId(wide(number))
}

/// UTF-8 in a field of fixed size, padded with blanks, cut between characters (PKCS #11 v3.1, 3.1).
pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let ends = text.char_indices().map(|(start, character)| start.saturating_add(character.len_utf8()));
    let end = ends.take_while(|end| *end <= N).last().unwrap_or(0);
    let mut field = [b' '; N];
    field.iter_mut().zip(text.bytes().take(end)).for_each(|(place, byte)| *place = byte);
    field
}

impl ToC<CK_ULONG> for u64 {
    fn to_c(self) -> CK_ULONG {
        ulong(self)
    }
}

impl ToC<CK_ULONG> for HandleSession {
    fn to_c(self) -> CK_ULONG {
        ulong(self.0)
    }
}

impl ToC<CK_ULONG> for HandleObject {
    fn to_c(self) -> CK_ULONG {
        ulong(self.0)
    }
}

impl ToC<CK_ULONG> for SlotId {
    fn to_c(self) -> CK_ULONG {
        ulong(self.0)
    }
}

impl ToC<CK_ULONG> for MechanismType {
    fn to_c(self) -> CK_ULONG {
        ulong(self.0)
    }
}

impl ToC<CK_INFO> for CK_INFO {
    fn to_c(self) -> CK_INFO {
        self
    }
}

impl ToC<CK_VERSION> for Version {
    fn to_c(self) -> CK_VERSION {
        CK_VERSION { major: self.major, minor: self.minor }
    }
}

impl ToC<CK_SLOT_INFO> for SlotInfo {
    fn to_c(self) -> CK_SLOT_INFO {
        CK_SLOT_INFO {
            slotDescription: padded(&self.description),
            manufacturerID: padded(&self.manufacturer),
            flags: ulong(self.flags),
            hardwareVersion: self.hardware.to_c(),
            firmwareVersion: self.firmware.to_c(),
        }
    }
}

impl ToC<CK_TOKEN_INFO> for TokenInfo {
    fn to_c(self) -> CK_TOKEN_INFO {
        CK_TOKEN_INFO {
            label: padded(&self.label),
            manufacturerID: padded(&self.manufacturer),
            model: padded(&self.model),
            serialNumber: padded(&self.serial),
            flags: ulong(self.flags),
            ulMaxSessionCount: ulong(self.sessions_max),
            ulSessionCount: ulong(self.sessions),
            ulMaxRwSessionCount: ulong(self.rw_sessions_max),
            ulRwSessionCount: ulong(self.rw_sessions),
            ulMaxPinLen: ulong(self.pin_bytes_max),
            ulMinPinLen: ulong(self.pin_bytes_min),
            ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
            hardwareVersion: self.hardware.to_c(),
            firmwareVersion: self.firmware.to_c(),
            utcTime: padded(&self.utc_time),
        }
    }
}

impl ToC<CK_SESSION_INFO> for SessionInfo {
    fn to_c(self) -> CK_SESSION_INFO {
        CK_SESSION_INFO {
            slotID: self.slot.to_c(),
            state: ulong(self.state.0),
            flags: ulong(self.flags),
            ulDeviceError: ulong(self.device_error),
        }
    }
}

impl ToC<CK_MECHANISM_INFO> for MechanismFacts {
    fn to_c(self) -> CK_MECHANISM_INFO {
        CK_MECHANISM_INFO {
            ulMinKeySize: ulong(self.key_size_min),
            ulMaxKeySize: ulong(self.key_size_max),
            flags: ulong(self.flags),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_padded_and_cut_between_characters() {
        assert_eq!(padded::<4>("ab"), *b"ab  ");
        assert_eq!(padded::<4>("abcde"), *b"abcd");
        assert_eq!(padded::<4>("abc\u{e9}"), *b"abc ");
        assert_eq!(padded::<4>(""), *b"    ");
    }

    #[test]
    fn unavailable_information_survives_both_ways() {
        assert_eq!(wide(CK_UNAVAILABLE_INFORMATION), u64::MAX);
        assert_eq!(ulong(u64::MAX), CK_UNAVAILABLE_INFORMATION);
        assert_eq!(ulong(wide(7)), 7);
    }

    #[test]
    fn minimum_and_maximum_do_not_change_places() {
        let info = TokenInfo {
            label: "label".into(),
            manufacturer: "maker".into(),
            model: "model".into(),
            serial: "1234".into(),
            flags: 1,
            sessions_max: 2,
            sessions: 3,
            rw_sessions_max: 4,
            rw_sessions: 5,
            pin_bytes_max: 6,
            pin_bytes_min: 7,
            hardware: Version { major: 8, minor: 9 },
            firmware: Version { major: 10, minor: 11 },
            utc_time: String::new(),
        };
        let c: CK_TOKEN_INFO = info.to_c();
        assert_eq!((c.ulMaxSessionCount, c.ulSessionCount), (2, 3));
        assert_eq!((c.ulMaxRwSessionCount, c.ulRwSessionCount), (4, 5));
        assert_eq!((c.ulMaxPinLen, c.ulMinPinLen), (6, 7));
        assert_eq!((c.hardwareVersion.major, c.firmwareVersion.minor), (8, 11));
        assert_eq!(&c.label[..6], b"label ");
        assert_eq!(c.utcTime, [b' '; 16]);
    }
}
