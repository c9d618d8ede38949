//! A context as a task of a tokio runtime: tokio waits for one descriptor, and for the context's deadline.
//!
//! `cargo run --example in_tokio`

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Embedded};
use tokio::io::unix::AsyncFd;
use tokio::task::LocalSet;

fn main() -> io::Result<()> {
    // One thread, because a context stays on the thread that made it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = LocalSet::new();
    let cx = Context::new()?;
    tasks.block_on(&runtime, async {
        let (near, far) = UnixStream::pair()?;
        let _near = cx.on(near).readable(|near, _| answer(near)).watch()?;
        let ticks = Rc::new(Cell::new(0));
        let counted = ticks.clone();
        let _tick = cx
            .timer(ClockId::Monotonic, move |_, timer| {
                counted.set(counted.get() + 1);
                timer.arm_after(Duration::from_millis(1));
            })
            .armed_after(Duration::from_millis(1));
        // The context has a task of its own, which can be aborted and started again at any time.
        let served = tokio::task::spawn_local(serve(register(&cx)?));
        println!("echoed by a context inside tokio: {}", client(far).await?);
        served.abort();
        while ticks.get() < 3 {
            let again = tokio::time::timeout(Duration::from_millis(20), serve(register(&cx)?));
            again.await.unwrap_or(Ok(()))?;
        }
        io::Result::Ok(())
    })?;
    println!("at least 3 ticks, on {}", cx.backend_name());
    Ok(())
}

/// Passes the context's descriptor to tokio.
fn register(cx: &Context) -> io::Result<AsyncFd<Embedded>> {
    let embedded = cx.embed()?;
    // SAFETY: the value owns its descriptor, returns the same one each time, and closes it when it is dropped, not before.
    let registered = unsafe { AsyncFd::register_with_interest(embedded, tokio::io::Interest::READABLE) };
    Ok(registered?)
}

/// Polls a context on behalf of tokio, until dropped.
async fn serve(context: AsyncFd<Embedded>) -> io::Result<()> {
    let embedded = context.get_ref();
    loop {
        let limit = embedded.prepare().unwrap_or(Duration::from_secs(3600));
        let ready = tokio::select! {
            biased;
            ready = context.readable() => Some(ready?),
            () = tokio::time::sleep(limit) => None,
        };
        if embedded.check()? {
            embedded.dispatch();
            tokio::task::yield_now().await; // other tasks have their turn, too
        } else if let Some(mut ready) = ready {
            // tokio is edge-triggered, so the readiness may be cleared only when no work is left.
            ready.clear_ready();
        }
    }
}

/// An ordinary tokio task that sends data to the context.
async fn client(far: UnixStream) -> io::Result<String> {
    far.set_nonblocking(true)?;
    let far = tokio::net::UnixStream::from_std(far)?;
    far.writable().await?;
    far.try_write(b"ping")?;
    far.readable().await?;
    let mut echoed = [0; 4];
    let count = far.try_read(&mut echoed)?;
    Ok(String::from_utf8_lossy(&echoed[..count]).into_owned())
}

/// Sends received data back.
fn answer(mut stream: &UnixStream) {
    let mut bytes = [0; 64];
    if let Ok(count) = stream.read(&mut bytes) {
        // A client that has disconnected needs no answer.
        let _ = stream.write_all(&bytes[..count]);
    }
}
