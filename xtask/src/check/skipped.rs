//! Steps that lack a requirement.

/// Prints that a step is skipped. Returns the text for the summary.
pub(super) fn skipped(lacking: &str) -> String {
    let why = format!("skipped: {lacking}");
    println!("{why}");
    why
}
