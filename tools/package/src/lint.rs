//! The requirements of a package: a manifest that a registry shows well, the licences, a README with an
//! example, and no file that exists only in the workspace.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use aio_tools::shell;
use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::library::Library;

/// Files that every package has.
const FILES: [&str; 5] = [
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "src/lib.rs",
];

/// Features that no user chooses: the default set, and entry points for the fuzzers of the workspace.
const OF_THE_WORKSPACE: [&str; 2] = ["default", "fuzz"];

/// Checks all libraries. Returns the result in a line.
pub(crate) fn check(libraries: &[Library]) -> anyhow::Result<String> {
    let mut faults = unpublishable(libraries)?;
    let mut count = 0;
    for library in libraries {
        let files = files(library)?;
        count += files.len();
        let fault = |text: String| format!("{}: {text}", library.name);
        faults.extend(manifest(&library.package).into_iter().map(fault));
        faults.extend(missing(&files).into_iter().map(fault));
        faults.extend(
            readme(&library.readme()?, library.package["rust_version"].as_str())
                .into_iter()
                .map(fault),
        );
        faults.extend(
            unexplained(&library.readme()?, &library.package)
                .into_iter()
                .map(fault),
        );
        faults.extend(sources(library, &files)?.into_iter().map(fault));
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(format!(
        "{} packages of {count} files: manifests, licences, READMEs",
        libraries.len()
    ))
}

/// Returns the manifests of packages that are no library and could be published by mistake.
fn unpublishable(libraries: &[Library]) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for file in shell::tracked(&["Cargo.toml", "*/Cargo.toml"])? {
        let path = shell::root().join(&file);
        let is_library = libraries
            .iter()
            .any(|library| path.parent() == Some(&library.directory));
        let text = fs::read_to_string(&path).with_context(|| file.display().to_string())?;
        let is_package = text.lines().any(|line| line == "[package]");
        if is_package && !is_library && !is_private(&text) {
            faults.push(format!(
                "{}: write publish = false, or make it a library in the root",
                file.display()
            ));
        }
    }
    Ok(faults)
}

/// Returns `true` if a manifest, or its workspace, forbids publishing the package.
fn is_private(manifest: &str) -> bool {
    manifest
        .lines()
        .any(|line| ["publish = false", "publish.workspace = true"].contains(&line))
}

/// Returns the files in the package of a library.
fn files(library: &Library) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut cargo = library.cargo();
    cargo.args([
        "package",
        "--list",
        "--allow-dirty",
        "--exclude-lockfile",
        "--package",
        &library.name,
    ]);
    Ok(shell::output(&mut cargo)?.lines().map(PathBuf::from).collect())
}

fn manifest(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let docs = format!("https://docs.rs/{name}");
    let mut faults = Vec::new();
    for (field, expected) in [
        ("readme", "README.md"),
        ("documentation", &docs),
        ("license", "MIT OR Apache-2.0"),
    ] {
        if package[field].as_str() != Some(expected) {
            faults.push(format!("write {field} = {expected:?} in its manifest"));
        }
    }
    for field in ["description", "rust_version"] {
        if package[field].as_str().is_none_or(str::is_empty) {
            faults.push(format!("its manifest has no {}", field.replace('_', "-")));
        }
    }
    for (field, most) in [("keywords", 5), ("categories", 5)] {
        let number = package[field].as_array().map_or(0, Vec::len);
        if number == 0 || number > most {
            faults.push(format!(
                "its manifest has {number} {field}; 1 to {most} are allowed"
            ));
        }
    }
    let keywords = package["keywords"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    faults.extend(
        keywords
            .filter(|word| word.len() > 20)
            .map(|word| format!("the keyword {word} has more than 20 letters")),
    );
    if package["metadata"]["docs"]["rs"]["all-features"] != true {
        faults.push("write all-features = true in [package.metadata.docs.rs]".to_owned());
    }
    faults
}

fn missing(files: &BTreeSet<PathBuf>) -> Vec<String> {
    let missing = FILES.iter().filter(|name| !files.contains(Path::new(name)));
    missing.map(|name| format!("its package has no {name}")).collect()
}

fn readme(text: &str, rust_version: Option<&str>) -> Vec<String> {
    let rust = format!("| Rust | {} or later", rust_version.unwrap_or("?"));
    let mut faults = Vec::new();
    for (wanted, what) in [
        ("```rust\n", "an example"),
        ("**Use it**", "a line on what it is for, \"**Use it** ..\""),
        (
            "**Do not use it**",
            "a line on when not to use it, \"**Do not use it** ..\"",
        ),
        ("\n| features | ", "the features, in its table"),
        (
            "\n| dependencies | ",
            "the dependencies, in its table (cargo xtask deps says which)",
        ),
        (&rust, &format!("the line {rust:?} in its table")),
    ] {
        if !text
            .replace("**Do not use\nit**", "**Do not use it**")
            .replace("**Use\nit**", "**Use it**")
            .contains(wanted)
        {
            faults.push(format!("its README lacks {what}"));
        }
    }
    if text.contains("](../") {
        faults.push("its README links to a file outside its package: link to docs.rs".to_owned());
    }
    faults
}

/// Returns the features that a README does not explain.
fn unexplained(text: &str, package: &Value) -> Vec<String> {
    let features = package["features"].as_object().into_iter().flatten();
    features
        .map(|(name, _)| name)
        .filter(|name| !OF_THE_WORKSPACE.contains(&name.as_str()) && !text.contains(&format!("`{name}`")))
        .map(|name| format!("its README does not explain the feature `{name}`, in its table"))
        .collect()
}

/// Returns the faults in the sources of a package: a README whose example is not compiled, paths out of the
/// package, and uses of crates that the published manifest does not have.
fn sources(library: &Library, files: &BTreeSet<PathBuf>) -> anyhow::Result<Vec<String>> {
    let stripped = stripped(&library.package);
    let mut faults = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|is| is == "rs"))
    {
        let text =
            fs::read_to_string(library.directory.join(file)).with_context(|| file.display().to_string())?;
        if file == Path::new("src/lib.rs") && !text.contains("#[doc = include_str!(\"../README.md\")]") {
            faults
                .push("src/lib.rs does not include ../README.md, so its example is not compiled".to_owned());
        }
        for included in included(&text, file).filter(|included| !files.contains(included)) {
            faults.push(format!(
                "{} includes {}, which the package lacks",
                file.display(),
                included.display()
            ));
        }
        for name in stripped.iter().filter(|name| uses(&text, name)) {
            faults.push(format!(
                "{} uses {name}, which is not published: list the file in exclude, or do without",
                file.display()
            ));
        }
    }
    Ok(faults)
}

/// Returns the test dependencies without a version. cargo leaves them out of a published manifest. The
/// library itself does not count, because its tests can depend on it for a feature.
fn stripped(package: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| {
            dependency["kind"] == "dev" && dependency["req"] == "*" && dependency["path"].is_string()
        })
        .filter(|dependency| dependency["name"] != package["name"])
        .filter_map(|dependency| Some(dependency["name"].as_str()?.replace('-', "_")))
        .collect()
}

/// Returns `true` if code has a path that begins with this crate.
fn uses(text: &str, name: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let path = format!("{name}::");
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(|line| {
        line.match_indices(&path)
            .any(|(at, _)| !line[..at].ends_with(is_word))
    })
}

/// Returns the files that a source names by `include_str!` or `#[path]`, relative to the package. Paths that
/// leave the package keep a `..`.
fn included(text: &str, file: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let named = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let rest = line
            .split_once("include_str!(\"")
            .or_else(|| line.split_once("#[path = \""))?
            .1;
        (!line.starts_with("//"))
            .then(|| rest.split('"').next())
            .flatten()
    });
    named.map(move |name| plain(&folder.join(name)))
}

fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part != Component::ParentDir || !plain.pop() {
            plain.push(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_that_lacks_something_is_found() {
        let mut package = json!({
            "name": "aio-x", "readme": "README.md", "documentation": "https://docs.rs/aio-x", "license": "MIT OR Apache-2.0",
            "description": "x", "rust_version": "1.91", "keywords": ["a"], "categories": ["b"],
            "metadata": {"docs": {"rs": {"all-features": true}}},
        });
        assert_eq!(manifest(&package), Vec::<String>::new());
        for field in [
            "readme",
            "documentation",
            "license",
            "description",
            "rust_version",
            "keywords",
            "categories",
            "metadata",
        ] {
            let whole = package[field].take();
            assert_eq!(manifest(&package).len(), 1, "{field}");
            package[field] = whole;
        }
        package["keywords"] = json!(["a-keyword-of-many-letters"]);
        assert_eq!(
            manifest(&package),
            ["the keyword a-keyword-of-many-letters has more than 20 letters"]
        );
    }

    #[test]
    fn a_readme_that_lacks_something_is_found() {
        let whole = "# x\n```rust\n```\n**Use it** so. **Do not use\nit** otherwise.\n| features | none |\n| dependencies | none |\n| Rust | 1.91 or later |\n";
        assert_eq!(readme(whole, Some("1.91")), Vec::<String>::new());
        assert_eq!(readme(whole, Some("1.92")).len(), 1);
        assert_eq!(readme("# x\n", Some("1.91")).len(), 6);
        assert_eq!(readme(&format!("{whole}[y](../y)"), Some("1.91")).len(), 1);
    }

    #[test]
    fn a_feature_that_no_readme_explains_is_found() {
        let package = json!({"features": {"default": [], "fuzz": [], "std": [], "new": []}});
        assert_eq!(
            unexplained("| features | `std`: clocks |", &package),
            ["its README does not explain the feature `new`, in its table"]
        );
    }

    #[test]
    fn paths_out_of_a_package_are_found() {
        let text =
            "#[doc = include_str!(\"../../README.md\")]\n#[path = \"a_tests.rs\"]\n// #[path = \"b.rs\"]\n";
        let found: Vec<PathBuf> = included(text, Path::new("src/lib.rs")).collect();
        assert_eq!(found, [Path::new("../README.md"), Path::new("src/a_tests.rs")]);
    }

    #[test]
    fn a_crate_that_is_not_published_is_found_in_code() {
        assert!(uses("use aio_testing::warnings;\n", "aio_testing"));
        assert!(!uses(
            "// use aio_testing::warnings;\nuse other_aio_testing::x;\n",
            "aio_testing"
        ));
        let package = json!({"name": "aio-x", "dependencies": [
            {"name": "aio-x", "kind": "dev", "req": "*", "path": "."},
            {"name": "aio-testing", "kind": "dev", "req": "*", "path": "/x"},
            {"name": "aio-backend", "kind": "dev", "req": "^0.1.0", "path": "/y"},
            {"name": "mio", "kind": "dev", "req": "*", "path": null},
        ]});
        assert_eq!(stripped(&package), ["aio_testing"]);
    }
}
