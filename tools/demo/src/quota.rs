//! [`Quota`]: a control group whose processes may run for a share of the time.

use std::fs;
use std::path::{Path, PathBuf};

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

    /// Moves a process into the group.
    pub(crate) fn add(&self, process: u32) -> anyhow::Result<()> {
        self.set("cgroup.procs", &process.to_string())
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
