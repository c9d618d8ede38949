//! Child processes: the end of each is one callback.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;

use aio_context::Context;
use aio_sources::ChildExit;
use aio_testing::{Bench, everywhere};
use rustix::process::{Pid, WaitOptions, waitpid};

everywhere! {
    r1_the_end_of_each_process_is_called_once
    r1_a_killed_process_has_ended_by_a_signal
    r1_a_process_that_has_ended_before_is_called_for
    r8_a_callback_that_was_taken_back_is_not_called
    r8_a_callback_may_drop_its_own_watch
    d4_a_process_that_something_else_has_reaped_is_an_error
    b5_a_process_that_ends_during_a_pause_is_called_for_after_it
}

type Log = Rc<RefCell<Vec<io::Result<ExitStatus>>>>;

fn sh(script: &str) -> Child {
    let mut sh = Command::new("sh");
    sh.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap()
}

fn watch(cx: &Context, child: Child, log: &Log) -> ChildExit {
    let log = log.clone();
    ChildExit::new(cx, child, move |_, status| log.borrow_mut().push(status)).unwrap()
}

fn until(bench: Bench, cx: &Context, log: &Log, number: usize) {
    while log.borrow().len() < number {
        bench.block(cx);
    }
    bench.settle(cx);
    assert_eq!(log.borrow().len(), number);
}

fn r1_the_end_of_each_process_is_called_once(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let exits: Vec<_> = (0..10)
        .map(|code| watch(&cx, sh(&format!("exit {code}")), &log))
        .collect();
    until(bench, &cx, &log, 10);
    let mut codes: Vec<_> = log
        .take()
        .into_iter()
        .map(|status| status.unwrap().code())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, (0..10).map(Some).collect::<Vec<_>>());
    drop(exits);
}

fn r1_a_killed_process_has_ended_by_a_signal(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let exit = watch(&cx, sh("read forever"), &log);
    bench.settle(&cx);
    assert!(log.borrow().is_empty(), "it runs");
    exit.kill().unwrap();
    until(bench, &cx, &log, 1);
    assert_eq!(log.take().remove(0).unwrap().signal(), Some(9));
    exit.kill().unwrap();
}

fn r1_a_process_that_has_ended_before_is_called_for(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let child = sh("exit 3");
    // Waiting for it does not reap it.
    let id = rustix::process::WaitId::Pid(Pid::from_child(&child));
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(id, options).unwrap();
    let _exit = watch(&cx, child, &log);
    until(bench, &cx, &log, 1);
    assert_eq!(log.take().remove(0).unwrap().code(), Some(3));
}

fn r8_a_callback_that_was_taken_back_is_not_called(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let exit = watch(&cx, sh("read forever"), &log);
    assert!(format!("{exit:?}").contains(&exit.id().to_string()));
    let mut child = exit.into_child();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    bench.settle(&cx);
    assert!(log.borrow().is_empty());
    assert_eq!(Rc::strong_count(&log), 1, "the callback was dropped");
}

fn r8_a_callback_may_drop_its_own_watch(bench: Bench) {
    let cx = bench.context();
    let own = Rc::new(RefCell::new(None));
    let dropped = own.clone();
    let exit = ChildExit::new(&cx, sh("exit 0"), move |_, _| {
        let exit: ChildExit = dropped.take().unwrap();
        // The process is returned, with its status.
        assert!(exit.into_child().wait().unwrap().success());
    });
    own.replace(Some(exit.unwrap()));
    while own.borrow().is_some() {
        bench.block(&cx);
    }
}

fn d4_a_process_that_something_else_has_reaped_is_an_error(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let child = sh("read forever");
    let pid = Pid::from_child(&child);
    let exit = watch(&cx, child, &log);
    exit.kill().unwrap();
    waitpid(Some(pid), WaitOptions::empty()).unwrap();
    // Another process may have this number now.
    exit.kill().unwrap();
    until(bench, &cx, &log, 1);
    let why = log.take().remove(0).unwrap_err();
    assert_eq!(why.raw_os_error(), Some(10), "ECHILD: {why}");
    exit.kill().unwrap();
}

#[test]
fn b4_a_process_that_cannot_be_watched_comes_back() {
    let cx = Context::new().unwrap();
    let mut child = sh("exit 5");
    let status = child.wait().unwrap();
    let id = child.id();
    let refused = ChildExit::new(&cx, child, |_, _| {}).unwrap_err();
    assert!(refused.to_string().contains(&id.to_string()), "{refused}");
    let mut child = refused.into_inner();
    assert_eq!(child.wait().unwrap(), status);
    let refused = ChildExit::new(&cx, child, |_, _| {}).unwrap_err();
    assert_ne!(io::Error::from(refused).kind(), ErrorKind::AlreadyExists);
}

fn b5_a_process_that_ends_during_a_pause_is_called_for_after_it(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let (group, ended) = (cx.new_group(), log.clone());
    let child = sh("exit 4");
    let id = rustix::process::WaitId::Pid(Pid::from_child(&child));
    let on_exit = move |_: &Context, status| ended.borrow_mut().push(status);
    let _exit = ChildExit::new_in(&cx, group, child, on_exit).unwrap();
    let paused = cx.pause(group);
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(id, options).unwrap();
    assert!(!bench.check(&cx));
    assert!(log.borrow().is_empty());
    drop(paused);
    until(bench, &cx, &log, 1);
    assert_eq!(log.take().remove(0).unwrap().code(), Some(4));
}
