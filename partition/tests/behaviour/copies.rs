//! Copies (PKCS #11 v3.1, 5.7.2).
use spec::messages::*;
use spec::{Attribute, AttributeType as A, Rv};

use crate::bench::*;

fn copy(source: &ObjectRef, template: Vec<Attribute>) -> Make {
    Make {
        kind: MakeKind::COPY.0,
        mechanism: None,
        templates: vec![template.into()],
        source: Some(source.clone()),
        tag: tag(),
    }
}

#[test]
fn a_copy_is_another_object_with_the_same_key() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![label("a"), yes(A::EXTRACTABLE), no(A::SENSITIVE)]);
    let copied = bench.create(copy(&key, vec![token(), label("b")])).remove(0);
    assert_ne!(copied.ouid, key.ouid);
    assert_eq!(bench.attribute(&copied, A::VALUE), bench.attribute(&key, A::VALUE));
    assert_eq!(bench.attribute(&copied, A::LABEL), Ok(b"b".to_vec()));
    assert_eq!(bench.attribute(&copied, A::TOKEN), Ok(vec![1]));
    assert_ne!(bench.attribute(&copied, A::UNIQUE_ID), bench.attribute(&key, A::UNIQUE_ID));
    assert_eq!(bench.status().objects, 1, "the source is a session object");
}

#[test]
fn a_copy_is_never_weaker_than_its_source() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![token(), yes(A::SENSITIVE)]);
    let rows = [
        (no(A::SENSITIVE), Rv::ATTRIBUTE_READ_ONLY),
        (yes(A::EXTRACTABLE), Rv::ATTRIBUTE_READ_ONLY),
        (no(A::PRIVATE), Rv::TEMPLATE_INCONSISTENT),
        (Attribute::new(A::VALUE, vec![0; 32]), Rv::ATTRIBUTE_READ_ONLY),
        (Attribute::new(A::MODULUS, vec![1]), Rv::ATTRIBUTE_TYPE_INVALID),
        (yes(A::TRUSTED), Rv::ATTRIBUTE_READ_ONLY),
    ];
    for (attribute, expected) in rows {
        assert_eq!(bench.rv(Call::Make(copy(&key, vec![attribute.clone()]))), expected, "{attribute:?}");
    }
    let fixed = bench.key(vec![token(), no(A::COPYABLE)]);
    assert_eq!(bench.rv(Call::Make(copy(&fixed, vec![]))), Rv::ACTION_PROHIBITED);
}

#[test]
fn neither_a_change_nor_a_copy_tells_whether_a_guess_at_hidden_material_is_right() {
    let bench = Bench::logged_in();
    for hidden in [vec![yes(A::SENSITIVE), yes(A::EXTRACTABLE)], vec![no(A::SENSITIVE), no(A::EXTRACTABLE)]] {
        let key = bench.create(secret(spec::KeyType::AES, &[7; 32], hidden)).remove(0);
        for guess in [[7; 32], [8; 32]] {
            let guess = || vec![Attribute::new(A::VALUE, guess)];
            assert_eq!(bench.rv(bench.set(&key, guess())), Rv::ATTRIBUTE_READ_ONLY);
            assert_eq!(bench.rv(Call::Make(copy(&key, guess()))), Rv::ATTRIBUTE_READ_ONLY);
        }
    }
    let open = vec![no(A::SENSITIVE), yes(A::EXTRACTABLE)];
    let open = bench.create(secret(spec::KeyType::AES, &[7; 32], open)).remove(0);
    let same = || vec![Attribute::new(A::VALUE, [7; 32])];
    assert_eq!(bench.rv(bench.set(&open, same())), Rv::OK, "what may be read may be named");
    assert_eq!(bench.rv(Call::Make(copy(&open, same()))), Rv::OK);
}

#[test]
fn a_private_source_does_not_exist_without_a_login() {
    let mut bench = Bench::logged_in();
    let key = bench.key(vec![token()]);
    bench.ticket.clear();
    assert_eq!(bench.rv(Call::Make(copy(&key, vec![]))), Rv::OBJECT_HANDLE_INVALID);
}
