//! The two lanes.

/// Which lane a text waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A person waits for the answer: goes first, and is refused rather than queued when the lane is full.
    Interactive,
    /// Throughput counts: fills what room is left, and waits when the lane is full.
    Bulk,
}

impl Lane {
    /// The lane's name, as metrics and logs spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}
