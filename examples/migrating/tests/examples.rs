//! Both programs of a pair do the same.

use std::process::Command;

use aio_testing::examples::{are_short, folder, prints};

/// The pairs, and what both programs print.
const PAIRS: [(&str, &str); 3] = [
    ("mio", "echoed 4 bytes, then stopped\n"),
    ("calloop", "echoed 4 bytes, then stopped\n"),
    ("event_manager", "echoed 4 bytes, then stopped\n"),
];

fn run(name: &str) -> String {
    let theirs = PAIRS.iter().map(|(pair, _)| format!("{pair}_theirs"));
    let ours = PAIRS.iter().map(|(pair, _)| format!("{pair}_ours"));
    let names: Vec<String> = theirs.chain(ours).chain(["qemu_ours".to_owned()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    prints(&mut Command::new(
        folder(env!("CARGO_PKG_NAME"), &names).join(name),
    ))
}

#[test]
fn both_programs_of_a_pair_print_the_same() {
    for (pair, expected) in PAIRS {
        for side in ["theirs", "ours"] {
            let name = format!("{pair}_{side}");
            assert_eq!(run(&name), expected, "{name}");
        }
    }
}

#[test]
fn the_device_serves_every_request() {
    assert_eq!(run("qemu_ours"), "served 1000 requests\n");
}

#[test]
fn an_example_has_less_than_100_lines() {
    are_short(env!("CARGO_MANIFEST_DIR"));
}
