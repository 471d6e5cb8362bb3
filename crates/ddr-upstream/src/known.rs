//! Where the registries that everybody uses have their API and their other hosts.
//!
//! Decides nothing for a registry whose endpoint is configured otherwise. Names no host here to which the
//! registry's own keeper would not send a user's password.

use ddr_oci::UpstreamHost;

/// Name, host of the API, further hosts of the same keeper.
const KNOWN: [(&str, &str, &[&str]); 7] = [
    ("docker.io", "registry-1.docker.io", &["auth.docker.io"]),
    ("ghcr.io", "ghcr.io", &["pkg-containers.githubusercontent.com"]),
    ("quay.io", "quay.io", &["*.quay.io"]),
    ("registry.k8s.io", "registry.k8s.io", &[]),
    ("gcr.io", "gcr.io", &[]),
    ("mcr.microsoft.com", "mcr.microsoft.com", &["*.data.mcr.microsoft.com"]),
    ("public.ecr.aws", "public.ecr.aws", &[]),
];

/// The endpoint of `host` and its further hosts, as for [`crate::Settings`]; of a registry that is not known
/// `https://HOST` and none. With this endpoint `Upstream::new` adds these hosts by itself.
#[must_use]
pub fn well_known(host: &UpstreamHost) -> (String, Vec<String>) {
    let known = KNOWN.iter().find(|(name, ..)| *name == host.as_str());
    let (api, hosts) = known.map_or((host.as_str(), &[][..]), |(_, api, hosts)| (*api, *hosts));
    (format!("https://{api}"), hosts.iter().map(|host| (*host).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_lies_elsewhere_and_unknown_registries_where_they_say() {
        let of = |host: &str| well_known(&host.parse().expect("a host"));
        assert_eq!(
            of("docker.io"),
            ("https://registry-1.docker.io".to_owned(), vec!["auth.docker.io".to_owned()])
        );
        assert_eq!(of("ghcr.io").0, "https://ghcr.io");
        assert_eq!(of("registry.example:5000"), ("https://registry.example:5000".into(), vec![]));
    }
}
