//! Tools that are not part of Rust. If one is not installed, cargo builds it once, in the target directory.

use std::path::PathBuf;
use std::process::Command;

use crate::shell;

/// A tool: its program, and the package and version that are built if it is not there.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name of the program.
    pub program: &'static str,
    /// The package, with a version: `name@1.2.3`.
    pub package: &'static str,
    /// Its features, if not the usual ones.
    pub features: Option<&'static str>,
}

impl Tool {
    /// Returns the path of the program. Builds it with `run` if it is not there, and says so in a line.
    ///
    /// # Errors
    /// If the target directory is unknown. The inner error says why the tool cannot be had, for lack of a network as a rule.
    pub fn path(
        &self,
        run: impl FnOnce(&mut Command) -> anyhow::Result<()>,
    ) -> anyhow::Result<anyhow::Result<PathBuf>> {
        if shell::is_installed(self.program) {
            return Ok(Ok(self.program.into()));
        }
        let root = shell::target_dir()?.join("tools");
        let program = root.join("bin").join(self.program);
        if program.is_file() {
            return Ok(Ok(program));
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
        if let Some(features) = self.features {
            build.args(["--no-default-features", "--features", features]);
        }
        let built = run(&mut build)
            .map_err(|why| why.context(format!("{} is not installed, and cannot be built", self.program)));
        Ok(built.map(|()| program))
    }
}
