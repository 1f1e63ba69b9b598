//! The repair lease (HA 4.6): one repairer at a time. It is kept in memory and is no safety rule: joins do no harm whoever
//! makes them, it spares members the work of being repaired by every process at once.
use parking_lot::Mutex;
use spec::messages::{Lease, LeaseAnswer};

use crate::bounds;
use crate::error::Refusal;
use crate::partition::Partition;
use crate::roles::Access;

/// The longest lease in milliseconds.
const LEASE_MS_MAX: u32 = 60_000;
/// A request may come with a moment that is so many milliseconds older than that of the one before it: each link reads the
/// clock by itself, when a batch of requests has come.
const EARLIER_MS_MAX: u64 = 1_000;
/// Bytes of a holder's name.
const HOLDER_BYTES: usize = 16;

/// Who holds the lease.
#[derive(Default)]
pub(crate) struct LeaseCell(Mutex<Option<Held>>);

/// A lease that was granted (wall milliseconds).
struct Held {
    holder: [u8; HOLDER_BYTES],
    granted: u64,
    ends: u64,
}

impl Partition {
    /// Grants, renews or takes back the lease.
    pub(crate) fn lease(
        &self,
        access: &Access<'_>,
        lease: &Lease,
        now_ms: u64,
    ) -> Result<LeaseAnswer, Refusal> {
        access.repairer()?;
        let holder: [u8; HOLDER_BYTES] = lease.holder.as_slice().try_into().map_err(|_| {
            Refusal::malformed(format!(
                "wanted a holder's name of {HOLDER_BYTES} bytes, found {}",
                lease.holder.len()
            ))
        })?;
        bounds::at_most("milliseconds of a lease", lease.ms as usize, LEASE_MS_MAX as usize)?;
        let mut cell = self.lease.0.lock();
        // A clock that was set back makes no lease longer: it frees it.
        let standing = cell
            .as_ref()
            .filter(|held| (held.granted.saturating_sub(EARLIER_MS_MAX)..held.ends).contains(&now_ms));
        if let Some(held) = standing.filter(|held| held.holder != holder) {
            let left_ms = u32::try_from(held.ends - now_ms).unwrap_or(LEASE_MS_MAX).min(LEASE_MS_MAX);
            return Ok(LeaseAnswer { granted: false, left_ms });
        }
        let granted = standing.map_or(now_ms, |held| held.granted.max(now_ms));
        let ends = granted.saturating_add(u64::from(lease.ms));
        *cell = (lease.ms > 0).then_some(Held { holder, granted, ends });
        Ok(LeaseAnswer { granted: lease.ms > 0, left_ms: lease.ms })
    }
}
