//! A partition in service: what stands behind its serial number, with a count of the requests it has run.
use std::sync::atomic::{AtomicU64, Ordering};

use partition::{Caller, Cost, Partition};
use spec::calls::CALLS;
use spec::messages::{ReplyHeader, RequestHeader};
use zeroize::Zeroizing;

use crate::handler::{Asker, Handler, Lane};

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
        body: &[u8],
        now_ms: u64,
    ) -> (ReplyHeader, Zeroizing<Vec<u8>>) {
        let name = Partition::call_name(body);
        let counter =
            CALLS.iter().position(|row| Some(row.name) == name).and_then(|at| self.requests.get(at));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let caller = Caller { client: asker.client, instance: asker.instance };
        self.partition.handle_on(&asker.link, &caller, header, body, now_ms)
    }

    fn standing(&self) -> ReplyHeader {
        self.partition.header()
    }

    fn lane(&self, body: &[u8]) -> Lane {
        lane(body)
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

fn lane(body: &[u8]) -> Lane {
    match Partition::cost(body) {
        Cost::Short => Lane::Inline,
        Cost::Long => Lane::Crypto,
        Cost::Slow => Lane::Slow,
        Cost::Pin => Lane::Pin,
        Cost::Disk => Lane::Disk,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use spec::messages::{
        Call, Join, Login, Make, MakeKind, MechanismMessage, RequestBody, SealedRecord, SetPin, Status,
        Store, Use,
    };

    use super::*;

    #[test]
    fn pin_checks_have_a_lane_of_their_own() {
        let lane =
            |call: Call| lane(&RequestBody { call: Some(call), ..RequestBody::default() }.encode_to_vec());
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
        let lane =
            |call: Call| lane(&RequestBody { call: Some(call), ..RequestBody::default() }.encode_to_vec());
        let mechanism = spec::MechanismType::RSA_PKCS_KEY_PAIR_GEN;
        let mechanism = Some(MechanismMessage { number: mechanism.0, ..MechanismMessage::default() });
        let pair = Make { kind: MakeKind::GENERATE_PAIR.0, mechanism, ..Make::default() };
        assert_eq!(lane(Call::Make(pair)), Lane::Slow);
        let join =
            |records| Call::Join(Join { records: vec![SealedRecord::default(); records], ..Join::default() });
        assert_eq!(lane(join(1_000)), Lane::Disk);
        assert_eq!(lane(join(1_001)), Lane::Inline);
    }
}
