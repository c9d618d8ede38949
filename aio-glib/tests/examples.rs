//! The example ends by itself and prints the expected line, on every backend.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Command;

use aio_context::BackendKind;

#[test]
fn g3_echo_in_a_main_loop() {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples/echo");
    // `cargo test` has built it; `cargo test --test examples` has not.
    if !example.exists() {
        let mut build = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.args(["build", "--quiet", "--locked", "--examples", "--target-dir"]);
        assert!(build.arg(profile.parent().unwrap()).status().unwrap().success());
    }
    for kind in BackendKind::ALL {
        let mut echo = Command::new(&example);
        let ended = echo.env("AIO_BACKEND", kind.name()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let expected = "echoed 5000 bytes for 1000 clients in GLib's main loop\n";
        assert!(ended.status.success() && said == expected, "{kind}: {ended:?}");
    }
}

#[test]
fn g3_an_example_has_less_than_100_lines() {
    aio_testing::examples::are_short(env!("CARGO_MANIFEST_DIR"));
}
