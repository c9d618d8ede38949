//! Rare paths keep short lists on the stack: pauses and resumes, handlers that a resume invalidates, and waits for
//! another thread. (Leaving poll mode and nested polls reuse their lists: `alloc.rs`.)
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "counting/bell.rs"]
mod bell;
mod counting;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use aio_backend_ppoll::Ppoll;
use aio_context::{Context, Interest, PollParams, Polled, Registration, Token, Wait};

use aio_testing::{Spoil, spoiled};
use bell::Bell;

fn bells(count: usize) -> Vec<Rc<Bell>> {
    (0..count).map(|_| Bell::new(&Rc::default())).collect()
}

/// Returns the allocations of one call.
fn calls_of(run: impl FnOnce()) -> u64 {
    let before = counting::calls();
    run();
    counting::calls() - before
}

/// Pauses a group with `count` members twice; all are masked meanwhile. Returns, for each time, the allocations of the pause and of
/// the resume.
fn pause_and_resume(count: usize, is_polled: bool) -> [[u64; 2]; 2] {
    let params = PollParams::up_to(Duration::from_millis(1));
    let cx = Context::builder().poll_params(params).build().unwrap();
    let (group, bells) = (cx.new_group(), bells(count));
    let watch = |bell: &Rc<Bell>| match is_polled {
        true => cx.watch_in(group, Polled(bell.clone()), Interest::READ).unwrap(),
        false => cx.watch_in(group, bell.clone(), Interest::READ).unwrap(),
    };
    let _registrations: Vec<Registration> = bells.iter().map(watch).collect();
    assert!(!cx.poll(Wait::NoBlock).unwrap());
    ["first", "second"].map(|time| {
        let mut pause = None;
        let pausing = calls_of(|| pause = Some(cx.pause(group)));
        bells.iter().for_each(|bell| bell.ring());
        let masking = calls_of(|| assert!(!cx.poll(Wait::NoBlock).unwrap(), "all are masked"));
        assert!(
            time == "first" || masking == 0,
            "the registry keeps the memory of its list"
        );
        let resuming = calls_of(|| drop(pause));
        while cx.poll(Wait::NoBlock).unwrap() {}
        assert!(bells.iter().all(|bell| bell.served.take() == 1));
        [pausing, resuming]
    })
}

#[test]
fn b5_pausing_and_resuming_sixteen_members_costs_no_allocation() {
    for count in [1, 4, 16] {
        assert_eq!(pause_and_resume(count, false), [[0; 2]; 2], "{count}");
        assert_eq!(pause_and_resume(count, true), [[0; 2]; 2], "{count}, polled");
    }
}

/// A longer list is allocated on the heap, and grows by doubling. The list of members that still need their `poll_end` is allocated at
/// its full size. A resume keeps no list of the masked members.
#[test]
fn b5_pausing_and_resuming_more_members_costs_allocations_for_each_list() {
    for (count, grown) in [(17, 1), (64, 2)] {
        assert_eq!(pause_and_resume(count, false), [[0; 2]; 2], "{count}");
        assert_eq!(
            pause_and_resume(count, true),
            [[grown + 1, grown]; 2],
            "{count}, polled"
        );
    }
}

/// Refuses to modify the listed descriptors.
#[derive(Debug)]
struct Stubborn(Rc<RefCell<Vec<Token>>>);

impl Spoil for Stubborn {
    const NAME: &'static str = "stubborn";

    fn modify(&mut self, token: Token) -> io::Result<()> {
        if self.0.borrow().contains(&token) {
            return Err(io::Error::from_raw_os_error(9)); // EBADF
        }
        Ok(())
    }
}

/// Returns the allocations of the resume of a group with `count` masked members, none of which the backend watches any longer.
fn resume_and_invalidate(count: usize) -> u64 {
    let refused: Rc<RefCell<Vec<Token>>> = Rc::default();
    let backend = spoiled(Ppoll::new(), Stubborn(refused.clone()));
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let (group, bells) = (cx.new_group(), bells(count));
    let watch = |bell: &Rc<Bell>| cx.watch_in(group, bell.clone(), Interest::READ).unwrap();
    // The tables have grown already, so the resume accounts for all further allocations.
    drop(bells.iter().map(watch).collect::<Vec<_>>());
    let registrations: Vec<Registration> = bells.iter().map(watch).collect();
    let pause = cx.pause(group);
    bells.iter().for_each(|bell| bell.ring());
    assert!(!cx.poll(Wait::NoBlock).unwrap(), "all are masked");
    refused
        .borrow_mut()
        .extend(registrations.iter().map(Registration::token));
    let calls = calls_of(|| drop(pause));
    assert!(bells.iter().all(|bell| bell.invalidated.get() == 1));
    calls
}

/// The text of each member's error is allocated; the list of the errors is not.
#[test]
fn r4_b5_sixteen_handlers_that_a_resume_invalidates_cost_no_list() {
    let each = resume_and_invalidate(1);
    assert_eq!(resume_and_invalidate(4), 4 * each);
    assert_eq!(resume_and_invalidate(16), 16 * each);
    // The list of the errors is on the heap.
    assert_eq!(resume_and_invalidate(17), 17 * each + 1);
}

/// The two allocations are the closure and the memory for its result.
#[test]
fn w2_a_wait_for_another_thread_costs_two_allocations() {
    const JOBS: usize = 3;
    let (sender, receiver) = mpsc::channel();
    let jobs = Arc::new(AtomicUsize::new(0));
    let done = jobs.clone();
    let other = std::thread::spawn(move || {
        let cx = Context::new().unwrap();
        sender.send(cx.remote()).unwrap();
        cx.wait_while(|| done.load(Ordering::Relaxed) < 2 * JOBS).unwrap();
    });
    let remote = receiver.recv().unwrap();
    for contexts in [1, 4] {
        let all: Vec<Context> = (0..contexts).map(|_| Context::new().unwrap()).collect();
        for cx in &all {
            assert!(!cx.poll(Wait::NoBlock).unwrap());
        }
        let calls = [(); JOBS].map(|()| {
            let jobs = jobs.clone();
            let job = move |_: &Context| jobs.fetch_add(1, Ordering::Relaxed);
            calls_of(|| assert!(remote.run_and_wait(job).is_ok()))
        });
        assert_eq!(calls, [2; JOBS], "{contexts} contexts");
    }
    other.join().unwrap();
}
