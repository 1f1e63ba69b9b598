//! The client over partitions in this process: the whole path but the network.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod clock;
mod lab;

mod changes;
mod clones;
mod counts;
mod digest;
mod encrypt;
mod fork;
mod life;
mod local;
mod login;
mod losses;
mod objects;
mod outage;
mod pin;
mod random;
mod reload;
mod restart;
mod sign;
mod threads;
mod trace;
