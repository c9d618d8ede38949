//! Channels: each value is delivered, in the order of its sender, and the end comes last.

use std::cell::Cell;
use std::rc::Rc;

use aio_context::{PollParams, Wait};
use aio_sources::{Channel, Event};

use crate::handlers::{Adjustable, POLLING, searching};
use crate::{Crowd, recorded};

const SENDERS: usize = 3;
const VALUES: u32 = 2;

/// Senders send and are dropped while the loop polls, sleeps, or changes from one to the other.
fn sends(params: PollParams) {
    let cx = searching(&Adjustable::default(), params);
    let next = recorded::<SENDERS>();
    let is_closed = Rc::new(Cell::new(false));
    let (expected, closed) = (next.clone(), is_closed.clone());
    let (sender, channel) = Channel::new(&cx, move |_, event| {
        assert!(!closed.get(), "nothing comes after the end");
        match event {
            Event::Value((number, value)) => {
                let next: &crate::Recorded = &expected[number];
                assert_eq!(value, next.get());
                next.add(1);
            }
            Event::Closed => closed.set(true),
        }
    });
    let mut crowd = Crowd::of(&cx);
    for number in 0..SENDERS {
        let sender = sender.clone();
        crowd.add(move |_| {
            for value in 0..VALUES {
                sender.send((number, value)).unwrap();
            }
        });
    }
    drop(sender);
    while !is_closed.get() {
        cx.poll(Wait::Block).unwrap();
    }
    assert!(next.iter().all(|next| next.get() == VALUES));
    crowd.end(&cx);
    drop(channel);
}

fn sends_to_a_loop_that_polls() {
    sends(POLLING);
}

fn sends_to_a_loop_that_sleeps() {
    sends(PollParams::OFF);
}

/// A channel is dropped while others send: each value is delivered, dropped with the channel, or returned.
fn sends_to_a_channel_that_goes() {
    let cx = searching(&Adjustable::default(), PollParams::OFF);
    let [delivered, refused] = recorded();
    let counted = delivered.clone();
    let kept = std::sync::Arc::new(());
    let (sender, channel) = Channel::new(&cx, move |_, event| {
        if matches!(event, Event::Value(_)) {
            counted.add(1);
        }
    });
    let mut crowd = Crowd::of(&cx);
    for _ in 0..2 {
        let (sender, refused, kept) = (sender.clone(), refused.clone(), kept.clone());
        crowd.add(move |_| {
            for _ in 0..2 {
                if sender.send(kept.clone()).is_err() {
                    refused.add(1);
                }
            }
        });
    }
    drop(sender);
    cx.poll(Wait::NoBlock).unwrap();
    drop(channel);
    crowd.end(&cx);
    assert!(delivered.get() + refused.get() <= 4);
    assert_eq!(std::sync::Arc::strong_count(&kept), 1, "a value is left");
}

crate::scenarios! {
    n1_values_come_in_order_and_the_end_last_while_the_loop_polls => sends_to_a_loop_that_polls;
    n1_values_come_in_order_and_the_end_last_while_the_loop_sleeps => sends_to_a_loop_that_sleeps;
    r8_no_value_is_left_when_a_channel_goes => sends_to_a_channel_that_goes;
}

crate::faults! {
    n1_planted_rung_before_closed: RungBeforeClosed in sends_to_a_loop_that_sleeps;
}
