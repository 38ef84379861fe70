//! `docs/conformance.md` says where a requirement is met and which tests would fail without it. Here is
//! the test that it says so of what is there, and that the links of all documents lead somewhere.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Files of Rust by their path from the root of the package.
type Sources = BTreeMap<String, String>;

struct Row {
    id: String,
    code: String,
    tests: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    text.lines()
        .filter(|line| {
            line.starts_with('|') && !line.starts_with("| ID") && !line.starts_with("|-")
        })
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [id, _, code, tests] = cells[..] else { panic!("not four cells: {line}") };
            Row { id: id.into(), code: code.into(), tests: tests.into() }
        })
        .collect()
}

fn sources() -> Sources {
    let mut found = Sources::new();
    let mut directories = vec![PathBuf::from("src"), "tests".into()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.to_str().unwrap().replace('\\', "/");
                found.insert(name, fs::read_to_string(root().join(path)).unwrap());
            }
        }
    }
    found
}

/// What stands in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn is_path(token: &str) -> bool {
    token.contains('/') || token.ends_with(".rs")
}

/// The path from the root of the package: a file, the beginning of the paths of a directory, or what is
/// before and after a `*`.
fn from_root(token: &str) -> String {
    let from_root = ["tests/", "fuzz/", "docs/"].iter().any(|top| token.starts_with(top));
    if from_root { token.into() } else { format!("src/{token}") }
}

fn is_at(path: &str, place: &str) -> bool {
    match place.split_once('*') {
        Some((before, after)) => path.starts_with(before) && path.ends_with(after),
        None if place.ends_with('/') => path.starts_with(place),
        None => path == place,
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The names of the functions with a test attribute.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, name)) = line.split_once("fn ")
            && std::mem::take(&mut is_test)
        {
            names.extend(words(name).next());
        }
    }
    names
}

#[test]
fn every_place_that_is_named_is_there() {
    let sources = sources();
    for Row { id, code, tests } in rows() {
        for place in quoted(&code).chain(quoted(&tests)).filter(|token| is_path(token)) {
            let place = from_root(place);
            let there = sources.keys().any(|path| is_at(path, &place));
            // What a crate is packaged without cannot be looked for in it.
            let packaged = root().join("fuzz").exists() || !place.starts_with("fuzz/");
            assert!(there || !packaged || root().join(&place).exists(), "{id}: {place}");
        }
    }
}

#[test]
fn every_item_is_in_the_place_that_is_named() {
    let sources = sources();
    for Row { id, code, .. } in rows() {
        let mut place = String::from("src/");
        for token in quoted(&code) {
            if is_path(token) {
                place = from_root(token);
                continue;
            }
            let item = words(token).last().unwrap();
            let there = sources
                .iter()
                .any(|(path, text)| is_at(path, &place) && words(text).any(|word| word == item));
            assert!(there, "{id}: {token} is not in {place}");
        }
    }
}

#[test]
fn every_test_that_is_named_is_one() {
    let sources = sources();
    let known: BTreeSet<&str> = sources.values().flat_map(|text| tests_in(text)).collect();
    assert!(known.contains("every_test_that_is_named_is_one"));
    for Row { id, tests, .. } in rows() {
        for name in quoted(&tests).filter(|token| !is_path(token) && token.contains('_')) {
            assert!(known.contains(name), "{id}: {name}");
        }
    }
}

#[test]
fn every_requirement_that_is_cited_is_in_the_table_once() {
    let rows = rows();
    let ids: BTreeSet<&str> = rows.iter().map(|row| &*row.id).collect();
    assert_eq!(ids.len(), rows.len());
    let mut cited = BTreeSet::new();
    let is_id = |word: &&str| {
        let (kind, number) = word.split_once('-').unwrap_or_default();
        ["2P", "TL", "DM", "MC", "CH"].contains(&kind)
            && number.len() == 2
            && number.bytes().all(|digit| digit.is_ascii_digit())
    };
    let sources = sources();
    for (path, text) in &sources {
        for line in text.lines().filter(|line| line.contains("//")) {
            for id in line.split(|c: char| !c.is_alphanumeric() && c != '-').filter(is_id) {
                assert!(ids.contains(id), "{path}: {id}");
                cited.insert(id);
            }
        }
    }
    assert_eq!(cited, ids);
}

/// Where GitHub puts a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = ["README.md", "CONTRIBUTING.md"].map(PathBuf::from).into_iter();
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let documents =
        documents.chain(docs.map(|entry| Path::new("docs").join(entry.unwrap().file_name())));
    let mut links = 0;
    for document in documents.filter(|path| path.extension().is_some_and(|kind| kind == "md")) {
        let text = fs::read_to_string(root().join(&document)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => root().join(&document),
                path => root().join(&document).parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link}", document.display());
            if !heading.is_empty() {
                let target = fs::read_to_string(target).unwrap();
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                let there = headings.any(|line| anchor(line) == heading);
                assert!(there, "{}: {link}", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 0);
}
