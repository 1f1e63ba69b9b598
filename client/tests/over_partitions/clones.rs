//! Two copies of one member, of which each application reaches another one (HA 1.5).
use std::time::{Duration, Instant};

use client::Module;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::{Attribute, AttributeType as A, HandleSession, ObjectClass, Template, UserType};

use crate::lab::{CO_PIN, Lab, SLOT};

fn logged_in(module: &Module) -> HandleSession {
    let session = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
    module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
    session
}

fn make(module: &Module, session: HandleSession, label: &str) {
    let template = Template::from(vec![
        Attribute::ulong(A::CLASS, ObjectClass::DATA.0),
        Attribute::bool(A::TOKEN, true),
        Attribute::new(A::LABEL, label.as_bytes()),
    ]);
    module.create_object(session, template).unwrap();
}

fn found(module: &Module, session: HandleSession) -> usize {
    module.find_init(session, Template::default()).unwrap();
    let found = module.find(session, 100).unwrap().len();
    module.find_final(session).unwrap();
    found
}

#[test]
fn a_clone_is_found_by_what_processes_carry_though_none_of_them_reaches_both_copies() {
    let lab = Lab::with(3, true, true);
    let original = lab.seam.partition(lab.members[1]).unwrap();
    let session = lab.user();
    make(&lab.module, session, "before");
    let (copy, elsewhere) = lab.beside_a_copy_of(1);
    assert_eq!(copy.header(), original.header());
    let there = logged_in(&elsewhere);
    // Not as many on both sides: copies that repair has made equal, at one commit again, are one.
    make(&lab.module, session, "here");
    make(&lab.module, session, "here again");
    make(&elsewhere, there, "there");
    let begun = Instant::now();
    let same = |one: &partition::Partition, other: &partition::Partition| {
        one.header().incarnation == other.header().incarnation
    };
    let whole = || found(&lab.module, session) == 4 && found(&elsewhere, there) == 4;
    while same(&copy, &original)
        || copy.is_recovering()
        || original.is_recovering()
        || !whole()
        || [&copy, &original].iter().any(|one| one.objects() != 4)
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody has found it");
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.module.finalize().unwrap();
    elsewhere.finalize().unwrap();
}
