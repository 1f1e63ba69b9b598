//! What the configuration says about HA on this host as a whole, in the vendor's words.

use std::fmt::Write;

use client::conf::{Attempts, Configuration, RecoveryMode};
use serde::Serialize;

/// The settings of this host that hold for every group.
#[derive(Serialize)]
pub(crate) struct Global {
    ha_proxy: bool,
    auto_recovery: bool,
    recovery_mode: &'static str,
    /// None means unlimited.
    auto_recovery_retry_max: Option<u16>,
    auto_recovery_interval_s: u32,
    logging: bool,
    log_file: Option<String>,
    log_bytes_max: u32,
    only_show_ha_slots: bool,
    policy: String,
    minimum_copies: String,
}

impl Global {
    /// As the configuration says.
    pub(crate) fn of(configuration: &Configuration) -> Global {
        let recovery = configuration.recovery;
        let log = &configuration.ha_log;
        Global {
            ha_proxy: false,
            auto_recovery: recovery.attempts != Attempts::None,
            recovery_mode: match recovery.mode {
                RecoveryMode::ActiveBasic => "activeBasic",
                RecoveryMode::ActiveEnhanced => "activeEnhanced",
            },
            auto_recovery_retry_max: match recovery.attempts {
                Attempts::None => Some(0),
                Attempts::Number(number) => Some(number),
                Attempts::Unlimited => None,
            },
            auto_recovery_interval_s: recovery.interval_s,
            logging: log.enabled && log.folder.is_some(),
            log_file: log.folder.as_ref().map(|folder| folder.join("haErrorLog.txt").display().to_string()),
            log_bytes_max: log.bytes_max,
            only_show_ha_slots: configuration.ha_only,
            policy: policy(configuration).to_owned(),
            minimum_copies: configuration.hatoki.minimum_copies.to_string(),
        }
    }

    /// Names and values for people.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("HA Proxy", enabled(self.ha_proxy).to_owned())];
        lines.extend(self.recovery_lines());
        lines.extend(self.log_lines());
        lines.extend([
            ("Only Show HA Slots", yes(self.only_show_ha_slots).to_owned()),
            ("Policy", self.policy.clone()),
            ("Minimum Copies", self.minimum_copies.clone()),
        ]);
        lines
    }

    /// Those about recovery.
    pub(crate) fn recovery_lines(&self) -> Vec<(&'static str, String)> {
        let retry = self.auto_recovery_retry_max.map_or("infinite".to_owned(), |number| number.to_string());
        vec![
            ("HA Auto Recovery", enabled(self.auto_recovery).to_owned()),
            ("HA Recovery Mode", self.recovery_mode.to_owned()),
            ("Maximum Auto Recovery Retry", retry),
            ("Auto Recovery Poll Interval", format!("{} seconds", self.auto_recovery_interval_s)),
        ]
    }

    /// Those about the HA log.
    pub(crate) fn log_lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HA Logging", enabled(self.logging).to_owned()),
            ("HA Log File", self.log_file.clone().unwrap_or("<none>".to_owned())),
            ("Maximum HA Log File Length", format!("{} bytes", self.log_bytes_max)),
        ]
    }
}

/// The word of the policy in force.
pub(crate) fn policy(configuration: &Configuration) -> &'static str {
    match configuration.hatoki.policy {
        client::conf::Policy::LeastBusy => "least-busy",
        client::conf::Policy::RoundRobin => "round-robin",
        client::conf::Policy::PrimaryFirst => "primary-first",
    }
}

/// Lines under each other.
pub(crate) fn block(lines: Vec<(&'static str, String)>) -> String {
    let mut text = String::new();
    for (name, value) in lines {
        line(&mut text, name, &value);
    }
    text
}

/// One line of a name and its value.
pub(crate) fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "    {:<30}{value}", format!("{name}:"));
}

/// The vendor's word for on or off.
pub(crate) fn enabled(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}

/// The vendor's word for true or false.
pub(crate) fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
