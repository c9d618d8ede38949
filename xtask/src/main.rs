//! The tasks of this workspace: `cargo xtask check`, `test`, `demo`, `policies`, `prove`, `soak`.
//!
//! One module a command; what several use is in `aio-tools`.

mod bench;
mod check;
mod demo;
mod policies;
mod prove;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The tasks of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Check(check::Args),
    Test(test::Args),
    Demo(demo::Args),
    Policies(policies::Args),
    Prove(prove::Args),
    Soak(soak::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.task {
        Task::Check(args) => check::run(args),
        Task::Test(args) => test::run(args),
        Task::Demo(args) => demo::run(args),
        Task::Policies(args) => policies::run(args),
        Task::Prove(args) => prove::run(args),
        Task::Soak(args) => soak::run(args),
        Task::Bench(args) => bench::run(args),
    };
    aio_tools::end(result)
}
