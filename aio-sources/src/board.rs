//! [`DoorbellBoard`]: many sources inside this process. Other threads ring each of them with one atomic
//! operation.
//!
//! While the context polls, it checks the board's bitmap like any polled source. Otherwise the first ring
//! wakes the board. `aio_notify::Board` decides between the two; this file decides which source is served, in
//! which order and how many in a row. A ring never calls the callback itself.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use aio_context::{Context, GroupId, Registration, Source, SourceBuilder, SourceWaker};
use aio_notify::Board;

/// The number of sources that are served in a row.
const BATCH: usize = 64;

/// A board of doorbells, numbered from 0, for producers in this process.
///
/// A ring is one atomic operation on a bitmap, and checking 10,000 sources takes about 100 ns. Dropping the
/// board removes it from its context; rings have no effect after that.
///
/// ```
/// use aio_context::{Context, Wait};
/// use aio_sources::DoorbellBoard;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let board = DoorbellBoard::new(&cx, 10_000, |_cx, queue| println!("queue {queue} has work"));
/// let bell = board.bell(4711);
/// std::thread::spawn(move || bell.ring());
/// cx.poll(Wait::Block)?;
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, no source is served; keep it"]
pub struct DoorbellBoard {
    registration: Registration,
    shared: Arc<Shared>,
}

/// One source of a [`DoorbellBoard`], for any thread. Clones are the same source.
///
/// # Examples
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use aio_context::{Context, Wait};
/// use aio_sources::DoorbellBoard;
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, served) = (Context::new()?, Rc::new(Cell::new(0)));
/// let count = served.clone();
/// let board = DoorbellBoard::new(&cx, 8, move |_cx, _queue| count.set(count.get() + 1));
/// let bell = board.bell(3);
/// let clone = bell.clone();
/// std::thread::spawn(move || clone.ring()).join().unwrap();
/// bell.ring();
/// cx.poll(Wait::Block)?;
/// assert_eq!((bell.source(), served.get()), (3, 1));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Bell {
    shared: Arc<Shared>,
    source: usize,
}

/// The part of a board that all threads use.
struct Shared {
    board: Board,
    /// Wakes the context while it does not poll the board.
    waker: SourceWaker,
}

impl DoorbellBoard {
    /// Adds a board of `sources` doorbells to a context. `serve` is called with the number of a source that
    /// was rung, once for all its earlier rings; it may do anything, including a poll.
    pub fn new(cx: &Context, sources: usize, serve: impl Fn(&Context, usize) + 'static) -> Self {
        Self::of(cx.source(NAME), sources, serve)
    }

    /// As [`new`](Self::new), as a member of `group`, which can be [paused](Context::pause).
    ///
    /// # Panics
    /// If the group was not made by this context.
    pub fn new_in(
        cx: &Context,
        group: GroupId,
        sources: usize,
        serve: impl Fn(&Context, usize) + 'static,
    ) -> Self {
        Self::of(cx.source(NAME).group(group), sources, serve)
    }

    fn of(source: SourceBuilder<'_>, sources: usize, serve: impl Fn(&Context, usize) + 'static) -> Self {
        let shared = Arc::new(Shared {
            board: Board::new(sources),
            waker: source.waker(),
        });
        let registration = source.register(Server {
            shared: shared.clone(),
            serve,
            next: Cell::new(0),
            is_polled: Cell::new(false),
            is_paused: Cell::new(false),
        });
        Self { registration, shared }
    }

    /// Returns the bell of a source.
    ///
    /// # Panics
    /// If there is no such source.
    #[must_use]
    pub fn bell(&self, source: usize) -> Bell {
        let sources = self.sources();
        assert!(source < sources, "there are {sources} sources");
        Bell {
            shared: self.shared.clone(),
            source,
        }
    }

    /// Returns the number of sources.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.shared.board.sources()
    }

    /// Returns whether the context still serves the board, because the context has not been dropped.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.registration.is_live()
    }
}

/// The name in messages.
const NAME: &str = "doorbell board";

impl Bell {
    /// Rings: the board's home thread serves the source at least once after this. Publish the work before the
    /// ring. Never blocks, never allocates, and makes a system call only if the context sleeps and no other
    /// thread has woken it yet. No effect after the board or its context was dropped.
    #[inline]
    pub fn ring(&self) {
        let shared = &self.shared;
        shared.board.ring(self.source, || shared.waker.wake());
    }

    /// Returns the number of its source.
    #[must_use]
    pub fn source(&self) -> usize {
        self.source
    }
}

impl fmt::Debug for DoorbellBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoorbellBoard").field(&self.shared.board).finish()
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bell").field(&self.source).finish()
    }
}

/// Serves a board on its home thread.
struct Server<F> {
    shared: Arc<Shared>,
    serve: F,
    /// The source at which the next search begins, so that every source is served in turn.
    next: Cell<usize>,
    /// Set while the context polls the board, which is then disarmed.
    is_polled: Cell<bool>,
    /// Set while the group is paused, perhaps by a callback.
    is_paused: Cell<bool>,
}

impl<F: Fn(&Context, usize)> Server<F> {
    /// Takes and serves sources that were rung, one batch at most. Calls `before` before each callback.
    ///
    /// Each source is taken before it is served, so that a ring during the callback is a new one. They are
    /// taken one at a time, so that a poll inside the callback finds the others, and a panic leaves them
    /// where they are.
    fn serve_batch(&self, cx: &Context, mut before: impl FnMut()) {
        let board = &self.shared.board;
        for _ in 0..BATCH {
            if self.is_paused.get() {
                return;
            }
            let Some(source) = board.find(self.next.get()) else {
                return;
            };
            self.next.set(source + 1);
            board.take(source);
            before();
            (self.serve)(cx, source);
        }
    }

    /// Serves a board that is not polled. No later poll finds the remaining sources.
    fn serve_armed(&self, cx: &Context) {
        let Shared { board, waker } = &*self.shared;
        // From here on a ring wakes the board again, also for polls inside the callbacks.
        board.arm();
        // The other sources that were rung before need a wake, too: for polls inside the callbacks, after a
        // panic, and for more than one batch. It cannot be taken back, because a ring may have relied on it.
        let mut is_woken = false;
        self.serve_batch(cx, || {
            if !is_woken && board.find(self.next.get()).is_some() {
                waker.wake();
                is_woken = true;
            }
        });
    }
}

impl<F: Fn(&Context, usize) + 'static> Source for Server<F> {
    #[inline]
    fn poll(&self) -> bool {
        let found = self.shared.board.find(self.next.get());
        if let Some(source) = found {
            // The service finds it again at once.
            self.next.set(source);
        }
        found.is_some()
    }

    fn poll_ready(&self, cx: &Context) {
        if self.is_polled.get() {
            self.serve_batch(cx, || {});
        } else {
            self.serve_armed(cx);
        }
    }

    fn poll_begin(&self) {
        self.is_polled.set(true);
        self.shared.board.disarm();
    }

    fn poll_end(&self) {
        self.is_polled.set(false);
        self.shared.board.arm();
    }

    fn paused(&self) {
        self.is_paused.set(true);
    }

    fn resumed(&self) {
        self.is_paused.set(false);
    }

    fn nests(&self) -> bool {
        true
    }
}
