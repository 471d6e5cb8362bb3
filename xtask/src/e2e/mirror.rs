//! Other registries behind three nodes: real registries, and clients that are told nothing but a mirror.
//!
//! The upstreams are Debian's docker-registry: one open, which the nodes take for Docker Hub, too, one with TLS and a
//! password that only the nodes know, one that wants tokens of a service, and one that docker finds under Docker Hub's
//! name. What is counted is what they say in their own logs. With `--zot` zot is beside nodes, behind and before them.

mod drivers;
mod tokens;
mod upstream;
mod zot;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::buildah::Buildah;
use super::containerd::Containerd;
use super::docker::Dockerd;
use super::images::PRINT;
use super::podman::Podman;
use super::scenario::{Client, explain, pull_and_run};
use super::{Setup, http, skopeo};
use crate::checks::Checks;
use crate::median::median;
use crate::run;
use crate::swarm::Node;
use tokens::TokenService;
use upstream::{HUB, Registry};

/// Names of the upstreams, which lead to loopback inside the run.
const OPEN: &str = "open.ddr.test";
const CLOSED: &str = "closed.ddr.test";
const TOKENS: &str = "tokens.ddr.test";
/// Where the last one's tokens come from.
const AUTH: &str = "auth.ddr.test";
/// Docker Hub, as docker calls it; leads to a registry of this run, too.
const HUB_NAME: &str = "registry-1.docker.io";
/// How long an answer for a tag holds.
const FRESH: &str = "2s";
/// From the death of an upstream to the end of what holds for its tags.
const STALE_LIMIT: Duration = Duration::from_secs(20);
/// Pulls while the upstreams are dead.
const PULLS: usize = 100;
/// Pulls past a dead node, and as many without one, that are timed.
const TIMED_PULLS: usize = 5;
/// A tag that nobody pulls.
const UNSEEN: &str = "unseen";
const STALE: &str = "110 - \"Response is Stale\"";

/// Registries, nodes and what the nodes are told.
struct Bed {
    open: Registry,
    closed: Registry,
    tokens: Registry,
    service: TokenService,
    /// Has another image under the name of the open one's.
    hub: Registry,
    nodes: Vec<Node>,
    dir: PathBuf,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let mut bed = Bed::start(setup, dir)?;
    let containerd = Containerd::with_hosts(&dir.join("containerd"), &setup.cgroup, |hosts| {
        let Bed { open, closed, tokens, nodes, .. } = &bed;
        mirror_of(hosts, &open.named(OPEN), &nodes[0])?;
        mirror_of(hosts, &closed.named(CLOSED), &nodes[0])?;
        mirror_of(hosts, &tokens.named(TOKENS), &nodes[0])
    })?;
    let podman = Podman::new(dir, setup).with_registries(&bed.registries_conf(Some(1))?);
    let mirrors = format!("{{\"registry-mirrors\": [\"http://{}\"]}}", bed.nodes[2].registry);
    let docker = bed.dockerd(setup, "dockerd", &mirrors)?;
    checks.check("mirror: containerd pulls through A and runs, by ns", || {
        bed.explain(pull_and_run(&containerd, &bed.image(OPEN), PRINT, "one"))
    });
    checks.check(
        "mirror: podman pulls through B and runs, by path; the registry gives no blob twice",
        || bed.explain(bed.once(&podman)),
    );
    checks.check("mirror: buildah pulls through B and runs, with the same file", || {
        let buildah = Buildah::new(&dir.join("buildah"));
        let buildah = buildah.with_registries(&bed.registries_conf(Some(1))?);
        bed.explain(bed.once(&buildah))
    });
    checks.check("mirror: docker pulls a bare name through C and runs", || {
        bed.explain(pull_and_run(&docker, "motd:1.0", PRINT, "one"))
    });
    checks.check("mirror: skopeo lists and copies through each node", || {
        bed.explain(bed.copies(setup))
    });
    checks.check("mirror: with tokens of a service on another host", || {
        pull_and_run(&containerd, &bed.image(TOKENS), PRINT, "one")?;
        let (given, refused) = bed.service.counts();
        ensure!(given > 0 && refused == 0, "{given} tokens, {refused} refused");
        bed.explain(bed.keeps_its_password())
    });
    checks.check("mirror: containerd pulls with what ddr setup has written", || {
        bed.explain(bed.is_set_up(setup, &containerd))
    });
    checks.check("mirror: with the nodes' password; it is in no log and goes nowhere else", || {
        pull_and_run(&containerd, &bed.image(CLOSED), PRINT, "one")?;
        bed.explain(bed.keeps_its_password())
    });
    checks
        .check("mirror: a push in the name of another registry is refused", || bed.refuses_push());
    checks.check("mirror: a tag that moved is seen by all nodes, and its image is pulled", || {
        bed.explain(bed.moves(setup))?;
        pull_and_run(&containerd, &bed.image(OPEN), PRINT, "two")?;
        bed.explain(pull_and_run(&docker, "motd:1.0", PRINT, "two"))
    });
    checks.check("mirror: with dead registries 100 pulls of 100 succeed, with a warning", || {
        bed.open.stop()?;
        bed.closed.stop()?;
        bed.tokens.stop()?;
        bed.explain(bed.outlives())
    });
    checks.check("mirror: with dead registries containerd, podman and docker pull and run", || {
        let printed = |client: &dyn Client, image: &str| pull_and_run(client, image, PRINT, "two");
        printed(&containerd, &bed.image(OPEN))?;
        printed(&podman, &bed.image(OPEN))?;
        bed.explain(printed(&docker, "motd:1.0"))
    });
    with_dead_nodes(setup, &mut bed, (&containerd, &podman, &docker), checks);
    drop(containerd);
    drivers::suite(setup, dir, checks)?;
    zot::suite(setup, &dir.join("zot"), checks)
}

/// What clients do when the node that they ask is dead.
fn with_dead_nodes(
    setup: &Setup,
    bed: &mut Bed,
    (containerd, podman, docker): (&Containerd, &Podman, &Dockerd),
    checks: &mut Checks,
) {
    checks.check("mirror: with dead nodes containerd and podman pull from the registry", || {
        bed.open.start()?;
        for node in &mut bed.nodes {
            node.kill()?;
        }
        let image = bed.image(OPEN);
        pull_and_run(containerd, &image, PRINT, "two")?;
        pull_and_run(podman, &image, PRINT, "two")?;
        bed.time_past_dead_nodes(setup, containerd, podman)
    });
    checks.check("mirror: with dead nodes docker pulls a bare name from Docker Hub", || {
        pull_and_run(docker, "motd:1.0", PRINT, "one")?;
        let straight = bed.dockerd(setup, "straight-dockerd", "{}")?;
        let pull = |docker: &Dockerd| docker.pull("motd:1.0").and_then(|()| docker.forget());
        say_what_is_added(docker, || pull(docker), || pull(&straight))
    });
}

impl Bed {
    fn start(setup: &Setup, dir: &Path) -> Result<Self> {
        name_hosts(dir)?;
        let open = Registry::open(&dir.join("open"))?;
        let closed = Registry::with_password(&dir.join("closed"), CLOSED)?;
        let hub = Registry::hub(&dir.join("hub"), HUB_NAME)?;
        let bundle = dir.join("tokens.pem");
        let service = TokenService::start(&bundle)?;
        let realm = format!("http://{}/token", service.address.replace("127.0.0.1", AUTH));
        let tokens = Registry::with_tokens(&dir.join("tokens"), &realm, &bundle)?;
        let image = &setup.images.one.archive;
        for repository in ["team/motd", "library/motd"] {
            skopeo::push(image, &format!("{}/{repository}:1.0", open.address))?;
        }
        skopeo::push(image, &format!("{}/library/motd:1.0", hub.address))?;
        closed.push(image, "team/motd:1.0")?;
        tokens.push(image, "team/motd:1.0")?;
        let flags = vec![format!("--config={}", config(dir, &open, &closed, &tokens)?.display())];
        let mut nodes = vec![Node::start_with(&setup.daemon, dir, "a", None, &flags)?];
        let token = nodes[0].token_file()?;
        for name in ["b", "c"] {
            nodes.push(Node::start_with(&setup.daemon, dir, name, Some(&token), &flags)?);
        }
        nodes.iter().try_for_each(Node::wait_ready)?;
        Ok(Self { open, closed, tokens, service, hub, nodes, dir: dir.to_path_buf() })
    }

    /// What an administrator writes for podman, so that it asks node `first` before the registry.
    fn registries_conf(&self, first: Option<usize>) -> Result<PathBuf> {
        let named = self.open.named(OPEN);
        let mut text =
            format!("[[registry]]\nprefix = {named:?}\nlocation = {named:?}\ninsecure = true\n");
        let mut file = self.dir.join("straight.conf");
        if let Some(number) = first {
            let (node, place) = (&self.nodes[number].registry, named.replace(':', "_"));
            text +=
                &format!("[[registry.mirror]]\nlocation = \"{node}/{place}\"\ninsecure = true\n");
            file.set_file_name("registries.conf");
        }
        fs::write(&file, text)?;
        Ok(file)
    }

    /// A docker that knows the Docker Hub of this run, and no proxy.
    fn dockerd(&self, setup: &Setup, name: &str, config: &str) -> Result<Dockerd> {
        let certificate = self.hub.certificate();
        let environment = [
            ("SSL_CERT_FILE", certificate.as_os_str()),
            ("NO_PROXY", OsStr::new("*")),
            ("no_proxy", OsStr::new("*")),
        ];
        Dockerd::start_with(&self.dir.join(name), &setup.cgroup, config, &environment)
    }

    fn explain<T>(&self, result: Result<T>) -> Result<T> {
        explain(&self.nodes, result)
    }

    /// The image, as it is called everywhere.
    fn image(&self, host: &str) -> String {
        let registry = match host {
            OPEN => &self.open,
            CLOSED => &self.closed,
            _ => &self.tokens,
        };
        format!("{}/team/motd:1.0", registry.named(host))
    }

    /// The repository of the open registry at the nodes, by path.
    fn by_path(&self) -> String {
        format!("{}/team/motd", self.open.named(OPEN).replace(':', "_"))
    }

    fn once(&self, client: &dyn Client) -> Result<()> {
        let before = self.open.blobs_given()?;
        pull_and_run(client, &self.image(OPEN), PRINT, "one")?;
        let given = self.open.blobs_given()? - before;
        ensure!(given == 0, "the registry gave {given} blobs again");
        Ok(())
    }

    fn copies(&self, setup: &Setup) -> Result<()> {
        let unseen = format!("{}/team/motd:{UNSEEN}", self.open.address);
        skopeo::push(&setup.images.one.archive, &unseen)?;
        for node in &self.nodes {
            let reference = format!("{}/{}:1.0", node.registry, self.by_path());
            let to = format!("dir:{}", self.dir.join(format!("copy-{}", node.name)).display());
            skopeo::pull(&reference, &to)?;
            let listed = skopeo::list_tags(&format!("{}/{}", node.registry, self.by_path()))?;
            ensure!(listed.contains("\"1.0\"") && listed.contains(UNSEEN), "{listed}");
        }
        Ok(())
    }

    fn keeps_its_password(&self) -> Result<()> {
        for file in ["a/log", "b/log", "c/log", "open/output", "tokens/output", "a/out"] {
            let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
            ensure!(!text.contains(upstream::PASSWORD), "{file} has the password");
            ensure!(!text.contains(upstream::BASIC), "{file} has the password, encoded");
        }
        Ok(())
    }

    /// Sets containerd up as a user does, in a directory of its own, and pulls by that.
    fn is_set_up(&self, setup: &Setup, containerd: &Containerd) -> Result<()> {
        let (root, node) = (self.dir.join("machine"), &self.nodes[1]);
        fs::create_dir_all(&root)?;
        let ddr = |arguments: &[&str]| {
            let mut ddr = Command::new(setup.daemon.with_file_name("ddr"));
            run::output(ddr.args(["setup", "containerd", "--root"]).arg(&root).args(arguments))
        };
        ddr(&["--registry", &node.registry])?;
        let hosts = root.join("etc/containerd/certs.d");
        let image = self.image(TOKENS);
        containerd.transfer("pull", &hosts, &image)?;
        let printed = containerd.run(&image, PRINT)?;
        ensure!(printed.trim() == "one", "printed {printed:?}");
        containerd.forget()?;
        ddr(&["--undo"])?;
        ensure!(!hosts.join("_default/hosts.toml").exists(), "it is not as it was before");
        Ok(())
    }

    fn refuses_push(&self) -> Result<()> {
        let url = |repository: &str| {
            format!("http://{}/v2/{repository}/blobs/uploads/", self.nodes[0].registry)
        };
        for url in [url("docker.io/library/motd"), url("library/motd") + "?ns=docker.io"] {
            http::request(&url, &["--request", "POST"])?.expect(403)?;
        }
        Ok(())
    }

    fn moves(&self, setup: &Setup) -> Result<()> {
        for repository in ["team/motd", "library/motd"] {
            let reference = format!("{}/{repository}:1.0", self.open.address);
            skopeo::push(&setup.images.two.archive, &reference)?;
        }
        let wanted = http::digest_of(&self.open.address, "team/motd", "1.0")?;
        let (by_path, bare) = (self.by_path(), "library/motd".to_owned());
        for (node, repository) in
            self.nodes.iter().flat_map(|node| [(node, &by_path), (node, &bare)])
        {
            run::wait_for("the tag moves", STALE_LIMIT, || {
                let digest = http::digest_of(&node.registry, repository, "1.0")?;
                Ok((digest == wanted).then_some(()))
            })?;
        }
        Ok(())
    }

    fn outlives(&self) -> Result<()> {
        let url =
            |node: &Node| format!("http://{}/v2/{}/manifests/1.0", node.registry, self.by_path());
        run::wait_for("what held for the tag is over", STALE_LIMIT, || {
            let answer = http::request(&url(&self.nodes[0]), &["--header", http::ACCEPT])?;
            Ok((answer.header("warning") == Some(STALE)).then_some(()))
        })?;
        let tags = format!("http://{}/v2/{}/tags/list", self.nodes[0].registry, self.by_path());
        let tags = http::request(&tags, &[])?.expect(200)?;
        ensure!(tags.header("warning") == Some(STALE) && tags.body.contains("\"1.0\""), "{tags:?}");
        for number in 0..PULLS {
            let node = &self.nodes[number % self.nodes.len()];
            let answer = http::request(&url(node), &["--header", http::ACCEPT])?;
            answer.expect(200).with_context(|| format!("pull {number} on {}", node.name))?;
        }
        Ok(())
    }

    /// Prints what the dead nodes add to a pull.
    fn time_past_dead_nodes(
        &self,
        setup: &Setup,
        containerd: &Containerd,
        podman: &Podman,
    ) -> Result<()> {
        let (image, hosts) = (self.image(OPEN), self.dir.join("straight"));
        let named = self.open.named(OPEN);
        fs::create_dir_all(hosts.join(&named))?;
        let server = format!("server = \"http://{named}\"\n[host.\"http://{named}\"]\n");
        fs::write(hosts.join(&named).join("hosts.toml"), server)?;
        say_what_is_added(
            containerd,
            || containerd.pull(&image),
            || containerd.transfer("pull", &hosts, &image),
        )?;
        let straight = Podman::new(&self.dir, setup).with_registries(&self.registries_conf(None)?);
        say_what_is_added(podman, || podman.pull(&image), || straight.pull(&image))
    }
}

/// Prints how much longer a pull takes past a dead node than without one.
fn say_what_is_added(
    client: &dyn Client,
    past: impl Fn() -> Result<()>,
    straight: impl Fn() -> Result<()>,
) -> Result<()> {
    let timed = |pull: &dyn Fn() -> Result<()>| -> Result<f64> {
        client.forget()?;
        let started = Instant::now();
        pull()?;
        Ok(started.elapsed().as_secs_f64() * 1000.0)
    };
    let mut times = Vec::new();
    for _ in 0..TIMED_PULLS {
        times.push((timed(&past)?, timed(&straight)?));
    }
    client.forget()?;
    let (past, straight) =
        (median(times.iter().map(|pair| pair.0)), median(times.iter().map(|pair| pair.1)));
    println!(
        "        {}: {past:.0} ms past a dead node, {straight:.0} ms straight, medians of {TIMED_PULLS} (goal: 300 ms more)",
        client.name()
    );
    Ok(())
}

/// The nodes' configuration file.
fn config(dir: &Path, open: &Registry, closed: &Registry, tokens: &Registry) -> Result<PathBuf> {
    let password = dir.join("password");
    fs::write(&password, format!("{}\n", upstream::PASSWORD))?;
    let table = |host: &str, registry: &Registry, more: &str| {
        format!(
            "[[upstream]]\nhost = \"{host}\"\nendpoint = \"http://{}\"\nprivate = true\n{more}",
            registry.address
        )
    };
    let login = format!("user = \"{}\"\npassword-file = {password:?}\n", upstream::USER);
    let secure = format!(
        "[[upstream]]\nhost = \"{0}\"\nendpoint = \"https://{0}\"\nprivate = true\nca-files = [{1:?}]\n{login}",
        closed.named(CLOSED),
        dir.join("closed").join(upstream::CERTIFICATE)
    );
    let text = [
        "mirror = []\nmirror-bare = \"docker.io\"\n".to_owned(),
        format!("mirror-fresh = \"{FRESH}\"\n"),
        table("docker.io", open, ""),
        table(&open.named(OPEN), open, ""),
        secure,
        table(&tokens.named(TOKENS), tokens, &format!("hosts = [{AUTH:?}]\n{login}")),
    ];
    let file = dir.join("ddrd.toml");
    fs::write(&file, text.concat())?;
    Ok(file)
}

/// What an administrator writes so that containerd asks the node first, and the registry itself when that fails.
fn mirror_of(hosts: &Path, named: &str, node: &Node) -> Result<()> {
    let dir = hosts.join(named);
    fs::create_dir_all(&dir)?;
    let text = format!(
        "server = \"http://{named}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        node.registry
    );
    fs::write(dir.join("hosts.toml"), text)?;
    Ok(())
}

/// Has the names of the upstreams lead to loopback, inside the mounts of this run.
fn name_hosts(dir: &Path) -> Result<()> {
    let file = dir.join("hosts");
    let hub = HUB.split(':').next().unwrap_or_default();
    let names = format!("127.0.0.1 localhost {OPEN} {CLOSED} {TOKENS} {AUTH}\n{hub} {HUB_NAME}\n");
    fs::write(&file, names)?;
    run::output(Command::new("mount").arg("--bind").arg(file).arg("/etc/hosts")).map(drop)
}
