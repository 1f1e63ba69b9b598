//! The partitions of the appliance: opened at start, made by `hsm partition create`, found by serial number or label.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::rand;
use parking_lot::{Mutex, RwLock};
use partition::{Partition, PartitionSettings};
use zeroize::Zeroizing;

use crate::book::{Book, PartitionRow};
use crate::config::Config;
use crate::domains::Domains;
use crate::error::Error;
use crate::handler::{Handler, now_ms};
use crate::store::SqliteStore;

const LABEL_BYTES_MAX: usize = 32;
/// Serial numbers have 13 digits, as the vendor's.
const SERIALS: (u64, u64) = (1_000_000_000_000, 9_999_999_999_999);
