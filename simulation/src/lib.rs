//! The proof of the rules of HA: an exhaustive model of objects and writes (HA 1, 2), in `tests/model`.
#![forbid(unsafe_code)]
