//! Criterion benchmarks, each beside SoftHSM2 in the same run.
