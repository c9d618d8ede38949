//! An arbitrary conversation with a whole daemon, on one or several loops. After it, the daemon must serve a
//! valid client.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use aio_context::Wait;
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::cli::Args;
use crate::disk::Source;
use crate::export::{Export, IoThreads};
use crate::server::Server;

const HEADER_LEN: usize = 12;
/// The message numbers of the protocol, and some beyond them.
const NUMBERS: u8 = 48;
const QUEUES: u16 = 4;
/// The possible numbers of loops. The first byte chooses one. The queues are distributed over all loops.
const LOOPS: [usize; 3] = [1, 2, 4];
/// The most iterations of a conversation. Every message takes one.
const MOST_ITERATIONS: usize = 10_000;

/// A daemon, and descriptors that a client can attach to its messages.
struct Scene {
    server: Server,
    socket: PathBuf,
    eventfds: [OwnedFd; 2],
    memory: File,
    null: File,
    /// A connected stream socket, and its other end.
    stream: (UnixStream, UnixStream),
}

impl Scene {
    fn new(loops: usize) -> Self {
        // Each thread of each process has a file of its own.
        let name = format!(
            "blockd-fuzz-{}-{:?}-{loops}.sock",
            std::process::id(),
            std::thread::current().id()
        );
        let socket = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        let export = Export {
            queues: QUEUES,
            iothreads: IoThreads::All,
            ..Export::new(Source::Ram(1 << 16), &socket)
        };
        let args = Args {
            policy: "never".to_owned(),
            backend: aio_context::BackendKind::Epoll,
            // Measuring the price would take threads and descriptors for a while.
            poll_wake_ns: Some(10_000),
            iothreads: loops,
            ..Args::for_exports(vec![export])
        };
        let eventfd = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        let memory: File = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC)
            .expect("a memfd")
            .into();
        Self {
            server: Server::new(&args).expect("a daemon"),
            socket,
            eventfds: [eventfd(), eventfd()],
            memory,
            null: File::open("/dev/null").expect("/dev/null"),
            stream: UnixStream::pair().expect("a pair of sockets"),
        }
    }

    fn turn(&self) {
        self.server.context().poll(Wait::NoBlock).expect("an iteration");
    }

    /// Runs an iteration that waits for other threads, too.
    fn turn_or_wait(&self) {
        let wait = Wait::AtMost(Duration::from_millis(1));
        self.server.context().poll(wait).expect("an iteration");
    }

    /// Sends the messages that `data` encodes, each as number, flags and descriptors, length of the body, and
    /// body.
    fn send(&self, client: &UnixStream, mut data: &[u8]) {
        while let [number, how, len, rest @ ..] = data {
            let len = if *len == 0xff { 4096 } else { usize::from(*len) };
            let (given, after) = rest.split_at(len.min(rest.len()));
            let mut message = vec![0; HEADER_LEN + len];
            message[..4].copy_from_slice(&u32::from(number % NUMBERS).to_ne_bytes());
            message[4] = 1 | (how & 0x80) >> 4;
            message[8..12].copy_from_slice(&(len as u32).to_ne_bytes());
            message[HEADER_LEN..HEADER_LEN + given.len()].copy_from_slice(given);
            let files = self.files(*how);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&files));
            }
            // A client may truncate its memory or fill its eventfds at any time.
            match how & 0x70 {
                0x10 => drop(self.memory.set_len(0)),
                0x20 => drop(rustix::io::write(&self.eventfds[0], &1u64.to_ne_bytes())),
                0x30 => drop(self.memory.set_len(0x1000)),
                _ => {}
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            if sendmsg(client, &[IoSlice::new(&message)], &mut ancillary, flags).is_err() {
                return;
            }
            self.turn();
            self.turn();
            data = after;
        }
    }

    fn files(&self, how: u8) -> Vec<BorrowedFd<'_>> {
        let (eventfd, other, memory) = (
            self.eventfds[0].as_fd(),
            self.eventfds[1].as_fd(),
            self.memory.as_fd(),
        );
        match how & 0x0f {
            1 => vec![eventfd],
            2 => vec![other],
            3 => vec![memory],
            4 => vec![memory, memory],
            5 => vec![self.null.as_fd()],
            6 => vec![memory, eventfd],
            7 => vec![memory; 8],
            8 => vec![self.stream.0.as_fd()],
            _ => vec![],
        }
    }

    /// Ends the conversation, and returns once the daemon has ended it as well.
    fn finish(&self, mut client: UnixStream) {
        let shut = client.shutdown(std::net::Shutdown::Write);
        drop(shut);
        for _ in 0..MOST_ITERATIONS {
            self.turn_or_wait();
            loop {
                match client.read(&mut [0; 4096]) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => return,
                }
            }
        }
        panic!("the daemon keeps a client that has disconnected");
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(&self.socket).expect("a connection");
        client.set_nonblocking(true).expect("a socket");
        client
    }

    /// Checks that the next client gets an answer to GET_FEATURES.
    fn serves(&self) {
        let mut client = self.connect();
        let mut question = [0; HEADER_LEN];
        question[0] = 1;
        question[4] = 1;
        client.write_all(&question).expect("room for twelve bytes");
        let mut answer = [0; HEADER_LEN + 8];
        let answered = (0..MOST_ITERATIONS).any(|_| {
            self.turn_or_wait();
            client.read(&mut answer).is_ok_and(|count| count == answer.len())
        });
        assert!(answered, "the next client is not served");
        self.finish(client);
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Returns `true` if no other test of this process opens and closes descriptors.
fn is_alone() -> bool {
    let is_process_for_test =
        std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test");
    cfg!(not(test)) || is_process_for_test
}

thread_local! {
    /// One scene for each of [`LOOPS`].
    static SCENES: [OnceCell<Scene>; LOOPS.len()] = const { [const { OnceCell::new() }; LOOPS.len()] };
}

/// Sends messages to a daemon whose first loop is that of this thread. The first byte of `data` chooses the
/// number of loops. The other bytes encode the messages.
///
/// # Panics
/// If the daemon does not end the conversation after the client has ended it, if it does not serve the next
/// client, or if it is alone in its process and keeps a descriptor.
pub fn vhost_user(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let choice = usize::from(*first) % LOOPS.len();
    SCENES.with(|scenes| {
        let scene = scenes[choice].get_or_init(|| Scene::new(LOOPS[choice]));
        let before = is_alone().then(descriptors);
        scene.memory.set_len(1 << 16).expect("a memfd can grow");
        let client = scene.connect();
        scene.send(&client, data);
        scene.finish(client);
        scene.serves();
        scene.turn();
        if let Some(before) = before {
            // Other loops close their descriptors after they have replied.
            let is_closed = || descriptors() == before;
            let is_settled = (0..MOST_ITERATIONS).any(|_| {
                is_closed() || {
                    scene.turn_or_wait();
                    false
                }
            });
            assert!(is_settled, "{before} descriptors become {}", descriptors());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Reply;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Returns the number of queues that the second loop serves.
    fn serving(scene: &Scene) -> u16 {
        let gathered = Rc::new(RefCell::new(None));
        let sink = gathered.clone();
        let count = |_: &aio_context::Context, local: &crate::loops::Local| -> u16 {
            local.activities().iter().map(|activity| activity.serving).sum()
        };
        let loops = scene.server.exports().loops();
        loops.gather(scene.server.context(), count, move |_, all| {
            drop(sink.replace(Some(all)));
        });
        loop {
            if let Some(all) = gathered.take() {
                return all[1].expect("the loop responds");
            }
            scene.turn_or_wait();
        }
    }

    /// With the seed of in-flight tracking, two queues serve and use their regions, and no others.
    #[test]
    fn c6_the_seed_of_in_flight_tracking_begins_to_use_regions() {
        let scene = Scene::new(1);
        scene.memory.set_len(1 << 16).expect("a memfd can grow");
        let client = scene.connect();
        let seed = include_bytes!("../../../../fuzz/seeds/vhost_user/in_flight");
        scene.send(&client, &seed[1..]);
        scene.finish(client);
        let versions = [0, 1, 2, 3].map(|queue| {
            let mut version = [0; 2];
            let at = 0x8000 + 320 * queue + 8;
            std::os::unix::fs::FileExt::read_exact_at(&scene.memory, &mut version, at).expect("64 KiB");
            u16::from_ne_bytes(version)
        });
        assert_eq!(versions, [1, 1, 0, 0]);
    }

    /// If a thread panics before it has stopped its queue, the daemon does not wait for it.
    #[test]
    fn a_panic_of_a_loop_that_is_to_stop_a_queue_ends_the_daemon() {
        // Four queues start, then each stops. Each message has three bytes and a body of eight.
        let seed = include_bytes!("../../../../fuzz/seeds/vhost_user/running_on_two_loops");
        let (start, stop) = seed[1..].split_at(seed.len() - 1 - 4 * 11);
        let scene = Scene::new(2);
        scene.memory.set_len(1 << 16).expect("a memfd can grow");
        let mut client = scene.connect();
        scene.send(&client, start);
        let most = (0..MOST_ITERATIONS / 10)
            .map(|_| serving(&scene))
            .find(|count| *count == 2);
        assert_eq!(most, Some(2), "{}", serving(&scene));
        scene.server.exports().loops().call(
            scene.server.context(),
            1,
            |_, _, _: Reply<()>| panic!("planted"),
            Box::new(|_, _| ()),
        );
        scene.send(&client, stop);
        let error = scene.server.run().expect_err("a loop has ended").to_string();
        assert!(
            error.contains("io1 has ended") && error.contains("planted"),
            "{error}"
        );
        scene.server.finish().expect("the other loop goes on");
        drop(scene);
        client.set_nonblocking(false).expect("a socket");
        let mut answers = Vec::new();
        // The connection ends, with or without unread messages.
        client.read_to_end(&mut answers).map(drop).unwrap_or_default();
    }
}
