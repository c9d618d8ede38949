//! Programs that use the packages, each in a directory of its own outside the workspace: the example of every
//! README as a program, a backend with its tests, and a policy with a program that judges it.

use std::fs;
use std::path::Path;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;
use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::library::{self, Library};
use crate::outside::{self, Outside};
use crate::pack::LIMIT;

/// The backend from outside, with its tests.
const BACKEND: &str = "examples/third-party-backend";
/// The policy from outside, with a program that judges it: an example in a package.
const POLICY: (&str, &str) = ("aio-replay", "examples/judge.rs");

/// The target directory of all users, so that each library is built once.
const TARGET: &str = "users";

/// Runs all programs. Returns the result in a line.
pub(crate) fn check(
    libraries: &[Library],
    outside: &Outside,
    interrupt: &Interrupt,
) -> anyhow::Result<String> {
    let mut count = 0;
    for library in libraries {
        if let Some(lacks) = library::lacks(library) {
            println!("skipped: {lacks}");
            continue;
        }
        let readme = fs::read_to_string(outside.package(library).join("README.md"))?;
        let program =
            program(&readme).with_context(|| format!("the README of {} has no example", library.name))?;
        let user = User {
            name: library.name.clone(),
            library,
            program,
        };
        user.run(libraries, outside, interrupt)?;
        count += 1;
    }
    let of_policy = libraries.iter().find(|library| library.name == POLICY.0);
    let library = of_policy.with_context(|| format!("{} is no library", POLICY.0))?;
    let policy = User {
        name: "policy".to_owned(),
        library,
        program: fs::read_to_string(outside.package(library).join(POLICY.1))?,
    };
    policy.run(libraries, outside, interrupt)?;
    backend(libraries, outside, interrupt)?;
    Ok(format!(
        "{count} programs, a backend with its tests and a policy work with packages only"
    ))
}

/// A program that depends on packages.
struct User<'a> {
    name: String,
    /// The library whose README has the program.
    library: &'a Library,
    program: String,
}

impl User<'_> {
    fn run(&self, libraries: &[Library], outside: &Outside, interrupt: &Interrupt) -> anyhow::Result<()> {
        let directory = outside.path().join("users").join(&self.name);
        fs::create_dir_all(directory.join("src"))?;
        fs::write(directory.join("src/main.rs"), &self.program)?;
        fs::write(directory.join("Cargo.toml"), self.manifest(libraries, outside))?;
        outside::copy_lock(self.library.is_apart(), &directory)?;
        let mut cargo = outside::cargo(&directory, TARGET)?;
        cargo.args(["run", "--quiet"]);
        shell::run_within(&mut cargo, LIMIT, interrupt)
            .with_context(|| format!("a program that uses {} fails", self.library.name))?;
        println!(
            "{:<20} ran, {} packages in its lock file",
            self.name,
            locked(&directory)?
        );
        Ok(())
    }

    fn manifest(&self, libraries: &[Library], outside: &Outside) -> String {
        let mut lines = vec![
            format!(
                "[package]\nname = \"uses-{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n",
                self.name
            ),
            "[dependencies]".to_owned(),
        ];
        lines.extend(self.dependencies());
        // An example can define functions that it does not call.
        lines.push("\n[lints.rust]\nunused = \"allow\"".to_owned());
        lines.push("\n[profile.dev]\ndebug = 0\n\n[workspace]".to_owned());
        let needed = needed(&self.library.name, &self.program, libraries);
        lines.join("\n") + "\n" + &outside.patch(needed.into_iter())
    }

    /// Returns the library, and those of its dependencies that the program names, as its manifest states
    /// them.
    fn dependencies(&self) -> Vec<String> {
        let mut lines = vec![format!("{} = {:?}", self.library.name, self.library.version)];
        let of_library = self.library.package["dependencies"].as_array();
        for dependency in of_library.into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            let is_new = !lines.iter().any(|line| line.starts_with(&format!("{name} = ")));
            if is_new && mentions(&self.program, name) {
                let features: Vec<&str> = strings(&dependency["features"]).collect();
                let req = dependency["req"].as_str().unwrap_or("*");
                lines.push(format!(
                    "{name} = {{ version = {req:?}, features = {features:?} }}"
                ));
            }
        }
        lines
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Returns `true` if the program has a path into the crate.
fn mentions(program: &str, name: &str) -> bool {
    program.contains(&(name.replace('-', "_") + "::"))
}

/// Returns the libraries in the tree of a program. `used` is in it even if the program does not name it.
fn needed<'a>(used: &str, program: &str, libraries: &'a [Library]) -> Vec<&'a Library> {
    let mut names: Vec<&str> = Vec::new();
    let is_used = |library: &&Library| library.name == used || mentions(program, &library.name);
    let mut open: Vec<&Library> = libraries.iter().filter(is_used).collect();
    while let Some(library) = open.pop() {
        if names.contains(&library.name.as_str()) {
            continue;
        }
        names.push(&library.name);
        let all = library.package["dependencies"].as_array().into_iter().flatten();
        let normal = all
            .filter(|one| one["kind"].is_null())
            .filter_map(|one| one["name"].as_str());
        open.extend(normal.filter_map(|name| libraries.iter().find(|library| library.name == name)));
    }
    libraries
        .iter()
        .filter(|library| names.contains(&library.name.as_str()))
        .collect()
}

/// Returns the first example of a README as a whole program, with the lines that its page hides.
fn program(readme: &str) -> Option<String> {
    let (example, _) = readme.split_once("```rust\n")?.1.split_once("```")?;
    let shown = |line: &str| match line {
        "#" => String::new(),
        line => line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n",
    };
    let text: String = example.lines().map(shown).collect();
    Some(if text.contains("fn main()") {
        text
    } else {
        format!("fn main() {{\n{text}}}\n")
    })
}

/// Runs the tests of the backend from outside. In the repository it takes the libraries from the workspace.
fn backend(libraries: &[Library], outside: &Outside, interrupt: &Interrupt) -> anyhow::Result<()> {
    let directory = outside.path().join("users/backend");
    for file in shell::tracked(&[BACKEND])? {
        let to = directory.join(file.strip_prefix(BACKEND)?);
        fs::create_dir_all(to.parent().context("a file without a directory")?)?;
        fs::copy(shell::root().join(&file), to)?;
    }
    let manifest = directory.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let (text, used) = from_packages(&text, libraries);
    ensure!(!used.is_empty(), "{BACKEND} uses no library");
    let mut all: Vec<&Library> = Vec::new();
    for library in used
        .iter()
        .flat_map(|library| needed(&library.name, "", libraries))
    {
        if !all.iter().any(|one| one.name == library.name) {
            all.push(library);
        }
    }
    fs::write(&manifest, text + &outside.patch(all.into_iter()))?;
    let mut cargo = outside::cargo(&directory, TARGET)?;
    cargo.args(["test", "--quiet"]);
    shell::run_within(&mut cargo, LIMIT, interrupt).context("the backend from outside fails its tests")?;
    println!(
        "{:<20} tested, {} packages in its lock file",
        "backend",
        locked(&directory)?
    );
    Ok(())
}

/// Replaces the path of each library in a manifest by its version. Returns the manifest, and the libraries
/// that it names.
fn from_packages<'a>(manifest: &str, libraries: &'a [Library]) -> (String, Vec<&'a Library>) {
    let (mut text, mut used) = (manifest.to_owned(), Vec::new());
    for library in libraries {
        let path = format!("{} = {{ path = \"../../{}\"", library.name, library.name);
        if text.contains(&path) {
            let version = format!("{} = {{ version = \"{}\"", library.name, library.version);
            text = text.replace(&path, &version);
            used.push(library);
        }
    }
    (text, used)
}

/// Returns the number of packages in the lock file of a user, without the user's own.
fn locked(directory: &Path) -> anyhow::Result<usize> {
    let text = fs::read_to_string(directory.join("Cargo.lock"))?;
    Ok(text.matches("[[package]]").count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn library(name: &str, dependencies: &Value) -> Library {
        Library {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            directory: PathBuf::new(),
            package: json!({ "dependencies": dependencies }),
        }
    }

    #[test]
    fn an_example_becomes_a_program() {
        let readme = "# x\n```rust\nuse a::B;\n# fn main() -> R {\nB\n#\n# }\n```\n```rust\nC\n```\n";
        assert_eq!(program(readme).unwrap(), "use a::B;\nfn main() -> R {\nB\n}\n");
        assert_eq!(program("```rust\nB;\n```\n").unwrap(), "fn main() {\nB;\n}\n");
        assert_eq!(program("no example"), None);
    }

    #[test]
    fn a_program_states_what_it_names() {
        let of_context = json!([
            { "name": "aio-timers", "req": "^0.1", "features": [], "kind": null },
            { "name": "rustix", "req": "^1.1", "features": ["net"], "kind": null },
            { "name": "tempfile", "req": "^3", "features": [], "kind": "dev" },
        ]);
        let libraries = [
            library("aio-context", &of_context),
            library("aio-timers", &json!([])),
        ];
        let user = User {
            name: "x".to_owned(),
            library: &libraries[0],
            program: "use rustix::net; fn main() { aio_context::run() }".to_owned(),
        };
        assert_eq!(
            user.dependencies(),
            [
                "aio-context = \"0.1.0\"",
                "rustix = { version = \"^1.1\", features = [\"net\"] }"
            ]
        );
        let names = |program| -> Vec<&str> {
            let needed = needed("aio-timers", program, &libraries).into_iter();
            needed.map(|library| library.name.as_str()).collect()
        };
        assert_eq!(names(""), ["aio-timers"]);
        assert_eq!(names("aio_context::run()"), ["aio-context", "aio-timers"]);
    }

    #[test]
    fn a_manifest_takes_libraries_from_packages() {
        let libraries = [
            library("aio-backend", &json!([])),
            library("aio-context", &json!([])),
        ];
        let text = "aio-backend = { path = \"../../aio-backend\", features = [\"x\"] }\nrustix = \"1\"\n";
        let (text, used) = from_packages(text, &libraries);
        assert_eq!(
            text,
            "aio-backend = { version = \"0.1.0\", features = [\"x\"] }\nrustix = \"1\"\n"
        );
        assert_eq!((used.len(), used[0].name.as_str()), (1, "aio-backend"));
    }
}
