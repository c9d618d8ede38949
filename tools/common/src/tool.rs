//! [`Tool`]: a program that is not part of Rust. If it is not installed, cargo builds it once, in the target directory.

use std::path::PathBuf;
use std::process::Command;

use crate::shell;

/// A tool: its program, and the package and version that are built if the program is not installed.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name of the program.
    pub program: &'static str,
    /// The package with its version, such as `typos-cli@1.52.0`.
    pub package: &'static str,
}

impl Tool {
    /// Returns a command that starts the tool in the root of the workspace, or the reason why there is none.
    /// If the tool is missing, this prints a line and builds it first, which takes a minute or more.
    ///
    /// # Errors
    /// If the target directory is not known.
    pub fn command(&self) -> anyhow::Result<Result<Command, String>> {
        self.built_by(&[], shell::run)
    }

    /// Like [`command`](Self::command), but `run` runs the build, and `options` are additional options of
    /// `cargo install`.
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
            // An optimized build would take longer than it saves, because the tool is started only a few
            // times.
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
        // If cargo starts the program, its first argument is its own name. cargo-machete would take that for
        // a directory.
        if let Some(name) = self.program.strip_prefix("cargo-")
            && name != "machete"
        {
            command.arg(name);
        }
        command
    }
}
