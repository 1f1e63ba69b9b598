//! Scenes of forks and of a process without threads (HA 5, HA 6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cryptoki_sys::*;
use tests::p11::{Mech, Outcome, P11, p256_pair};

use crate::{logged_in, say, slot, wait};

/// A child that has not ended after so many seconds is killed, and counts as one that hangs.
const CHILD_SECONDS_MAX: u32 = 30;

/// Forks so many times under eight signing threads; every `sample`-th child signs with the session that it inherited.
pub(crate) fn forks(p11: &Arc<P11>, count: u64, sample: u64) -> Outcome<()> {
    let session = logged_in(p11)?;
    let (_, private) = p256_pair(p11, session, false, "forks", 1)?;
    let stop = Arc::new(AtomicBool::new(false));
    let signed = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (p11, stop, signed) = (p11.clone(), stop.clone(), signed.clone());
            std::thread::spawn(move || -> Outcome<()> {
                let session = p11.open(slot(&p11)?, 0)?;
                while !stop.load(Ordering::Acquire) {
                    p11.sign_once(session, Mech::plain(CKM_ECDSA), private, &[7; 32])?;
                    signed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    let (mut failed, mut hung) = (0, 0);
    for number in 0..count {
        let signs = number % sample == 0;
        match child(p11, session, private, signs) {
            Ending::Fine => {}
            Ending::Failed => failed += 1,
            Ending::Hung => hung += 1,
        }
    }
    stop.store(true, Ordering::Release);
    for thread in threads {
        thread.join().expect("a signing thread does not panic")?;
    }
    assert!(signed.load(Ordering::Relaxed) > 0, "the parent signed meanwhile");
    // Nothing of the parent's has suffered.
    p11.sign_once(session, Mech::plain(CKM_ECDSA), private, &[8; 32])?;
    say(&format!("FORKED failed {failed} hung {hung}"));
    wait();
    Ok(())
}

enum Ending {
    Fine,
    Failed,
    Hung,
}

fn child(p11: &P11, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE, signs: bool) -> Ending {
    fork(CHILD_SECONDS_MAX, || {
        !signs || p11.sign_once(session, Mech::plain(CKM_ECDSA), key, &[9; 32]).is_ok()
    })
}

/// Does something in a child, which has so many seconds for it.
fn fork(seconds_max: u32, act: impl FnOnce() -> bool) -> Ending {
    // SAFETY: the child calls the module, which is made for it, and `_exit`; no destructor and no handler runs there.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: `alarm` has no preconditions; its signal ends the child.
            unsafe { libc::alarm(seconds_max) };
            let good = act();
            // SAFETY: `_exit` does not return and runs nothing of this process.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        -1 => Ending::Failed,
        pid => {
            let mut status = 0;
            // SAFETY: the pointer is valid for writing; the child is this process's own.
            let found = unsafe { libc::waitpid(pid, &mut status, 0) };
            match (found == pid, libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
                (true, true, 0) => Ending::Fine,
                (true, true, _) | (false, ..) => Ending::Failed,
                (true, false, _) => Ending::Hung,
            }
        }
    }
}

/// Bytes that each child of `random_forks` draws.
const CHILD_BYTES: usize = 64;

/// Forks so many times while the buffers of random bytes are full; every child draws at its start, the parent goes on drawing,
/// and nothing that any of them drew may come twice.
pub(crate) fn random_forks(p11: &P11, count: u64) -> Outcome<()> {
    let session = p11.open(slot(p11)?, 0)?;
    let mut drawn = vec![p11.random(session, 32)?];
    let mut failed = 0;
    for _ in 0..count {
        let mut pipe = [0; 2];
        // SAFETY: the array has room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0, "a pipe is to be had");
        // SAFETY: the child calls the module, which is made for it, `write` and `_exit`; no destructor and no handler runs there.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: `alarm` has no preconditions; its signal ends the child.
            unsafe { libc::alarm(CHILD_SECONDS_MAX) };
            let bytes = p11.random(session, CHILD_BYTES).unwrap_or_default();
            // SAFETY: the bytes are readable for their length; `_exit` does not return.
            unsafe {
                libc::write(pipe[1], bytes.as_ptr().cast(), bytes.len());
                libc::_exit(0);
            }
        }
        // What the child would draw from, had it kept it, the parent draws now.
        drawn.push(p11.random(session, CHILD_BYTES)?);
        let mut bytes = vec![0; CHILD_BYTES];
        // SAFETY: the descriptors are the pipe's, the buffer is writable for its length, the child is this process's own.
        let read = unsafe {
            libc::close(pipe[1]);
            let read = libc::read(pipe[0], bytes.as_mut_ptr().cast(), bytes.len());
            libc::close(pipe[0]);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
            read
        };
        if read == CHILD_BYTES as isize { drawn.push(bytes) } else { failed += 1 }
    }
    let mut windows: Vec<&[u8]> = drawn.iter().flat_map(|bytes| bytes.windows(8)).collect();
    let all = windows.len();
    windows.sort_unstable();
    windows.dedup();
    say(&format!("DRAWN failed {failed} shared {}", all - windows.len()));
    wait();
    Ok(())
}

/// Signs in a process that forbids the module to create threads.
pub(crate) fn no_threads(p11: &P11) -> Outcome<()> {
    let session = logged_in(p11)?;
    let (_, private) = p256_pair(p11, session, false, "alone", 1)?;
    say("READY");
    wait();
    for _ in 0..20 {
        p11.sign_once(session, Mech::plain(CKM_ECDSA), private, &[7; 32])?;
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    say(&format!("THREADS {threads}"));
    wait();
    Ok(())
}

/// A child without threads makes a key while a member is down, and goes on until all members are used again.
pub(crate) fn upkeep(p11: &P11) -> Outcome<()> {
    let session = logged_in(p11)?;
    let ending = fork(120, || {
        let played = upkeep_in_child(p11, session);
        if let Err(failed) = &played {
            eprintln!("the child: {} answered {:#x}", failed.function, failed.rv);
        }
        played.is_ok()
    });
    assert!(matches!(ending, Ending::Fine), "the child ends well");
    Ok(())
}

fn upkeep_in_child(p11: &P11, session: CK_SESSION_HANDLE) -> Outcome<()> {
    say("READY");
    wait();
    let (_, private) = p256_pair(p11, session, true, "child", 1)?;
    let sign = || p11.sign_once(session, Mech::plain(CKM_ECDSA), private, &[7; 32]).map(drop);
    say("MADE");
    wait();
    let slot = slot(p11)?;
    while p11.ha_state(slot)?.iter().any(|(_, rv)| *rv != CKR_OK) {
        sign()?;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    say(&format!("USED {threads}"));
    wait();
    sign()?;
    say("SIGNED");
    wait();
    Ok(())
}
