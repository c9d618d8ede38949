//! Hostile cases that need a kernel that refuses: 24, 27, 94 and 95 by the seam. Also 23, 25, 26, 72 and 84,
//! which have other tests beside a real kernel in `aio-context/tests/hostile`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aio_faults::{Call, Fault, Kind, Verdict, disturbed, has_uring};
use rustix::io::Errno;

/// Runs count the descriptors of their process, so they must not overlap.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the N-th such call fail, for N = 1, 2, ... until a run has fewer calls, and calls `each` with N and
/// the verdict. With each verdict nothing is lost: `disturbed` checks that. Returns the number of injections.
fn each_time(kind: Kind, call: Call, errno: Errno, mut each: impl FnMut(u64, Verdict)) -> u64 {
    for number in 1.. {
        match disturbed(kind, &[(call, number, Fault::Error(errno))], None, None) {
            Ok((Verdict::NotMet, _)) => return number - 1,
            Ok((verdict, _)) => each(number, verdict),
            Err(why) => panic!("{why}"),
        }
    }
    unreachable!("a run has an end")
}

const LADDERS: [Kind; 2] = [Kind::LadderAt0, Kind::LadderAt4];
/// A ring alone, and one with ppoll to fall back to.
const RINGS: [Kind; 2] = [Kind::Uring, Kind::LadderToUring];

/// Makes each such call of a ring fail in turn. The ring alone returns the error, and a ladder continues with
/// ppoll, at least `at_least` times. Only an enter may fail without effect: if it had nothing to do, or if it
/// is repeated.
fn assert_noticed(call: Call, errno: Errno, at_least: u32) {
    for (kind, expected) in RINGS.into_iter().zip([Verdict::Reported, Verdict::FellBack]) {
        let mut noticed = 0;
        each_time(kind, call, errno, |number, verdict| {
            noticed += u32::from(verdict == expected);
            let has_no_effect = call == Call::RingEnter && verdict == Verdict::Unnoticed;
            assert!(
                verdict == expected || has_no_effect,
                "{kind:?}, {call:?}, {errno:?}, {number}: {verdict:?}"
            );
        });
        assert!(noticed >= at_least, "{kind:?}, {call:?}, {errno:?}: {noticed}");
    }
}

/// Rule B4: a ladder continues with ppoll and keeps all registrations; epoll alone returns an error, and the
/// next attempt succeeds.
#[test]
fn case_24_no_room_for_a_registration() {
    let _alone = alone();
    for errno in [Errno::NOSPC, Errno::NOMEM] {
        for kind in LADDERS {
            let met = each_time(kind, Call::Add, errno, |number, verdict| {
                assert_eq!(verdict, Verdict::FellBack, "{kind:?}, {number}");
            });
            assert!(met >= 5, "{kind:?}: {met}");
        }
        let met = each_time(Kind::Epoll, Call::Add, errno, |number, verdict| {
            assert_eq!(verdict, Verdict::Reported, "{number}");
        });
        assert!(met >= 8, "{met}");
    }
    for kind in LADDERS {
        let met = each_time(kind, Call::Modify, Errno::NOMEM, |number, verdict| {
            assert_eq!(verdict, Verdict::FellBack, "{kind:?}, {number}");
        });
        assert!(met >= 1, "{kind:?}: {met}");
    }
}

/// Rule B4: a temporary lack has no visible effect. After any other error a ladder continues with ppoll; a
/// ring alone returns the error, and the next wait succeeds.
#[test]
fn case_27_a_ring_that_fails() {
    let _alone = alone();
    if !has_uring() {
        return;
    }
    for errno in [Errno::AGAIN, Errno::BUSY, Errno::INTR] {
        for kind in RINGS {
            let met = each_time(kind, Call::RingEnter, errno, |number, verdict| {
                assert_eq!(verdict, Verdict::Unnoticed, "{kind:?}, {errno:?}, {number}");
            });
            assert!(met >= 5, "{kind:?}, {errno:?}: {met}");
        }
    }
    for errno in [Errno::NOMEM, Errno::BADF, Errno::NOSYS, Errno::PERM] {
        assert_noticed(Call::RingEnter, errno, 5);
    }
}

/// Rule B4: another backend replaces a ring for which the process may not have the memory.
#[test]
fn case_95_no_memory_for_a_ring() {
    let _alone = alone();
    if !has_uring() {
        return;
    }
    assert_noticed(Call::RingSetup, Errno::NOMEM, 1);
}

/// Rule B4: a filter of system calls returns `ENOSYS` or `EPERM` when a set or a ring is made, or from every
/// wait in it. A ladder continues with ppoll, from the start if it may have neither. (Nothing here depends on
/// `epoll_pwait2`.)
#[test]
fn case_94_calls_that_a_filter_forbids() {
    let _alone = alone();
    for errno in [Errno::NOSYS, Errno::PERM] {
        for call in [Call::Create, Call::EpollWait] {
            for kind in LADDERS {
                let met = each_time(kind, call, errno, |number, verdict| {
                    assert_eq!(verdict, Verdict::FellBack, "{kind:?}, {call:?}, {number}");
                });
                assert!(met >= 1, "{kind:?}, {call:?}: {met}");
            }
            let met = each_time(Kind::Epoll, call, errno, |number, verdict| {
                assert_eq!(verdict, Verdict::Reported, "{call:?}, {number}");
            });
            assert!(met >= 1, "{call:?}: {met}");
        }
    }
    if !has_uring() {
        return;
    }
    for errno in [Errno::NOSYS, Errno::PERM] {
        assert_noticed(Call::RingSetup, errno, 1);
    }
}
