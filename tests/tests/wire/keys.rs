//! What a key permits, templates, one-way attributes, context login (RULES 1.4, 2.7, 2.16; HA 1.3).
use spec::messages::{
    Answer, Call, Destroy, Find, How, KeyFunction, Make, MakeKind, MechanismMessage, ObjectRef, Outcome,
    Plan, SetAttributes,
};
use spec::value::{Attribute, Template};
use spec::{
    AttributeType as A, AttributeType, KeyType, Mechanism, MechanismType, MechanismType as M, ObjectClass,
    Parameters, Rv,
};
use tests::lab::Lab;
use tests::wire::{Client, Wire, create, generate, plain, tag, use_key};

use crate::{officer, outcome, rv};

pub(crate) fn keys_keep_to_what_they_permit(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let hash_and_sign_only = Attribute::new(
        AttributeType::ALLOWED_MECHANISMS,
        MechanismType::ECDSA_SHA256.0.to_le_bytes().to_vec(),
    );
    let (public, private) = wire.pair(vec![hash_and_sign_only]);
    let digest = [7; 32];
    // RULES 1.4: a hand-made prehashed request for a key that is allowed only the hash-and-sign form.
    assert_ne!(
        outcome(&wire.sign(MechanismType::ECDSA_SHA256, &private, How::PREHASH.0, &digest)),
        Outcome::OK
    );
    assert_eq!(rv(&wire.sign(MechanismType::ECDSA, &private, How::WHOLE.0, &digest)), Rv::MECHANISM_INVALID);
    assert_eq!(
        outcome(&wire.sign(MechanismType::ECDSA_SHA256, &private, How::WHOLE.0, b"data")),
        Outcome::OK
    );
    assert_ne!(outcome(&wire.sign(MechanismType::ECDSA_SHA256, &public, How::WHOLE.0, b"data")), Outcome::OK);
    let decrypt = use_key(KeyFunction::DECRYPT, MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
    assert_ne!(outcome(&wire.call(Call::Use(decrypt))), Outcome::OK);
    let reply = wire.attributes(&private, &[AttributeType::VALUE, AttributeType::SENSITIVE]);
    let Some(Answer::GetAttributes(values)) = &reply.answer else {
        panic!("wanted attributes: {}", reply.text)
    };
    assert_eq!(Rv(values.values[0].rv), Rv::ATTRIBUTE_SENSITIVE);
    assert!(values.values[0].value.is_empty(), "a sensitive value left the member");
    for (kind, value) in [
        (AttributeType::SENSITIVE, false),
        (AttributeType::EXTRACTABLE, true),
        (AttributeType::TRUSTED, true),
    ] {
        let template = Template::from(vec![Attribute::bool(kind, value)]);
        let change = SetAttributes {
            object: Some(private.clone()),
            template: Some(template),
            tag: vec![8; 16],
            seen: None,
        };
        assert_ne!(
            outcome(&wire.call(Call::SetAttributes(change))),
            Outcome::OK,
            "{kind:?} was turned to {value}"
        );
    }
    let by_value = Template::from(vec![Attribute::new(AttributeType::VALUE, vec![0; 32])]);
    let reply = wire.call(Call::Find(Find { template: Some(by_value), after: Vec::new(), limit: 10 }));
    if let Some(Answer::Find(found)) = &reply.answer {
        assert!(found.found.is_empty(), "a sensitive value can be searched for");
    }
}

fn yes(kind: A) -> Attribute {
    Attribute::bool(kind, true)
}

fn no(kind: A) -> Attribute {
    Attribute::bool(kind, false)
}

fn set(object: &ObjectRef, attribute: Attribute) -> Call {
    let template = Some(Template::from(vec![attribute]));
    Call::SetAttributes(SetAttributes { object: Some(object.clone()), template, tag: tag(), seen: None })
}

/// An AES key that the partition generates.
fn aes(wire: &mut Wire, mut more: Vec<Attribute>) -> ObjectRef {
    more.extend([Attribute::ulong(A::VALUE_LEN, 32), yes(A::TOKEN)]);
    wire.stored(generate(M::AES_KEY_GEN, more)).remove(0)
}

/// RULES 2.7: a key with ALWAYS_AUTHENTICATE wants the PIN inside each use; a wrong one is a try.
pub(crate) fn keys_that_always_authenticate(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let (_, key) = wire.pair(vec![yes(A::ALWAYS_AUTHENTICATE)]);
    let mut sign = |pin: &[u8]| {
        let mut wanted = use_key(KeyFunction::SIGN, M::ECDSA, &key, How::WHOLE.0, &[1; 32]);
        wanted.pin = pin.to_vec();
        let reply = wire.call(Call::Use(wanted));
        (outcome(&reply), Rv(reply.rv), wire.status().failed_tries_user)
    };
    assert_eq!(sign(b""), (Outcome::RV, Rv::USER_NOT_LOGGED_IN, 0), "the login is not enough");
    assert_eq!(sign(b"not the PIN"), (Outcome::RV, Rv::PIN_INCORRECT, 1));
    assert_eq!(sign(b"not the PIN"), (Outcome::RV, Rv::PIN_INCORRECT, 1), "the same bytes are the same try");
    assert_eq!(sign(lab.value("P11_PIN").as_bytes()), (Outcome::OK, Rv::OK, 0));
    assert_eq!(sign(b""), (Outcome::RV, Rv::USER_NOT_LOGGED_IN, 0), "the PIN was for one use");
    let mut stream = use_key(KeyFunction::SIGN, M::ECDSA_SHA256, &key, How::STREAM.0, b"data");
    stream.last = true;
    assert_eq!(rv(&wire.call(Call::Use(stream))), Rv::USER_NOT_LOGGED_IN, "nor by parts");
}

/// Templates are refused with the code of their fault, whoever sends them.
pub(crate) fn templates(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let class = |class: ObjectClass| Attribute::ulong(A::CLASS, class.0);
    let secret = |kind: KeyType, bytes: usize, more: Vec<Attribute>| {
        let mut template = vec![
            class(ObjectClass::SECRET_KEY),
            Attribute::ulong(A::KEY_TYPE, kind.0),
            Attribute::new(A::VALUE, vec![1; bytes]),
        ];
        template.extend(more);
        create(template)
    };
    let aes = |more: Vec<Attribute>| secret(KeyType::AES, 16, more);
    let label = || Attribute::new(A::LABEL, b"a".to_vec());
    let long = |bytes| Attribute::ulong(A::VALUE_LEN, bytes);
    let rows = [
        (create(vec![]), Rv::TEMPLATE_INCOMPLETE),
        (create(vec![class(ObjectClass::SECRET_KEY)]), Rv::TEMPLATE_INCOMPLETE),
        (create(vec![class(ObjectClass::HW_FEATURE)]), Rv::ATTRIBUTE_VALUE_INVALID),
        (create(vec![Attribute::new(A::CLASS, vec![0; 4])]), Rv::ATTRIBUTE_VALUE_INVALID),
        (aes(vec![Attribute::new(A::MODULUS, vec![1])]), Rv::ATTRIBUTE_TYPE_INVALID),
        (aes(vec![Attribute::new(A::TOKEN, vec![2])]), Rv::ATTRIBUTE_VALUE_INVALID),
        (aes(vec![label(), label()]), Rv::TEMPLATE_INCONSISTENT),
        (aes(vec![yes(A::LOCAL)]), Rv::TEMPLATE_INCONSISTENT),
        (aes(vec![Attribute::new(A::CHECK_VALUE, vec![1, 2, 3])]), Rv::ATTRIBUTE_VALUE_INVALID),
        (aes(vec![yes(A::TRUSTED)]), Rv::ATTRIBUTE_READ_ONLY),
        (secret(KeyType::AES, 17, vec![]), Rv::ATTRIBUTE_VALUE_INVALID),
        (secret(KeyType::DES3, 24, vec![]), Rv::ATTRIBUTE_VALUE_INVALID),
        (generate(M::AES_KEY_GEN, vec![long(17)]), Rv::ATTRIBUTE_VALUE_INVALID),
        (generate(M::AES_KEY_GEN, vec![long(32), class(ObjectClass::PUBLIC_KEY)]), Rv::TEMPLATE_INCONSISTENT),
        (
            generate(M::AES_KEY_GEN, vec![long(32), Attribute::new(A::VALUE, vec![1; 32])]),
            Rv::TEMPLATE_INCONSISTENT,
        ),
        (generate(M::AES_CBC, vec![long(32)]), Rv::MECHANISM_INVALID),
        (generate(M::EC_KEY_PAIR_GEN, vec![long(32)]), Rv::MECHANISM_INVALID),
        (generate(M::DES3_KEY_GEN, vec![long(32)]), Rv::MECHANISM_INVALID),
    ];
    for (make, expected) in rows {
        let shown = format!("{:?}", make.templates);
        assert_eq!(rv(&wire.call(Call::Make(make))), expected, "{shown}");
    }
}

/// HA 1.3: one way, and what may not change does not.
pub(crate) fn attributes_go_one_way(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let key = aes(&mut wire, vec![no(A::SENSITIVE), yes(A::EXTRACTABLE)]);
    for (kind, towards) in
        [(A::SENSITIVE, true), (A::WRAP_WITH_TRUSTED, true), (A::EXTRACTABLE, false), (A::COPYABLE, false)]
    {
        assert_eq!(outcome(&wire.call(set(&key, Attribute::bool(kind, towards)))), Outcome::OK, "{kind:?}");
        let back = wire.call(set(&key, Attribute::bool(kind, !towards)));
        assert_eq!(rv(&back), Rv::ATTRIBUTE_READ_ONLY, "{kind:?} was turned back");
    }
    for (attribute, expected) in [
        (no(A::PRIVATE), Rv::ATTRIBUTE_READ_ONLY),
        (no(A::TOKEN), Rv::ATTRIBUTE_READ_ONLY),
        (Attribute::ulong(A::KEY_TYPE, KeyType::RSA.0), Rv::ATTRIBUTE_READ_ONLY),
        (Attribute::new(A::MODULUS, vec![1]), Rv::ATTRIBUTE_TYPE_INVALID),
        (Attribute::new(A::SIGN, vec![5]), Rv::ATTRIBUTE_VALUE_INVALID),
        (yes(A::TRUSTED), Rv::ATTRIBUTE_READ_ONLY),
    ] {
        assert_eq!(rv(&wire.call(set(&key, attribute.clone()))), expected, "{attribute:?}");
    }
    let frozen = aes(&mut wire, vec![no(A::MODIFIABLE), no(A::DESTROYABLE)]);
    let label = Attribute::new(A::LABEL, b"x".to_vec());
    assert_eq!(rv(&wire.call(set(&frozen, label))), Rv::ACTION_PROHIBITED);
    let destroy = Call::Destroy(Destroy { object: Some(frozen) });
    assert_eq!(rv(&wire.call(destroy)), Rv::ACTION_PROHIBITED);
}

/// A copy takes nothing back, and a private source does not exist without a login.
pub(crate) fn copies_are_never_weaker(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let copy = |source: &ObjectRef, template: Vec<Attribute>| {
        let templates = vec![Template::from(template)];
        let source = Some(source.clone());
        Call::Make(Make { kind: MakeKind::COPY.0, mechanism: None, templates, source, tag: tag() })
    };
    let key = aes(&mut wire, vec![yes(A::SENSITIVE)]);
    for (attribute, expected) in [
        (no(A::SENSITIVE), Rv::ATTRIBUTE_READ_ONLY),
        (yes(A::EXTRACTABLE), Rv::ATTRIBUTE_READ_ONLY),
        (no(A::PRIVATE), Rv::TEMPLATE_INCONSISTENT),
        (Attribute::new(A::VALUE, vec![0; 32]), Rv::ATTRIBUTE_READ_ONLY),
        (Attribute::new(A::MODULUS, vec![1]), Rv::ATTRIBUTE_TYPE_INVALID),
        (yes(A::TRUSTED), Rv::ATTRIBUTE_READ_ONLY),
    ] {
        assert_eq!(rv(&wire.call(copy(&key, vec![attribute.clone()]))), expected, "{attribute:?}");
    }
    let fixed = aes(&mut wire, vec![no(A::COPYABLE)]);
    assert_eq!(rv(&wire.call(copy(&fixed, vec![]))), Rv::ACTION_PROHIBITED);
    wire.ticket.clear();
    assert_eq!(rv(&wire.call(copy(&key, vec![]))), Rv::OBJECT_HANDLE_INVALID);
}

/// Functions, mechanisms and parameters that do not fit the key, with and without a plan; the member checks each time.
pub(crate) fn uses_that_do_not_fit(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let (public, private) = wire.pair(Vec::new());
    let (_, mute) = wire.pair(vec![no(A::SIGN)]);
    let secret = aes(&mut wire, Vec::new());
    let data = create(vec![Attribute::ulong(A::CLASS, ObjectClass::DATA.0), yes(A::TOKEN)]);
    let data = wire.stored(data).remove(0);
    let cbc = |bytes: usize| {
        let parameters = Parameters::Iv(vec![0; bytes]);
        MechanismMessage::from(&Mechanism { mechanism_type: M::AES_CBC, parameters })
    };
    let rows = [
        (KeyFunction::SIGN, plain(M::ECDSA), &public, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::SIGN, plain(M::ECDSA), &mute, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::VERIFY, plain(M::ECDSA), &private, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::SIGN, plain(M::ECDSA), &secret, Rv::KEY_TYPE_INCONSISTENT),
        (KeyFunction::DECRYPT, cbc(16), &private, Rv::KEY_FUNCTION_NOT_PERMITTED),
        (KeyFunction::ENCRYPT, cbc(15), &secret, Rv::MECHANISM_PARAM_INVALID),
        (KeyFunction::SIGN, cbc(16), &secret, Rv::MECHANISM_INVALID),
        (KeyFunction::ENCRYPT, plain(M::DES3_ECB), &secret, Rv::MECHANISM_INVALID),
        (KeyFunction::ENCRYPT, cbc(16), &data, Rv::KEY_HANDLE_INVALID),
    ];
    for (function, mechanism, key, expected) in rows {
        let what = format!("{function:?} {:#x}", mechanism.number);
        let plan = Plan { function: function.0, mechanism: Some(mechanism.clone()), key: Some(key.clone()) };
        assert_eq!(rv(&wire.call(Call::Plan(plan))), expected, "plan of {what}");
        let mut wanted = use_key(function, M::ECDSA, key, How::WHOLE.0, &[0; 32]);
        wanted.mechanism = Some(mechanism);
        assert_eq!(rv(&wire.call(Call::Use(wanted))), expected, "use of {what}");
    }
    let signed = wire.sign(M::ECDSA_SHA256, &private, How::WHOLE.0, b"m");
    let Some(Answer::Use(signed)) = &signed.answer else { panic!("wanted a signature: {}", signed.text) };
    let mut verify = |signature: Vec<u8>| {
        let mut wanted = use_key(KeyFunction::VERIFY, M::ECDSA_SHA256, &public, How::WHOLE.0, b"m");
        wanted.signature = signature;
        wire.call(Call::Use(wanted))
    };
    assert_eq!(outcome(&verify(signed.output.clone())), Outcome::OK);
    let mut bent = signed.output.clone();
    bent[5] ^= 1;
    assert_eq!(rv(&verify(bent)), Rv::SIGNATURE_INVALID);
    assert_eq!(rv(&verify(signed.output[1..].to_vec())), Rv::SIGNATURE_LEN_RANGE);
}
