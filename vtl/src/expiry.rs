//! Certificates that end soon or have ended, said in time for an operator to change them.

use ntls::certificate::{Certificate, Validity};

/// From so many days before its end a certificate is warned about.
pub(crate) const WARNING_DAYS: u64 = 30;
const DAY_MS: u64 = 86_400_000;

/// How long a certificate still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Longer than [`WARNING_DAYS`].
    Good,
    /// So many whole days.
    Soon(u64),
    /// It has ended.
    Ended,
}

/// Judges an end, both in milliseconds since 1970.
pub(crate) fn judge(ends_ms: u64, now_ms: u64) -> Expiry {
    match ends_ms.checked_sub(now_ms) {
        None => Expiry::Ended,
        Some(left) if left < WARNING_DAYS * DAY_MS => Expiry::Soon(left / DAY_MS),
        Some(_) => Expiry::Good,
    }
}

/// The last moment of a certificate in milliseconds since 1970.
pub(crate) fn ends_ms(certificate: &Certificate) -> u64 {
    u64::try_from(certificate.not_after_s()).unwrap_or(0).saturating_mul(1000)
}

/// What to tell the operator; `None` while all is well. `action` says how the certificate is changed.
pub(crate) fn warning(whose: &str, ends_ms: u64, now_ms: u64, action: &str) -> Option<String> {
    match judge(ends_ms, now_ms) {
        Expiry::Good => None,
        Expiry::Soon(0) => Some(format!("the certificate of {whose} ends within a day; {action}")),
        Expiry::Soon(1) => Some(format!("the certificate of {whose} ends in one day; {action}")),
        Expiry::Soon(days) => Some(format!("the certificate of {whose} ends in {days} days; {action}")),
        Expiry::Ended => Some(format!("the certificate of {whose} has ended; {action}")),
    }
}

/// What is said of a certificate's time beside its dates.
pub(crate) fn standing(certificate: &Certificate, now_ms: u64) -> String {
    match (certificate.validity(now_ms), judge(ends_ms(certificate), now_ms)) {
        (Validity::Valid, Expiry::Soon(days)) => format!("ends in {days} days"),
        (Validity::Valid, _) => "valid".to_owned(),
        (Validity::NotYet, _) => "not valid yet".to_owned(),
        (Validity::Expired, _) => "expired".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_about_for_thirty_days_and_after_its_end() {
        let now = 1_800_000_000_000;
        assert_eq!(judge(now + 30 * DAY_MS, now), Expiry::Good);
        assert_eq!(judge(now + 30 * DAY_MS - 1, now), Expiry::Soon(29));
        assert_eq!(judge(now, now), Expiry::Soon(0));
        assert_eq!(judge(now - 1, now), Expiry::Ended);
        assert_eq!(warning("x", now + 40 * DAY_MS, now, "do"), None);
        let told = |ends| warning("server a", ends, now, "do this");
        assert_eq!(
            told(now + 3 * DAY_MS).as_deref(),
            Some("the certificate of server a ends in 3 days; do this")
        );
        assert_eq!(told(now - 1).as_deref(), Some("the certificate of server a has ended; do this"));
    }
}
