//! Messages of repair: digests and sealed records (HA 1.6, 4.6).

/// Asks for digests (HA 1.6).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// The buckets (0..4096) whose records are wanted one by one; empty for the digests of all buckets.
    #[prost(uint32, repeated, tag = "1")]
    pub buckets: Vec<u32>,
}

/// Digests.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompareAnswer {
    /// The root, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub root: Vec<u8>,
    /// 4,096 digests of 32 bytes in a row, when no buckets were named.
    #[prost(bytes = "vec", tag = "2")]
    pub buckets: Vec<u8>,
    /// The records of the named buckets.
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<RecordDigest>,
}

/// One record's digest.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RecordDigest {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

/// Asks for sealed records (repair). Demands a Crypto Officer's ticket (RULES 3.3).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Export {
    /// At most 1,000 ouids of 16 bytes.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ouids: Vec<Vec<u8>>,
    /// Whether the credentials are wanted.
    #[prost(bool, tag = "2")]
    pub credentials: bool,
    /// Whether the manifest is wanted.
    #[prost(bool, tag = "3")]
    pub manifest: bool,
}

/// Sealed records.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportAnswer {
    /// Those held, committed or deleted.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<SealedRecord>,
    /// Sealed credentials, when asked for.
    #[prost(bytes = "vec", tag = "2")]
    pub credentials: Vec<u8>,
    /// Sealed manifest, when asked for.
    #[prost(bytes = "vec", tag = "3")]
    pub manifest: Vec<u8>,
}

/// A record under the domain's seal, as it lies on disk and travels between members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SealedRecord {
    /// 16 bytes; bound into the seal.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// The maker's serial number; bound into the seal.
    #[prost(uint64, tag = "2")]
    pub maker: u64,
    /// The envelope.
    #[prost(bytes = "vec", tag = "3")]
    pub envelope: Vec<u8>,
}

/// Joins sealed records with what the member holds (HA 1.2). Demands a Crypto Officer's ticket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Join {
    /// At most 1,000.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<SealedRecord>,
    /// Sealed credentials; the greater epoch wins (HA 2.7).
    #[prost(bytes = "vec", tag = "2")]
    pub credentials: Vec<u8>,
    /// Sealed manifest; the greater epoch wins (HA 2.6).
    #[prost(bytes = "vec", tag = "3")]
    pub manifest: Vec<u8>,
    /// Whether this ends a repair: a recovering member that has been compared with a peer serves again (HA 1.5).
    #[prost(bool, tag = "4")]
    pub repaired: bool,
}

/// Asks for the right to repair (HA 4.6): one repairer at a time under a lease that the member keeps in memory. The holder
/// renews it with the same call; `ms` 0 gives it back. Demands a Crypto Officer's ticket or the replicator identity.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Lease {
    /// 16 random bytes that name the repairer.
    #[prost(bytes = "vec", tag = "1")]
    pub holder: Vec<u8>,
    /// For how long, in milliseconds; 60,000 at most.
    #[prost(uint32, tag = "2")]
    pub ms: u32,
}

/// Who repairs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseAnswer {
    /// Whether the asker holds the lease now.
    #[prost(bool, tag = "1")]
    pub granted: bool,
    /// How long the lease that stands still runs, in milliseconds; 0 when none does.
    #[prost(uint32, tag = "2")]
    pub left_ms: u32,
}

/// What the join did.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JoinAnswer {
    /// Records that changed here.
    #[prost(uint32, tag = "1")]
    pub changed: u32,
    /// Records put in quarantine (HA 1.7).
    #[prost(uint32, tag = "2")]
    pub quarantined: u32,
}
