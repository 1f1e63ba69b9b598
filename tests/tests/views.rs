//! Processes that do not reach the same members, and members that no process reaches at all (HA 3.4, 4.7): what one side
//! has written the other side sees, and what was destroyed does not come back. The times are printed, not asserted.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use tests::lab::{Lab, Scene};
use tests::wire::{Client, Wire};

/// Creates a key on one side, renames it and destroys it, and follows each on the other side.
fn written_here_and_seen_there(here: &mut Scene, there: &mut Scene, what: &str) {
    let (old, new) = (format!("{what}-old"), format!("{what}-new"));
    here.done(&format!("secret {old}"), 1);
    let created = there.done_at_last(&format!("select {old}"), 1);
    there.done("mac", 1);
    here.done(&format!("select {old}"), 1);
    here.done(&format!("rename {new}"), 1);
    let changed = there.done_at_last(&format!("select {new}"), 1);
    there.done_at_last(&format!("select {old}"), 0);
    there.done(&format!("select {new}"), 1);
    here.done("destroy", 1);
    let destroyed = there.done_at_last(&format!("select {new}"), 0);
    for label in [&old, &new, &new, &old] {
        there.done(&format!("select {label}"), 0);
        here.done(&format!("select {label}"), 0);
    }
    println!("{what}: created, seen after {created} ms; changed, {changed} ms; destroyed, {destroyed} ms");
}

/// An application that reaches these members alone, turns to the first of them first, and is logged in.
fn reaching(lab: &Lab, members: &[usize], copies: &str) -> Scene {
    let serials = lab.serials();
    let others = (1..=serials.len()).filter(|member| !members.contains(member));
    let order: Vec<&str> = members.iter().copied().chain(others).map(|at| &*serials[at - 1]).collect();
    let more = format!(
        "VirtualToken = {{\n   VirtualToken00Members = {};\n}}\nHatoki = {{\n   Policy = primary-first;\n   \
         MinimumCopies = {copies};\n}}",
        order.join(", ")
    );
    let mut scene = lab.scene_reaching("steps", members, &more);
    scene.expect("READY");
    scene.done(&format!("login {}", lab.value("P11_PIN")), 0);
    scene
}

fn end(mut scene: Scene) {
    scene.write(b"end\n");
    scene.finish();
}

/// Root and number of objects of each of so many members, asked by links that have no ticket and can repair nothing.
fn contents(client: &Client, members: usize) -> Vec<(Vec<u8>, u64)> {
    let status = |member| Wire::open_at(client, member).status();
    (0..members).map(status).map(|status| (status.root.to_vec(), status.objects)).collect()
}

/// Waits until the members have become equal, with nobody connected that could make them so.
fn equal_by_themselves(client: &Client, members: usize) -> Vec<(Vec<u8>, u64)> {
    let begun = Instant::now();
    loop {
        let seen = contents(client, members);
        if seen.windows(2).all(|pair| pair[0] == pair[1]) {
            println!("equal without any client after {} ms", begun.elapsed().as_millis());
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never equal: {seen:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn ha_3_4_processes_with_different_views_see_what_the_others_write() {
    let lab = Lab::up(3);
    // They have the second member in common, and each asks another one first: each repairs what it reaches.
    let (mut first, mut second) = (reaching(&lab, &[1, 2], "2"), reaching(&lab, &[3, 2], "2"));
    written_here_and_seen_there(&mut first, &mut second, "1,2-to-3,2");
    written_here_and_seen_there(&mut second, &mut first, "3,2-to-1,2");
    end(first);
    end(second);
    // They have none in common: the appliances carry it over.
    lab.make_peers(&[1, 2, 3]);
    let (mut first, mut second) = (reaching(&lab, &[1], "available"), reaching(&lab, &[3], "available"));
    written_here_and_seen_there(&mut first, &mut second, "1-to-3");
    written_here_and_seen_there(&mut second, &mut first, "3-to-1");
    first.done("secret kept", 1);
    end(first);
    end(second);
    let seen = equal_by_themselves(&Client::of(&lab), 3);
    assert!(seen.iter().all(|(_, objects)| *objects == 1), "{seen:?}");
}

#[test]
fn ha_4_7_appliances_bring_a_member_that_was_dead_up_to_date_without_any_client() {
    let lab = Lab::up(3);
    lab.make_peers(&[1, 2, 3]);
    let client = Client::of(&lab);
    let mut scene = reaching(&lab, &[1, 2, 3], "2");
    scene.done("secret doomed", 1);
    let before = equal_by_themselves(&client, 3);
    lab.kill_now(3);
    scene.done("pair meanwhile", 2);
    scene.done("select doomed", 1);
    scene.done("destroy", 1);
    end(scene);
    let between = contents(&client, 2);
    lab.lab("start", Some(3));
    let after = equal_by_themselves(&client, 3);
    assert_eq!(after[2], between[0], "the one that was dead holds what the others held before it came");
    assert_ne!(after[2], before[2]);
    assert_eq!(after[2].1, 2, "the pair, and not what was destroyed meanwhile");
}
