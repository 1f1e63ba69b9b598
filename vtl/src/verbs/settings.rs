//! The verbs behind `haAdmin` that change this host's configuration alone: `autoRecovery`, `HAOnly`, `haLog`, `policy`
//! and the switch of `synchronize`. Running applications read the file again by themselves.

use client::conf::options::{
    ACTIVE_RECOVERY, HA_ONLY, LOG_BYTES_MAX, LOG_FOLDER, LOG_STATUS, POLICY, RECOVERY_ATTEMPTS,
    RECOVERY_INTERVAL_S, Row, SYNCHRONIZE,
};
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::arguments::{AutoRecovery, HaLog, HaOnly, Policy, PolicyWord, RecoveryModeWord, Synchronize};
use crate::global::{Global, block, enabled, policy, yes};
use crate::place::{self, Place};

/// `autoRecovery`.
pub(crate) fn auto_recovery(place: &Place, given: &AutoRecovery) -> Result<Answer, Failure> {
    let mode = given.mode.map(|mode| match mode {
        RecoveryModeWord::ActiveBasic => "activeBasic".to_owned(),
        RecoveryModeWord::ActiveEnhanced => "activeEnhanced".to_owned(),
    });
    let global = set(
        place,
        &[
            (&RECOVERY_ATTEMPTS, given.retry.map(|number| number.to_string())),
            (&RECOVERY_INTERVAL_S, given.interval.map(|seconds| seconds.to_string())),
            (&ACTIVE_RECOVERY, mode),
        ],
    )?;
    Ok(Answer::new(block(global.recovery_lines()), &global))
}

/// `HAOnly`.
pub(crate) fn ha_only(place: &Place, given: &HaOnly) -> Result<Answer, Failure> {
    let wanted = match (given.enable, given.disable) {
        (true, _) => Some("1".to_owned()),
        (_, true) => Some("0".to_owned()),
        _ => None,
    };
    set(place, &[(&HA_ONLY, wanted)])?;
    let configuration = place.configuration()?;
    let mut answer = Answer::new(
        block(vec![("Only Show HA Slots", yes(configuration.ha_only).to_owned())]),
        json!({ "only_show_ha_slots": configuration.ha_only }),
    );
    if given.enable && configuration.groups.is_empty() {
        answer
            .complaints
            .push("there is no HA group yet; applications see the partitions until there is".to_owned());
    }
    if given.enable || given.disable {
        answer
            .complaints
            .push("applications that run keep their slots until they are started again".to_owned());
    }
    Ok(answer)
}

/// `haLog`.
pub(crate) fn ha_log(place: &Place, given: &HaLog) -> Result<Answer, Failure> {
    let status = match (given.enable, given.disable) {
        (true, _) => Some("enabled".to_owned()),
        (_, true) => Some("disabled".to_owned()),
        _ => None,
    };
    let folder = match &given.path {
        None => None,
        Some(folder) => {
            let failed = |found: String| {
                let action =
                    "make it, writable for the users whose applications log there, or name another one";
                Failure::new(format!("the folder {}", folder.display()), found, action)
            };
            let absolute = std::fs::canonicalize(folder).map_err(|error| failed(error.to_string()))?;
            if !absolute.is_dir() {
                return Err(failed("something that is no folder".to_owned()));
            }
            Some(place::text(&absolute)?.to_owned())
        }
    };
    let global = set(
        place,
        &[
            (&LOG_STATUS, status),
            (&LOG_FOLDER, folder),
            (&LOG_BYTES_MAX, given.max_length.map(|bytes| bytes.to_string())),
        ],
    )?;
    let mut answer = Answer::new(block(global.log_lines()), &global);
    if given.enable && place.configuration()?.ha_log.folder.is_none() {
        answer
            .complaints
            .push("nothing is logged until there is a folder: vtl haAdmin haLog -path DIR".to_owned());
    }
    Ok(answer)
}

/// `policy`.
pub(crate) fn policy_of_routing(place: &Place, given: &Policy) -> Result<Answer, Failure> {
    let word = given.set.map(|policy| match policy {
        PolicyWord::LeastBusy => "least-busy".to_owned(),
        PolicyWord::RoundRobin => "round-robin".to_owned(),
        PolicyWord::PrimaryFirst => "primary-first".to_owned(),
    });
    set(place, &[(&POLICY, word)])?;
    let policy = policy(&place.configuration()?);
    Ok(Answer::new(block(vec![("Policy", policy.to_owned())]), json!({ "policy": policy })))
}

/// `synchronize -enable` and `-disable`.
pub(crate) fn synchronization(place: &Place, given: &Synchronize) -> Result<Answer, Failure> {
    let mut label = String::new();
    place.change(|configuration, document| {
        let group = place::group(configuration, &given.group)?;
        group.label.clone_into(&mut label);
        document.set(SYNCHRONIZE.section, &group.label, if given.enable { "1" } else { "0" })?;
        Ok(())
    })?;
    let text =
        block(vec![("HA Group Label", label.clone()), ("Synchronization", enabled(given.enable).to_owned())]);
    Ok(Answer::new(text, json!({ "label": label, "synchronization": given.enable })))
}

/// Writes what is given, and nothing when nothing is.
fn set(place: &Place, options: &[(&Row, Option<String>)]) -> Result<Global, Failure> {
    if options.iter().all(|(_, value)| value.is_none()) {
        return Ok(Global::of(&place.configuration()?));
    }
    let configuration = place.change(|_, document| {
        for (row, value) in options {
            if let Some(value) = value {
                document.set(row.section, row.key, value)?;
            }
        }
        Ok(())
    })?;
    Ok(Global::of(&configuration))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use client::conf::Attempts;

    use super::*;
    use crate::testing::Folder;

    const GROUP: &str =
        "VirtualToken = {\n   VirtualToken00Label = prodha;\n   VirtualToken00Members = 5, 6;\n}\n";

    #[test]
    fn recovery_settings_are_written_and_shown_and_the_rest_of_the_file_stays() {
        let folder = Folder::new(1);
        let given = AutoRecovery {
            retry: Some(-1),
            interval: Some(90),
            mode: Some(RecoveryModeWord::ActiveBasic),
            show: false,
        };
        let answer = auto_recovery(&folder.place(), &given).unwrap();
        assert!(answer.text.contains("Auto Recovery Poll Interval:  90 seconds"), "{}", answer.text);
        assert!(answer.document["auto_recovery_retry_max"].is_null());
        let recovery = folder.configuration().recovery;
        assert_eq!((recovery.attempts, recovery.interval_s), (Attempts::Unlimited, 90));
        assert!(folder.text().starts_with("# kept\n"));
        let before = folder.text();
        let shown = AutoRecovery { retry: None, interval: None, mode: None, show: true };
        assert!(auto_recovery(&folder.place(), &shown).unwrap().text.contains("activeBasic"));
        let off = AutoRecovery { retry: Some(0), ..shown };
        assert_eq!(folder.text(), before);
        assert_eq!(auto_recovery(&folder.place(), &off).unwrap().document["auto_recovery"], false);
    }

    #[test]
    fn ha_only_is_switched_and_shown() {
        let folder = Folder::new(1);
        folder.append(GROUP);
        let switch = |enable, disable| {
            let given = HaOnly { enable, disable, show: !enable && !disable };
            ha_only(&folder.place(), &given).unwrap().document["only_show_ha_slots"].as_bool().unwrap()
        };
        assert!(switch(false, false) && !switch(false, true) && !switch(false, false) && switch(true, false));
        assert!(folder.text().contains("HAOnly = 1;"));
    }

    #[test]
    fn the_ha_log_needs_a_folder_that_is_there() {
        let folder = Folder::new(1);
        let none = HaLog { enable: false, disable: false, path: None, max_length: None, show: false };
        let enabled = ha_log(&folder.place(), &HaLog { enable: true, ..none }).unwrap();
        assert!(enabled.complaints[0].contains("haLog -path DIR"), "{enabled:?}");
        let none = HaLog { enable: false, disable: false, path: None, max_length: None, show: false };
        let absent = HaLog { path: Some(folder.place().join("absent")), ..none };
        assert!(ha_log(&folder.place(), &absent).unwrap_err().0.contains("wanted the folder"));
        let here = folder.place().join("");
        let given = HaLog { path: Some(here.clone()), max_length: Some(1000), enable: true, ..absent };
        let answer = ha_log(&folder.place(), &given).unwrap();
        assert_eq!((answer.complaints.len(), answer.document["log_bytes_max"].as_u64()), (0, Some(1000)));
        assert_eq!(folder.configuration().ha_log.folder.unwrap(), std::fs::canonicalize(here).unwrap());
    }

    #[test]
    fn every_policy_is_set_and_shown() {
        let folder = Folder::new(1);
        for (set, word) in [
            (None, "least-busy"),
            (Some(PolicyWord::RoundRobin), "round-robin"),
            (Some(PolicyWord::PrimaryFirst), "primary-first"),
            (None, "primary-first"),
            (Some(PolicyWord::LeastBusy), "least-busy"),
        ] {
            let answer = policy_of_routing(&folder.place(), &Policy { set, show: set.is_none() }).unwrap();
            assert_eq!(answer.document["policy"], word);
        }
    }

    #[test]
    fn synchronization_is_switched_for_one_group() {
        let folder = Folder::new(1);
        folder.append(GROUP);
        let switch = |group: &str, enable: bool| {
            let secret = crate::testing::secret("");
            let group = group.to_owned();
            let given = Synchronize { group, dry_run: false, enable, disable: !enable, secret };
            synchronization(&folder.place(), &given)
        };
        switch("prodha", false).unwrap();
        assert!(!folder.configuration().groups[0].synchronize);
        switch("PRODHA", true).unwrap();
        assert!(folder.configuration().groups[0].synchronize);
        assert!(switch("other", true).unwrap_err().0.contains("found the groups prodha"));
    }
}
