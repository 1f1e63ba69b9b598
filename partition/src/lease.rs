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
/// Bytes of a holder's name.
const HOLDER_BYTES: usize = 16;

/// Who holds the lease until when (wall milliseconds).
#[derive(Default)]
pub(crate) struct LeaseCell(Mutex<Option<([u8; HOLDER_BYTES], u64)>>);

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
        // A clock that was set back must not make a lease of a minute one of a year.
        let ends_max = now_ms.saturating_add(u64::from(LEASE_MS_MAX));
        let standing = cell.filter(|(_, ends)| (now_ms..=ends_max).contains(ends) && *ends > now_ms);
        match standing {
            Some((other, ends)) if other != holder => {
                let left_ms = u32::try_from(ends - now_ms).unwrap_or(LEASE_MS_MAX);
                Ok(LeaseAnswer { granted: false, left_ms })
            }
            Some(_) | None => {
                *cell = (lease.ms > 0).then(|| (holder, now_ms.saturating_add(u64::from(lease.ms))));
                Ok(LeaseAnswer { granted: lease.ms > 0, left_ms: lease.ms })
            }
        }
    }
}
