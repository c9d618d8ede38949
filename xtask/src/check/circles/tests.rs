//! Crates of a few lines, and the uses between their files.

use super::*;

/// Returns a line `a -> b` for each use, with the files as in messages.
fn arrows(files: &[(&str, &str)]) -> Vec<String> {
    let load = |file: &Path| {
        let text = files.iter().find(|(name, _)| Path::new(name) == file);
        let (_, text) = text.with_context(|| file.display().to_string())?;
        Ok((*text).to_owned())
    };
    let exists = |file: &Path| files.iter().any(|(name, _)| Path::new(name) == file);
    let uses = resolve::uses(&source::read(Path::new("lib.rs"), &load, &exists).unwrap());
    let name = |file: &Path| short(file, Path::new(""));
    let arrows = uses.iter().flat_map(|(file, used)| {
        used.keys()
            .map(move |used| format!("{} -> {}", name(file), name(used)))
    });
    arrows.collect()
}

/// Returns the uses of `a.rs` in a crate where `b.rs` and `c.rs` have a type each, and `d/` re-exports one of
/// `d/e.rs`.
fn uses_of_a(a: &str) -> Vec<String> {
    let arrows = arrows(&[
        (
            "lib.rs",
            "mod a; mod b; mod c; mod d; pub use b::B; pub use d::E;",
        ),
        ("a.rs", a),
        (
            "b.rs",
            "pub struct B; pub fn free() {} #[macro_export] macro_rules! noisy { () => {}; }",
        ),
        ("c.rs", "pub enum C { One }"),
        (
            "d/mod.rs",
            "mod e; pub(crate) use self::e::E; pub(crate) const D: u8 = 1;",
        ),
        ("d/e.rs", "pub struct E;"),
    ]);
    arrows
        .iter()
        .map(|arrow| {
            arrow
                .strip_prefix("a -> ")
                .unwrap_or_else(|| panic!("{arrow}"))
                .to_owned()
        })
        .collect()
}

#[test]
fn imports_are_uses() {
    assert_eq!(uses_of_a("use crate::b::B;"), ["b"]);
    assert_eq!(uses_of_a("use crate::{b::{B, free}, c::C as Other};"), ["b", "c"]);
    assert_eq!(uses_of_a("use super::c::C::{self, One};"), ["c"]);
    assert_eq!(uses_of_a("fn f() { use crate::b::*; }"), ["b"]);
    assert_eq!(uses_of_a("use std::fmt; use other::b::B;"), Vec::<String>::new());
}

#[test]
fn paths_are_uses() {
    assert_eq!(
        uses_of_a("fn f(b: crate::b::B) -> super::c::C { super::c::C::One }"),
        ["b", "c"]
    );
    assert_eq!(uses_of_a("fn f() { println!(\"{}\", crate::d::D); }"), ["d/mod"]);
    assert_eq!(uses_of_a("fn f() { crate::noisy!(); }"), ["b"]);
    assert_eq!(uses_of_a("#[default(crate::b::free())] struct A;"), ["b"]);
    assert_eq!(
        uses_of_a("mod inner { fn f() { super::super::b::free(); } }"),
        ["b"]
    );
}

#[test]
fn a_module_that_is_imported_is_used_where_its_items_are() {
    assert_eq!(uses_of_a("use crate::{b, c}; fn f() { b::free() }"), ["b"]);
    assert_eq!(uses_of_a("use crate::d::{self}; fn f() -> d::E {}"), ["d/e"]);
    assert_eq!(
        uses_of_a("use crate::d as other; const A: u8 = other::D;"),
        ["d/mod"]
    );
}

#[test]
fn a_re_export_leads_to_the_definition() {
    assert_eq!(uses_of_a("use crate::B;"), ["b"]);
    assert_eq!(uses_of_a("use crate::d::E;"), ["d/e"]);
    assert_eq!(uses_of_a("use crate::E;"), ["d/e"]);
    assert_eq!(uses_of_a("use super::*; fn f(e: E) {}"), ["b", "d/e"]);
    // A re-export is a use only if the file itself needs the item.
    assert_eq!(uses_of_a("pub(crate) use crate::b::free;"), Vec::<String>::new());
    assert_eq!(
        uses_of_a("pub(crate) use crate::b::free; fn f() { free() }"),
        ["b"]
    );
}

#[test]
fn comments_strings_fields_and_tests_are_no_uses() {
    for unused in [
        "// crate::b::B",
        "/// [`B`](crate::b::B)\n/* use crate::b::B; */ struct A;",
        "const A: &str = \"crate::b::B\";",
        "pub use crate::b::free; fn f(x: X) { x.free(); x.free; other::free(); }",
        "#[cfg(test)] use crate::b::B;",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(all(test, not(loom)))] #[path = \"no.rs\"] mod tests;",
        "struct A { #[cfg(test)] b: crate::b::B, c: u8 } fn f() { #[cfg(test)] crate::b::free(); }",
        "#[cfg(test)] fn f<A, B>() { crate::b::free() }",
    ] {
        assert_eq!(uses_of_a(unused), Vec::<String>::new(), "{unused}");
    }
    assert_eq!(uses_of_a("#[cfg(test)] use crate::b::B; use crate::c::C;"), ["c"]);
    assert_eq!(uses_of_a("#[cfg(not(test))] use crate::b::B;"), ["b"]);
    assert_eq!(uses_of_a("#[cfg(any(test, loom))] use crate::b::B;"), ["b"]);
}

#[test]
fn a_file_and_the_modules_in_it_may_form_a_circle() {
    let both = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod b; pub struct A; fn f() { b::free() }"),
        ("a/b.rs", "use super::A; pub fn free() {}"),
    ];
    assert_eq!(arrows(&both), ["a/b -> a", "a -> a/b"]);
}

fn uses(arrows: &[(&str, &str)]) -> Uses {
    let mut uses = Uses::new();
    for (from, to) in arrows {
        uses.entry(to.into()).or_default();
        let used = uses.entry(from.into()).or_default().entry(to.into());
        used.or_default().insert(7);
    }
    uses
}

#[test]
fn circles_of_any_length_are_found() {
    let two = uses(&[
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("c", "d"),
        ("d", "e"),
        ("f", "g"),
        ("g", "f"),
    ]);
    let found = circles(&two);
    let names = |circle: &BTreeSet<PathBuf>| {
        circle
            .iter()
            .map(|file| short(file, Path::new("")))
            .collect::<String>()
    };
    assert_eq!(found.iter().map(names).collect::<Vec<_>>(), ["abc", "fg"]);
    let described = describe(&found[1], &two, Path::new(""));
    assert_eq!(described.text, "  f -> g (lines 7)\n  g -> f (lines 7)");
    assert_eq!(
        circles(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])),
        Vec::<BTreeSet<PathBuf>>::new()
    );
}

/// Returns the faults of a package with circles of these files.
fn faults_of(package: &str, circles: &[&[&str]]) -> Vec<String> {
    let allowed: [Allowed; 1] = [("own", &["a", "b"], "why")];
    let opening: [Opening; 1] = [("small", 3, "how")];
    let circles = circles.iter().map(|files| Circle {
        files: files.iter().map(|&file| file.to_owned()).collect(),
        text: format!("  {}", files.join(" ")),
    });
    faults(package, &circles.collect::<Vec<_>>(), &allowed, &opening)
}

#[test]
fn an_allowed_circle_has_its_files_and_no_others() {
    let none: [&str; 0] = [];
    assert_eq!(faults_of("own", &[&["a", "b"]]), none);
    assert_eq!(faults_of("own", &[&["a", "b", "c"]]).len(), 1);
    assert_eq!(faults_of("other", &[&["a", "b"]]).len(), 1);
    let two = faults_of("own", &[&["a", "b"], &["c", "d"]]);
    assert_eq!(two.len(), 1);
    assert!(two[0].ends_with(":\n  c d"), "{two:?}");
}

#[test]
fn circles_that_are_being_opened_only_shrink() {
    let none: [&str; 0] = [];
    assert_eq!(faults_of("small", &[&["a", "b", "c"]]), none);
    assert_eq!(faults_of("small", &[&["a", "b"], &["c", "d"]]).len(), 2);
    assert_eq!(
        faults_of("small", &[&["a", "b"]]),
        ["small: 2 files are in circles, not 3: write 2 into OPENING"]
    );
    assert_eq!(
        faults_of("small", &[]),
        ["small: 0 files are in circles, not 3: remove it from OPENING"]
    );
}

#[test]
fn the_workspace_of_aio_glib_is_covered() {
    let roots = roots().unwrap();
    assert!(roots.iter().any(|(package, _)| package == "aio-context"));
    assert!(roots.iter().any(|(package, _)| package == "aio-glib"));
}
