//! [`CpuQuota`]: the processor time that control groups leave to this thread, and the part of it that polling
//! may take.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aio_context::PollParams;
use rustix::io::Errno;

/// Polling takes at most one part in this many of a quota.
const PART: u128 = 4;

/// The time for which all threads of a control group may run in each period: `cpu.max`, or `cpu.cfs_quota_us`
/// of version 1.
///
/// A thread that has used up its quota stands still until the next period, tens of milliseconds, with all its
/// requests. A loop notices that only afterwards (`aio_pollctl::Contention`). With a quota that is read at
/// the start, a loop limits its polling beforehand ([`limit`](Self::limit), rule A13).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use aio_context::PollParams;
/// use aio_sources::CpuQuota;
///
/// # fn main() -> std::io::Result<()> {
/// let mut params = PollParams::up_to(Duration::from_micros(50));
/// if let Some(quota) = CpuQuota::here()? {
///     params = quota.limit(params, 1);
/// }
/// // Context::builder().poll_params(params)
///
/// // A fifth of a core: polling takes at most a twentieth of the time.
/// let quota = CpuQuota::new(Duration::from_millis(20), Duration::from_millis(100)).unwrap();
/// assert_eq!(quota.limit(PollParams::unlimited(), 1).cpu_max, 5);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    quota: Duration,
    /// Not zero.
    period: Duration,
}

impl CpuQuota {
    /// Makes a quota of processor time in each `period`. `None` if the period is zero.
    #[must_use]
    pub const fn new(quota: Duration, period: Duration) -> Option<Self> {
        if period.is_zero() {
            return None;
        }
        Some(Self { quota, period })
    }

    /// Returns the quota of the calling thread: the least of those of its control group and of the groups
    /// above it, as far as this process sees them. `None` without a quota, without control groups and without
    /// `/proc`. Reads some files, so call it at start.
    ///
    /// # Errors
    /// The error of the system for a file that exists; `InvalidData` with the name of the file if its content
    /// is not understood.
    pub fn here() -> io::Result<Option<Self>> {
        Self::of(Path::new("/proc/thread-self"))
    }

    /// Returns the quota to which this directory of `/proc` leads.
    fn of(thread: &Path) -> io::Result<Option<Self>> {
        let (Some(groups), Some(mounts)) = (read(&thread.join("cgroup"))?, read(&thread.join("mountinfo"))?)
        else {
            return Ok(None);
        };
        let mut least: Option<Self> = None;
        for hierarchy in mounts.lines().filter_map(Hierarchy::parse) {
            for directory in hierarchy.directories(&groups) {
                if let Some(quota) = hierarchy.version.quota(&directory)? {
                    least = Some(least.map_or(quota, |least| least.min(quota)));
                }
            }
        }
        Ok(least)
    }

    /// Returns the processor time in percent of one core, rounded down: 150 is one and a half.
    #[must_use]
    pub const fn percent(&self) -> u32 {
        let percent = self.quota.as_nanos().saturating_mul(100) / self.period.as_nanos();
        if percent > u32::MAX as u128 {
            u32::MAX
        } else {
            percent as u32
        }
    }

    /// Limits [`PollParams::cpu_max`], so that polling takes at most a quarter of the quota if each of
    /// `loops` threads polls. If that is less than one percent of the time, polling is off. With
    /// [`PollParams::exclusive_core`] the parameters stay as they are.
    ///
    /// All policies made by [`Policy::by_name`](aio_context::Policy::by_name) keep the limit, including the
    /// constant ones.
    #[must_use]
    pub fn limit(&self, mut params: PollParams, loops: usize) -> PollParams {
        if params.exclusive_core {
            return params;
        }
        let parts = self
            .period
            .as_nanos()
            .saturating_mul(PART)
            .saturating_mul(loops.max(1) as u128);
        let most = self.quota.as_nanos().saturating_mul(100) / parts;
        let given = match params.cpu_max {
            0 => 100,
            given => given.min(100),
        };
        match most.min(u128::from(given)) as u32 {
            0 => params.max = Duration::ZERO,
            least if least < given => params.cpu_max = least,
            _ => {}
        }
        params
    }

    fn min(self, other: Self) -> Self {
        let scaled = |one: Duration, other: Duration| one.as_nanos().saturating_mul(other.as_nanos());
        if scaled(self.quota, other.period) < scaled(other.quota, self.period) {
            self
        } else {
            other
        }
    }
}

/// The two interfaces of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// A hierarchy of the controller `cpu`.
    One,
    /// One hierarchy for all controllers.
    Two,
}

impl Version {
    /// Returns the quota of the group with this directory. `None` without one, as in the root or without the
    /// controller.
    fn quota(self, directory: &Path) -> io::Result<Option<CpuQuota>> {
        let [quota, period] = match self {
            Self::One => ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|name| directory.join(name)),
            Self::Two => [directory.join("cpu.max"), PathBuf::new()],
        };
        let Some(text) = read(&quota)? else {
            return Ok(None);
        };
        let malformed = || {
            let what = format!("{}: no quota: {:?}", quota.display(), text.trim_end());
            io::Error::new(ErrorKind::InvalidData, what)
        };
        let (quota_us, period_us) = match self {
            Self::One => {
                let Some(period) = read(&period)? else {
                    return Ok(None);
                };
                (text.trim_end().to_owned(), period.trim_end().to_owned())
            }
            Self::Two => {
                let (quota, period) = text.trim_end().split_once(' ').ok_or_else(malformed)?;
                (quota.to_owned(), period.to_owned())
            }
        };
        if quota_us == "max" || quota_us == "-1" {
            return Ok(None);
        }
        let micros = |text: &str| text.parse().ok().map(Duration::from_micros);
        let quota = micros(&quota_us).zip(micros(&period_us));
        let quota = quota.and_then(|(quota, period)| CpuQuota::new(quota, period));
        quota.map(Some).ok_or_else(malformed)
    }
}

/// A mounted hierarchy of control groups.
struct Hierarchy {
    version: Version,
    /// The group whose directory is the mount point.
    root: PathBuf,
    mount_point: PathBuf,
}

impl Hierarchy {
    /// Parses a line of `mountinfo`. `None` if it is another file system, or the hierarchy of other
    /// controllers.
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, mount_point) = (unescape(mount.next()?), unescape(mount.next()?));
        let mut system = system.split(' ');
        let version = match system.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if system.nth(1)?.split(',').any(|option| option == "cpu") => Version::One,
            _ => return None,
        };
        Some(Self {
            version,
            root,
            mount_point,
        })
    }

    /// Returns the directories of the thread's group and of those above it, from `groups`, the file `cgroup`
    /// of the thread. Returns none if the mount point does not lead to them.
    fn directories(&self, groups: &str) -> Vec<PathBuf> {
        let group = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let is_meant = match self.version {
                Version::One => controllers.split(',').any(|name| name == "cpu"),
                Version::Two => controllers.is_empty(),
            };
            if is_meant { parts.next() } else { None }
        });
        let below = group.and_then(|group| Path::new(group).strip_prefix(&self.root).ok());
        let above = below.into_iter().flat_map(Path::ancestors);
        above.map(|group| self.mount_point.join(group)).collect()
    }
}

/// Decodes a path of `mountinfo`, which has spaces and similar bytes as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Returns the content of a file; `None` if it does not exist, or its group has just been removed.
fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("cannot read {}: {error}", file.display()),
        )),
    }
}

#[cfg(test)]
#[path = "cpu_quota_tests.rs"]
mod tests;
