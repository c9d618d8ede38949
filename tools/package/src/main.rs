//! `cargo xtask package` and `cargo xtask deps`: the libraries in the form that users get.
//!
//! | module | purpose |
//! |---|---|
//! | `library` | the list of libraries |
//! | `lint` | the requirements of manifests, licences and READMEs |
//! | `pack` | packages |
//! | `semver` | the comparison with the last release |
//! | `outside` | unpacked packages, outside the workspace |
//! | `unpacked` | their own tests |
//! | `users` | programs, a backend and a policy that use them |
//! | `surface` | the public interface of each library, compared with a listing in the repository |
//! | `examples` | public types without an example in their documentation |
//! | `deps` | the number of crates in the tree of each library, and the lines of `unsafe` code |

mod deps;
mod examples;
mod library;
mod lint;
mod outside;
mod pack;
mod render;
mod semver;
mod surface;
mod tree;
mod unpacked;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use aio_tools::interrupt::Interrupt;
use aio_tools::report::{self, Machine};
use clap::{Parser, Subcommand};

use outside::Outside;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Package every library as it would be published
    ///
    /// Checks manifests, licences and READMEs, and writes the packages to target/package/package. With
    /// --check, it also unpacks them in a temporary directory, builds each alone, runs the tests, examples
    /// and documentation tests in them, runs the programs of --users, compares the public interface with the
    /// listings in tools/package/surface, and finds public types without an example. Takes about five minutes
    /// on two cores; --users takes one, --lint seconds.
    Package(Package),
    /// Count the crates that each library depends on, and the lines of `unsafe` code
    ///
    /// Fails if a library depends on more crates than its limit, if its README states another number, or if a
    /// library for targets without std does not build for one. Counts the normal dependencies with the
    /// default features, including the libraries of this workspace.
    Deps {
        /// Write a row for each library to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Package {
    /// Also build and test the unpacked packages, and compare the public interfaces
    #[arg(long, conflicts_with_all = ["lint", "bless", "users"])]
    check: bool,
    /// Also run programs, a backend and a policy that use only the packages, each outside the workspace
    #[arg(long, conflicts_with_all = ["lint", "bless"])]
    users: bool,
    /// Compare the public interfaces with this revision by cargo-semver-checks, instead of with the last tag
    /// v*
    #[arg(long, value_name = "REVISION", requires = "check")]
    since: Option<String>,
    /// Only check manifests, licences and READMEs
    #[arg(long)]
    lint: bool,
    /// Rewrite the listings of the public interfaces, after an intended change
    #[arg(long, conflicts_with = "lint")]
    bless: bool,
    /// Write a row for each library to this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lint", "bless"])]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    aio_tools::end(match Args::parse().task {
        Task::Package(args) => package(&args),
        Task::Deps { json } => deps::run(json.as_deref()),
    })
}

fn package(args: &Package) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    if args.bless {
        let libraries = library::all()?;
        return surface::bless(&libraries, &interrupt);
    }
    let began = Instant::now();
    let libraries = library::all()?;
    println!("{}", lint::check(&libraries)?);
    if args.lint {
        return Ok(());
    }
    let rows = pack::pack(&libraries, &interrupt)?;
    if args.check {
        println!("{}", surface::check(&libraries, &interrupt)?);
        println!(
            "{}",
            semver::check(&libraries, args.since.as_deref(), &interrupt)?
        );
    }
    if args.check || args.users {
        let outside = Outside::unpack(&libraries)?;
        if args.check {
            println!("{}", unpacked::check(&libraries, &outside, &interrupt)?);
        }
        let used = users::check(&libraries, &outside, &interrupt)?;
        println!("{used}, {} s in all", began.elapsed().as_secs());
    }
    if let Some(file) = &args.json {
        report::write_json(file, Machine::this(), &rows)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for wrong in [
            &["package", "--check", "--lint"][..],
            &["package", "--bless", "--check"],
            &["package", "--users", "--lint"],
            &["package", "--since", "v1"],
            &[],
        ] {
            let refused = Args::try_parse_from([&["xtask"], wrong].concat());
            assert_eq!(refused.unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
