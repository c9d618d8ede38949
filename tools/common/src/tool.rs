//! [`Tool`]: a program that is not part of Rust. If it is not installed, cargo builds it once, in the target directory.

use std::path::PathBuf;
use std::process::Command;

use crate::shell;

/// A tool: its program, and the package and version that are built if it is not there.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name of its program.
    pub program: &'static str,
    /// The package, with its version, such as `typos-cli@1.52.0`.
    pub package: &'static str,
}

impl Tool {
    /// Returns what starts it, in the root of the workspace, or why it cannot be had. A missing tool is built first, which takes a minute
    /// or some, and a line says so.
    ///
    /// # Errors
    /// The target directory is not known.
    pub fn command(&self) -> anyhow::Result<Result<Command, String>> {
        self.built_by(&[], shell::run)
    }

    /// As [`command`](Self::command). `run` runs the build, which gets these options of `cargo install` besides.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn built_by(
        &self,
        options: &[&str],
        run: impl FnOnce(&mut Command) -> anyhow::Result<()>,
    ) -> anyhow::Result<Result<Command, String>> {
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
            .args(options)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        match run(&mut build) {
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
}
