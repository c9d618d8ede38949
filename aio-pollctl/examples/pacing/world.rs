//! The simulated world of the loop: time, a queue, and a descriptor.

/// The costs of polling one source, of checking the descriptors, and of a sleep, in nanoseconds.
const POLL_NS: u64 = 30;
const CHECK_NS: u64 = 300;
const WAKE_NS: u64 = 10_000;

/// The simulated events, and the work of the loop.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) now_ns: u64,
    next_request_ns: u64,
    next_event_ns: u64,
    /// Set if a check or a wake-up has found the event.
    found: bool,
    pub(crate) requests: u64,
    pub(crate) events: u64,
    pub(crate) polls: u64,
    pub(crate) checks: u64,
    pub(crate) sleeps: u64,
    /// The longest time for which an event waited for a check while the loop was awake.
    pub(crate) latest_ns: u64,
    /// The number of queues that are still polled.
    pub(crate) polled: usize,
}

impl World {
    /// Makes a world with this number of queues.
    pub(crate) fn new(polled: usize) -> Self {
        Self {
            polled,
            ..Self::default()
        }
    }

    /// Polls one round. Returns whether the queue has a request.
    pub(crate) fn poll(&mut self) -> bool {
        self.polls += 1;
        self.now_ns += POLL_NS + (self.polled - 1) as u64;
        self.next_request_ns <= self.now_ns
    }

    pub(crate) fn check_descriptor(&mut self) -> bool {
        self.checks += 1;
        self.now_ns += CHECK_NS;
        self.found = self.next_event_ns <= self.now_ns;
        self.found
    }

    pub(crate) fn sleep(&mut self) {
        self.sleeps += 1;
        self.now_ns = self.now_ns.max(self.next_request_ns.min(self.next_event_ns)) + WAKE_NS;
        self.found = self.next_event_ns <= self.now_ns;
    }

    /// Serves the events that were found. Returns whether there were any.
    pub(crate) fn serve(&mut self) -> bool {
        let before = self.requests + self.events;
        if self.next_request_ns <= self.now_ns {
            self.requests += 1;
            let pause = if self.requests.is_multiple_of(100) {
                1_000_000
            } else {
                4_000
            };
            self.next_request_ns = self.now_ns + pause;
        }
        if std::mem::take(&mut self.found) {
            self.events += 1;
            self.latest_ns = self.latest_ns.max(self.now_ns - self.next_event_ns);
            self.next_event_ns = self.now_ns + 77_000;
        }
        self.requests + self.events > before
    }
}
