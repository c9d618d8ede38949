//! Public types without an example in their documentation.

use serde_json::Value;

use crate::library::Library;

/// The kinds of items that need an example.
const KINDS: [&str; 7] = [
    "struct",
    "enum",
    "union",
    "trait",
    "type_alias",
    "macro",
    "proc_macro",
];
/// The words after the fence of a block that rustdoc compiles and a reader can copy. A block that must not
/// compile shows a rejected program, so it is no example.
const COMPILED: [&str; 4] = ["", "rust", "no_run", "should_panic"];

/// A public item without an example.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WithoutExample {
    path: String,
    /// The file, relative to the workspace, and the line.
    place: String,
}

impl WithoutExample {
    /// Returns the item if it needs an example and has none: in its own documentation, in that of one of its inherent functions, or, for
    /// a trait, in that of one of its functions.
    pub(crate) fn of(index: &Value, item: &Value, path: &str) -> Option<Self> {
        let (kind, is) = item["inner"].as_object()?.iter().next()?;
        if !KINDS.contains(&kind.as_str()) || has_example(item) {
            return None;
        }
        let of_trait = list(&is["items"]).map(|id| &index[id.to_string()]);
        let implementations = list(&is["impls"]).map(|id| &index[id.to_string()]["inner"]["impl"]);
        let inherent = implementations.filter(|of| of["trait"].is_null());
        let mut members =
            of_trait.chain(inherent.flat_map(|of| list(&of["items"]).map(|id| &index[id.to_string()])));
        if members.any(|member| !member["inner"]["function"].is_null() && has_example(member)) {
            return None;
        }
        let file = item["span"]["filename"].as_str().unwrap_or_default();
        Some(Self {
            path: path.to_owned(),
            place: format!("{file}:{}", item["span"]["begin"][0]),
        })
    }

    /// Returns the fault as a line.
    pub(crate) fn fault(&self, library: &Library) -> String {
        let Self { path, place } = self;
        let directory = if library.is_apart() {
            format!("{}/", library.name)
        } else {
            String::new()
        };
        format!("{directory}{place}: {path} has no example: add one under `# Examples` to its documentation")
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Returns `true` if the documentation of an item has a block that is compiled.
fn has_example(item: &Value) -> bool {
    let docs = item["docs"].as_str().unwrap_or_default();
    let mut fences = docs
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("```"));
    while let Some(words) = fences.next() {
        if words
            .split([',', ' '])
            .all(|word| COMPILED.contains(&word.trim()) || word.starts_with("edition"))
        {
            return true;
        }
        fences.next(); // the end of the block
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::library::APART;

    fn documented(docs: &str, kind: &str, is: &Value) -> Value {
        json!({"docs": docs, "inner": {kind: is}, "span": {"filename": "aio-x/src/a.rs", "begin": [7, 1]}})
    }

    #[test]
    fn a_type_without_an_example_is_named_with_its_file() {
        let index = json!({});
        let item = documented("Waits.", "struct", &json!({}));
        let found = WithoutExample::of(&index, &item, "x::A").expect("it has no example");
        let library = |name: &str| Library {
            name: name.to_owned(),
            version: String::new(),
            directory: PathBuf::new(),
            package: Value::Null,
        };
        let fault = "aio-x/src/a.rs:7: x::A has no example: add one under `# Examples` to its documentation";
        assert_eq!(found.fault(&library("aio-x")), fault);
        assert_eq!(found.fault(&library(APART)), format!("aio-glib/{fault}"));
    }

    #[test]
    fn only_blocks_that_are_compiled_are_examples() {
        for (docs, expected) in [
            ("```\nlet a = 1;\n```", true),
            ("Text.\n\n# Examples\n```rust\n```", true),
            ("```no_run\n```", true),
            ("```should_panic, edition2024\n```", true),
            ("- item\n  ```\n  ```", true),
            ("```text\n```\n```\nlet a = 1;\n```", true),
            ("", false),
            ("`a`", false),
            ("```text\n```", false),
            ("```ignore\n```", false),
            ("```rust,ignore\n```", false),
            ("```compile_fail\n```", false),
            ("```text\n```\nNothing after the block.", false),
        ] {
            assert_eq!(has_example(&json!({"docs": docs})), expected, "{docs:?}");
        }
    }

    #[test]
    fn an_example_of_an_inherent_function_or_of_a_function_of_the_trait_counts() {
        let example = "```\nlet a = 1;\n```";
        let of = |is_inherent: bool, item: u32| {
            let of = if is_inherent {
                Value::Null
            } else {
                json!({"path": "Debug"})
            };
            json!({"inner": {"impl": {"trait": of, "items": [item]}}})
        };
        let index = json!({
            "1": documented(example, "function", &json!({})),
            "2": documented("", "function", &json!({})),
            "3": documented(example, "assoc_const", &json!({})),
            "4": of(true, 1),
            "5": of(true, 2),
            "6": of(true, 3),
            "7": of(false, 1),
        });
        let lacks_one =
            |kind: &str, is: Value| WithoutExample::of(&index, &documented("", kind, &is), "x::A").is_some();
        for (implementation, expected) in [(4, false), (5, true), (6, true), (7, true)] {
            assert_eq!(
                lacks_one("enum", json!({"impls": [implementation]})),
                expected,
                "{implementation}"
            );
        }
        assert!(
            lacks_one("struct", json!({"impls": []})) && !lacks_one("struct", json!({"impls": [7, 5, 4]}))
        );
        assert!(!lacks_one("trait", json!({"items": [2, 1], "impls": []})));
        assert!(lacks_one("trait", json!({"items": [2], "implementations": [4]})));
        assert!(lacks_one("type_alias", json!({})) && lacks_one("macro", json!({})));
        assert!(!lacks_one("function", json!({})) && !lacks_one("module", json!({"items": [2]})));
    }
}
