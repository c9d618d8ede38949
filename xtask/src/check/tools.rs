//! Steps that run a tool which is not part of Rust. If the tool is not installed, cargo builds it once, in the target directory. If
//! that fails, for lack of a network, the step prints a line and is skipped.

use std::path::PathBuf;
use std::process::Command;

use aio_tools::tool::Tool;

use crate::shell::{self, LIBRARIES};

const TYPOS: Tool = tool("typos", "typos-cli@1.52.0");
const MACHETE: Tool = tool("cargo-machete", "cargo-machete@0.9.2");
const HACK: Tool = tool("cargo-hack", "cargo-hack@0.6.46");
const DENY: Tool = tool("cargo-deny", "cargo-deny@0.20.2");

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool {
        program,
        package,
        features: None,
    }
}

/// What starts a tool.
fn at(tool: &Tool, program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir(shell::root());
    // Started by cargo, it has its own name as the first argument; cargo-machete would take it for a directory.
    if let Some(name) = tool.program.strip_prefix("cargo-")
        && name != "machete"
    {
        command.arg(name);
    }
    command
}

/// Runs a tool with these arguments.
fn run(tool: &Tool, args: &[&str]) -> anyhow::Result<String> {
    match tool.path(shell::run)? {
        Ok(program) => shell::run(at(tool, program).args(args)).map(|()| String::new()),
        Err(why) => Ok(super::skipped::skipped(&why.to_string())),
    }
}

/// Spelling.
pub(super) fn typos() -> anyhow::Result<String> {
    run(&TYPOS, &[])
}

/// Finds unused dependencies.
pub(super) fn machete() -> anyhow::Result<String> {
    run(&MACHETE, &["."])
}

/// Every set of features builds by itself.
pub(super) fn hack() -> anyhow::Result<String> {
    let mut args = vec!["check", "--quiet", "--feature-powerset", "--locked"];
    args.extend(LIBRARIES.iter().flat_map(|library| ["--package", library]));
    run(&HACK, &args)
}

/// Licences, bans and sources of everything that is built. It needs no network once that has been fetched.
pub(super) fn deny() -> anyhow::Result<String> {
    let check = |manifest| {
        run(
            &DENY,
            &[
                "--locked",
                "--manifest-path",
                manifest,
                "--config",
                "deny.toml",
                "check",
                "--hide-inclusion-graph",
                "licenses",
                "bans",
                "sources",
            ],
        )
    };
    check("proofs/modelled/Cargo.toml")?;
    check("aio-glib/Cargo.toml")?;
    check("Cargo.toml")
}
