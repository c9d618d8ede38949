//! The page for Prometheus.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use super::queue;
use crate::client::{Client, pattern};
use crate::control::Controlled;
use crate::process::complaint;

fn start() -> (Controlled, SocketAddr) {
    let controlled = Controlled::start_with("ram=1M", &["--metrics", "0"]);
    let list = controlled.tell(&json!({"command": "list"}));
    let address: SocketAddr = list["metrics"].as_str().unwrap().parse().unwrap();
    assert!(address.ip().is_loopback(), "{address}");
    (controlled, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
}

/// Sends a request. Returns the head and the body of the reply.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut client = connect(address);
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Checks the format of a page, and returns its samples by name and labels.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let (head, body) = ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(
        head.contains(&format!("Content-Length: {}", body.len())),
        "{head}"
    );
    let mut samples = BTreeMap::new();
    let mut described = Vec::new();
    for line in body.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            described.push(about.split(' ').next().unwrap().to_owned());
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let known = described.iter().any(|family| name.starts_with(family.as_str()));
            assert!(known, "{name} is not described");
            let twice = samples.insert(name.to_owned(), value.parse().unwrap());
            assert!(twice.is_none(), "{name} occurs twice");
        }
    }
    samples
}

#[test]
fn the_page_has_the_figures_of_exports_and_of_the_loop() {
    let (controlled, address) = start();
    let mut client = Client::simple(controlled.daemon.socket());
    for round in 0..9 {
        client.write(0, 0, &pattern(round, 4096)).unwrap();
    }
    client.read(0, 1 << 20, 512).unwrap_err();
    let samples = scrape(address);
    let of = |name: &str, more: &str| samples[&format!("{name}{{export=\"first\"{more}}}")];
    let writes = ",queue=\"0\",kind=\"write\"";
    assert_eq!(of("blockd_requests_total", writes), 9.0);
    assert_eq!(of("blockd_request_bytes_total", writes), 9.0 * 4096.0);
    let reads = ",queue=\"0\",kind=\"read\"";
    assert_eq!(of("blockd_request_errors_total", reads), 1.0);
    assert_eq!(of("blockd_clients_total", ""), 1.0);
    assert_eq!(of("blockd_connected", ""), 1.0);
    assert_eq!(of("blockd_disk_bytes", ""), 1_048_576.0);
    let figures = queue(&controlled);
    for name in ["kicks", "calls", "poll_hits"] {
        let figure = figures[name].as_u64().unwrap() as f64;
        assert_eq!(of(&format!("blockd_{name}_total"), ",queue=\"0\""), figure);
    }
    let count = of("blockd_request_duration_seconds_count", ",queue=\"0\"");
    assert!(count >= 16.0);
    assert!(of("blockd_request_duration_seconds_sum", ",queue=\"0\"") > 0.0);
    let bucket = |limit: &str| {
        of(
            "blockd_request_duration_seconds_bucket",
            &format!(",queue=\"0\",le=\"{limit}\""),
        )
    };
    assert_eq!(bucket("+Inf"), count);
    assert!(bucket("8.388608") <= count && bucket("1e-06") <= bucket("8.388608"));
    assert!(samples["aio_iterations_total{context=\"main\"}"] > 0.0);
}

#[test]
fn other_requests_are_refused() {
    let (_controlled, address) = start();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("\r\n\r\n", "400"),
        ("GET /metrics HTTP/1.1 \r\n\r\n", "400"),
    ] {
        let (head, _) = ask(address, request);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {head}"
        );
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    let mut client = connect(address);
    // The daemon may refuse the request before all bytes are sent.
    let _ = client.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let (head, body) = ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK") && !head.contains("Content-Length: 0\r\n"));
    assert_eq!(body, "");
}

/// Clients that send half a request, random bytes or nothing, that disconnect early, or that do not read.
#[test]
fn bad_clients_harm_none() {
    let (controlled, address) = start();
    let before = controlled.daemon.settled();
    let mut random = crate::seed();
    let mut silent = Vec::new();
    for round in 0..60 {
        let mut client = connect(address);
        let garbage: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100).collect();
        let bytes: &[u8] = match round % 4 {
            0 => b"GET /met",
            1 => b"",
            2 => b"GET /metrics HTTP/1.1\r\n\r\n",
            _ => &garbage,
        };
        client.write_all(bytes).unwrap();
        if round % 3 == 0 {
            client.shutdown(Shutdown::Both).unwrap();
        } else {
            silent.push(client);
        }
        controlled.daemon.serves();
    }
    scrape(address);
    drop(silent);
    controlled.daemon.holds_the_same_as(before);
}

#[test]
fn an_address_that_cannot_be_is_explained() {
    let (_controlled, address) = start();
    let directory = tempfile::tempdir().unwrap();
    let export = format!("ram=1M,socket={}", directory.path().join("a").display());
    let error = complaint(&["--export", &export, "--metrics", &address.to_string()]);
    assert!(error.contains("name another address or port"), "{error}");
    let error = complaint(&["--export", &export, "--metrics", "localhost"]);
    assert!(error.contains("such as 9187"), "{error}");
}
