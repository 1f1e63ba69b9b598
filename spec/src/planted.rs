//! Planted bugs (HA 8): each a deliberate fault at the line that keeps a rule, so that the simulation can show that it
//! would be found. Without the feature `planted` every question is answered "no" at compile time.

/// A deliberate bug, named by the rule that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Bug {
    /// HA 1.2: a live record with a later stamp beats a tombstone.
    TombstoneByStamp = 1,
    /// HA 1.2: a join stamps its result.
    JoinMintsStamp,
    /// HA 1.3: CKA_EXTRACTABLE goes to the later stamp.
    ExtractableByLastWriter,
    /// HA 2.3: a resent Change overwrites whatever is there.
    UnconditionalResend,
    /// HA 2.4: a returning member is read before it has been repaired.
    ReadBeforeRepair,
    /// HA 2.1: a member acknowledges before what it holds is durable.
    AcknowledgeBeforeDurable,
    /// HA 2.5: a search goes to a member in debt.
    SearchOnDebtor,
    /// DESIGN 3: a slot of handles is used again under the same handle.
    SlotWithoutGeneration,
    /// HA 3.1: the `Unknown` of one member is told to the application.
    UnknownOfOne,
    /// HA 2.2: a create is tombstoned although a Commit was sent.
    TombstoneAfterCommit,
    /// HA 1.5: a store that was put back keeps its incarnation and is served as it is.
    IncarnationKept,
    /// RULES 2.6: a ticket of an older revocation number is accepted by a member that knows a newer one.
    OldEpochTicket,
    /// HA 4.5: `Busy` is answered by sending again at once.
    BusyWithoutBound,
    /// HA 4.2: a PIN that was not answered is sent again under another tag.
    FreshTagOnResend,
    /// HA 2.1: a member stores and commits the objects of a batch one by one.
    PairAsTwoRecords,
    /// HA 2.4: writes are not sent to standby members.
    StandbyLeftOut,
    /// HA 4.4: requests are moved to members that have not been heard of lately.
    EvacuationToSilent,
    /// HA 6: a forked child goes on with the random bytes of its parent.
    RandomBufferKept,
    /// HA 5 (2): a leader that steps down hands over to whom it saw before, and does not read the list again.
    HandOverUnread,
    /// HA 5 (2): a waiter that leaves keeps the token that it was given.
    TokenKept,
    /// HA 5 (4): a link takes requests whatever waits for its socket.
    BacklogUnbounded,
    /// HA 5 (5): a reply goes to whoever has the place of its tag now.
    TagWithoutGeneration,
    /// HA 4.1: what a thread is writing while the connection breaks is called not sent.
    WritingNotSent,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 23] = [
        Bug::TombstoneByStamp,
        Bug::JoinMintsStamp,
        Bug::ExtractableByLastWriter,
        Bug::UnconditionalResend,
        Bug::ReadBeforeRepair,
        Bug::AcknowledgeBeforeDurable,
        Bug::SearchOnDebtor,
        Bug::SlotWithoutGeneration,
        Bug::UnknownOfOne,
        Bug::TombstoneAfterCommit,
        Bug::IncarnationKept,
        Bug::OldEpochTicket,
        Bug::BusyWithoutBound,
        Bug::FreshTagOnResend,
        Bug::PairAsTwoRecords,
        Bug::StandbyLeftOut,
        Bug::EvacuationToSilent,
        Bug::RandomBufferKept,
        Bug::HandOverUnread,
        Bug::TokenKept,
        Bug::BacklogUnbounded,
        Bug::TagWithoutGeneration,
        Bug::WritingNotSent,
    ];

    /// The bug of a name, as `Debug` writes it.
    pub fn named(name: &str) -> Option<Bug> {
        Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether this bug is planted.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether this bug is planted: never in this build.
#[cfg(not(feature = "planted"))]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// Plants one bug in this process in place of the one before, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), std::sync::atomic::Ordering::Relaxed);
}
