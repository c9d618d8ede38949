//! [`Quota`]: a control group whose processes may run for a share of the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// Where systems mount control groups: the version 1 hierarchy of the controller, and version 2.
const VERSION_1: &str = "/sys/fs/cgroup/cpu";
const VERSION_2: &str = "/sys/fs/cgroup";
const PERIOD_US: u32 = 100_000;

/// A control group of its own, removed when dropped. Its processes must have ended by then.
#[derive(Debug)]
pub(crate) struct Quota(PathBuf);

impl Quota {
    /// Makes a group whose processes together may run for so many percent of a core.
    ///
    /// # Errors
    /// If this system has no controller of processor time, or this process may not use it.
    pub(crate) fn make(percent: u32) -> anyhow::Result<Self> {
        let name = format!("aio-demo-{}", std::process::id());
        let allowed = PERIOD_US / 100 * percent;
        if Path::new(VERSION_1).join("cpu.cfs_quota_us").exists() {
            let quota = Self::make_at(Path::new(VERSION_1).join(name))?;
            quota.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            quota.set("cpu.cfs_quota_us", &allowed.to_string())?;
            return Ok(quota);
        }
        let controllers = Path::new(VERSION_2).join("cgroup.subtree_control");
        match fs::read_to_string(&controllers) {
            Ok(names) if names.split_whitespace().any(|name| name == "cpu") => {
                let quota = Self::make_at(Path::new(VERSION_2).join(name))?;
                quota.set("cpu.max", &format!("{allowed} {PERIOD_US}"))?;
                Ok(quota)
            }
            Ok(_) => bail!("the controller cpu is not enabled in {}", controllers.display()),
            Err(error) => bail!("no control groups in {VERSION_1} or {VERSION_2}: {error}"),
        }
    }

    fn make_at(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the control group {}; root may", path.display()))?;
        Ok(Self(path))
    }

    /// The command, preceded by the move of its process into the group: a daemon reads its quota when it starts.
    pub(crate) fn enter_with(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
        shell.arg(self.0.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        shell
    }

    fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let file = self.0.join(name);
        fs::write(&file, value).with_context(|| format!("cannot write {value} to {}", file.display()))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // If a process is left in it, nothing more can be done.
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
        let quota = Quota::make_at(path.clone()).unwrap();
        let mut echo = Command::new("echo");
        echo.args(["two words", "$HOME"]);
        let child = quota
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
}
