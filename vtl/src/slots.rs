//! The numbers of the slots as the module gives them (RULES 2.12): groups from 0 upwards (from 1 with
//! `OneBaseSlotId`), then, unless `HAOnly` holds,
//! the members of the groups in the order of the configuration, then the other partitions that the servers offer, by
//! serial number.

use std::collections::BTreeSet;

use client::conf::{Configuration, Serial};

/// The partitions that have a slot of their own, in the order of the slots behind those of the groups.
pub(crate) struct Slots {
    first: usize,
    groups: usize,
    partitions: Vec<u64>,
}

impl Slots {
    /// `offered` are the serials of the partitions that the servers offer, in any order.
    pub(crate) fn new(configuration: &Configuration, offered: impl IntoIterator<Item = u64>) -> Slots {
        let mut partitions = Vec::new();
        if configuration.net_client && !configuration.ha_only {
            let members = configuration.groups.iter().flat_map(|group| &group.members).map(|serial| serial.0);
            let offered: BTreeSet<u64> = offered.into_iter().collect();
            for serial in members.chain(offered) {
                if !partitions.contains(&serial) {
                    partitions.push(serial);
                }
            }
        }
        let groups = if configuration.net_client { configuration.groups.len() } else { 0 };
        let first = usize::try_from(configuration.first_slot).unwrap_or(0);
        Slots { first, groups, partitions }
    }

    /// The slot of a group by its place in the configuration; `None` when applications see no slots (`NetClient = 0`).
    pub(crate) fn of_group(&self, place: usize) -> Option<usize> {
        (place < self.groups).then_some(self.first + place)
    }

    /// The slot of a partition; `None` when applications do not see it.
    pub(crate) fn of_partition(&self, serial: Serial) -> Option<usize> {
        let place = self.partitions.iter().position(|shown| *shown == serial.0)?;
        Some(self.first + self.groups + place)
    }

    /// The partitions with a slot of their own, in the order of their slots.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (usize, Serial)> + '_ {
        let first = self.first + self.groups;
        self.partitions.iter().enumerate().map(move |(at, serial)| (first + at, Serial(*serial)))
    }
}

/// A slot's number, or what stands for none.
pub(crate) fn number(slot: Option<usize>) -> String {
    slot.map_or_else(|| "------".to_owned(), |slot| slot.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::testing::configuration;

    const GROUPS: &str = "VirtualToken = { VirtualToken00Label = a; VirtualToken00Members = 7, 5;\n\
                          VirtualToken01Label = b; VirtualToken01Members = 6, 7; }\n";

    #[test]
    fn rules_2_12_groups_come_first_then_members_in_their_order_then_what_else_is_offered_by_serial() {
        let text = format!("{GROUPS}HAConfiguration = {{ HAOnly = 0; }}\n");
        let slots = Slots::new(&configuration(1, &text), [9, 5, 4, 7]);
        let seen: Vec<_> = slots.partitions().map(|(slot, serial)| (slot, serial.0)).collect();
        assert_eq!(seen, [(2, 7), (3, 5), (4, 6), (5, 4), (6, 9)]);
        assert_eq!((slots.of_group(1), slots.of_partition(Serial(4))), (Some(1), Some(5)));
        assert_eq!(slots.of_partition(Serial(99)), None);
    }

    #[test]
    fn rules_2_12_with_one_base_slot_id_the_first_slot_is_1() {
        let text =
            format!("{GROUPS}HAConfiguration = {{ HAOnly = 0; }}\nPresentation = {{ OneBaseSlotId = 1; }}\n");
        let slots = Slots::new(&configuration(1, &text), [4]);
        assert_eq!(
            (slots.of_group(0), slots.of_group(2), slots.of_partition(Serial(7))),
            (Some(1), None, Some(3))
        );
        assert_eq!(slots.partitions().next(), Some((3, Serial(7))));
    }

    #[test]
    fn rules_2_12_members_have_no_slot_while_ha_only_holds_and_partitions_do_without_groups() {
        let slots = Slots::new(&configuration(1, GROUPS), [5, 4]);
        assert_eq!((slots.of_group(1), slots.of_partition(Serial(5))), (Some(1), None));
        let slots = Slots::new(&configuration(1, ""), [5, 4]);
        assert_eq!((slots.of_partition(Serial(4)), slots.of_partition(Serial(5))), (Some(0), Some(1)));
        assert_eq!(number(slots.of_partition(Serial(6))), "------");
    }
}
