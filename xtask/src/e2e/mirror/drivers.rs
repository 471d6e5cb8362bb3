//! What lies beside a node: a registry that its machine runs, and the content store of containerd.
//!
//! Node A uses a docker-registry that tells it of pushes, B another that tells nobody, C nothing. D uses containerd, which
//! has pulled from a registry that is dead when the others want the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::upstream::Registry;
use crate::checks::Checks;
use crate::e2e::containerd::{Containerd, SOCKET};
use crate::e2e::scenario::{Client, at, explain};
use crate::e2e::{Setup, http, skopeo};
use crate::run;
use crate::swarm::Node;

/// From a change beside a node to the moment when others see it.
pub(super) const NOTICE_LIMIT: Duration = Duration::from_secs(30);
/// The registry that containerd has pulled from.
const GONE: &str = "gone.ddr.test";

/// Registries and the nodes beside them.
struct Bed {
    tells: Registry,
    silent: Registry,
    nodes: Vec<Node>,
    dir: PathBuf,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let mut bed = Bed::start(setup, &dir.join("drivers"))?;
    let (one, two) = (&setup.images.one.archive, &setup.images.two.archive);
    checks.check("driver: a push to A lands in its registry and takes no second place", || {
        bed.explain(bed.lands(one))
    });
    checks.check(
        "driver: what is pushed to A's registry is noticed, and pulled from B and C",
        || bed.explain(bed.notices(one, two)),
    );
    checks
        .check("driver: B gives what its registry did not tell of, to the first who asks", || {
            bed.explain(bed.looks(one))
        });
    checks.check("driver: a look undoes neither a delete nor a push to another node", || {
        bed.explain(bed.keeps_what_the_swarm_did(one, two))
    });
    checks.check(
        "driver: while A's registry is dead, pushes to A are refused, then succeed",
        || {
            bed.tells.stop()?;
            bed.explain(bed.refuses(one))?;
            bed.tells.start()?;
            bed.explain(skopeo::push(one, &at(&bed.nodes[0], "team/dead")))
        },
    );
    checks.check("driver: another registry pulls through A, as from any registry", || {
        let cache = Registry::caching(&dir.join("cache"), &bed.nodes[0].registry)?;
        bed.explain(bed.feeds(&cache))
    });
    checks.check("driver: a node gives what its containerd has, and keeps no copy", || {
        bed.explain(bed.gives_of_containerd(setup))
    });
    Ok(())
}

impl Bed {
    fn start(setup: &Setup, dir: &Path) -> Result<Self> {
        let mut tells = Registry::open(&dir.join("tells"))?;
        let silent = Registry::open(&dir.join("silent"))?;
        let beside = |registry: &Registry, every: &str| {
            format!(
                "[driver]\nkind = \"registry\"\nendpoint = \"http://{}\"\nevery = \"{every}\"\n",
                registry.address
            )
        };
        let a = Node::start_with(
            &setup.daemon,
            dir,
            "a",
            None,
            &flags(dir, "a", &beside(&tells, "1h"))?,
        )?;
        let token = a.token_file()?;
        let b = flags(dir, "b", &beside(&silent, "1s"))?;
        let b = Node::start_with(&setup.daemon, dir, "b", Some(&token), &b)?;
        let c = Node::start_with(&setup.daemon, dir, "c", Some(&token), &[])?;
        let nodes = vec![a, b, c];
        nodes.iter().try_for_each(Node::wait_ready)?;
        tells.tell(&format!("http://{}/api/v1/driver/events", nodes[0].admin))?;
        Ok(Self { tells, silent, nodes, dir: dir.to_path_buf() })
    }

    fn explain<T>(&self, result: Result<T>) -> Result<T> {
        explain(&self.nodes, result)
    }

    fn lands(&self, image: &Path) -> Result<()> {
        let a = &self.nodes[0];
        skopeo::push(image, &at(a, "team/lands"))?;
        let there = http::digest_of(&self.tells.address, "team/lands", "1.0")?;
        ensure!(there == http::digest_of(&a.registry, "team/lands", "1.0")?);
        self.pull(&format!("{}/team/lands:1.0", self.tells.address), "from-registry")?;
        let status = a.status()?;
        ensure!(number(&status, "/driver/blobs") > 0, "{}", status["driver"]);
        ensure!(number(&status, "/blobs") == 0, "A keeps {} blobs itself", status["blobs"]);
        for node in &self.nodes {
            self.pull(&at(node, "team/lands"), "landed")?;
        }
        Ok(())
    }

    fn notices(&self, one: &Path, two: &Path) -> Result<()> {
        for image in [one, two] {
            skopeo::push(image, &format!("{}/team/direct:1.0", self.tells.address))?;
            let wanted = http::digest_of(&self.tells.address, "team/direct", "1.0")?;
            for node in &self.nodes[1..] {
                wait_for_digest(node, "team/direct", &wanted)?;
                self.pull(&at(node, "team/direct"), "noticed")?;
                let url = format!("http://{}/v2/team/direct/tags/list", node.registry);
                let listed = http::request(&url, &[])?.expect(200)?;
                ensure!(listed.body.contains("\"1.0\""), "{}", listed.body);
            }
        }
        Ok(())
    }

    fn looks(&self, image: &Path) -> Result<()> {
        skopeo::push(image, &format!("{}/team/silent:1.0", self.silent.address))?;
        let b = &self.nodes[1];
        self.pull(&at(b, "team/silent"), "asked")?;
        let wanted = http::digest_of(&self.silent.address, "team/silent", "1.0")?;
        wait_for_digest(&self.nodes[2], "team/silent", &wanted)?;
        self.pull(&at(&self.nodes[2], "team/silent"), "asked-of-c")
    }

    fn keeps_what_the_swarm_did(&self, one: &Path, other: &Path) -> Result<()> {
        let [_, b, c] = &self.nodes[..] else { anyhow::bail!("three nodes") };
        for repository in ["team/deleted", "team/pushed"] {
            skopeo::push(other, &format!("{}/{repository}:1.0", self.silent.address))?;
            let there = http::digest_of(&self.silent.address, repository, "1.0")?;
            wait_for_digest(c, repository, &there)?;
        }
        let url = format!("http://{}/v2/team/deleted/manifests/1.0", c.registry);
        http::request(&url, &["--request", "DELETE"])?.expect(202)?;
        skopeo::push(one, &at(c, "team/pushed"))?;
        let pushed = http::digest_of(&c.registry, "team/pushed", "1.0")?;
        // A push is found by a look that begins after both; the one after that is whole.
        for round in ["first", "second"] {
            let marker = format!("team/marker-{round}");
            skopeo::push(other, &format!("{}/{marker}:1.0", self.silent.address))?;
            wait_for_digest(c, &marker, &http::digest_of(&self.silent.address, &marker, "1.0")?)?;
        }
        for node in [b, c] {
            http::absent(&node.registry, "team/deleted", "1.0")?;
            let now = http::digest_of(&node.registry, "team/pushed", "1.0")?;
            ensure!(now == pushed, "{} says {now}, pushed was {pushed}", node.name);
        }
        Ok(())
    }

    fn refuses(&self, image: &Path) -> Result<()> {
        let [a, _, c] = &self.nodes[..] else { anyhow::bail!("three nodes") };
        let refused = skopeo::push(image, &at(a, "team/dead"));
        let error = refused.err().context("it was taken")?;
        ensure!(format!("{error:#}").contains("503 Service Unavailable"), "{error:#}");
        http::absent(&c.registry, "team/dead", "1.0")?;
        // What was pushed through A before has copies elsewhere.
        self.pull(&at(c, "team/lands"), "while-dead")
    }

    fn feeds(&self, cache: &Registry) -> Result<()> {
        for repository in ["team/lands", "team/direct"] {
            self.pull(&format!("{}/{repository}:1.0", cache.address), "fed")?;
        }
        Ok(())
    }

    fn gives_of_containerd(&self, setup: &Setup) -> Result<()> {
        let dir = &self.dir;
        let mut gone = Registry::open(&dir.join("gone"))?;
        skopeo::push(&setup.images.one.archive, &format!("{}/team/motd:1.0", gone.address))?;
        let named = gone.named(GONE);
        let upstream = format!(
            "mirror = []\n[[upstream]]\nhost = \"{named}\"\nendpoint = \"http://{}\"\nprivate = true\n",
            gone.address
        );
        let containerd = Containerd::with_hosts(&dir.join("containerd"), &setup.cgroup, |hosts| {
            let dir = hosts.join(&named);
            fs::create_dir_all(&dir)?;
            let text = format!("server = \"http://{named}\"\n[host.\"http://{}\"]\n", gone.address);
            Ok(fs::write(dir.join("hosts.toml"), text)?)
        })?;
        containerd.pull(&format!("{named}/team/motd:1.0"))?;
        let token = self.nodes[0].token_file()?;
        let text = format!("{upstream}[driver]\nkind = \"containerd\"\nsocket = \"{SOCKET}\"\n");
        let d = Node::start_with(&setup.daemon, dir, "d", Some(&token), &flags(dir, "d", &text)?)?;
        let e =
            Node::start_with(&setup.daemon, dir, "e", Some(&token), &flags(dir, "e", &upstream)?)?;
        [&d, &e].into_iter().try_for_each(Node::wait_ready)?;
        let status = run::wait_for("D has looked", NOTICE_LIMIT, || {
            let status = d.status()?;
            Ok((number(&status, "/driver/blobs") >= 2).then_some(status))
        })?;
        ensure!(number(&status, "/blobs") == 0, "D keeps {} blobs itself", status["blobs"]);
        let digest = http::digest_of(&gone.address, "team/motd", "1.0")?;
        gone.stop()?;
        let by_path = format!("{}/team/motd", named.replace(':', "_"));
        self.pull(&format!("{}/{by_path}@{digest}", e.registry), "of-containerd")?;
        containerd.forget()?;
        run::wait_for("D sees that it is gone", NOTICE_LIMIT, || {
            Ok((number(&d.status()?, "/driver/blobs") == 0).then_some(()))
        })
    }

    /// Pulls into a new directory.
    fn pull(&self, reference: &str, name: &str) -> Result<()> {
        let to = self.dir.join("pulled");
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        skopeo::pull(reference, &format!("dir:{}", to.display())).context(name.to_owned())
    }
}

pub(super) fn wait_for_digest(node: &Node, repository: &str, wanted: &str) -> Result<()> {
    run::wait_for(&format!("{} has {repository}", node.name), NOTICE_LIMIT, || {
        let digest = http::digest_of(&node.registry, repository, "1.0");
        Ok(digest.is_ok_and(|digest| digest == wanted).then_some(()))
    })
}

pub(super) fn number(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The flags of a node with a configuration file.
pub(super) fn flags(dir: &Path, name: &str, text: &str) -> Result<Vec<String>> {
    let file = dir.join(format!("{name}.toml"));
    fs::write(&file, text)?;
    Ok(vec![format!("--config={}", file.display())])
}
