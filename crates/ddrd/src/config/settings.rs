//! The settings as they may be given: one struct for flags, environment and TOML, so that the
//! three can never disagree about a name.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ddr_node::Durability;
use serde::Deserialize;

use super::{ConfigError, DriverTable, MAX_CONFIG_BYTES, UpstreamTable};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event, with colours on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What reads by tag do without a majority; see [`ddr_node::TagReads`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tags {
    /// They fail.
    #[default]
    Strict,
    /// They answer what is known here, with a `Warning`.
    StaleOk,
}

/// Settings that were given; `None` where nothing was said. The TOML key of a setting is the name
/// of its flag without the dashes in front.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Directory for content, index, node key and join token [default: /var/lib/ddr for root,
    /// else ddr in the XDG data directory]
    #[arg(long, value_name = "DIR", env = "DDR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Registry API for docker, containerd and podman; loopback only [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR:PORT", env = "DDR_REGISTRY_LISTEN")]
    pub registry_listen: Option<SocketAddr>,

    /// Certificate chain (PEM) with which the registry API speaks TLS; needs its key too
    #[arg(long, value_name = "FILE", env = "DDR_REGISTRY_TLS_CERT")]
    pub registry_tls_cert: Option<PathBuf>,

    /// Private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", env = "DDR_REGISTRY_TLS_KEY")]
    pub registry_tls_key: Option<PathBuf>,

    /// Port for other nodes, TLS with swarm credentials [default: 0.0.0.0:5001]
    #[arg(long, value_name = "ADDR:PORT", env = "DDR_PEER_LISTEN")]
    pub peer_listen: Option<SocketAddr>,

    /// Admin API for ddr and Prometheus; loopback only [default: 127.0.0.1:5002]
    #[arg(long, value_name = "ADDR:PORT", env = "DDR_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,

    /// Address that other nodes are told; port 0 means the real peer port [default: the peer
    /// listen address, or the address of the interface that leads to the swarm]
    #[arg(long, value_name = "ADDR:PORT", env = "DDR_PEER_ADVERTISE")]
    pub peer_advertise: Option<SocketAddr>,

    /// Join the swarm of this token; @FILE reads it from a file. Not needed after the first start
    #[arg(long, value_name = "TOKEN|@FILE", env = "DDR_JOIN", hide_env_values = true)]
    pub join: Option<String>,

    /// Places where other nodes of the swarm may be, with commas between; a host name or an address,
    /// port 5001 if none is given
    #[arg(long, value_name = "HOST:PORT", env = "DDR_BOOTSTRAP", value_delimiter = ',')]
    pub bootstrap: Option<Vec<String>>,

    /// Name in the DNS under which other nodes are: a host name (A, AAAA), or a service such as
    /// _ddr._tcp.example.org (SRV)
    #[arg(long, value_name = "NAME", env = "DDR_BOOTSTRAP_DNS")]
    pub bootstrap_dns: Option<String>,

    /// Find other nodes of the swarm on the LAN by multicast DNS, and be found; never for a loopback
    /// address [default: true]
    #[arg(long, value_name = "BOOL", env = "DDR_MDNS")]
    pub mdns: Option<bool>,

    /// Failure zone of this node, such as a rack or a room
    #[arg(long, value_name = "NAME", env = "DDR_ZONE")]
    pub zone: Option<String>,

    /// What a read by tag does when no majority of the nodes that keep the tag answers: fail, or
    /// answer the last that is known here, with a warning [default: strict]
    #[arg(long, value_name = "POLICY", env = "DDR_TAGS")]
    pub tags: Option<Tags>,

    /// Tags that are neither moved nor deleted once they are there, as patterns with commas between,
    /// such as v* or team/app:release-*
    #[arg(long, value_name = "PATTERNS", env = "DDR_IMMUTABLE_TAGS", value_delimiter = ',')]
    pub immutable_tags: Option<Vec<String>>,

    /// How often garbage is collected; 0s for never [default: 1h]
    #[arg(long, value_name = "TIME", env = "DDR_GC_INTERVAL")]
    pub gc_interval: Option<String>,

    /// How long content that no manifest needs stays after its last use [default: 24h]
    #[arg(long, value_name = "TIME", env = "DDR_GC_GRACE")]
    pub gc_grace: Option<String>,

    /// Bytes a second that are verified in the background, such as 5MiB; 0 for none [default: what
    /// it takes to read everything in a week]
    #[arg(long, value_name = "RATE", env = "DDR_SCRUB_RATE")]
    pub scrub_rate: Option<String>,

    /// Percent of the disk used above which pulled content makes room, the longest unused first [default: 80]
    #[arg(long, value_name = "PERCENT", env = "DDR_CACHE_HIGH")]
    pub cache_high: Option<u8>,

    /// Percent of the disk used down to which it does [default: 60]
    #[arg(long, value_name = "PERCENT", env = "DDR_CACHE_LOW")]
    pub cache_low: Option<u8>,

    /// Bytes that all blobs may have, such as 200GiB: the same percents of it count, too; 0 for no
    /// limit but the disk [default: 0]
    #[arg(long, value_name = "SIZE", env = "DDR_CACHE_SIZE")]
    pub cache_size: Option<String>,

    /// Bytes a second that go to other nodes at most, such as 20MiB; 0 for no limit [default: 0]
    #[arg(long, value_name = "RATE", env = "DDR_UPLOAD_LIMIT")]
    pub upload_limit: Option<String>,

    /// Bytes a second that come from other nodes at most [default: 0]
    #[arg(long, value_name = "RATE", env = "DDR_DOWNLOAD_LIMIT")]
    pub download_limit: Option<String>,

    /// Copies of what is pushed, on as many nodes; 1 to 7 [default: 3]
    #[arg(long, value_name = "N", env = "DDR_COPIES")]
    pub copies: Option<u8>,

    /// Other numbers of copies for some repositories, with commas between, such as ci/**=1,prod/**=5; the first
    /// that matches counts
    #[arg(long, value_name = "PATTERN=N", env = "DDR_COPIES_FOR", value_delimiter = ',')]
    pub copies_for: Option<Vec<String>>,

    /// What a push waits for: this disk (local), two disks (two), or as many as there shall be copies
    /// (all) [default: two]
    #[arg(long, value_name = "local|two|all", env = "DDR_DURABILITY")]
    pub durability: Option<Durability>,

    /// How long a node that keeps copies may be silent before they are made again elsewhere [default: 10m]
    #[arg(long, value_name = "TIME", env = "DDR_COPIES_GRACE")]
    pub copies_grace: Option<String>,

    /// Bytes a second that are copied to make up for lost nodes, such as 50MiB; 0 for no limit
    /// [default: 0]
    #[arg(long, value_name = "RATE", env = "DDR_COPIES_RATE")]
    pub copies_rate: Option<String>,

    /// Other registries whose content this node gives, too, with commas between; * for every one with a
    /// public address [default: docker.io,ghcr.io,quay.io,registry.k8s.io]
    #[arg(long, value_name = "HOSTS", env = "DDR_MIRROR", value_delimiter = ',')]
    pub mirror: Option<Vec<String>>,

    /// The registry that is asked for what nobody pushed under a name without one, such as docker.io
    /// [default: none]
    #[arg(long, value_name = "HOST", env = "DDR_MIRROR_BARE")]
    pub mirror_bare: Option<String>,

    /// How long a tag is not asked for again at the registry it belongs to [default: 60s]
    #[arg(long, value_name = "TIME", env = "DDR_MIRROR_FRESH")]
    pub mirror_fresh: Option<String>,

    /// Registries that need more than a name; in the file only.
    #[arg(skip)]
    #[serde(default)]
    pub upstream: Vec<UpstreamTable>,

    /// Where content lives beside the own store; in the file only.
    #[arg(skip)]
    pub driver: Option<DriverTable>,

    /// What the registry asks of its clients.
    #[command(flatten)]
    #[serde(default)]
    pub registry: RegistrySettings,

    /// Log level (error, warn, info, debug, trace) or a filter such as info,ddr_node=debug
    /// [default: info]
    #[arg(long, value_name = "FILTER", env = "DDR_LOG")]
    pub log: Option<String>,

    /// Log lines for people or for machines [default: human]
    #[arg(long, value_name = "FORMAT", env = "DDR_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The table `[registry]` of the file. Rarely needed, so the flags are not listed in the help.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistrySettings {
    /// Refuse manifests whose blobs are not known [default: false]
    #[arg(
        long = "registry-require-blobs",
        value_name = "BOOL",
        env = "DDR_REGISTRY_REQUIRE_BLOBS",
        hide = true
    )]
    pub require_blobs: Option<bool>,

    /// Names beside those of this machine by which clients call the registry
    #[arg(
        long = "registry-hosts",
        value_name = "NAMES",
        env = "DDR_REGISTRY_HOSTS",
        value_delimiter = ',',
        hide = true
    )]
    pub hosts: Option<Vec<String>>,
}

impl RegistrySettings {
    fn over(self, below: Self) -> Self {
        Self {
            require_blobs: self.require_blobs.or(below.require_blobs),
            hosts: self.hosts.or(below.hosts),
        }
    }
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`], [`ConfigError::TooLong`], or [`ConfigError::Parse`] with the line.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(read)?;
        file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLong(path.into()));
        }
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.into(),
            line: line_of(&text, error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', " "),
        })
    }

    /// Self where it says something, `below` elsewhere.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(below.data_dir),
            registry_listen: self.registry_listen.or(below.registry_listen),
            registry_tls_cert: self.registry_tls_cert.or(below.registry_tls_cert),
            registry_tls_key: self.registry_tls_key.or(below.registry_tls_key),
            peer_listen: self.peer_listen.or(below.peer_listen),
            admin_listen: self.admin_listen.or(below.admin_listen),
            peer_advertise: self.peer_advertise.or(below.peer_advertise),
            join: self.join.or(below.join),
            bootstrap: self.bootstrap.or(below.bootstrap),
            bootstrap_dns: self.bootstrap_dns.or(below.bootstrap_dns),
            mdns: self.mdns.or(below.mdns),
            zone: self.zone.or(below.zone),
            tags: self.tags.or(below.tags),
            immutable_tags: self.immutable_tags.or(below.immutable_tags),
            registry: self.registry.over(below.registry),
            gc_interval: self.gc_interval.or(below.gc_interval),
            gc_grace: self.gc_grace.or(below.gc_grace),
            scrub_rate: self.scrub_rate.or(below.scrub_rate),
            cache_high: self.cache_high.or(below.cache_high),
            cache_low: self.cache_low.or(below.cache_low),
            cache_size: self.cache_size.or(below.cache_size),
            upload_limit: self.upload_limit.or(below.upload_limit),
            download_limit: self.download_limit.or(below.download_limit),
            copies: self.copies.or(below.copies),
            copies_for: self.copies_for.or(below.copies_for),
            durability: self.durability.or(below.durability),
            copies_grace: self.copies_grace.or(below.copies_grace),
            copies_rate: self.copies_rate.or(below.copies_rate),
            mirror: self.mirror.or(below.mirror),
            mirror_bare: self.mirror_bare.or(below.mirror_bare),
            mirror_fresh: self.mirror_fresh.or(below.mirror_fresh),
            driver: self.driver.or(below.driver),
            upstream: if self.upstream.is_empty() { below.upstream } else { self.upstream },
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Settings::from_file(file.path())
    }

    #[test]
    fn every_key_is_read() {
        let text = "data-dir = '/d'\nregistry-listen = '127.0.0.1:1'\npeer-listen = '[::]:2'\n\
                    admin-listen = '127.0.0.1:3'\npeer-advertise = '192.0.2.1:4'\njoin = '@f'\n\
                    bootstrap = ['a:1', '192.0.2.2']\nbootstrap-dns = '_ddr._tcp.example.org'\n\
                    mdns = false\n\
                    tags = 'stale-ok'\nimmutable-tags = ['v*', 'a/b:c?']\n\
                    zone = 'z'\nregistry-tls-cert = 'c'\nregistry-tls-key = 'k'\n\
                     log = 'debug'\nlog-format = 'json'\n\
                     gc-interval = '2h'\ngc-grace = '7d'\nscrub-rate = '5MiB'\n\
                    cache-high = 90\ncache-low = 50\ncache-size = '200GiB'\n\
                    upload-limit = '1M'\ndownload-limit = '2M'\n\
                    copies = 2\ncopies-for = ['ci/**=1']\ndurability = 'all'\ncopies-grace = '5m'\ncopies-rate = '9M'\n\
                    mirror = ['a.b']\nmirror-bare = 'a.b'\nmirror-fresh = '9s'\n\
                    [[upstream]]\nhost = 'a.b'\n\
                    [registry]\nrequire-blobs = true\nhosts = ['a', 'b']\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings.clone().over(Settings::default()), settings);
        assert_eq!(settings.tags, Some(Tags::StaleOk));
        assert_eq!(settings.mdns, Some(false));
        assert_eq!(settings.durability, Some(Durability::All));
        assert_eq!(settings.log_format, Some(LogFormat::Json));
        assert_eq!(settings.registry.require_blobs, Some(true));
        assert_eq!(settings.registry.hosts, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(settings.peer_listen, "[::]:2".parse().ok());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("zone = 'z'\n\nregistry_lisen = 'x'\n").unwrap_err().to_string();
        assert!(error.contains(":3: unknown field `registry_lisen`"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        let error = parse("# comment\nregistry-listen = 'nowhere'\n").unwrap_err().to_string();
        assert!(error.contains(":2: "), "{error}");
    }

    #[test]
    fn a_huge_file_is_refused() {
        let text = "#".repeat(MAX_CONFIG_BYTES as usize + 1);
        assert!(matches!(parse(&text), Err(ConfigError::TooLong(_))));
    }
}
