//! C15: an image whose path names another file, or nothing, while it is served.

use std::path::Path;

use serde_json::json;

use super::Controlled;
use crate::client::{Client, pattern};

/// Returns the state of the first export's image in `list`: as JSON, and as the cell of the table.
fn shown(controlled: &Controlled, path: &Path) -> (String, String) {
    let list = controlled.tell(&json!({"command": "list"}));
    let state = list["exports"][0]["image"]
        .as_str()
        .unwrap_or("in-place")
        .to_owned();
    let table = controlled.ctl_says(&["list"]);
    let line = table.lines().nth(1).unwrap();
    let disk = format!("path={}", path.display());
    let (_, rest) = line.split_once(&disk).unwrap();
    let note = rest.trim_start().split("  ").next().unwrap();
    (state, note.to_owned())
}

#[test]
fn c15_a_replaced_or_deleted_image_is_shown_and_logged() {
    let directory = tempfile::tempdir().unwrap();
    let [path, other, kept] = ["disk.raw", "other.raw", "kept.raw"].map(|name| directory.path().join(name));
    for file in [&path, &other] {
        std::fs::File::create(file).unwrap().set_len(1 << 20).unwrap();
    }
    let controlled = Controlled::start(&format!("path={}", path.display()));
    assert_eq!(
        shown(&controlled, &path),
        ("in-place".to_owned(), "1M".to_owned())
    );
    std::fs::rename(&path, &kept).unwrap();
    assert_eq!(
        shown(&controlled, &path),
        ("missing".to_owned(), "(renamed or deleted)".to_owned())
    );
    std::fs::rename(&other, &path).unwrap();
    let replaced = ("replaced".to_owned(), "(replaced by another file)".to_owned());
    assert_eq!(shown(&controlled, &path), replaced);
    // The export continues with the file that it has opened, also when it is resized.
    let mut client = Client::simple(controlled.daemon.socket());
    client.write(0, 0, &pattern(1, 4096)).unwrap();
    client.flush(0).unwrap();
    drop(client);
    assert_eq!(std::fs::read(&kept).unwrap()[..4096], pattern(1, 4096));
    assert_eq!(std::fs::read(&path).unwrap()[..4096], [0; 4096]);
    let resized = controlled.ctl_says(&["resize", "first", "2M"]);
    assert!(
        resized.contains("warning: ") && resized.contains("another file"),
        "{resized}"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    // The image comes back.
    std::fs::rename(&kept, &path).unwrap();
    assert_eq!(
        shown(&controlled, &path),
        ("in-place".to_owned(), "2M".to_owned())
    );
    let log = controlled.daemon.stop();
    for (count, line) in [(1, "names no file any more"), (1, "names another file by now")] {
        assert_eq!(log.matches(line).count(), count, "{line}: {log}");
    }
}
