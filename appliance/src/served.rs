//! A partition in service: what stands behind its serial number, with a count of the requests it has run.
use std::sync::atomic::{AtomicU64, Ordering};

use partition::{Caller, Cost, Partition, Reading};
use spec::calls::{CALLS, Row};
use spec::messages::{ReplyHeader, RequestHeader};
use zeroize::Zeroizing;

use crate::handler::{Asker, Handler, Lane};
use crate::sightings::log_contradiction;

/// A partition and its counters.
pub struct Served {
    partition: Partition,
    /// One for each row of the table of calls.
    requests: Vec<AtomicU64>,
}

impl Served {
    /// Puts a partition into service.
    pub fn new(partition: Partition) -> Self {
        Self { partition, requests: CALLS.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Handler for Served {
    fn handle(
        &self,
        asker: &Asker,
        header: &RequestHeader,
        reading: &Reading<'_>,
        now_ms: u64,
        reply: &mut Zeroizing<Vec<u8>>,
    ) -> ReplyHeader {
        let at = |row: &Row| CALLS.binary_search_by_key(&row.number, |row| row.number).ok();
        let counter = reading.row().and_then(at).and_then(|at| self.requests.get(at));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let caller = Caller { client: asker.client, instance: asker.instance };
        // A member that finds by it that its store was put back or copied writes that down here and now, once.
        let tells_of_members = reading.row().is_some_and(|row| row.name == "Status");
        let header = self.partition.handle_read(&asker.link, &caller, header, reading, now_ms, reply);
        if tells_of_members {
            log_contradiction(&self.partition);
        }
        header
    }

    fn standing(&self) -> ReplyHeader {
        self.partition.header()
    }

    fn lane(&self, header: &RequestHeader, reading: &Reading<'_>) -> Lane {
        match lane(reading) {
            // It waits for whoever writes: the thread of a link waits for nobody.
            Lane::Inline if self.partition.lacks(header) => Lane::Disk,
            lane => lane,
        }
    }

    fn requests(&self) -> Vec<(&'static str, u64)> {
        let counted = CALLS.iter().zip(&self.requests);
        counted
            .map(|(row, count)| (row.name, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn partition(&self) -> Option<&Partition> {
        Some(&self.partition)
    }

    fn tidy(&self, now_ms: u64) {
        match self.partition.forget_provisional(now_ms) {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(serial = self.partition.serial(), count, "forgot creates that nobody finished")
            }
            Err(error) => {
                tracing::error!(serial = self.partition.serial(), %error, "unfinished creates stay")
            }
        }
        self.clean();
    }

    fn clean(&self) {
        if let Err(error) = self.partition.tidy_store() {
            tracing::error!(serial = self.partition.serial(), %error, "what was destroyed may still be in the files");
        }
    }
}

fn lane(reading: &Reading<'_>) -> Lane {
    match reading.cost() {
        Cost::Short => Lane::Inline,
        Cost::Long => Lane::Crypto,
        Cost::Slow => Lane::Slow,
        Cost::Pin => Lane::Pin,
        Cost::Disk => Lane::Disk,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use partition::store::MemoryStore;
    use partition::{DomainSecret, Settings, SystemRandom};
    use prost::Message;
    use spec::messages::{
        Call, Join, Login, Make, MakeKind, MechanismMessage, RequestBody, SealedRecord, SetPin, Status,
        Store, Use,
    };

    use super::*;

    #[test]
    fn pin_checks_have_a_lane_of_their_own() {
        let body = |call| RequestBody { call: Some(call), ..RequestBody::default() }.encode_to_vec();
        let lane = |call: Call| lane(&Reading::of(&body(call)));
        let mut context_login = Use::default();
        context_login.pin = b"1234".to_vec();
        assert_eq!(lane(Call::Use(context_login)), Lane::Pin, "it computes Argon2id and writes");
        assert_eq!(lane(Call::Use(Use::default())), Lane::Inline);
        assert_eq!(lane(Call::Login(Login::default())), Lane::Pin);
        assert_eq!(lane(Call::SetPin(SetPin::default())), Lane::Pin);
        assert_eq!(lane(Call::Store(Store::default())), Lane::Disk);
        assert_eq!(lane(Call::Status(Status::default())), Lane::Inline);
    }

    #[test]
    fn what_takes_seconds_has_a_lane_of_its_own_and_what_is_refused_unread_has_none() {
        let body = |call| RequestBody { call: Some(call), ..RequestBody::default() }.encode_to_vec();
        let lane = |call: Call| lane(&Reading::of(&body(call)));
        let mechanism = spec::MechanismType::RSA_PKCS_KEY_PAIR_GEN;
        let mechanism = Some(MechanismMessage { number: mechanism.0, ..MechanismMessage::default() });
        let pair = Make { kind: MakeKind::GENERATE_PAIR.0, mechanism, ..Make::default() };
        assert_eq!(lane(Call::Make(pair)), Lane::Slow);
        let join =
            |records| Call::Join(Join { records: vec![SealedRecord::default(); records], ..Join::default() });
        assert_eq!(lane(join(1_000)), Lane::Disk);
        assert_eq!(lane(join(1_001)), Lane::Inline);
    }

    #[test]
    fn who_has_to_wait_for_the_store_does_not_wait_on_the_thread_of_a_link() {
        let served = Served::new(
            Partition::create(
                Arc::new(MemoryStore::default()),
                DomainSecret::new(Zeroizing::new([9; 32])),
                1_001,
                "part",
                b"so pin 1",
                b"co pin 1",
                Settings::for_tests(),
                1_700_000_000_000,
                &SystemRandom,
            )
            .unwrap(),
        );
        let ReplyHeader { incarnation, seq, .. } = served.partition.header();
        let lane = |incarnation, at_least, call| {
            let body = RequestBody { call: Some(call), ..RequestBody::default() }.encode_to_vec();
            let header = RequestHeader { incarnation, at_least, ..RequestHeader::default() };
            served.lane(&header, &Reading::of(&body))
        };
        assert_eq!(lane(incarnation, seq, Call::Use(Use::default())), Lane::Inline);
        assert_eq!(lane(incarnation, seq + 1, Call::Use(Use::default())), Lane::Disk);
        assert_eq!(
            lane(incarnation + 1, seq + 1, Call::Use(Use::default())),
            Lane::Inline,
            "of another store"
        );
        assert_eq!(lane(incarnation, seq + 1, Call::Login(Login::default())), Lane::Pin);
    }
}
