//! The demo's rows as a picture: requests per second over idle queues.

use std::path::Path;

use super::Row;

pub(super) fn draw(_file: &Path, _rows: &[Row]) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
