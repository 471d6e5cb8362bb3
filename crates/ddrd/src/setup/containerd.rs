//! containerd: `hosts.toml` in the directory that CRI reads.
//!
//! It must never change config.toml: containerd reads that at its start only, and its tables differ by version. What
//! is missing there is said.

use toml::{Table, Value};

use super::seen::{HOSTS_TOML, Seen};
use super::{Plan, SetupError, Wanted, hosts, toml};

pub(super) const CONFIG_TOML: &str = "/etc/containerd/config.toml";
/// The usual hosts directory; nerdctl looks here too.
const CERTS_D: &str = "/etc/containerd/certs.d";
/// The format of config.toml since containerd 2.
const LATEST: i64 = 3;

/// What config.toml says about registries.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Config {
    /// The version of its format; nothing without a file.
    version: Option<i64>,
    config_path: Option<String>,
    has_mirrors: bool,
    has_imports: bool,
    is_cri_off: bool,
}

impl Config {
    pub(super) fn of(seen: &Seen) -> Result<Self, SetupError> {
        let Some(text) = seen.text(CONFIG_TOML) else { return Ok(Self::default()) };
        let config = toml(CONFIG_TOML, text)?;
        let version = config.get("version").and_then(Value::as_integer).unwrap_or(1);
        let registry = at(&config, &registry_keys(version));
        let list = |key: &str| config.get(key).and_then(Value::as_array);
        let is_cri = |plugin: &Value| plugin.as_str().is_some_and(|name| name.ends_with("cri"));
        Ok(Self {
            version: Some(version),
            config_path: registry.and_then(config_path),
            has_mirrors: registry.is_some_and(|registry| {
                registry.get("mirrors").and_then(Value::as_table).is_some_and(|m| !m.is_empty())
            }),
            has_imports: list("imports").is_some_and(|imports| !imports.is_empty()),
            is_cri_off: list("disabled_plugins").is_some_and(|off| off.iter().any(is_cri)),
        })
    }

    /// Where `hosts.toml` belongs: of several directories the first, which is the first that is looked into.
    pub(super) fn directory(&self) -> String {
        let listed = self.config_path.as_deref().unwrap_or_default().split(':').next();
        let first = listed.filter(|first| first.starts_with('/')).unwrap_or(CERTS_D);
        first.trim_end_matches('/').to_owned()
    }

    /// What has to be added to config.toml so that CRI looks into the directory.
    pub(super) fn missing(&self) -> Option<String> {
        let table = |version| format!("[plugins.{}]", header(&registry_keys(version)));
        let line = format!("config_path = \"{CERTS_D}\"");
        if let Some(path) = &self.config_path {
            return path.contains(':').then(|| {
                format!(
                    "config_path in {CONFIG_TOML} lists several directories ({path}). Some releases of containerd \
                     2 do not find any of them then (containerd issue 12808). If no pull comes by the mirror, say \
                     in {}\n  {line}\nand restart containerd.",
                    table(self.version.unwrap_or(LATEST))
                )
            });
        }
        let mut text = match self.version {
            None => format!(
                "containerd may not look into {CERTS_D} yet: there is no {CONFIG_TOML}. Write there\n  version = \
                 3\n  {}\n  {line}\n(with containerd 1: version = 2 and {}) and restart containerd.",
                table(LATEST),
                table(2)
            ),
            Some(version) => format!(
                "containerd does not look into {CERTS_D} yet. In {CONFIG_TOML} set in this table, which may be \
                 there already,\n  {}\n  {line}\nand restart containerd.",
                table(version)
            ),
        };
        if self.has_mirrors {
            text.push_str(
                " registry.mirrors there does not go together with config_path: move it to hosts.toml \
                 files first.",
            );
        }
        if self.has_imports {
            text.push_str(" The files that it imports were not looked at.");
        }
        Some(text)
    }
}

/// The way to the table about registries, below `plugins`.
fn registry_keys(version: i64) -> Vec<&'static str> {
    match version {
        ..=1 => vec!["cri", "registry"],
        2 => vec!["io.containerd.grpc.v1.cri", "registry"],
        _ => vec!["io.containerd.cri.v1.images", "registry"],
    }
}

fn header(keys: &[&str]) -> String {
    let quoted = |key: &&str| if key.contains('.') { format!("\"{key}\"") } else { (*key).into() };
    keys.iter().map(quoted).collect::<Vec<String>>().join(".")
}

fn at<'a>(config: &'a Table, keys: &[&str]) -> Option<&'a Table> {
    let plugins = config.get("plugins")?.as_table()?;
    keys.iter().try_fold(plugins, |table, key| table.get(*key)?.as_table())
}

fn config_path(registry: &Table) -> Option<String> {
    let path = registry.get("config_path")?.as_str()?;
    (!path.is_empty()).then(|| path.to_owned())
}

pub(super) fn plan(seen: &Seen, wanted: &Wanted) -> Result<Plan, SetupError> {
    let config = Config::of(seen)?;
    let directory = config.directory();
    let mut plan = Plan { hosts_dir: Some(directory.clone()), ..Plan::default() };
    let path = format!("{directory}/{}/{HOSTS_TOML}", hosts::DEFAULT);
    hosts::place(&mut plan, seen, path, "containerd", wanted)?;
    plan.notes.extend(config.missing());
    if config.is_cri_off {
        plan.notes.push(format!(
            "{CONFIG_TOML} switches CRI off: Kubernetes does not pull by this containerd."
        ));
    }
    plan.notes.extend(hosts::shadows(seen, &directory));
    plan.notes.push(format!(
        "ctr uses the mirror with --hosts-dir {directory}; nerdctl and CRI by themselves."
    ));
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, wanted};
    use super::*;

    const DEFAULT: &str = "/etc/containerd/certs.d/_default/hosts.toml";
    const V3: &str = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n";

    fn planned(config: Option<&str>) -> (Vec<String>, String) {
        let seen: Vec<_> = config.iter().map(|text| (CONFIG_TOML, *text)).collect();
        let plan = plan(&Seen::of(&seen), &wanted()).unwrap();
        (plan.files.into_keys().collect(), plan.notes.join("\n"))
    }

    #[test]
    fn the_hosts_file_names_the_mirror_and_no_server() {
        let plan = plan(&Seen::default(), &wanted()).unwrap();
        assert_eq!(
            plan.files[DEFAULT],
            "# Written by: ddr setup containerd. Taken back by: ddr setup containerd --undo\n\
             # No server is named: what the mirror does not give is asked of the registry itself.\n\
             [host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
             dial_timeout = \"200ms\"\n"
        );
        let read: Table = plan.files[DEFAULT].parse().unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["host"]);
    }

    #[test]
    fn what_config_toml_lacks_is_said_for_its_version() {
        for (config, table) in [
            (None, "[plugins.\"io.containerd.cri.v1.images\".registry]"),
            (Some(""), "[plugins.cri.registry]"),
            (Some("version = 2"), "[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
            (Some(V3), "[plugins.\"io.containerd.cri.v1.images\".registry]"),
        ] {
            let (files, notes) = planned(config);
            assert_eq!(files, [DEFAULT]);
            assert!(notes.contains(table), "{config:?}: {notes}");
            assert!(notes.contains("config_path = \"/etc/containerd/certs.d\""), "{notes}");
        }
    }

    #[test]
    fn the_directory_of_config_toml_is_used() {
        let (files, notes) = planned(Some(&format!("{V3}config_path = '/srv/certs/'\n")));
        assert_eq!(files, ["/srv/certs/_default/hosts.toml"]);
        assert!(!notes.contains("restart containerd"), "{notes}");
        let v2 = "version = 2\nplugins.'io.containerd.grpc.v1.cri'.registry.config_path = '/a:/b'";
        let (files, notes) = planned(Some(v2));
        assert_eq!(files, ["/a/_default/hosts.toml"]);
        assert!(notes.contains("issue 12808"), "{notes}");
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let mirrors = format!(
            "imports = ['/x/*.toml']\n{V3}[plugins.'io.containerd.cri.v1.images'.\
            registry.mirrors.'docker.io']\nendpoint = ['https://m.example']\n"
        );
        let (_, notes) = planned(Some(&mirrors));
        assert!(notes.contains("move it to hosts.toml files first"), "{notes}");
        assert!(notes.contains("imports were not looked at"), "{notes}");
        let (_, notes) = planned(Some("disabled_plugins = ['cri']"));
        assert!(notes.contains("switches CRI off"), "{notes}");
    }

    #[test]
    fn broken_and_foreign_files_are_refused() {
        let broken = refused(plan(&Seen::of(&[(CONFIG_TOML, "version = 2\nx")]), &wanted()));
        assert!(broken.starts_with("/etc/containerd/config.toml:2: not TOML"), "{broken}");
        let theirs = Seen::of(&[(DEFAULT, "[host.'https://m.example']\n")]);
        let Err(SetupError::Foreign { path, text }) = plan(&theirs, &wanted()) else {
            panic!("not refused");
        };
        assert_eq!(path, DEFAULT);
        assert!(text.starts_with("[host.\"http://127.0.0.1:5000\"]\n"), "{text}");
    }
}
