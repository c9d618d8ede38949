//! The size of the real job: a hundred disks with 32 queues each on one context.

use std::time::Duration;

use blockd::Source;

use crate::client::{Client, Indexes, Waits, pattern};
use crate::server::Wanted;

const EXPORTS: usize = 100;
const QUEUES: usize = 32;

/// 3,200 queues, with and without polling. This is one test, because each half takes two thirds of the
/// descriptors that a process may have.
#[test]
fn a_hundred_exports_of_32_queues() {
    for poll_max in [Duration::ZERO, Duration::from_micros(100)] {
        let mut wanted = Wanted::new().polling(poll_max);
        for _ in 0..EXPORTS {
            wanted = wanted.export(Source::Ram(1 << 20), QUEUES as u16);
        }
        let server = wanted.start();
        let connect =
            |export| Client::connect(&server.socket(export), QUEUES, Indexes::With, Waits::ForEvents);
        let mut clients: Vec<Client> = (0..EXPORTS).map(connect).collect();
        for (export, client) in clients.iter_mut().enumerate() {
            for queue in 0..QUEUES {
                let seed = (export * QUEUES + queue) as u64;
                client
                    .write(queue, queue as u64 * 512, &pattern(seed, 512))
                    .unwrap();
            }
        }
        for (export, client) in clients.iter_mut().enumerate() {
            for queue in 0..QUEUES {
                let other = QUEUES - 1 - queue;
                let seed = (export * QUEUES + other) as u64;
                assert_eq!(
                    client.read(queue, other as u64 * 512, 512).unwrap(),
                    pattern(seed, 512)
                );
            }
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let (export, queue) = (random.usize(..EXPORTS), random.usize(..QUEUES));
            let seen = clients[export].read(queue, 0, 512).unwrap();
            assert_eq!(seen, pattern((export * QUEUES) as u64, 512));
        }
    }
}
