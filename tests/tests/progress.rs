//! The progress bars of `vtl haAdmin compare` and `synchronize`: drawn on a terminal, and nowhere else.
#![allow(clippy::unwrap_used)]

use std::process::Output;

use tests::lab::Lab;

/// `vtl` on a terminal of its own; what a person would see there.
fn on_terminal(lab: &Lab, words: &str) -> (Option<i32>, String) {
    let vtl = tests::lab::programs().join("vtl");
    let line = format!("stty cols 120 rows 40; exec '{}' {words}", vtl.display());
    let mut script = lab.command("script");
    script.env("VTL_PASSWORD", lab.value("P11_PIN")).env("TERM", "xterm");
    let output =
        script.args(["-qec", &line, "/dev/null"]).output().expect("script starts (install bsdutils)");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Whether a bar with these words before it was drawn.
fn has_bar(text: &str, words: &str) -> bool {
    text.split(['\r', '\n']).any(|line| {
        let bar = line.split_once(&format!("{words} [")).and_then(|(_, rest)| rest.split_once("] "));
        bar.is_some_and(|(bar, numbers)| bar.chars().count() == 40 && numbers.contains('/'))
    })
}

fn streams(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|stream| String::from_utf8(stream.clone()).unwrap())
}

/// Three members of which the last one lacks two objects.
fn uneven() -> Lab {
    let lab = Lab::up(3);
    lab.kill_now(3);
    let mut scene = lab.scene("steps", &[]);
    scene.expect("READY");
    scene.done(&format!("login {}", lab.value("P11_PIN")), 0);
    scene.done("pair uneven", 2);
    scene.write(b"end\n");
    scene.finish();
    lab.lab("start", Some(3));
    lab
}

#[test]
fn compare_and_synchronize_draw_a_bar_on_a_terminal_and_nowhere_else() {
    let lab = uneven();
    let group = lab.value("P11_TOKEN_LABEL").to_owned();
    let (compare, dry, synchronize) = (
        ["haAdmin", "compare", "-group", &group],
        ["haAdmin", "synchronize", "-group", &group, "-dry-run"],
        ["haAdmin", "synchronize", "-group", &group],
    );
    for words in [&compare[..], &dry[..]] {
        // Without a terminal: neither on standard output nor beside it.
        for stream in streams(&lab.vtl(words)) {
            assert!(
                !stream.contains('[') && !stream.contains("comparing") && !stream.contains('\x1b'),
                "{stream}"
            );
        }
        let (exit, seen) = on_terminal(&lab, &words.join(" "));
        assert_eq!(exit, Some(3), "they differ: {seen}");
        assert!(has_bar(&seen, "comparing"), "{seen:?}");
        assert!(seen.contains("records"), "the answer stands below: {seen:?}");
        // A document is one on a terminal too.
        let (exit, document) = on_terminal(&lab, &format!("--json {}", words.join(" ")));
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!((exit, &document["label"]), (Some(3), &serde_json::json!(group)));
        let [document, complaints] = streams(&lab.vtl(&[&["--json"], words].concat()));
        assert!(serde_json::from_str::<serde_json::Value>(&document).is_ok(), "{document}");
        assert_eq!(complaints, "");
    }
    let (exit, seen) = on_terminal(&lab, &synchronize.join(" "));
    assert_eq!(exit, Some(0), "{seen}");
    assert!(has_bar(&seen, "synchronizing"), "{seen:?}");
    assert!(seen.contains("2 records were carried"), "{seen:?}");
    for stream in streams(&lab.vtl(&synchronize)) {
        assert!(!stream.contains("synchronizing") && !stream.contains('\x1b'), "{stream}");
    }
}
