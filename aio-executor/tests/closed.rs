//! The descriptor of a waiting task is closed behind the loop's back. In a process of its own, so that no
//! other test opens the number again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use aio_context::{Context, Wait};
use aio_executor::{AsyncFd, ContextExt};

/// An owner that never closes.
struct Borrowed(ManuallyDrop<OwnedFd>);

impl AsFd for Borrowed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[test]
fn e2_a_task_learns_that_its_descriptor_was_closed() {
    let cx = Context::new().unwrap(); // on ppoll, which notices
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let number = ours.as_raw_fd();
    let owned = ManuallyDrop::new(OwnedFd::from(ours));
    let socket = AsyncFd::new(&cx, Borrowed(owned)).unwrap();
    let task = cx.spawn(async move { socket.readable().await });
    assert!(cx.poll(Wait::NoBlock).unwrap());
    // SAFETY: the test closes the number on purpose; its owner never does.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    let why = cx.block_on(task).unwrap().unwrap().unwrap_err();
    assert_eq!(why.kind(), ErrorKind::InvalidInput);
    assert!(
        why.to_string().contains("closed while it was registered"),
        "{why}"
    );
}
