//! podman, buildah, skopeo and CRI-O: one file in registries.conf.d.
//!
//! Of two entries for one registry the later file's counts, whole (containers-registries.conf.d(5)). So a registry that
//! has an entry elsewhere is left to that: ours would take its settings away.

use ddr_oci::UpstreamHost;
use toml::Value;

use super::seen::Seen;
use super::{Plan, SetupError, Wanted, toml};

pub(super) const REGISTRIES_CONF: &str = "/etc/containers/registries.conf";
pub(super) const CONF_D: &str = "/etc/containers/registries.conf.d";
const OURS: &str = "/etc/containers/registries.conf.d/50-ddr.conf";

pub(super) fn plan(seen: &Seen, wanted: &Wanted) -> Result<Plan, SetupError> {
    let mut plan = Plan::default();
    let elsewhere = entries(seen)?;
    let mut text = String::new();
    for host in &wanted.mirrors {
        let location = location(host, wanted);
        match elsewhere.iter().find(|entry| entry.prefix == host.as_str()) {
            None => text.push_str(&format!(
                "\n[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n{}",
                mirror(&location)
            )),
            Some(entry) if entry.mirrors.contains(&location) => {}
            Some(entry) => plan.notes.push(format!(
                "{} has an entry for {host}, which stays as it is. Put right behind it, if the mirror is \
                 wanted:\n  {}",
                entry.path,
                mirror(&location).trim_end().replace('\n', "\n  ")
            )),
        }
    }
    if !text.is_empty() {
        let head = "# Written by: ddr setup podman. Taken back by: ddr setup podman --undo\n\
                    # A mirror is asked first; the registry itself when the mirror has nothing to give.\n";
        text.insert_str(0, head);
        if seen.text(OURS).is_some_and(|theirs| theirs != text) {
            return Err(SetupError::Foreign { path: OURS.to_owned(), text });
        }
        plan.files.insert(OURS.to_owned(), text);
    }
    Ok(plan)
}

/// A port is written after `_` in names of the swarm (docs/mirror.md).
fn location(host: &UpstreamHost, wanted: &Wanted) -> String {
    format!("{}/{}", wanted.registry, host.as_str().replace(':', "_"))
}

/// `insecure` is plain HTTP between the client and this machine's own port.
fn mirror(location: &str) -> String {
    format!("[[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true\n")
}

struct Entry {
    path: String,
    prefix: String,
    mirrors: Vec<String>,
}

/// The registries that other files set.
fn entries(seen: &Seen) -> Result<Vec<Entry>, SetupError> {
    let main = seen.text(REGISTRIES_CONF).map(|text| (REGISTRIES_CONF, text));
    let mut entries = Vec::new();
    for (path, text) in main.into_iter().chain(seen.files_in(CONF_D)) {
        let table = toml(path, text)?;
        if path == OURS {
            continue;
        }
        for registry in table.get("registry").and_then(Value::as_array).into_iter().flatten() {
            let field = |name: &str| registry.get(name).and_then(Value::as_str);
            let prefix = field("prefix").filter(|prefix| !prefix.is_empty());
            let mirrors = registry.get("mirror").and_then(Value::as_array).into_iter().flatten();
            let location = |mirror: &Value| Some(mirror.get("location")?.as_str()?.to_owned());
            entries.push(Entry {
                path: path.to_owned(),
                prefix: prefix.or(field("location")).unwrap_or_default().to_owned(),
                mirrors: mirrors.filter_map(location).collect(),
            });
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, wanted};
    use super::*;

    fn planned(seen: &[(&str, &str)]) -> Plan {
        plan(&Seen::of(seen), &wanted()).unwrap()
    }

    #[test]
    fn each_registry_gets_a_mirror_and_stays_its_own_source() {
        let mut wanted = wanted();
        wanted.mirrors = vec!["docker.io".parse().unwrap(), "r.example:5000".parse().unwrap()];
        let plan = plan(&Seen::default(), &wanted).unwrap();
        assert_eq!(
            plan.files[OURS],
            "# Written by: ddr setup podman. Taken back by: ddr setup podman --undo\n\
             # A mirror is asked first; the registry itself when the mirror has nothing to give.\n\n\
             [[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n\
             [[registry.mirror]]\nlocation = \"127.0.0.1:5000/docker.io\"\ninsecure = true\n\n\
             [[registry]]\nprefix = \"r.example:5000\"\nlocation = \"r.example:5000\"\n\n\
             [[registry.mirror]]\nlocation = \"127.0.0.1:5000/r.example_5000\"\ninsecure = true\n"
        );
        let read: toml::Table = plan.files[OURS].parse().unwrap();
        assert_eq!(read["registry"].as_array().unwrap().len(), 2);
        assert!(plan.notes.is_empty());
    }

    #[test]
    fn entries_of_others_are_not_shadowed() {
        let theirs = "[[registry]]\nlocation = 'quay.io'\nblocked = true\n";
        let more = "[[registry]]\nprefix = 'ghcr.io'\nlocation = 'ghcr.io'\n[[registry.mirror]]\n\
                    location = '127.0.0.1:5000/ghcr.io'\n";
        let plan = planned(&[(REGISTRIES_CONF, theirs), (&format!("{CONF_D}/90-x.conf"), more)]);
        assert_eq!(plan.files.len(), 1);
        assert!(!plan.files[OURS].contains("quay.io") && !plan.files[OURS].contains("ghcr.io"));
        assert_eq!(plan.notes.len(), 1, "ghcr.io has the mirror already");
        assert!(plan.notes[0].contains("an entry for quay.io"), "{}", plan.notes[0]);
    }

    #[test]
    fn broken_and_foreign_files_are_refused() {
        let error = refused(plan(&Seen::of(&[(REGISTRIES_CONF, "\n\n[[registry")]), &wanted()));
        assert!(error.starts_with("/etc/containers/registries.conf:3: not TOML"), "{error}");
        let error = refused(plan(&Seen::of(&[(OURS, "# mine\n")]), &wanted()));
        assert!(error.contains("50-ddr.conf is not from ddr setup"), "{error}");
    }
}
