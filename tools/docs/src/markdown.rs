//! The links and the anchors of a Markdown page.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A link or an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The destination, as it is written.
    pub(crate) to: String,
    /// The range of the whole link in the text.
    pub(crate) at: Range<usize>,
}

impl Link {
    /// Returns `true` if the link leaves the repository. Such links are not checked, because that needs a
    /// network.
    pub(crate) fn is_outside(&self) -> bool {
        is_outside(&self.to)
    }
}

/// Returns `true` if a link names another site.
pub(crate) fn is_outside(to: &str) -> bool {
    ["https:", "http:", "mailto:", "data:"]
        .iter()
        .any(|scheme| to.starts_with(scheme))
}

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES)
}

/// Returns the links and images of a page, in order. It ignores code.
pub(crate) fn links(text: &str) -> Vec<Link> {
    let events = parser(text).into_offset_iter();
    let mut found: Vec<Link> = Vec::new();
    for (event, at) in events {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => found.push(Link {
                to: dest_url.into_string(),
                at,
            }),
            Event::Html(html) | Event::InlineHtml(html) => {
                let named = ["href", "src"].iter().flat_map(|name| attributes(&html, name));
                found.extend(named.map(|to| Link {
                    to: to.to_owned(),
                    at: at.clone(),
                }));
            }
            _ => {}
        }
    }
    found
}

/// Returns the anchors of a page: those of its headings, and the ids of its HTML.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let (mut anchors, mut heading) = (Vec::new(), None);
    let mut seen = BTreeMap::new();
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let slug = slug(&heading.take().unwrap_or_default());
                let count: &mut u32 = seen.entry(slug.clone()).or_default();
                anchors.push(match *count {
                    0 => slug,
                    number => format!("{slug}-{number}"),
                });
                *count += 1;
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                anchors.extend(attributes(&html, "id").map(str::to_owned));
            }
            _ => {}
        }
    }
    anchors
}

/// Returns the anchor of a heading.
fn slug(heading: &str) -> String {
    let kept = |letter: char| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter if letter.is_alphanumeric() => Some(letter),
        _ => None,
    };
    heading.trim().to_lowercase().chars().filter_map(kept).collect()
}

/// Returns the values of an attribute in HTML, such as all `href="..."`.
pub(crate) fn attributes<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!(" {name}=\"");
    let places: Vec<usize> = html
        .match_indices(&begin)
        .map(|(at, _)| at + begin.len())
        .collect();
    places
        .into_iter()
        .filter_map(|at| html[at..].split_once('"').map(|(value, _)| value))
}

/// Returns the includes of a page: the files, as they are written, and the names of their parts.
pub(crate) fn includes(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let named = text
        .split("{{#include ")
        .skip(1)
        .filter_map(|rest| rest.split_once("}}"));
    named.map(|(named, _)| match named.split_once(':') {
        Some((file, part)) => (file, Some(part)),
        None => (named, None),
    })
}

/// Returns a path without `.` and `..`. A leading `..` that cannot be resolved stays.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        let is_up = part == Component::ParentDir;
        if part == Component::CurDir {
            continue;
        }
        let can_go_up = matches!(plain.components().next_back(), Some(Component::Normal(_)));
        if !(is_up && can_go_up && plain.pop()) {
            plain.push(part);
        }
    }
    plain
}

/// Returns the path and the anchor of a link.
pub(crate) fn parts(to: &str) -> (&str, Option<&str>) {
    to.split_once('#')
        .map_or((to, None), |(path, anchor)| (path, Some(anchor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_images_are_found_and_code_is_not_searched() {
        let text = "A [link](a.md#x), ![a picture](b.svg),\n`[code](c.md)` and <img src=\"d.svg\" id=\"e\">.\n\n\
                    ```\n[more](f.md)\n```\n\n| [g](../g) |\n|---|\n| [h](https://h) |\n";
        let found = links(text);
        let to: Vec<&str> = found.iter().map(|link| link.to.as_str()).collect();
        assert_eq!(to, ["a.md#x", "b.svg", "d.svg", "../g", "https://h"]);
        assert_eq!(&text[found[0].at.clone()], "[link](a.md#x)");
        assert!(found[4].is_outside() && !found[3].is_outside());
        assert_eq!(anchors(text), ["e"]);
    }

    #[test]
    fn anchors_are_those_of_the_headings() {
        let text = "# `Context`: what, and why?\n\n## R1: a_b\n\n## R1: a_b\n";
        assert_eq!(anchors(text), ["context-what-and-why", "r1-a_b", "r1-a_b-1"]);
    }

    #[test]
    fn includes_are_found() {
        let text = "```\n{{#include ../a.rs:part}}\n```\n{{#include b.rs}}\n";
        let found: Vec<_> = includes(text).collect();
        assert_eq!(found, [("../a.rs", Some("part")), ("b.rs", None)]);
    }

    #[test]
    fn paths_are_resolved() {
        for (path, expected) in [
            ("docs/../README.md", "README.md"),
            ("./a/./b", "a/b"),
            ("../a", "../a"),
            ("a/../../b", "../b"),
        ] {
            assert_eq!(plain(Path::new(path)), Path::new(expected));
        }
        assert_eq!(parts("a.md#b"), ("a.md", Some("b")));
        assert_eq!(parts("a.md"), ("a.md", None));
    }
}
