//! [`DoorbellBoard`]: many sources inside this process, each of which other threads ring with one atomic operation.
//!
//! While the context polls, it looks over the board's bitmap as it asks any polled handler. While it rests, the first ring
//! schedules a bottom half. Which of the two is the case is between the bitmap and its ringers (`aio_notify::Board`); here it is
//! decided who is served, in which order and how many at a time. The board never serves anybody from inside a ring.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use aio_backend::{Interest, Token};
use aio_handlers::GroupId;
use aio_notify::Board;
use aio_pollset::Source;

use crate::bottom_half::BottomHalf;
use crate::context::Inner;
use crate::context::Mailbox;
use crate::handler::Entry;
use crate::{Context, Handler, Pollable, Registration};

/// So many sources are served before others have their turn.
const BATCH: usize = 64;

/// A board of doorbells; dropping it removes it from its context, and rings do nothing from then on.
///
/// See [`Context::board`].
#[must_use = "dropped at once, nobody is served; keep it"]
pub struct DoorbellBoard {
    registration: Registration,
    shared: Arc<Ringers>,
}

/// One source of a [`DoorbellBoard`], for any thread. Clones are the same source.
#[derive(Clone)]
pub struct Bell {
    shared: Arc<Ringers>,
    source: usize,
}

/// What ringers have of a board.
struct Ringers {
    board: Board,
    /// Serves the board of a context that rests.
    wake: BottomHalf,
}

impl DoorbellBoard {
    /// The bell of a source.
    ///
    /// # Panics
    /// If there is no such source.
    #[must_use]
    pub fn bell(&self, source: usize) -> Bell {
        let sources = self.shared.board.sources();
        assert!(source < sources, "there are {sources} sources");
        Bell {
            shared: self.shared.clone(),
            source,
        }
    }

    /// How many sources there are.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.shared.board.sources()
    }

    /// Whether the board is still served: its context is there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.registration.is_live()
    }
}

impl Bell {
    /// Rings: the source is served at least once after this, on the board's home thread. Publish what there is before the
    /// ring. Never blocks, never allocates; a system call only if the context sleeps and nobody has woken it yet. Without
    /// effect once the board or its context is gone.
    #[inline]
    pub fn ring(&self) {
        let shared = &self.shared;
        shared.board.ring(self.source, || shared.wake.schedule());
    }

    /// Which source it rings for.
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

impl Context {
    /// A board of `sources` doorbells, numbered from 0, for producers in this process: a ring is one atomic operation on a
    /// bitmap, and 10,000 sources are looked over in about 100 ns. `served` is called once for all rings of a source that
    /// came before; it may do anything, poll included.
    ///
    /// ```
    /// use aio_context::{Context, Wait};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// let board = cx.board(10_000, |_cx, source| println!("queue {source} has work"))?;
    /// let bell = board.bell(4711);
    /// std::thread::spawn(move || bell.ring());
    /// cx.poll(Wait::Block)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None at present.
    pub fn board(
        &self,
        sources: usize,
        served: impl Fn(&Self, usize) + 'static,
    ) -> io::Result<DoorbellBoard> {
        self.board_in(GroupId::DEFAULT, sources, served)
    }

    /// As [`board`](Self::board), as a member of `group`, which can be [paused](Self::pause).
    ///
    /// # Errors
    /// As [`board`](Self::board).
    pub fn board_in(
        &self,
        group: GroupId,
        sources: usize,
        served: impl Fn(&Self, usize) + 'static,
    ) -> io::Result<DoorbellBoard> {
        let server = Rc::new_cyclic(|this: &Weak<Server<_>>| {
            let this = this.clone();
            let wake = self.bottom_half("doorbell board", move |cx| {
                if let Some(server) = this.upgrade() {
                    server.serve_at_rest(cx);
                }
            });
            Server {
                shared: Arc::new(Ringers {
                    board: Board::new(sources),
                    wake,
                }),
                context: self.0.mailbox.clone(),
                served,
                next: Cell::new(0),
                attends: Cell::new(false),
                token: Cell::new(None),
            }
        });
        let token = self.0.add_board(server.clone(), group)?;
        server.token.set(Some(token));
        Ok(DoorbellBoard {
            registration: Registration::new(self, token),
            shared: server.shared.clone(),
        })
    }
}

impl Inner {
    /// Registers a board: a polled handler without a descriptor.
    fn add_board<F: Fn(&Context, usize) + 'static>(
        &self,
        server: Rc<Server<F>>,
        group: GroupId,
    ) -> io::Result<Token> {
        let mut entry = Entry::polled(server.clone());
        if let Some(polled) = &mut entry.polled {
            polled.is_board = true;
        }
        let inserted = self
            .descriptors
            .registry
            .borrow_mut()
            .insert(None, entry, Interest::NONE, group);
        let token =
            inserted.map_err(|_| io::Error::other("a handler without a descriptor is in nobody's way"))?;
        let _new = self.polling.set.join(token, Polled(server));
        if self.descriptors.registry.borrow().is_paused(group) {
            let _new = self.polling.set.suspend(token);
        }
        self.mailbox.notify_if_about_to_wait();
        Ok(token)
    }
}

/// A board as a source of the poll set, which stands for many and may be polled while one of them is served.
struct Polled<F>(Rc<Server<F>>);

impl<F: Fn(&Context, usize) + 'static> Source for Polled<F> {
    #[inline]
    fn poll(&self) -> bool {
        self.0.poll()
    }
    fn poll_begin(&self) {
        self.0.poll_begin();
    }
    fn poll_end(&self) {
        self.0.poll_end();
    }
    fn nests(&self) -> bool {
        true
    }
}

/// Serves a board on its home thread.
struct Server<F> {
    shared: Arc<Ringers>,
    /// Stands in for a descriptor, of which there is none.
    context: Arc<Mailbox>,
    served: F,
    /// Who is looked at first, so that everybody has a turn.
    next: Cell<usize>,
    /// The board is asked in every round of polling.
    attends: Cell<bool>,
    token: Cell<Option<Token>>,
}

impl<F: Fn(&Context, usize)> Server<F> {
    /// Takes and serves sources that were rung, a batch at the most; `others` is called before a callback that others wait
    /// behind.
    ///
    /// Each is taken before it is served: what is rung meanwhile is new. One at a time, so that a poll inside the callback
    /// finds the others, and a panic leaves them where they are.
    fn serve(&self, cx: &Context, mut others: impl FnMut()) {
        let board = &self.shared.board;
        for _ in 0..BATCH {
            let Some(source) = board.find(self.next.get()) else {
                return;
            };
            self.next.set(source + 1);
            board.take(source);
            others();
            cx.call(|cx| (self.served)(cx, source));
        }
    }

    /// Somebody rang while the context was resting.
    fn serve_at_rest(&self, cx: &Context) {
        let board = &self.shared.board;
        if self.attends.get() {
            // Polling has begun meanwhile, and finds it.
            return;
        }
        if self.is_paused(cx) {
            // Whoever ends the pause has it looked at.
            if let Some(token) = self.token.get() {
                cx.0.polling.set.recheck(token);
            }
            return;
        }
        if let Some(token) = self.token.get() {
            cx.0.polling.set.promote(token);
        }
        // From here on a ring schedules this anew, also for polls inside the callbacks.
        board.arm();
        // The same for those that were rung before: for polls inside the callbacks, for what a panic leaves, and for what is
        // more than a batch. It is not taken back, because somebody may have rung and relied on it.
        let mut scheduled = false;
        self.serve(cx, || {
            if !scheduled && board.find(self.next.get()).is_some() {
                self.shared.wake.schedule();
                scheduled = true;
            }
        });
    }

    fn is_paused(&self, cx: &Context) -> bool {
        let registry = cx.0.descriptors.registry.borrow();
        let group = self.token.get().and_then(|token| registry.group(token));
        group.is_some_and(|group| registry.is_paused(group))
    }
}

impl<F> AsFd for Server<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.context.as_fd()
    }
}

impl<F: Fn(&Context, usize) + 'static> Handler for Server<F> {}

impl<F: Fn(&Context, usize) + 'static> Pollable for Server<F> {
    #[inline]
    fn poll(&self) -> bool {
        let found = self.shared.board.find(self.next.get());
        if let Some(source) = found {
            // It is found again at once by whoever serves it.
            self.next.set(source);
        }
        found.is_some()
    }

    fn poll_ready(&self, cx: &Context) {
        if self.attends.get() {
            self.serve(cx, || {});
        } else {
            // The last question before a sleep, or the one after a pause: nobody will ask again.
            self.serve_at_rest(cx);
        }
    }

    fn poll_begin(&self) {
        self.attends.set(true);
        self.shared.board.disarm();
    }

    fn poll_end(&self) {
        self.attends.set(false);
        self.shared.board.arm();
    }
}
