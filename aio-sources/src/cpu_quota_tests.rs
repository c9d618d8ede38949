use super::*;

fn ms(quota: u64, period: u64) -> CpuQuota {
    CpuQuota::new(Duration::from_millis(quota), Duration::from_millis(period)).unwrap()
}

/// A directory with a `/proc` entry of a thread and with control groups, all of them ordinary files.
struct Tree(tempfile::TempDir);

impl Tree {
    /// Makes a tree with the thread in these groups. A mount is the group at its top, a directory, a file
    /// system and options.
    fn new(groups: &str, mounts: &[(&str, &str, &str, &str)]) -> Self {
        let tree = Self(tempfile::Builder::new().prefix("cpu quota").tempdir().unwrap());
        let mounts: String = mounts
            .iter()
            .map(|(root, directory, system, options)| {
                let point = tree
                    .0
                    .path()
                    .join(directory)
                    .display()
                    .to_string()
                    .replace(' ', "\\040");
                format!("32 31 0:29 {root} {point} rw,relatime shared:9 - {system} {system} {options}\n")
            })
            .collect();
        tree.write(
            "thread/mountinfo",
            &format!("23 1 0:21 / /proc rw - proc proc rw\n{mounts}"),
        );
        tree.write("thread/cgroup", groups);
        tree
    }

    fn two(group: &str) -> Self {
        Self::new(&format!("0::{group}\n"), &[("/", "cgroup", "cgroup2", "rw")])
    }

    fn write(&self, file: &str, text: &str) -> &Self {
        let file = self.0.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        self
    }

    fn quota(&self) -> io::Result<Option<CpuQuota>> {
        CpuQuota::of(&self.0.path().join("thread"))
    }
}

#[test]
fn a13_the_quota_of_the_own_group_is_read() {
    let tree = Tree::two("/system.slice/disk.service");
    assert_eq!(tree.quota().unwrap(), None, "no files at all");
    tree.write("cgroup/system.slice/disk.service/cpu.max", "20000 100000\n");
    assert_eq!(tree.quota().unwrap(), Some(ms(20, 100)));
    tree.write("cgroup/system.slice/disk.service/cpu.max", "max 100000\n");
    assert_eq!(tree.quota().unwrap(), None);
}

#[test]
fn a13_the_least_quota_on_the_way_to_the_root_counts() {
    let tree = Tree::two("/a/b/c");
    tree.write("cgroup/a/b/c/cpu.max", "50000 100000\n")
        .write("cgroup/a/cpu.max", "4000 10000\n")
        .write("cgroup/other/cpu.max", "1000 100000\n");
    assert_eq!(tree.quota().unwrap(), Some(ms(4, 10)));
    // A longer period with a smaller share.
    tree.write("cgroup/a/b/cpu.max", "300000 1000000\n");
    assert_eq!(tree.quota().unwrap(), Some(ms(300, 1000)));
}

#[test]
fn a13_version_1_has_two_files_and_a_hierarchy_for_each_controller() {
    let tree = Tree::new(
        "3:cpuset:/other\n2:cpu,cpuacct:/vm/disk\n1:name=systemd:/vm\n0::/\n",
        &[
            ("/", "set", "cgroup", "rw,cpuset"),
            ("/", "account", "cgroup", "rw,cpu,cpuacct"),
            ("/", "unified", "cgroup2", "rw"),
        ],
    );
    tree.write("set/other/cpu.cfs_quota_us", "1\n")
        .write("set/other/cpu.cfs_period_us", "100000\n")
        .write("account/cpu.cfs_quota_us", "-1\n")
        .write("account/cpu.cfs_period_us", "100000\n");
    assert_eq!(tree.quota().unwrap(), None);
    tree.write("account/vm/disk/cpu.cfs_quota_us", "150000\n");
    assert_eq!(tree.quota().unwrap(), None, "without a period");
    tree.write("account/vm/disk/cpu.cfs_period_us", "100000\n");
    assert_eq!(tree.quota().unwrap(), Some(ms(150, 100)));
    // Both versions at once.
    tree.write("unified/cpu.max", "90000 100000\n");
    assert_eq!(tree.quota().unwrap(), Some(ms(90, 100)));
}

#[test]
fn a13_in_a_container_the_mount_point_is_the_group_of_the_container() {
    let mounts = [("/docker/17", "cgroup", "cgroup2", "rw")];
    let tree = Tree::new("0::/docker/17/disk\n", &mounts);
    tree.write("cgroup/cpu.max", "20000 100000\n")
        .write("cgroup/docker/17/disk/cpu.max", "1000 100000\n");
    assert_eq!(tree.quota().unwrap(), Some(ms(20, 100)));
    tree.write("cgroup/disk/cpu.max", "10000 100000\n");
    assert_eq!(tree.quota().unwrap(), Some(ms(10, 100)));
    // A mount of groups that are not above this thread gives no quota.
    tree.write("thread/cgroup", "0::/docker/18\n");
    assert_eq!(tree.quota().unwrap(), None);
}

#[test]
fn a13_what_is_missing_is_no_quota_and_what_is_malformed_an_error() {
    let tree = Tree::two("/a");
    for text in [
        "",
        "20000",
        "many 100000",
        "20000 0",
        "-5 100000",
        "20000 100000 9",
    ] {
        let error = tree.write("cgroup/a/cpu.max", text).quota().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("a/cpu.max"), "{error}");
    }
    let unreadable = Tree::two("/a");
    fs::create_dir_all(unreadable.0.path().join("cgroup/a/cpu.max")).unwrap();
    let error = unreadable.quota().unwrap_err().to_string();
    assert!(
        error.contains("cannot read") && error.contains("a/cpu.max"),
        "{error}"
    );
    assert_eq!(CpuQuota::of(Path::new("/nonexistent")).unwrap(), None, "no /proc");
    // Malformed lines.
    tree.write(
        "thread/mountinfo",
        "\n - \n1 2 - cgroup2\n1 2 3 / /x - cgroup x\n",
    );
    assert_eq!(tree.quota().unwrap(), None);
}

#[test]
fn a13_polling_takes_at_most_a_quarter_of_the_quota() {
    let params = PollParams::up_to(Duration::from_micros(50));
    let limited = |quota: CpuQuota, given, loops| quota.limit(params.with_cpu_max(given), loops).cpu_max;
    assert_eq!(limited(ms(20, 100), 0, 1), 5);
    assert_eq!(limited(ms(20, 100), 100, 2), 2, "each of two loops");
    assert_eq!(limited(ms(20, 100), 3, 1), 3, "less is left");
    assert_eq!(limited(ms(20, 100), 4000, 0), 5);
    for unlimited in [0, 100] {
        assert_eq!(limited(ms(400, 100), unlimited, 1), unlimited, "four cores");
    }
    assert_eq!(limited(ms(399, 100), 0, 1), 99);
    // Less than a percent.
    let off = ms(20, 100).limit(params, 6);
    assert_eq!((off.max, off.cpu_max), (Duration::ZERO, 0));
    let exclusive = params.with_exclusive_core(true);
    assert_eq!(ms(20, 100).limit(exclusive, 1), exclusive);
    let most = CpuQuota::new(Duration::MAX, Duration::from_nanos(1)).unwrap();
    assert_eq!(
        (most.limit(params, usize::MAX), most.percent()),
        (params, u32::MAX)
    );
    assert_eq!(ms(150, 100).percent(), 150);
    assert_eq!(CpuQuota::new(Duration::MAX, Duration::ZERO), None);
}

#[test]
fn a13_constant_policies_keep_the_limit_from_the_first_second() {
    use aio_context::{Iteration, Policy, PollPolicy as _};

    let us = Duration::from_micros;
    for name in Policy::NAMES {
        let params = ms(20, 100).limit(PollParams::unlimited(), 1);
        let mut policy = Policy::by_name(name, params).unwrap();
        let (mut polled, mut passed) = (Duration::ZERO, Duration::ZERO);
        while passed < Duration::from_secs(1) {
            let budget = policy.budget();
            let (spun, slept) = (budget.min(us(90)), budget < us(90));
            let elapsed = if slept { us(100) } else { us(90) };
            policy.observe(Iteration::new(elapsed, spun, slept, !slept));
            polled += spun;
            passed += elapsed;
        }
        // A millisecond at once, and the excess of one wait.
        let most = passed / 20 + Duration::from_millis(2);
        assert!(polled <= most, "{name}: {polled:?} of {passed:?}");
        assert!(
            *name != "always" || polled > passed / 25,
            "{polled:?} of {passed:?}"
        );
    }
}

#[test]
fn octal_numbers_of_paths_are_characters() {
    for (text, path) in [
        (r"/a\040b", "/a b"),
        (r"/a\134", "/a\\"),
        (r"/a\04", r"/a\04"),
        (r"/a\999", r"/a\999"),
        (r"\", r"\"),
    ] {
        assert_eq!(unescape(text), Path::new(path));
    }
}
