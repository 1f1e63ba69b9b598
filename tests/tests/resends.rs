//! Classes and resends (HA 4.2): the link is cut before a request leaves, after execution and before the reply, and in
//! the middle of the reply. The application hears nothing of it, and what was asked has happened once.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spec::AttributeType;
use spec::messages::{Answer, Call, Find};
use spec::value::{Attribute, Template};
use tests::lab::{Lab, Scene};
use tests::wire::{Client, Wire};

/// Requests that carry a ticket or a long PIN are longer than this as TLS records; probes, pings and what stands in front
/// of a request are not.
const REQUEST: &str = "min=110";
/// A Store carries the sealed batch; nothing else of a create is as long.
const STORE: &str = "min=700";

/// The three places of a cut.
const CUTS: [&str; 3] = ["request", "reply", "half-reply"];

/// A laboratory of three with proxies, and an application that does one call at a time.
struct Bench {
    lab: Lab,
    scene: Scene,
    client: Client,
    pin: String,
}

impl Bench {
    fn new() -> Self {
        let lab = Lab::up_proxied(3);
        let mut scene = lab.scene("steps", &[]);
        scene.expect("READY");
        let (client, pin) = (Client::of(&lab), lab.value("P11_PIN").to_owned());
        let mut bench = Self { lab, scene, client, pin };
        bench.done(&format!("login {}", bench.pin.clone()), 0);
        bench
    }

    /// A step that must go well, with no cut.
    fn done(&mut self, line: &str, count: usize) {
        assert_eq!(self.scene.step(line), format!("DONE {count}"), "{line}");
    }

    /// A step in the middle of which one link is cut; what the step said.
    fn cut(&mut self, cut: &str, line: &str) -> String {
        let (before, fired) = (self.lab.connections(), self.lab.fired());
        self.lab.fault(&format!("arm {cut}"));
        let said = self.scene.step(line);
        // On a host that has much else to do another member may answer before the reply that is cut has come (HA 4.4).
        let begun = Instant::now();
        while self.lab.fired() == fired && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.lab.fired(), fired + 1, "the cut ({cut}) did not meet {line:?}");
        // The next cut finds all links up again.
        self.lab.wait_for_a_new_link(&before);
        said
    }

    /// How many objects of this label each member holds, asked of each by the raw wire client.
    fn held(&self, label: &str) -> Vec<usize> {
        (0..3)
            .map(|member| {
                let mut wire = Wire::open_at(&self.client, member);
                wire.login(&self.pin);
                let label =
                    Template::from(vec![Attribute::new(AttributeType::LABEL, label.as_bytes().to_vec())]);
                let find = Find { template: Some(label), after: Vec::new(), limit: 100 };
                let reply = wire.call(Call::Find(find));
                match &reply.answer {
                    Some(Answer::Find(found)) => found.found.len(),
                    _ => panic!("wanted a page: {}", reply.text),
                }
            })
            .collect()
    }

    /// Failed tries of the Crypto Officer's PIN on all members together.
    fn failed_tries(&self) -> u32 {
        (0..3).map(|member| Wire::open_at(&self.client, member).status().failed_tries_user).sum()
    }

    /// Failed tries once no verifier runs any more: a try is reserved before it and given back after it (HA 7), and the
    /// member whose link was cut may still be at it.
    fn settled_tries(&self, wanted: &dyn Fn(u32) -> bool) -> u32 {
        let begun = Instant::now();
        loop {
            let tries = self.failed_tries();
            if wanted(tries) || begun.elapsed() > Duration::from_secs(30) {
                return tries;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A right PIN on every member, which clears what was counted there.
    fn forget_failures(&self) {
        (0..3).for_each(|member| Wire::open_at(&self.client, member).login(&self.pin));
        assert_eq!(self.failed_tries(), 0);
    }

    fn end(mut self) {
        self.lab.fault("disarm");
        self.scene.write(b"end\n");
        self.scene.finish();
    }
}

#[test]
fn ha_4_2_reads_and_uses_go_to_another_member() {
    let mut bench = Bench::new();
    bench.done("secret k", 1);
    bench.done("select k", 1);
    bench.done("mac", 1);
    for cut in CUTS {
        let cut = format!("{cut} {REQUEST}");
        for step in ["select k", "read", "mac"] {
            assert_eq!(bench.cut(&cut, step), "DONE 1", "{cut}: {step}");
        }
    }
    bench.end();
}

#[test]
fn ha_4_2_a_create_leaves_exactly_one_key_on_every_member() {
    let mut bench = Bench::new();
    for (at, cut) in CUTS.into_iter().enumerate() {
        // The Make, one of the Stores, and one of the Commits behind the Make and three Stores.
        for (which, filter) in [("make", REQUEST), ("store", STORE), ("commit", "min=110 skip=4")] {
            let label = format!("{which}-{at}");
            let said = bench.cut(&format!("{cut} {filter}"), &format!("pair {label}"));
            assert_eq!(said, "DONE 2", "{cut} of a {which}");
            bench.done(&format!("select {label}"), 2);
        }
    }
    bench.lab.wait_until_equal(3);
    for at in 0..CUTS.len() {
        for which in ["make", "store", "commit"] {
            assert_eq!(bench.held(&format!("{which}-{at}")), [2, 2, 2], "{which}-{at}: one pair everywhere");
        }
    }
    bench.end();
}

#[test]
fn ha_4_2_changes_and_destructions_happen_once_and_everywhere() {
    let mut bench = Bench::new();
    for (at, cut) in CUTS.into_iter().enumerate() {
        let cut = format!("{cut} {REQUEST}");
        let (old, new) = (format!("old-{at}"), format!("new-{at}"));
        bench.done(&format!("aes {old}"), 1);
        bench.done(&format!("select {old}"), 1);
        assert_eq!(bench.cut(&cut, &format!("rename {new}")), "DONE 1", "{cut}");
        bench.done(&format!("select {old}"), 0);
        bench.done(&format!("aes gone-{at}"), 1);
        bench.done(&format!("select gone-{at}"), 1);
        assert_eq!(bench.cut(&cut, "destroy"), "DONE 1", "{cut}");
        bench.done(&format!("select gone-{at}"), 0);
    }
    bench.lab.wait_until_equal(3);
    for at in 0..CUTS.len() {
        let held = ["old", "new", "gone"].map(|name| bench.held(&format!("{name}-{at}")));
        assert_eq!(held, [vec![0, 0, 0], vec![1, 1, 1], vec![0, 0, 0]], "round {at}");
    }
    bench.end();
}

#[test]
fn ha_4_2_a_right_pin_spends_no_try_and_a_wrong_one_what_the_class_allows() {
    let mut bench = Bench::new();
    // So long that the proxies tell a login from a probe by its length.
    let pin = "a right one ".replace(' ', "-").repeat(10);
    bench.done(&format!("change-pin {} {pin}", bench.pin.clone()), 0);
    bench.pin.clone_from(&pin);
    for cut in CUTS {
        let armed = format!("{cut} {REQUEST}");
        bench.done("logout", 0);
        assert_eq!(bench.cut(&armed, &format!("login {pin}")), "DONE 0", "{cut}");
        assert_eq!(bench.settled_tries(&|tries| tries == 0), 0, "{cut}: a right PIN spends no try");
        bench.done("logout", 0);
        let refused = bench.cut(&armed, &format!("login {}", pin.replace("right", "wrong")));
        assert_eq!(refused, "FAILED C_Login answered 0xa0", "{cut}: CKR_PIN_INCORRECT");
        let allowed = if cut == "request" { 1..=1 } else { 1..=2 };
        let spent = bench.settled_tries(&|tries| allowed.contains(&tries));
        assert!(allowed.contains(&spent), "{cut}: {spent} tries");
        bench.forget_failures();
        bench.done(&format!("login {pin}"), 0);
    }
    // A change of the PIN goes to the home under one tag, and is done once.
    for (at, cut) in CUTS.into_iter().enumerate() {
        let (from, to) = if at % 2 == 0 { (&*pin, "another-pin") } else { ("another-pin", &*pin) };
        let said = bench.cut(&format!("{cut} {REQUEST}"), &format!("change-pin {from} {to}"));
        assert_eq!(said, "DONE 0", "{cut}");
    }
    bench.done("change-pin another-pin yet-another", 0);
    bench.end();
}

mod one_body {
    //! RULES 1.5: what decides the result is encoded once; each send carries the same bytes.
    use client::{InitializeOptions, Module, Room};
    use ntls::platform::System;
    use partition::in_process::InProcess;
    use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
    use spec::platform::Moment;
    use spec::seam::{MemberId, Outgoing, Seam, Standing, Tag, Waiter};
    use spec::{Mechanism, MechanismType, SlotId, UserType};
    use tests::inside::{Group, PIN};

    use super::*;

    /// One send: attempt, body.
    type Sent = (u32, Vec<u8>);

    /// A seam that keeps what goes through it.
    struct Recording {
        inner: Arc<InProcess>,
        sent: Mutex<Vec<Sent>>,
    }

    impl Seam for Recording {
        fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, until: Moment) -> Tag {
            self.sent.lock().unwrap().push((request.header.attempt, request.body.to_vec()));
            self.inner.submit(waiter, member, request, until)
        }
        fn cancel(&self, member: MemberId, tag: Tag) {
            self.inner.cancel(member, tag);
        }
        fn standing(&self, member: MemberId) -> Standing {
            self.inner.standing(member)
        }
        fn abandon(&self, member: MemberId, reason: &str) {
            self.inner.abandon(member, reason);
        }
        fn subscribe(&self, waiter: &Arc<Waiter>) {
            self.inner.subscribe(waiter);
        }
    }

    #[test]
    fn rules_1_5_a_resend_carries_the_bytes_of_the_first_send() {
        let group = Group::new(3);
        let surroundings = group.surroundings();
        let seam = Arc::new(Recording { inner: group.seam.clone(), sent: Mutex::default() });
        let module = Module::new();
        let options = InitializeOptions { may_create_threads: false };
        module.initialize_over(seam.clone(), Arc::new(System), surroundings.configuration, options).unwrap();
        let session = module.open_session(SlotId(0), SERIAL_SESSION | RW_SESSION).unwrap();
        module.login(session, UserType::USER, Some(PIN.as_bytes())).unwrap();
        let template = Template::from(vec![
            Attribute::bool(AttributeType::SIGN, true),
            Attribute::ulong(AttributeType::VALUE_LEN, 32),
        ]);
        let generation = Mechanism::plain(MechanismType::GENERIC_SECRET_KEY_GEN);
        let key = module.generate_key(session, generation, template).unwrap();
        let hmac = || Mechanism::plain(MechanismType::SHA256_HMAC);
        let sign = || {
            module.sign_init(session, Some(hmac()), key).unwrap();
            module.sign(session, b"data", Room::Bytes(32)).unwrap()
        };
        sign();
        // Whichever member is asked first, its answer is lost; so is the request on the way to the second.
        let lost = spec::messages::Call::Use(spec::messages::Use::default()).number();
        for (at, member) in group.members.iter().enumerate() {
            if at == 1 {
                group.seam.lose_request_once(*member, lost);
            } else {
                group.seam.lose_reply_once(*member, lost);
            }
        }
        seam.sent.lock().unwrap().clear();
        sign();
        let sent = seam.sent.lock().unwrap();
        let attempts: Vec<u32> = sent.iter().map(|(attempt, _)| *attempt).collect();
        assert!(sent.len() > 1 && sent.len() <= 4, "{attempts:?}");
        assert!(sent.windows(2).all(|pair| pair[0].1 == pair[1].1), "a resend was encoded again");
        assert!(attempts.windows(2).all(|pair| pair[0] < pair[1]), "attempts count up: {attempts:?}");
        drop(sent);
        module.finalize().unwrap();
    }
}
