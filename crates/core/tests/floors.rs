//! The house: which file of this crate may know which. Read from the paths in the sources (`use` lines and paths in the
//! code), tests excepted. Whoever writes code here learns from a failure which line to move.

#![allow(clippy::unwrap_used, clippy::panic)] // of files that the compiler has just read

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What the etcd client stands on, within its folder and outside.
const GROUND: &[&str] = &[
    "etcd::error",
    "etcd::messages",
    "etcd::options",
    "backoff",
    "crypto",
    "error",
    "heard",
    "log",
    "stall",
    "sync",
    "tls",
];

/// The floors of the etcd client, and which of them each may know, besides itself and the ground.
const FLOORS: &[(&str, &[&str])] = &[
    ("etcd::error", &[]),
    ("etcd::messages", &[]),
    ("etcd::options", &[]),
    ("etcd::transport", &[]),
    ("etcd::calls", &["etcd::transport"]),
    ("etcd::lease", &["etcd::calls"]),
    ("etcd::watch", &["etcd::calls"]),
    ("etcd::election", &["etcd::calls", "etcd::lease", "etcd::watch"]),
    (
        "etcd::client",
        &["etcd::calls", "etcd::lease", "etcd::watch", "etcd::election"],
    ),
];

/// A file of the crate: its module, and the modules that it names, each with the line.
struct Source {
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    sources.sort_by(|a, b| a.module.cmp(&b.module));
    sources
}

fn collect(root: &Path, folder: &Path, into: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, into);
            continue;
        }
        let inside = path.strip_prefix(root).unwrap().with_extension("");
        let mut parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap()).collect();
        if matches!(parts.last(), Some(&("mod" | "lib"))) {
            parts.pop();
        }
        if matches!(parts.last(), Some(&("tests" | "testing"))) {
            continue;
        }
        let text = without_tests(&without_comments(&fs::read_to_string(&path).unwrap()));
        let text = text.replace("pub(in ", "pub("); // says who may see, not who is known
        into.push(Source {
            module: parts.join("::"),
            text,
        });
    }
}

/// Comments and the contents of string literals, each replaced by nothing. Lines stay where they are.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"', '\'']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with('"') {
            let is_raw = out.ends_with("r#");
            end_of_string(rest, is_raw)
        } else if rest.starts_with("'\"'") {
            3
        } else if let Some(escaped) = rest.strip_prefix("'\\") {
            escaped.find('\'').map_or(2, |end| end + 3)
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
            continue;
        };
        out.extend(rest[..skipped].matches('\n'));
        rest = &rest[skipped..];
    }
    out.push_str(rest);
    out
}

fn end_of_string(text: &str, is_raw: bool) -> usize {
    if is_raw {
        return text[1..].find("\"#").map_or(text.len(), |end| end + 3);
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Without what stands behind `#[cfg(test)]`: a module, an import, a function.
fn without_tests(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = match (rest.find(';'), rest.find('{')) {
            (Some(semicolon), Some(brace)) if semicolon < brace => semicolon + 1,
            (_, Some(brace)) => brace + block(&rest[brace..]),
            (Some(semicolon), None) => semicolon + 1,
            (None, None) => rest.len(),
        };
        out.extend(rest[..end].matches('\n'));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn block(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// All paths in a text, those in braces too, each with its line. `a::{b, c::d}` is two.
fn paths(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let starts_word = is_word(bytes[at]) && (at == 0 || !is_word(bytes[at - 1]));
        if starts_word && !text[..at].ends_with("::") && !text[..at].ends_with("pub(") {
            let line = text[..at].matches('\n').count() + 1;
            let mut ends = Vec::new();
            let end = read_path(text, at, Vec::new(), &mut ends);
            found.extend(ends.into_iter().filter(|path| path.len() > 1).map(|path| (line, path)));
            at = end.max(at + 1);
            continue;
        }
        at += 1;
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Reads the path at `at` behind what stands before it; returns where it ends.
fn read_path(text: &str, mut at: usize, mut path: Vec<String>, into: &mut Vec<Vec<String>>) -> usize {
    let bytes = text.as_bytes();
    let skip_space = |mut at: usize| {
        while at < bytes.len() && bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        at
    };
    if bytes.get(at) == Some(&b'{') {
        at = skip_space(at + 1);
        while at < bytes.len() && bytes[at] != b'}' {
            at = skip_space(read_path(text, at, path.clone(), into).max(at + 1));
            if text[at..].starts_with("as ") {
                at = skip_space(at + 3);
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                at = skip_space(at);
            }
            if bytes.get(at) == Some(&b',') {
                at = skip_space(at + 1);
            }
        }
        return at + 1;
    }
    let start = at;
    while at < bytes.len() && is_word(bytes[at]) {
        at += 1;
    }
    if at > start {
        path.push(text[start..at].to_owned());
    }
    if text[at..].starts_with("::") && bytes.get(at + 2).is_some_and(|next| is_word(*next) || *next == b'{') {
        return read_path(text, at + 2, path, into);
    }
    into.push(path);
    at
}

/// Which file of the crate a path names, seen from `from`; `None` when it leads elsewhere.
fn resolve<'a>(modules: &'a BTreeSet<String>, from: &str, path: &[String]) -> Option<&'a str> {
    let mut base: Vec<&str> = if from.is_empty() {
        Vec::new()
    } else {
        from.split("::").collect()
    };
    let mut rest = path;
    match path[0].as_str() {
        "crate" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        // A child by its bare name.
        child => {
            let is_child = modules.contains([from, child].join("::").trim_start_matches(':'));
            if !is_child {
                return None;
            }
        }
    }
    for part in rest {
        base.push(part);
        if !modules.contains(&base.join("::")) {
            base.pop();
            break;
        }
    }
    modules.get(&base.join("::")).map(String::as_str)
}

/// From each file to those that it names, with the first line that does.
type Graph = BTreeMap<String, BTreeMap<String, usize>>;

fn graph() -> Graph {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module.clone()).collect();
    let mut graph = Graph::new();
    for source in &sources {
        let names = graph.entry(source.module.clone()).or_default();
        for (line, path) in paths(&source.text) {
            if let Some(to) = resolve(&modules, &source.module, &path)
                && to != source.module
            {
                names.entry(to.to_owned()).or_insert(line);
            }
        }
    }
    graph
}

/// The files that can be come back to, in groups that know each other.
fn circles(graph: &Graph) -> Vec<BTreeSet<&str>> {
    let reach = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = graph[from].keys().map(String::as_str).collect();
        while let Some(at) = next.pop() {
            if seen.insert(at) {
                next.extend(graph[at].keys().map(String::as_str));
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|file| (file.as_str(), reach(file))).collect();
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for (file, there) in &reached {
        if there.contains(file) && !circles.iter().any(|circle| circle.contains(file)) {
            circles.push(there.iter().copied().filter(|to| reached[to].contains(file)).collect());
        }
    }
    circles
}

fn is_in(module: &str, floor: &str) -> bool {
    module == floor || module.strip_prefix(floor).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn no_two_files_know_each_other() {
    let graph = graph();
    let mut told = String::new();
    for circle in circles(&graph) {
        let _ = writeln!(told, "a circle:");
        for from in &circle {
            for (to, line) in &graph[*from] {
                if circle.contains(to.as_str()) {
                    let _ = writeln!(told, "  {from}, line {line}, names {to}");
                }
            }
        }
    }
    assert!(told.is_empty(), "{told}");
}

#[test]
fn each_floor_of_the_etcd_client_knows_only_those_below() {
    let mut told = String::new();
    for (from, names) in graph() {
        // The door names everybody; nobody names the door.
        if !is_in(&from, "etcd") || from == "etcd" {
            continue;
        }
        let Some((floor, below)) = FLOORS.iter().find(|(floor, _)| is_in(&from, floor)) else {
            let _ = writeln!(told, "  {from} is on no floor");
            continue;
        };
        for (to, line) in names {
            let may_know = |known: &&str| is_in(&to, known);
            if !is_in(&to, floor) && !below.iter().any(may_know) && !GROUND.iter().any(may_know) {
                let _ = writeln!(told, "  {from}, line {line}, names {to}");
            }
        }
    }
    assert!(told.is_empty(), "not below:\n{told}");
}

#[test]
fn paths_are_found_where_they_are() {
    let text = "use a::{b, c::d as e};\nfn f() { crate::x::Y::z(); } // crate::no\nlet s = \"crate::no\";";
    let found = paths(&without_comments(text));
    let joined: Vec<(usize, String)> = found.iter().map(|(line, path)| (*line, path.join("::"))).collect();
    let want = [(1, "a::b"), (1, "a::c::d"), (2, "crate::x::Y::z")];
    assert_eq!(joined, want.map(|(line, path)| (line, path.to_owned())));
    let text = "a\n#[cfg(test)]\nmod tests {\n  use super::*;\n}\nb";
    assert_eq!(
        without_tests(text)
            .lines()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
}
