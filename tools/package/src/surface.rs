//! The public interface of each library, one item a line, compared with a listing in `tools/package/surface`.
//!
//! A listing names functions, types, fields, constants, and the traits that types implement, including `Send`
//! and `Sync`. So a change of any of these shows in the diff of a commit. The source is rustdoc's JSON. Its
//! format is not stable, and each version of Rust has one format. With another format the comparison is
//! skipped.
//!
//! This module also finds the public types whose documentation has no example.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;
use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::examples::WithoutExample;
use crate::library::{self, Library};
use crate::pack::LIMIT;
use crate::render::Render;

/// The supported format of the JSON: that of Rust 1.94 and 1.95.
const FORMAT: u64 = 57;
/// Crates whose items may appear in the interface of a library, and the reason.
const ALLOWED: [(&str, &str, &str); 4] = [
    (
        "aio-backend",
        "bitflags",
        "interest and readiness are sets of flags, and have the traits of such sets",
    ),
    (
        "aio-executor",
        "futures_io",
        "`AsyncFd` has the traits that other crates read and write by",
    ),
    ("aio-glib", "glib", "it connects contexts with GLib"),
    (
        "aio-metrics",
        "prometheus_client",
        "its collectors are registered there",
    ),
];

/// The interface of a library.
#[derive(Debug, Default)]
struct Surface {
    lines: BTreeSet<String>,
    /// Crates from outside, with the paths of their types.
    foreign: BTreeSet<(String, String)>,
    without_example: BTreeSet<WithoutExample>,
}

/// Compares all listings, and finds the types without an example. Returns the result in a line.
pub(crate) fn check(libraries: &[Library], interrupt: &Interrupt) -> anyhow::Result<String> {
    let (mut faults, mut lacking) = (Vec::new(), Vec::new());
    let mut count = 0;
    for library in libraries {
        if let Some(lacks) = library::lacks(library) {
            println!("skipped: {lacks}");
            continue;
        }
        let surface = match of(library, interrupt)? {
            Ok(surface) => surface,
            Err(why) => return Ok(format!("skipped: {why}")),
        };
        count += surface.lines.len();
        let file = file(library);
        let listed = fs::read_to_string(&file).unwrap_or_default();
        faults.extend(differences(&library.name, &listed, &surface));
        faults.extend(strangers(&library.name, &surface));
        let without_example = surface.without_example.iter();
        lacking.extend(without_example.map(|item| item.fault(library)));
    }
    if !faults.is_empty() {
        faults.push(
            "if the change is meant: cargo xtask package --bless, and a line in CHANGELOG.md".to_owned(),
        );
    }
    faults.extend(lacking);
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(format!(
        "{count} public items, as listed in tools/package/surface; an example for each type"
    ))
}

/// Writes all listings.
pub(crate) fn bless(libraries: &[Library], interrupt: &Interrupt) -> anyhow::Result<()> {
    for library in libraries {
        if let Some(lacks) = library::lacks(library) {
            println!("skipped: {lacks}");
            continue;
        }
        let surface = of(library, interrupt)?.map_err(anyhow::Error::msg)?;
        let lines: Vec<&str> = surface.lines.iter().map(String::as_str).collect();
        fs::write(file(library), lines.join("\n") + "\n")?;
        println!("{:<20} {:>4} public items", library.name, surface.lines.len());
    }
    Ok(())
}

fn file(library: &Library) -> PathBuf {
    shell::root()
        .join("tools/package/surface")
        .join(format!("{}.txt", library.name))
}

/// Returns the new and the missing lines.
fn differences(library: &str, listed: &str, surface: &Surface) -> Vec<String> {
    let listed: BTreeSet<&str> = listed.lines().collect();
    let built: BTreeSet<&str> = surface.lines.iter().map(String::as_str).collect();
    let missing = listed
        .difference(&built)
        .map(|line| format!("- {library}: {line}"));
    missing
        .chain(
            built
                .difference(&listed)
                .map(|line| format!("+ {library}: {line}")),
        )
        .collect()
}

/// Returns the types of crates that may not appear, and the permitted crates that do not appear.
fn strangers(library: &str, surface: &Surface) -> Vec<String> {
    let allowed: Vec<&str> = ALLOWED
        .iter()
        .filter(|(of, _, _)| *of == library)
        .map(|(_, name, _)| *name)
        .collect();
    let is_foreign = |name: &str| surface.foreign.iter().any(|(of, _)| of == name);
    let mut faults: Vec<String> = surface
        .foreign
        .iter()
        .filter(|(name, _)| !allowed.contains(&name.as_str()))
        .map(|(_, path)| {
            format!(
                "{library}: {path} is in its public interface: wrap it, or add its crate to ALLOWED in \
                 tools/package/src/surface.rs with a reason"
            )
        })
        .collect();
    let unused = allowed.iter().filter(|name| !is_foreign(name));
    faults.extend(unused.map(|name| {
        format!("{library}: remove {name} from ALLOWED in tools/package/src/surface.rs: it is not used")
    }));
    faults
}

/// Returns the interface of a library with all features, or the reason why it cannot be read.
fn of(library: &Library, interrupt: &Interrupt) -> anyhow::Result<Result<Surface, String>> {
    println!("listing {}", library.name);
    let target = shell::target_dir()?.join("package/surface");
    let mut cargo = library.cargo();
    // The format of the output differs between versions of Rust, so the option is unstable.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.args([
        "rustdoc",
        "--quiet",
        "--locked",
        "--lib",
        "--all-features",
        "--package",
        &library.name,
        "--target-dir",
    ]);
    cargo.arg(&target).args([
        "--",
        "-Z",
        "unstable-options",
        "--output-format",
        "json",
        "--cap-lints",
        "allow",
    ]);
    shell::run_within(&mut cargo, LIMIT, interrupt)?;
    let file = target.join("doc").join(format!("{}.json", library.ident()));
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let json: Value = serde_json::from_str(&text)?;
    let format = json["format_version"].as_u64().unwrap_or_default();
    if format != FORMAT {
        return Ok(Err(format!(
            "rustdoc writes format {format} here, and format {FORMAT} is read; the listings are made with Rust 1.95"
        )));
    }
    let walk = Walk {
        index: &json["index"],
        render: Render {
            paths: &json["paths"],
            crates: &json["external_crates"],
            foreign: RefCell::default(),
        },
        lines: RefCell::default(),
        without_example: RefCell::default(),
    };
    walk.item(&json["root"], "", None);
    Ok(Ok(Surface {
        lines: walk.lines.into_inner(),
        without_example: walk.without_example.into_inner(),
        foreign: walk.render.foreign.into_inner(),
    }))
}

struct Walk<'a> {
    index: &'a Value,
    render: Render<'a>,
    lines: RefCell<BTreeSet<String>>,
    without_example: RefCell<BTreeSet<WithoutExample>>,
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Walk<'_> {
    fn line(&self, line: String) {
        self.lines.borrow_mut().insert(line);
    }

    /// Lists an item that is public, and everything in it. `above` is the path so far, `other` a name that
    /// replaces its own.
    fn item(&self, id: &Value, above: &str, other: Option<&str>) {
        let item = &self.index[id.to_string()];
        let Some((kind, is)) = item["inner"].as_object().and_then(|inner| inner.iter().next()) else {
            return;
        };
        let name = other.or(item["name"].as_str()).unwrap_or_default();
        let path = if above.is_empty() {
            name.to_owned()
        } else {
            format!("{above}::{name}")
        };
        let hidden = list(&item["attrs"]).any(|attribute| attribute.to_string().contains("doc(hidden)"));
        if hidden {
            return;
        }
        let without_example = WithoutExample::of(self.index, item, &path);
        self.without_example.borrow_mut().extend(without_example);
        match kind.as_str() {
            "module" => list(&is["items"]).for_each(|id| self.item(id, &path, None)),
            "use" => self.reexport(is, above),
            "struct" | "enum" | "union" => self.data(kind, &path, is),
            "trait" => self.contract(&path, is),
            "function" => self.line(format!("{path}: {}", self.render.function(name, is))),
            "constant" | "static" => self.line(format!("{path}: {kind} {}", self.render.of(&is["type"]))),
            "type_alias" => self.line(format!("{path}: type {}", self.render.of(&is["type"]))),
            "macro" | "proc_macro" => self.line(format!("{path}: macro")),
            _ => self.line(format!("{path}: {kind}")),
        }
    }

    fn reexport(&self, is: &Value, above: &str) {
        let source = is["source"].as_str().unwrap_or_default();
        let name = is["name"].as_str().unwrap_or_default();
        let target = &self.index[is["id"].to_string()];
        if target.is_null() {
            self.line(format!("{above}::{name}: use {source}"));
        } else if is["is_glob"] == true {
            list(&target["inner"]["module"]["items"]).for_each(|id| self.item(id, above, None));
        } else {
            self.item(&is["id"], above, Some(name));
        }
    }

    fn data(&self, kind: &str, path: &str, is: &Value) {
        let (parameters, conditions) = self.render.generics(&is["generics"]);
        self.line(format!("{path}: {kind}{parameters}{conditions}"));
        let fields = |of: &Value| {
            let tuple = list(&of["tuple"]).filter(|id| !id.is_null());
            let named = list(&of["plain"]["fields"]).chain(list(&of["struct"]["fields"]));
            tuple.chain(named).cloned().collect::<Vec<_>>()
        };
        for id in fields(&is["kind"]).iter().chain(list(&is["fields"])) {
            self.field(path, id);
        }
        for id in list(&is["variants"]) {
            let variant = &self.index[id.to_string()];
            let path = format!("{path}::{}", variant["name"].as_str().unwrap_or_default());
            self.line(format!("{path}: variant"));
            fields(&variant["inner"]["variant"]["kind"])
                .iter()
                .for_each(|id| self.field(&path, id));
        }
        list(&is["impls"])
            .for_each(|id| self.implementation(path, &self.index[id.to_string()]["inner"]["impl"]));
    }

    fn field(&self, path: &str, id: &Value) {
        let field = &self.index[id.to_string()];
        let of = &field["inner"]["struct_field"];
        if !of.is_null() {
            self.line(format!(
                "{path}.{}: {}",
                field["name"].as_str().unwrap_or_default(),
                self.render.of(of)
            ));
        }
    }

    fn contract(&self, path: &str, is: &Value) {
        let (parameters, conditions) = self.render.generics(&is["generics"]);
        let bounds = self.render.bounds(&is["bounds"]);
        let bounds = if bounds.is_empty() {
            bounds
        } else {
            format!(": {bounds}")
        };
        self.line(format!("{path}: trait{parameters}{bounds}{conditions}"));
        list(&is["items"]).for_each(|id| self.member(path, id, true));
    }

    /// Lists a member of a trait or of an inherent implementation.
    fn member(&self, path: &str, id: &Value, of_trait: bool) {
        let item = &self.index[id.to_string()];
        let name = item["name"].as_str().unwrap_or_default();
        let Some((kind, is)) = item["inner"].as_object().and_then(|inner| inner.iter().next()) else {
            return;
        };
        let text = match kind.as_str() {
            "function" => {
                let default = if of_trait && is["has_body"] == true {
                    ", provided"
                } else {
                    ""
                };
                self.render.function(name, is) + default
            }
            "assoc_const" => format!("const {}", self.render.of(&is["type"])),
            "assoc_type" => format!("type: {}", self.render.bounds(&is["bounds"])),
            other => other.to_owned(),
        };
        self.line(format!("{path}::{name}: {text}"));
    }

    fn implementation(&self, path: &str, is: &Value) {
        if is.is_null() || !is["blanket_impl"].is_null() {
            return;
        }
        if is["trait"].is_null() {
            list(&is["items"]).for_each(|id| self.member(path, id, false));
            return;
        }
        let name = is["trait"]["path"].as_str().unwrap_or_default();
        let is_automatic = is["is_synthetic"] == true;
        let is_told = !is_automatic || ["Send", "Sync"].contains(&name);
        // Without the trait that derives of `PartialEq` and `Eq` add, which is for patterns only.
        if is_told && name.rsplit("::").next() != Some("StructuralPartialEq") {
            let sign = if is["is_negative"] == true { "!" } else { "" };
            let (_, conditions) = self.render.generics(&is["generics"]);
            self.line(format!(
                "{path}: {sign}{} for {}{conditions}",
                self.render.path(&is["trait"]),
                self.render.of(&is["for"])
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn surface(lines: &[&str]) -> Surface {
        Surface {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            ..Surface::default()
        }
    }

    #[test]
    fn a_new_and_a_missing_item_are_told() {
        let found = differences(
            "aio-x",
            "x::A: struct\nx::b: fn b()\n",
            &surface(&["x::A: struct", "x::b: fn b(c: u8)"]),
        );
        assert_eq!(found, ["- aio-x: x::b: fn b()", "+ aio-x: x::b: fn b(c: u8)"]);
    }

    #[test]
    fn a_type_of_another_crate_needs_a_reason() {
        let mut surface = surface(&[]);
        let foreign = ("glib".to_owned(), "glib::MainContext".to_owned());
        surface.foreign.insert(foreign);
        assert_eq!(strangers("aio-glib", &surface), Vec::<String>::new());
        assert_eq!(strangers("aio-context", &surface).len(), 1);
        surface.foreign.clear();
        assert_eq!(
            strangers("aio-glib", &surface),
            ["aio-glib: remove glib from ALLOWED in tools/package/src/surface.rs: it is not used"]
        );
    }

    #[test]
    fn reexports_fields_and_automatic_traits_are_listed() {
        let named =
            |name: &str, kind: &str, is: Value| json!({"name": name, "attrs": [], "inner": {kind: is}});
        let none = json!({"params": [], "where_predicates": []});
        let for_a = json!({"resolved_path": {"path": "A", "id": 2, "args": null}});
        let of = |path: &str, synthetic: bool| {
            json!({"inner": {"impl": {"trait": {"path": path, "id": 9, "args": null}, "for": for_a,
            "generics": none, "is_synthetic": synthetic, "is_negative": synthetic, "blanket_impl": null, "items": []}}})
        };
        let index = json!({
            "0": named("x", "module", json!({"items": [1]})),
            "1": {"name": null, "attrs": [], "inner": {"use": {"source": "inner::A", "name": "B", "id": 2, "is_glob": false}}},
            "2": named("A", "struct", json!({"kind": {"plain": {"fields": [3]}}, "generics": none, "impls": [4, 5, 6]})),
            "3": named("length", "struct_field", json!({"primitive": "u32"})),
            "4": of("fmt::Debug", false),
            "5": of("Send", true),
            "6": of("UnwindSafe", true),
        });
        let (paths, crates) = (json!({}), json!({}));
        let walk = Walk {
            index: &index,
            render: Render {
                paths: &paths,
                crates: &crates,
                foreign: RefCell::default(),
            },
            lines: RefCell::default(),
            without_example: RefCell::default(),
        };
        walk.item(&json!(0), "", None);
        assert_eq!(
            walk.without_example.borrow().len(),
            1,
            "a type without an example"
        );
        let lines: Vec<String> = walk.lines.into_inner().into_iter().collect();
        assert_eq!(
            lines,
            [
                "x::B.length: u32",
                "x::B: !Send for A",
                "x::B: Debug for A",
                "x::B: struct"
            ]
        );
    }
}
