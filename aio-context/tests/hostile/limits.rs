//! Cases 20 and 23 to 26: the limits of the system, each in a process of its own.

use std::fs;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use aio_backend::conformance::disturb::raise_limit;
use aio_backend_epoll::Epoll;
use aio_context::{Context, Registration, Wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::{Bench, Kick, open_descriptors, watch};
use crate::counting;
use crate::fixtures::{MOMENT, scaled};
use crate::process::{each_in_a_process, in_a_process};
use aio_testing::warnings;

/// Limits the numbers of the process's descriptors to those below this one.
fn allow(descriptors: u64) {
    let limits = Rlimit {
        current: Some(descriptors),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limits).unwrap();
}

/// Raises the limit of descriptors to this number if possible, and returns the limit.
fn ask_for(descriptors: u64) -> u64 {
    let limits = Rlimit {
        current: Some(descriptors),
        maximum: Some(descriptors),
    };
    if descriptors > raise_limit() {
        // Only a privileged process may raise the limit.
        let _ = setrlimit(Resource::Nofile, limits);
    }
    raise_limit()
}

/// Rules R2 and A8, invariant 4: the cost of a handler does not depend on the number of handlers.
#[test]
fn case_20_as_many_registrations_as_there_are_descriptors() {
    let name = concat!(
        module_path!(),
        "::case_20_as_many_registrations_as_there_are_descriptors"
    );
    each_in_a_process(name, |bench| {
        let wanted = scaled(4_000, 1_000_000);
        let count = wanted.min(ask_for(wanted + 1_000) - 100) as usize;
        counting::observe_this_thread(true);
        drop(bench.context()); // memory that a process allocates once
        let before = counting::live();
        let bytes = register(bench, count);
        assert_eq!(counting::live(), before, "all of it is given back");
        assert!(bytes <= 200, "{bytes} bytes each");
        println!("{count} registrations, {bytes} bytes each");
    });
}

/// Registers `count` handlers, serves some of them, and returns the bytes for each.
fn register(bench: Bench, count: usize) -> usize {
    let cx = bench.context();
    let kicks: Vec<_> = (0..count).map(|_| Kick::new()).collect();
    let mut registrations: Vec<Registration> = Vec::with_capacity(count);
    let before = counting::live().bytes;
    registrations.extend(kicks.iter().map(|kick| watch(&cx, kick)));
    assert!(!bench.poll(&cx, MOMENT));
    let bytes = usize::try_from(counting::live().bytes - before).unwrap();
    let some = kicks.iter().step_by(count / 40);
    some.clone().for_each(|kick| kick.kick());
    assert!(bench.block(&cx));
    assert!(some.clone().all(|kick| kick.count.get() == 1));
    assert!(!bench.check(&cx));
    drop(registrations);
    assert!(kicks.iter().all(|kick| Rc::strong_count(kick) == 1));
    bytes / count
}

/// Returns the lowest free number.
fn lowest_free() -> u64 {
    let free = rustix::io::dup(fs::File::open("/dev/null").unwrap()).unwrap();
    // The duplicated file has taken the lowest one.
    u64::from(free.as_raw_fd().cast_unsigned()) - 1
}

/// Rule B4: one descriptor more at a time, until there are enough.
#[test]
fn case_23_no_descriptor_left() {
    in_a_process(concat!(module_path!(), "::case_23_no_descriptor_left"), || {
        let (before, used) = (open_descriptors(), lowest_free());
        let (mut refused, mut whole) = (0, 0);
        for room in 0..6 {
            allow(used + room);
            let by_hand = Epoll::new().and_then(|epoll| Context::builder().backend(Box::new(epoll)).build());
            for (made, remedy) in [(Context::new(), "ulimit -n"), (by_hand, "")] {
                match made {
                    Ok(cx) => {
                        whole += 1;
                        cx.remote().notify();
                        assert!(!cx.poll(Wait::Block).unwrap());
                    }
                    Err(why) => {
                        refused += 1;
                        let text = why.to_string();
                        assert!(
                            text.contains("Too many open files") && text.contains(remedy),
                            "{text}"
                        );
                    }
                }
            }
        }
        raise_limit();
        assert!(refused >= 3 && whole >= 6, "{refused} refused, {whole} made");
        a_ladder_without_descriptors();
        assert_eq!(open_descriptors(), before);
    });
}

/// A ladder that cannot climb for want of a descriptor keeps its lower backend.
fn a_ladder_without_descriptors() {
    let kicks: Vec<_> = (0..80).map(|_| Kick::new()).collect();
    let logged = warnings(|| {
        let cx = Context::new().unwrap();
        let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
        allow(lowest_free());
        kicks.iter().for_each(|kick| kick.kick());
        while cx.poll(MOMENT).unwrap() {}
        assert_eq!(cx.backend_name(), "ppoll");
        raise_limit();
    });
    assert!(kicks.iter().all(|kick| kick.count.get() == 1));
    assert_eq!(logged.len(), 1, "{logged:?}");
}

/// Returns the numbers of this process's epoll sets and rings.
fn sets_and_rings() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let mut sets: Vec<i32> = entries
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let file = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let is_one = ["anon_inode:[eventpoll]", "anon_inode:[io_uring]"].contains(&file.to_str()?);
            is_one.then_some(number)
        })
        .collect();
    sets.sort_unstable();
    sets
}

/// Rule B4: foreign code has closed our epoll set or ring. A ladder continues on its lower backend; epoll and io_uring alone return an
/// error from each wait.
#[test]
fn case_25_the_epoll_set_was_closed() {
    let name = concat!(module_path!(), "::case_25_the_epoll_set_was_closed");
    each_in_a_process(name, |bench| {
        let cx = bench.context();
        let kicks: Vec<_> = (0..70).map(|_| Kick::new()).collect();
        let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
        bench.poll(&cx, MOMENT);
        let sets = sets_and_rings();
        if cx.backend_name() == "ppoll" {
            assert!(sets.is_empty());
            return;
        }
        // The number stays in use, so that no other file gets it and is closed.
        let number = sets[0];
        let null = fs::File::open("/dev/null").unwrap();
        nix::unistd::close(number).unwrap();
        let placeholder = rustix::io::fcntl_dupfd_cloexec(&null, number).unwrap();
        std::mem::forget(placeholder);
        kicks.iter().for_each(|kick| kick.kick());
        let backend = format!("{:?}", (bench.backend)());
        let is_alone = backend.starts_with("Epoll") || backend.starts_with("Uring");
        let wait = format!("wait ({})", cx.backend_name());
        for _ in 0..4 {
            match cx.poll(MOMENT) {
                Ok(_) => assert_eq!((cx.backend_name(), is_alone), ("ppoll", false)),
                Err(why) => {
                    let text = why.to_string();
                    assert!(is_alone && text.contains(&wait), "{text}");
                    assert!(!text.contains("none is known"), "{text}");
                }
            }
        }
        let served = kicks.iter().filter(|kick| kick.count.get() == 1).count();
        assert_eq!(served, if is_alone { 0 } else { 70 });
    });
}

/// Rule B4: `ppoll` takes no more entries than the limit, which is lowered meanwhile; registrations are kept.
#[test]
fn case_26_the_limit_is_lowered_under_ppoll() {
    let name = concat!(module_path!(), "::case_26_the_limit_is_lowered_under_ppoll");
    each_in_a_process(name, |bench: Bench| {
        let cx = bench.context();
        let kicks: Vec<_> = (0..50).map(|_| Kick::new()).collect();
        let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
        bench.poll(&cx, MOMENT);
        kicks.iter().for_each(|kick| kick.kick());
        allow(20);
        let refused = cx.poll(Wait::Block);
        raise_limit();
        if cx.backend_name() == "ppoll" {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("wait (ppoll)") && text.contains("; "), "{text}");
            assert!(kicks.iter().all(|kick| kick.count.get() == 0));
        } else {
            assert!(refused.unwrap());
        }
        while bench.check(&cx) {}
        assert!(kicks.iter().all(|kick| kick.count.get() == 1), "nothing is lost");
    });
}
