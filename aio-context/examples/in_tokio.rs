//! A context as a task of a tokio runtime: tokio waits for one descriptor, and for the context's deadline.
//!
//! `cargo run --example in_tokio`

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Embedded};
use tokio::io::unix::AsyncFd;

fn main() -> io::Result<()> {
    // One thread, because a context stays on the thread that made it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let cx = Context::new()?;
        let (near, far) = UnixStream::pair()?;
        let _near = cx.on(near).readable(|near, _| answer(near)).watch()?;
        let ticks = Rc::new(Cell::new(0));
        let counted = ticks.clone();
        let tick = cx
            .timer(ClockId::Monotonic, move |_, timer| {
                counted.set(counted.get() + 1);
                timer.arm_after(Duration::from_millis(1));
            })
            .disarmed();
        tick.arm_after(Duration::from_millis(1));

        // Both run on this thread; the context is served until the client has finished.
        tokio::select! {
            never = serve(&cx) => never?,
            echoed = client(far) => println!("echoed by a context inside tokio: {}", echoed?),
        }
        while ticks.get() < 3 {
            // Stopped and taken up again: nothing was lost meanwhile.
            tokio::time::timeout(Duration::from_millis(20), serve(&cx))
                .await
                .unwrap_or(Ok(()))?;
        }
        println!("at least 3 ticks, on {}", cx.backend_name());
        Ok(())
    })
}

/// Polls `cx` on behalf of tokio, until dropped.
async fn serve(cx: &Context) -> io::Result<()> {
    let embedded = cx.embed()?;
    let fd = register(&embedded)?;
    loop {
        let limit = embedded.prepare();
        let ready = tokio::select! {
            biased;
            ready = fd.readable() => Some(ready?),
            () = sleep(limit) => None,
        };
        if embedded.check()? {
            embedded.dispatch();
            // Other tasks have their turn, too.
            tokio::task::yield_now().await;
        } else if let Some(mut ready) = ready {
            // tokio is edge-triggered, so the readiness may be cleared only when no work is left.
            ready.clear_ready();
        }
    }
}

/// The context's descriptor as tokio knows it.
fn register(embedded: &Embedded) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = embedded.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor belongs to the value that is registered, which gives out the same one as long as it lives
    // and closes it when it is dropped, after tokio has let go of it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

async fn sleep(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// An ordinary tokio task that talks to the context.
async fn client(far: UnixStream) -> io::Result<String> {
    far.set_nonblocking(true)?;
    let far = tokio::net::UnixStream::from_std(far)?;
    far.writable().await?;
    far.try_write(b"ping")?;
    let mut echoed = [0; 4];
    loop {
        far.readable().await?;
        match far.try_read(&mut echoed) {
            Ok(count) => return Ok(String::from_utf8_lossy(&echoed[..count]).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends received data back.
fn answer(mut stream: &UnixStream) {
    let mut bytes = [0; 64];
    if let Ok(count) = stream.read(&mut bytes) {
        // A client that is gone needs no answer.
        let _ = stream.write_all(&bytes[..count]);
    }
}
