//! Other event loops at the same work, each by its usual face, with the same system calls in the callback.

mod c;
mod calloop;
mod event_manager;
mod mio;
mod polling;
mod scheme;
mod tokio;

use crate::case::Case;

pub(crate) fn self_kick(case: Case, n: u64) -> Case {
    let case = c::self_kick(case, n);
    case.by("mio", move || mio::self_kick(n))
        .by("polling", move || polling::self_kick(n))
        .by("calloop", move || calloop::self_kick(n))
        .by("event-manager", move || event_manager::self_kick(n))
        .by("tokio", move || tokio::self_kick(n))
}

pub(crate) fn dispatch(case: Case, k: u64, m: u64) -> Case {
    let case = c::dispatch(case, k, m);
    case.by("mio", move || mio::dispatch(k, m))
        .by("polling", move || polling::dispatch(k, m))
        .by("calloop", move || calloop::dispatch(k, m))
        .by("event-manager", move || event_manager::dispatch(k, m))
        .by("tokio", move || tokio::dispatch(k, m))
}

pub(crate) fn empty(case: Case, n: u64) -> Case {
    let case = c::empty(case, n);
    case.by("mio", move || mio::empty(n))
        .by("polling", move || polling::empty(n))
        .by("calloop", move || calloop::empty(n))
        .by("event-manager", move || event_manager::empty(n))
}

pub(crate) fn register(case: Case, n: u64) -> Case {
    let case = c::register(case, n);
    case.by("mio", move || mio::register(n))
        .by("polling", move || polling::register(n))
        .by("calloop", move || calloop::register(n))
        .by("event-manager", move || event_manager::register(n))
}

pub(crate) fn home_batch(case: Case, batch: u64) -> Case {
    let case = c::deferred(case, batch);
    case.by("as QEMU", move || scheme::batch(batch))
        .by("calloop", move || calloop::idle(batch))
        .by("tokio", move || tokio::spawned(batch))
}

pub(crate) fn home_single(case: Case) -> Case {
    let case = c::deferred(case, 1);
    case.by("calloop", || calloop::idle(1))
        .by("tokio", || tokio::spawned(1))
}

/// What expires is called by an iteration, of which the queue is only a part: that is not compared.
pub(crate) fn timers(case: Case, workload: &'static str, n: u64) -> Case {
    if workload == "expire" {
        return case;
    }
    let case = c::timers(case, workload, n).by("tokio", move || tokio::timers(workload, n));
    // Beyond this size a cycle of calloop's takes seconds.
    if n > 1000 {
        return case;
    }
    case.by("calloop", move || calloop::timers(workload, n))
}
