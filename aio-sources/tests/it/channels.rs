//! Channels: every value is delivered, in order, and finally that the channel is closed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aio_context::{Context, PollParams, Wait};
use aio_sources::{Channel, Event, Sender};
use aio_testing::{Bench, Count, everywhere};

everywhere! {
    n1_values_are_delivered_in_order_and_then_the_end
    n1_the_end_comes_after_the_last_sender
    d1_a_poll_inside_a_callback_delivers_the_next_value
    d5_a_full_channel_keeps_no_one_out
    d9_a_panic_loses_no_other_value
    d9_a_panic_at_the_last_value_loses_no_end
    r9_a_channel_that_its_callback_drops_delivers_nothing_more
    r8_sends_fail_once_the_channel_is_gone
    b5_values_sent_during_a_pause_are_delivered_after_it
    b5_a_pause_by_a_callback_is_before_the_next_value
}

type Log = Rc<RefCell<Vec<Event<u32>>>>;

fn logged(cx: &Context, code: impl Fn(&Context, u32) + 'static) -> (Sender<u32>, Channel, Log) {
    let log = Log::default();
    let delivered = log.clone();
    let (sender, channel) = Channel::new(cx, move |cx, event| {
        delivered.borrow_mut().push(event);
        if let Event::Value(value) = event {
            code(cx, value);
        }
    });
    (sender, channel, log)
}

fn values(values: impl IntoIterator<Item = u32>) -> Vec<Event<u32>> {
    values.into_iter().map(Event::Value).collect()
}

/// Passes a sender to `work` on another thread, which drops it.
fn elsewhere<R: Send>(sender: Sender<u32>, work: impl FnOnce(Sender<u32>) -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(move || work(sender)).join().unwrap())
}

fn n1_values_are_delivered_in_order_and_then_the_end(bench: Bench) {
    let cx = bench.context();
    let (sender, _channel, log) = logged(&cx, |_, _| {});
    sender.send(0).unwrap(); // from home
    assert!(bench.block(&cx));
    bench.settle(&cx);
    assert_eq!(log.take(), values([0]));
    elsewhere(sender, |sender| {
        (1..=1000).for_each(|value| sender.send(value).unwrap())
    });
    assert!(bench.block(&cx));
    bench.settle(&cx);
    let mut expected = values(1..=1000);
    expected.push(Event::Closed);
    assert_eq!(log.take(), expected);
    bench.settle(&cx);
    assert!(log.take().is_empty(), "the end is delivered once");
}

fn n1_the_end_comes_after_the_last_sender(bench: Bench) {
    let cx = bench.context();
    let (sender, _channel, log) = logged(&cx, |_, _| {});
    let other = sender.clone();
    elsewhere(sender, drop);
    bench.settle(&cx);
    assert!(log.take().is_empty());
    elsewhere(other, |other| other.send(1).unwrap());
    assert!(bench.block(&cx));
    bench.settle(&cx);
    assert_eq!(log.take(), [Event::Value(1), Event::Closed]);
}

fn d1_a_poll_inside_a_callback_delivers_the_next_value(bench: Bench) {
    let cx = bench.context();
    let depth = Count::default();
    let entered = depth.clone();
    let (sender, _channel, log) = logged(&cx, move |cx, value| {
        entered.up();
        while value < 3 && entered.get() < 3 {
            assert!(cx.poll(Wait::AtMost(Duration::from_secs(60))).unwrap());
        }
    });
    (1..=3).for_each(|value| sender.send(value).unwrap());
    assert!(bench.block(&cx));
    bench.settle(&cx);
    assert_eq!(log.take(), values(1..=3));
}

fn d5_a_full_channel_keeps_no_one_out(bench: Bench) {
    let cx = bench.context();
    let again: Rc<RefCell<Option<Sender<u32>>>> = Rc::default();
    let sends = again.clone();
    let (sender, _channel, log) = logged(&cx, move |_, value| {
        // There is always another value.
        sends
            .borrow()
            .iter()
            .for_each(|sender| sender.send(value + 1).unwrap());
    });
    sender.send(0).unwrap();
    again.replace(Some(sender));
    let others = Count::default();
    let count = others.clone();
    let bh = cx.bottom_half("other", move |_| {
        count.up();
    });
    for round in 1..=10 {
        bh.schedule();
        bench.check(&cx);
        assert_eq!(others.get(), round);
    }
    assert!(log.borrow().len() >= 10);
    again.take();
    bench.settle(&cx);
}

fn d9_a_panic_loses_no_other_value(bench: Bench) {
    let cx = bench.context();
    let (sender, _channel, log) = logged(&cx, |_, value| assert!(value != 2, "on purpose"));
    (1..=100).for_each(|value| sender.send(value).unwrap());
    drop(sender);
    assert!(catch_unwind(AssertUnwindSafe(|| bench.settle(&cx))).is_err());
    bench.settle(&cx);
    let mut expected = values(1..=100);
    expected.push(Event::Closed);
    assert_eq!(log.take(), expected);
}

fn d9_a_panic_at_the_last_value_loses_no_end(bench: Bench) {
    let cx = bench.context();
    let (sender, _channel, log) = logged(&cx, |_, _| panic!("on purpose"));
    sender.send(1).unwrap();
    drop(sender);
    assert!(catch_unwind(AssertUnwindSafe(|| bench.settle(&cx))).is_err());
    bench.settle(&cx);
    assert_eq!(log.take(), [Event::Value(1), Event::Closed]);
}

fn r9_a_channel_that_its_callback_drops_delivers_nothing_more(bench: Bench) {
    let cx = bench.context();
    let own = Rc::new(RefCell::new(None));
    let dropped = own.clone();
    let (sender, channel, log) = logged(&cx, move |_, value| {
        if value == 2 {
            drop(dropped.take());
        }
    });
    own.replace(Some(channel));
    (1..=3).for_each(|value| sender.send(value).unwrap());
    bench.settle(&cx);
    assert_eq!(log.take(), values([1, 2]));
    assert_eq!(sender.send(4), Err(4));
}

fn r8_sends_fail_once_the_channel_is_gone(bench: Bench) {
    for keeps_channel in [false, true] {
        let cx = bench.context();
        let value = Arc::new(());
        let (sender, channel) = Channel::new(&cx, |_, _: Event<Arc<()>>| unreachable!("it is not polled"));
        sender.send(value.clone()).unwrap();
        let kept = if keeps_channel {
            drop(cx);
            Some(channel)
        } else {
            drop(channel);
            None
        };
        assert_eq!(Arc::strong_count(&value), 1, "it was dropped undelivered");
        assert!(sender.send(value).is_err());
        drop((sender, kept));
    }
}

/// A lost wake-up makes the test hang, which the test runner's limit turns into a failure.
#[test]
fn n2_no_value_is_lost_between_polling_and_sleeping() {
    const THREADS: u32 = 3;
    const VALUES: u32 = 20_000;
    for params in [PollParams::OFF, PollParams::up_to(Duration::from_micros(20))] {
        let cx = Context::builder().poll_params(params).build().unwrap();
        let next = Rc::new(RefCell::new([0; THREADS as usize]));
        let is_closed = Rc::new(Cell::new(false));
        let (expected, closed) = (next.clone(), is_closed.clone());
        let (sender, _channel) = Channel::new(&cx, move |_, event| match event {
            Event::Value((thread, value)) => {
                let next = &mut expected.borrow_mut()[thread as usize];
                assert_eq!(value, *next, "in the order of each thread");
                *next += 1;
            }
            Event::Closed => closed.set(true),
        });
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let sender = sender.clone();
                thread::spawn(move || {
                    (0..VALUES).for_each(|value| sender.send((thread, value)).unwrap());
                })
            })
            .collect();
        drop(sender);
        while !is_closed.get() {
            cx.poll(Wait::Block).unwrap();
        }
        assert_eq!(*next.borrow(), [VALUES; THREADS as usize]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn b5_values_sent_during_a_pause_are_delivered_after_it(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let (group, delivered) = (cx.new_group(), log.clone());
    let deliver = move |_: &Context, event| delivered.borrow_mut().push(event);
    let (sender, _channel) = Channel::new_in(&cx, group, deliver);
    for _ in 0..2 {
        let paused = cx.pause(group);
        elsewhere(sender.clone(), |sender| {
            (1..=100).for_each(|value| sender.send(value).unwrap())
        });
        bench.settle(&cx);
        assert!(log.borrow().is_empty());
        drop(paused);
        bench.settle(&cx);
        assert_eq!(log.take(), values(1..=100));
    }
    let paused = cx.pause(group);
    drop(sender);
    bench.settle(&cx);
    assert!(log.borrow().is_empty());
    drop(paused);
    bench.settle(&cx);
    assert_eq!(log.take(), [Event::Closed]);
}

fn b5_a_pause_by_a_callback_is_before_the_next_value(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let (group, delivered) = (cx.new_group(), log.clone());
    let paused = Rc::new(RefCell::new(None));
    let pause = paused.clone();
    let deliver = move |cx: &Context, event| {
        delivered.borrow_mut().push(event);
        pause.replace(Some(cx.pause(group)));
    };
    let (sender, _channel) = Channel::new_in(&cx, group, deliver);
    (1..=3).for_each(|value| sender.send(value).unwrap());
    drop(sender);
    let mut expected = values(1..=3);
    expected.push(Event::Closed);
    for event in expected {
        bench.settle(&cx);
        assert_eq!(log.take(), [event]);
        drop(paused.take());
    }
}
