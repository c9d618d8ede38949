//! The tasks of this workspace. `check` and `test` are here; the other tasks are programs of their own, which
//! `door` starts.
//!
//! The crate has few dependencies, so `cargo xtask` starts at once. Programs that measure or prove are in
//! `tools/` and `bench/`.

mod check;
mod door;
mod glib;
mod test;

use std::process::ExitCode;

use aio_tools::{interrupt, shell};
use clap::Command;

fn main() -> ExitCode {
    let matches = tasks().get_matches();
    let Some((task, args)) = matches.subcommand() else {
        return ExitCode::from(2);
    };
    aio_tools::end(match task {
        "check" => check::run(args),
        "test" => test::run(args),
        _ => door::open(task, args),
    })
}

fn tasks() -> Command {
    Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The tasks of this workspace")
        .after_help("`cargo xtask TASK --help` explains a task.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(check::command())
        .subcommand(test::command())
        .subcommands(door::commands())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        tasks().debug_assert();
    }

    #[test]
    fn a_wrong_task_or_option_is_refused() {
        for wrong in [&["demmo"][..], &["check", "--steps", "fmt"], &[]] {
            let refused = tasks().try_get_matches_from([&["xtask"], wrong].concat());
            assert_eq!(refused.unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
