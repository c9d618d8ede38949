//! Warnings about options that are valid but most likely a mistake. They are logged before the daemon is
//! ready.

use std::fs;
use std::path::Path;

use aio_context::{Policy, PollParams, PollPolicy as _};

use crate::cli::Args;
use crate::disk::Source;
use crate::export::{Export, IoThreads, MOST_QUEUES};

/// Returns all warnings about the command line.
pub(crate) fn warnings(args: &Args) -> Vec<String> {
    let mut warnings = Vec::new();
    if args.poll_max.is_zero() {
        warnings.extend(without_polling(args));
    } else {
        warnings.extend(ignored_by_policy(args));
    }
    warnings.extend(idle_threads(args));
    warnings.extend(too_much_memory(in_memory(args)));
    warnings.extend(args.nbd.iter().filter_map(|address| address.warning()));
    warnings
}

/// Returns the number of queues that a client of this export probably uses.
pub(crate) fn likely_queues(export: &Export) -> u16 {
    if export.queues < MOST_QUEUES {
        return export.queues;
    }
    // A guest uses one queue for each of its processors.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors).unwrap_or(MOST_QUEUES).min(MOST_QUEUES)
}

fn without_polling(args: &Args) -> Option<String> {
    let given = [
        ("--policy", args.policy != "learned"),
        ("--poll-cpu-max", args.poll_cpu_max != 100),
        ("--poll-exclusive", args.poll_exclusive),
        ("--poll-grow", args.poll_grow != 0),
        ("--poll-shrink", args.poll_shrink != 0),
        ("--poll-weight", args.poll_weight != 0),
        ("--record-waits", args.record_waits.is_some()),
    ];
    let ignored = names(given)?;
    Some(format!(
        "{ignored}: no effect without polling; add --poll-max 32us, for example, or remove the option"
    ))
}

fn ignored_by_policy(args: &Args) -> Option<String> {
    let uses = Policy::by_name(&args.policy, PollParams::up_to(args.poll_max))?.effective();
    let ignored = names([
        (
            "--poll-cpu-price",
            args.poll_cpu_price != 100 && uses.cpu_price.is_none(),
        ),
        ("--poll-grow", args.poll_grow != 0 && uses.grow.is_none()),
        ("--poll-shrink", args.poll_shrink != 0 && uses.shrink.is_none()),
        ("--poll-weight", args.poll_weight != 0 && uses.weight.is_none()),
    ])?;
    Some(format!(
        "{ignored}: no effect with --policy {}; choose another policy, or remove the option",
        args.policy
    ))
}

/// Returns a warning about I/O threads that serve no export, if no export can be added later. There is none
/// if an export names its threads, because that choice is deliberate.
fn idle_threads(args: &Args) -> Option<String> {
    let is_named = |export: &Export| export.iothreads != IoThreads::Any;
    let count = args.exports.len();
    if args.control.is_some() || count >= args.iothreads || args.exports.iter().any(is_named) {
        return None;
    }
    Some(format!(
        "--iothreads {}: {} threads have no export; add iothread=all to an export to have all threads serve its queues, or start fewer threads",
        args.iothreads,
        args.iothreads - count
    ))
}

fn names<const N: usize>(given: [(&str, bool); N]) -> Option<String> {
    let names: Vec<&str> = given
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Returns a warning if disks in memory of these sizes exceed the memory available to the process.
pub(crate) fn too_much_memory(disks: impl Iterator<Item = u64>) -> Option<String> {
    beyond(disks, memory_limit())
}

/// Returns the sizes of the disks in memory.
fn in_memory(args: &Args) -> impl Iterator<Item = u64> {
    args.exports.iter().filter_map(|export| match export.source {
        Source::Ram(bytes) => Some(bytes),
        Source::File(_) | Source::Null(_) => None,
    })
}

fn beyond(disks: impl Iterator<Item = u64>, limit: Option<u64>) -> Option<String> {
    let wanted = disks.fold(0, u64::saturating_add);
    let limit = limit.filter(|limit| wanted > *limit)?;
    Some(format!(
        "RAM disks can grow to {}, and the memory limit is {}: the system kills this process when it exceeds the limit; \
         make the disks smaller, or use image files",
        gib(wanted),
        gib(limit)
    ))
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Returns the memory available to the process: that of the machine, or the lowest limit of its control group
/// and the groups above it.
fn memory_limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    });
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_limit(&groups, Path::new("/sys/fs/cgroup"));
    machine.into_iter().chain(group).min()
}

/// Returns the lowest limit of control groups and those above them, in versions 1 and 2. `groups` is the
/// contents of the file `cgroup` of the process, and `root` the directory where the groups are mounted.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let (hierarchy, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let of = |group: &Path| -> Option<u64> {
            let limit = fs::read_to_string(hierarchy.join(group).join(file)).ok()?;
            limit.trim().parse().ok()
        };
        Path::new(group.strip_prefix('/')?)
            .ancestors()
            .filter_map(of)
            .min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn args(line: &str) -> Args {
        let words = "blockd --export ram=1G,socket=a"
            .split(' ')
            .chain(line.split_whitespace());
        Args::try_parse_from(words).unwrap()
    }

    #[test]
    fn c33_options_without_polling_are_warned_of() {
        assert_eq!(without_polling(&args("")), None);
        for (line, name) in [
            ("--policy always", "--policy"),
            ("--poll-grow 5", "--poll-grow"),
            ("--poll-shrink 2 --poll-weight 1", "--poll-shrink, --poll-weight"),
            ("--poll-cpu-max 50 --poll-max 0", "--poll-cpu-max"),
            ("--poll-exclusive", "--poll-exclusive"),
            ("--record-waits f --poll-max 0", "--record-waits"),
        ] {
            let warnings = warnings(&args(line));
            assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
            assert!(
                warnings[0].starts_with(&format!("{name}: no effect without polling")),
                "{line}"
            );
        }
    }

    #[test]
    fn c33_options_that_a_policy_ignores_are_warned_of() {
        for (line, name) in [
            ("--poll-grow 5", "--poll-grow"),
            (
                "--policy always --poll-shrink 5 --poll-cpu-price 50",
                "--poll-cpu-price, --poll-shrink",
            ),
            (
                "--policy qemu-2020 --poll-grow 5 --poll-weight 1",
                "--poll-weight",
            ),
        ] {
            let warnings = warnings(&args(&format!("--poll-max 32us {line}")));
            assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
            assert!(
                warnings[0].starts_with(&format!("{name}: no effect with --policy")),
                "{line}"
            );
        }
        for line in [
            "",
            "--policy qemu-weighted --poll-grow 5 --poll-shrink 2 --poll-weight 1",
            "--poll-cpu-price 50",
        ] {
            assert_eq!(
                warnings(&args(&format!("--poll-max 32us {line}"))),
                [""; 0],
                "{line}"
            );
        }
    }

    #[test]
    fn c33_threads_without_an_export_are_warned_of() {
        let warning = warnings(&args("--iothreads 3")).join("");
        assert!(
            warning.contains("2 threads have no export") && warning.contains("iothread=all"),
            "{warning}"
        );
        for line in [
            "--iothreads 1",
            "--iothreads 2 --export ram=1M,socket=b",
            "--iothreads 3 --control c",
            "--iothreads 3 --export ram=1M,socket=b,iothread=all",
            "--iothreads 3 --export ram=1M,socket=b,iothread=1",
        ] {
            assert_eq!(idle_threads(&args(line)), None, "{line}");
        }
    }

    #[test]
    fn c33_disks_that_do_not_fit_into_memory_are_warned_of() {
        let two = args("--export ram=2G,socket=b --export null=100T,socket=c");
        assert_eq!(beyond(in_memory(&two), Some(3 << 30)), None);
        assert_eq!(beyond(in_memory(&two), None), None);
        let warning = beyond(in_memory(&two), Some((3 << 30) - 1)).unwrap();
        assert!(warning.contains("3.0 GiB"), "{warning}");
        assert!(memory_limit().is_some_and(|limit| limit > 1 << 20));
    }

    #[test]
    fn c33_the_least_limit_of_memory_on_the_way_to_the_root_counts() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let limit = |groups: &str| group_limit(groups, directory.path());
        let (two, one) = ("0::/a/b/c\n", "3:cpu:/a\n7:foo,memory:/a/b\n1:name=systemd:/\n");
        assert_eq!((limit(two), limit(one), limit("")), (None, None, None));
        write("a/b/c/memory.max", "max\n");
        assert_eq!(limit(two), None);
        write("a/memory.max", "3000\n");
        assert_eq!(limit(two), Some(3000));
        write("a/b/c/memory.max", "2000\n");
        write("other/memory.max", "1\n");
        assert_eq!((limit(two), limit(one)), (Some(2000), None));
        write("memory/a/memory.limit_in_bytes", "700\n");
        write("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(one), Some(700));
        assert_eq!(limit(&format!("{one}{two}")), Some(700));
        // In a container's namespace, its own group is the root.
        write("memory.max", "50\n");
        assert_eq!((limit("0::/\n"), limit("0::/elsewhere\n")), (Some(50), Some(50)));
    }

    #[test]
    fn c22_many_queues_are_offered_and_few_reckoned_with() {
        let export: Export = "ram=1M,socket=a".parse().unwrap();
        assert_eq!(export.queues, MOST_QUEUES);
        assert!(likely_queues(&export) <= MOST_QUEUES);
        let export: Export = "ram=1M,socket=a,queues=32".parse().unwrap();
        assert_eq!(likely_queues(&export), 32);
    }
}
