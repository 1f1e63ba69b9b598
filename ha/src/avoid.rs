//! The members that one call passes over, and why (HA 4.2, 4.5).
use spec::seam::MemberId;

use crate::error::Error;

/// Whom a call does not ask again. A member that was merely out of reach is asked again when nobody else is left; one
/// that failed the request is not, so that a call which every member fails ends with that failure.
#[derive(Default)]
pub(crate) struct Avoided {
    lost: Vec<MemberId>,
    failed: Vec<MemberId>,
    last: Option<Error>,
}

impl Avoided {
    /// The request or its reply was lost, or the member is busy.
    pub(crate) fn lost(&mut self, member: MemberId) {
        self.lost.push(member);
    }

    /// The member cannot serve now, with this answer; it may later.
    pub(crate) fn unable(&mut self, member: MemberId, answer: Error) {
        self.lost.push(member);
        self.last = Some(answer);
    }

    /// The member failed the request, with this answer.
    pub(crate) fn failed(&mut self, member: MemberId, answer: Error) {
        self.failed.push(member);
        self.last = Some(answer);
    }

    /// Whether the member is passed over.
    pub(crate) fn contains(&self, member: MemberId) -> bool {
        self.lost.contains(&member) || self.failed.contains(&member)
    }

    /// Members that were out of reach may be asked again.
    pub(crate) fn forgive(&mut self) {
        self.lost.clear();
    }

    /// The last answer of a member that cannot serve.
    pub(crate) fn last(&self) -> Option<Error> {
        self.last.clone()
    }

    /// The answer to end with when there are readable members and every one of them has failed the request.
    pub(crate) fn failed_by_all(&self, mut readable: impl Iterator<Item = MemberId>) -> Option<Error> {
        let first = readable.next()?;
        let all = self.failed.contains(&first) && readable.all(|member| self.failed.contains(&member));
        self.last().filter(|_| all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_that_failed_end_a_call_and_they_are_not_forgiven() {
        let (one, two) = (MemberId(1), MemberId(2));
        let error = || Error::Peer("full".to_owned());
        let mut avoided = Avoided::default();
        avoided.failed(one, error());
        avoided.lost(two);
        assert!(avoided.contains(one) && avoided.contains(two));
        assert_eq!(avoided.failed_by_all([one, two].into_iter()), None);
        assert_eq!(avoided.failed_by_all([one].into_iter()), Some(error()));
        assert_eq!(avoided.failed_by_all(std::iter::empty()), None);
        avoided.forgive();
        assert!(avoided.contains(one) && !avoided.contains(two));
    }
}
