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
        self.partition.handle(&caller, header, body, now_ms)
    }

    fn standing(&self) -> ReplyHeader {
        self.partition.header()
    }

    fn lane(&self, body: &[u8]) -> Lane {
        match Partition::cost(body) {
            Cost::Short => Lane::Inline,
            Cost::Long => Lane::Crypto,
            Cost::Disk => Lane::Disk,
        }
    }

    fn requests(&self) -> Vec<(&'static str, u64)> {
        let counted = CALLS.iter().zip(&self.requests);
        counted
            .map(|(row, count)| (row.name, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
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
    }
}
