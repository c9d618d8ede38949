//! Tests of the daemon with a real driver, with clients that break the rules, and as a process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod c06_in_flight;
mod c06_outstanding;
mod c07_sockets;
mod c20_log;
mod c21_remedies;
mod c23_memory_slots;
mod c24_clients;
mod c26_migration;
mod c27_states;
mod c30_signals;
mod c34_operation;
mod churn;
mod client;
mod control;
mod daemon;
mod engines;
mod images;
mod iothreads;
mod killed;
mod kills;
mod malformed;
mod many;
mod memory;
mod messages;
mod metrics;
mod nbd;
mod process;
mod protocol;
mod raw;
mod reconnect;
mod server;
mod serving;
mod transitions;

/// Returns the engine of daemons whose test names none. [`engines`] runs the tests of images again with
/// others.
fn engine() -> String {
    std::env::var(engines::VARIABLE).unwrap_or_else(|_| "auto".to_owned())
}

/// Returns the number of I/O threads of daemons. [`iothreads`] runs tests again with several.
fn iothreads() -> usize {
    match (several_threads(), std::env::var(iothreads::VARIABLE)) {
        (Some(threads), _) => threads.len(),
        (None, Ok(count)) => count.parse().unwrap(),
        (None, Err(_)) => 1,
    }
}

/// Returns the I/O threads of an export, if it has several: with `1+0` the session is on the second thread,
/// and the first queue on the first.
fn several_threads() -> Option<Vec<usize>> {
    let value = std::env::var(iothreads::VARIABLE).ok()?;
    let threads = value.split('+').map(|thread| thread.parse().unwrap());
    value.contains('+').then(|| threads.collect())
}

/// Returns the key that assigns an export to the last I/O thread, if there are several, or to several
/// threads.
fn last_thread() -> String {
    match (several_threads(), iothreads()) {
        (Some(_), _) => format!(",iothread={}", std::env::var(iothreads::VARIABLE).unwrap()),
        (None, 1) => String::new(),
        (None, count) => format!(",iothread={}", count - 1),
    }
}

/// Returns the index and the name of the loop of that thread.
fn last_loop() -> (usize, String) {
    match iothreads() {
        1 => (0, "main".to_owned()),
        count => (count - 1, format!("io{}", count - 1)),
    }
}

/// Returns a random generator and prints its seed. `AIO_SEED` repeats a run.
fn seed() -> fastrand::Rng {
    let seed = std::env::var("AIO_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
