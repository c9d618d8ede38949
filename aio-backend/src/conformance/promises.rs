//! The promises, one function each. Every one gets an empty backend.

use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Promise;
use super::fixtures::{
    add, consume, counter, descriptors, expect, expect_nothing, fill, look, need, pipe, regular_file, ring,
    silence, sockets, terminal, wait_at_most,
};
use crate::{Backend, Interest, Readiness, ReadyList, Token};

const A: Token = Token::new(0, 0);
const B: Token = Token::new(1, 0);
const IN: Readiness = Readiness::IN;
const OUT: Readiness = Readiness::OUT;

macro_rules! promises {
    ($($(#[doc = $text:literal])+ fn $id:ident($backend:ident) $body:block)*) => {
        $($(#[doc = $text])+ fn $id($backend: &mut dyn Backend) $body)*

        /// Everything that is promised, in the order of the tests.
        pub const PROMISES: &[Promise] = &[
            $(Promise { id: stringify!($id), text: concat!($($text),+), run: $id }),*
        ];
    };
}

promises! {
    /// A pipe is readable when something was written, writable when there is room.
    fn readiness_of_a_pipe(backend) {
        let (reader, mut writer) = pipe();
        add(backend, reader.clone(), A, Interest::READ);
        expect_nothing(backend, "an empty pipe has nothing to read");
        fill(&mut writer);
        expect(backend, A, IN, IN, "a pipe with something in it is readable");
        consume(&reader);
        expect_nothing(backend, "everything was read");
        add(backend, Rc::new(writer), B, Interest::WRITE);
        expect(backend, B, OUT, OUT, "a pipe with room is writable");
    }

    /// A socket is readable and writable, each only if asked for, both in one event.
    fn readiness_of_a_socket(backend) {
        let (near, mut far) = sockets();
        add(backend, near, A, Interest::READ | Interest::WRITE);
        expect(backend, A, OUT, IN | OUT, "a fresh socket is only writable");
        need(far.write_all(b"x"), "to write to a socket");
        expect(backend, A, IN | OUT, IN | OUT, "one event tells both");
        need(backend.modify(A, Interest::READ), "to modify");
        expect(backend, A, IN, IN | OUT, "what is not asked for is not told");
    }

    /// An eventfd is readable while its count is not zero.
    fn readiness_of_an_eventfd(backend) {
        let counter = counter();
        add(backend, counter.clone(), A, Interest::READ);
        expect_nothing(backend, "a count of zero is nothing to read");
        ring(&counter);
        ring(&counter);
        expect(backend, A, IN, IN, "a count is readable");
        silence(&counter);
        expect_nothing(backend, "the count was read");
    }

    /// A terminal is readable when a line was typed at the other end.
    fn readiness_of_a_terminal(backend) {
        let (near, mut far) = terminal();
        add(backend, near, A, Interest::READ);
        expect_nothing(backend, "nothing was written");
        need(far.write_all(b"a line\n"), "to write to a terminal");
        need(far.flush(), "to write to a terminal");
        let found = wait_at_most(backend, Some(Duration::from_secs(10)), 64);
        assert_eq!(found.first().map(|(token, found)| (*token, *found & IN)), Some((A, IN)), "a line was written");
    }

    /// A regular file is no error: it is ready for what is asked, at every wait, and keeps no one else waiting.
    fn a_regular_file_is_always_ready(backend) {
        let other = counter();
        add(backend, regular_file(), A, Interest::READ);
        add(backend, other.clone(), B, Interest::READ);
        expect(backend, A, IN, IN, "a file can be read");
        let found = wait_at_most(backend, None, 64);
        assert_eq!(found, [(A, IN)], "a wait without limit does not block beside something that is always ready");
        ring(&other);
        let mut tokens: Vec<Token> = look(backend).iter().map(|(token, _)| *token).collect();
        tokens.sort();
        assert_eq!(tokens, [A, B], "the other descriptor is reported, too");
        need(backend.modify(A, Interest::NONE), "to silence a file");
        expect(backend, B, IN, IN, "a silent file is not told");
        need(backend.remove(A), "to remove a file");
        silence(&other);
        expect_nothing(backend, "the file is gone");
    }

    /// What is ready and not consumed is reported again, as often as one looks.
    fn level_triggered_until_consumed(backend) {
        let (reader, mut writer) = pipe();
        add(backend, reader.clone(), A, Interest::READ);
        fill(&mut writer);
        fill(&mut writer);
        for _ in 0..3 {
            expect(backend, A, IN, IN, "it was reported before, and is still ready");
        }
        consume(&reader);
        expect(backend, A, IN, IN, "half of it was read, the rest is still there");
        consume(&reader);
        expect_nothing(backend, "all of it was read");
    }

    /// A changed interest is what the next wait goes by, also for what is ready already.
    fn modify_changes_what_is_reported(backend) {
        let (near, mut far) = sockets();
        need(far.write_all(b"x"), "to write to a socket");
        add(backend, near, A, Interest::READ);
        expect(backend, A, IN, IN | OUT, "it is readable");
        need(backend.modify(A, Interest::WRITE), "to modify");
        expect(backend, A, OUT, IN | OUT, "only writability is asked for now");
        need(backend.modify(A, Interest::WRITE), "to modify to the same");
        expect(backend, A, OUT, IN | OUT, "nothing has changed");
        need(backend.modify(A, Interest::READ | Interest::WRITE), "to modify");
        expect(backend, A, IN | OUT, IN | OUT, "both are asked for now");
    }

    /// Without an interest nothing is reported, hang-ups and errors included, and an interest can be taken up again.
    fn silence_covers_everything_and_can_be_left(backend) {
        let (near, mut far) = sockets();
        need(far.write_all(b"x"), "to write to a socket");
        add(backend, near, A, Interest::NONE);
        let (reader, writer) = pipe();
        add(backend, reader, B, Interest::READ);
        need(backend.modify(B, Interest::NONE), "to silence");
        drop((far, writer));
        expect_nothing(backend, "both are silent, though both hung up");
        need(backend.modify(A, Interest::READ), "to leave silence");
        expect(backend, A, IN, IN, "it is asked for again, and was readable all the time");
        need(backend.remove(A), "to remove");
        need(backend.modify(B, Interest::READ), "to leave silence");
        expect(backend, B, Readiness::HUP, Readiness::HUP, "it hung up meanwhile");
        need(backend.modify(B, Interest::NONE), "to silence");
        expect_nothing(backend, "silent again");
    }

    /// After a removal its token is never heard of again, also when the number of the descriptor is used again.
    fn remove_and_use_the_number_again(backend) {
        let (mut reused, mut others) = (0, Vec::new());
        for generation in 0..20 {
            let counter = counter();
            let (number, token) = (counter.as_raw_fd(), Token::new(0, generation));
            ring(&counter);
            add(backend, counter.clone(), token, Interest::READ);
            expect(backend, token, IN, IN, "an event carries the token of the latest registration");
            need(backend.remove(token), "to remove");
            expect_nothing(backend, "it was removed, though it is ready");
            drop(counter);
            // The lowest number that is free comes next, unless another thread was faster.
            let again = self::counter();
            reused += u32::from(again.as_raw_fd() == number);
            others.extend((again.as_raw_fd() != number).then_some(again));
        }
        assert!(reused > 0, "the test needs a number again, and other threads took them all");
    }

    /// Two descriptors of one file are two registrations; the end of one is not the end of the other.
    fn another_descriptor_of_the_same_file_is_another_registration(backend) {
        let counter = counter();
        let twin: Rc<OwnedFd> = Rc::new(need(counter.try_clone(), "one more descriptor"));
        add(backend, counter.clone(), A, Interest::READ);
        add(backend, twin, B, Interest::READ);
        ring(&counter);
        let mut tokens: Vec<Token> = look(backend).iter().map(|(token, _)| *token).collect();
        tokens.sort();
        assert_eq!(tokens, [A, B], "both are ready");
        need(backend.remove(A), "to remove");
        drop(counter);
        expect(backend, B, IN, IN, "the twin goes on");
        need(backend.remove(B), "to remove");
        expect_nothing(backend, "both are gone");
    }

    /// To change or to remove what is not there is an error that says so, and changes nothing.
    fn unknown_tokens_are_errors(backend) {
        let counter = counter();
        let stale = Token::new(0, 7);
        for token in [stale, Token::new(12_345, 0)] {
            let modified = backend.modify(token, Interest::READ).map_err(|error| error.kind());
            assert_eq!(modified, Err(std::io::ErrorKind::NotFound), "modify of {token:?}");
            let removed = backend.remove(token).map_err(|error| error.kind());
            assert_eq!(removed, Err(std::io::ErrorKind::NotFound), "remove of {token:?}");
        }
        add(backend, counter.clone(), A, Interest::READ);
        assert!(backend.modify(stale, Interest::NONE).is_err(), "another generation of the same slot is unknown");
        assert!(backend.remove(stale).is_err(), "another generation of the same slot is unknown");
        ring(&counter);
        expect(backend, A, IN, IN, "the registration that is there goes on");
    }

    /// The share in a descriptor's owner is kept from the registration to its end, and no longer.
    fn shares_are_kept_and_let_go(backend) {
        for interest in [Interest::READ, Interest::NONE] {
            let counter = counter();
            add(backend, counter.clone(), A, interest);
            assert!(Rc::strong_count(&counter) > 1, "a watched descriptor cannot be closed by safe code");
            need(backend.remove(A), "to remove");
            assert_eq!(Rc::strong_count(&counter), 1, "a share was left behind by remove");
        }
        let file = regular_file();
        add(backend, file.clone(), A, Interest::READ);
        need(backend.remove(A), "to remove a file");
        assert_eq!(Rc::strong_count(&file), 1, "a share in a file was left behind");
    }

    /// A timeout of zero only looks, whether something is ready or not.
    fn timeout_zero_only_looks(backend) {
        let counter = counter();
        add(backend, counter.clone(), A, Interest::READ);
        let best = best_of(|| { wait_at_most(backend, Some(Duration::ZERO), 64); });
        assert!(best < Duration::from_millis(1), "a look took {best:?}");
        ring(&counter);
        expect(backend, A, IN, IN, "a look finds what is ready");
    }

    /// 50 microseconds pass before a wait of 50 us ends with nothing, and not many more.
    fn timeout_of_50_us(backend) {
        timeout(backend, Duration::from_micros(50), Duration::from_micros(900));
    }

    /// 5 milliseconds pass before a wait of 5 ms ends with nothing, and not many more.
    fn timeout_of_5_ms(backend) {
        timeout(backend, Duration::from_millis(5), Duration::from_millis(4));
    }

    /// A wait of 300 us does not become one of a whole millisecond.
    fn timeout_not_a_millisecond_late(backend) {
        timeout(backend, Duration::from_micros(300), Duration::from_micros(650));
    }

    /// A wait without a limit ends when another thread makes something ready.
    fn no_timeout_waits_for_an_event(backend) {
        let counter = counter();
        add(backend, counter.clone(), A, Interest::READ);
        let far = need(counter.try_clone(), "one more descriptor");
        std::thread::scope(|threads| {
            let (go, gone) = mpsc::channel();
            threads.spawn(move || {
                let _ = gone.recv();
                ring(far);
            });
            let _ = go.send(());
            let found = wait_until_something(backend);
            assert_eq!(found, [(A, IN)], "the event that ended the wait is told");
        });
    }

    /// A timeout beyond what any clock can take is cut, not refused.
    fn a_timeout_beyond_all_time_is_no_error(backend) {
        let counter = counter();
        add(backend, counter.clone(), A, Interest::READ);
        ring(&counter);
        for timeout in [Duration::MAX, Duration::from_secs(u64::from(u32::MAX)), Duration::from_secs(i64::MAX as u64)] {
            assert_eq!(wait_at_most(backend, Some(timeout), 64), [(A, IN)], "a wait of {timeout:?}");
        }
    }

    /// A signal may end a wait early, with nothing; it is no error, and loses nothing.
    fn interruptions_are_no_errors(backend) {
        use nix::sys::pthread::{pthread_kill, pthread_self};
        use nix::sys::signal::Signal;
        let counter = counter();
        add(backend, counter.clone(), A, Interest::READ);
        let handled = need(
            signal_hook::flag::register(signal_hook::consts::SIGUSR2, Arc::default()),
            "to handle a signal",
        );
        let (home, over) = (pthread_self(), Arc::new(AtomicBool::new(false)));
        let storm = std::thread::spawn({
            let over = over.clone();
            move || {
                while !over.load(Ordering::Acquire) {
                    let _ = pthread_kill(home, Signal::SIGUSR2);
                    std::thread::yield_now();
                }
            }
        });
        for _ in 0..200 {
            let found = wait_at_most(backend, Some(Duration::from_micros(200)), 64);
            assert_eq!(found, [], "nothing was ready");
            ring(&counter);
            assert_eq!(wait_until_something(backend), [(A, IN)], "an event between signals is found");
            silence(&counter);
        }
        over.store(true, Ordering::Release);
        let _ = storm.join();
        signal_hook::low_level::unregister(handled);
    }

    /// A hang-up is told to who reads, with what is left to read.
    fn hang_up_is_told(backend) {
        let (reader, mut writer) = pipe();
        add(backend, reader.clone(), A, Interest::READ);
        fill(&mut writer);
        drop(writer);
        expect(backend, A, IN | Readiness::HUP, IN | Readiness::HUP, "something to read, then the end");
        consume(&reader);
        expect(backend, A, Readiness::HUP, Readiness::HUP, "only the end is left");
    }

    /// An error is told to who writes.
    fn errors_are_told(backend) {
        let (reader, writer) = pipe();
        add(backend, Rc::new(writer), A, Interest::WRITE);
        expect(backend, A, OUT, OUT | Readiness::ERR, "there is room");
        drop(reader);
        expect(backend, A, Readiness::ERR, Readiness::ERR, "nobody will ever read");
    }

    /// Five thousand descriptors are watched, and each is found.
    fn five_thousand_descriptors(backend) {
        const MANY: u32 = 5000;
        if !descriptors(u64::from(MANY) + 200) {
            return;
        }
        let counters: Vec<_> = (0..MANY).map(|_| counter()).collect();
        for (counter, index) in counters.iter().zip(0..) {
            add(backend, counter.clone(), Token::new(index, 0), Interest::READ);
        }
        backend.rebalance();
        expect_nothing(backend, "none is ready");
        for index in (0..MANY).step_by(97) {
            let counter = &counters[index as usize];
            ring(counter);
            expect(backend, Token::new(index, 0), IN, IN, "one of five thousand");
            silence(counter);
        }
        counters.iter().for_each(ring);
        let mut told = std::collections::BTreeSet::new();
        for _ in 0..32 {
            told.extend(wait_at_most(backend, None, MANY as usize).into_iter().map(|(token, _)| token));
        }
        assert_eq!(told.len(), MANY as usize, "repeated waits come round to all of them");
        for index in 0..MANY {
            need(backend.remove(Token::new(index, 0)), "to remove");
        }
        expect_nothing(backend, "all are gone");
    }

    /// With more ready than a list holds, repeated waits come round to everybody.
    fn nobody_starves_past_one_batch(backend) {
        const MANY: u32 = 200;
        const BATCH: usize = 16;
        let counters: Vec<_> = (0..MANY).map(|_| counter()).collect();
        for (counter, index) in counters.iter().zip(0..) {
            add(backend, counter.clone(), Token::new(index, 0), Interest::READ);
            ring(counter);
        }
        // Nobody is ever served, so all stay ready.
        let mut told = vec![0u32; MANY as usize];
        let rounds = MANY as usize / BATCH + 1;
        for _ in 0..4 * rounds {
            let found = wait_at_most(backend, Some(Duration::ZERO), BATCH);
            assert!(found.len() <= BATCH, "more than there was room for");
            for (token, _) in found {
                told[token.index() as usize] += 1;
            }
        }
        let starved = told.iter().filter(|told| **told == 0).count();
        assert_eq!(starved, 0, "{starved} of {MANY} were never told in {} waits of {BATCH}", 4 * rounds);
    }

    /// A list without room gets nothing, at once, whatever the timeout.
    fn a_full_list_gets_nothing(backend) {
        let counter = counter();
        add(backend, counter.clone(), A, Interest::READ);
        let mut ready = ReadyList::with_limit(1);
        ready.push(B, IN);
        need(backend.wait(None, &mut ready), "to wait with a full list");
        assert_eq!(ready.iter().collect::<Vec<_>>(), [(B, IN)], "a full list stays as it is");
        ring(&counter);
        expect(backend, A, IN, IN, "the next wait finds what there is");
    }

    /// Everything is handed over with what it waited for, and the backend is as if new.
    fn drain_hands_everything_over(backend) {
        let counters = [counter(), counter(), counter()];
        let interests = [Interest::READ, Interest::NONE, Interest::WRITE];
        for ((counter, interest), index) in counters.iter().zip(interests).zip(0..) {
            add(backend, counter.clone(), Token::new(index, 3), interest);
        }
        let mut drained = Vec::new();
        backend.drain(&mut |fd, token, interest| drained.push((fd.as_raw_fd(), token, interest)));
        drained.sort_by_key(|(_, token, _)| *token);
        for ((counter, interest), index) in counters.iter().zip(interests).zip(0..) {
            let told = (counter.as_raw_fd(), Token::new(index, 3), interest);
            assert_eq!(drained.get(index as usize), Some(&told), "what was handed over");
            assert_eq!(Rc::strong_count(counter), 1, "a share was left behind by drain");
            ring(counter);
        }
        expect_nothing(backend, "it is empty");
        add(backend, counters[0].clone(), Token::new(0, 4), Interest::READ);
        expect(backend, Token::new(0, 4), IN, IN, "it can be used again");
    }

    /// To restructure loses nothing, whenever it happens.
    fn rebalance_loses_nothing(backend) {
        let counters: Vec<_> = (0..150).map(|_| counter()).collect();
        for (counter, index) in counters.iter().zip(0u32..) {
            ring(counter);
            backend.rebalance();
            add(backend, counter.clone(), Token::new(index, 0), Interest::READ);
            assert_eq!(wait_at_most(backend, Some(Duration::ZERO), 200).len(), index as usize + 1, "while it grows");
        }
        for index in (0..150u32).rev() {
            backend.rebalance();
            need(backend.remove(Token::new(index, 0)), "to remove");
            backend.rebalance();
            assert_eq!(wait_at_most(backend, Some(Duration::ZERO), 200).len(), index as usize, "while it shrinks");
        }
    }

    /// If one descriptor stands for all, it is readable whenever a look would find something, and not otherwise.
    fn what_stands_for_all_is_readable_when_something_is_ready(backend) {
        let counter = counter();
        add(backend, counter.clone(), A, Interest::READ);
        let outer = match need(backend.pollable(), "what stands for all") {
            Some(fd) => need(fd.try_clone_to_owned(), "one more descriptor"),
            None => return,
        };
        let is_readable = || {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            need(poll(&mut [PollFd::new(&outer, PollFlags::IN)], Some(&now)), "to look") == 1
        };
        assert!(!is_readable(), "nothing is ready");
        ring(&counter);
        assert!(is_readable(), "something is ready");
        expect(backend, A, IN, IN, "and a look finds it");
        silence(&counter);
        expect_nothing(backend, "it was read");
        assert!(!is_readable(), "nothing is ready any more");
        add(backend, regular_file(), B, Interest::READ);
        assert!(is_readable() || backend.always_ready(), "a file is ready, and one of the two says so");
    }
}

/// The shortest of many times: what is left when the machine does not interfere.
fn best_of(mut what: impl FnMut()) -> Duration {
    let times = (0..20).map(|_| {
        let began = Instant::now();
        what();
        began.elapsed()
    });
    times.min().unwrap_or_default()
}

/// A wait with nothing ready never ends early, and at least one of many ends at most `late` after its time.
fn timeout(backend: &mut dyn Backend, timeout: Duration, late: Duration) {
    let counter = counter();
    add(backend, counter, A, Interest::READ);
    let best = best_of(|| {
        let began = Instant::now();
        let found = wait_at_most(backend, Some(timeout), 64);
        let took = began.elapsed();
        assert_eq!(found, [], "nothing was ready");
        assert!(took >= timeout, "a wait of {timeout:?} ended after {took:?}");
    });
    let bound = timeout + late;
    assert!(
        best <= bound,
        "the best of twenty waits of {timeout:?} took {best:?}; {bound:?} are allowed"
    );
}

/// Waits without a limit, as often as signals make it end early.
fn wait_until_something(backend: &mut dyn Backend) -> Vec<(Token, Readiness)> {
    loop {
        let found = wait_at_most(backend, None, 64);
        if !found.is_empty() {
            return found;
        }
    }
}
