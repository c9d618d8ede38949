//! Types and signatures from rustdoc's JSON, in Rust's syntax.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

/// Renders the types of one library, and records the crates of these types.
pub(crate) struct Render<'a> {
    /// `paths` and `external_crates` of the JSON.
    pub(crate) paths: &'a Value,
    pub(crate) crates: &'a Value,
    /// The crates from outside that were found, with the paths of the types.
    pub(crate) foreign: RefCell<BTreeSet<(String, String)>>,
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns the name and the contents of an enum's variant in JSON.
fn variant(value: &Value) -> (&str, &Value) {
    match value {
        Value::String(name) => (name, &Value::Null),
        Value::Object(fields) => fields
            .iter()
            .next()
            .map_or(("", &Value::Null), |(name, of)| (name, of)),
        _ => ("", &Value::Null),
    }
}

fn joined(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(between)
}

impl Render<'_> {
    /// Renders a type.
    pub(crate) fn of(&self, of: &Value) -> String {
        let (kind, is) = variant(of);
        match kind {
            "resolved_path" => self.path(is),
            "generic" | "primitive" => text(is).to_owned(),
            "dyn_trait" => self.dynamic(is),
            "function_pointer" => self.pointer(is),
            "tuple" => format!("({})", joined(list(is).map(|part| self.of(part)), ", ")),
            "slice" => format!("[{}]", self.of(is)),
            "array" => format!("[{}; {}]", self.of(&is["type"]), text(&is["len"])),
            "impl_trait" => format!("impl {}", self.bounds(is)),
            "infer" => "_".to_owned(),
            "raw_pointer" => {
                let word = if is["is_mutable"] == true { "mut" } else { "const" };
                format!("*{word} {}", self.of(&is["type"]))
            }
            "borrowed_ref" => {
                let lifetime = is["lifetime"]
                    .as_str()
                    .map_or(String::new(), |name| format!("{name} "));
                let word = if is["is_mutable"] == true { "mut " } else { "" };
                format!("&{lifetime}{word}{}", self.of(&is["type"]))
            }
            "qualified_path" => {
                let (own, name) = (self.of(&is["self_type"]), text(&is["name"]));
                match &is["trait"] {
                    of if of.is_object() && !text(&of["path"]).is_empty() => {
                        format!(
                            "<{own} as {}>::{name}{}",
                            self.path(of),
                            self.arguments(&is["args"])
                        )
                    }
                    _ => format!("{own}::{name}"),
                }
            }
            _ => format!("?{kind}"),
        }
    }

    /// Renders a path with its arguments. If it belongs to a crate from outside, it is recorded.
    pub(crate) fn path(&self, of: &Value) -> String {
        let known = &self.paths[of["id"].to_string()];
        if let Some(number) = known["crate_id"].as_u64().filter(|number| *number > 0) {
            let name = text(&self.crates[number.to_string()]["name"]);
            if !["std", "core", "alloc"].contains(&name) && !name.starts_with("aio_") {
                let path = joined(list(&known["path"]).map(|part| text(part).to_owned()), "::");
                self.foreign.borrow_mut().insert((name.to_owned(), path));
            }
        }
        let last = text(&of["path"]).rsplit("::").next().unwrap_or_default();
        format!("{last}{}", self.arguments(&of["args"]))
    }

    fn arguments(&self, of: &Value) -> String {
        let (kind, is) = variant(of);
        if kind == "parenthesized" {
            let inputs = joined(list(&is["inputs"]).map(|input| self.of(input)), ", ");
            return format!("({inputs}){}", self.output(&is["output"]));
        }
        let arguments = list(&is["args"]).map(|argument| match variant(argument) {
            ("type", of) => self.of(of),
            ("const", of) => text(&of["expr"]).to_owned(),
            ("lifetime", name) => text(name).to_owned(),
            (other, _) => other.to_owned(),
        });
        let constraints = list(&is["constraints"]).map(|constraint| {
            let name = text(&constraint["name"]);
            match variant(&constraint["binding"]) {
                ("constraint", bounds) => format!("{name}: {}", self.bounds(bounds)),
                (_, term) => format!("{name} = {}", self.term(term)),
            }
        });
        let all = joined(arguments.chain(constraints), ", ");
        if all.is_empty() { all } else { format!("<{all}>") }
    }

    fn term(&self, of: &Value) -> String {
        match variant(of) {
            ("type", of) => self.of(of),
            (_, of) => text(&of["expr"]).to_owned(),
        }
    }

    fn dynamic(&self, of: &Value) -> String {
        let traits =
            list(&of["traits"]).map(|of| self.higher(&of["generic_params"]) + &self.path(&of["trait"]));
        let lifetime = of["lifetime"].as_str().map(str::to_owned);
        format!("dyn {}", joined(traits.chain(lifetime), " + "))
    }

    fn pointer(&self, of: &Value) -> String {
        let inputs = list(&of["sig"]["inputs"]).map(|input| self.of(&input[1]));
        format!(
            "{}fn({}){}",
            header(&of["header"]),
            joined(inputs, ", "),
            self.output(&of["sig"]["output"])
        )
    }

    fn output(&self, of: &Value) -> String {
        if of.is_null() {
            String::new()
        } else {
            format!(" -> {}", self.of(of))
        }
    }

    fn higher(&self, of: &Value) -> String {
        let names = joined(list(of).map(|one| text(&one["name"]).to_owned()), ", ");
        if names.is_empty() {
            names
        } else {
            format!("for<{names}> ")
        }
    }

    pub(crate) fn bounds(&self, of: &Value) -> String {
        let bounds = list(of).map(|bound| match variant(bound) {
            ("trait_bound", of) => {
                let sign = if text(&of["modifier"]) == "maybe" { "?" } else { "" };
                format!(
                    "{}{sign}{}",
                    self.higher(&of["generic_params"]),
                    self.path(&of["trait"])
                )
            }
            ("outlives", name) => text(name).to_owned(),
            ("use", captured) => {
                let names = list(captured).map(|name| text(variant(name).1).to_owned());
                format!("use<{}>", joined(names, ", "))
            }
            (other, _) => other.to_owned(),
        });
        joined(bounds, " + ")
    }

    /// Renders the parameters of an item, and their bounds.
    pub(crate) fn generics(&self, of: &Value) -> (String, String) {
        let parameters = list(&of["params"]).filter_map(|one| {
            let name = text(&one["name"]);
            let (kind, is) = variant(&one["kind"]);
            if kind == "type" && is["is_synthetic"] == true {
                return None; // an `impl Trait` in the place of an argument
            }
            let with = |bounds: String| {
                if bounds.is_empty() {
                    name.to_owned()
                } else {
                    format!("{name}: {bounds}")
                }
            };
            Some(match kind {
                "type" => {
                    let default = if is["default"].is_null() {
                        String::new()
                    } else {
                        format!(" = {}", self.of(&is["default"]))
                    };
                    with(self.bounds(&is["bounds"])) + &default
                }
                "const" => format!("const {name}: {}", self.of(&is["type"])),
                _ => with(joined(
                    list(&is["outlives"]).map(|name| text(name).to_owned()),
                    " + ",
                )),
            })
        });
        let parameters = joined(parameters, ", ");
        let conditions = list(&of["where_predicates"]).map(|one| match variant(one) {
            ("bound_predicate", of) => {
                format!(
                    "{}{}: {}",
                    self.higher(&of["generic_params"]),
                    self.of(&of["type"]),
                    self.bounds(&of["bounds"])
                )
            }
            ("lifetime_predicate", of) => {
                format!(
                    "{}: {}",
                    text(&of["lifetime"]),
                    joined(list(&of["outlives"]).map(|name| text(name).to_owned()), " + ")
                )
            }
            (_, of) => format!("{} == {}", self.of(&of["lhs"]), self.term(&of["rhs"])),
        });
        let conditions = joined(conditions, ", ");
        (
            if parameters.is_empty() {
                parameters
            } else {
                format!("<{parameters}>")
            },
            if conditions.is_empty() {
                conditions
            } else {
                format!(" where {conditions}")
            },
        )
    }

    /// Renders a function, without its path.
    pub(crate) fn function(&self, name: &str, of: &Value) -> String {
        let inputs = list(&of["sig"]["inputs"]).map(|input| {
            let (name, of) = (text(&input[0]), self.of(&input[1]));
            match of.as_str() {
                "Self" | "&Self" | "&mut Self" if name == "self" => of.replace("Self", "self"),
                _ => format!("{name}: {of}"),
            }
        });
        let (parameters, conditions) = self.generics(&of["generics"]);
        format!(
            "{}fn {name}{parameters}({}){}{conditions}",
            header(&of["header"]),
            joined(inputs, ", "),
            self.output(&of["sig"]["output"])
        )
    }
}

fn header(of: &Value) -> String {
    let mut words = String::new();
    for (field, word) in [
        ("is_const", "const "),
        ("is_async", "async "),
        ("is_unsafe", "unsafe "),
    ] {
        if of[field] == true {
            words += word;
        }
    }
    match variant(&of["abi"]) {
        ("Rust" | "", _) => words,
        (abi, _) => format!("{words}extern \"{abi}\" "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(check: impl Fn(&Render<'_>)) {
        let paths = json!({
            "1": {"crate_id": 0, "path": ["own", "Own"]},
            "2": {"crate_id": 5, "path": ["rustix", "io", "Errno"]},
            "3": {"crate_id": 6, "path": ["core", "fmt", "Debug"]},
        });
        let crates = json!({"5": {"name": "rustix"}, "6": {"name": "core"}});
        check(&Render {
            paths: &paths,
            crates: &crates,
            foreign: RefCell::default(),
        });
    }

    #[test]
    fn types_are_rendered_as_they_are_written() {
        with(|render| {
            let own = json!({"resolved_path": {"path": "a::Own", "id": 1, "args": {"angle_bracketed": {
                "args": [{"lifetime": "'a"}, {"type": {"primitive": "u8"}}, {"const": {"expr": "64"}}], "constraints": []}}}});
            assert_eq!(render.of(&own), "Own<'a, u8, 64>");
            let reference = json!({"borrowed_ref": {"lifetime": null, "is_mutable": true, "type": {"slice": {"generic": "T"}}}});
            assert_eq!(render.of(&reference), "&mut [T]");
            let closure = json!({"dyn_trait": {"lifetime": "'static", "traits": [{"generic_params": [], "trait": {"path": "FnMut", "id": 9,
                "args": {"parenthesized": {"inputs": [{"primitive": "u32"}], "output": {"primitive": "bool"}}}}}]}});
            assert_eq!(render.of(&closure), "dyn FnMut(u32) -> bool + 'static");
            assert_eq!(render.of(&json!({"tuple": []})), "()");
        });
    }

    #[test]
    fn a_function_has_its_parameters_and_conditions() {
        with(|render| {
            let debug = json!([{"trait_bound": {"trait": {"path": "fmt::Debug", "id": 3, "args": null}, "generic_params": [], "modifier": "none"}}]);
            let function = json!({
                "header": {"is_const": true, "is_async": false, "is_unsafe": false, "abi": "Rust"},
                "sig": {"inputs": [["self", {"borrowed_ref": {"lifetime": null, "is_mutable": false, "type": {"generic": "Self"}}}], ["t", {"generic": "T"}]],
                    "output": {"generic": "T"}},
                "generics": {"params": [{"name": "T", "kind": {"type": {"bounds": [], "default": null, "is_synthetic": false}}}],
                    "where_predicates": [{"bound_predicate": {"type": {"generic": "T"}, "bounds": debug, "generic_params": []}}]},
            });
            assert_eq!(
                render.function("f", &function),
                "const fn f<T>(&self, t: T) -> T where T: Debug"
            );
        });
    }

    #[test]
    fn a_type_from_outside_is_recorded() {
        with(|render| {
            render.of(&json!({"resolved_path": {"path": "Own", "id": 1, "args": null}}));
            assert!(render.foreign.borrow().is_empty());
            render.of(&json!({"resolved_path": {"path": "Errno", "id": 2, "args": null}}));
            let foreign: Vec<_> = render.foreign.take().into_iter().collect();
            assert_eq!(foreign, [("rustix".to_owned(), "rustix::io::Errno".to_owned())]);
        });
    }
}
