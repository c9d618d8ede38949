//! [`Outstanding`]: the requests that threads or the ring execute. They end in any order.
//!
//! Without in-flight tracking they complete in the order of the available ring. So the used index tells which
//! requests are complete, also to the daemon that replaces a killed one. With tracking they complete in the
//! order of their ends.

use std::collections::VecDeque;
use std::rc::Rc;

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The head of its descriptor chain.
    pub(crate) head: u16,
    /// The number of bytes that the device has written, including the status.
    pub(crate) written: u32,
}

/// The requests of a queue between the threads and the used ring.
#[derive(Debug)]
pub(crate) enum Outstanding {
    /// The requests complete in the order of the available ring.
    InOrder(InOrder),
    /// The requests complete in the order of their ends.
    AnyOrder(AnyOrder),
}

impl Outstanding {
    pub(crate) fn in_order() -> Self {
        Self::InOrder(InOrder::default())
    }

    pub(crate) fn in_any_order() -> Self {
        Self::AnyOrder(AnyOrder::default())
    }

    /// Adds the request with this head. Returns its number.
    pub(crate) fn push(&mut self, head: u16) -> u64 {
        match self {
            Self::InOrder(all) => all.push(head),
            Self::AnyOrder(all) => all.push(head),
        }
    }

    /// Records the end of a request, with the number of bytes written.
    pub(crate) fn end(&mut self, number: u64, written: u32) {
        match self {
            Self::InOrder(all) => all.end(number, written),
            Self::AnyOrder(all) => all.end(number, written),
        }
    }

    /// Takes the next request that can complete.
    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        match self {
            Self::InOrder(all) => all.next_completion(),
            Self::AnyOrder(all) => all.next_completion(),
        }
    }

    /// Returns the number of requests without a completion. At most the size of the queue.
    pub(crate) fn len(&self) -> u16 {
        match self {
            Self::InOrder(all) => all.requests.len() as u16,
            Self::AnyOrder(all) => all.count,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Request {
    head: u16,
    /// `None` until the request has ended.
    written: Option<u32>,
}

/// Requests that complete in the order in which they were taken.
#[derive(Debug, Default)]
pub(crate) struct InOrder {
    requests: VecDeque<Request>,
    /// The number of the first request. All requests of a queue are numbered.
    first: u64,
}

impl InOrder {
    fn push(&mut self, head: u16) -> u64 {
        self.requests.push_back(Request { head, written: None });
        self.first + self.requests.len() as u64 - 1
    }

    fn end(&mut self, number: u64, written: u32) {
        let place = number
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(request) = place.and_then(|place| self.requests.get_mut(place)) {
            request.written = Some(written);
        }
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let Request { head, written } = *self.requests.front()?;
        let written = written?;
        self.requests.pop_front();
        self.first += 1;
        Some(Completion { head, written })
    }
}

/// Requests that complete in the order in which they end. The number of a request is its head, so no data are
/// stored for requests that have not ended.
#[derive(Debug, Default)]
pub(crate) struct AnyOrder {
    count: u16,
    ended: VecDeque<Completion>,
}

impl AnyOrder {
    fn push(&mut self, head: u16) -> u64 {
        self.count += 1;
        head.into()
    }

    fn end(&mut self, number: u64, written: u32) {
        let head = number as u16;
        self.ended.push_back(Completion { head, written });
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let next = self.ended.pop_front()?;
        self.count -= 1;
        Some(next)
    }
}

/// Counts the requests of a queue that threads or the ring execute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Rc<()>);

impl Running {
    /// Counts one more request for the lifetime of the result.
    pub(crate) fn begin(&self) -> Self {
        self.clone()
    }

    /// Returns `true` if there is no such request.
    pub(crate) fn is_none(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_requests_complete_in_the_order_of_the_available_ring() {
        let mut outstanding = Outstanding::in_order();
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

    #[test]
    fn c6_with_in_flight_tracking_requests_complete_in_the_order_of_their_ends() {
        let mut outstanding = Outstanding::in_any_order();
        let next = |head, written| Some(Completion { head, written });
        let numbers: Vec<u64> = [7, 3, 5].map(|head| outstanding.push(head)).into();
        assert_eq!((outstanding.next_completion(), outstanding.len()), (None, 3));
        outstanding.end(numbers[2], 513);
        assert_eq!(outstanding.len(), 3);
        assert_eq!(outstanding.next_completion(), next(5, 513));
        // The first request does not end, while others begin and end.
        for _ in 0..100_000 {
            let number = outstanding.push(5);
            outstanding.end(number, 1);
            assert_eq!(outstanding.next_completion(), next(5, 1));
        }
        outstanding.end(numbers[1], 2);
        outstanding.end(numbers[0], 3);
        assert_eq!(outstanding.next_completion(), next(3, 2));
        assert_eq!(
            (outstanding.next_completion(), outstanding.len()),
            (next(7, 3), 0)
        );
        assert!(outstanding.is_empty() && outstanding.next_completion().is_none());
        let Outstanding::AnyOrder(all) = outstanding else {
            unreachable!("it was made that way");
        };
        assert!(all.ended.capacity() < 16, "{}", all.ended.capacity());
    }
}
