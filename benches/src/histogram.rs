//! Latencies in buckets of one per cent.

/// Buckets of each power of two, as a power of two.
const FINE_BITS: u32 = 7;
/// Buckets of each power of two.
const FINE: usize = 1 << FINE_BITS;
/// Powers of two.
const COARSE: usize = 64 - FINE_BITS as usize;

/// Counts of values in nanoseconds, each kept to one part in 128.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    largest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; FINE * (COARSE + 1)], total: 0, largest: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.largest = self.largest.max(value);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.counts.iter_mut().zip(&other.counts) {
            *own += others;
        }
        self.total += other.total;
        self.largest = self.largest.max(other.largest);
    }

    /// How many values it has counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that so many of a thousand values do not exceed; 0 of none.
    pub fn per_mille(&self, wanted: u64) -> u64 {
        let rank = (self.total * wanted).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return highest(index).min(self.largest);
            }
        }
        self.largest
    }
}

/// Which bucket holds a value: exact below 128, and from there the seven bits behind the highest one.
fn bucket(value: u64) -> usize {
    let shift = (64 - value.leading_zeros()).saturating_sub(FINE_BITS + 1);
    let fine = usize::try_from(value >> shift).expect("eight bits are left");
    shift as usize * FINE + fine
}

/// The highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    if bucket < 2 * FINE {
        return bucket as u64;
    }
    let shift = bucket / FINE - 1;
    let fine = (bucket - shift * FINE) as u64;
    ((fine + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_is_told_to_one_per_cent() {
        for value in (0..70_000).chain((5..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]))
        {
            let (index, high) = (bucket(value), highest(bucket(value)));
            assert!(high >= value && high - value <= value / 128, "{value} in {index}, which ends at {high}");
        }
        assert_eq!(highest(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_are_of_all_that_was_merged() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        (1..=99).for_each(|value| low.record(value));
        high.record(1_000_000);
        low.merge(&high);
        assert_eq!((low.total(), low.per_mille(500), low.per_mille(990)), (100, 50, 99));
        assert_eq!(low.per_mille(999), 1_000_000);
        assert_eq!(Histogram::default().per_mille(500), 0);
    }
}
