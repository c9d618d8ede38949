//! The examples end by themselves and print the expected lines.

use std::process::Command;

use aio_testing::examples::{folder, prints};

fn example(name: &str) -> Command {
    let folder = folder(env!("CARGO_PKG_NAME"), &["async_echo", "async_http", "tasks"]);
    Command::new(folder.join(name))
}

#[test]
fn example_async_echo_serves_a_thousand_clients() {
    assert_eq!(
        prints(&mut example("async_echo")),
        "3000 answers for 1000 clients\n"
    );
}

#[test]
fn example_async_http_serves_requests() {
    assert_eq!(
        prints(&mut example("async_http")),
        "HTTP/1.1 200 OK: GET /\nHTTP/1.1 200 OK: GET /index.html\n"
    );
}

#[test]
fn example_tasks() {
    assert_eq!(
        prints(&mut example("tasks")),
        "the answer is ping\nan hour did not pass: true\n"
    );
}

#[test]
fn an_example_has_less_than_100_lines() {
    aio_testing::examples::are_short(env!("CARGO_MANIFEST_DIR"));
}
