//! What the model takes in: how large a world, and which rule is deliberately broken.

/// One rule turned into its opposite; the checker must find each (HA, head).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// A live record with a later stamp beats a tombstone.
    TombstoneByStamp,
    /// A batch that is forgotten leaves tombstones.
    ForgettingIsTombstone,
    /// The create is answered when the minimum has stored and one member has committed.
    SuccessBeforeMinimumCommits,
    /// The creator may give up and tombstone after it has sent a Commit.
    TombstoneAfterCommit,
    /// Repair moves provisional records too, as committed ones.
    RepairDecidesProvisional,
    /// A member replaces what it holds by what it receives.
    JoinReplaces,
    /// A join stamps its result.
    JoinMintsStamp,
    /// CKA_EXTRACTABLE goes to the later stamp.
    ExtractableByLastWriter,
    /// A resent change overwrites whatever is there.
    UnconditionalResend,
    /// The two objects of a batch are stored and committed by messages of their own.
    PairAsTwo,
    /// A Commit for a batch that the member does not hold is answered as done.
    CommitOfNothingIsDone,
    /// A late Store makes a destroyed object again.
    StoreOverTombstone,
    /// A tombstone of one object refuses the whole batch, and the client counts that as an acknowledgement.
    OneTombstoneRefusesTheBatch,
    /// A member acknowledges before what it holds is durable.
    AcknowledgeBeforeDurable,
    /// Searches show provisional objects.
    ProvisionalIsFound,
}

/// The size of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Objects in the batch: 1 or 2.
    pub(crate) objects: usize,
    /// Whether the object is already committed everywhere at the start, so that there is no creator.
    pub(crate) exists: bool,
    /// Whether somebody destroys the first object.
    pub(crate) destroyer: bool,
    /// Whether somebody sets CKA_EXTRACTABLE to false and the label to 2 on the first object (the change A).
    pub(crate) hardener: bool,
    /// Whether somebody sets the label of the first object to 1 (the change B).
    pub(crate) labeller: bool,
    /// Whether B also writes CKA_EXTRACTABLE as it sees it: true.
    pub(crate) repeats_extractable: bool,
    /// Whether B's first send may be executed after B was resent: a member that was stopped with the frame unread.
    pub(crate) late_first_send: bool,
    /// How many members may lose their store for ever; fewer than the minimum of two.
    pub(crate) losses_max: u8,
}

/// Nothing but members that hold nothing.
pub(crate) const EMPTY: Scope = Scope {
    objects: 1,
    exists: false,
    destroyer: false,
    hardener: false,
    labeller: false,
    repeats_extractable: false,
    late_first_send: false,
    losses_max: 0,
};
