//! `cargo xtask guest` boots Linux guests on disks of blockd, and judges the disks from inside and outside.
//!
//! Each guest runs under QEMU's plain emulation, so it needs no privileges and no support by the processor.
//! Its kernel is Debian's, its first file system is built here, and its disk is an image that blockd serves
//! over vhost-user.
//!
//! | module | purpose |
//! |---|---|
//! | `packages` | finds, fetches and installs QEMU, the kernel and busybox |
//! | `initramfs` | the first file system; the scripts in it are in `guest/` |
//! | `guest`, `port` | QEMU, its monitor, and commands for the guest |
//! | `daemon` | blockd |
//! | `steps` | the steps of a guest, and their judgement |
//! | `state` | the stored state of both sides after a failure |
//! | `row` | setups and results |

mod daemon;
mod guest;
mod initramfs;
mod packages;
mod port;
mod row;
mod state;
mod steps;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aio_tools::interrupt::{Interrupt, Interrupted};
use aio_tools::report::{self, Machine};
use aio_tools::shell;
use anyhow::{Context as _, anyhow, bail};
use clap::Parser;
use indicatif::ProgressBar;

use self::daemon::Daemon;
use self::guest::Guest;
use self::packages::Found;
use self::row::{Row, Setup};
use self::steps::{DISK, STEPS, Scene, check_file_system};

/// Boot Linux guests under QEMU on disks of blockd, and judge the disks
///
/// A verified pattern, mkfs, mount, fstrim, a resize, a hot plug, kill -9 of the daemon under writes, and a
/// reboot: with one and four queues, with polling and without, with both engines. Needs no privileges. If
/// something is missing, prints how to get it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask guest", bin_name = "cargo xtask guest", version)]
struct Args {
    /// Take about a minute: two guests instead of eight
    #[arg(long)]
    quick: bool,
    /// Write a row for every step to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program of QEMU [default: that in the path, or a fetched one]. In unpacked packages
    /// (ROOT/usr/bin/qemu-system-x86_64) it finds its libraries and firmware
    #[arg(long, value_name = "PATH", env = "AIO_GUEST_QEMU")]
    qemu: Option<PathBuf>,
    /// The program of blockd [default: built]
    #[arg(long, value_name = "PATH")]
    blockd: Option<PathBuf>,
    /// First download Debian's packages of QEMU, a kernel and busybox, and unpack them in the target
    /// directory. Changes nothing on the system
    #[arg(long)]
    fetch: bool,
    /// First install QEMU, unless a dry run shows that this would remove or change another package, and fetch
    /// the rest
    #[arg(long, conflicts_with = "fetch")]
    install: bool,
    /// Run one guest with the fewest repetitions, or print a line if that is impossible: the form for tests
    #[arg(long, hide = true)]
    short: bool,
}

fn main() -> ExitCode {
    aio_tools::end(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    if args.install {
        packages::install()?;
    }
    if args.install || args.fetch {
        packages::fetch(args.fetch && args.qemu.is_none())?;
    }
    let found = match packages::find(args.qemu.as_deref()) {
        Err(missing) if args.short => {
            println!("skipped: {missing:#}");
            return Ok(());
        }
        found => found?,
    };
    let blockd = match &args.blockd {
        Some(blockd) => blockd.clone(),
        None => build()?,
    };
    interrupt.check()?;
    let files = tempfile::tempdir().context("cannot make a directory")?;
    let initramfs = files.path().join("initramfs");
    let parts = initramfs::Parts {
        busybox: &found.busybox,
        modules: &found.modules,
        mke2fs: &found.mke2fs,
    };
    std::fs::write(&initramfs, initramfs::build(&parts)?)?;
    let mut judge = Judge {
        found,
        blockd,
        initramfs,
        interrupt,
        pace: Pace::of(args),
        rows: Vec::new(),
    };
    let (major, minor) = judge.found.qemu.version()?;
    println!(
        "QEMU {major}.{minor} without KVM, {}",
        judge.found.kernel.file_name().unwrap_or_default().display()
    );
    let mut setups = if args.quick { Setup::quick() } else { Setup::all() };
    if args.short {
        setups = Setup::quick().split_off(1);
    }
    let began = Instant::now();
    let mut outcome = Ok(());
    for setup in setups {
        outcome = judge.judge(setup);
        if outcome.is_err() {
            break;
        }
    }
    if let Some(file) = &args.json {
        report::write_json(file, Machine::this(), &judge.rows)?;
    }
    let failed = judge.rows.iter().filter(|row| !row.ok).count();
    println!(
        "{} steps, {failed} failed; {:.0} s",
        judge.rows.len(),
        began.elapsed().as_secs_f64()
    );
    outcome
}

/// Builds blockd, and returns its program.
fn build() -> anyhow::Result<PathBuf> {
    println!("building blockd (release)");
    shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "blockd"]))?;
    Ok(shell::target_dir()?.join("release").join("blockd"))
}

/// The numbers of repetitions.
#[derive(Clone, Copy)]
struct Pace {
    kills: u32,
    pattern: u64,
}

impl Pace {
    fn of(args: &Args) -> Self {
        let (kills, pattern) = match (args.short, args.quick) {
            (true, _) => (2, 2),
            (false, true) => (5, 8),
            (false, false) => (10, 32),
        };
        Self { kills, pattern }
    }
}

/// Runs guests, and collects the results.
struct Judge {
    found: Found,
    blockd: PathBuf,
    initramfs: PathBuf,
    interrupt: Interrupt,
    pace: Pace,
    rows: Vec<Row>,
}

impl Judge {
    /// Runs one guest through all steps.
    fn judge(&mut self, setup: Setup) -> anyhow::Result<()> {
        println!("{setup}");
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let directory = directory.path();
        let image = directory.join("image");
        File::create(&image)?.set_len(DISK)?;
        let mut daemon = Daemon::start(&self.blockd, directory, &setup.options())?;
        let (found, initramfs, interrupt) = (&self.found, &self.initramfs, &self.interrupt);
        let socket = directory.join("disk.sock");
        let booted = timed("boot", || {
            let guest = Guest::boot(found, initramfs, &socket, setup.queues, interrupt)?;
            let saw = format!("Linux {}", guest.release);
            Ok((guest, saw))
        });
        let mut guest = self.note(setup, "boot", booted, &daemon)?;
        for (name, step) in STEPS {
            let mut scene = Scene {
                setup,
                directory,
                daemon: &mut daemon,
                guest: &mut guest,
                kills: self.pace.kills,
                pattern: self.pace.pattern,
            };
            let mut done = timed(name, || Ok(((), step(&mut scene)?)));
            if let Err(why) = done.result {
                let kept = match self.interrupt.check() {
                    Ok(()) => state::keep(setup, name, directory, &daemon, &mut guest, &self.interrupt),
                    Err(_) => Ok(String::new()),
                };
                let kept = kept.unwrap_or_else(|why| format!("the state cannot be kept: {why:#}"));
                done.result = Err(anyhow!("{why:#}\n{kept}"));
            }
            self.note(setup, name, done, &daemon)?;
        }
        let ended = timed("end", || {
            guest.power_off()?;
            Ok(((), "the guest powers off, QEMU ends".to_owned()))
        });
        self.note(setup, "end", ended, &daemon)?;
        let checked = timed("e2fsck", || {
            daemon.stop()?;
            Ok(((), check_file_system(&image)?))
        });
        self.keep(setup, "e2fsck", checked, "")
    }

    /// Records the result of a step. An error gets the end of the daemon's log.
    fn note<T>(
        &mut self,
        setup: Setup,
        step: &'static str,
        timed: Timed<T>,
        daemon: &Daemon,
    ) -> anyhow::Result<T> {
        let log = match &timed.result {
            Ok(_) => String::new(),
            Err(_) => daemon.log(),
        };
        self.keep(setup, step, timed, &log)
    }

    fn keep<T>(&mut self, setup: Setup, step: &'static str, timed: Timed<T>, log: &str) -> anyhow::Result<T> {
        let seconds = timed.time.as_secs_f64();
        let (saw, result) = match timed.result {
            Ok((value, saw)) => (saw, Ok(value)),
            // Ctrl-C also ends commands, which then fail.
            Err(_) if self.interrupt.check().is_err() => return Err(Interrupted.into()),
            Err(why) => (format!("{why:#}"), Err(why)),
        };
        let verdict = if result.is_ok() { &saw } else { "FAILED" };
        println!("  {step:9} {seconds:5.1} s  {verdict}");
        self.rows.push(Row {
            setup,
            step,
            ok: result.is_ok(),
            saw,
            seconds,
        });
        match result {
            Err(why) if !log.is_empty() => {
                bail!("{setup}: {step}: {why:#}\nthe last lines of blockd's log:\n{log}")
            }
            result => result.with_context(|| format!("{setup}: {step}")),
        }
    }
}

/// The result of a step, and its duration.
struct Timed<T> {
    result: anyhow::Result<(T, String)>,
    time: Duration,
}

/// Executes a step, with a progress line on a terminal.
fn timed<T>(name: &str, step: impl FnOnce() -> anyhow::Result<(T, String)>) -> Timed<T> {
    let bar = ProgressBar::new_spinner();
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let began = Instant::now();
    let result = step();
    bar.finish_and_clear();
    Timed {
        result,
        time: began.elapsed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["guest", "--fetch", "--install"]).is_err());
    }
}
