//! The pages of `docs/` show programs of the repository unchanged.

use std::path::Path;

#[test]
fn the_pages_show_the_programs_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (page, program) in [
        ("docs/writing-a-policy.md", "aio-replay/examples/judge.rs"),
        (
            "docs/writing-a-backend.md",
            "examples/third-party-backend/src/poll.rs",
        ),
    ] {
        let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("it is in the repository");
        assert!(
            read(page).contains(&read(program)),
            "{page} shows another {program}: copy it there"
        );
    }
}
