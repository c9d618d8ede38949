//! Rule W3: home threads that wait for each other, and home threads that are gone.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use aio_context::{ClockId, Context, Gone, Remote, Wait};

/// A thread that polls a context until it is stopped.
struct Home {
    remote: Remote,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Home {
    fn spawn() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (send, receive) = mpsc::channel();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let cx = Context::new().unwrap();
            send.send(cx.remote()).unwrap();
            while !stopped.load(Ordering::Acquire) {
                cx.poll(Wait::Block).unwrap();
            }
        });
        let remote = receive.recv().unwrap();
        Self { remote, stop, thread }
    }

    fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Stops the thread. Returns an error if it has panicked.
    fn stop(self) -> thread::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.remote.notify();
        self.thread.join()
    }
}

/// Runs `body` on `threads` threads with `contexts` contexts each. `body` gets the thread's number and the remotes of all. A thread
/// that is done polls until all are done.
fn all_at_once(
    threads: usize,
    contexts: usize,
    body: impl Fn(usize, &[Vec<Remote>]) + Send + Sync + 'static,
) {
    let (body, start, done) = (
        Arc::new(body),
        Arc::new(Barrier::new(threads)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (tell, hear) = mpsc::channel();
    let (mut shares, mut handles) = (Vec::new(), Vec::new());
    for number in 0..threads {
        let (body, start, done, tell) = (body.clone(), start.clone(), done.clone(), tell.clone());
        let (share, remotes) = mpsc::channel::<Vec<Vec<Remote>>>();
        shares.push(share);
        handles.push(thread::spawn(move || {
            let all: Vec<_> = (0..contexts).map(|_| Context::new().unwrap()).collect();
            let own: Vec<_> = all.iter().map(Context::remote).collect();
            tell.send((number, own)).unwrap();
            let remotes = remotes.recv().unwrap();
            start.wait();
            body(number, &remotes);
            done.fetch_add(1, Ordering::Release);
            while done.load(Ordering::Acquire) < threads {
                for cx in &all {
                    cx.poll(Wait::NoBlock).unwrap();
                }
                thread::yield_now();
            }
        }));
    }
    let mut remotes = vec![Vec::new(); threads];
    for (number, own) in hear.into_iter().take(threads) {
        remotes[number] = own;
    }
    for share in shares {
        share.send(remotes.clone()).unwrap();
    }
    for handle in handles {
        handle.join().unwrap();
    }
}

/// Two, three and five threads in a circle: each calls the next one, and sleeps until that returns a result.
#[test]
fn w3_home_threads_in_a_circle_serve_each_other() {
    for threads in [2, 3, 5] {
        for _ in 0..20 {
            all_at_once(threads, 1, move |number, remotes| {
                let next = (number + 1) % threads;
                for round in 0..5 {
                    let answer = remotes[next][0].run_and_wait(move |_| next * 10 + round);
                    assert_eq!(answer, Ok(next * 10 + round));
                }
            });
        }
    }
}

/// A job that one thread runs for the other one waits for the other one in turn, twenty levels deep.
#[test]
fn w3_jobs_that_wait_for_the_thread_that_waits_for_them() {
    fn to_and_fro(remotes: &[Vec<Remote>], at: usize, left: u32) -> u32 {
        if left == 0 {
            return 0;
        }
        let (all, next) = (remotes.to_vec(), 1 - at);
        remotes[next][0]
            .run_and_wait(move |_| 1 + to_and_fro(&all, next, left - 1))
            .unwrap()
    }
    all_at_once(2, 1, |number, remotes| {
        assert_eq!(to_and_fro(remotes, number, 20), 20);
    });
}

/// The same for each context of the thread.
#[test]
fn w3_a_thread_with_several_contexts_serves_all_of_them() {
    all_at_once(2, 3, |number, remotes| {
        for place in [2, 0, 1, 2] {
            let answer = remotes[1 - number][place].run_and_wait(move |_| place);
            assert_eq!(answer, Ok(place));
        }
    });
}

/// The waiting thread runs all its due work, not only jobs.
#[test]
fn w3_the_waiting_thread_goes_on_polling() {
    let (cx, io) = (Context::new().unwrap(), Home::spawn());
    let (fired, go) = (Rc::new(Cell::new(0)), Arc::new(Barrier::new(2)));
    let (count, gate) = (fired.clone(), go.clone());
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            count.set(count.get() + 1);
            gate.wait();
        })
        .disarmed();
    timer.arm_after(Duration::from_millis(1));
    // The job does not return before the timer has fired here.
    let answer = io.remote().run_and_wait(move |_| {
        go.wait();
        7
    });
    assert_eq!((answer, fired.get()), (Ok(7), 1));
    io.stop().unwrap();
}

#[test]
fn w3_a_home_thread_that_panicked_is_distinguished_from_one_that_dropped() {
    // The panic comes while the caller waits, with and without a context of its own.
    for has_own in [false, true] {
        let own = has_own.then(|| Context::new().unwrap());
        let io = Home::spawn();
        let remote = io.remote();
        assert_eq!(
            remote.run_and_wait(|_| panic!("on purpose")),
            Err::<(), _>(Gone::Panicked)
        );
        assert!(io.stop().is_err());
        // The same after the panic.
        assert_eq!(remote.run(|_| ()), Err(Gone::Panicked));
        assert_eq!(remote.run_and_wait(|_| ()), Err(Gone::Panicked));
        if let Some(cx) = &own {
            assert_eq!(cx.run_on(&remote, |_| ()), Err(Gone::Panicked));
        }
        assert!(Gone::Panicked.to_string().contains("panicked"));

        let io = Home::spawn();
        let remote = io.remote();
        io.stop().unwrap();
        assert_eq!(remote.run_and_wait(|_| ()), Err(Gone::Dropped));
    }
}

/// Another job panics, so this job never begins.
#[test]
fn w3_a_job_behind_a_panic_returns_an_error() {
    let io = Home::spawn();
    let (remote, other) = (io.remote(), io.remote());
    let (tell, hear) = mpsc::channel::<()>();
    remote
        .run(move |_| {
            hear.recv().unwrap();
            panic!("on purpose");
        })
        .unwrap();
    let waits = thread::spawn(move || other.run_and_wait(|_| unreachable!("it never begins")));
    // The job is queued behind the first one, or is refused.
    while remote.stats().wakeups_sent + remote.stats().wakeups_elided < 2 && !waits.is_finished() {
        thread::yield_now();
    }
    tell.send(()).unwrap();
    assert_eq!(waits.join().unwrap(), Err::<(), _>(Gone::Panicked));
    assert!(io.stop().is_err());
}

/// A panic that is caught leaves the context on its thread.
#[test]
fn w3_a_caught_panic_is_none_of_the_contexts() {
    let cx = Context::new().unwrap();
    let remote = cx.remote();
    cx.defer(|_| panic!("on purpose"));
    let polled = catch_unwind(AssertUnwindSafe(|| cx.poll(Wait::NoBlock)));
    assert!(polled.is_err());
    drop(cx);
    assert_eq!(remote.run(|_| ()), Err(Gone::Dropped));
}

#[test]
fn r11_each_reason_for_a_lost_result_has_a_text_of_its_own() {
    let text = |gone: Gone| gone.to_string();
    assert!(text(Gone::Dropped).starts_with("the context is gone"));
    assert!(text(Gone::Panicked).contains("panicked"));
    assert!(text(Gone::CannotWait).contains("cannot be polled"));
}
