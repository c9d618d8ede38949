//! Steps that run a tool which is not part of Rust. If the tool is not available, because there is no
//! network, the step prints a line and is skipped.

use aio_tools::tool::Tool;

use crate::shell::{self, LIBRARIES};

const TYPOS: Tool = Tool {
    program: "typos",
    package: "typos-cli@1.52.0",
};
const MACHETE: Tool = Tool {
    program: "cargo-machete",
    package: "cargo-machete@0.9.2",
};
const HACK: Tool = Tool {
    program: "cargo-hack",
    package: "cargo-hack@0.6.46",
};
const DENY: Tool = Tool {
    program: "cargo-deny",
    package: "cargo-deny@0.20.2",
};

/// Runs the tool with these arguments.
fn run(tool: Tool, args: &[&str]) -> anyhow::Result<String> {
    match tool.command()? {
        Ok(mut command) => shell::run(command.args(args)).map(|()| String::new()),
        Err(why) => Ok(super::skipped::skipped(&why)),
    }
}

/// Checks the spelling.
pub(super) fn typos() -> anyhow::Result<String> {
    run(TYPOS, &[])
}

/// Finds unused dependencies.
pub(super) fn machete() -> anyhow::Result<String> {
    run(MACHETE, &["."])
}

/// Builds every set of features separately.
pub(super) fn hack() -> anyhow::Result<String> {
    let mut args = vec!["check", "--quiet", "--feature-powerset", "--locked"];
    args.extend(LIBRARIES.iter().flat_map(|library| ["--package", library]));
    let skipped = run(HACK, &args)?;
    check_on_libc().map(|()| skipped)
}

/// Every library builds on either implementation of `rustix`: a user's other dependencies may turn its feature `use-libc` on, which changes
/// the types of some flags.
fn check_on_libc() -> anyhow::Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["check", "--quiet", "--all-features", "--locked", "--target-dir"]);
    cargo.arg(shell::target_dir()?.join("libc"));
    cargo.args(LIBRARIES.iter().flat_map(|library| ["--package", library]));
    shell::run(cargo.env("RUSTFLAGS", "--cfg=rustix_use_libc"))
}

/// Checks licences, bans and sources of everything that is built. It needs no network after the first
/// download.
pub(super) fn deny() -> anyhow::Result<String> {
    let check = |manifest| {
        run(
            DENY,
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
