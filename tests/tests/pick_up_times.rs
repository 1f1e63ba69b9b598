//! How soon a running application follows each change that an operator makes with `vtl haAdmin`. The times are printed, not
//! asserted; docs/ha.md has them as a table.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use tests::lab::{Lab, Scene};

/// How long a change may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A verb that has been carried out.
struct Verb {
    name: String,
    took: Duration,
    ended: Instant,
}

impl Verb {
    /// One about one member.
    fn run(lab: &Lab, words: &[&str], serial: &str) -> Self {
        let whose = ["-group", lab.value("P11_TOKEN_LABEL"), "-serialNum", serial];
        let begun = Instant::now();
        lab.vtl_done(&[&["haAdmin"], words, &whose].concat());
        let words = words.iter().filter(|word| word.parse::<u64>().is_err());
        Self {
            name: words.copied().collect::<Vec<_>>().join(" "),
            took: begun.elapsed(),
            ended: Instant::now(),
        }
    }

    fn tell(&self, what: &str, after: Duration) {
        let (after, took) = (after.as_millis(), self.took.as_millis());
        println!("PICK-UP {}: {what} {after} ms after its end; it took {took} ms", self.name);
    }

    /// Waits until it is so; prints how long after the verb has ended that was.
    fn picked_up(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            assert!(self.ended.elapsed() < PATIENCE, "{} is never seen by the application", self.name);
            std::thread::sleep(Duration::from_millis(2));
        }
        self.tell(what, self.ended.elapsed());
    }

    /// Waits until an appliance has been asked for nothing for a second and a half; prints when the last request was.
    fn takes_work_from(&self, lab: &Lab, member: usize) {
        let (mut seen, mut last) = (uses(lab, member), self.ended.elapsed());
        while self.ended.elapsed() < last + Duration::from_millis(1_500) {
            let now = uses(lab, member);
            if now != seen {
                (seen, last) = (now, self.ended.elapsed());
            }
            assert!(last < PATIENCE, "{}: the appliance is still asked for signatures", self.name);
        }
        self.tell("the last request came", last);
    }

    fn gives_work_to(&self, lab: &Lab, member: usize) {
        let before = uses(lab, member);
        self.picked_up("the first request came", || uses(lab, member) > before);
    }
}

/// How many uses of keys an appliance has been asked for since its start.
fn uses(lab: &Lab, member: usize) -> u64 {
    lab.requests(member).get("Use").copied().unwrap_or(0)
}

/// An empty partition of the group's domain on an appliance, which the application's host may use; its serial number.
fn spare_partition(lab: &Lab, appliance: usize) -> String {
    let made =
        lab.hsm_done(appliance, &["partition", "create", "-partition", "spare", "-domain", "lab", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let serial = made["serial"].to_string();
    lab.hsm_done(appliance, &["client", "assignPartition", "-client", "lab-client", "-partition", &serial]);
    serial
}

fn is_in(list: &[String], serial: &str) -> bool {
    list.iter().any(|other| other == serial)
}

/// Whether the application uses a member.
fn uses_member(scene: &mut Scene, serial: &str) -> bool {
    is_in(&scene.members().0, serial)
}

/// Whether the application knows a member of the group, used or not.
fn knows(scene: &mut Scene, serial: &str) -> bool {
    let (used, others) = scene.members();
    is_in(&used, serial) || is_in(&others, serial)
}

/// Waits until the application uses so many members.
fn uses_all(scene: &mut Scene, members: usize) {
    let begun = Instant::now();
    while scene.members().0.len() < members {
        assert!(begun.elapsed() < PATIENCE, "the application uses {members} members");
    }
}

#[test]
fn each_change_of_a_member_is_picked_up_by_a_running_application() {
    let lab = Lab::up(3);
    let serial = lab.serials()[2].clone();
    let run = |words: &[&str]| Verb::run(&lab, words, &serial);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    uses_all(&mut scene, 3);
    for (off, on) in [
        (&["drain"][..], &["drain", "-end"][..]),
        (&["addStandby", "-everywhere"], &["removeStandby", "-everywhere"]),
        (&["addStandby"], &["removeStandby"]),
    ] {
        run(off).takes_work_from(&lab, 3);
        run(on).gives_work_to(&lab, 3);
    }
    run(&["removeMember"]).picked_up("it was gone", || !knows(&mut scene, &serial));
    run(&["addMember"]).picked_up("it was used", || uses_member(&mut scene, &serial));
    scene.signatures_go_on();
    scene.finish_without_error();
}

#[test]
fn a_promoted_home_is_picked_up_by_a_running_application() {
    let lab = Lab::up(3);
    let mut scene = lab.scene("steps", &[]);
    scene.expect("READY");
    let pin = lab.value("P11_PIN").to_owned();
    scene.done(&format!("login {pin}"), 0);
    // Only the home changes PINs (HA 2.7).
    scene.done(&format!("change-pin {pin} {pin}-b"), 0);
    scene.done(&format!("change-pin {pin}-b {pin}"), 0);
    lab.kill_now(1);
    let line = format!("change-pin {pin} {pin}-c");
    assert!(scene.step(&line).starts_with("FAILED"), "the home is dead");
    Verb::run(&lab, &["promote"], &lab.serials()[1])
        .picked_up("a PIN was changed", || scene.step(&line) == "DONE 0");
    scene.write(b"end\n");
    scene.finish();
}

#[test]
fn the_founding_member_is_replaced_under_a_running_application_that_notices_nothing() {
    let lab = Lab::up(3);
    let serials = lab.serials();
    Verb::run(&lab, &["removeMember"], &serials[2]);
    let spare = spare_partition(&lab, 3);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    uses_all(&mut scene, 2);
    let (token, before) = (scene.token(), uses(&lab, 3));
    let replace = Verb::run(&lab, &["replaceMember", "-newSerialNum", &spare], &serials[0]);
    let replaced = |scene: &mut Scene| uses_member(scene, &spare) && !knows(scene, &serials[0]);
    replace.picked_up("the new one was used and the old one gone", || replaced(&mut scene));
    assert_eq!(scene.token(), token, "number of the slot and serial number of the group");
    replace.picked_up("requests had come", || uses(&lab, 3) > before);
    assert_eq!(lab.serials(), [spare.clone(), serials[1].clone()], "in the place of the old one");
    // The old one is asked for nothing any more, and the new one alone carries the application: sessions, login, key.
    let old = uses(&lab, 1);
    scene.signatures_go_on();
    assert_eq!(uses(&lab, 1), old);
    [1, 2].into_iter().for_each(|member| lab.kill_now(member));
    scene.signatures_go_on();
    assert_eq!(scene.token(), token);
    scene.finish_without_error();
}
