//! [`ClockId`]: the three clocks of a context.

/// The clock that a timer follows.
///
/// ```
/// use aio_context::{ClockId, Context};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let before = cx.now(ClockId::Monotonic);
/// assert!(cx.now(ClockId::Monotonic) >= before);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockId {
    /// The loop's own time, for intervals: it never jumps, and stands still while the machine is suspended.
    Monotonic,
    /// The wall clock, for times of day: it jumps when it is set, and when the machine resumes. If such a
    /// jump passes the deadline of a timer, the timer fires at once, even if the loop is blocked. If a
    /// jump moves a deadline away, the timer fires no earlier than the deadline. If the system cannot report
    /// jumps, the timer fires within a second.
    Wall,
    /// A clock that can be stopped, set and warped; see
    /// [`Context::virtual_clock`](crate::Context::virtual_clock). While it is stopped, its timers do not
    /// fire.
    Virtual,
}

impl ClockId {
    /// All clocks, in the order in which a context stores them.
    pub(crate) const ALL: [Self; 3] = [Self::Monotonic, Self::Wall, Self::Virtual];
}
