//! A thread with a context of its own.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use aio_context::{Context, Gone, IoThread};

use crate::common::{self, Kick, watch};
use crate::warnings::warnings;

/// Tells on which thread it was dropped.
struct Tells(mpsc::Sender<thread::ThreadId>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.send(thread::current().id()).unwrap();
    }
}

#[test]
fn d7_the_context_is_made_used_and_dropped_on_its_thread() {
    let (tell, hear) = mpsc::channel();
    let io = IoThread::spawn(move |cx| {
        let kick = Kick::new(); // not `Send`: it never leaves
        let registration = watch(cx, &kick);
        Ok((kick, registration, Tells(tell)))
    })
    .unwrap();
    let home = io.remote().run_and_wait(|_| thread::current().id()).unwrap();
    assert_ne!(home, thread::current().id());
    assert!(!io.has_ended());
    let remote = io.remote();
    io.stop().unwrap();
    assert_eq!(hear.recv().unwrap(), home);
    assert_eq!(remote.run(|_| ()), Err(Gone::Dropped));
}

#[test]
fn n1_dropping_it_wakes_and_ends_a_sleeping_loop() {
    let ends = Arc::new(AtomicU32::new(0));
    for _ in 0..200 {
        let counted = ends.clone();
        let io = IoThread::spawn(move |_| Ok(Ends(counted))).unwrap();
        drop(io);
    }
    assert_eq!(ends.load(Ordering::Relaxed), 200);
}

struct Ends(Arc<AtomicU32>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn d9_a_panic_ends_the_thread_and_is_reported() {
    let io = IoThread::spawn(|_| Ok(())).unwrap();
    let lost = io.remote().run_and_wait(|_| panic!("on {}", "purpose"));
    assert_eq!(lost, Err::<(), _>(Gone::Panicked));
    // The thread ends now; there is no notification.
    while !io.has_ended() {
        thread::yield_now();
    }
    let error = io.stop().unwrap_err();
    assert!(
        error.to_string().contains("panicked") && error.to_string().contains("on purpose"),
        "{error}"
    );
}

#[test]
fn d9_a_panic_that_is_not_collected_is_logged() {
    let logged = warnings(|| {
        let io = IoThread::spawn(|_| Ok(())).unwrap();
        assert!(io.remote().run_and_wait(|_| panic!("on purpose")).is_err());
        drop(io);
    });
    assert!(
        logged.len() == 1 && logged[0].contains("on purpose"),
        "{logged:#?}"
    );
}

#[test]
fn a_failed_setup_is_an_error_of_spawn() {
    let refused = IoThread::spawn(|_| Err::<(), _>(io::Error::other("no")));
    assert_eq!(refused.unwrap_err().to_string(), "no");
    let panicked = IoThread::spawn(|_| -> io::Result<()> { panic!("on purpose") });
    assert!(panicked.unwrap_err().to_string().contains("on purpose"));
    let no_context = IoThread::spawn_with(|| Err(io::ErrorKind::OutOfMemory.into()), |_| Ok(()));
    assert_eq!(no_context.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
}

#[test]
fn with_a_backend_of_choice() {
    let make = || Context::builder().backend(common::epoll()).build();
    let io = IoThread::spawn_with(make, |_| Ok(())).unwrap();
    assert_eq!(io.remote().run_and_wait(Context::backend_name), Ok("epoll"));
}

#[test]
fn stopped_by_its_own_callback_it_does_not_wait_for_itself() {
    let (tell, hear) = mpsc::channel();
    let io = Arc::new(Mutex::new(None));
    let own = io.clone();
    let spawned = IoThread::spawn(move |_| Ok((Rc::new(()), Tells(tell)))).unwrap();
    let remote = spawned.remote();
    *io.lock().unwrap() = Some(spawned);
    remote
        .run(move |_| {
            let io: Option<IoThread> = own.lock().unwrap().take();
            io.unwrap().stop().unwrap();
        })
        .unwrap();
    hear.recv().unwrap();
}
