//! Requests at random moments of the transitions between polling and sleeping, at which such servers can
//! stall.
//!
//! A request may arrive while the daemon polls, while it goes to sleep, while it sleeps or while it wakes up.
//! A request that takes longer than two seconds was missed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use blockd::Source;

use crate::client::{Client, Indexes, Waits, pattern};
use crate::seed;
use crate::server::Wanted;

const POLL_MAX: Duration = Duration::from_micros(20);
const SECTORS: u64 = 64;

fn requests() -> u64 {
    let asked = std::env::var("BLOCKD_TRANSITIONS")
        .ok()
        .and_then(|text| text.parse().ok());
    asked.unwrap_or(20_000)
}

/// Lets some time pass. It is mostly about as long as the daemon polls, so that a request arrives during the
/// transition to sleep.
fn think(random: &mut fastrand::Rng) {
    let polled = POLL_MAX.as_nanos() as u64;
    let nanos = match random.u8(..16) {
        0..3 => 0,
        3..7 => random.u64(..polled / 2),
        7..14 => random.u64(polled / 2..polled * 5 / 2),
        14 => random.u64(..polled * 20),
        _ => {
            std::thread::yield_now();
            0
        }
    };
    let until = Instant::now() + Duration::from_nanos(nanos);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// A lock for one test at a time: client and daemon need a core each. Otherwise the daemon hardly ever polls
/// when a request arrives.
static ALONE: Mutex<()> = Mutex::new(());

fn stress(indexes: Indexes, waits: Waits) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut random, requests) = (seed(), requests());
    println!("{requests} requests, {indexes:?} event indexes, {waits:?}");
    let contents = random.u64(..);
    let server = Wanted::new()
        .export(Source::Ram(SECTORS * 512), 2)
        .polling(POLL_MAX)
        .policy("always")
        .start();
    let mut client = Client::connect(&server.socket(0), 2, indexes, waits);
    let texts: Vec<Vec<u8>> = (0..SECTORS)
        .map(|sector| pattern(contents ^ sector, 512))
        .collect();
    for (sector, text) in texts.iter().enumerate() {
        client.write(0, sector as u64 * 512, text).unwrap();
    }
    let mut asleep = 0;
    for _ in 0..requests {
        think(&mut random);
        let (queue, sector) = (random.usize(..2), random.u64(..SECTORS));
        asleep += u64::from(client.start_read(queue, 0, sector * 512, 512));
        assert_eq!(client.next_done(queue), (0, 0));
        assert_eq!(client.contents(0, 512), texts[sector as usize], "sector {sector}");
    }
    println!("{asleep} requests needed a kick, {} did not", requests - asleep);
    assert!(asleep > 0, "it never slept: nothing was tested");
    assert!(asleep < requests, "it never polled: nothing was tested");
}

#[test]
fn a5_with_event_indexes_and_a_spinning_client() {
    stress(Indexes::With, Waits::Spinning);
}

#[test]
fn a5_with_event_indexes_and_an_eventfd_client() {
    stress(Indexes::With, Waits::ForEvents);
}

#[test]
fn a5_without_event_indexes_and_a_spinning_client() {
    stress(Indexes::Without, Waits::Spinning);
}

#[test]
fn a5_without_event_indexes_and_an_eventfd_client() {
    stress(Indexes::Without, Waits::ForEvents);
}
