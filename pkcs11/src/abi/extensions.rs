//! The C types of functions of the vendor's client that are exported besides the standard's, after its public SDK pages.
#![allow(non_camel_case_types, non_snake_case, reason = "the names are those of C")]

use client::HaState;
use cryptoki_sys::{CK_RV, CK_ULONG};

use super::convert::{ToC, ulong};

/// Members that the structure has room for.
const CK_HA_MAX_MEMBERS: usize = 32;

/// One member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct CK_HA_MEMBER {
    pub(super) memberSerial: CK_ULONG,
    pub(super) memberStatus: CK_RV,
}

/// The members of a group.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct CK_HA_STATE {
    pub(super) groupSerial: CK_ULONG,
    pub(super) memberList: [CK_HA_MEMBER; CK_HA_MAX_MEMBERS],
    /// How many of the list are members. The pages call its type CK_USHORT: a reader of two bytes and one of eight find the
    /// same number here, on machines that put the low byte first.
    pub(super) listSize: CK_ULONG,
}

impl ToC<CK_HA_STATE> for HaState {
    fn to_c(self) -> CK_HA_STATE {
        let mut list = [CK_HA_MEMBER { memberSerial: 0, memberStatus: 0 }; CK_HA_MAX_MEMBERS];
        for (place, (serial, status)) in list.iter_mut().zip(&self.members) {
            *place = CK_HA_MEMBER { memberSerial: ulong(*serial), memberStatus: ulong(status.0) };
        }
        CK_HA_STATE {
            groupSerial: ulong(self.serial),
            memberList: list,
            listSize: ulong(self.members.len().min(CK_HA_MAX_MEMBERS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Rv;

    #[test]
    fn the_structure_has_the_vendors_layout_and_cuts_what_it_has_no_room_for() {
        assert_eq!(size_of::<CK_HA_STATE>(), size_of::<CK_ULONG>() * (1 + 2 * 32 + 1));
        let members: Vec<(u64, Rv)> = (1..=40).map(|serial| (serial, Rv::DEVICE_ERROR)).collect();
        let state = HaState { serial: 11, members }.to_c();
        assert_eq!((state.groupSerial, state.listSize), (11, 32));
        assert_eq!(state.memberList.map(|member| member.memberSerial).last(), Some(&32));
        let state = HaState { serial: 11, members: vec![(7, Rv::OK)] }.to_c();
        assert_eq!(state.listSize, 1);
        assert_eq!(state.memberList.first(), Some(&CK_HA_MEMBER { memberSerial: 7, memberStatus: 0 }));
    }
}
