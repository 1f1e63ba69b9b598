//! What the configuration says about a group, and how it changes while the group works.
use std::sync::Arc;

use spec::meter::{Meter, Silent};
use spec::seam::MemberId;

use crate::group::Group;
use crate::minimum::Minimum;
use crate::route::Policy;

/// What the configuration says about a group.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// The configured members; the manifest rules once it is known (HA 2.6). Their order is this host's preference
    /// under `Policy::PrimaryFirst`; members that are not named come last.
    pub members: Vec<MemberId>,
    /// The group's serial number in the configuration. `None` for a slot of one single partition: then the
    /// configured member alone is the group, whatever manifest it carries.
    pub serial: Option<u64>,
    /// `Hatoki: MinimumCopies` (HA 2.2).
    pub minimum: Minimum,
    /// `Hatoki: OutageWaitMs`: how long a call waits while no member can be reached, in milliseconds.
    pub outage_wait_ms: u64,
    /// `ReceiveTimeout`: a request without reply or progress for so many milliseconds moves to another member.
    pub receive_timeout_ms: u64,
    /// `DefaultTimeOut`: every call ends within so many milliseconds, but for the generation of keys.
    pub call_ms_max: u64,
    /// `KeypairGenTimeOut`: a call that generates keys ends within so many milliseconds.
    pub generate_ms_max: u64,
    /// `HASynchronize`: false means no replication, no repair, no admission by content (HA 2.9).
    pub synchronize: bool,
    /// `Hatoki: Policy`: how a member is chosen (DESIGN 2).
    pub policy: Policy,
    /// `ProbeTimeout`: a member that has not answered a probe for so many milliseconds loses its link, while others
    /// are heard (HA 4.4).
    pub probe_ms: u64,
    /// This host's standby members: treated as standby here whatever the manifest says (DESIGN 2).
    pub standby: Vec<MemberId>,
    /// `reconnAtt` other than 0. When false, a member that was in use and lost is not taken back until
    /// [`Group::recover`].
    pub recovery: bool,
    /// Takes what the routing reports.
    pub meter: Arc<dyn Meter>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            serial: None,
            minimum: Minimum::default(),
            outage_wait_ms: 20_000,
            receive_timeout_ms: 20_000,
            call_ms_max: 120_000,
            generate_ms_max: 2_700_000,
            synchronize: true,
            policy: Policy::default(),
            probe_ms: 1_000,
            standby: Vec::new(),
            recovery: true,
            meter: Arc::new(Silent),
        }
    }
}

impl Group {
    /// Takes new settings while the group works; calls that run keep those they began with. The serial number stays
    /// what it was: another one is another group. The members count only while no manifest is known (HA 2.6), except
    /// for their order.
    pub fn configure(&self, settings: GroupSettings) {
        let kept = |old: &GroupSettings| {
            if old.serial != settings.serial {
                tracing::warn!(
                    "the configuration gives the group another serial number: that is another group, restart the \
                     application to use it"
                );
            }
            GroupSettings { serial: old.serial, ..settings }
        };
        self.snapshot.configure(kept, |old, new| self.announce(old, new));
    }
}
