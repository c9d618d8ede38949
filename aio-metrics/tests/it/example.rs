//! The example serves pages over HTTP, and ends with its standard input.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use aio_testing::examples::folder;

use crate::page::Page;

fn get(address: &str, path: &str) -> (String, String) {
    let mut client = TcpStream::connect(address).unwrap();
    // In two parts, because a request need not arrive at once.
    write!(client, "GET {path} HTTP/1.1\r\nHost: loopback\r\n").unwrap();
    client.flush().unwrap();
    write!(client, "\r\n").unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let length = format!("Content-Length: {}", body.len());
    assert!(head.contains(&length), "{head}");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn example_metrics() {
    let folder = folder(env!("CARGO_PKG_NAME"), &["metrics"]);
    let mut running = Command::new(folder.join("metrics"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/metrics")
        .unwrap();

    assert_eq!(get(address, "/").0, "HTTP/1.1 404 Not Found");
    let mut iterations = 0.0;
    for _ in 0..3 {
        let (status, body) = get(address, "/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        let page = Page::parse(&body);
        let now = page.value("aio_iterations_total{context=\"main\"}");
        assert!(now > iterations);
        iterations = now;
        assert!(page.value("aio_handler_events_total{context=\"main\",handler=\"clients\"}") >= 1.0);
    }
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
}
