//! zot beside a node, as a cache that pulls through a node, and as a registry that nodes mirror.
//!
//! Node A uses a zot that tells it of pushes. B is in the same swarm, mirrors two other zots, one of them with a password
//! and TLS, and is what a fourth syncs from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::drivers::{NOTICE_LIMIT, flags, number, wait_for_digest};
use super::upstream::{self, HTPASSWD};
use super::{FRESH, STALE_LIMIT};
use crate::bench::free_address;
use crate::checks::Checks;
use crate::e2e::artifact::{self, MANIFEST, referrers_in};
use crate::e2e::scenario::{at, explain};
use crate::e2e::{Setup, http, skopeo};
use crate::run;
use crate::swarm::Node;
use crate::tools::SKOPEO;

/// From start to an answer.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Names of the mirrored ones at the nodes.
const OPEN: &str = "open.zot.test";
const CLOSED: &str = "closed.zot.test";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A zot that can be stopped and started again where it was.
#[derive(Debug)]
struct Zot {
    program: PathBuf,
    /// `127.0.0.1:PORT`.
    address: String,
    dir: PathBuf,
    child: Option<Child>,
}

impl Zot {
    /// One whose configuration has `more`: parts of `http`, and its extensions.
    fn start_with(program: &Path, dir: &Path, http: Value, extensions: Value) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let address = free_address()?;
        let (host, port) = address.split_once(':').context("no port")?;
        let mut config = json!({
            "storage": {
                "rootDirectory": dir.join("data"),
                "retention": { "policies": [{ "repositories": ["**"], "deleteUntagged": false }] },
            },
            "http": { "address": host, "port": port },
            "log": { "level": "info" },
            "extensions": extensions,
        });
        for (key, value) in http.as_object().into_iter().flatten() {
            config["http"][key] = value.clone();
        }
        fs::write(dir.join("config.json"), config.to_string())?;
        let (program, dir) = (program.to_path_buf(), dir.to_path_buf());
        let mut zot = Self { program, address, dir, child: None };
        zot.start()?;
        Ok(zot)
    }

    /// Tells `url` of what changes, from now on.
    fn tell(&mut self, url: &str) -> Result<()> {
        self.stop()?;
        let file = self.dir.join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        let sink = json!({ "type": "http", "address": url, "timeout": "1s" });
        config["extensions"] = json!({ "events": { "enable": true, "sinks": [sink] } });
        fs::write(&file, config.to_string())?;
        self.start()
    }

    fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("output"))?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg(self.dir.join("config.json"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("cannot start zot")?);
        let url = format!("http://{}/v2/", self.address);
        let answers = run::wait_for("zot answers", START_LIMIT, || {
            Ok(http::request(&url, &[]).is_ok().then_some(()))
        });
        answers.with_context(|| fs::read_to_string(self.dir.join("output")).unwrap_or_default())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The name of a tag of it.
    fn at(&self, repository: &str) -> String {
        format!("{}/{repository}:1.0", self.address)
    }
}

impl Drop for Zot {
    fn drop(&mut self) {
        // Fails only when the process has ended, which is what is wanted.
        self.stop().ok();
    }
}

struct Bed {
    beside: Zot,
    open: Zot,
    closed: Zot,
    syncs: Zot,
    nodes: [Node; 2],
    dir: PathBuf,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let Some(program) = &setup.zot else {
        println!(
            "        zot is not run, as there is no package of it: --zot FILE names one of yours"
        );
        return Ok(());
    };
    println!("        {}", version(program)?);
    let bed = Bed::start(setup, program, dir)?;
    let (one, two) = (&setup.images.one.archive, &setup.images.two.archive);
    checks.check("zot: what lay in it is found, with its referrers", || {
        bed.explain(bed.found("team/before"))
    });
    checks.check("zot: a push to A lands in it and takes no second place", || {
        bed.explain(bed.lands(one, two))
    });
    checks.check("zot: what is pushed to it is noticed on B, with its referrers", || {
        bed.explain(bed.notices(one, two))
    });
    checks
        .check("zot: what is deleted at A is deleted there", || bed.explain(bed.deletes(one, two)));
    checks.check(
        "zot: a manifest that it never takes is refused, and a client sends another",
        || bed.explain(bed.refuses(one)),
    );
    checks.check("zot: it syncs from B on demand: tag, digest, index, referrers", || {
        bed.explain(bed.syncs_from_b(one, two))
    });
    checks.check("zot: B mirrors it, open, and with a password over TLS", || {
        bed.explain(bed.mirrors(one, two))
    });
    Ok(())
}

impl Bed {
    fn start(setup: &Setup, program: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let start = |name: &str, http: Value, extensions: Value| {
            Zot::start_with(program, &dir.join(name), http, extensions)
        };
        let mut beside = start("beside", json!({}), json!({}))?;
        skopeo::push(&setup.images.one.archive, &beside.at("team/before"))?;
        attach(&beside.address, "team/before", dir)?;
        let open = start("open", json!({ "compat": ["docker2s2"] }), json!({}))?;
        let closed = start("closed", closed(&dir.join("closed"))?, json!({}))?;
        let a =
            format!("[driver]\nkind = \"registry\"\nendpoint = \"http://{}\"\n", beside.address);
        let a = flags(dir, "a", &(a + "every = \"1h\"\n"))?;
        let a = Node::start_with(&setup.daemon, dir, "a", None, &a)?;
        let b = flags(dir, "b", &mirrored(dir, &open, &closed)?)?;
        let b = Node::start_with(&setup.daemon, dir, "b", Some(&a.token_file()?), &b)?;
        let nodes = [a, b];
        nodes.iter().try_for_each(Node::wait_ready)?;
        let from = json!({
            "urls": [format!("http://{}", nodes[1].registry)],
            "onDemand": true,
            "tlsVerify": false,
            "preserveDigest": true,
        });
        let sync = json!({ "sync": { "enable": true, "registries": [from] } });
        let syncs = start("syncs", json!({ "compat": ["docker2s2"] }), sync)?;
        beside.tell(&format!("http://{}/api/v1/driver/events", nodes[0].admin))?;
        Ok(Self { beside, open, closed, syncs, nodes, dir: dir.to_path_buf() })
    }

    fn explain<T>(&self, result: Result<T>) -> Result<T> {
        explain(&self.nodes, result)
    }

    /// B knows the tag of A's zot, and lists what refers to it there.
    fn found(&self, repository: &str) -> Result<()> {
        let b = &self.nodes[1];
        let digest = http::digest_of(&self.beside.address, repository, "1.0")?;
        wait_for_digest(b, repository, &digest)?;
        let there = referrers_in(&self.beside.address, repository, &digest, "")?;
        ensure!(there.len() == 1, "zot lists {there:?}");
        run::wait_for(&format!("B lists what refers to {repository}"), NOTICE_LIMIT, || {
            let here = referrers_in(&b.registry, repository, &digest, "")?;
            Ok(here.iter().any(|one| one["digest"] == there[0]["digest"]).then_some(()))
        })?;
        self.pull(&at(b, repository))
    }

    fn lands(&self, one: &Path, two: &Path) -> Result<()> {
        let [a, b] = &self.nodes;
        skopeo::push(one, &at(a, "team/lands"))?;
        let digest = index(&a.registry, "team/lands-all", [one, two], &self.dir)?;
        for repository in ["team/lands", "team/lands-all"] {
            let there = http::digest_of(&self.beside.address, repository, "1.0")?;
            ensure!(there == http::digest_of(&a.registry, repository, "1.0")?);
            for from in [self.beside.at(repository), at(a, repository), at(b, repository)] {
                self.pull(&from)?;
            }
        }
        ensure!(digest == http::digest_of(&b.registry, "team/lands-all", "1.0")?);
        let attached = attach(&a.registry, "team/lands", &self.dir)?;
        let subject = http::digest_of(&a.registry, "team/lands", "1.0")?;
        let there = referrers_in(&self.beside.address, "team/lands", &subject, "")?;
        ensure!(there.len() == 1 && there[0]["digest"] == attached.as_str(), "{there:?}");
        let status = a.status()?;
        ensure!(number(&status, "/driver/blobs") > 0, "{}", status["driver"]);
        ensure!(number(&status, "/blobs") == 0, "A keeps {} blobs itself", status["blobs"]);
        Ok(())
    }

    fn notices(&self, one: &Path, two: &Path) -> Result<()> {
        for image in [one, two] {
            skopeo::push(image, &self.beside.at("team/direct"))?;
            let wanted = http::digest_of(&self.beside.address, "team/direct", "1.0")?;
            wait_for_digest(&self.nodes[1], "team/direct", &wanted)?;
            self.pull(&at(&self.nodes[1], "team/direct"))?;
        }
        attach(&self.beside.address, "team/direct", &self.dir)?;
        self.found("team/direct")?;
        let wanted = index(&self.beside.address, "team/direct-all", [one, two], &self.dir)?;
        wait_for_digest(&self.nodes[1], "team/direct-all", &wanted)?;
        self.pull(&at(&self.nodes[1], "team/direct-all"))
    }

    fn deletes(&self, one: &Path, two: &Path) -> Result<()> {
        let (a, there, repository) = (&self.nodes[0], &self.beside.address, "team/deleted");
        let delete = |reference: &str| {
            let url = format!("http://{}/v2/{repository}/manifests/{reference}", a.registry);
            http::request(&url, &["--request", "DELETE"])?.expect(202).map(drop)
        };
        for tag in ["1.0", "2.0", "3.0"] {
            skopeo::push(one, &format!("{}/{repository}:{tag}", a.registry))?;
        }
        skopeo::push(two, &format!("{}/{repository}:other", a.registry))?;
        let digest = http::digest_of(there, repository, "1.0")?;
        delete("1.0")?;
        http::absent(there, repository, "1.0")?;
        ensure!(http::digest_of(there, repository, "2.0")? == digest);
        let attached = attach_to(&a.registry, repository, "2.0", &self.dir)?;
        delete(&attached)?;
        http::absent(there, repository, &attached)?;
        delete(&digest)?;
        for reference in ["2.0", "3.0", &digest] {
            http::absent(there, repository, reference)?;
            http::absent(&self.nodes[1].registry, repository, reference)?;
        }
        http::digest_of(there, repository, "other").map(drop)
    }

    /// zot takes OCI's manifests only, unless `compat` says more.
    fn refuses(&self, image: &Path) -> Result<()> {
        let [a, b] = &self.nodes;
        let error = push_as_docker(image, &at(a, "team/docker")).err().context("it was taken")?;
        ensure!(format!("{error:#}").contains("415 Unsupported Media Type"), "{error:#}");
        http::absent(&b.registry, "team/docker", "1.0")?;
        // A client that may, sends another manifest then.
        push_as_docker(image, &at(b, "team/docker-source"))?;
        copy(&at(b, "team/docker-source"), &format!("docker://{}", at(a, "team/docker")))?;
        self.pull(&self.beside.at("team/docker"))
    }

    fn syncs_from_b(&self, one: &Path, two: &Path) -> Result<()> {
        let ([a, b], zot) = (&self.nodes, &self.syncs);
        skopeo::push(one, &at(a, "team/synced"))?;
        attach(&a.registry, "team/synced", &self.dir)?;
        self.pull(&zot.at("team/synced"))?;
        let digest = http::digest_of(&b.registry, "team/synced", "1.0")?;
        let listed = referrers_in(&zot.address, "team/synced", &digest, "")?;
        ensure!(listed == referrers_in(&b.registry, "team/synced", &digest, "")?, "{listed:?}");
        skopeo::push(two, &at(a, "team/synced"))?;
        let moved = http::digest_of(&b.registry, "team/synced", "1.0")?;
        ensure!(moved != digest && moved == http::digest_of(&zot.address, "team/synced", "1.0")?);
        skopeo::push(two, &at(a, "team/by-digest"))?;
        self.pull(&format!("{}/team/by-digest@{moved}", zot.address))?;
        let all = index(&b.registry, "team/synced-all", [one, two], &self.dir)?;
        self.pull(&zot.at("team/synced-all"))?;
        ensure!(http::digest_of(&zot.address, "team/synced-all", "1.0")? == all);
        push_as_docker(one, &at(b, "team/synced-docker"))?;
        let digest = http::digest_of(&b.registry, "team/synced-docker", "1.0")?;
        self.pull(&format!("{}/team/synced-docker@{digest}", zot.address))?;
        http::absent(&zot.address, "team/none", "1.0")
    }

    fn mirrors(&self, one: &Path, two: &Path) -> Result<()> {
        let ([_, b], open) = (&self.nodes, &self.open);
        let (of_open, of_closed) = (format!("{OPEN}/team/app"), format!("{CLOSED}/team/app"));
        upstream::push(one, &self.closed.at("team/app"))?;
        self.pull(&at(b, &of_closed))?;
        skopeo::push(one, &open.at("team/app"))?;
        index(&open.address, "team/all", [one, two], &self.dir)?;
        push_as_docker(two, &open.at("team/docker"))?;
        let attached = attach(&open.address, "team/app", &self.dir)?;
        for repository in ["team/app", "team/all", "team/docker"] {
            self.pull(&at(b, &format!("{OPEN}/{repository}")))?;
        }
        let subject = http::digest_of(&open.address, "team/app", "1.0")?;
        let listed = referrers_in(&b.registry, &of_open, &subject, "")?;
        ensure!(listed.len() == 1 && listed[0]["digest"] == attached.as_str(), "{listed:?}");
        for host in [OPEN, CLOSED] {
            http::absent(&b.registry, &format!("{host}/team/none"), "1.0")?;
            http::absent(&b.registry, &format!("{host}/team/app"), "none")?;
        }
        skopeo::push(two, &open.at("team/app"))?;
        let moved = http::digest_of(&open.address, "team/app", "1.0")?;
        run::wait_for("the tag moves", STALE_LIMIT, || {
            Ok((http::digest_of(&b.registry, &of_open, "1.0")? == moved).then_some(()))
        })?;
        self.pull(&at(b, &of_open))
    }

    /// Pulls all platforms into a new directory.
    fn pull(&self, reference: &str) -> Result<()> {
        let to = self.dir.join("pulled");
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        copy(reference, &format!("dir:{}", to.display()))
    }
}

/// Copies all platforms to where skopeo writes.
fn copy(reference: &str, to: &str) -> Result<()> {
    let mut copy = run::client(SKOPEO);
    copy.args(["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]);
    run::output(copy.args([&format!("docker://{reference}"), to])).map(drop)
}

/// What it says of itself.
fn version(program: &Path) -> Result<String> {
    let (out, error) = run::both_outputs(Command::new(program).arg("--version"))?;
    let said = format!("{out}{error}");
    let said: Value = serde_json::from_str(said.trim()).context("not a version of zot")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(format!("zot {}, {}", text(&said["commit"]), text(&said["binary-type"])))
}

/// The part of a configuration for [`upstream::USER`] only, over TLS.
fn closed(dir: &Path) -> Result<Value> {
    let (certificate, key) = upstream::certify(dir, "localhost")?;
    let file = dir.join("htpasswd");
    fs::write(&file, HTPASSWD)?;
    Ok(json!({
        "tls": { "cert": certificate, "key": key },
        "auth": { "htpasswd": { "path": file } },
    }))
}

/// The nodes' configuration for two mirrored ones.
fn mirrored(dir: &Path, open: &Zot, closed: &Zot) -> Result<String> {
    let password = dir.join("password");
    fs::write(&password, format!("{}\n", upstream::PASSWORD))?;
    Ok(format!(
        "mirror = []\nmirror-fresh = \"{FRESH}\"\n\
         [[upstream]]\nhost = \"{OPEN}\"\nendpoint = \"http://{}\"\nprivate = true\n\
         [[upstream]]\nhost = \"{CLOSED}\"\nendpoint = \"https://{}\"\nprivate = true\n\
         ca-files = [{:?}]\nuser = \"{}\"\npassword-file = {password:?}\n",
        open.address,
        closed.address.replace("127.0.0.1", "localhost"),
        closed.dir.join(upstream::CERTIFICATE),
        upstream::USER,
    ))
}

/// Pushes an artifact that refers to the tag `1.0`; its digest.
fn attach(registry: &str, repository: &str, dir: &Path) -> Result<String> {
    attach_to(registry, repository, "1.0", dir)
}

fn attach_to(registry: &str, repository: &str, tag: &str, dir: &Path) -> Result<String> {
    let subject = http::digest_of(registry, repository, tag)?;
    let size = skopeo::raw(&format!("{registry}/{repository}:{tag}"))?.len();
    let subject = json!({ "mediaType": MANIFEST, "digest": subject, "size": size });
    let config = artifact::blob(registry, repository, dir, "config", b"{}")?;
    let layer = artifact::blob(registry, repository, dir, "signature", b"a signature\n")?;
    let file = artifact::manifest(dir, "artifact", &config, &layer, Some(subject))?;
    let digest = http::digests(&[&file])?.remove(0);
    http::push_manifest(registry, repository, &digest, MANIFEST, &file)?;
    Ok(digest)
}

/// Pushes an index of two images under the tag `1.0`; its digest.
fn index(registry: &str, repository: &str, images: [&Path; 2], dir: &Path) -> Result<String> {
    let mut manifests = Vec::new();
    for (image, architecture) in images.into_iter().zip(["amd64", "arm64"]) {
        let reference = format!("{registry}/{repository}:{architecture}");
        skopeo::push(image, &reference)?;
        manifests.push(json!({
            "mediaType": MANIFEST,
            "digest": http::digest_of(registry, repository, architecture)?,
            "size": skopeo::raw(&reference)?.len(),
            "platform": { "os": "linux", "architecture": architecture },
        }));
    }
    let file = dir.join("index.json");
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    fs::write(&file, index.to_string())?;
    http::push_manifest(registry, repository, "1.0", INDEX, &file)?;
    Ok(http::digests(&[&file])?.remove(0))
}

/// Pushes an OCI archive with a manifest of docker's.
fn push_as_docker(archive: &Path, reference: &str) -> Result<()> {
    let mut copy = run::client(SKOPEO);
    copy.args(["copy", "--dest-tls-verify=false", "--format=v2s2"]);
    copy.arg(format!("oci-archive:{}", archive.display()));
    run::output(copy.arg(format!("docker://{reference}"))).map(drop)
}
