//! Contract: searching objects.

use cryptoki_sys::*;

use super::{Context, Session, data_template, refused};
use crate::p11::{Outcome, Tmpl, p256_pair};

rows! {
    "v3.1, 5.7.7" => search_matches_all_attributes_of_the_template,
    "v3.1, 5.7.7" => empty_template_finds_everything,
    "v3.1, 5.7.7" => search_for_nothing_that_exists_finds_nothing,
    "v3.1, 5.7.7" => search_by_class_and_id_tells_public_from_private,
    "v3.1, 5.7.8" => pages_hold_each_object_once,
    "v3.1, 5.7.8" => search_that_has_ended_answers_none_again_and_again,
    "v3.1, 5.7.8" => search_is_a_snapshot,
    "v3.1, 5.7.7" => second_search_in_one_session_is_refused,
    "v3.1, 5.7.7" => searches_of_two_sessions_do_not_meet,
    "v3.1, 5.7.8" => search_without_init_is_refused,
    "v3.1, 5.7.9" => search_can_be_ended_early,
    "v3.1, 5.7.7" => secret_values_cannot_be_searched_for,
    "v3.1, 5.7.7" => handles_of_token_objects_are_the_same_in_all_sessions,
    "v3.1, 5.7.7" => attribute_that_no_object_has_matches_none,
}

fn label(text: &str) -> Tmpl {
    Tmpl::new().bytes(CKA_LABEL, text.as_bytes())
}

fn make(cx: &Context, session: Session, text: &str, value: &[u8]) -> Outcome<super::Object> {
    cx.p11.create_object(session, data_template(false, true, text, value))
}

fn search_matches_all_attributes_of_the_template(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let one = make(cx, session, "search", b"1")?;
    let two = make(cx, session, "search", b"2")?;
    let mut both = cx.p11.find(session, label("search"))?;
    both.sort_unstable();
    let mut wanted = [one, two];
    wanted.sort_unstable();
    assert_eq!(both, wanted);
    assert_eq!(cx.p11.find(session, label("search").bytes(CKA_VALUE, b"2"))?, [two]);
    assert!(cx.p11.find(session, label("search").bytes(CKA_VALUE, b"3"))?.is_empty());
    Ok(())
}

fn empty_template_finds_everything(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let object = make(cx, session, "everything", b"1")?;
    let all = cx.p11.find(session, Tmpl::new())?;
    assert!([public, private, object].iter().all(|handle| all.contains(handle)));
    Ok(())
}

fn search_for_nothing_that_exists_finds_nothing(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    make(cx, session, "label", b"1")?;
    for text in ["no such label", "labe", "labels", ""] {
        assert!(cx.p11.find(session, label(text))?.is_empty(), "{text:?}");
    }
    Ok(())
}

fn search_by_class_and_id_tells_public_from_private(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = p256_pair(&cx.p11, session, false, "by id", 0x77)?;
    let by = |class| cx.p11.find(session, Tmpl::new().ulong(CKA_CLASS, class).bytes(CKA_ID, &[0x77]));
    assert_eq!(by(CKO_PUBLIC_KEY)?, [public]);
    assert_eq!(by(CKO_PRIVATE_KEY)?, [private]);
    Ok(())
}

fn pages_hold_each_object_once(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut made = (0..25).map(|_| make(cx, session, "paged", b"x")).collect::<Outcome<Vec<_>>>()?;
    made.sort_unstable();
    for room in [1, 7, 25, 100] {
        let mut found = Vec::new();
        cx.p11.find_init(session, label("paged"))?;
        loop {
            let page = cx.p11.find_page(session, room)?;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        cx.p11.find_final(session)?;
        found.sort_unstable();
        assert_eq!(found, made, "pages of {room}");
    }
    Ok(())
}

fn search_that_has_ended_answers_none_again_and_again(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    make(cx, session, "ended", b"x")?;
    cx.p11.find_init(session, label("ended"))?;
    assert_eq!(cx.p11.find_page(session, 2)?.len(), 1);
    assert!(cx.p11.find_page(session, 2)?.is_empty());
    assert!(cx.p11.find_page(session, 2)?.is_empty());
    cx.p11.find_final(session)
}

fn search_is_a_snapshot(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let first = make(cx, session, "snapshot", b"1")?;
    cx.p11.find_init(session, label("snapshot"))?;
    make(cx, session, "snapshot", b"2")?;
    assert_eq!(cx.p11.find_page(session, 10)?, [first]);
    cx.p11.find_final(session)
}

fn second_search_in_one_session_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    cx.p11.find_init(session, label("one"))?;
    refused(cx.p11.find_init(session, label("two")), &[CKR_OPERATION_ACTIVE]);
    cx.p11.find_final(session)
}

fn searches_of_two_sessions_do_not_meet(cx: &Context) -> Outcome<()> {
    let (first, second) = (cx.user()?, cx.open()?);
    let one = make(cx, first, "meet one", b"x")?;
    let two = make(cx, first, "meet two", b"x")?;
    cx.p11.find_init(first, label("meet one"))?;
    cx.p11.find_init(second, label("meet two"))?;
    assert_eq!(cx.p11.find_page(first, 4)?, [one]);
    assert_eq!(cx.p11.find_page(second, 4)?, [two]);
    cx.p11.find_final(first)?;
    cx.p11.find_final(second)
}

fn search_without_init_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    refused(cx.p11.find_page(session, 1), &[CKR_OPERATION_NOT_INITIALIZED]);
    refused(cx.p11.find_final(session), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn search_can_be_ended_early(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    make(cx, session, "early", b"1")?;
    make(cx, session, "early", b"2")?;
    cx.p11.find_init(session, label("early"))?;
    cx.p11.find_page(session, 1)?;
    cx.p11.find_final(session)?;
    refused(cx.p11.find_page(session, 1), &[CKR_OPERATION_NOT_INITIALIZED]);
    assert_eq!(cx.p11.find(session, label("early"))?.len(), 2);
    Ok(())
}

fn secret_values_cannot_be_searched_for(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let value = [0x3c; 16];
    let tmpl = Tmpl::new()
        .ulong(CKA_CLASS, CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_AES)
        .bool(CKA_TOKEN, false)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_EXTRACTABLE, false)
        .bytes(CKA_VALUE, &value);
    cx.p11.create_object(session, tmpl)?;
    match cx.p11.find(session, Tmpl::new().bytes(CKA_VALUE, &value)) {
        Ok(found) => assert!(found.is_empty(), "a search must not tell whether a guessed key is there"),
        Err(failed) => refused::<()>(Err(failed), &[CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID]),
    }
    Ok(())
}

fn handles_of_token_objects_are_the_same_in_all_sessions(cx: &Context) -> Outcome<()> {
    let (first, second) = (cx.user()?, cx.open()?);
    let made = cx.rsa(first)?;
    assert_eq!(cx.rsa(second)?, made);
    cx.p11.close(first)?;
    assert_eq!(cx.rsa(second)?, made);
    Ok(())
}

fn attribute_that_no_object_has_matches_none(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    make(cx, session, "no such attribute", b"x")?;
    match cx.p11.find(session, label("no such attribute").bytes(CKA_MODULUS, b"x")) {
        Ok(found) => assert!(found.is_empty()),
        Err(failed) => refused::<()>(Err(failed), &[CKR_ATTRIBUTE_TYPE_INVALID]),
    }
    Ok(())
}
