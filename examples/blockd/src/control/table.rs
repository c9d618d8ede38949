//! [`Table`]: columns of text that are as wide as their widest cell.

use std::io::{self, Write};

/// Rows of cells under a heading.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        let heading = heading.iter().map(|&cell| cell.to_owned()).collect();
        Self { rows: vec![heading] }
    }

    /// Adds a row with as many cells as the heading has. Control characters, which paths can contain, are escaped.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(printable).collect());
    }

    /// Writes all rows. The last column is not padded.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // The padding counts characters.
                line.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn printable(cell: String) -> String {
    if !cell.contains(char::is_control) {
        return cell;
    }
    let mut text = String::new();
    for character in cell.chars() {
        match character.is_control() {
            true => text.extend(character.escape_default()),
            false => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path must not change how a terminal shows other cells.
    #[test]
    fn control_characters_are_escaped() {
        let mut table = Table::new(&["SOCKET"]);
        table.row(["a\n\u{1b}[2J\u{e4}".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "SOCKET\na\\n\\u{1b}[2J\u{e4}\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(["a long name".to_owned(), "1G".to_owned()]);
        table.row(["\u{e4}".to_owned(), "20".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME         SIZE\na long name  1G\n\u{e4}            20\n");
    }
}
