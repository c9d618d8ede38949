//! The preprocessor of the book. mdBook passes it the chapters as JSON, and renders its output.
//!
//! A chapter may be any page of the repository, and its links work in the repository. The preprocessor gives
//! such a chapter a place in the book, and turns its links into links of the book. It shows a program as
//! code.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::markdown::{links, plain};
use crate::pages::{BOOK, Pages};

/// Reads the input of mdBook, and writes the changed book.
///
/// # Errors
/// If the input is not a book, or a link names something that the book lacks.
pub(crate) fn run(input: impl Read, output: impl Write) -> anyhow::Result<()> {
    let input: [Value; 2] = serde_json::from_reader(input).context("mdbook passed no book")?;
    let [_context, mut book] = input;
    let items = book["items"]
        .as_array_mut()
        .context("the book has no items: is mdbook 0.5 installed?")?;
    change(items, &Pages::read()?)?;
    serde_json::to_writer(output, &book).context("mdbook does not read the book")
}

fn change(items: &mut [Value], pages: &Pages) -> anyhow::Result<()> {
    for item in items {
        let Some(chapter) = item.get_mut("Chapter") else {
            continue; // a separator, or the title of a part
        };
        if let Some(path) = chapter["source_path"].as_str() {
            let file = plain(&Path::new(BOOK).join(path));
            let text = chapter["content"].as_str().unwrap_or_default();
            let text = if file.extension().is_some_and(|is| is == "rs") {
                program(&file, text)
            } else {
                page(&file, text, pages)?
            };
            let path = pages
                .chapter(&file)
                .with_context(|| format!("{} is no chapter", file.display()))?;
            chapter["path"] = path.to_string_lossy().into();
            chapter["content"] = text.into();
        }
        if let Some(more) = chapter["sub_items"].as_array_mut() {
            change(more, pages)?;
        }
    }
    Ok(())
}

/// Returns a page whose links are those of the book.
fn page(file: &Path, text: &str, pages: &Pages) -> anyhow::Result<String> {
    let mut edits = Vec::new();
    for link in links(text) {
        if link.is_outside() || link.to.starts_with('#') {
            continue;
        }
        let place = text[link.at.clone()].rfind(&link.to);
        ensure!(
            place.is_some(),
            "{}: write the address of the link to {} where the link is",
            file.display(),
            link.to
        );
        let begin = link.at.start + place.unwrap_or_default();
        edits.push((begin..begin + link.to.len(), pages.rewrite(file, &link.to)?));
    }
    // From the end, so that the places of the other edits stay valid.
    edits.sort_by_key(|(at, _)| at.start);
    let mut changed = text.to_owned();
    for (at, new) in edits.into_iter().rev() {
        changed.replace_range(at, &new);
    }
    Ok(outdent(&changed))
}

/// Moves the code of a page to the left margin. The included parts of programs can be indented.
fn outdent(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut rest = lines.as_mut_slice();
    while let Some(begin) = rest.iter().position(|line| is_fence(line)) {
        let (_, code) = rest.split_at_mut(begin + 1);
        let end = code.iter().position(|line| is_fence(line)).unwrap_or(code.len());
        let (code, after) = code.split_at_mut(end);
        let indents = code.iter().filter(|line| !line.trim().is_empty());
        let indent = indents
            .map(|line| line.len() - line.trim_start_matches(' ').len())
            .min();
        for line in code {
            *line = line.get(indent.unwrap_or_default()..).unwrap_or_default();
        }
        rest = after.get_mut(1..).unwrap_or_default();
    }
    lines.join("\n") + "\n"
}

/// Returns `true` if a line begins or ends a block of code.
fn is_fence(line: &str) -> bool {
    line.starts_with("```")
}

/// Returns the page of a program: its name, the command to run it, and its text.
fn program(file: &Path, text: &str) -> String {
    let mut name = file.file_stem().unwrap_or_default().to_string_lossy();
    if name == "main" {
        let folder = file.parent().and_then(Path::file_name);
        name = folder.unwrap_or_default().to_string_lossy();
    }
    // Without the marks of the parts that other pages show.
    let shown = text.lines().filter(|line| !line.contains("// ANCHOR"));
    let shown: Vec<&str> = shown.collect();
    let package: PathBuf = file
        .components()
        .take_while(|part| part.as_os_str() != "examples")
        .collect();
    let how = match package.to_str() {
        // This library is a workspace of its own.
        Some(apart @ "aio-glib") => format!("cargo run --manifest-path {apart}/Cargo.toml --example {name}"),
        Some(package) if !package.is_empty() => format!("cargo run -p {package} --example {name}"),
        _ => "cargo test".to_owned(),
    };
    format!(
        "# `{name}`\n\n`{}` in the repository; `{how}` runs it.\n\n```rust,ignore\n{}\n```\n",
        file.display(),
        shown.join("\n").trim_end()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn chapters_get_their_places_and_links() {
        let pages = Pages::read().unwrap();
        let chapter = |path: &str, text: &str, more: Value| json!({"Chapter": {"name": "x", "content": text, "path": path, "source_path": path, "sub_items": more}});
        let readme =
            "[r](docs/rules.md#r1), [![p](docs/demo.svg)](docs/rules.md) `[r](docs/rules.md)` [o](https://o)";
        let inner = chapter(
            "../aio-context/examples/in_mio.rs",
            "fn main() {\n// ANCHOR: a\n}\n",
            json!([]),
        );
        let mut items = [
            json!({"PartTitle": "y"}),
            chapter("../README.md", readme, json!([inner])),
        ];
        change(&mut items, &pages).unwrap();
        assert_eq!(items[0], json!({"PartTitle": "y"}));
        let changed = &items[1]["Chapter"];
        assert_eq!(changed["path"], "index.md");
        assert_eq!(
            changed["content"],
            "[r](rules.md#r1), [![p](demo.svg)](rules.md) `[r](docs/rules.md)` [o](https://o)\n"
        );
        let inner = &changed["sub_items"][0]["Chapter"];
        assert_eq!(inner["path"], "aio-context/examples/in_mio.md");
        let text = inner["content"].as_str().unwrap();
        assert!(
            text.contains("cargo run -p aio-context --example in_mio"),
            "{text}"
        );
        assert!(text.ends_with("```rust,ignore\nfn main() {\n}\n```\n"), "{text}");
    }

    #[test]
    fn code_begins_at_the_left_edge() {
        let text = "a\n```rust\n    b {\n\n        c\n    }\n```\n    d\n```\n  e\n```\nf\n";
        let expected = "a\n```rust\nb {\n\n    c\n}\n```\n    d\n```\ne\n```\nf\n";
        assert_eq!(outdent(text), expected);
        assert_eq!(outdent("```\n  open"), "```\nopen\n");
    }

    #[test]
    fn a_link_out_of_the_book_is_an_error() {
        let pages = Pages::read().unwrap();
        let error = page(Path::new("README.md"), "[x](xtask/src/main.rs)", &pages).unwrap_err();
        assert!(
            error.to_string().contains("list it in docs/SUMMARY.md"),
            "{error}"
        );
    }
}
