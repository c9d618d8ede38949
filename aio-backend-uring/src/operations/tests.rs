use std::fs::File;
use std::sync::Arc;

use super::*;

/// Makes a ring, if the system has one, and the operations. The ring is never entered.
fn setup(entries: u32) -> Option<(IoUring, Operations)> {
    match IoUring::new(entries) {
        Ok(ring) => Some((ring, Operations::default())),
        Err(error) => {
            eprintln!("skipped: no io_uring: {error}");
            None
        }
    }
}

fn read() -> Operation {
    let file = Arc::new(File::open("/dev/zero").unwrap());
    Operation::read(file, 0, vec![7; 16])
}

const EINTR: i32 = -4;
const EIO: i32 = -5;

#[test]
fn s1_an_interrupted_operation_is_submitted_again_and_not_for_ever() {
    let Some((mut ring, mut operations)) = setup(256) else {
        return;
    };
    let token = operations.submit(&mut ring, read()).unwrap();
    for retry in 0..MOST_RETRIES {
        operations.complete(&mut ring, key(token), EINTR);
        assert!(!operations.has_completed(), "after {retry}");
        assert_eq!((operations.in_kernel(), operations.len()), (1, 1));
    }
    assert_eq!(ring.submission().len(), 1 + usize::from(MOST_RETRIES));
    operations.complete(&mut ring, key(token), EINTR);
    let (ended, completed) = operations.next_completed().unwrap();
    assert_eq!(ended, token);
    assert_eq!(completed.result.unwrap_err().raw_os_error(), Some(-EINTR));
}

#[test]
fn s1_a_cancelled_operation_that_was_interrupted_has_ended() {
    let Some((mut ring, mut operations)) = setup(8) else {
        return;
    };
    let token = operations.submit(&mut ring, read()).unwrap();
    operations.cancel(&mut ring, token);
    operations.cancel(&mut ring, token);
    assert_eq!(ring.submission().len(), 2, "one request to cancel");
    operations.complete(&mut ring, key(token), EINTR);
    assert!(operations.has_completed());
}

#[test]
fn s1_no_other_completion_is_that_of_an_operation() {
    let Some((mut ring, mut operations)) = setup(2) else {
        return;
    };
    let tokens = [(); 4].map(|()| operations.submit(&mut ring, read()).unwrap());
    assert_eq!((operations.in_kernel(), operations.is_waiting()), (2, true));
    for user_data in [
        0,
        Key::Cancellation.to_bits(),
        key(Token::new(0, 1)),          // a generation to come
        key(tokens[2]),                 // not in the kernel
        key(Token::new(99, 0)),         // no slot
        key(tokens[0]) & !IS_OPERATION, // of a descriptor
        key(tokens[0]) | 1 << 62,       // reserved
    ] {
        operations.complete(&mut ring, user_data, 16);
        assert!(!operations.has_completed(), "{user_data:#x}");
    }
    operations.complete(&mut ring, key(tokens[0]), 16);
    operations.complete(&mut ring, key(tokens[0]), 16);
    assert_eq!(
        operations.next_completed().map(|(token, _)| token),
        Some(tokens[0])
    );
    assert!(operations.next_completed().is_none(), "it completes once");
    // The slot has a new generation.
    let again = operations.submit(&mut ring, read()).unwrap();
    assert_eq!((again.index(), again.generation()), (0, 1));
}

#[test]
fn s1_an_operation_that_waits_for_room_is_cancelled_at_once() {
    let Some((mut ring, mut operations)) = setup(1) else {
        return;
    };
    let tokens = [(); 3].map(|()| operations.submit(&mut ring, read()).unwrap());
    operations.cancel(&mut ring, tokens[1]);
    operations.cancel(&mut ring, tokens[1]);
    let (ended, completed) = operations.next_completed().unwrap();
    assert_eq!(ended, tokens[1]);
    assert_eq!(completed.result.unwrap_err().raw_os_error(), Some(125)); // ECANCELED
    assert_eq!(completed.operation.buffers().and_then(Buffers::len), Some(16));
    assert_eq!(operations.len(), 2);
    operations.cancel_all(&mut ring);
    assert_eq!(
        operations.next_completed().map(|(token, _)| token),
        Some(tokens[2])
    );
    assert_eq!(
        (operations.len(), operations.is_waiting()),
        (1, true),
        "the request to cancel"
    );
    operations.complete(&mut ring, key(tokens[0]), EIO);
    assert_eq!(
        operations.next_completed().map(|(token, _)| token),
        Some(tokens[0])
    );
    assert_eq!(operations.len(), 0);
}

/// The kernel may write to a leaked buffer for ever.
#[test]
fn s1_what_the_kernel_does_not_let_go_of_is_leaked_with_its_file() {
    let Some((mut ring, mut operations)) = setup(8) else {
        return;
    };
    let file = Arc::new(File::open("/dev/zero").unwrap());
    let owner = Arc::new(());
    // SAFETY: there is no memory.
    let memory = unsafe { ForeignMemory::new(owner.clone(), []) };
    let operation = Operation::read(file.clone(), 0, Buffers::from(memory));
    let token = operations.submit(&mut ring, operation).unwrap();
    operations.leak();
    let (ended, completed) = operations.next_completed().unwrap();
    assert_eq!(ended, token);
    assert_eq!(completed.result.unwrap_err().raw_os_error(), Some(110)); // ETIMEDOUT
    assert!(completed.operation.buffers().is_some_and(Buffers::is_empty));
    drop(completed.operation);
    assert_eq!((Arc::strong_count(&owner), Arc::strong_count(&file)), (2, 2));
    operations.complete(&mut ring, key(token), 16);
    assert!(!operations.has_completed());
    let next = operations.submit(&mut ring, read()).unwrap();
    assert_ne!(next.index(), token.index());
}

#[test]
fn s1_memory_of_an_unknown_kind_is_refused() {
    let Some((mut ring, mut operations)) = setup(8) else {
        return;
    };
    let file = Arc::new(File::open("/dev/zero").unwrap());
    let unknown = Operation::read(file, 0, Buffers::Foreign(Box::new("memory")));
    let refused = operations.submit(&mut ring, unknown).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    assert_eq!((operations.len(), ring.submission().len()), (0, 0));
}
