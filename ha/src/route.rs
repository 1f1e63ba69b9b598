//! Which member gets the next request: a pure choice (DESIGN 2, HA 4).
use spec::record::MemberRole;

/// What the choice looks at, one for each member of the read set that may serve the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The place of the member in the caller's list.
    pub(crate) place: usize,
    /// Its role in the manifest.
    pub(crate) role: MemberRole,
    /// Its share of the load; 0 counts as 1.
    pub(crate) weight: u32,
    /// This process's requests that it has not answered.
    pub(crate) outstanding: u32,
    /// How many it lets this process have outstanding; 0 when it has not said.
    pub(crate) window: u32,
    /// The moving average of its latency in nanoseconds; 0 when unknown.
    pub(crate) latency_ns: u64,
    /// Whether it asked for patience that is not over (`Busy`).
    pub(crate) resting: bool,
}

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The place of the chosen member.
    Take(usize),
    /// There are members, but all have their windows full or ask for patience.
    Full,
    /// There is none.
    Nobody,
}

/// Least outstanding by weight; equal ones by latency, then by place. Standby members count when no active one does,
/// draining ones when there is nobody else: the last member is never put out (HA 4.6).
pub(crate) fn choose(candidates: impl Iterator<Item = Candidate>) -> Choice {
    let mut best: Option<(Candidate, u8)> = None;
    let mut full: Option<u8> = None;
    for candidate in candidates {
        let tier = tier(candidate.role);
        if candidate.resting || (candidate.window > 0 && candidate.outstanding >= candidate.window) {
            full = Some(full.map_or(tier, |other| other.min(tier)));
            continue;
        }
        let better = match &best {
            None => true,
            Some((other, other_tier)) => {
                (tier, load(&candidate), candidate.latency_ns, candidate.place)
                    < (*other_tier, load(other), other.latency_ns, other.place)
            }
        };
        if better {
            best = Some((candidate, tier));
        }
    }
    match (best, full) {
        (Some((_, tier)), Some(full_tier)) if full_tier < tier => Choice::Full,
        (Some((chosen, _)), _) => Choice::Take(chosen.place),
        (None, Some(_)) => Choice::Full,
        (None, None) => Choice::Nobody,
    }
}

/// Outstanding requests, this one included, in proportion to the weight.
fn load(candidate: &Candidate) -> u64 {
    (u64::from(candidate.outstanding) + 1) * 10_000 / u64::from(candidate.weight.max(1))
}

fn tier(role: MemberRole) -> u8 {
    match role {
        MemberRole::Active => 0,
        MemberRole::Standby => 1,
        MemberRole::Draining => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(place: usize) -> Candidate {
        Candidate {
            place,
            role: MemberRole::Active,
            weight: 100,
            outstanding: 0,
            window: 0,
            latency_ns: 0,
            resting: false,
        }
    }

    #[test]
    fn the_least_outstanding_is_taken_and_latency_breaks_ties() {
        let busy = Candidate { outstanding: 3, ..candidate(0) };
        let slow = Candidate { latency_ns: 900, ..candidate(1) };
        let fast = Candidate { latency_ns: 100, ..candidate(2) };
        assert_eq!(choose([busy, slow, fast].into_iter()), Choice::Take(2));
        assert_eq!(choose([busy, slow].into_iter()), Choice::Take(1));
        assert_eq!(choose([busy].into_iter()), Choice::Take(0));
        assert_eq!(choose(std::iter::empty()), Choice::Nobody);
    }

    #[test]
    fn a_full_window_is_respected() {
        let full = Candidate { outstanding: 2, window: 2, ..candidate(0) };
        let open = Candidate { outstanding: 5, window: 8, ..candidate(1) };
        assert_eq!(choose([full, open].into_iter()), Choice::Take(1));
        assert_eq!(choose([full].into_iter()), Choice::Full);
    }

    #[test]
    fn weight_scales_the_load() {
        let strong = Candidate { outstanding: 3, weight: 400, ..candidate(0) };
        let weak = Candidate { outstanding: 1, weight: 100, ..candidate(1) };
        assert_eq!(choose([strong, weak].into_iter()), Choice::Take(0));
    }

    #[test]
    fn standby_serves_only_when_no_active_member_does() {
        let active = Candidate { outstanding: 7, ..candidate(0) };
        let standby = Candidate { role: MemberRole::Standby, ..candidate(1) };
        let draining = Candidate { role: MemberRole::Draining, ..candidate(2) };
        assert_eq!(choose([active, standby, draining].into_iter()), Choice::Take(0));
        assert_eq!(choose([draining, standby].into_iter()), Choice::Take(1));
        assert_eq!(choose([draining].into_iter()), Choice::Take(2));
        let busy_active = Candidate { resting: true, ..active };
        assert_eq!(choose([busy_active, standby].into_iter()), Choice::Full);
    }
}
