//! Builds the book and the API documentation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;
use aio_tools::tool::Tool;
use anyhow::{Context as _, anyhow};

use crate::html::{self, API};
use crate::links;
use crate::pages::{BOOK, Pages};

const MDBOOK: Tool = Tool {
    program: "mdbook",
    package: "mdbook@0.5.4",
};
/// mdBook's features: the search, but neither its server nor its watcher.
const FEATURES: [&str; 3] = ["--no-default-features", "--features", "search"];
/// The time after which a command counts as hung. The first run builds tools and dependencies.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The library that needs GLib.
const APART: &str = "aio-glib";

/// Builds everything and checks all links.
pub(crate) fn build(open: bool) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    let run = |command: &mut Command| shell::run_within(command, LIMIT, &interrupt);
    println!("{}", links::check()?);

    println!("building the API documentation");
    let pages = Pages::read()?;
    let target = shell::target_dir()?;
    let documented = document(&pages, &target.join("api"), &run)?;

    let mdbook = MDBOOK.built_by(&FEATURES, run)?;
    interrupt.check()?;
    let mut mdbook = mdbook.map_err(|why| {
        anyhow!("{why}: install mdbook, or run this once with a network; --links checks the links without it")
    })?;
    println!("building the book");
    // Builds into a new directory, so that an interrupted run keeps the former book.
    let (book, new) = (target.join("book"), target.join("book.new"));
    remove(&new)?;
    mdbook
        .arg("build")
        .arg(shell::root().join(BOOK))
        .arg("--dest-dir")
        .arg(&new);
    run(&mut mdbook)?;
    for file in UNUSED {
        remove_file(&new.join(file))?;
    }
    copy(&documented, &new.join(API), &interrupt)?;
    fs::write(new.join(API).join("index.html"), START)
        .context("cannot write the start of the API documentation")?;

    let checked = html::check(&new)?;
    remove(&book)?;
    fs::rename(&new, &book).with_context(|| format!("cannot make {}", book.display()))?;
    let start = book.join("index.html");
    println!("{}: {checked}", start.display());
    if open {
        show(&start)?;
    }
    Ok(())
}

/// Files of `docs/` that mdBook copies although no page uses them.
const UNUSED: [&str; 1] = ["book.toml"];

/// The start page of the API documentation. rustdoc makes none.
const START: &str = "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"refresh\" content=\"0; url=aio_context/index.html\">\n\
     <title>aio</title>\n<a href=\"aio_context/index.html\">aio_context</a>\n";

/// Builds the API documentation of all libraries and returns its directory.
fn document(
    pages: &Pages,
    target: &Path,
    run: &impl Fn(&mut Command) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let doc = |mut cargo: Command| {
        cargo
            .args([
                "doc",
                "--no-deps",
                "--locked",
                "--all-features",
                "--lib",
                "--target-dir",
            ])
            .arg(target)
            // The encoded form would override the plain one.
            .env_remove("CARGO_ENCODED_RUSTDOCFLAGS")
            .env("RUSTDOCFLAGS", "-D warnings");
        cargo
    };
    let mut cargo = doc(shell::cargo());
    for (directory, _) in pages
        .libraries()
        .filter(|(directory, _)| *directory != Path::new(APART))
    {
        cargo.arg("--package").arg(directory);
    }
    run(&mut cargo).context("the API documentation has faults: correct what rustdoc names")?;
    let documented = target.join("doc");
    if lacks_glib() {
        println!("skipped: the API of {APART} is left out, because it needs GLib: install libglib2.0-dev");
        let page = documented.join("aio_glib");
        fs::create_dir_all(&page).with_context(|| format!("cannot make {}", page.display()))?;
        fs::write(page.join("index.html"), WITHOUT_GLIB).context("cannot write the page of aio-glib")?;
    } else {
        run(&mut doc(shell::cargo_in(APART)))?;
    }
    Ok(documented)
}

const WITHOUT_GLIB: &str = "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>aio_glib</title>\n<p>GLib was not installed where this was built.\n";

fn lacks_glib() -> bool {
    let mut asks = Command::new("pkg-config");
    asks.args(["--exists", "glib-2.0 >= 2.72", "gobject-2.0", "gio-2.0"]);
    let found = asks.stdin(Stdio::null()).stderr(Stdio::null()).status();
    !found.is_ok_and(|status| status.success())
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

fn remove_file(file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    interrupt.check()?;
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (source, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &copied, interrupt)?;
        } else {
            fs::copy(&source, &copied).with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// Opens a page in a browser.
fn show(page: &Path) -> anyhow::Result<()> {
    let mut browser = match std::env::var_os("BROWSER") {
        Some(browser) => Command::new(browser),
        None => Command::new("xdg-open"),
    };
    shell::run(browser.arg(page))
        .with_context(|| format!("set BROWSER to the program that opens {}", page.display()))
}
