//! Operations over much data in parts, side by side: digest, signature, MAC, encryption, decryption, then verification.
use cryptoki_sys::*;
use tests::p11::{Mech, Outcome, P11, rsa_pair, secret_key};

use super::{Session, logged_in, say, slot, wait};

/// Bytes of a part: no power of two times the block, so that pieces and blocks do not meet.
const PART_BYTES: usize = 64 * 1024 + 48;
/// How many times the scene stops in a pass.
const STOPS: usize = 6;

/// The keys of the scene.
struct Keys {
    mac: CK_OBJECT_HANDLE,
    aes: CK_OBJECT_HANDLE,
    public: CK_OBJECT_HANDLE,
    private: CK_OBJECT_HANDLE,
}

/// Passes so many MiB through every operation twice: once making, once verifying. Says how much memory the process has
/// taken above what it had before.
pub(crate) fn long(p11: &P11, mib: u64) -> Outcome<()> {
    let first = logged_in(p11)?;
    let slot = slot(p11)?;
    let (public, private) = rsa_pair(p11, first, true, "long", 9)?;
    let keys = Keys {
        mac: secret_key(p11, first, CKM_GENERIC_SECRET_KEY_GEN, 32, true, "long mac")?,
        aes: secret_key(p11, first, CKM_AES_KEY_GEN, 32, true, "long aes")?,
        public,
        private,
    };
    let sessions: Vec<Session> = (0..5).map(|_| p11.open(slot, 0)).collect::<Outcome<_>>()?;
    let parts = usize::try_from(mib).expect("a size fits") * (1 << 20) / PART_BYTES;
    // What the module needs once, whatever the length: links, plans, buffers.
    make(p11, &sessions, &keys, 32, &|_| ())?;
    say("READY");
    wait();
    let before = peak_kib();
    let stops = |part: usize| {
        if (1..=STOPS).any(|stop| part == parts * stop / (STOPS + 1)) {
            say("AT");
            wait();
        }
    };
    let (digest, signature, mac) = make(p11, &sessions, &keys, parts, &stops)?;
    check(p11, &sessions, &keys, parts, &stops, (&digest, &signature, &mac))?;
    say(&format!("RESULT {}", peak_kib() - before));
    wait();
    for object in [keys.mac, keys.aes, keys.public, keys.private] {
        p11.destroy_object(first, object)?;
    }
    Ok(())
}

/// A part's bytes, different for each part.
fn fill(part: usize, bytes: &mut [u8]) {
    let seed = part as u8;
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at as u8).wrapping_mul(31) ^ seed);
}

fn cbc() -> Mech {
    Mech::iv(CKM_AES_CBC, &[5; 16])
}

/// Digest, signature and MAC of all parts; what is encrypted comes out of decryption as it was.
fn make(
    p11: &P11,
    sessions: &[Session],
    keys: &Keys,
    parts: usize,
    stops: &dyn Fn(usize),
) -> Outcome<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    p11.digest_init(sessions[0], Mech::plain(CKM_SHA256))?;
    p11.sign_init(sessions[1], Mech::plain(CKM_SHA256_RSA_PKCS), keys.private)?;
    p11.sign_init(sessions[2], Mech::plain(CKM_SHA256_HMAC), keys.mac)?;
    p11.encrypt_init(sessions[3], cbc(), keys.aes)?;
    p11.decrypt_init(sessions[4], cbc(), keys.aes)?;
    let mut data = vec![0; PART_BYTES];
    for part in 0..parts {
        fill(part, &mut data);
        p11.digest_update(sessions[0], &data)?;
        p11.sign_update(sessions[1], &data)?;
        p11.sign_update(sessions[2], &data)?;
        let sealed = p11.encrypt_update(sessions[3], &data)?;
        assert_eq!(p11.decrypt_update(sessions[4], &sealed)?, data, "part {part}");
        stops(part);
    }
    assert!(p11.encrypt_final(sessions[3])?.is_empty() && p11.decrypt_final(sessions[4])?.is_empty());
    Ok((p11.digest_final(sessions[0])?, p11.sign_final(sessions[1])?, p11.sign_final(sessions[2])?))
}

/// Digests, verifies signature and MAC over the same parts.
fn check(
    p11: &P11,
    sessions: &[Session],
    keys: &Keys,
    parts: usize,
    stops: &dyn Fn(usize),
    (digest, signature, mac): (&[u8], &[u8], &[u8]),
) -> Outcome<()> {
    p11.digest_init(sessions[0], Mech::plain(CKM_SHA256))?;
    p11.verify_init(sessions[1], Mech::plain(CKM_SHA256_RSA_PKCS), keys.public)?;
    p11.verify_init(sessions[2], Mech::plain(CKM_SHA256_HMAC), keys.mac)?;
    let mut data = vec![0; PART_BYTES];
    for part in 0..parts {
        fill(part, &mut data);
        p11.digest_update(sessions[0], &data)?;
        p11.verify_update(sessions[1], &data)?;
        p11.verify_update(sessions[2], &data)?;
        stops(part);
    }
    assert_eq!(p11.digest_final(sessions[0])?, digest);
    p11.verify_final(sessions[1], signature)?;
    p11.verify_final(sessions[2], mac)
}

/// The most memory that the process has had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells a process of itself");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak is told");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}
