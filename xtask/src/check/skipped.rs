//! Steps that lack something.

/// Prints that a step is skipped. Returns what the summary says.
pub(super) fn skipped(lacking: &str) -> String {
    let why = format!("skipped: {lacking}");
    println!("{why}");
    why
}
