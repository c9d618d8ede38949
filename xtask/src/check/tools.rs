//! Steps that run a tool which is not part of Rust. If the tool is not installed, cargo builds it once, in the target directory. If
//! that fails, for lack of a network, the step prints a line and is skipped.

use std::path::PathBuf;
use std::process::Command;

use crate::shell::{self, LIBRARIES};

/// A tool: its program, and the package and version that are built if it is not there.
struct Tool {
    program: &'static str,
    package: &'static str,
}

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

impl Tool {
    /// What starts it, or why it cannot be had.
    fn command(&self) -> anyhow::Result<Result<Command, String>> {
        if shell::is_installed(self.program) {
            return Ok(Ok(self.at(self.program.into())));
        }
        let root = shell::target_dir()?.join("tools");
        let program = root.join("bin").join(self.program);
        if program.is_file() {
            return Ok(Ok(self.at(program)));
        }
        println!(
            "{} is not installed: building {}, once",
            self.program, self.package
        );
        let mut build = shell::cargo();
        build
            // It is started a few times: building it well would take longer than it saves.
            .args(["install", "--locked", "--debug", self.package, "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(root.join("build"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        match shell::run(&mut build) {
            Ok(()) => Ok(Ok(self.at(program))),
            Err(_) => Ok(Err(format!(
                "{} is not installed, and cannot be built",
                self.program
            ))),
        }
    }

    fn at(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.current_dir(shell::root());
        // Started by cargo, it has its own name as the first argument; cargo-machete would take it for a directory.
        if let Some(name) = self.program.strip_prefix("cargo-")
            && name != "machete"
        {
            command.arg(name);
        }
        command
    }

    /// Runs it with these arguments.
    fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        match self.command()? {
            Ok(mut command) => shell::run(command.args(args)).map(|()| String::new()),
            Err(why) => Ok(super::skipped::skipped(&why)),
        }
    }
}

/// Spelling.
pub(super) fn typos() -> anyhow::Result<String> {
    TYPOS.run(&[])
}

/// Finds unused dependencies.
pub(super) fn machete() -> anyhow::Result<String> {
    MACHETE.run(&["."])
}

/// Every set of features builds by itself.
pub(super) fn hack() -> anyhow::Result<String> {
    let mut args = vec!["check", "--quiet", "--feature-powerset", "--locked"];
    args.extend(LIBRARIES.iter().flat_map(|library| ["--package", library]));
    HACK.run(&args)
}

/// Licences, bans and sources of everything that is built. It needs no network once that has been fetched.
pub(super) fn deny() -> anyhow::Result<String> {
    let check = |manifest| {
        DENY.run(&[
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
        ])
    };
    check("proofs/modelled/Cargo.toml")?;
    check("aio-glib/Cargo.toml")?;
    check("Cargo.toml")
}
