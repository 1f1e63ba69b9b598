//! Repair of a group until its members hold the same: the code of `ha`, driven by the tool (HA 4.6, 4.7).

use std::sync::Arc;

use ha::{Group, GroupSettings, MemberState, MemberStatus};
use spec::platform::Platform;
use spec::record::Manifest;
use spec::seam::{MemberId, Seam};

/// How long the members may differ before the tool gives up.
const PATIENCE_MS: u64 = 60_000;

/// Repairs until every member that can be reached holds what the others hold. Errs with the members that differ.
pub(crate) fn reach(
    platform: &Arc<dyn Platform>,
    seam: Arc<dyn Seam>,
    receive_timeout_ms: u64,
    manifest: &Manifest,
    ticket: &[u8],
) -> Result<(), String> {
    let settings = GroupSettings {
        members: manifest.members.iter().map(|member| MemberId(member.serial)).collect(),
        serial: Some(manifest.serial),
        receive_timeout_ms,
        ..GroupSettings::default()
    };
    let group = Group::new(platform.clone(), seam, settings);
    group.set_repair_ticket(Some(ticket));
    let (park, until) = (platform.parker(), platform.now().after_ms(PATIENCE_MS));
    loop {
        let next = group.tend();
        group.refresh();
        let members = group.status().members;
        if are_equal(&members) {
            return Ok(());
        }
        if platform.now() >= until {
            return Err(difference(&members));
        }
        park.park(next.min(until));
    }
}

/// Whether at least two members answer and all that answer are in use with the same digest.
fn are_equal(members: &[MemberStatus]) -> bool {
    let alive: Vec<_> =
        members.iter().filter(|member| !matches!(member.state, MemberState::Down(_))).collect();
    let root = |member: &MemberStatus| member.report.as_ref().map(|report| report.root.clone());
    let first = alive.first().and_then(|member| root(member));
    alive.len() >= 2
        && first.is_some()
        && alive.iter().all(|member| member.state == MemberState::Up && root(member) == first)
}

fn difference(members: &[MemberStatus]) -> String {
    let word = |member: &MemberStatus| match &member.state {
        MemberState::Up => format!("{} in use", member.id),
        MemberState::Unverified => format!("{} not compared", member.id),
        MemberState::Recovering => format!("{} recovering", member.id),
        MemberState::Down(reason) => format!("{} down ({reason})", member.id),
    };
    let words: Vec<String> = members.iter().map(word).collect();
    format!("the members still differ after {} s: {}", PATIENCE_MS / 1000, words.join(", "))
}
