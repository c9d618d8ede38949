//! Tests of the whole program.

use std::process::Command;

use aio_tools::build;

#[test]
fn an_unoptimized_build_refuses_to_report() {
    if build::is_optimized() {
        println!("skipped: this build is optimized");
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_aio-policies"))
        .arg("--waits=1000")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run `cargo xtask policies`"), "{said}");
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
