//! Fuzz targets and the engine that runs them on a stable toolchain: mutation of a seed corpus, every run printed
//! with its seed. A target takes any bytes and must return.
//!
//! `HATOKI_SEED=n` repeats a run, `HATOKI_FUZZ_RUNS=n` makes it longer. The targets have the shape that coverage-guided
//! fuzzers want (`fn(&[u8])`), so that one can be put in front of them where its toolchain is at hand.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod targets;

use std::time::{SystemTime, UNIX_EPOCH};

/// Inputs of one run unless `HATOKI_FUZZ_RUNS` says otherwise.
const RUNS: u64 = 20_000;
/// Inputs are kept below this length, in bytes, so that a run stays short.
const INPUT_BYTES_MAX: usize = 4096;

/// A small, seeded generator (xorshift64*): repeatable on every platform.
pub struct Chance(u64);

impl Chance {
    /// A generator that gives the same sequence for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below the bound; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.number()) * u128::try_from(bound).unwrap_or(0);
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

/// Runs a target over mutations of a corpus. A panic of the target fails the calling test; the seed printed before
/// repeats it.
pub fn run(name: &str, corpus: &[Vec<u8>], target: impl Fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
    let seed = number("HATOKI_SEED").unwrap_or_else(clock);
    println!("{name}: repeat with HATOKI_SEED={seed}");
    let mut chance = Chance::new(seed);
    for sample in corpus {
        target(sample);
    }
    for _ in 0..number("HATOKI_FUZZ_RUNS").unwrap_or(RUNS) {
        let input = mutate(corpus, &mut chance);
        target(&input);
    }
}

/// One to eight random edits of a random sample: flipped bits, interesting bytes, cuts, repeats, splices.
fn mutate(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = corpus.get(chance.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=chance.below(8) {
        let at = chance.below(input.len().max(1)).min(input.len());
        match chance.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << chance.below(8),
            1 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)],
            2 => input.truncate(at),
            3 => {
                let piece = input[at..].iter().copied().take(1 + chance.below(32)).collect::<Vec<_>>();
                input.splice(at..at, piece);
            }
            4 => {
                let other = &corpus[chance.below(corpus.len())];
                let from = chance.below(other.len().max(1)).min(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 => input.insert(at, u8::try_from(chance.below(256)).unwrap_or(0)),
            _ => {
                let end = (at + 1 + chance.below(8)).min(input.len());
                input.drain(at.min(end)..end);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}
