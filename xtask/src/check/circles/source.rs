//! Reads the modules of a crate: the children of each module, its imports, its items, and the paths that its
//! code names.
//!
//! Code that is compiled only for tests is left out. The lexer is that of macros, so comments and strings
//! never count, and the arguments of macros do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path, and its line.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

#[derive(Debug)]
pub(super) struct Import {
    /// The name in this module; `*` for all names.
    pub(super) name: String,
    pub(super) from: Named,
    /// `true` if other modules can see it, as with `pub use`.
    pub(super) is_shared: bool,
}

#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    pub(super) parent: Option<usize>,
    pub(super) children: BTreeMap<String, usize>,
    pub(super) imports: Vec<Import>,
    pub(super) items: BTreeSet<String>,
    /// The paths that the code names, without imports. A single identifier is a path, too.
    pub(super) paths: Vec<Named>,
}

/// The modules of a crate, the root first, and the macros that it exports, each with its module.
#[derive(Debug, Default)]
pub(super) struct Crate {
    pub(super) modules: Vec<Module>,
    pub(super) macros: BTreeMap<String, usize>,
}

/// The function that reads a file.
type Load<'a> = &'a dyn Fn(&Path) -> anyhow::Result<String>;

/// Reads a crate from its root, such as `src/lib.rs`.
pub(super) fn read(root: &Path, load: Load<'_>, exists: &dyn Fn(&Path) -> bool) -> anyhow::Result<Crate> {
    let mut reader = Reader {
        load,
        exists,
        read: Crate::default(),
    };
    let directory = root.parent().unwrap_or(Path::new("")).to_owned();
    reader.file(root, &directory, None)?;
    Ok(reader.read)
}

struct Reader<'a> {
    load: Load<'a>,
    exists: &'a dyn Fn(&Path) -> bool,
    read: Crate,
}

impl Reader<'_> {
    /// Reads a file. `directory` contains the files of its child modules.
    fn file(&mut self, file: &Path, directory: &Path, parent: Option<usize>) -> anyhow::Result<usize> {
        let text = (self.load)(file)?;
        let tokens: TokenStream = text
            .parse()
            .map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
        self.module(tokens, file, directory, parent)
    }

    fn module(
        &mut self,
        tokens: TokenStream,
        file: &Path,
        directory: &Path,
        parent: Option<usize>,
    ) -> anyhow::Result<usize> {
        let own = self.read.modules.len();
        self.read.modules.push(Module {
            file: file.to_owned(),
            parent,
            ..Module::default()
        });
        let tokens: Vec<_> = tokens.into_iter().collect();
        self.tokens(&tokens, own, directory, true)?;
        Ok(own)
    }

    /// Reads a sequence of tokens. `is_outer` is set if it is a whole module.
    fn tokens(
        &mut self,
        tokens: &[TokenTree],
        own: usize,
        directory: &Path,
        is_outer: bool,
    ) -> anyhow::Result<()> {
        let (mut at, mut is_shared, mut is_exported) = (0, false, false);
        while at < tokens.len() {
            let rest = &tokens[at..];
            if let Some(attribute) = attribute(rest) {
                if is_for_tests(attribute.clone()) {
                    at += 2;
                    at += item(&tokens[at..]);
                    continue;
                }
                is_exported |= attribute.to_string() == "macro_export";
                self.group(attribute, own, directory)?;
                at += 2;
                continue;
            }
            match word(&tokens[at]).as_deref() {
                Some("pub") => {
                    is_shared = true;
                    at += 1 + usize::from(group(tokens.get(at + 1), Delimiter::Parenthesis).is_some());
                    continue;
                }
                Some("use") => {
                    let end = until_semicolon(rest);
                    let from = Named {
                        segments: Vec::new(),
                        line: tokens[at].span().start().line,
                    };
                    imports(&rest[1..end], &from, &mut |name, from| {
                        self.read.modules[own].imports.push(Import {
                            name,
                            from,
                            is_shared,
                        });
                    });
                    at += end + 1;
                }
                Some("mod") if is_outer => at += self.submodule(rest, own, directory)?,
                Some("macro_rules") => {
                    if let Some(name) = tokens.get(at + 2).and_then(word) {
                        if is_exported {
                            self.read.macros.insert(name.clone(), own);
                        }
                        self.read.modules[own].items.insert(name);
                    }
                    at += 3;
                }
                Some("fn") if !is_outer => at += 1 + usize::from(tokens.get(at + 1).and_then(word).is_some()),
                Some("struct" | "enum" | "union" | "trait" | "type" | "const" | "static" | "fn")
                    if is_outer =>
                {
                    // The name itself is no use. In `const fn` it follows later.
                    let name = tokens.get(at + 1).and_then(word);
                    let name = name.filter(|name| !matches!(name.as_str(), "fn" | "unsafe" | "mut" | "_"));
                    at += 1 + usize::from(name.is_some());
                    self.read.modules[own].items.extend(name);
                }
                Some(_) => at += self.path(tokens, at, own),
                None => {
                    if let TokenTree::Group(inner) = &tokens[at] {
                        self.group(inner.stream(), own, directory)?;
                    }
                    at += 1;
                }
            }
            (is_shared, is_exported) = (false, false);
        }
        Ok(())
    }

    fn group(&mut self, tokens: TokenStream, own: usize, directory: &Path) -> anyhow::Result<()> {
        let tokens: Vec<_> = tokens.into_iter().collect();
        self.tokens(&tokens, own, directory, false)
    }

    /// Reads `mod name;` or `mod name { .. }`. Returns the number of its tokens.
    fn submodule(&mut self, tokens: &[TokenTree], own: usize, directory: &Path) -> anyhow::Result<usize> {
        let name = tokens.get(1).and_then(word).context("a module without a name")?;
        let within = directory.join(&name);
        let child = if let Some(body) = group(tokens.get(2), Delimiter::Brace) {
            let file = self.read.modules[own].file.clone();
            self.module(body, &file, &within, Some(own))?
        } else {
            let beside = directory.join(format!("{name}.rs"));
            let file = if (self.exists)(&beside) {
                beside
            } else {
                within.join("mod.rs")
            };
            self.file(&file, &within, Some(own))?
        };
        self.read.modules[own].children.insert(name, child);
        Ok(3)
    }

    /// Reads a path. Returns the number of its tokens.
    fn path(&mut self, tokens: &[TokenTree], at: usize, own: usize) -> usize {
        let (segments, length) = segments(&tokens[at..]);
        let before = at.checked_sub(1).and_then(|before| mark(&tokens[before]));
        // Not a field, a method, a lifetime, or the rest of `::name`, which begins with a crate.
        let is_a_path = !matches!(before, Some('.' | '\'' | ':')) || is_a_type_or_value(tokens, at);
        if is_a_path {
            let line = tokens[at].span().start().line;
            self.read.modules[own].paths.push(Named { segments, line });
        }
        length
    }
}

/// Returns `true` after a single colon, as in `name: Type`, and after two dots, as in `a..b`.
fn is_a_type_or_value(tokens: &[TokenTree], at: usize) -> bool {
    let nth_before = |distance| at.checked_sub(distance).and_then(|at| mark(&tokens[at]));
    match (nth_before(2), nth_before(1)) {
        (Some(':'), Some(':')) => false,
        (_, Some(':')) | (Some('.'), Some('.')) => true,
        _ => false,
    }
}

/// Returns the path `a::b::c` at the beginning of some tokens, and the number of its tokens.
fn segments(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut segments: Vec<String> = tokens.first().and_then(word).into_iter().collect();
    let mut at = 1;
    while let [first, second, name, ..] = &tokens[at..]
        && (mark(first), mark(second)) == (Some(':'), Some(':'))
        && let Some(name) = word(name)
    {
        segments.push(name);
        at += 3;
    }
    (segments, at)
}

/// Reads the tree of an import: `a::{b, c as d, e::*}`. Calls `found` with each name and its target.
fn imports(tokens: &[TokenTree], prefix: &Named, found: &mut dyn FnMut(String, Named)) {
    for tree in tokens.split(|token| mark(token) == Some(',')) {
        let mut whole = prefix.clone();
        let mut renamed = None;
        for (at, token) in tree.iter().enumerate() {
            whole.line = token.span().start().line;
            match word(token).as_deref() {
                Some("as") => {
                    renamed = tree.get(at + 1).and_then(word);
                    break;
                }
                // `a::{self}` means `a`.
                Some("self") if at == 0 && !prefix.segments.is_empty() => {}
                Some(name) => whole.segments.push(name.to_owned()),
                None => {}
            }
            if let TokenTree::Group(inner) = token {
                let inner: Vec<_> = inner.stream().into_iter().collect();
                imports(&inner, &whole, found);
                whole.segments.clear();
            } else if mark(token) == Some('*') {
                renamed = Some("*".to_owned());
            }
        }
        if let Some(last) = whole.segments.last() {
            found(renamed.unwrap_or_else(|| last.clone()), whole);
        }
    }
}

/// Returns the contents of the brackets of an attribute at the beginning of some tokens. Ignores attributes
/// of the whole file.
fn attribute(tokens: &[TokenTree]) -> Option<TokenStream> {
    if mark(tokens.first()?) != Some('#') {
        return None;
    }
    group(tokens.get(1), Delimiter::Bracket)
}

/// Returns `true` if an attribute is `cfg(test)`, or a `cfg(all(..))` with `test` in it.
fn is_for_tests(attribute: impl IntoIterator<Item = TokenTree>) -> bool {
    let tokens: Vec<_> = attribute.into_iter().collect();
    let Some(inner) = group(tokens.get(1), Delimiter::Parenthesis) else {
        return false;
    };
    match word(&tokens[0]).as_deref() {
        Some("cfg") => {
            let inner: Vec<_> = inner.into_iter().collect();
            let is_alone = inner.len() == 1 && word(&inner[0]).as_deref() == Some("test");
            is_alone || is_for_tests(inner)
        }
        Some("all") => inner
            .into_iter()
            .any(|token| word(&token).as_deref() == Some("test")),
        _ => false,
    }
}

/// Returns the number of tokens of an item, a statement or a field.
fn item(tokens: &[TokenTree]) -> usize {
    let mut at = 0;
    while attribute(&tokens[at..]).is_some() {
        at += 2;
    }
    let first = tokens[at..].iter().filter_map(word).find(|word| word != "pub");
    let (ends_with_brace, ends_with_comma) = match first.as_deref() {
        Some("use" | "const" | "static" | "type") => (false, false),
        Some("mod" | "struct" | "enum" | "trait" | "fn" | "impl" | "unsafe" | "async" | "extern") => {
            (true, false)
        }
        _ => (true, true),
    };
    while at < tokens.len() {
        let is_brace = group(tokens.get(at), Delimiter::Brace).is_some();
        let mark = mark(&tokens[at]);
        at += 1;
        if mark == Some(';') || (ends_with_brace && is_brace) || (ends_with_comma && mark == Some(',')) {
            break;
        }
    }
    at
}

fn until_semicolon(tokens: &[TokenTree]) -> usize {
    let end = tokens.iter().position(|token| mark(token) == Some(';'));
    end.unwrap_or(tokens.len())
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

fn mark(token: &TokenTree) -> Option<char> {
    match token {
        TokenTree::Punct(punct) => Some(punct.as_char()),
        _ => None,
    }
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<TokenStream> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group.stream()),
        _ => None,
    }
}
