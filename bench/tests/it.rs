//! Tests of the whole program.

use std::process::{Command, Output};

use aio_tools::build;

fn bench(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_aio-bench")).args(args).output();
    output.unwrap_or_else(|why| panic!("cannot start aio-bench: {why}"))
}

#[test]
fn an_unoptimized_build_refuses_to_report() {
    if build::is_optimized() {
        println!("skipped: this build is optimized");
        return;
    }
    let output = bench(&["--quick", "--only", "P8"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run `cargo xtask bench`"), "{said}");
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn work_that_is_counted_needs_no_optimization_and_reports_no_figure() {
    let one = [
        "--count",
        "10",
        "--only",
        "P8",
        "--workload",
        "empty",
        "--size",
        "1",
    ];
    for name in ["aio", "floor"] {
        let output = bench(&[&one[..], &["--impl", name]].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stdout.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
fn an_unknown_benchmark_is_named_with_the_known_ones() {
    let output = bench(&["--only", "P99"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("P99") && said.contains("P3, P4"), "{said}");
}
