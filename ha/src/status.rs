//! The group as tools, `C_GetTokenInfo` and logs see it: a picture from memory, nothing is sent.
use spec::messages::StatusAnswer;
use spec::record::{Manifest, MemberRole};
use spec::seam::{MemberId, Standing};

use crate::group::Group;
use crate::member::{Phase, Seat};
use crate::route::Policy;

/// What a member is to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Read and written.
    Up,
    /// Read and written; its contents have not been compared with another member's yet (HA 4.6).
    Unverified,
    /// Written; not read until it has been compared and repaired (HA 4.6).
    Recovering,
    /// Not used, for this reason.
    Down(String),
}

/// One member.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Its partition's serial number.
    pub id: MemberId,
    /// Its role in the manifest.
    pub role: MemberRole,
    /// Whether it is the home (HA 2.7).
    pub home: bool,
    /// What it is to this process.
    pub state: MemberState,
    /// The incarnation of its store (HA 1.5); 0 when unknown.
    pub incarnation: u64,
    /// The commits of its store (HA 1.5).
    pub seq: u64,
    /// Acknowledged writes that it has not acknowledged to this process (HA 2.5).
    pub debt: usize,
    /// Requests of this process that it has not answered.
    pub outstanding: u32,
    /// Whether it is avoided because it was silent, or its work stuck, for longer than it ever is (HA 4.4).
    pub suspect: bool,
    /// Whether it is standby for this process: by the manifest or by this host's list.
    pub standby: bool,
    /// Mechanisms (`CKM_*`) that another member offers and this one does not, ascending: they are routed around it.
    pub lacks: Vec<u64>,
    /// When the appliance's server certificate ends, milliseconds since 1970; 0 when it has not said.
    pub server_certificate_ends_ms: u64,
    /// When this client's certificate ends, as the appliance sees it, milliseconds since 1970; 0 when it has not said.
    pub client_certificate_ends_ms: u64,
    /// Its last answer to Status; `None` when it has never answered.
    pub report: Option<StatusAnswer>,
}

/// The group.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// The manifest with the greatest epoch seen; `None` before any member has answered.
    pub manifest: Option<Manifest>,
    /// The members: of the manifest when it is known, else of the configuration.
    pub members: Vec<MemberStatus>,
    /// `CKF_USER_PIN_*`, `CKF_SO_PIN_*`, `CKF_TOKEN_INITIALIZED`, `CKF_USER_PIN_INITIALIZED`: the worst over the
    /// active members, from their last answers (RULES 2.8).
    pub token_flags: u64,
    /// Whether contents are known to differ (HA 3.2).
    pub divergent: bool,
    /// How a member is chosen.
    pub policy: Policy,
}

impl Group {
    /// The group as this process last saw it. Sends nothing.
    pub fn status(&self) -> GroupStatus {
        let view = self.view();
        let home = view.home();
        let members: Vec<MemberStatus> =
            view.seats.iter().map(|seat| self.member_status(seat, home == Some(seat.member.id))).collect();
        let token_flags = worst_flags(
            members
                .iter()
                .filter(|member| member.role == MemberRole::Active)
                .filter_map(|member| member.report.as_ref())
                .map(|report| report.token_flags),
        );
        GroupStatus {
            manifest: view.manifest.clone(),
            members,
            token_flags,
            divergent: self.is_divergent(),
            policy: self.settings().policy,
        }
    }

    fn member_status(&self, seat: &Seat, home: bool) -> MemberStatus {
        let member = &seat.member;
        let state = match self.seam.standing(member.id) {
            Standing::Down { reason } => MemberState::Down(reason),
            Standing::Up { since, .. } => match member.phase_on(since) {
                Phase::Admitted => MemberState::Up,
                Phase::Unverified => MemberState::Unverified,
                Phase::Fresh | Phase::Recovering => MemberState::Recovering,
                Phase::Refused => MemberState::Down(member.refusal()),
            },
        };
        let (incarnation, seq) = member.position();
        let report = member.report();
        let ends = |field: fn(&StatusAnswer) -> u64| report.as_ref().map_or(0, field);
        MemberStatus {
            id: member.id,
            role: seat.role,
            home,
            state,
            incarnation,
            seq,
            debt: member.debts(),
            outstanding: member.load.outstanding(),
            suspect: member.load.looks_doubtful(member.id, &*self.seam, self.platform.now()),
            standby: seat.role == MemberRole::Standby,
            lacks: member.lacks(),
            server_certificate_ends_ms: ends(|report| report.server_certificate_ends_ms),
            client_certificate_ends_ms: ends(|report| report.client_certificate_ends_ms),
            report,
        }
    }
}

/// Warnings (low count, final try, locked, to be changed) show when one member shows them; `INITIALIZED` flags only
/// when all do.
fn worst_flags(flags: impl Iterator<Item = u64>) -> u64 {
    let initialized = spec::flags::token::TOKEN_INITIALIZED | spec::flags::token::USER_PIN_INITIALIZED;
    let joined = flags.map(|flags| (flags & !initialized, flags & initialized));
    joined.reduce(|a, b| (a.0 | b.0, a.1 & b.1)).map_or(0, |(warnings, ready)| warnings | ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_one_member_shows_and_initialised_needs_all() {
        let ready = spec::flags::token::TOKEN_INITIALIZED | spec::flags::token::USER_PIN_INITIALIZED;
        let low = spec::flags::token::USER_PIN_COUNT_LOW;
        assert_eq!(worst_flags([ready, ready | low].into_iter()), ready | low);
        assert_eq!(worst_flags([ready, low].into_iter()), low);
        assert_eq!(worst_flags(std::iter::empty()), 0);
    }
}
