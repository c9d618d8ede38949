//! The examples end by themselves and print what they should.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// An example. `cargo test` builds them beside this test; when it was asked for this test alone, they are built now.
fn example(name: &str) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let folder = profile.join("examples");
        if !["async_echo", "async_http"]
            .iter()
            .all(|name| folder.join(name).exists())
        {
            let mut build = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
            build.args([
                "build",
                "--quiet",
                "--package",
                env!("CARGO_PKG_NAME"),
                "--examples",
            ]);
            build.arg("--target-dir").arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "the examples cannot be built");
        }
        folder
    });
    Command::new(folder.join(name))
}

fn prints(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
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
