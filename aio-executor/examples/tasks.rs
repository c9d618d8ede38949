//! Tasks on a context: a child task, a timeout, a socket, and a task on another thread's context.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use aio_context::Context;
use aio_executor::{AsyncFd, ContextExt, RemoteExt, current, sleep, spawn, timeout};
use aio_sources::IoThread;

// ANCHOR: readiness
/// Sends a line, and returns the answer.
async fn ask(socket: UnixStream) -> io::Result<String> {
    let socket = AsyncFd::new(&current(), socket)?;
    socket.write_with(|mut socket| socket.write(b"ping")).await?;
    let mut buffer = [0; 64];
    let length = socket.read_with(|mut socket| socket.read(&mut buffer)).await?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
// ANCHOR_END: readiness

/// Answers one line after a short pause.
async fn answer(socket: UnixStream) -> io::Result<()> {
    let socket = AsyncFd::new(&current(), socket)?;
    let mut buffer = [0; 64];
    let length = socket.read_with(|mut socket| socket.read(&mut buffer)).await?;
    sleep(Duration::from_millis(1)).await;
    socket
        .write_with(|mut socket| socket.write(&buffer[..length]))
        .await?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (here, there) = UnixStream::pair()?;

    // ANCHOR: remote
    let io = IoThread::spawn(|_cx| Ok(()))?;
    let answered = io.remote().spawn_with(move |_cx| answer(there));
    // ANCHOR_END: remote

    // ANCHOR: spawn
    let cx = Context::new()?;
    let said = cx.block_on(async {
        let asked = spawn(ask(here)); // a task of its own, on this thread
        asked.await
    })???;
    // ANCHOR_END: spawn
    println!("the answer is {said}");

    // ANCHOR: timers
    let hour = Duration::from_secs(3600);
    let late = cx.block_on(async move { timeout(Duration::from_millis(1), sleep(hour)).await })?;
    println!("an hour did not pass: {}", late.is_err());
    // ANCHOR_END: timers

    cx.block_on(answered)???;
    io.stop()?;
    Ok(())
}
