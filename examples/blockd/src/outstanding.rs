//! [`Outstanding`]: the requests that threads execute. They end in any order, and complete in the order of the available ring.
//!
//! So the used index always tells which requests are complete, also to the daemon that takes the place of a killed one.

use std::collections::VecDeque;
use std::rc::Rc;

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The head of its descriptor chain.
    pub(crate) head: u16,
    /// The number of bytes that the device has written, the status included.
    pub(crate) written: u32,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    head: u16,
    /// `None` until it has ended.
    written: Option<u32>,
}

/// The requests of a queue between the threads and the used ring.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    requests: VecDeque<Request>,
    /// The number of the first one. All requests of a queue are numbered.
    first: u64,
}

impl Outstanding {
    /// Appends the request with this head. Returns its number.
    pub(crate) fn push(&mut self, head: u16) -> u64 {
        self.requests.push_back(Request { head, written: None });
        self.first + self.requests.len() as u64 - 1
    }

    /// Notes that a request has ended, with this number of bytes written.
    pub(crate) fn end(&mut self, number: u64, written: u32) {
        let place = number
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(request) = place.and_then(|place| self.requests.get_mut(place)) {
            request.written = Some(written);
        }
    }

    /// Takes the first request if it has ended.
    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        let Request { head, written } = *self.requests.front()?;
        let written = written?;
        self.requests.pop_front();
        self.first += 1;
        Some(Completion { head, written })
    }

    /// The number of requests without a completion. At most the size of the queue.
    pub(crate) fn len(&self) -> u16 {
        self.requests.len() as u16
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// Counts the requests of a queue that threads or the ring execute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Rc<()>);

impl Running {
    /// Counts one more request for as long as the result lives.
    pub(crate) fn begin(&self) -> Self {
        self.clone()
    }

    /// Whether there is none.
    pub(crate) fn is_none(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_requests_complete_in_the_order_of_the_available_ring() {
        let mut outstanding = Outstanding::default();
        let numbers: Vec<u64> = [7, 3, 5].map(|head| outstanding.push(head)).into();
        assert_eq!(outstanding.next_completion(), None);
        outstanding.end(numbers[1], 513);
        outstanding.end(numbers[2], 1);
        assert_eq!((outstanding.next_completion(), outstanding.len()), (None, 3));
        outstanding.end(numbers[0], 9);
        let next = |head, written| Some(Completion { head, written });
        assert_eq!(outstanding.next_completion(), next(7, 9));
        let number = outstanding.push(7);
        assert_eq!(outstanding.next_completion(), next(3, 513));
        assert_eq!(outstanding.next_completion(), next(5, 1));
        assert_eq!(outstanding.next_completion(), None);
        outstanding.end(number, 2);
        assert_eq!(outstanding.next_completion(), next(7, 2));
        assert!(outstanding.is_empty());
    }
}
