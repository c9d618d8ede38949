//! [`InflightError`]: the reason for which an area or a region is refused.

use std::io;

use crate::memory::MemoryError;
use crate::ring::RingError;

/// The most bytes of an area: 256 queues of 1,024 entries take half of it.
pub(super) const MOST_BYTES: u64 = 8 << 20;

/// The reason for which an area or a region is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflightError {
    /// The size of the queues is invalid.
    #[error("in-flight tracking for {0}")]
    Size(#[from] RingError),
    /// The area is for more queues than the export has, or for none.
    #[error(
        "in-flight tracking for {wanted} queues: the export has {has}, and queues=N of --export sets their number"
    )]
    Queues { wanted: u16, has: usize },
    /// The area would be too long.
    #[error("in-flight tracking for {queues} queues of {size} entries takes more than {MOST_BYTES} bytes")]
    TooLong { queues: u16, size: u16 },
    /// The client's area is too short.
    #[error("an in-flight area of {has} bytes, where its queues need {needed}")]
    TooShort { needed: u64, has: u64 },
    /// The system refuses to make memory that can be shared.
    #[error("cannot make an in-flight area: {0}")]
    Make(#[source] io::Error),
    /// The area cannot be mapped.
    #[error("the in-flight area: {0}")]
    Map(#[from] MemoryError),
    /// The queue has more entries than its region.
    #[error("a queue of {queue} entries, where the in-flight area is for queues of {area}")]
    Queue { queue: u16, area: u16 },
    /// The header has another version, or is invalid.
    #[error(
        "an in-flight region with the features {features:#x}, version {version} and {entries} entries is not supported"
    )]
    Header {
        features: u64,
        version: u16,
        entries: u16,
    },
    /// An entry has a value that neither means "in flight" nor "not in flight".
    #[error("the in-flight region has {value} where entry {head} says whether it is in flight")]
    Entry { head: u16, value: u8 },
    /// The used index and the region contradict each other.
    #[error("the in-flight region lacks the last {count} completions of a queue of {size} entries")]
    Batch { count: u16, size: u16 },
    /// The list of the last completions is invalid.
    #[error("the in-flight region has no list of the last {count} completions")]
    List { count: u16 },
    /// More requests are in flight than the driver has offered.
    #[error("{marked} requests are in flight by the in-flight region, and {outstanding} by the rings")]
    TooMany { marked: u16, outstanding: u16 },
    /// The client has truncated the file.
    #[error("the in-flight area has lost pages: the client truncated its file")]
    Lost,
}
