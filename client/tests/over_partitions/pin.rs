//! After C_SetPIN and C_Login no writable memory of the process holds the PIN, once the caller has wiped its own buffer.
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use spec::UserType;
use zeroize::Zeroizing;

use crate::lab::{CO_PIN, Lab};

const MASK: u8 = 0x5a;

/// A PIN of this test alone, every byte masked: memory must never hold it unmasked but in the caller's buffer.
fn masked() -> Vec<u8> {
    (0..18_u8).map(|at| (b'a' + (at * 7 + 3) % 26) ^ std::hint::black_box(MASK)).collect()
}

fn pin() -> Zeroizing<Vec<u8>> {
    let mut pin = Zeroizing::new(Vec::with_capacity(18));
    pin.extend(masked().iter().map(|byte| byte ^ std::hint::black_box(MASK)));
    pin
}

/// The writable mappings that hold the PIN.
fn places() -> Vec<String> {
    let wanted = masked();
    let mut maps = String::new();
    File::open("/proc/self/maps").unwrap().read_to_string(&mut maps).unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut found = Vec::new();
    let mut chunk = Zeroizing::new(vec![0; 1 << 20]);
    for line in
        maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        while at < end {
            let bytes = usize::try_from((end - at).min(1 << 20)).unwrap();
            let Ok(()) = memory.read_exact_at(&mut chunk[..bytes], at) else { break };
            let same =
                |window: &[u8]| window.iter().zip(&wanted).all(|(byte, masked)| byte ^ MASK == *masked);
            if let Some(place) = chunk[..bytes].windows(wanted.len()).position(same) {
                found.push(format!("{line} + {:#x}", at + place as u64));
            }
            at += if bytes == 1 << 20 { (1 << 20) - 64 } else { bytes as u64 };
        }
    }
    found
}

#[test]
fn the_pin_is_nowhere_after_set_pin_and_login() {
    let lab = Lab::new();
    let session = lab.user();
    let given = pin();
    assert!(!places().is_empty(), "the scan finds a PIN that is there");
    lab.module.set_pin(session, Some(CO_PIN), Some(&given)).unwrap();
    lab.module.logout(session).unwrap();
    lab.module.login(session, UserType::USER, Some(&given)).unwrap();
    drop(given);
    assert_eq!(places(), Vec::<String>::new());
}
