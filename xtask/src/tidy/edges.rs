//! Which crate may depend on which. The table here and ARCHITECTURE.md change together.

use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::Workspace;

/// Crate and the crates of the workspace that it may name in its manifest.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ddr-oci", &[]),
    ("ddr-containerd", &["ddr-oci"]),
    ("ddr-proto", &["ddr-oci"]),
    ("ddr-store", &["ddr-oci"]),
    ("ddr-net", &["ddr-oci", "ddr-proto"]),
    ("ddr-upstream", &["ddr-oci"]),
    (
        "ddr-node",
        &["ddr-containerd", "ddr-net", "ddr-oci", "ddr-proto", "ddr-store", "ddr-upstream"],
    ),
    ("ddr-registry", &["ddr-node", "ddr-oci"]),
    (
        "ddrd",
        &[
            "ddr-containerd",
            "ddr-net",
            "ddr-node",
            "ddr-oci",
            "ddr-proto",
            "ddr-registry",
            "ddr-store",
            "ddr-upstream",
        ],
    ),
    ("ddr-sim", &["ddr-oci", "ddr-proto"]),
    ("xtask", &[]),
];

/// Edges that exist in tests only: a crate's tests may build a real node around it.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] =
    &[("ddr-registry", &["ddr-net", "ddr-proto", "ddr-store"])];

/// Pure crates: no runtime, sockets, files, clock reads, ambient randomness.
pub(super) const PURE: &[&str] = &["ddr-oci", "ddr-proto", "ddr-sim"];

/// Libraries that bring a runtime, sockets or an HTTP stack with them.
const IMPURE: &[&str] = &["async-io", "hyper", "mio", "socket2", "tokio"];

/// From crate, to crate, and whether only tests use the edge.
type Edge = (String, String, bool);

/// The edges between crates of the workspace as their manifests declare them.
pub(super) fn declared(workspace: &Workspace) -> BTreeMap<String, Vec<Edge>> {
    let own: BTreeSet<&str> = workspace.members().map(|p| p.name.as_str()).collect();
    let mut edges = BTreeMap::new();
    for package in workspace.members() {
        let out: Vec<Edge> = package
            .dependencies
            .iter()
            .filter(|d| own.contains(d.name.as_str()))
            .map(|d| (package.name.clone(), d.name.clone(), d.kind.as_deref() == Some("dev")))
            .collect();
        edges.insert(package.name.clone(), out);
    }
    edges
}

/// Edges that the tables do not hold, and crates that they do not know.
pub(super) fn problems(declared: &BTreeMap<String, Vec<Edge>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, edges) in declared {
        let Some(allowed) = row(ALLOWED, name) else {
            problems.push(format!("{name} is not in the table in xtask/src/tidy/edges.rs"));
            continue;
        };
        for (from, to, in_tests) in edges {
            let to_name = to.as_str();
            let in_table = allowed.contains(&to_name)
                || *in_tests && row(ALLOWED_IN_TESTS, name).is_some_and(|r| r.contains(&to_name));
            if !in_table {
                problems.push(format!("{from} -> {to}: this edge is not allowed"));
            }
        }
    }
    for (name, _) in ALLOWED {
        if !declared.contains_key(*name) {
            problems.push(format!("{name} is in the table but not in the workspace"));
        }
    }
    problems
}

fn row<'a>(table: &'a [(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(n, _)| *n == name).map(|(_, row)| *row)
}

/// Libraries with a runtime that a pure crate reaches through normal dependencies.
pub(super) fn impure_links(workspace: &Workspace) -> Vec<String> {
    let names: BTreeMap<&str, &str> =
        workspace.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let mut graph: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in &workspace.resolve.nodes {
        let normal = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind.is_none()));
        graph.insert(&node.id, normal.map(|d| d.pkg.as_str()).collect());
    }
    let mut problems = Vec::new();
    for package in workspace.members().filter(|p| PURE.contains(&p.name.as_str())) {
        for id in reachable(&graph, &package.id) {
            if let Some(name) = names.get(id).filter(|n| IMPURE.contains(n)) {
                problems.push(format!("{} is pure but links {name}", package.name));
            }
        }
    }
    problems
}

/// Everything that can be reached from `start`, itself included.
fn reachable<'a>(graph: &BTreeMap<&'a str, Vec<&'a str>>, start: &'a str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::from([start]);
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        for next in graph.get(id).into_iter().flatten() {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_as_declared() -> BTreeMap<String, Vec<Edge>> {
        let edges = |from: &str, to: &[&str]| {
            to.iter().map(|t| (from.to_owned(), (*t).to_owned(), false)).collect()
        };
        ALLOWED.iter().map(|(from, to)| ((*from).to_owned(), edges(from, to))).collect()
    }

    #[test]
    fn the_table_itself_is_clean() {
        assert_eq!(problems(&table_as_declared()), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_is_red() {
        let mut declared = table_as_declared();
        let edge = ("ddr-proto".to_owned(), "ddr-net".to_owned(), false);
        declared.get_mut("ddr-proto").unwrap().push(edge);
        assert_eq!(problems(&declared), ["ddr-proto -> ddr-net: this edge is not allowed"]);
    }

    #[test]
    fn an_edge_for_tests_is_red_outside_of_tests() {
        for (in_tests, expected) in [(true, 0), (false, 1)] {
            let mut declared = table_as_declared();
            let edge = ("ddr-registry".to_owned(), "ddr-store".to_owned(), in_tests);
            declared.get_mut("ddr-registry").unwrap().push(edge);
            assert_eq!(problems(&declared).len(), expected);
        }
    }

    #[test]
    fn an_unknown_crate_and_a_missing_one_are_red() {
        let mut declared = table_as_declared();
        let edges = declared.remove("ddrd").unwrap();
        declared.insert("ddr-util".to_owned(), edges);
        assert_eq!(problems(&declared).len(), 2);
    }

    #[test]
    fn reaching_goes_through_others() {
        let graph = BTreeMap::from([("a", vec!["b"]), ("b", vec!["c", "a"]), ("d", vec![])]);
        assert_eq!(reachable(&graph, "a"), BTreeSet::from(["a", "b", "c"]));
    }
}
