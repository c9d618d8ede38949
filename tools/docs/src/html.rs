//! Checks the links of the built pages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::markdown::{attributes, is_outside, parts, plain};

/// The directory of the API documentation. rustdoc has checked the links in it.
pub(crate) const API: &str = "api";

/// Checks every link of the pages in `book`, including the links into the API documentation. Returns the
/// result in a line.
///
/// # Errors
/// The error lists the links that name a missing file or anchor.
pub(crate) fn check(book: &Path) -> anyhow::Result<String> {
    let mut pages = Vec::new();
    collect(book, Path::new(""), &mut pages)?;
    let mut known = BTreeMap::new();
    let (mut count, mut faults) = (0, BTreeSet::new());
    for page in &pages {
        let text = read(&book.join(page))?;
        for to in ["href", "src"].iter().flat_map(|name| attributes(&text, name)) {
            if is_outside(to) || to.starts_with("javascript:") || to.is_empty() {
                continue;
            }
            count += 1;
            let (path, anchor) = parts(to);
            let target = match path {
                "" => page.clone(),
                path => plain(&page.parent().unwrap_or(Path::new("")).join(path)),
            };
            if !book.join(&target).exists() {
                faults.insert(format!("{}: {to} does not exist", page.display()));
                continue;
            }
            let is_page = target.extension().is_some_and(|is| is == "html");
            let Some(anchor) = anchor.filter(|anchor| is_page && !anchor.is_empty()) else {
                continue;
            };
            if !known.contains_key(&target) {
                let text = read(&book.join(&target))?;
                let ids = attributes(&text, "id").map(str::to_owned);
                known.insert(target.clone(), ids.collect::<BTreeSet<_>>());
            }
            if !known[&target].contains(anchor) {
                faults.insert(format!(
                    "{}: {to} names an anchor that does not exist",
                    page.display()
                ));
            }
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.into_iter().collect::<Vec<_>>().join("\n"));
    }
    Ok(format!("{count} links in {} pages", pages.len()))
}

fn read(page: &Path) -> anyhow::Result<String> {
    fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))
}

/// Adds the pages in a directory of the book, without those of the API documentation.
fn collect(book: &Path, directory: &Path, pages: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let whole = book.join(directory);
    for entry in fs::read_dir(&whole).with_context(|| format!("cannot read {}", whole.display()))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if path != Path::new(API) {
                collect(book, &path, pages)?;
            }
        } else if path.extension().is_some_and(|is| is == "html") {
            pages.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_of_built_pages_are_found() {
        let book = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(book.path().join(name), text).unwrap();
        fs::create_dir_all(book.path().join("api/x")).unwrap();
        write("api/x/index.html", "<p id=\"y\"><a href=\"none.html\">");
        write(
            "index.html",
            "<h1 id=\"a\"> <a href=\"#a\"> <a href=\"b.html\"> <a href=\"https://c\">",
        );
        write(
            "b.html",
            "<img src=\"c.svg\"> <a href=\"index.html#a\"> <a href=\"api/x/index.html#y\">",
        );
        write("c.svg", "");
        assert_eq!(check(book.path()).unwrap(), "5 links in 2 pages");
        write(
            "b.html",
            "<img src=\"d.svg\"> <a href=\"index.html#b\"> <a href=\"api/x/index.html#z\">",
        );
        let faults = check(book.path()).unwrap_err().to_string();
        assert_eq!(
            faults,
            "b.html: api/x/index.html#z names an anchor that does not exist\nb.html: d.svg does not exist\n\
             b.html: index.html#b names an anchor that does not exist"
        );
    }
}
