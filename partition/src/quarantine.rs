//! Records of one ouid with different cores, kept aside until they are destroyed (HA 1.7): what tools show of them.
//!
//! ```text
//! one core + another core of its ouid -> in quarantine: not found, not used, all cores kept -- Destroy --> tombstone
//! ```
use spec::{ObjectClass, Ouid};

use crate::partition::Partition;

/// A record in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its ouid: `CKA_UNIQUE_ID` in hexadecimal.
    pub ouid: Ouid,
    /// The objects that were found under it, two or more; of more than [`spec::record::CORES_MAX`] the rest is lost.
    pub found: Vec<Found>,
}

/// One of the objects that were found under an ouid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its class.
    pub class: ObjectClass,
    /// The serial number of the partition that made it.
    pub maker: u64,
    /// When it was made, milliseconds since 1970 by the maker's clock.
    pub made_ms: u64,
}

impl Partition {
    /// The records in quarantine in ouid order, so many at most. No attribute but the class is told.
    pub fn quarantine(&self, most: usize) -> Vec<Quarantined> {
        let contents = self.contents.read();
        let shown = contents.index.quarantined().take(most).filter_map(|held| {
            let found = held.record.cores().map(|core| Found {
                class: core.class(),
                maker: core.maker,
                made_ms: core.created.unwrap_or_default().ms,
            });
            Some(Quarantined { ouid: held.record.id()?, found: found.collect() })
        });
        shown.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use prost::Message;
    use spec::messages::{Join, SealedRecord};
    use spec::record::{RECORD_FORMAT, Record, Stamp, State};
    use spec::{Attribute, AttributeType as A, Template};

    use super::*;
    use crate::contents::{group_of, seal_record};
    use crate::roles::Access;
    use crate::store::MemoryStore;
    use crate::{Caller, DomainSecret, Settings, SystemRandom};

    const OUID: Ouid = Ouid([7; 16]);

    fn member() -> Partition {
        let (store, domain) =
            (Arc::new(MemoryStore::new()), DomainSecret::new(zeroize::Zeroizing::new([9; 32])));
        Partition::create(
            store,
            domain,
            1,
            "q",
            b"so-pin",
            b"co-pin",
            Settings::for_tests(),
            0,
            &SystemRandom,
        )
        .unwrap()
    }

    fn made(class: ObjectClass, maker: u64, ms: u64) -> Record {
        Record {
            format: RECORD_FORMAT,
            ouid: OUID.0.to_vec(),
            state: State::Committed as i32,
            core: Some(Template::from(vec![
                Attribute::ulong(A::CLASS, class.0),
                Attribute::new(A::PRIVATE, [0]),
            ])),
            created: Some(Stamp { ms, counter: 0, incarnation: 1 }),
            maker,
            ..Record::default()
        }
    }

    /// Joins records as a peer brings them; how many it put in quarantine.
    fn join(member: &Partition, records: &[&Record]) -> u32 {
        let caller = Caller { client: [1; 32], instance: [2; 32] };
        let peer = Access { caller: &caller, login: None, replicator: true };
        let group = group_of(&member.manifest());
        let sealed = |record: &&Record| {
            SealedRecord::decode(seal_record(&member.sealer, group, record).as_slice()).unwrap()
        };
        let mut answer = 0;
        for record in records {
            let records = vec![sealed(record)];
            answer += member.join(&peer, &Join { records, ..Join::default() }).unwrap().quarantined;
        }
        answer
    }

    #[test]
    fn ha_1_7_two_cores_of_one_ouid_are_both_kept_and_shown_and_a_tombstone_ends_them() {
        let (left, right) = (made(ObjectClass::DATA, 1001, 5), made(ObjectClass::SECRET_KEY, 1002, 6));
        let (one, two) = (member(), member());
        assert_eq!((join(&one, &[&left, &right]), join(&two, &[&right, &left, &right])), (1, 1));
        let shown = one.quarantine(10);
        assert_eq!((shown.len(), &shown), (1, &two.quarantine(10)));
        assert_eq!(shown[0].ouid, OUID);
        let mut found: Vec<_> =
            shown[0].found.iter().map(|one| (one.class, one.maker, one.made_ms)).collect();
        found.sort_unstable();
        assert_eq!(found, [(ObjectClass::DATA, 1001, 5), (ObjectClass::SECRET_KEY, 1002, 6)]);
        for member in [&one, &two] {
            let contents = member.contents.read();
            assert_eq!(
                (contents.index.live_count(), contents.index.quarantined_count()),
                (0, 1),
                "neither is used"
            );
            assert_eq!(contents.index.candidates(&Template::default(), None).count(), 0);
        }
        // What one member holds of it is all that another needs.
        let three = member();
        let whole = one.contents.read().index.get(&OUID).unwrap().record.clone();
        join(&three, &[&whole]);
        assert_eq!(three.quarantine(10), shown);
        join(&one, &[&Record::tombstone(OUID)]);
        assert_eq!(one.quarantine(10), []);
        assert_eq!(join(&one, &[&whole]), 0, "destroyed for ever");
        assert_eq!(one.quarantine(10), []);
    }
}
