//! Each figure equals the count of the client.

use serde_json::json;

use super::{export, queue};
use crate::client::{Client, pattern};
use crate::control::Controlled;
use crate::raw::{DATA, Raw};

fn image() -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    image
}

#[test]
fn requests_are_counted_by_kind_on_every_engine() {
    let image = image();
    let path = format!("path={}", image.path().display());
    for (disk, engine) in [
        ("ram=1M", "auto"),
        (path.as_str(), "auto"),
        (path.as_str(), "threads"),
        (path.as_str(), "sync"),
        (path.as_str(), "uring"),
    ] {
        let controlled = Controlled::start_with(disk, &["--engine", engine]);
        let mut client = Client::simple(controlled.daemon.socket());
        for round in 0..7 {
            client.write(0, 4096 * round, &pattern(round, 4096)).unwrap();
        }
        for round in 0..5 {
            client.read(0, 4096 * round, 8192).unwrap();
        }
        for _ in 0..3 {
            client.flush(0).unwrap();
        }
        client.discard(0, 0, 65536).unwrap();
        client.write_zeroes(0, 65536, 4096, false).unwrap();
        client.read(0, 1 << 20, 512).unwrap_err();
        let figures = queue(&controlled);
        for (kind, requests, bytes, errors) in [
            ("write", 7, 7 * 4096, 0),
            ("read", 6, 5 * 8192, 1),
            ("flush", 3, 0, 0),
            ("discard", 1, 65536, 0),
            ("write-zeroes", 1, 4096, 0),
            ("other", 0, 0, 0),
        ] {
            let expected = json!({"requests": requests, "bytes": bytes, "errors": errors});
            assert_eq!(figures["kinds"][kind], expected, "{disk} on {engine}: {kind}");
        }
        let buckets = figures["latency"]["buckets"].as_array().unwrap();
        let timed: u64 = buckets.iter().map(|count| count.as_u64().unwrap()).sum();
        assert!(timed > 0 && figures["latency"]["sum_ns"].as_u64().unwrap() > 0);
        if engine == "threads" {
            assert_eq!(timed, 18, "each request that a thread executes is timed");
        }
    }
}

#[test]
fn kicks_and_calls_are_those_of_the_driver() {
    let controlled = Controlled::start("ram=1M");
    let mut raw = Raw::ready(controlled.daemon.socket());
    raw.put(DATA, &pattern(1, 512));
    for round in 0..40_u16 {
        raw.offer_request(1, 0, &[(DATA, 512)], 0);
        raw.wait_used(round + 1);
    }
    // After the reply to a request on another socket, all earlier kicks and calls are done.
    controlled.tell(&json!({"command": "list"}));
    let figures = queue(&controlled);
    assert_eq!(figures["kicks"], 40);
    assert_eq!(figures["calls"], raw.call.read().unwrap());
    assert_eq!(figures["poll_hits"], 0, "polling is off");
}

#[test]
fn polling_hits_are_counted() {
    // Polling is exclusive, because other tests run on the same cores.
    let args = ["--poll-max", "1s", "--policy", "always", "--poll-exclusive"];
    let controlled = Controlled::start_with("ram=1M", &args);
    let mut client = Client::simple(controlled.daemon.socket());
    for round in 0..50 {
        client.write(0, 0, &pattern(round, 512)).unwrap();
    }
    let figures = queue(&controlled);
    let hits = figures["poll_hits"].as_u64().unwrap();
    assert!((30..=50).contains(&hits), "{figures}");
    let stats = controlled.tell(&json!({"command": "stats"}));
    assert!(
        stats["loops"][crate::last_loop().0]["poll_hits"]
            .as_u64()
            .unwrap()
            >= hits
    );
}

#[test]
fn figures_outlive_the_client_and_queues_are_apart() {
    let controlled = Controlled::start("ram=1M");
    for round in 1..4_u64 {
        let mut client = Client::connect(
            controlled.daemon.socket(),
            3,
            crate::client::Indexes::With,
            crate::client::Waits::ForEvents,
        );
        client.write(2, 0, &pattern(round, 512)).unwrap();
        assert_eq!(export(&controlled)["connected"], true);
        drop(client);
        while export(&controlled)["connected"] == true {
            std::thread::yield_now();
        }
        let figures = export(&controlled);
        assert_eq!(figures["clients"], round);
        assert_eq!(figures["queues"][2]["queue"], 2);
        assert_eq!(figures["queues"][2]["kinds"]["write"]["requests"], round);
        assert_eq!(figures["queues"][0]["kinds"]["write"]["requests"], 0);
    }
}

#[test]
fn the_totals_are_a_table() {
    let controlled = Controlled::start("ram=1M");
    controlled.daemon.serves();
    let text = controlled.ctl_says(&["stats"]);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..4], ["EXPORT", "CLIENT", "REQUESTS", "READ"]);
    assert_eq!(rows[1][0], "first");
    assert_eq!(rows[1][2..6], ["2", "512B", "512B", "0"]);
}
