//! A random walk: a few hundred changes, and after each of them a look that an [`Oracle`] judges.

use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::Oracle;
use super::fixtures::{need, wait_at_most};
use crate::{Backend, Interest, Token};

const STEPS: u32 = 600;
const MOST: usize = 12;

/// A registered socket, and its far end while there is one.
struct Peer {
    token: Token,
    near: Rc<UnixStream>,
    far: Option<UnixStream>,
}

/// Takes random steps: register, change, forget, write, read, close the far end, restructure; and judges every look.
///
/// The seed is printed; the variable `AIO_SEED` sets it.
///
/// # Panics
/// If an answer of the backend cannot be true.
pub fn walk(backend: &mut dyn Backend) {
    let asked = std::env::var("AIO_SEED").ok().and_then(|text| text.parse().ok());
    let seed = asked.unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World {
        backend,
        oracle: Oracle::new(),
        peers: Vec::new(),
        generations: vec![0; MOST],
    };
    for _ in 0..STEPS {
        world.step(&mut random);
        let answer = wait_at_most(world.backend, Some(std::time::Duration::ZERO), 2 * MOST);
        world.oracle.judge(&answer);
    }
}

struct World<'a> {
    backend: &'a mut dyn Backend,
    oracle: Oracle,
    peers: Vec<Peer>,
    generations: Vec<u32>,
}

impl World<'_> {
    fn step(&mut self, random: &mut fastrand::Rng) {
        let at = if self.peers.is_empty() {
            0
        } else {
            random.usize(..self.peers.len())
        };
        match random.u8(..10) {
            0..3 if self.peers.len() < MOST => self.register(random),
            3 if !self.peers.is_empty() => self.forget(at),
            4 | 5 if !self.peers.is_empty() => self.change(at, random),
            6 | 7 if !self.peers.is_empty() => self.write(at),
            8 if !self.peers.is_empty() => self.read_or_close(at, random),
            _ => self.backend.rebalance(),
        }
    }

    fn register(&mut self, random: &mut fastrand::Rng) {
        let free = |index: &u32| !self.peers.iter().any(|peer| peer.token.index() == *index);
        let Some(index) = (0..MOST as u32).find(free) else {
            return;
        };
        let token = Token::new(index, self.generations[index as usize]);
        let (near, far) = need(UnixStream::pair(), "a pair of sockets");
        need(near.set_nonblocking(true), "a socket that does not block");
        need(far.set_nonblocking(true), "a socket that does not block");
        let (near, interest) = (Rc::new(near), any_interest(random));
        need(self.backend.add(near.clone().into(), token, interest), "to add");
        self.oracle.add(&*near, token, interest);
        self.peers.push(Peer {
            token,
            near,
            far: Some(far),
        });
    }

    fn forget(&mut self, at: usize) {
        let peer = self.peers.swap_remove(at);
        self.generations[peer.token.index() as usize] += 1;
        need(self.backend.remove(peer.token), "to remove");
        self.oracle.remove(peer.token);
        let last = Rc::into_inner(peer.near);
        assert!(
            last.is_some(),
            "{:?} was removed, and the backend still holds a share",
            peer.token
        );
    }

    fn change(&mut self, at: usize, random: &mut fastrand::Rng) {
        let (token, interest) = (self.peers[at].token, any_interest(random));
        need(self.backend.modify(token, interest), "to modify");
        self.oracle.modify(token, interest);
    }

    fn write(&mut self, at: usize) {
        if let Some(far) = &self.peers[at].far {
            // Perhaps it is full.
            let _ = rustix::io::write(far, b"x");
        }
    }

    fn read_or_close(&mut self, at: usize, random: &mut fastrand::Rng) {
        let peer = &mut self.peers[at];
        if random.u8(..4) == 0 {
            peer.far = None;
        } else {
            let _ = rustix::io::read(&*peer.near, &mut [0; 64]);
        }
    }
}

fn any_interest(random: &mut fastrand::Rng) -> Interest {
    let all = [
        Interest::NONE,
        Interest::READ,
        Interest::WRITE,
        Interest::READ | Interest::WRITE,
    ];
    all[random.usize(..all.len())]
}
