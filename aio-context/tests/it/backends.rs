//! Rule B6: a custom backend, which needs only the contract.

use std::io;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use aio_context::{
    Backend, BackendKind, ClockId, Context, Interest, Readiness, ReadyList, Token, Wait, Watched,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::common::{Count, Kick, watch};

/// A minimal backend: every wait passes all registrations to the system.
#[derive(Debug, Default)]
struct Plain(Vec<(Watched, Token, Interest)>);

impl Plain {
    fn position(&self, token: Token) -> io::Result<usize> {
        self.0
            .iter()
            .position(|(_, known, _)| *known == token)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Backend for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.0.push((fd, token, interest));
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let position = self.position(token)?;
        self.0[position].2 = interest;
        Ok(())
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let position = self.position(token)?;
        self.0.remove(position);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let heard: Vec<_> = self
            .0
            .iter()
            .filter(|(_, _, interest)| !interest.is_empty())
            .collect();
        let mut fds: Vec<_> = heard
            .iter()
            .map(|(fd, _, interest)| {
                let mut events = PollFlags::empty();
                events.set(PollFlags::IN, interest.contains(Interest::READ));
                events.set(PollFlags::OUT, interest.contains(Interest::WRITE));
                PollFd::from_borrowed_fd(fd.as_fd(), events)
            })
            .collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for (fd, (_, token, _)) in fds.iter().zip(heard) {
            let mut readiness = Readiness::empty();
            readiness.set(Readiness::IN, fd.revents().contains(PollFlags::IN));
            readiness.set(Readiness::OUT, fd.revents().contains(PollFlags::OUT));
            readiness.set(Readiness::HUP, fd.revents().contains(PollFlags::HUP));
            readiness.set(Readiness::ERR, fd.revents().contains(PollFlags::ERR));
            if !readiness.is_empty() {
                ready.push(*token, readiness);
            }
        }
        Ok(())
    }

    fn watched(&self) -> usize {
        self.0.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (fd, token, interest) in &self.0 {
            each(fd, *token, *interest);
        }
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        for (fd, token, interest) in std::mem::take(&mut self.0) {
            each(fd, token, interest);
        }
    }
}

pub(crate) fn plain() -> Box<dyn Backend> {
    Box::new(Plain::default())
}

#[test]
fn b6_a_backend_of_ones_own_serves_a_context() {
    let cx = Context::builder()
        .backend(Box::new(Plain::default()))
        .build()
        .unwrap();
    assert_eq!(cx.backend_name(), "plain");
    let kicks: Vec<_> = (0..20).map(|_| Kick::new()).collect();
    let group = cx.new_group();
    let mut registrations: Vec<_> = kicks
        .iter()
        .map(|kick| cx.watch_in(group, kick.clone(), Interest::READ).unwrap())
        .collect();
    let removed = kicks.len() / 2;
    registrations.truncate(removed);
    let pause = cx.pause(group);
    kicks.iter().for_each(|kick| kick.kick());
    assert!(!cx.poll(Wait::NoBlock).unwrap());
    drop(pause);
    assert!(cx.poll(Wait::Block).unwrap());
    let served = |kick: &std::rc::Rc<Kick>| kick.count.get() == 1;
    assert!(kicks[..removed].iter().all(served) && !kicks[removed..].iter().any(served));
}

#[test]
fn b6_a_backend_of_ones_own_is_woken_and_keeps_deadlines() {
    let cx = Context::builder()
        .backend(Box::new(Plain::default()))
        .build()
        .unwrap();
    let (kick, shots) = (Kick::new(), Count::default());
    let _registration = watch(&cx, &kick);
    let remote = cx.remote();
    let thread = std::thread::spawn(move || remote.run(|_| ()));
    assert!(cx.poll(Wait::Block).unwrap());
    thread.join().unwrap().unwrap();
    let counted = shots.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    timer.arm_after(Duration::from_micros(300));
    while shots.get() == 0 {
        cx.poll(Wait::Block).unwrap();
    }
    assert_eq!(kick.count.get(), 0);
}

/// Returns the output of a child about the backend that it was started with.
fn backend_of_a_child(variable: Option<&str>) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "backends::b1_child_prints_its_backend", "--nocapture"]);
    match variable {
        Some(name) => child.env("AIO_BACKEND", name).env("AIO_IS_CHILD", "1"),
        None => child.env_remove("AIO_BACKEND").env("AIO_IS_CHILD", "1"),
    };
    String::from_utf8(child.output().unwrap().stdout).unwrap()
}

/// Runs only in a child of the next test.
#[test]
fn b1_child_prints_its_backend() {
    if std::env::var_os("AIO_IS_CHILD").is_none() {
        return;
    }
    match Context::new() {
        Ok(cx) => println!("backend: {}", cx.backend_name()),
        Err(why) => println!("error: {why}"),
    }
    let named = Context::builder().backend_kind(BackendKind::Epoll).build();
    println!("named: {}", named.unwrap().backend_name());
}

#[test]
fn b1_the_environment_names_the_backend_unless_the_builder_does() {
    for (variable, expected) in [
        (None, "backend: ppoll"),
        (Some("auto"), "backend: ppoll"),
        (Some("ppoll"), "backend: ppoll"),
        (Some("epoll"), "backend: epoll"),
        (
            Some("uring"),
            match aio_backend_uring::Uring::new() {
                _ if cfg!(not(feature = "uring")) => "build aio-context with its feature `uring`",
                Ok(_) => "backend: uring",
                Err(_) => "backend: ppoll",
            },
        ),
        (
            Some("kqueue"),
            r#"error: AIO_BACKEND in the environment: there is no backend "kqueue"; there are auto, ppoll, epoll"#,
        ),
    ] {
        let said = backend_of_a_child(variable);
        assert!(
            said.contains(expected) && said.contains("named: epoll"),
            "{variable:?}: {said}"
        );
    }
}

#[test]
fn b1_names_are_parsed_as_they_are_shown() {
    for kind in BackendKind::ALL {
        assert_eq!(kind.to_string().parse::<BackendKind>().unwrap(), kind);
    }
    if cfg!(not(feature = "uring")) {
        let why = "uring".parse::<BackendKind>().unwrap_err().to_string();
        assert!(why.contains("feature `uring`"), "{why}");
    }
    let why = "kqueue".parse::<BackendKind>().unwrap_err().to_string();
    let uring = if cfg!(feature = "uring") { ", uring" } else { "" };
    let known = format!(r#"there is no backend "kqueue"; there are auto, ppoll, epoll{uring}"#);
    assert_eq!(why, known);
}
