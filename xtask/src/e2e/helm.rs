//! helm: charts as artifacts. Nothing is installed anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::go_client::GoClient;
use super::scenario::explain;
use super::{Setup, http, three_nodes};
use crate::checks::Checks;
use crate::swarm::Node;
use crate::tools::GoTool;

const CHART: &str = "demo";
const REPOSITORY: &str = "charts/demo";
const VERSIONS: [&str; 2] = ["0.1.0", "0.2.0"];

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let helm = GoClient::new(setup, GoTool::HELM, dir)?;
    checks.check("helm: package two versions of a chart, push on A, show on C", || {
        explain(&nodes, push(&helm, &nodes))
    });
    checks.check("helm: without a version, the newest one of A on B and C", || {
        explain(&nodes, newest(&helm, &nodes))
    });
    checks.check("helm: pull each version on B and C", || explain(&nodes, pull(&helm, &nodes)));
    checks.check("helm: render the chart from C", || {
        let rendered = helm.run(&["template", &url(&nodes[2]), "--plain-http"])?;
        ensure!(rendered.contains("name: from-0.2.0"), "rendered {rendered}");
        Ok(())
    });
    checks.check("helm: nothing outside was called", || helm.stayed_at_home());
    Ok(())
}

fn url(node: &Node) -> String {
    format!("oci://{}/{REPOSITORY}", node.registry)
}

/// The file that `helm package` makes and `helm pull` gets.
fn file_name(version: &str) -> String {
    format!("{CHART}-{version}.tgz")
}

/// Makes a chart with one template; the packaged file.
fn package(helm: &GoClient, version: &str) -> Result<PathBuf> {
    let source = helm.home().join(format!("source-{version}"));
    fs::create_dir_all(source.join("templates"))?;
    let chart = format!("apiVersion: v2\nname: {CHART}\nversion: {version}\n");
    fs::write(source.join("Chart.yaml"), chart)?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  \
                    name: from-{{ .Chart.Version }}\n";
    fs::write(source.join("templates/map.yaml"), template)?;
    helm.run(&["package", &source.to_string_lossy()])?;
    Ok(helm.home().join(file_name(version)))
}

fn push(helm: &GoClient, nodes: &[Node; 3]) -> Result<()> {
    let [a, _, c] = nodes;
    for version in VERSIONS {
        let packaged = package(helm, version)?;
        let to = format!("oci://{}/charts", a.registry);
        helm.run(&["push", &packaged.to_string_lossy(), &to, "--plain-http"])?;
        let shown = helm.run(&["show", "chart", &url(c), "--version", version, "--plain-http"])?;
        ensure!(shown.contains(&format!("version: {version}")), "C shows {shown}");
        let on_a = http::digest_of(&a.registry, REPOSITORY, version)?;
        let on_c = http::digest_of(&c.registry, REPOSITORY, version)?;
        ensure!(on_a == on_c, "A and C disagree: {on_a}, {on_c}");
    }
    Ok(())
}

fn pull(helm: &GoClient, nodes: &[Node; 3]) -> Result<()> {
    for node in &nodes[1..] {
        for version in VERSIONS {
            let out = helm.home().join(format!("pulled-{}-{version}", node.name));
            fs::create_dir_all(&out)?;
            let to = out.to_string_lossy();
            let what = ["pull", &url(node), "--version", version];
            helm.run(&[&what[..], &["--plain-http", "--destination", &to]].concat())?;
            let name = file_name(version);
            let same = fs::read(out.join(&name))? == fs::read(helm.home().join(&name))?;
            ensure!(same, "{} gave another {name}", node.name);
        }
    }
    Ok(())
}

/// helm finds the newest version in the list of tags.
fn newest(helm: &GoClient, nodes: &[Node; 3]) -> Result<()> {
    for node in &nodes[1..] {
        let shown = helm.run(&["show", "chart", &url(node), "--plain-http"])?;
        ensure!(shown.contains("version: 0.2.0"), "{} shows {shown}", node.name);
    }
    Ok(())
}
