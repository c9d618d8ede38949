//! [`ControlGroup`]: limits the processor time of its processes, or the rate of their writes to a device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The directory where systems mount control groups. In version 1 it has a hierarchy for each controller.
const MOUNTED: &str = "/sys/fs/cgroup";
const PERIOD_US: u32 = 100_000;

/// The limit of the processes of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// All processes together run for at most this percentage of a core.
    ProcessorTime { percent: u32 },
    /// The device with these numbers executes at most `per_second` of their writes a second. Further writes
    /// wait, which takes no processor time.
    Writes { device: (u32, u32), per_second: u32 },
}

/// A file of a group, and the text to write to it.
type Setting = (&'static str, String);

impl Limit {
    /// Returns the controller in version 1, and its settings.
    fn version_1(self) -> (&'static str, Vec<Setting>) {
        match self {
            Self::ProcessorTime { percent } => {
                let quota = PERIOD_US / 100 * percent;
                let period = ("cpu.cfs_period_us", PERIOD_US.to_string());
                ("cpu", vec![period, ("cpu.cfs_quota_us", quota.to_string())])
            }
            Self::Writes {
                device: (major, minor),
                per_second,
            } => {
                let limit = format!("{major}:{minor} {per_second}");
                ("blkio", vec![("blkio.throttle.write_iops_device", limit)])
            }
        }
    }

    /// Returns the controller in version 2, and its setting.
    fn version_2(self) -> (&'static str, Setting) {
        match self {
            Self::ProcessorTime { percent } => {
                let quota = PERIOD_US / 100 * percent;
                ("cpu", ("cpu.max", format!("{quota} {PERIOD_US}")))
            }
            Self::Writes {
                device: (major, minor),
                per_second,
            } => {
                let limit = format!("{major}:{minor} wiops={per_second}");
                ("io", ("io.max", limit))
            }
        }
    }
}

/// A control group of its own, removed when dropped. Its processes must have ended by then.
#[derive(Debug)]
pub(crate) struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes a group whose processes have a limit.
    ///
    /// # Errors
    /// If the system has no controller for the limit, or this process may not use it.
    pub(crate) fn make(limit: Limit) -> anyhow::Result<Self> {
        Self::make_below(Path::new(MOUNTED), limit)
    }

    fn make_below(mounted: &Path, limit: Limit) -> anyhow::Result<Self> {
        let name = format!("aio-demo-{}", std::process::id());
        let (controller, settings) = limit.version_1();
        let hierarchy = mounted.join(controller);
        if hierarchy.join("cgroup.procs").exists() {
            return Self::make_at(hierarchy.join(name), &settings);
        }
        let (controller, setting) = limit.version_2();
        let controllers = mounted.join("cgroup.subtree_control");
        match fs::read_to_string(&controllers) {
            Ok(names) if names.split_whitespace().any(|name| name == controller) => {
                Self::make_at(mounted.join(name), &[setting])
            }
            Ok(_) => bail!(
                "the controller {controller} is not enabled in {}",
                controllers.display()
            ),
            Err(error) => bail!("no control groups in {}: {error}", mounted.display()),
        }
    }

    fn make_at(path: PathBuf, settings: &[Setting]) -> anyhow::Result<Self> {
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the control group {}; root may", path.display()))?;
        let group = Self(path);
        for (name, value) in settings {
            let file = group.0.join(name);
            fs::write(&file, value).with_context(|| format!("cannot write {value} to {}", file.display()))?;
        }
        Ok(group)
    }

    /// Returns the command, preceded by the move of its process into the group. A daemon reads its quota when
    /// it starts.
    pub(crate) fn enter_with(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
        shell.arg(self.0.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        shell
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // If the group still has a process, the removal fails, and nothing more can be done.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a13_a_process_is_in_the_group_before_its_program_begins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a group");
        let group = ControlGroup::make_at(path.clone(), &[]).unwrap();
        let mut echo = Command::new("echo");
        echo.args(["two words", "$HOME"]);
        let child = group
            .enter_with(&echo)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = child.id();
        let said = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "two words $HOME\n");
        let member = fs::read_to_string(path.join("cgroup.procs")).unwrap();
        assert_eq!(member.trim(), process.to_string());
    }

    /// Both versions of control groups get the right files. Each version is a tree of ordinary files here.
    #[test]
    fn limits_are_written_for_both_versions() {
        let writes = Limit::Writes {
            device: (7, 3),
            per_second: 400,
        };
        let share = Limit::ProcessorTime { percent: 20 };
        let written = |controller: Option<&str>, limit| {
            let mounted = tempfile::tempdir().unwrap();
            match controller {
                Some(controller) => {
                    let hierarchy = mounted.path().join(controller);
                    fs::create_dir(&hierarchy).unwrap();
                    fs::write(hierarchy.join("cgroup.procs"), "").unwrap();
                }
                None => fs::write(mounted.path().join("cgroup.subtree_control"), "cpu io\n").unwrap(),
            }
            let group = ControlGroup::make_below(mounted.path(), limit).unwrap();
            let files = fs::read_dir(&group.0).unwrap().map(|file| file.unwrap().path());
            let mut files: Vec<_> = files
                .map(|file| {
                    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
                    (name, fs::read_to_string(file).unwrap())
                })
                .collect();
            files.sort();
            files
        };
        let of = |files: &[(&str, &str)]| -> Vec<(String, String)> {
            let files = files.iter();
            files
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect()
        };
        assert_eq!(
            written(Some("blkio"), writes),
            of(&[("blkio.throttle.write_iops_device", "7:3 400")])
        );
        assert_eq!(written(None, writes), of(&[("io.max", "7:3 wiops=400")]));
        let both = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "20000")];
        assert_eq!(written(Some("cpu"), share), of(&both));
        assert_eq!(written(None, share), of(&[("cpu.max", "20000 100000")]));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let mounted = tempfile::tempdir().unwrap();
        let make = |mounted: &Path| {
            let made = ControlGroup::make_below(mounted, Limit::ProcessorTime { percent: 20 });
            format!("{:#}", made.unwrap_err())
        };
        assert!(make(mounted.path()).contains("no control groups in "));
        fs::write(mounted.path().join("cgroup.subtree_control"), "memory pids\n").unwrap();
        assert!(make(mounted.path()).contains("the controller cpu is not enabled"));
    }
}
