//! Finds the file where a name is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::{Crate, Import, Module};

/// For each file: the files that it uses, and the lines of these uses.
pub(super) type Uses = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<usize>>>;

/// The greatest number of imports from a name to its definition. A name in a circle of globs is not found.
const LONGEST: usize = 16;

/// The target of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Module(usize),
    /// An item that is defined in this module.
    Item(usize),
}

/// Returns the uses between the files of a crate.
pub(super) fn uses(of: &Crate) -> Uses {
    let mut uses = Uses::new();
    for (own, module) in of.modules.iter().enumerate() {
        uses.entry(module.file.clone()).or_default();
        let mut add = |used: &Path, line: usize| {
            if used != module.file {
                let used = uses
                    .entry(module.file.clone())
                    .or_default()
                    .entry(used.to_owned());
                used.or_default().insert(line);
            }
        };
        for path in &module.paths {
            if let Some(Found::Item(used)) = of.path(own, &path.segments, LONGEST) {
                add(&of.modules[used].file, path.line);
            }
        }
        // The target of a re-export is used by the files that name it. The name of a module alone uses
        // nothing of it.
        for import in module.imports.iter().filter(|import| !import.is_shared) {
            match of.path(own, &import.from.segments, LONGEST) {
                Some(Found::Item(used)) => add(&of.modules[used].file, import.from.line),
                Some(Found::Module(used)) if import.name == "*" => {
                    for used in of.behind(used) {
                        add(&of.modules[used].file, import.from.line);
                    }
                }
                _ => {}
            }
        }
    }
    uses
}

impl Crate {
    /// Returns the target of a path in a module. Returns `None` if it is outside the crate.
    fn path(&self, from: usize, segments: &[String], left: usize) -> Option<Found> {
        let left = left.checked_sub(1)?;
        let (first, rest) = segments.split_first()?;
        let start = match first.as_str() {
            "crate" => Found::Module(0),
            "self" => Found::Module(from),
            "super" => Found::Module(self.modules[from].parent?),
            name => self.lookup(from, name, left)?,
        };
        rest.iter().try_fold(start, |at, name| match at {
            // A variant or an associated item is in the file of its type.
            Found::Item(_) => Some(at),
            Found::Module(at) if name == "super" => self.modules[at].parent.map(Found::Module),
            Found::Module(at) if name == "self" => Some(Found::Module(at)),
            Found::Module(at) => {
                let macros = || self.macros.get(name).filter(|_| at == 0).copied();
                // Items that a macro defines are invisible here. They count as defined where the macro is
                // used.
                let unseen = || Found::Item(macros().unwrap_or(at));
                let outside = self.modules[at].imports.iter().any(|import| import.name == *name);
                self.lookup(at, name, left).or_else(|| (!outside).then(unseen))
            }
        })
    }

    /// Returns the target of a name in a module: a child module, an item, or the target of an import.
    fn lookup(&self, at: usize, name: &str, left: usize) -> Option<Found> {
        let left = left.checked_sub(1)?;
        let module = &self.modules[at];
        if let Some(&child) = module.children.get(name) {
            return Some(Found::Module(child));
        }
        if module.items.contains(name) {
            return Some(Found::Item(at));
        }
        let of_import = |import: &Import| self.path(at, &import.from.segments, left);
        if let Some(found) = module
            .imports
            .iter()
            .filter(|import| import.name == name)
            .find_map(of_import)
        {
            return Some(found);
        }
        let globs = module.imports.iter().filter(|import| import.name == "*");
        globs.filter_map(of_import).find_map(|found| match found {
            Found::Module(target) => self.lookup(target, name, left),
            Found::Item(_) => None,
        })
    }

    /// Returns a module, and the modules of its re-exported items.
    fn behind(&self, at: usize) -> Vec<usize> {
        let module: &Module = &self.modules[at];
        let shared = module.imports.iter().filter(|import| import.is_shared);
        let targets = shared.filter_map(|import| match self.path(at, &import.from.segments, LONGEST)? {
            Found::Module(used) | Found::Item(used) => Some(used),
        });
        let own = (!module.items.is_empty()).then_some(at);
        own.into_iter().chain(targets).collect()
    }
}
