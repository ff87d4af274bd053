//! Files of a crate that use one another in a circle can only be read, tested and changed together, so circles stay small.

use std::collections::{BTreeMap, BTreeSet};

use crate::{expect_none, root, shown};

mod rust;

use rust::{Rust, Used};

/// Most files in one circle: a type, and what it is made of.
const CIRCLE_MAX: usize = 4;

/// A module: the folder of its crate root below the sources, and its path from there.
type Module = Vec<String>;

/// The sources of one crate.
struct Crate {
    modules: BTreeMap<Module, (String, Rust)>,
}

/// The modules of files that are named by their paths below `src`. A crate may have several roots.
fn modules(files: impl IntoIterator<Item = (String, String)>) -> Crate {
    let files: Vec<_> = files.into_iter().collect();
    let folder =
        |name: &str| name.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    let is_root = |name: &str| matches!(name.rsplit('/').next(), Some("lib.rs" | "main.rs"));
    let mut roots: Vec<String> =
        files.iter().filter(|(name, _)| is_root(name)).map(|(name, _)| folder(name)).collect();
    roots.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
    let mut modules = BTreeMap::new();
    for (name, text) in files {
        let Some(top) = roots.iter().find(|top| name.starts_with(*top)) else { continue };
        let mut path = vec![top.clone()];
        if !is_root(&name) {
            let inner = name[top.len()..].trim_end_matches(".rs").trim_end_matches("/mod");
            path.extend(inner.split('/').map(str::to_owned));
        }
        modules.insert(path, (name, Rust::parse(&text)));
    }
    Crate { modules }
}

impl Crate {
    /// The module that defines what `path` names in `module`: through modules, imports and re-exports to where it stands.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut at, mut rest) = (module.clone(), path);
        match path.first()?.as_str() {
            "crate" => {
                at.truncate(1);
                rest = &path[1..];
            }
            "self" | "super" => {
                while let Some("self" | "super") = rest.first().map(String::as_str) {
                    if rest[0] == "super" {
                        at.pop();
                    }
                    rest = &rest[1..];
                }
            }
            first => {
                // A child of this module, or something that it imports. Anything else is another crate's.
                let child = [module.as_slice(), &[first.to_owned()]].concat();
                if !self.modules.contains_key(&child) {
                    let used = self.modules.get(module)?.1.uses.iter();
                    let mut used = used.filter(|used| used.name == first && used.path != path[..1]);
                    return used.find_map(|used| self.follow(module, used, &path[1..], depth));
                }
            }
        }
        for (place, name) in rest.iter().enumerate() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let (_, rust) = self.modules.get(&at)?;
            let passed_on =
                rust.uses.iter().filter(|used| used.name == *name && !rust.defines.contains(name));
            let found = passed_on
                .filter(|_| at != *module)
                .find_map(|used| self.follow(&at, used, &rest[place + 1..], depth));
            return Some(found.unwrap_or(at));
        }
        self.modules.contains_key(&at).then_some(at)
    }

    /// Where `rest` of what an import in `module` names stands.
    fn follow(&self, module: &Module, used: &Used, rest: &[String], depth: usize) -> Option<Module> {
        let path = [used.path.as_slice(), rest].concat();
        if depth > 8 { None } else { self.resolve(module, &path, depth + 1) }
    }

    /// File -> the files that it uses, with a path by which it does.
    fn arrows(&self) -> BTreeMap<&str, BTreeMap<&str, String>> {
        let mut arrows: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        for (module, (name, rust)) in &self.modules {
            // What only passes a name on does not use it.
            let used = rust.uses.iter().filter(|used| !used.passed_on || rust.names.contains(&used.name));
            for path in used.map(|used| &used.path).chain(&rust.paths) {
                let Some(target) = self.resolve(module, path, 0).filter(|target| target != module) else {
                    continue;
                };
                if let Some((target, _)) = self.modules.get(&target) {
                    arrows.entry(name).or_default().entry(target).or_insert_with(|| path.join("::"));
                }
            }
        }
        arrows
    }

    /// Each circle of more than `most` files, with what ties them.
    fn circles(&self, most: usize) -> Vec<String> {
        let arrows = self.arrows();
        let reached: BTreeMap<&str, BTreeSet<&str>> = arrows
            .keys()
            .map(|file| {
                let (mut reached, mut open) = (BTreeSet::new(), vec![*file]);
                while let Some(next) = open.pop() {
                    open.extend(
                        arrows
                            .get(next)
                            .into_iter()
                            .flat_map(|to| to.keys())
                            .filter(|to| reached.insert(**to)),
                    );
                }
                (*file, reached)
            })
            .collect();
        let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|reached| reached.contains(to));
        let circle = |file: &str| -> BTreeSet<&str> {
            let both = reached[file].iter().filter(|other| reaches(other, file));
            both.copied().collect()
        };
        let circles: BTreeSet<BTreeSet<&str>> = arrows.keys().map(|file| circle(file)).collect();
        let ties = |circle: &BTreeSet<&str>| {
            let each = circle.iter().flat_map(|from| {
                let to = arrows[from].iter().filter(|(to, _)| circle.contains(*to));
                to.map(move |(to, path)| format!("\n    {from} -> {to}: {path}"))
            });
            format!("{} files:{}", circle.len(), each.collect::<String>())
        };
        circles.iter().filter(|circle| circle.len() > most).map(ties).collect()
    }
}

#[test]
fn circles_of_files_are_small() {
    let mut wrong = Vec::new();
    for dir in std::fs::read_dir(root().join("crates")).unwrap() {
        let sources = dir.unwrap().path().join("src");
        let dir = shown(&sources);
        let below = |path: &std::path::Path| shown(path)[dir.len() + 1..].to_owned();
        let files = crate::files(&dir, "rs").into_iter().map(|path| (below(&path), path));
        let files = files.filter(|(name, _)| !format!("/{name}").contains("/tests"));
        let crate_ = modules(files.map(|(name, path)| (name, std::fs::read_to_string(path).unwrap())));
        assert!(!crate_.modules.is_empty(), "{dir} has no root: the test looks in the wrong place");
        wrong.extend(crate_.circles(CIRCLE_MAX).into_iter().map(|circle| format!("{dir}, {circle}")));
    }
    expect_none(&format!("circles of more than {CIRCLE_MAX} files"), &wrong);
}

#[test]
fn circles_are_seen() {
    let files = |texts: &[(&str, &str)]| {
        modules(texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))).circles(1)
    };
    // Each in another way: nested imports, a re-export, a name by its path, an import of a module, a child.
    let round = files(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use std::fmt;\nuse crate::{b::{self as other, B}, c::C as D};"),
        ("b/mod.rs", "mod inner; pub(crate) use inner::B;"),
        ("b/inner.rs", "impl B { fn f() -> crate::c::C { 'x'; \"crate::d\" } }"),
        ("c.rs", "use super::d;\nfn f<'a>() { d::g() }"),
        ("d.rs", "// use crate::lib\nfn g() { crate::a::f() }"),
    ]);
    assert_eq!(round.len(), 1, "{round:?}");
    let ties =
        ["a.rs -> b/inner.rs: crate::b::B", "b/inner.rs -> c.rs: crate::c::C", "c.rs -> d.rs: super::d"];
    assert!(round[0].starts_with("4 files:"), "{round:?}");
    assert!(ties.iter().all(|tie| round[0].contains(tie)), "{round:?}");
    // Tests, comments, and what only passes a name on close no circle; nor does a second root.
    let none = files(&[
        ("lib.rs", "mod a; pub use a::A;"),
        ("a.rs", "use crate::b::B;"),
        (
            "b.rs",
            "/* use crate::a; */\n#[cfg(test)]\nmod tests { use crate::a::A; }\n#[cfg(test)]\nuse crate::a::A;",
        ),
        ("bench/main.rs", "mod a; use crate::a::f;"),
        ("bench/a.rs", "fn f() { r#\"crate::f\"#; }"),
    ]);
    assert_eq!(none, [""; 0]);
}
