//! The packages as users have them: unpacked in a directory outside the workspace, each a dependency of the
//! others there.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use aio_tools::shell;
use anyhow::Context as _;

use crate::library::{self, Library};

/// The packages, in a directory that is removed when this value is dropped.
pub(crate) struct Outside(PathBuf);

impl Outside {
    /// Unpacks the packages. The directory always has the same name for a workspace, so that cargo finds
    /// earlier builds. Files of an interrupted run are removed.
    pub(crate) fn unpack(libraries: &[Library]) -> anyhow::Result<Self> {
        let mut name = DefaultHasher::new();
        shell::root().hash(&mut name);
        let path = std::env::temp_dir().join(format!("aio-package-{:016x}", name.finish()));
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        // Fails if another user has created it in the meantime.
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let outside = Self(path);
        for library in libraries {
            outside.unpack_one(library)?;
        }
        Ok(outside)
    }

    /// Unpacks a package. The files get the present time: all files in packages have the same age, and cargo
    /// rebuilds only files that are newer than the last build.
    fn unpack_one(&self, library: &Library) -> anyhow::Result<()> {
        let into = self.workspace(library.is_apart());
        fs::create_dir_all(&into)?;
        let package = shell::target_dir()?
            .join("package/package")
            .join(library.folder() + ".crate");
        shell::run(Command::new("tar").arg("-C").arg(into).arg("-xzmf").arg(package))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the directory of the workspace that has this package.
    pub(crate) fn workspace(&self, is_apart: bool) -> PathBuf {
        self.0.join(if is_apart { "apart" } else { "packages" })
    }

    /// Returns the directory of an unpacked package.
    pub(crate) fn package(&self, library: &Library) -> PathBuf {
        self.workspace(library.is_apart()).join(library.folder())
    }

    /// Returns the lines of a manifest that make cargo take these libraries from their packages instead of a
    /// registry.
    pub(crate) fn patch<'a>(&self, libraries: impl Iterator<Item = &'a Library>) -> String {
        libraries.fold("\n[patch.crates-io]\n".to_owned(), |text, library| {
            text + &format!("{} = {{ path = {:?} }}\n", library.name, self.package(library))
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a cargo that builds in a directory outside the workspace, with the target directory
/// `target/package/{target}`.
pub(crate) fn cargo(directory: &Path, target: &str) -> anyhow::Result<Command> {
    let mut cargo = shell::cargo();
    cargo.current_dir(directory);
    cargo.env(
        "CARGO_TARGET_DIR",
        shell::target_dir()?.join("package").join(target),
    );
    Ok(cargo)
}

/// Copies the lock file of the library's workspace, so that builds outside use the same versions.
pub(crate) fn copy_lock(is_apart: bool, to: &Path) -> anyhow::Result<()> {
    let lock = Path::new(if is_apart { library::APART } else { "" }).join("Cargo.lock");
    fs::copy(shell::root().join(lock), to.join("Cargo.lock"))?;
    Ok(())
}
