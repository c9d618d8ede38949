//! The end of a context.

use std::sync::Arc;

use aio_context::{BottomHalf, PollParams, Wait};
use aio_schedules::Fake;

use crate::{Crowd, Outcomes, Recorded, recorded};

/// Records that it was dropped.
struct Dropped(Recorded);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add(1);
    }
}

static REFUSED: Outcomes = Outcomes::none();

/// A context is dropped while others schedule, send, wait, notify and set. Each job runs at most once and is
/// dropped once. Nothing of the context is left, however long the others keep their handles.
fn others_are_still_there() {
    let cx = Fake::context();
    let kept = Arc::new(());
    let half = |name| {
        let kept = kept.clone();
        cx.bottom_half(name, move |_| assert!(Arc::strong_count(&kept) > 1))
    };
    let halves: [BottomHalf; 2] = [half("scheduled by others"), half("scheduled at home")];
    halves[1].schedule();
    let remote = cx.remote();
    let [ran, dropped, refused] = recorded();
    let mut crowd = Crowd::of(&cx);
    for number in 0..2 {
        let half = halves[number].clone();
        crowd.add(move |_| {
            half.schedule();
            half.cancel();
            half.schedule_idle();
        });
        let (ran, dropped, refused) = (ran.clone(), dropped.clone(), refused.clone());
        crowd.add(move |remote| {
            for _ in 0..2 {
                let (ran, token) = (ran.clone(), Dropped(dropped.clone()));
                let sent = remote.run(move |_| {
                    ran.add(1);
                    drop(token);
                });
                refused.add(u32::from(sent.is_err()));
                REFUSED.record(sent.is_err());
            }
        });
    }
    crowd.add(|remote| {
        remote.notify();
        remote.set_poll_params(PollParams::up_to(std::time::Duration::from_micros(1)));
        remote.kick();
    });
    for _ in 0..2 {
        cx.poll(Wait::NoBlock).unwrap();
    }
    drop(cx);
    crowd.join();
    assert_eq!(dropped.get(), 4, "each job is dropped once");
    assert!(ran.get() + refused.get() <= 4);
    assert_eq!(Arc::strong_count(&kept), 1, "a bottom half is left");
    assert!(remote.run(|_| ()).is_err(), "it is gone");
    halves.iter().for_each(BottomHalf::schedule);
    remote.notify();
}

crate::scenarios! {
    h7_h9_a_context_that_goes_first_leaves_nothing => others_are_still_there with REFUSED;
}

crate::faults! {
    h7_planted_left_open: LeftOpen in others_are_still_there;
}
