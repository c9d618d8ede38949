//! The programs that the task needs from packages, their places, and their installation.
//!
//! A fetched package is downloaded and unpacked in the target directory, so nothing changes on the system.
//! Alternatively QEMU can be installed, after a dry run shows that no package is removed, updated or replaced
//! by an older version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aio_tools::shell;
use anyhow::{Context as _, bail, ensure};

const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// A package without contents that depends on a kernel.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const BUSYBOX_PACKAGE: &str = "busybox-static";
/// Refuses to remove packages, and leaves out packages that are only recommended, such as displays.
const CAREFULLY: [&str; 2] = ["--no-remove", "--no-install-recommends"];

/// The programs and files that were found.
pub(crate) struct Found {
    pub(crate) qemu: Qemu,
    pub(crate) kernel: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) mke2fs: PathBuf,
}

/// QEMU, installed or unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// The directory in which the packages of QEMU were unpacked.
    root: Option<PathBuf>,
}

impl Qemu {
    /// Returns the program `program`. If its firmware is beside it, it belongs to unpacked packages.
    pub(crate) fn at(program: &Path) -> Self {
        let root = program.parent().and_then(|bin| bin.parent()?.parent());
        let is_unpacked = |root: &&Path| root.parent().is_some() && root.join("usr/share/qemu").is_dir();
        Self {
            program: program.to_owned(),
            root: root.filter(is_unpacked).map(Path::to_owned),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            let libraries = libraries.map(|directory| root.join(directory).display().to_string());
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        command
    }

    /// Returns the major and the minor version.
    pub(crate) fn version(&self) -> anyhow::Result<(u32, u32)> {
        let said = shell::output(self.command().arg("--version"))?;
        let version = said.split("version ").nth(1).and_then(|rest| {
            let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        });
        version.with_context(|| format!("{} names no version: {said:?}", self.program.display()))
    }
}

/// Returns the directory in which fetched packages are unpacked.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    Ok(shell::target_dir()?.join("guest").join("root"))
}

/// Finds everything that the task needs.
///
/// # Errors
/// If something is missing. The error names it, and the commands to get it.
pub(crate) fn find(qemu: Option<&Path>) -> anyhow::Result<Found> {
    let root = root()?;
    let mut missing = Vec::new();
    let qemu = match qemu {
        Some(program) => {
            ensure!(
                program.is_file(),
                "--qemu {}: there is no such file",
                program.display()
            );
            Some(Qemu::at(program))
        }
        None => on_path(QEMU)
            .or_else(|| Some(root.join("usr/bin").join(QEMU)).filter(|path| path.is_file()))
            .map(|program| Qemu::at(&program)),
    };
    if qemu.is_none() {
        missing.push(QEMU_PACKAGE);
    }
    let kernel = [root.as_path(), Path::new("/")].into_iter().find_map(kernel_in);
    if kernel.is_none() {
        missing.push(KERNEL_PACKAGE);
    }
    let busybox = ["usr/bin/busybox", "bin/busybox"].map(|path| root.join(path));
    // The system's own busybox is not used, because it need not be static.
    let busybox = busybox.into_iter().find(|path| path.is_file());
    if busybox.is_none() {
        missing.push(BUSYBOX_PACKAGE);
    }
    let mke2fs = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].map(PathBuf::from);
    let mke2fs = mke2fs.into_iter().find(|path| path.is_file());
    if mke2fs.is_none() {
        bail!("mke2fs is not installed; apt-get install e2fsprogs");
    }
    let (Some(qemu), Some((kernel, modules)), Some(busybox), Some(mke2fs)) = (qemu, kernel, busybox, mke2fs)
    else {
        bail!("{}", remedy(&missing, &root));
    };
    Ok(Found {
        qemu,
        kernel,
        modules,
        busybox,
        mke2fs,
    })
}

/// Returns the remedy for missing packages.
fn remedy(missing: &[&str], root: &Path) -> String {
    let mut text = format!(
        "missing: {}. Either\n  cargo xtask guest --fetch\ndownloads Debian's packages and unpacks them in {}, and changes nothing \
         on the system",
        missing.join(", "),
        root.display()
    );
    if missing.contains(&QEMU_PACKAGE) {
        text += &format!(
            "; or\n  apt-get install {} {QEMU_PACKAGE}\ninstalls QEMU (cargo xtask guest --install does so after a dry run), and --fetch \
             the rest; or name a program with --qemu PATH",
            CAREFULLY.join(" ")
        );
    }
    text
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|program| program.is_file())
}

/// Returns a readable kernel in `boot`, and the directory with its modules.
fn kernel_in(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(root.join("boot"))
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let release = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            let modules = ["lib/modules", "usr/lib/modules"].map(|place| root.join(place).join(&release));
            let modules = modules.into_iter().find(|modules| modules.is_dir())?;
            fs::File::open(&path).ok()?;
            Some((path, modules))
        })
        .collect();
    found.sort();
    found.pop()
}

/// Downloads the missing packages, and unpacks them. If `with_qemu` is set, also QEMU, with the libraries
/// that it needs.
///
/// # Errors
/// If a package cannot be downloaded or unpacked.
pub(crate) fn fetch(with_qemu: bool) -> anyhow::Result<()> {
    let root = root()?;
    let packages = root.with_file_name("packages");
    for directory in [&root, &packages] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut wanted = vec![BUSYBOX_PACKAGE.to_owned()];
    if kernel_in(&root).is_none() {
        wanted.push(kernel_package()?);
    }
    if with_qemu && on_path(QEMU).is_none() {
        wanted.extend(with_dependencies(QEMU_PACKAGE)?);
    }
    println!("downloading {} packages to {}", wanted.len(), packages.display());
    let mut download = Command::new("apt-get");
    download
        .current_dir(&packages)
        .args(["-q", "download"])
        .args(&wanted);
    shell::run(&mut download).context("apt-get update may help; APT_CONFIG can name other sources")?;
    for entry in fs::read_dir(&packages)? {
        let package = entry?.path();
        shell::run(Command::new("dpkg").arg("-x").arg(&package).arg(&root))?;
    }
    Ok(())
}

/// Returns the kernel that Debian recommends at present.
fn kernel_package() -> anyhow::Result<String> {
    let mut depends = Command::new("apt-cache");
    let said = shell::output(depends.args(["depends", KERNEL_PACKAGE]))?;
    let kernel = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let kernel =
        kernel.with_context(|| format!("{KERNEL_PACKAGE} depends on no kernel; run apt-get update"))?;
    Ok(format!("linux-image-{kernel}"))
}

/// Returns the packages that an installation would add, with their versions. Packages that it would remove do
/// not matter, because nothing is installed.
fn with_dependencies(package: &str) -> anyhow::Result<Vec<String>> {
    let mut dry_run = Command::new("apt-get");
    dry_run.args(["-s", "install", "--no-install-recommends", package]);
    let plan = Plan::parse(&shell::output(&mut dry_run)?);
    ensure!(
        !plan.installed.is_empty(),
        "apt-get would install nothing for {package}"
    );
    Ok(plan
        .installed
        .iter()
        .map(|change| format!("{}={}", change.package, change.version))
        .collect())
}

/// Installs QEMU, if a dry run shows that this removes and changes no package.
///
/// # Errors
/// If it would remove or change a package, or if the installation fails.
pub(crate) fn install() -> anyhow::Result<()> {
    if on_path(QEMU).is_some() {
        println!("{QEMU} is installed");
        return Ok(());
    }
    let arguments = [&["install"][..], &CAREFULLY, &[QEMU_PACKAGE]].concat();
    let mut dry_run = Command::new("apt-get");
    let output = dry_run
        .arg("-s")
        .args(&arguments)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start apt-get")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let instead =
        "nothing was installed; cargo xtask guest --fetch unpacks QEMU and changes nothing on the system";
    ensure!(
        output.status.success(),
        "the dry run of apt-get fails: {}; {instead}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let plan = Plan::parse(&said);
    let harm = plan.harm();
    ensure!(
        harm.is_empty(),
        "the installation would change other packages ({}); {instead}",
        harm.join(", ")
    );
    println!("installing {} packages", plan.installed.len());
    shell::run(Command::new("apt-get").arg("-y").args(&arguments))
}

/// The actions of apt-get in a dry run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    installed: Vec<Change>,
    removed: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Change {
    package: String,
    version: String,
    /// The version that is replaced.
    former: Option<String>,
}

impl Plan {
    /// Parses the lines `Inst package [former] (version ...)` and `Remv package [version]` of a dry run.
    fn parse(said: &str) -> Self {
        let mut plan = Self::default();
        for line in said.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("Inst"), Some(package)) => {
                    let mut next = words.next();
                    let former = next.and_then(|word| word.strip_prefix('[')?.strip_suffix(']'));
                    if former.is_some() {
                        next = words.next();
                    }
                    let version = next.and_then(|word| word.strip_prefix('('));
                    plan.installed.push(Change {
                        package: package.to_owned(),
                        version: version.unwrap_or_default().to_owned(),
                        former: former.map(str::to_owned),
                    });
                }
                (Some("Remv"), Some(package)) => plan.removed.push(package.to_owned()),
                _ => {}
            }
        }
        plan
    }

    /// Returns the changes of packages that are already installed.
    fn harm(&self) -> Vec<String> {
        let removed = self.removed.iter().map(|package| format!("removes {package}"));
        let changed = self.installed.iter().filter_map(|change| {
            let former = change.former.as_ref()?;
            Some(format!("{} {former} becomes {}", change.package, change.version))
        });
        removed.chain(changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "Reading package lists...\n\
        Inst seabios (1.16.3-2 Debian:12.15/oldstable [all])\n\
        Inst libfoo1 [2.0-1] (1.0-1 Debian:12.15/oldstable [amd64])\n\
        Remv qemu-utils [1:10.0.2] \n\
        Conf seabios (1.16.3-2 Debian:12.15/oldstable [all])\n";

    #[test]
    fn an_installation_that_removes_or_changes_packages_is_seen() {
        let plan = Plan::parse(PLAN);
        assert_eq!(plan.harm(), ["removes qemu-utils", "libfoo1 2.0-1 becomes 1.0-1"]);
        let packages: Vec<_> = plan.installed.iter().map(|change| &*change.package).collect();
        assert_eq!(packages, ["seabios", "libfoo1"]);
        assert_eq!(plan.installed[0].version, "1.16.3-2");
        let harmless: String = PLAN.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert!(Plan::parse(&harmless).harm().is_empty());
    }

    #[test]
    fn a_missing_package_has_remedies() {
        let text = remedy(&[QEMU_PACKAGE, BUSYBOX_PACKAGE], Path::new("/target"));
        for part in [
            "qemu-system-x86, busybox-static",
            "--fetch",
            "--no-remove",
            "--qemu PATH",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!remedy(&[BUSYBOX_PACKAGE], Path::new("/target")).contains("apt-get install"));
    }
}
