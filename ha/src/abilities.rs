//! Members of unequal ability: which mechanisms one lacks that another offers, so that requests for them are routed around
//! it and tools show it (DESIGN 2).
use std::collections::BTreeSet;

use spec::MechanismType;

use crate::group::Group;

impl Group {
    /// Compares what the members have listed and refused, and keeps for each what it lacks.
    pub(crate) fn compare_abilities(&self) {
        let view = self.view();
        let offered: Vec<Option<BTreeSet<u64>>> = view
            .seats
            .iter()
            .map(|seat| {
                let refused = seat.member.refused_mechanisms();
                seat.member.offers().map(|offers| offers.difference(&refused).copied().collect())
            })
            .collect();
        let union: BTreeSet<u64> = offered.iter().flatten().flatten().copied().collect();
        for (seat, offers) in view.seats.iter().zip(&offered) {
            let mut lacks = seat.member.refused_mechanisms();
            if let Some(offers) = offers {
                lacks.extend(union.difference(offers));
            }
            let names: Vec<String> = lacks.iter().map(|number| MechanismType(*number).to_string()).collect();
            if seat.member.set_lacks(lacks.into_iter().collect()) {
                tracing::warn!(
                    member = %seat.member.id,
                    mechanisms = names.join(", "),
                    "other members offer mechanisms that this one does not: requests for them go to the others"
                );
            }
        }
    }
}
