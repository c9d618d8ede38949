//! Other event loops with the same work, each through its usual interface, with the same system calls in the
//! callback.

mod c;
mod calloop;
mod event_manager;
mod mio;
mod polling;
mod scheme;
mod tokio;

use crate::case::Case;
use crate::load;

pub(crate) fn self_kick(case: Case, n: u64) -> Case {
    let case = c::self_kick(case, n);
    case.by("mio", move || Ok(load::self_kick(mio::Loop::new(n + 1)?)))
        .by("polling", move || Ok(load::self_kick(polling::Loop::new(n + 1)?)))
        .by("calloop", move || Ok(load::self_kick(calloop::Loop::new(n + 1)?)))
        .by("event-manager", move || {
            Ok(load::self_kick(event_manager::Loop::new(n + 1)?))
        })
        .by("tokio", move || tokio::self_kick(n))
}

pub(crate) fn dispatch(case: Case, k: u64, m: u64) -> Case {
    let case = c::dispatch(case, k, m);
    case.by("mio", move || Ok(load::dispatch(mio::Loop::new(m)?, k)))
        .by("polling", move || Ok(load::dispatch(polling::Loop::new(m)?, k)))
        .by("calloop", move || Ok(load::dispatch(calloop::Loop::new(m)?, k)))
        .by("event-manager", move || {
            Ok(load::dispatch(event_manager::Loop::new(m)?, k))
        })
        .by("tokio", move || tokio::dispatch(k, m))
}

pub(crate) fn empty(case: Case, n: u64) -> Case {
    let case = c::empty(case, n);
    case.by("mio", move || Ok(load::empty(mio::Loop::new(n)?)))
        .by("polling", move || Ok(load::empty(polling::Loop::new(n)?)))
        .by("calloop", move || Ok(load::empty(calloop::Loop::new(n)?)))
        .by("event-manager", move || {
            Ok(load::empty(event_manager::Loop::new(n)?))
        })
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

/// Expired timers are called by an iteration, one for all that are due. These loops have no other way.
pub(crate) fn timers(case: Case, workload: &'static str, n: u64) -> Case {
    let mut case = c::timers(case, workload, n);
    // tokio makes no timer if the deadline has passed.
    if workload != "expire" {
        case = case.by("tokio", move || tokio::timers(workload, n));
    }
    // Beyond this size a cycle of calloop takes seconds.
    if n > 1000 {
        return case;
    }
    case.by("calloop", move || calloop::timers(workload, n))
}
