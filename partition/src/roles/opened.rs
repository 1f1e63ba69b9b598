//! Tickets that have been opened lately, so that a request costs no decryption of one (DESIGN 3).
//!
//! A ticket is known again only as a whole and in the whole context of its seal: the same bytes, group, generation, client and
//! instance. The revocation number is compared anew each time (RULES 2.6).
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::RwLock;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::access::LoggedIn;
use crate::partition::Caller;
use crate::seal::Group;

/// Tickets kept at most; with more all are forgotten.
const TICKETS_MAX: usize = 4_096;
/// The end of a ticket, which no other one has: the tag of its seal.
type End = [u8; 16];

/// A ticket that was opened.
struct Ticket {
    wire: Zeroizing<Vec<u8>>,
    group: Group,
    caller: Caller,
    login: LoggedIn,
    revocation: u64,
}

/// The ends of sealed tickets are as good as chance, and nobody chooses those that are kept: eight bytes of one are its hash.
#[derive(Default)]
struct EndHasher(u64);

impl Hasher for EndHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }
}

/// Whether the bytes are the same, in a time that tells only their lengths. Those at the end may be looked at twice: so none
/// is looked at alone.
fn equals(left: &[u8], right: &[u8]) -> bool {
    let (Some(left_end), Some(right_end)) = (left.last_chunk::<8>(), right.last_chunk::<8>()) else {
        return left.ct_eq(right).into();
    };
    let chunks = left.as_chunks::<8>().0.iter().zip(right.as_chunks::<8>().0).chain([(left_end, right_end)]);
    let different = chunks.fold(0, |different, (left, right)| {
        different | (u64::from_ne_bytes(*left) ^ u64::from_ne_bytes(*right))
    });
    left.len() == right.len() && bool::from(different.ct_eq(&0))
}

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Opened(RwLock<HashMap<End, Ticket, BuildHasherDefault<EndHasher>>>);

impl Opened {
    /// What the ticket of this caller proved when it was opened, and its revocation number.
    pub(super) fn look_up(&self, group: Group, caller: &Caller, wire: &[u8]) -> Option<(LoggedIn, u64)> {
        let tickets = self.0.read();
        let ticket = tickets.get(wire.last_chunk::<16>()?)?;
        let same = ticket.group == group && ticket.caller == *caller && equals(&ticket.wire, wire);
        same.then_some((ticket.login, ticket.revocation))
    }

    /// Remembers a ticket that has been opened.
    pub(super) fn keep(
        &self,
        group: Group,
        caller: &Caller,
        wire: &[u8],
        (login, revocation): (LoggedIn, u64),
    ) {
        let Some(end) = wire.last_chunk::<16>() else { return };
        let wire = Zeroizing::new(wire.to_vec());
        let ticket = Ticket { wire, group, caller: *caller, login, revocation };
        let mut tickets = self.0.write();
        if tickets.len() >= TICKETS_MAX {
            tickets.clear();
        }
        tickets.insert(*end, ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::Role;

    #[test]
    fn a_ticket_is_known_again_in_its_own_context_alone() {
        let opened = Opened::default();
        let group = Group { id: [1; 16], generation: 2 };
        let caller = Caller { client: [3; 32], instance: [4; 32] };
        let wire: Vec<u8> = (0..90).collect();
        let login = LoggedIn { role: Role::CryptoUser, login: [5; 16] };
        opened.keep(group, &caller, &wire, (login, 6));
        let found = |group, caller: &Caller, wire: &[u8]| {
            opened
                .look_up(group, caller, wire)
                .map(|(login, revocation)| (login.role, login.login, revocation))
        };
        assert_eq!(found(group, &caller, &wire), Some((Role::CryptoUser, [5; 16], 6)));
        assert_eq!(found(Group { generation: 3, ..group }, &caller, &wire), None);
        assert_eq!(found(Group { id: [9; 16], ..group }, &caller, &wire), None);
        assert_eq!(found(group, &Caller { client: [9; 32], instance: [4; 32] }, &wire), None);
        assert_eq!(found(group, &Caller { client: [3; 32], instance: [9; 32] }, &wire), None);
        for at in 0..wire.len() {
            let mut other = wire.clone();
            other[at] ^= 1;
            assert_eq!(found(group, &caller, &other), None, "byte {at}");
        }
        assert_eq!(found(group, &caller, &wire[1..]), None);
        assert_eq!(found(group, &caller, &[]), None);
    }

    #[test]
    fn tickets_are_kept_within_their_bound() {
        let opened = Opened::default();
        let group = Group { id: [1; 16], generation: 2 };
        let caller = Caller { client: [3; 32], instance: [4; 32] };
        let login = LoggedIn { role: Role::CryptoOfficer, login: [5; 16] };
        for number in 0..10_000_u128 {
            opened.keep(group, &caller, &number.to_be_bytes(), (login, 6));
            assert!(opened.0.read().len() <= TICKETS_MAX);
        }
        assert!(opened.look_up(group, &caller, &9_999_u128.to_be_bytes()).is_some());
    }

    #[test]
    fn bytes_are_the_same_when_none_of_them_differs_at_any_length() {
        let bytes: Vec<u8> = (1..40).collect();
        for length in 0..bytes.len() {
            let left = &bytes[..length];
            assert!(equals(left, left), "{length} bytes");
            assert!(!equals(left, &bytes[..=length]) && !equals(&bytes[..=length], left), "{length} bytes");
            for at in 0..length {
                let mut right = left.to_vec();
                right[at] ^= 0x10;
                assert!(!equals(left, &right), "byte {at} of {length}");
            }
        }
    }
}
