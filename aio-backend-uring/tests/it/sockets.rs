//! Sockets whose wake-ups report more than the requested readiness.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, Readiness};
use rustix::net::{SendFlags, Shutdown};

use crate::kit::{A, OUT, backends, check, wait};

fn connection() -> (Rc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (Rc::new(near), far)
}

/// A wake-up of a socket for data also claims priority data.
#[test]
fn r13_data_is_no_priority_and_urgent_data_wakes_a_wait() {
    let once = Interest::PRIORITY | Interest::ONESHOT;
    for interest in [Interest::PRIORITY, Interest::PRIORITY | Interest::EDGE, once] {
        for mut backend in backends() {
            let (near, mut far) = connection();
            backend.add(near.into(), A, interest).unwrap();
            assert_eq!(check(&mut backend), []);
            for _ in 0..3 {
                far.write_all(b"data").unwrap();
                let (start, before) = (Instant::now(), backend.enters());
                let timeout = Duration::from_millis(20);
                assert_eq!(wait(&mut backend, timeout, 64), [], "{interest:?}");
                assert!(start.elapsed() >= timeout);
                assert!(backend.enters() < before + 12, "it spins: {backend:?}");
            }
            let urge = std::thread::spawn(move || {
                std::thread::yield_now();
                rustix::net::send(&far, b"!", SendFlags::OOB).unwrap();
                far
            });
            let found = wait(&mut backend, Duration::from_secs(60), 64);
            assert_eq!(found, [(A, Readiness::PRI)], "{interest:?}");
            urge.join().unwrap();
        }
    }
}

/// The kernel completes any poll request on a socket whose peer has closed its half, even a request for room
/// alone.
#[test]
fn r13_a_half_close_does_not_make_a_writer_spin() {
    let once = Interest::WRITE | Interest::ONESHOT;
    for interest in [Interest::WRITE, Interest::WRITE | Interest::EDGE, once] {
        for mut backend in backends() {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            rustix::net::shutdown(&far, Shutdown::Write).unwrap();
            let near: Rc<OwnedFd> = Rc::new(near.into());
            let fill = || while rustix::io::write(&*near, &[0; 65_536]).is_ok() {};
            let empty = || while rustix::io::read(&far, &mut [0; 65_536]).is_ok() {};
            fill();
            backend.add(near.clone().into(), A, interest).unwrap();
            for _ in 0..3 {
                let (start, before) = (Instant::now(), backend.enters());
                let timeout = Duration::from_millis(20);
                assert_eq!(wait(&mut backend, timeout, 64), [], "{interest:?}");
                assert!(start.elapsed() >= timeout);
                assert!(backend.enters() < before + 12, "it spins: {backend:?}");
                empty();
                assert_eq!(check(&mut backend), [(A, OUT)], "{interest:?}");
                let again: &[_] = if interest == Interest::WRITE {
                    &[(A, OUT)]
                } else {
                    &[]
                };
                assert_eq!(check(&mut backend), again, "{interest:?}");
                fill();
                assert_eq!(check(&mut backend), []);
                backend.modify(A, interest).unwrap();
            }
        }
    }
}
