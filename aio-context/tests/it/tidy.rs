//! The path of an iteration takes no lock, which no run of the loop can prove.
//!
//! These tests read the sources of the workspace. Outside of the workspace they check nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Words of code that locks or waits for another thread.
const LOCKS: [&str; 9] = [
    "Mutex",
    "RwLock",
    "Condvar",
    "Barrier",
    "OnceLock",
    "LazyLock",
    "mpsc",
    ".lock(",
    "thread::park",
];

/// The files with such words, the most lines of them in a file, and the reason why no iteration runs these lines.
const EXCUSED: [(&str, usize, &str); 6] = [
    (
        "aio-notify/src/published.rs",
        4,
        "held by a thread that sets the polling parameters; the loop does not take it",
    ),
    (
        "aio-notify/src/weak_map.rs",
        3,
        "the list of the measured handlers: locked when one is measured, replaced or listed",
    ),
    (
        "aio-notify/src/reply.rs",
        6,
        "the answer of `run_on` and `run_and_wait`, which wait for another context",
    ),
    (
        "aio-notify/src/sync.rs",
        1,
        "the lock of `published`, `reply` and `weak_map`",
    ),
    ("aio-timers/src/sync.rs", 1, "the lock of `virtual_clock`"),
    (
        "aio-timers/src/virtual_clock.rs",
        8,
        "a clock that any thread may stop and warp; read only while a timer on this very clock is armed",
    ),
];

/// Returns the root of the workspace, if this crate is in it.
fn workspace() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    path_of_an_iteration()
        .iter()
        .all(|name| root.join(name).join("src").is_dir())
        .then(|| root.to_path_buf())
}

/// Returns the crates whose code an iteration runs: this one and its dependencies in the workspace.
fn path_of_an_iteration() -> Vec<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let (_, after) = manifest.split_once("\n[dependencies]\n").unwrap();
    let dependencies = after.split("\n[").next().unwrap_or(after).lines();
    let names = dependencies.filter_map(|line| line.split(['.', ' ', '=']).next());
    let mut crates: Vec<String> = names
        .filter(|name| name.starts_with("aio-"))
        .map(str::to_owned)
        .collect();
    assert!(crates.len() > 5, "the manifest was not understood: {crates:?}");
    crates.push("aio-context".to_owned());
    crates
}

/// Returns all Rust files below a folder, without build output.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Returns the lines of code of a source file without its unit tests, which are at the end, in a module of their own.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//") && !line.starts_with("use ");
    text.lines()
        .take_while(|line| !line.starts_with("mod tests {") && !line.starts_with("pub(crate) mod tests {"))
        .filter(is_code)
        .map(str::to_owned)
        .collect()
}

/// A preempted producer holds no lock for which the loop would wait.
#[test]
fn case_81_no_lock_lies_in_the_path_of_an_iteration() {
    let Some(root) = workspace() else { return };
    let mut excused: Vec<_> = EXCUSED.into_iter().collect();
    for name in path_of_an_iteration() {
        let mut files = Vec::new();
        rust_files(&root.join(name).join("src"), &mut files);
        for path in files {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            if name.ends_with("_tests.rs") || name.contains("/conformance/") {
                continue;
            }
            let locks = |line: &&String| LOCKS.iter().any(|word| line.contains(word));
            let lines = code(&path);
            let found: Vec<_> = lines.iter().filter(locks).collect();
            let position = excused.iter().position(|(file, _, _)| *file == name);
            let excuse = position.map(|position| excused.swap_remove(position));
            let allowed = excuse.map_or(0, |(_, lines, _)| lines);
            assert!(
                found.len() <= allowed,
                "{name} may have {allowed} such lines ({excuse:?}): {found:#?}"
            );
            assert!(
                excuse.is_none() || !found.is_empty(),
                "no longer needed: {excuse:?}"
            );
        }
    }
    assert!(excused.is_empty(), "there is no such file: {excused:?}");
}
