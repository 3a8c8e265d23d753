//! Protocols that are broken on purpose: the simulator must see each of them fail, or its silence about the real one means nothing.

/// What is broken. All of it is in the executors, the guards of the database and the wiring: the machines are the real ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sabotage {
    /// A decision does not look at the last decided epoch.
    NoPreviousGuard,
    /// A decision does not look at the generation.
    NoGenerationGuard,
    /// A control plane whose term is over still writes.
    NoTermGuard,
    /// Files are published when the decision is asked for.
    CommitBeforeDecide,
    /// The marker is written after the transaction of the rows.
    MarkerOutside,
    /// A marker that proves the epoch is not believed.
    AlwaysReplay,
    /// An epoch that was decided is taken for committed.
    NeverReplay,
    /// The marker is read before older producers are fenced.
    MarkerBeforeInit,
    /// The producer is kept after an answer that did not come.
    ProducerKept,
    /// One producer for many transactions, with a client that repeats requests by itself.
    ProducerReused,
    /// A sink's answer to an earlier request is taken for that to the last one.
    LateAnswerBelieved,
    /// A zombie takes the producer again and again.
    ProducersForEver,
    /// A commit in the sink that was not answered is taken for done.
    UnknownEndIsSuccess,
    /// A decision that was not answered is taken for a failure, and its objects are deleted.
    UnknownIsFailure,
    /// Confirmed when the first sink has committed.
    ConfirmBeforeAllSinks,
    /// A new generation begins after the last decided epoch, not above what was reserved.
    NumbersReused,
    /// A taken path is believed to hold the own manifest.
    TakenIsMine,
    /// A refused conditional create in the sink is taken for done.
    ConflictIsDone,
    /// A worker acknowledges before its files have arrived.
    AckBeforeUpload,
    /// A checkpoint is restored as it is found.
    NoVerify,
    /// A sink that has forgotten is taken for a new one.
    LostMarkerIsFirst,
    /// The oldest retained checkpoint is not marked.
    OneTooMany,
    /// Files of the running attempt are collected too.
    UploadsCollected,
}

impl Sabotage {
    pub const ALL: [Sabotage; 23] = [
        Sabotage::NoPreviousGuard,
        Sabotage::NoGenerationGuard,
        Sabotage::NoTermGuard,
        Sabotage::CommitBeforeDecide,
        Sabotage::MarkerOutside,
        Sabotage::AlwaysReplay,
        Sabotage::NeverReplay,
        Sabotage::MarkerBeforeInit,
        Sabotage::ProducerKept,
        Sabotage::ProducerReused,
        Sabotage::LateAnswerBelieved,
        Sabotage::ProducersForEver,
        Sabotage::UnknownEndIsSuccess,
        Sabotage::UnknownIsFailure,
        Sabotage::ConfirmBeforeAllSinks,
        Sabotage::NumbersReused,
        Sabotage::TakenIsMine,
        Sabotage::ConflictIsDone,
        Sabotage::AckBeforeUpload,
        Sabotage::NoVerify,
        Sabotage::LostMarkerIsFirst,
        Sabotage::OneTooMany,
        Sabotage::UploadsCollected,
    ];
}
