//! Operations, for backends that execute them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::fixtures::{A, IN, Kind, Source, TIMEOUT, add, check, expect, expect_soon, need};
use crate::{Backend, Interest, Operation, Peek, ReadyList, Token};

/// The token under which completions are reported.
const REPORT: Token = Token::new(9, 4);

/// Submits operations that need not wait. Returns `None` if the backend executes no operations, which is no
/// fault.
fn submit(backend: &mut dyn Backend, file: &Arc<std::fs::File>, count: usize) -> Option<Vec<Token>> {
    (0..count)
        .map(|_| backend.submit(REPORT, Operation::sync_all(file.clone())).ok())
        .collect()
}

fn file() -> Arc<std::fs::File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = need(rustix::fs::memfd_create("conformance", flags), "making a file");
    Arc::new(file.into())
}

pub(super) fn operations_end_once_and_come_back(backend: &mut dyn Backend) {
    let file = file();
    let Some(mut waiting) = submit(backend, &file, 500) else {
        return;
    };
    assert!(
        backend.in_flight() == waiting.len(),
        "all that were submitted are in flight"
    );
    backend.cancel(waiting[7]);
    let start = Instant::now();
    while !waiting.is_empty() {
        assert!(
            start.elapsed() < TIMEOUT,
            "{} operations have not come back after {TIMEOUT:?}",
            waiting.len()
        );
        let wait = backend.wait(Some(Duration::from_millis(20)), &mut ReadyList::new());
        need(wait, "waiting for operations");
        while let Some((id, completed)) = backend.next_completed() {
            let place = waiting.iter().position(|one| *one == id);
            let Some(place) = place else {
                panic!("{id:?} came back twice, or was not submitted")
            };
            waiting.swap_remove(place);
            drop(completed);
        }
    }
    assert!(backend.in_flight() == 0, "all have come back");
    assert!(Arc::strong_count(&file) == 1, "nothing of the operations is kept");
    // Operations that have not been returned are returned at the end.
    let Some(ids) = submit(backend, &file, 20) else {
        return;
    };
    backend.end_operations();
    let ended = std::iter::from_fn(|| backend.next_completed()).count();
    assert!(
        ended == ids.len(),
        "{ended} of {} operations have ended",
        ids.len()
    );
    assert!(Arc::strong_count(&file) == 1, "nothing of the operations is kept");
}

pub(super) fn completions_are_reported_until_they_are_taken(backend: &mut dyn Backend) {
    let file = file();
    let Some(ids) = submit(backend, &file, 3) else {
        return;
    };
    expect_soon(backend, &[(REPORT, IN)], "an operation has ended");
    let bell = Source::new(Kind::Eventfd);
    add(backend, &bell, A, Interest::READ);
    for _ in 0..3 {
        expect(backend, &[(REPORT, IN)], "it was not taken");
        let mut ready = ReadyList::new();
        need(backend.wait(None, &mut ready), "waiting with a completion");
        assert!(
            ready.iter().eq([(REPORT, IN)]),
            "a completion ends a wait: {ready:?}"
        );
        let peeked = need(backend.peek(&mut ready), "a peek");
        assert!(
            peeked != Peek::Checked || ready.len() > 1,
            "a peek hides a completion"
        );
    }
    bell.feed();
    expect(backend, &[(A, IN), (REPORT, IN)], "an operation and a descriptor");
    let mut taken = 0;
    let start = Instant::now();
    while taken < ids.len() {
        assert!(
            start.elapsed() < TIMEOUT,
            "{taken} of {} operations have ended",
            ids.len()
        );
        check(backend);
        taken += std::iter::from_fn(|| backend.next_completed()).count();
    }
    expect(backend, &[(A, IN)], "all operations were taken");
}
