//! The backend, plugged into a context: descriptors, timers and other threads reach the loop through it.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aio_context::{ClockId, Context, Wait};
use third_party_backend::OneShot;

#[path = "../examples/in_a_context.rs"]
mod example;

#[test]
fn the_example_runs() -> std::io::Result<()> {
    example::main()
}

#[test]
fn it_carries_a_context() -> std::io::Result<()> {
    let cx = Context::builder().backend(Box::new(OneShot::new()?)).build()?;
    assert_eq!(cx.backend_name(), "one-shot epoll");

    // An echo that reads one byte at a time: the rest has to be reported again.
    let (near, mut far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let served = Rc::new(Cell::new(0));
    let echo = cx
        .on(near)
        .readable({
            let served = Rc::clone(&served);
            move |mut stream: &UnixStream, _: &Context| {
                let mut byte = [0];
                if stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {
                    served.set(served.get() + 1);
                }
            }
        })
        .watch()?;
    far.write_all(b"level")?;
    while served.get() < 5 {
        cx.poll(Wait::Block)?;
    }
    let mut answer = [0; 5];
    far.read_exact(&mut answer)?;
    assert_eq!(&answer, b"level");

    // A timer ends a wait, and so does another thread.
    let fired = Rc::new(Cell::new(false));
    let timer = cx
        .timer(ClockId::Monotonic, {
            let fired = Rc::clone(&fired);
            move |_, _| fired.set(true)
        })
        .disarmed();
    timer.arm_after(Duration::from_micros(300));
    while !fired.get() {
        cx.poll(Wait::Block)?;
    }
    let (remote, has_run) = (cx.remote(), Arc::new(AtomicBool::new(false)));
    let asked = std::thread::spawn({
        let has_run = Arc::clone(&has_run);
        move || {
            remote.run_and_wait(move |cx| {
                has_run.store(true, Ordering::Relaxed);
                cx.backend_name()
            })
        }
    });
    while !has_run.load(Ordering::Relaxed) {
        cx.poll(Wait::Block)?;
    }
    assert_eq!(asked.join().ok().and_then(Result::ok), Some("one-shot epoll"));
    drop(echo);
    Ok(())
}
