//! The models of the notify protocol, and the faults that they must find: every order of steps, up to a number of preemptions.

use std::ffi::OsString;
use std::time::Duration;

use crate::interrupt::Interrupt;
use crate::shell;

/// How many preemptions of a thread a model tries, unless the environment asks for more.
const PREEMPTIONS: &str = "2";
/// Models that take longer do not end.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// What would win over the flags given here, or change what a model tries.
const INTERFERES: [&str; 9] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "LOOM_CHECKPOINT_FILE",
    "LOOM_CHECKPOINT_INTERVAL",
    "LOOM_LOCATION",
    "LOOM_LOG",
    "LOOM_MAX_BRANCHES",
    "LOOM_MAX_DURATION",
    "LOOM_MAX_PERMUTATIONS",
    "LOOM_MAX_THREADS",
];

pub(super) fn check() -> anyhow::Result<String> {
    let interrupt = Interrupt::catch()?;
    let preemptions = preemptions(std::env::var_os("LOOM_MAX_PREEMPTIONS"));
    let target = shell::target_dir()?.join("loom");
    let tests = |build_only: &[&str]| {
        let mut cargo = shell::cargo();
        cargo
            .args([
                "test",
                "--quiet",
                "--release",
                "--package",
                "aio-notify",
                "--lib",
                "--locked",
                "--target-dir",
            ])
            .arg(&target)
            .args(build_only);
        for name in INTERFERES {
            cargo.env_remove(name);
        }
        cargo
            .env("RUSTFLAGS", "--cfg loom -C debug-assertions=on")
            .env("LOOM_MAX_PREEMPTIONS", &preemptions);
        cargo
    };
    shell::run(&mut tests(&["--no-run"]))?;
    shell::run_within(&mut tests(&[]), LIMIT, &interrupt)?;
    Ok(format!("up to {} preemptions", preemptions.to_string_lossy()))
}

/// An empty value would make loom panic.
fn preemptions(asked: Option<OsString>) -> OsString {
    asked
        .filter(|asked| !asked.is_empty())
        .unwrap_or_else(|| PREEMPTIONS.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_is_no_value() {
        assert_eq!(preemptions(None), PREEMPTIONS);
        assert_eq!(preemptions(Some("".into())), PREEMPTIONS);
        assert_eq!(preemptions(Some("3".into())), "3");
    }
}
