//! No file of the framework imports another one that imports it, by however many steps: whoever reads one knows what lies below it.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, none, root, text};

type Module = Vec<String>;

/// Each file that is no test, as a module, and its code without the tests in it.
fn modules() -> BTreeMap<Module, String> {
    let source = root().join("framework/src");
    let is_test = |name: &str| {
        ["tests.rs", "broker/any.rs", "broker/double.rs"].iter().any(|end| name.ends_with(end))
            || name.contains("/model/")
    };
    let mut modules = BTreeMap::new();
    for path in files("framework/src", &[".rs"]) {
        let name = path.strip_prefix(&source).unwrap_or(&path).to_string_lossy().into_owned();
        if is_test(&name) {
            continue;
        }
        let mut module: Module = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        module.pop_if(|last| last == "mod");
        let text = text(&path);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        modules.insert(module, code.join("\n"));
    }
    modules
}

/// The paths that begin here, such as `a::{b, c::d}`; what is left of the text behind them.
fn paths<'a>(mut rest: &'a str, before: &Module, found: &mut Vec<Module>) -> &'a str {
    let mut path = before.clone();
    loop {
        rest = rest.trim_start();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                rest = paths(rest, &path, found).trim_start();
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => return rest.strip_prefix('}').unwrap_or(rest),
                }
            }
        }
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length > 0 {
            path.push(rest[..length].to_owned());
        }
        rest = &rest[length..];
        match rest.strip_prefix("::") {
            Some(more) => rest = more,
            None => {
                found.push(path);
                let renamed = rest.trim_start().strip_prefix("as ");
                return renamed.map_or(rest, |name| name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
            }
        }
    }
}

/// The files that a file imports. A room's own `mod.rs` only lists what is in it.
fn imported(module: &Module, code: &str, known: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        paths(rest, &Module::new(), &mut found);
    }
    let file =
        |path: Module| (1..=path.len()).rev().map(|length| path[..length].to_vec()).find(|it| known.contains_key(it));
    found.into_iter().filter_map(file).filter(|other| !module.starts_with(other)).collect()
}

/// The way from a file back to itself, if there is one.
fn circle(from: &Module, imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in way.last().and_then(|last| imports.get(last)).into_iter().flatten() {
            let further: Vec<Module> = way.iter().chain([next]).cloned().collect();
            if next == from {
                return Some(further);
            }
            if seen.insert(next.clone()) {
                ways.push(further);
            }
        }
    }
    None
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let modules = modules();
    assert!(modules.len() > 100, "the files of the framework are found");
    let imports: BTreeMap<Module, BTreeSet<Module>> =
        modules.iter().map(|(module, code)| (module.clone(), imported(module, code, &modules))).collect();
    let circles = imports.keys().filter_map(|module| circle(module, &imports));
    let shown = |way: Vec<Module>| way.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" → ");
    none(&circles.map(shown).collect::<Vec<_>>());
}

#[test]
fn imports_of_every_shape_are_read() {
    let read = |text: &str| {
        let mut found = Vec::new();
        paths(text, &Module::new(), &mut found);
        found.iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(read("a::b;"), ["a::b"]);
    assert_eq!(read("a::{self, b as c, d::{e, f}};"), ["a::self", "a::b", "a::d::e", "a::d::f"]);
    assert_eq!(read("a::b(1)"), ["a::b"]);
}
