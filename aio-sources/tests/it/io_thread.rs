//! A thread with a context of its own.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use aio_context::{ClockId, Context, Gone};
use aio_sources::IoThread;
use aio_testing::{Bench, warnings};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu};

/// Sends the id of the thread on which it is dropped.
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
        let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed(); // not `Send`: it never leaves
        Ok((timer, Tells(tell)))
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
    let no_context = IoThread::builder()
        .context(|| Err(io::ErrorKind::OutOfMemory.into()))
        .spawn(|_| Ok(()));
    assert_eq!(no_context.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
}

#[test]
fn with_a_backend_of_choice() {
    let make = || Context::builder().backend((Bench::EPOLL.backend)()).build();
    let io = IoThread::builder().context(make).spawn(|_| Ok(())).unwrap();
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

#[test]
fn it_has_the_name_that_it_was_given() {
    let own_name = |io: &IoThread| {
        let name = |_: &Context| thread::current().name().map(str::to_owned);
        io.remote().run_and_wait(name).unwrap()
    };
    let io = IoThread::spawn(|_| Ok(())).unwrap();
    assert_eq!(own_name(&io).as_deref(), Some("io"));
    let io = IoThread::builder().name("disk-7").spawn(|_| Ok(())).unwrap();
    assert_eq!(own_name(&io).as_deref(), Some("disk-7"));
    assert!(format!("{io:?}").contains("has_ended: false"), "{io:?}");
    let why = IoThread::builder().name("a\0b").spawn(|_| Ok(())).unwrap_err();
    assert_eq!(why.kind(), io::ErrorKind::InvalidInput);
    assert!(why.to_string().contains("zero byte"), "{why}");
}

#[test]
fn it_runs_on_the_core_that_it_was_pinned_to() {
    let allowed = sched_getaffinity(None).unwrap();
    let cores: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    for core in cores {
        let builder = IoThread::builder().pinned_to(core);
        // The context is made there, too.
        let make = move || {
            assert_eq!(sched_getcpu(), core);
            Context::new()
        };
        let io = builder.context(make).spawn(|_| Ok(())).unwrap();
        let own = io
            .remote()
            .run_and_wait(|_| sched_getaffinity(None).unwrap())
            .unwrap();
        assert!(own.is_set(core) && own.count() == 1);
    }
    assert!(
        sched_getaffinity(None).unwrap() == allowed,
        "the starting thread is not pinned"
    );
}

#[test]
fn a_core_that_does_not_exist_is_an_error_of_spawn() {
    for core in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
        let why = IoThread::builder().pinned_to(core).spawn(|_| Ok(())).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidInput);
        assert!(why.to_string().contains(&format!("core {core}")), "{why}");
    }
}
