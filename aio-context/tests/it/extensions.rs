//! Values of other crates that belong to a context.

use std::cell::Cell;
use std::rc::Rc;
use std::thread;

use aio_context::Context;

#[derive(Default)]
struct One(Cell<u32>);
#[derive(Default)]
struct Other(Cell<u32>);

#[test]
fn d7_a_remote_knows_its_home_thread() {
    let cx = Context::new().unwrap();
    let remote = cx.remote();
    assert!(remote.is_at_home());
    let there = remote.clone();
    assert!(!thread::spawn(move || there.is_at_home()).join().unwrap());
    drop(cx);
    assert!(remote.is_at_home());
}

#[test]
fn r8_a_context_has_one_value_of_each_type_and_drops_it() {
    struct Counted(Rc<Cell<u32>>, aio_context::WeakContext);
    impl Drop for Counted {
        fn drop(&mut self) {
            assert!(self.1.upgrade().is_none());
            self.0.set(self.0.get() + 1);
        }
    }
    let drops = Rc::new(Cell::new(0));
    let (cx, another) = (Context::new().unwrap(), Context::new().unwrap());
    cx.extension(|_| One::default()).0.set(1);
    cx.extension(|_| Other::default()).0.set(2);
    another.extension(|_| One::default()).0.set(3);
    assert_eq!(cx.extension(|_| One::default()).0.get(), 1);
    assert_eq!(cx.extension(|_| Other::default()).0.get(), 2);
    let counted = drops.clone();
    let kept = cx.extension(|cx| Counted(counted, cx.downgrade()));
    drop(kept);
    assert_eq!(drops.get(), 0);
    drop(cx);
    assert_eq!(drops.get(), 1);
}

/// The value that was made first stays, also if it was made while another one was being made.
#[test]
fn r8_a_value_may_be_asked_for_while_it_is_made() {
    let cx = Context::new().unwrap();
    let outer = cx.extension(|cx| {
        cx.extension(|_| One::default()).0.set(7);
        One::default()
    });
    assert_eq!(outer.0.get(), 7);
}
