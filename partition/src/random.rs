//! Chance as an argument, for the decisions of a partition's birth.
use aws_lc_rs::rand;

/// A source of unpredictable bytes.
pub trait Random {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// The generator of aws-lc-rs, seeded by the system.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        rand::fill(buffer).expect("the system's generator works, or no key is safe here");
    }
}

/// So many fresh bytes.
pub(crate) fn bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}
