//! Plays one scene of an application against the module named by `P11_MODULE`, stopping where the test says.
//!
//! Protocol: the scene prints a word when it has come to a point and reads a line before it goes on. The PIN comes
//! from `P11_PIN`, or from standard input where the scene must leave no copy of it.
#![allow(clippy::cast_possible_truncation, reason = "lengths of test data fit")]

mod forks;
mod long;
mod steps;

use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cryptoki_sys::*;
use tests::p11::{Failed, Mech, Outcome, P11, Tmpl, p256_pair, rsa_pair, secret_key};

type Session = CK_SESSION_HANDLE;

fn main() -> ExitCode {
    let begun = Instant::now();
    let mut arguments = std::env::args().skip(1);
    let scene = arguments.next().expect("the first argument names the scene");
    let rest: Vec<String> = arguments.collect();
    let number = |index: usize| {
        rest.get(index).and_then(|text| text.parse::<u64>().ok()).expect("a number is wanted here")
    };
    let p11 =
        Arc::new(P11::load(Path::new(&std::env::var("P11_MODULE").expect("P11_MODULE names the module"))));
    let flags = match scene.as_str() {
        "no-threads" | "fork-upkeep" => CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS,
        _ => CKF_OS_LOCKING_OK,
    };
    p11.initialize_with(flags).expect("C_Initialize succeeds");
    let played = match scene.as_str() {
        "pin" => pin(&p11),
        "session-key" => session_key(&p11),
        "multi-part" => multi_part(&p11),
        "sessions" => sessions(&p11, number(0)),
        "warm-sign" => warm_sign(&p11, number(0)),
        "first-signature" => first_signature(&p11, begun),
        "sign-loop" => sign_loop(&p11, number(0)),
        "bursts" => bursts(&p11, number(0), number(1)),
        "wrong-pin" => wrong_pin(&p11),
        "forks" => forks::forks(&p11, number(0), number(1)),
        "random-forks" => forks::random_forks(&p11, number(0)),
        "no-threads" => forks::no_threads(&p11),
        "fork-upkeep" => forks::upkeep(&p11),
        "long" => long::long(&p11, number(0)),
        "steps" => steps::steps(&p11),
        other => panic!("no scene is called {other}"),
    };
    if let Err(failed) = played {
        eprintln!("scene {scene}: {} answered {:#x}", failed.function, failed.rv);
        return ExitCode::FAILURE;
    }
    let _ = p11.finalize();
    ExitCode::SUCCESS
}

fn say(word: &str) {
    println!("{word}");
    std::io::stdout().flush().expect("the test listens");
}

fn wait() {
    wait_for_word();
}

/// The line that the test says; empty when it says nothing any more.
fn wait_for_word() -> String {
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    line.trim_end().to_owned()
}

fn slot(p11: &P11) -> Outcome<CK_SLOT_ID> {
    p11.slot_of(&std::env::var("P11_TOKEN_LABEL").expect("P11_TOKEN_LABEL names the token"))
}

fn logged_in(p11: &P11) -> Outcome<Session> {
    let session = p11.open(slot(p11)?, CKF_RW_SESSION)?;
    let mut pin = std::env::var("P11_PIN").expect("P11_PIN holds the PIN").into_bytes();
    p11.login(session, CKU_USER, &mut pin)?;
    Ok(session)
}

/// Logs in with a PIN read byte by byte from standard input, wipes it, and waits to be looked through.
fn pin(p11: &P11) -> Outcome<()> {
    let mut pin = [0u8; 64];
    let mut length = 0;
    // SAFETY: standard input is open for the life of the process and the file is forgotten, not closed.
    let mut input =
        std::mem::ManuallyDrop::new(unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(0) });
    while input.read(&mut pin[length..=length]).expect("the PIN comes on standard input") == 1
        && pin[length] != b'\n'
    {
        length += 1;
    }
    let session = p11.open(slot(p11)?, CKF_RW_SESSION)?;
    p11.login(session, CKU_USER, &mut pin[..length])?;
    for byte in &mut pin {
        // SAFETY: a byte of our own array; volatile so that the wiping is not optimised away.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
    secret_key(p11, session, CKM_AES_KEY_GEN, 32, false, "after login")?;
    say("READY");
    let mut line = [0u8; 1];
    let _ = input.read(&mut line);
    Ok(())
}

/// A session key made before and used after a restart of every member.
fn session_key(p11: &P11) -> Outcome<()> {
    let session = logged_in(p11)?;
    let aes = secret_key(p11, session, CKM_AES_KEY_GEN, 32, false, "aes")?;
    let (public, private) = p256_pair(p11, session, false, "pair", 9)?;
    say("READY");
    wait();
    p11.encrypt_init(session, Mech::iv(CKM_AES_CBC_PAD, &[7; 16]), aes)?;
    let sealed = p11.encrypt(session, b"made before the restart")?;
    p11.decrypt_init(session, Mech::iv(CKM_AES_CBC_PAD, &[7; 16]), aes)?;
    assert_eq!(p11.decrypt(session, &sealed)?, b"made before the restart");
    let signature = p11.sign_once(session, Mech::plain(CKM_ECDSA_SHA256), private, b"data")?;
    p11.verify_once(session, Mech::plain(CKM_ECDSA_SHA256), public, b"data", &signature)?;
    say("OK");
    Ok(())
}

/// Four multi-part operations with a restart of every member between their parts. The parts are long enough for every
/// one of them to have reached a member before the restart: what is in flight is a sealed state, a digest, a chaining value.
fn multi_part(p11: &P11) -> Outcome<()> {
    let session = logged_in(p11)?;
    let slot = slot(p11)?;
    let open = || p11.open(slot, CKF_RW_SESSION);
    let (second, third, fourth) = (open()?, open()?, open()?);
    let hmac = secret_key(p11, session, CKM_GENERIC_SECRET_KEY_GEN, 32, false, "hmac")?;
    let aes = secret_key(p11, session, CKM_AES_KEY_GEN, 32, false, "aes")?;
    let (_, rsa) = rsa_pair(p11, session, false, "rsa", 8)?;
    let data: Vec<u8> = (0..400_000u32).map(|index| (index % 251) as u8).collect();
    let (first_part, last_part) = data.split_at(200_000);
    let cbc = || Mech::iv(CKM_AES_CBC, &[5; 16]);
    let padded = || Mech::iv(CKM_AES_CBC_PAD, &[5; 16]);
    p11.sign_init(session, Mech::plain(CKM_SHA256_HMAC), hmac)?;
    p11.sign_init(second, Mech::plain(CKM_SHA256_RSA_PKCS), rsa)?;
    p11.encrypt_init(third, cbc(), aes)?;
    p11.encrypt_init(fourth, padded(), aes)?;
    p11.sign_update(session, first_part)?;
    p11.sign_update(second, first_part)?;
    let mut plain_blocks = p11.encrypt_update(third, first_part)?;
    let mut padded_blocks = p11.encrypt_update(fourth, first_part)?;
    say("READY");
    wait();
    p11.sign_update(session, last_part)?;
    p11.sign_update(second, last_part)?;
    plain_blocks.extend(p11.encrypt_update(third, last_part)?);
    padded_blocks.extend(p11.encrypt_update(fourth, last_part)?);
    let mac = p11.sign_final(session)?;
    let signature = p11.sign_final(second)?;
    plain_blocks.extend(p11.encrypt_final(third)?);
    padded_blocks.extend(p11.encrypt_final(fourth)?);
    assert_eq!(mac, p11.sign_once(session, Mech::plain(CKM_SHA256_HMAC), hmac, &data)?);
    assert_eq!(signature, p11.sign_once(session, Mech::plain(CKM_SHA256_RSA_PKCS), rsa, &data)?);
    p11.encrypt_init(session, cbc(), aes)?;
    assert_eq!(plain_blocks, p11.encrypt(session, &data)?);
    p11.encrypt_init(session, padded(), aes)?;
    assert_eq!(padded_blocks, p11.encrypt(session, &data)?);
    say("OK");
    Ok(())
}

/// Opens so many sessions and holds them.
fn sessions(p11: &P11, count: u64) -> Outcome<()> {
    let session = logged_in(p11)?;
    let slot = slot(p11)?;
    let key = secret_key(p11, session, CKM_AES_KEY_GEN, 32, false, "aes")?;
    p11.encrypt_init(session, Mech::iv(CKM_AES_CBC, &[0; 16]), key)?;
    p11.encrypt(session, &[0; 16])?;
    say("READY");
    wait();
    for _ in 0..count {
        p11.open(slot, CKF_RW_SESSION)?;
    }
    say("OPEN");
    wait();
    p11.close_all(slot)
}

/// Signs on a warm key: so many length queries and whatever else needs no member, then so many signatures, stopping
/// before each series.
/// A signature with the token key `first`, which is made when there is none yet; says what the process took for it since its
/// start, in microseconds: the module loaded, C_Initialize, login, search and signature.
fn first_signature(p11: &P11, begun: Instant) -> Outcome<()> {
    let session = logged_in(p11)?;
    let private = Tmpl::new().ulong(CKA_CLASS, CKO_PRIVATE_KEY).bytes(CKA_LABEL, b"first");
    let key = match p11.find(session, private)?.first() {
        Some(key) => *key,
        None => p256_pair(p11, session, true, "first", 9)?.1,
    };
    assert_eq!(p11.sign_once(session, Mech::plain(CKM_ECDSA), key, &[1; 32])?.len(), 64);
    say(&format!("SIGNED {}", begun.elapsed().as_micros()));
    Ok(())
}

fn warm_sign(p11: &P11, count: u64) -> Outcome<()> {
    let session = logged_in(p11)?;
    let (_, key) = p256_pair(p11, session, true, "warm", 3)?;
    p11.sign_once(session, Mech::plain(CKM_ECDSA), key, &[1; 32])?;
    ask_nobody(p11, session)?;
    say("READY");
    wait();
    for _ in 0..count {
        p11.sign_init(session, Mech::plain(CKM_ECDSA), key)?;
        assert_eq!(p11.sign_length(session, &[1; 32])?, 64);
        p11.sign_init(session, Mech::plain(CKM_ECDSA), key)
            .expect_err("an operation is active until it is used or cancelled");
        p11.cancel_sign(session)?;
        ask_nobody(p11, session)?;
    }
    say("ASKED");
    wait();
    for _ in 0..count {
        p11.sign_once(session, Mech::plain(CKM_ECDSA), key, &[1; 32])?;
    }
    say("SIGNED");
    wait();
    p11.destroy_object(session, key)
}

/// Digests, calls about sessions, slots, tokens and mechanisms (DESIGN 1).
fn ask_nobody(p11: &P11, session: Session) -> Outcome<()> {
    assert_eq!(p11.digest(session, Mech::plain(CKM_SHA256), b"data")?.len(), 32);
    p11.digest_init(session, Mech::plain(CKM_SHA512))?;
    p11.digest_update(session, b"da")?;
    p11.digest_update(session, b"ta")?;
    assert_eq!(p11.digest_final(session)?.len(), 64);
    let slot = slot(p11)?;
    p11.close(p11.open(slot, CKF_RW_SESSION)?)?;
    p11.session_info(session)?;
    p11.info()?;
    p11.slot_info(slot)?;
    p11.token_info(slot)?;
    p11.mechanisms(slot)?;
    p11.mechanism_info(slot, CKM_ECDSA)?;
    p11.ha_state(slot).map(drop)
}

/// Threads sign with one key until the test says stop. A count is that of the slowest thread, so that one that is stuck
/// shows; the result is the sum, the errors and the longest wait of any thread.
fn sign_loop(p11: &Arc<P11>, threads: u64) -> Outcome<()> {
    let session = logged_in(p11)?;
    let (public, key) = p256_pair(p11, session, true, "loop", 4)?;
    let (slot, born) = (slot(p11)?, token(p11)?);
    let (stop, errors) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let counts: Vec<Arc<AtomicU64>> = (0..threads).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let signed = || counts.iter().map(|count| count.load(Ordering::Relaxed));
    let workers: Vec<_> = counts
        .iter()
        .map(|signed| {
            let (p11, stop, signed, errors) = (p11.clone(), stop.clone(), signed.clone(), errors.clone());
            std::thread::spawn(move || {
                let mut longest = Duration::ZERO;
                let session = p11.open(slot, 0).expect("a session opens without a member's help");
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    match p11.sign_once(session, Mech::plain(CKM_ECDSA), key, &[9; 32]) {
                        Ok(_) => signed.fetch_add(1, Ordering::Relaxed),
                        Err(Failed { function, rv }) => {
                            eprintln!("{function} answered {rv:#x}");
                            errors.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                    longest = longest.max(begun.elapsed());
                }
                longest
            })
        })
        .collect();
    say("READY");
    talk(p11, slot, &|| signed().min().unwrap_or(0))?;
    stop.store(true, Ordering::Relaxed);
    let longest =
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).max().unwrap_or_default();
    let signature = p11.sign_once(session, Mech::plain(CKM_ECDSA), key, &[9; 32])?;
    p11.verify_once(session, Mech::plain(CKM_ECDSA), public, &[9; 32], &signature)?;
    assert_eq!(token(p11)?, born, "slot and serial number of the token stay");
    say(&format!(
        "RESULT {} {} {}",
        signed().sum::<u64>(),
        errors.load(Ordering::Relaxed),
        longest.as_millis()
    ));
    Ok(())
}

/// Answers what the test asks until it says something else.
fn talk(p11: &P11, slot: CK_SLOT_ID, slowest: &dyn Fn() -> u64) -> Outcome<()> {
    loop {
        match wait_for_word().as_str() {
            "count" => say(&format!("COUNT {}", slowest())),
            "token" => say(&format!("TOKEN {}", token(p11)?)),
            "members" => {
                let members = p11.ha_state(slot)?;
                let words: Vec<String> =
                    members.iter().map(|(serial, rv)| format!("{serial}:{rv:#x}")).collect();
                say(&format!("MEMBERS {}", words.join(" ")));
            }
            _ => return Ok(()),
        }
    }
}

/// Number of the token's slot and serial number, as `C_GetSlotList` and `C_GetTokenInfo` tell them now.
fn token(p11: &P11) -> Outcome<String> {
    let slot = slot(p11)?;
    let info = p11.token_info(slot)?;
    Ok(format!("{slot} {}", String::from_utf8_lossy(&info.serialNumber).trim_end()))
}

/// Rounds of a burst of token key pairs; after each round every acknowledged key must sign.
fn bursts(p11: &P11, rounds: u64, each: u64) -> Outcome<()> {
    let session = logged_in(p11)?;
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        say("ROUND");
        wait();
        let mut made = Vec::new();
        for index in 0..each {
            // An error is the application's to see; only what was acknowledged counts.
            if let Ok(pair) = p256_pair(p11, session, true, &format!("burst-{round}-{index}"), index as u8) {
                made.push(pair);
            }
        }
        say("MADE");
        wait();
        sign_all(p11, session, &made)?;
        acknowledged.extend(made);
    }
    sign_all(p11, session, &acknowledged)?;
    say(&format!("RESULT {}", acknowledged.len()));
    Ok(())
}

fn sign_all(p11: &P11, session: Session, pairs: &[(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)]) -> Outcome<()> {
    for (public, private) in pairs {
        let signature = p11.sign_once(session, Mech::plain(CKM_ECDSA), *private, &[2; 32])?;
        p11.verify_once(session, Mech::plain(CKM_ECDSA), *public, &[2; 32], &signature)?;
    }
    Ok(())
}

/// One login with a wrong PIN.
fn wrong_pin(p11: &P11) -> Outcome<()> {
    let session = p11.open(slot(p11)?, CKF_RW_SESSION)?;
    let mut pin = *b"certainly not the PIN";
    let failed = p11.login(session, CKU_USER, &mut pin).expect_err("a wrong PIN is refused");
    assert_eq!(failed.rv, CKR_PIN_INCORRECT);
    say("REFUSED");
    Ok(())
}
