//! One call at a time, as the test says: a line in, `DONE` or `FAILED` out.
use cryptoki_sys::*;
use tests::p11::{Failed, Mech, Outcome, P11, Tmpl, p256_pair, secret_key};

use super::{Session, say, slot, wait_for_word};

/// Carries out the lines of standard input until one says `end`.
pub(crate) fn steps(p11: &P11) -> Outcome<()> {
    let mut session = p11.open(slot(p11)?, CKF_RW_SESSION)?;
    let mut selected = Vec::new();
    say("READY");
    loop {
        let line = wait_for_word();
        let words: Vec<&str> = line.split_whitespace().collect();
        if matches!(words[..], [] | ["end"]) {
            return Ok(());
        }
        let done = match words[..] {
            ["anew"] => anew(p11).map(|opened| {
                session = opened;
                selected.clear();
                0
            }),
            _ => step(p11, session, &mut selected, &words),
        };
        match done {
            Ok(count) => say(&format!("DONE {count}")),
            Err(Failed { function, rv }) => say(&format!("FAILED {function} answered {rv:#x}")),
        }
    }
}

/// The application begins anew; its new session.
fn anew(p11: &P11) -> Outcome<Session> {
    p11.finalize()?;
    p11.initialize()?;
    p11.open(slot(p11)?, CKF_RW_SESSION)
}

/// One line; how many objects it was about. `select` keeps handles for the steps that use objects, so that these are one
/// call each.
fn step(p11: &P11, session: Session, selected: &mut Vec<CK_OBJECT_HANDLE>, words: &[&str]) -> Outcome<usize> {
    let each = |act: &dyn Fn(CK_OBJECT_HANDLE) -> Outcome<()>| {
        selected.iter().try_for_each(|object| act(*object)).map(|()| selected.len())
    };
    match *words {
        ["login", pin] => p11.login(session, CKU_USER, &mut pin.as_bytes().to_vec()).map(|()| 0),
        ["logout"] => p11.logout(session).map(|()| 0),
        ["change-pin", from, to] => p11.set_pin(session, from, to).map(|()| 0),
        ["select", label] => {
            let label = Tmpl::new().bytes(CKA_LABEL, label.as_bytes());
            *selected = p11.find(session, label)?;
            Ok(selected.len())
        }
        ["read"] => each(&|object| p11.attribute(session, object, CKA_LABEL).map(drop)),
        ["pair", label] => p256_pair(p11, session, true, label, 7).map(|_| 2),
        ["aes", label] => secret_key(p11, session, CKM_AES_KEY_GEN, 32, true, label).map(|_| 1),
        ["mac"] => each(&|key| {
            let whole = p11.sign_once(session, Mech::plain(CKM_SHA256_HMAC), key, &[9; 32])?;
            assert_eq!(whole.len(), 32);
            Ok(())
        }),
        [verb @ ("macs" | "verifications" | "encryptions" | "decryptions"), count] => {
            let count = count.parse().unwrap_or_else(|_| panic!("wanted a count, found {count:?}"));
            selected.iter().try_for_each(|key| many(p11, session, *key, verb, count)).map(|()| count)
        }
        ["secret", label] => secret_key(p11, session, CKM_GENERIC_SECRET_KEY_GEN, 32, true, label).map(|_| 1),
        ["rename", to] => {
            each(&|object| p11.set_attributes(session, object, Tmpl::new().bytes(CKA_LABEL, to.as_bytes())))
        }
        ["destroy"] => each(&|object| p11.destroy_object(session, object)),
        _ => panic!("no step is called {words:?}"),
    }
}

/// So many calls of one kind with a key, one after the other.
fn many(p11: &P11, session: Session, key: CK_OBJECT_HANDLE, verb: &str, count: usize) -> Outcome<()> {
    const DATA: [u8; 32] = [9; 32];
    let mac = || p11.sign_once(session, Mech::plain(CKM_SHA256_HMAC), key, &DATA);
    let gcm = || Mech::gcm(&[7; 12], b"with this", 128);
    let encrypted = || {
        p11.encrypt_init(session, gcm(), key)?;
        p11.encrypt(session, &DATA)
    };
    let mut times = 0..count;
    match verb {
        "macs" => times.try_for_each(|_| mac().map(drop)),
        "verifications" => {
            let mac = mac()?;
            times.try_for_each(|_| p11.verify_once(session, Mech::plain(CKM_SHA256_HMAC), key, &DATA, &mac))
        }
        "encryptions" => times.try_for_each(|_| encrypted().map(drop)),
        _ => {
            let text = encrypted()?;
            times.try_for_each(|_| {
                p11.decrypt_init(session, gcm(), key)?;
                p11.decrypt(session, &text).map(drop)
            })
        }
    }
}
