//! Boards of doorbells.

use std::sync::Arc;

use aio_context::{PollParams, Wait};
use aio_sources::DoorbellBoard;
use shuttle::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::handlers::{Adjustable, POLLING, searching};
use crate::{Crowd, recorded};

const SOURCES: [usize; 3] = [0, 1, 69];

/// Three sources are rung twice each while the loop polls, sleeps, or changes from one to the other. The last
/// service reads the data written before the last ring.
fn rings(params: PollParams) {
    let cx = searching(&Adjustable::default(), params);
    let mail: [Arc<AtomicU32>; 3] = std::array::from_fn(|_| Arc::default());
    let (seen, served) = (recorded::<3>(), recorded::<3>());
    let board = {
        let (mail, seen, served) = (mail.clone(), seen.clone(), served.clone());
        let serve = move |source| {
            let place = SOURCES.iter().position(|known| *known == source);
            let place = place.expect("only these are rung");
            seen[place].set(mail[place].load(SeqCst));
            served[place].add(1);
        };
        DoorbellBoard::new(&cx, 70, move |_, source| serve(source))
    };
    let bells = SOURCES.map(|source| board.bell(source));
    let mut crowd = Crowd::of(&cx);
    for (bell, mail) in bells.iter().cloned().zip(mail) {
        crowd.add(move |_| {
            for letter in 1..=2 {
                mail.store(letter, SeqCst);
                bell.ring();
            }
        });
    }
    crowd.add(move |remote| {
        let other = if params == POLLING {
            PollParams::OFF
        } else {
            POLLING
        };
        for params in [other, params] {
            remote.set_poll_params(params);
        }
    });
    while seen.iter().any(|seen| seen.get() < 2) {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    assert!(served.iter().all(|served| (1..=2).contains(&served.get())));
    drop(board);
    bells[0].ring();
    while cx.poll(Wait::NoBlock).unwrap() {}
}

fn rings_while_the_loop_polls() {
    rings(POLLING);
}

fn rings_while_the_loop_sleeps() {
    rings(PollParams::OFF);
}

crate::scenarios! {
    n2_no_ring_is_lost_while_the_loop_polls => rings_while_the_loop_polls;
    n2_no_ring_is_lost_while_the_loop_sleeps => rings_while_the_loop_sleeps;
}

crate::faults! {
    n2_planted_end_any_epoch: EndAnyEpoch in rings_while_the_loop_sleeps rings_while_the_loop_polls;
    n2_planted_epoch_goes_on: EpochGoesOn in rings_while_the_loop_sleeps rings_while_the_loop_polls;
}
