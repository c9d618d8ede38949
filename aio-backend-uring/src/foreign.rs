//! [`ForeignMemory`]: memory that Rust does not own, such as that of a virtual machine, as the buffers of an
//! operation.
#![allow(
    unsafe_code,
    reason = "only the caller can know how long memory that is not a vector lives"
)]

use std::any::Any;
use std::fmt;

/// A piece of memory, laid out as the `struct iovec` of the system.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Piece {
    pub(crate) from: *mut u8,
    pub(crate) len: usize,
}

/// Pieces of memory that an operation reads into or writes from, and their owner. The operation keeps the
/// owner until the kernel has released the memory.
///
/// It converts into [`Buffers::Foreign`](aio_backend::Buffers::Foreign).
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use aio_backend::{Backend, Buffers, Operation, ReadyList, Token};
/// use aio_backend_uring::{ForeignMemory, Uring};
///
/// # fn main() -> std::io::Result<()> {
/// # let Ok(mut backend) = Uring::new() else {
/// #     println!("skipped: no io_uring");
/// #     return Ok(());
/// # };
/// # /*
/// let mut backend = Uring::new()?;
/// # */
/// let page = Box::leak(Box::new([1_u8; 4])).as_mut_ptr(); // in the place of a mapping, and of its owner
/// // SAFETY: the page is never freed, and no reference to it is left.
/// let memory = unsafe { ForeignMemory::new((), [(page, 4)]) };
/// let file = Arc::new(std::fs::File::open("/dev/zero")?);
/// backend.submit(Token::new(0, 0), Operation::read(file, 0, Buffers::from(memory)))?;
/// backend.wait(Some(Duration::from_secs(10)), &mut ReadyList::new())?;
/// let (_, completed) = backend.next_completed().expect("it was reported");
/// assert_eq!(completed.result?, 4);
/// # Ok(()) }
/// ```
pub struct ForeignMemory {
    pieces: Vec<Piece>,
    /// Dropped with the operation, after its completion.
    owner: Box<dyn Any + Send>,
}

// SAFETY: the pieces are only passed to the kernel, where the thread makes no difference; the owner is
// `Send`.
unsafe impl Send for ForeignMemory {}

impl ForeignMemory {
    /// Describes `pieces`, each by its first byte and its number of bytes: at most 1,024 of them.
    ///
    /// # Safety
    /// Until `owner` is dropped, every piece is memory of this process that the kernel may read and write. No reference to it exists while
    /// an operation with this value is in flight: other code accesses it through raw pointers, atomics or volatile accesses only, and
    /// tolerates that its contents change meanwhile.
    #[must_use]
    pub unsafe fn new(owner: impl Any + Send, pieces: impl IntoIterator<Item = (*mut u8, usize)>) -> Self {
        let pieces = pieces.into_iter().map(|(from, len)| Piece { from, len });
        Self {
            pieces: pieces.collect(),
            owner: Box::new(owner),
        }
    }

    /// Returns the owner, if it has this type. Nothing keeps the memory for the kernel afterwards. The kernel
    /// has released it, because the operation has ended.
    #[must_use]
    pub fn into_owner<T: Any>(self) -> Option<T> {
        self.owner.downcast().ok().map(|owner| *owner)
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

impl From<ForeignMemory> for aio_backend::Buffers {
    fn from(memory: ForeignMemory) -> Self {
        Self::Foreign(Box::new(memory))
    }
}

impl fmt::Debug for ForeignMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignMemory")
            .field("pieces", &self.pieces)
            .finish_non_exhaustive()
    }
}
