//! The verbs behind `haAdmin` about what the members hold: `compare`, `synchronize`, `recover` (HA 4.6, 4.7).

use std::fmt::Write;

use client::conf::Configuration;
use comfy_table::{Table, presets};
use ha::Comparison;
use serde_json::{Value, json};

use crate::answer::{Answer, DIFFERENT, FAILED, Failure, OK};
use crate::arguments::{Compare, Recover, Synchronize};
use crate::census::Network;
use crate::gathered::Gathered;
use crate::global::yes;
use crate::password;
use crate::place::{self, Place};
use crate::progress::Progress;

/// Between two comparisons: what differs in both is a difference, what differs in one may be a write under way (HA 4.6).
const AGAIN_MS: u64 = 2_000;

/// `compare`: changes nothing and needs no password. Exit code 3 when the members differ, 1 when one could not be compared.
pub(crate) fn compare(
    network: &dyn Network,
    configuration: &Configuration,
    compare: &Compare,
    quiet: bool,
) -> Result<Answer, Failure> {
    let bar = Progress::new("comparing", quiet);
    compare_after(network, configuration, compare, AGAIN_MS, &mut |done, total| bar.at(done, total))
}

fn compare_after(
    network: &dyn Network,
    configuration: &Configuration,
    compare: &Compare,
    pause_ms: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Answer, Failure> {
    let group = place::group(configuration, &compare.group)?;
    let gathered = Gathered::new(network, configuration, group)?;
    gathered.manifest()?;
    let mut comparison = gathered.compare(progress)?;
    if !comparison.is_equal() {
        gathered.pause(pause_ms);
        comparison = gathered.compare(progress)?;
    }
    let absent: Vec<String> = comparison
        .members
        .iter()
        .filter_map(|one| {
            Some(format!("member {} could not be compared: {}", one.member, one.absent.as_ref()?))
        })
        .collect();
    let compared = comparison.members.len() - absent.len();
    let exit = match (comparison.is_equal(), absent.is_empty() && compared > 0) {
        (false, _) => DIFFERENT,
        (true, false) => FAILED,
        (true, true) => OK,
    };
    let document = json!({
        "label": group.label, "equal": comparison.is_equal(), "compared": compared,
        "records_that_differ": comparison.records, "members": documents(&comparison),
    });
    let answer = Answer::new(render(&comparison, compared), document);
    Ok(Answer { complaints: absent, exit, ..answer })
}

fn documents(comparison: &Comparison) -> Vec<Value> {
    let document = |one: &ha::Compared| {
        json!({
            "serial": one.member, "absent": one.absent, "objects": one.objects,
            "quarantined": one.quarantined, "buckets_that_differ": one.buckets, "missing": one.missing,
            "different": one.different, "credentials_behind": one.credentials_behind,
            "manifest_behind": one.manifest_behind,
        })
    };
    comparison.members.iter().map(document).collect()
}

fn render(comparison: &Comparison, compared: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "Member S/N",
        "Objects",
        "Buckets that differ",
        "Missing",
        "Different",
        "Quarantined",
        "PINs behind",
        "Manifest behind",
    ]);
    for one in &comparison.members {
        let number = |number: u64| match one.absent {
            Some(_) => "------".to_owned(),
            None => number.to_string(),
        };
        let behind = |behind: bool| match one.absent {
            Some(_) => "------",
            None => yes(behind),
        };
        table.add_row([
            one.member.to_string(),
            number(one.objects),
            number(one.buckets),
            number(one.missing),
            number(one.different),
            number(one.quarantined),
            behind(one.credentials_behind).to_owned(),
            behind(one.manifest_behind).to_owned(),
        ]);
    }
    let verdict = if comparison.is_equal() { "hold the same" } else { "differ" };
    let mut text = String::new();
    let _ = writeln!(text, "{}\n", table.trim_fmt());
    let _ = writeln!(text, "The {compared} members that were compared {verdict}.");
    if comparison.records > 0 {
        let _ = writeln!(
            text,
            "{} records differ; vtl haAdmin synchronize brings them together.",
            comparison.records
        );
    }
    text
}

/// `synchronize`: brings the members to one state. With `-dry-run` it counts what would be moved; exit code 3 when that is
/// something. Exit code 1 when a member could not take part.
pub(crate) fn synchronize(
    network: &dyn Network,
    configuration: &Configuration,
    given: Synchronize,
    quiet: bool,
) -> Result<Answer, Failure> {
    let group = place::group(configuration, &given.group)?;
    let gathered = Gathered::new(network, configuration, group)?;
    gathered.manifest()?;
    let ticket = if given.dry_run {
        Vec::new()
    } else {
        let secret = password::obtain(given.secret, &format!("the group {}", group.label))?;
        gathered.login(&secret)?
    };
    let words = if given.dry_run { "comparing" } else { "synchronizing" };
    let bar = Progress::new(words, quiet);
    let summary = gathered.synchronize(&ticket, given.dry_run, &mut |done, total| bar.at(done, total))?;
    drop(bar);
    let complaints: Vec<String> = summary
        .left_out
        .iter()
        .map(|(member, reason)| format!("member {member} did not take part: {reason}"))
        .collect();
    let exit = match (given.dry_run, summary.moved, complaints.is_empty()) {
        (true, 1.., _) => DIFFERENT,
        (_, _, false) => FAILED,
        (_, _, true) => OK,
    };
    let what = if given.dry_run { "would be carried" } else { "were carried" };
    let members = summary.members.len();
    let text = format!("{} records {what} between {members} members of {}.\n", summary.moved, group.label);
    let document = json!({
        "label": group.label, "dry_run": given.dry_run, "moved": summary.moved,
        "members": summary.members.iter().map(|member| member.0).collect::<Vec<_>>(),
        "left_out": summary.left_out.iter()
            .map(|(member, reason)| json!({ "serial": member.0, "reason": reason })).collect::<Vec<_>>(),
    });
    Ok(Answer { complaints, exit, ..Answer::new(text, document) })
}

/// `recover`: repairs members that have come back, then writes the configuration anew without a change: running
/// applications notice that within a second or two and try members again that they had given up.
pub(crate) fn recover(
    place: &Place,
    network: &dyn Network,
    configuration: &Configuration,
    given: Recover,
) -> Result<Answer, Failure> {
    let group = place::group(configuration, &given.group)?;
    let gathered = Gathered::new(network, configuration, group)?;
    gathered.manifest()?;
    let secret = password::obtain(given.secret, &format!("the group {}", group.label))?;
    let ticket = gathered.login(&secret)?;
    let repaired = if gathered.members().len() > 1 { gathered.equalise(&ticket) } else { Ok(()) };
    place.change(|_, _| Ok(()))?;
    let down: Vec<String> = gathered.down();
    let text = format!(
        "The members of {} that answer {}; running applications on this host try lost members again.\n",
        group.label,
        if repaired.is_ok() { "hold the same and are in use" } else { "are not all in use yet" },
    );
    let document = json!({ "label": group.label, "equal": repaired.is_ok(), "down": down });
    let exit = if repaired.is_ok() && down.is_empty() { OK } else { FAILED };
    let complaints = repaired.err().into_iter().chain(down).collect();
    Ok(Answer { complaints, exit, ..Answer::new(text, document) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::testing::{FIRST, Folder, THREE, World, secret, three};

    fn compare_of(world: &World, folder: &Folder) -> Answer {
        let given = Compare { group: "prodha".to_owned() };
        compare_after(world, &folder.configuration(), &given, 1, &mut |_, _| {}).unwrap()
    }

    fn synchronize_of(world: &World, folder: &Folder, dry_run: bool, pin: &str) -> Result<Answer, Failure> {
        let group = "prodha".to_owned();
        let given = Synchronize { group, dry_run, enable: false, disable: false, secret: secret(pin) };
        synchronize(world, &folder.configuration(), given, true)
    }

    #[test]
    fn members_that_hold_the_same_are_equal_and_a_missing_record_is_told() {
        let (folder, world) = three();
        THREE.iter().for_each(|serial| world.put(*serial, 7));
        let answer = compare_of(&world, &folder);
        assert_eq!((answer.exit, &answer.document["equal"]), (OK, &true.into()), "{answer:?}");
        world.put(FIRST, 9);
        let answer = compare_of(&world, &folder);
        assert_eq!((answer.exit, &answer.document["records_that_differ"]), (DIFFERENT, &1.into()));
        let members = answer.document["members"].as_array().unwrap();
        let missing: Vec<_> = members.iter().map(|one| one["missing"].as_u64().unwrap()).collect();
        assert_eq!(missing, [0, 1, 1]);
        assert!(answer.text.contains("1 records differ; vtl haAdmin synchronize"), "{}", answer.text);
    }

    #[test]
    fn a_member_that_cannot_be_compared_is_no_success() {
        let (folder, world) = three();
        world.stop("hsm2");
        let answer = compare_of(&world, &folder);
        assert_eq!((answer.exit, answer.complaints.len()), (FAILED, 1), "{answer:?}");
        assert!(answer.complaints[0].contains("could not be compared: hsm2: connection refused"));
    }

    #[test]
    fn a_dry_run_moves_nothing_and_a_real_one_brings_the_members_together() {
        let (folder, world) = three();
        (1..=40).for_each(|name| world.put(FIRST, name));
        world.put(THREE[1], 99);
        let dry = synchronize_of(&world, &folder, true, "wrong").unwrap();
        assert_eq!((dry.exit, &dry.document["moved"], world.objects(THREE[2])), (DIFFERENT, &41.into(), 0));
        let answer = synchronize_of(&world, &folder, false, "pin").unwrap();
        assert_eq!((answer.exit, &answer.document["moved"]), (OK, &41.into()), "{answer:?}");
        assert_eq!(THREE.map(|serial| world.objects(serial)), [41, 41, 41]);
        assert_eq!(compare_of(&world, &folder).exit, OK);
        assert_eq!(synchronize_of(&world, &folder, true, "").unwrap().exit, OK);
    }

    #[test]
    fn the_progress_of_both_verbs_grows_to_its_end() {
        let (folder, world) = three();
        (1..=200).for_each(|name| world.put(FIRST, name));
        let mut told = Vec::new();
        let given = Compare { group: "prodha".to_owned() };
        let mut hear = |done, total| told.push((done, total));
        compare_after(&world, &folder.configuration(), &given, 1, &mut hear).unwrap();
        let gathered = Gathered::new(
            &world,
            &folder.configuration(),
            place::group(&folder.configuration(), "prodha").unwrap(),
        )
        .unwrap();
        gathered.manifest().unwrap();
        let ticket = gathered.login(&zeroize::Zeroizing::new("pin".to_owned())).unwrap();
        let compared = told.len();
        gathered.synchronize(&ticket, false, &mut |done, total| told.push((done, total))).unwrap();
        let total = told[0].1;
        assert!(total > 64, "{total} buckets");
        let (compared, synchronized) = told.split_at(compared);
        // A comparison that finds differences is made twice.
        let (first, second) = compared.split_at(compared.len() / 2);
        for steps in [first, second, synchronized] {
            assert!(steps.len() > 1 && steps.is_sorted(), "{steps:?}");
            assert!(steps.iter().all(|step| step.1 == total));
            assert_eq!(steps.last(), Some(&(total, total)));
        }
    }

    #[test]
    fn a_wrong_password_moves_nothing_and_says_what_it_is() {
        let (folder, world) = three();
        world.put(FIRST, 9);
        let failure = synchronize_of(&world, &folder, false, "wrong").unwrap_err();
        assert!(
            failure.0.contains("CKR_PIN_INCORRECT") && failure.0.contains("counts as a try"),
            "{failure}"
        );
        assert_eq!(
            (THREE.map(|serial| world.tries(serial)).iter().sum::<u32>(), world.objects(THREE[1])),
            (1, 0)
        );
    }

    #[test]
    fn recover_repairs_and_touches_the_configuration_without_changing_it() {
        let (folder, world) = three();
        world.put(FIRST, 9);
        let before = (folder.text(), folder.inode());
        let given = Recover { group: "prodha".to_owned(), secret: secret("pin") };
        let answer = recover(&folder.place(), &world, &folder.configuration(), given).unwrap();
        assert_eq!(answer.exit, OK, "{answer:?}");
        assert_eq!(THREE.map(|serial| world.objects(serial)), [1, 1, 1]);
        assert_eq!(folder.text(), before.0);
        assert_ne!(folder.inode(), before.1, "the module looks for another inode");
    }
}
