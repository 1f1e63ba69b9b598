//! Which member gets the next request: a pure choice (DESIGN 2, HA 4).
use spec::record::MemberRole;

/// `Hatoki: Policy`: how a member is chosen among those that may serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The fewest outstanding requests in proportion to the weight; equal ones by latency.
    #[default]
    LeastBusy,
    /// In turn, as often as the weights say.
    RoundRobin,
    /// The first one in this host's order that has room.
    PrimaryFirst,
}

impl Policy {
    /// Reads the value of the option: `least-busy`, `round-robin` or `primary-first`, any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "least-busy" => Some(Policy::LeastBusy),
            "round-robin" => Some(Policy::RoundRobin),
            "primary-first" => Some(Policy::PrimaryFirst),
            _ => None,
        }
    }

    /// The value of the option.
    pub fn name(self) -> &'static str {
        match self {
            Policy::LeastBusy => "least-busy",
            Policy::RoundRobin => "round-robin",
            Policy::PrimaryFirst => "primary-first",
        }
    }
}

/// What the choice looks at, one for each member of the read set that may serve the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The place of the member in the caller's list.
    pub(crate) place: usize,
    /// Its role in the manifest.
    pub(crate) role: MemberRole,
    /// Its share of the load; 0 counts as 1.
    pub(crate) weight: u32,
    /// Its place in this host's order.
    pub(crate) preference: usize,
    /// This process's requests that it has not answered.
    pub(crate) outstanding: u32,
    /// How many it lets this process have outstanding; 0 when it has not said.
    pub(crate) window: u32,
    /// The moving average of its latency in nanoseconds; 0 when unknown.
    pub(crate) latency_ns: u64,
    /// Whether it asked for patience that is not over (`Busy`).
    pub(crate) resting: bool,
    /// Whether it is suspected of being silent or stuck (HA 4.4): it serves when nobody else does.
    pub(crate) doubtful: bool,
    /// How many requests of a hundred it may be given while it returns (HA 4.5); 100 when it has returned.
    pub(crate) ramp_percent: u32,
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

/// The choice by policy; `turn` counts the choices, and is asked for only where it matters. Standby members count when no
/// active one does, draining ones when there is nobody else: the last member is never put out (HA 4.6). The candidates are
/// looked at once, but for those who take turns, of whom the second look may find another state: then the first of them
/// is taken.
pub(crate) fn choose(
    policy: Policy,
    turn: impl Fn() -> u64,
    candidates: impl Iterator<Item = Candidate> + Clone,
) -> Choice {
    let mut best: Option<(Order, usize)> = None;
    let mut full: Option<Rank> = None;
    for candidate in candidates.clone() {
        let rank = rank(&candidate, &turn);
        if is_full(&candidate) {
            full = Some(full.map_or(rank, |other| other.min(rank)));
            continue;
        }
        let order = order(policy, rank, &candidate);
        if best.is_none_or(|(other, _)| order < other) {
            best = Some((order, candidate.place));
        }
    }
    let (best, first) = match (best, full) {
        (None, None) => return Choice::Nobody,
        (None, Some(_)) => return Choice::Full,
        // Members with a right to serve that are full are waited for; one that returns may take their work.
        (Some((best, _)), Some(full))
            if (full.doubtful, full.tier) < (best.rank.doubtful, best.rank.tier) =>
        {
            return Choice::Full;
        }
        (Some((best, first)), _) => (best.rank, first),
    };
    match policy {
        Policy::LeastBusy | Policy::PrimaryFirst => Choice::Take(first),
        Policy::RoundRobin => {
            let equals = candidates.filter(|one| !is_full(one) && self::rank(one, &turn) == best);
            Choice::Take(in_turn(equals, turn()).unwrap_or(first))
        }
    }
}

/// What comes before every policy; less is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    doubtful: bool,
    tier: u8,
    held_back: bool,
}

fn rank(candidate: &Candidate, turn: impl Fn() -> u64) -> Rank {
    // Spread over a hundred turns, so that it does not beat in time with the weights of round-robin.
    let part = || turn().wrapping_mul(37) % 100;
    Rank {
        doubtful: candidate.doubtful,
        tier: tier(candidate.role),
        held_back: candidate.ramp_percent < 100 && part() >= u64::from(candidate.ramp_percent),
    }
}

/// The rank and what a policy prefers within it; less is better. Members that take turns are all equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    rank: Rank,
    preferred: (u64, u64, usize),
}

fn order(policy: Policy, rank: Rank, candidate: &Candidate) -> Order {
    let preferred = match policy {
        Policy::LeastBusy => (load(candidate), candidate.latency_ns, candidate.place),
        Policy::RoundRobin => (0, 0, 0),
        Policy::PrimaryFirst => (candidate.preference as u64, 0, candidate.place),
    };
    Order { rank, preferred }
}

fn is_full(candidate: &Candidate) -> bool {
    candidate.resting || (candidate.window > 0 && candidate.outstanding >= candidate.window)
}

/// Outstanding requests, this one included, in proportion to the weight.
fn load(candidate: &Candidate) -> u64 {
    (u64::from(candidate.outstanding) + 1) * 10_000 / u64::from(candidate.weight.max(1))
}

/// The place of the one whose share of the weights the turn falls into.
fn in_turn(equals: impl Iterator<Item = Candidate> + Clone, turn: u64) -> Option<usize> {
    let weights = equals.clone().map(|one| u64::from(one.weight.max(1)));
    // Weights of 100 and 200 mean one and two in turn, not a hundred and two hundred.
    let unit = weights.clone().fold(0, greatest_common_divisor).max(1);
    let total: u64 = weights.sum::<u64>() / unit;
    let mut left = turn % total.max(1);
    for one in equals {
        let share = u64::from(one.weight.max(1)) / unit;
        if left < share {
            return Some(one.place);
        }
        left -= share;
    }
    None
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn tier(role: MemberRole) -> u8 {
    match role {
        MemberRole::Active => 0,
        MemberRole::Standby => 1,
        MemberRole::Draining => 2,
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn candidate(place: usize) -> Candidate {
        Candidate {
            place,
            role: MemberRole::Active,
            weight: 100,
            preference: place,
            outstanding: 0,
            window: 0,
            latency_ns: 0,
            resting: false,
            doubtful: false,
            ramp_percent: 100,
        }
    }

    fn least<const N: usize>(candidates: [Candidate; N]) -> Choice {
        choose(Policy::LeastBusy, || 0, candidates.into_iter())
    }

    /// How often each of the places is taken in so many turns.
    fn shares<const N: usize>(policy: Policy, turns: u64, candidates: [Candidate; N]) -> [u64; N] {
        let mut shares = [0; N];
        for turn in 0..turns {
            match choose(policy, || turn, candidates.into_iter()) {
                Choice::Take(place) => shares[place] += 1,
                other => panic!("wanted a member, found {other:?}"),
            }
        }
        shares
    }

    #[test]
    fn the_least_outstanding_is_taken_and_latency_breaks_ties() {
        let busy = Candidate { outstanding: 3, ..candidate(0) };
        let slow = Candidate { latency_ns: 900, ..candidate(1) };
        let fast = Candidate { latency_ns: 100, ..candidate(2) };
        assert_eq!(least([busy, slow, fast]), Choice::Take(2));
        assert_eq!(least([busy, slow]), Choice::Take(1));
        assert_eq!(least([busy]), Choice::Take(0));
        assert_eq!(least([]), Choice::Nobody);
    }

    #[test]
    fn a_full_window_is_respected() {
        let full = Candidate { outstanding: 2, window: 2, ..candidate(0) };
        let open = Candidate { outstanding: 5, window: 8, ..candidate(1) };
        assert_eq!(least([full, open]), Choice::Take(1));
        assert_eq!(least([full]), Choice::Full);
    }

    #[test]
    fn weight_scales_the_load() {
        let strong = Candidate { outstanding: 3, weight: 400, ..candidate(0) };
        let weak = Candidate { outstanding: 1, weight: 100, ..candidate(1) };
        assert_eq!(least([strong, weak]), Choice::Take(0));
    }

    #[test]
    fn standby_serves_only_when_no_active_member_does() {
        let active = Candidate { outstanding: 7, ..candidate(0) };
        let standby = Candidate { role: MemberRole::Standby, ..candidate(1) };
        let draining = Candidate { role: MemberRole::Draining, ..candidate(2) };
        for policy in [Policy::LeastBusy, Policy::RoundRobin, Policy::PrimaryFirst] {
            let chosen = |candidates: &[Candidate]| choose(policy, || 5, candidates.iter().copied());
            assert_eq!(chosen(&[standby, active, draining]), Choice::Take(0), "{policy:?}");
            assert_eq!(chosen(&[draining, standby]), Choice::Take(1), "{policy:?}");
            assert_eq!(chosen(&[draining]), Choice::Take(2), "{policy:?}");
            let busy_active = Candidate { resting: true, ..active };
            assert_eq!(chosen(&[busy_active, standby]), Choice::Full, "{policy:?}");
        }
    }

    #[test]
    fn a_suspect_serves_only_when_nobody_else_does() {
        let suspect = Candidate { doubtful: true, ..candidate(0) };
        let standby = Candidate { role: MemberRole::Standby, outstanding: 9, ..candidate(1) };
        assert_eq!(least([suspect, standby]), Choice::Take(1));
        assert_eq!(least([suspect]), Choice::Take(0));
        assert_eq!(least([suspect, Candidate { resting: true, ..standby }]), Choice::Full);
    }

    #[test]
    fn round_robin_takes_turns_by_weight() {
        assert_eq!(shares(Policy::RoundRobin, 300, [candidate(0), candidate(1), candidate(2)]), [100; 3]);
        let double = Candidate { weight: 200, outstanding: 50, ..candidate(1) };
        assert_eq!(shares(Policy::RoundRobin, 300, [candidate(0), double]), [100, 200]);
        let first = choose(Policy::RoundRobin, || 0, [candidate(0), candidate(1)].into_iter());
        let second = choose(Policy::RoundRobin, || 1, [candidate(0), candidate(1)].into_iter());
        assert_ne!(first, second);
    }

    #[test]
    fn primary_first_keeps_to_the_hosts_order_while_there_is_room() {
        let first = Candidate { preference: 0, outstanding: 9, window: 10, ..candidate(2) };
        let second = Candidate { preference: 1, ..candidate(0) };
        let chosen = |first| choose(Policy::PrimaryFirst, || 3, [second, first].into_iter());
        assert_eq!(chosen(first), Choice::Take(2));
        assert_eq!(chosen(Candidate { outstanding: 10, ..first }), Choice::Take(0));
    }

    #[test]
    fn a_returning_member_is_given_its_share_of_the_ramp_and_no_more() {
        for policy in [Policy::LeastBusy, Policy::RoundRobin, Policy::PrimaryFirst] {
            // By itself every policy but round-robin would give it everything.
            let returning = Candidate { ramp_percent: 10, ..candidate(0) };
            let other = Candidate { outstanding: 5, ..candidate(1) };
            let shares = shares(policy, 1_000, [returning, other]);
            assert!((40..=100).contains(&shares[0]), "{policy:?}: {shares:?}");
            assert_eq!(choose(policy, || 99, [returning].into_iter()), Choice::Take(0), "the only one");
        }
        let full = Candidate { resting: true, ..candidate(1) };
        let returning = Candidate { ramp_percent: 10, ..candidate(0) };
        assert!((0..100).all(|turn| {
            choose(Policy::LeastBusy, || turn, [returning, full].into_iter()) == Choice::Take(0)
        }));
    }

    #[test]
    fn the_option_is_read_in_any_case() {
        for policy in [Policy::LeastBusy, Policy::RoundRobin, Policy::PrimaryFirst] {
            assert_eq!(Policy::parse(&policy.name().to_uppercase()), Some(policy));
        }
        assert_eq!(Policy::parse("random"), None);
    }
}
