//! `cargo xtask docs`: the book of `docs/`, the API documentation below it, and a check of all links.
//!
//! | module | purpose |
//! |---|---|
//! | `markdown` | the links and the anchors of a page |
//! | `pages` | the chapters of the book, and the place of a file of the repository in the book |
//! | `links` | checks the links of all Markdown files of the repository |
//! | `preprocess` | the preprocessor that mdBook calls before it renders: turns links of the repository into links of the book |
//! | `site` | builds everything |
//! | `html` | checks the links of the built pages |

mod html;
mod links;
mod markdown;
mod pages;
mod preprocess;
mod site;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the book and the API documentation, and check their links
    ///
    /// Checks the links between the Markdown files of the repository, builds the API documentation of all
    /// libraries with warnings as errors, builds the book of docs/ with mdbook, and checks every link of the
    /// result. The book is in target/book, the API documentation in target/book/api. If mdbook is not
    /// installed, it is built once into the target directory, which takes about three minutes. The rest takes
    /// one to two minutes on two cores, and seconds if little has changed.
    Docs {
        /// Open the book in a browser
        #[arg(long, conflicts_with = "links")]
        open: bool,
        /// Only check the links between the Markdown files
        #[arg(long)]
        links: bool,
    },
    /// Preprocess the book: mdbook starts this
    #[command(hide = true)]
    Preprocess {
        /// The arguments of mdbook: `supports`, and the name of a renderer
        supports: Vec<String>,
    },
}

fn main() -> ExitCode {
    aio_tools::end(match Args::parse().task {
        Task::Docs { links: true, .. } => links::check().map(|found| println!("{found}")),
        Task::Docs { open, .. } => site::build(open),
        // Every renderer is supported.
        Task::Preprocess { supports } if !supports.is_empty() => Ok(()),
        Task::Preprocess { .. } => preprocess::run(std::io::stdin().lock(), std::io::stdout().lock()),
    })
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
        for wrong in [&["docs", "--open", "--links"][..], &["docs", "--serve"], &[]] {
            let refused = Args::try_parse_from([&["xtask"], wrong].concat());
            assert_eq!(refused.unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
