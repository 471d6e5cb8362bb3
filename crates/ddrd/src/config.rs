//! What the daemon is told to do, from three places: flag beats environment beats file.
//!
//! Decides the defaults and refuses what this version cannot do safely. It must never touch the
//! network or create anything on disk: a refused setting leaves no trace.

mod content;
mod driver;
mod mirror;
mod settings;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ddr_net::discover::place::Place;
use ddr_net::discover::{DnsName, MAX_STATIC};
use ddr_node::{Bandwidth, CopySettings, MIN_RATE, TagReads, TagRules, UpkeepSettings};
use ddr_oci::MAX_PATTERNS;

use crate::amount;

pub use driver::{CONTAINERD_SOCKET, DriverConfig, DriverKind, DriverTable, PlaceConfig};
pub use mirror::{MAX_UPSTREAMS, MIRRORED, MirrorConfig, UpstreamTable};
pub use settings::{LogFormat, RegistrySettings, Settings, Tags};

/// Where docker, containerd and podman look for a registry that needs no set-up.
pub const DEFAULT_REGISTRY: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));
/// Where other nodes reach this one.
pub const DEFAULT_PEERS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 5001));
/// Where `ddr` and Prometheus reach this node.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5002));
/// Bytes that a configuration file may have.
pub const MAX_CONFIG_BYTES: u64 = 64 * 1024;
/// The shortest grace window of the background: uses are noted to ten minutes.
pub const MIN_GC_GRACE: Duration = Duration::from_secs(20 * 60);
/// The shortest time after which a silent node is replaced.
pub const MIN_COPIES_GRACE: Duration = Duration::from_secs(1);
/// Bytes of a zone name; the same bound as on the wire.
pub const MAX_ZONE_BYTES: usize = 32;
/// Names by which clients may call the registry, beside those of this machine.
pub const MAX_REGISTRY_HOSTS: usize = 64;

/// Every setting with its default filled in, checked once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Absolute path of the directory that holds content, index, identity and the join token.
    pub data_dir: PathBuf,
    /// Loopback address of the OCI registry API; port 0 takes a free one.
    pub registry_listen: SocketAddr,
    /// PEM files of the certificate chain and the key with which the registry API speaks TLS.
    pub registry_tls: Option<TlsFiles>,
    /// Address of the peer port; port 0 takes a free one.
    pub peer_listen: SocketAddr,
    /// Loopback address of the admin API; port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// The address that other nodes are told; port 0 stands for the port of the peer listener.
    pub peer_advertise: Option<SocketAddr>,
    /// A join token, or `@FILE` that holds one.
    pub join: Option<String>,
    /// Places where other nodes may be, at most [`MAX_STATIC`].
    pub bootstrap: Vec<Place>,
    /// Name in the DNS under which other nodes are.
    pub bootstrap_dns: Option<DnsName>,
    /// Other nodes are looked for on the LAN, unless only this machine reaches this node.
    pub mdns: bool,
    /// Failure zone of this node, such as a rack or a room; may be empty.
    pub zone: String,
    /// What is wanted of tags.
    pub tags: TagRules,
    /// Manifests whose blobs nobody has are refused.
    pub require_blobs: bool,
    /// Names by which clients may call the registry, beside those of this machine; in lower case.
    pub registry_hosts: Vec<String>,
    /// Collection of garbage and verification in the background.
    pub upkeep: UpkeepSettings,
    /// How fast content goes from and to other nodes.
    pub bandwidth: Bandwidth,
    /// Copies of what is pushed.
    pub copies: CopySettings,
    /// Other registries whose content is given as if it were here.
    pub mirror: MirrorConfig,
    /// Where content lives beside the own store.
    pub driver: Option<DriverConfig>,
    /// `tracing` filter such as `info` or `info,ddr_node=debug`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// Where the registry's certificate and its key are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// The certificate chain, the registry's own first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why the settings cannot be used. One line each; the program ends with status 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}: check the path given with --config", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is longer than [`MAX_CONFIG_BYTES`].
    #[error("{}: longer than {MAX_CONFIG_BYTES} bytes: is this a ddrd configuration?", .0.display())]
    TooLong(PathBuf),
    /// The file is not TOML, or has a key or value that does not exist.
    #[error("{}:{line}: {message}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A client address that strangers could reach.
    #[error(
        "{setting} {address} is not a loopback address, and {what} is plain HTTP without \
         authentication in this version: use 127.0.0.1:{} or [::1]:{}", .address.port(), .address.port()
    )]
    NotLoopback {
        /// The setting, as its flag is called.
        setting: &'static str,
        /// The address that was given.
        address: SocketAddr,
        /// The service behind it.
        what: &'static str,
    },
    /// A certificate without its key, or a key alone.
    #[error("registry-tls-cert and registry-tls-key go together: give both or none")]
    HalfOfTls,
    /// Peers cannot dial the unspecified address.
    #[error("peer-advertise {0} cannot be dialled: give the address that other machines use")]
    Advertise(SocketAddr),
    /// The zone is too long or has characters that do not belong into a name.
    #[error(
        "zone {0:?} is not a zone name: use at most {MAX_ZONE_BYTES} letters, digits, '.', '_', '-'"
    )]
    Zone(String),
    /// A name by which no client can call the registry.
    #[error(
        "[registry] hosts {0:?} is not a host name: use at most {MAX_REGISTRY_HOSTS} names of letters, digits, '.', '-', '_', without a port"
    )]
    Host(String),
    /// A pattern of tags is none, or there are too many.
    #[error(
        "immutable-tags {given:?}: {reason}; such as v* or team/app:release-*, at most \
         {MAX_PATTERNS} of them"
    )]
    TagPattern {
        /// What was given.
        given: String,
        /// What would be right.
        reason: String,
    },
    /// A place where other nodes may be is none, or there are too many.
    #[error(
        "{setting} {given:?}: give a host name or address, with :PORT if it is not 5001; at most \
         {MAX_STATIC} of them"
    )]
    Bootstrap {
        /// The setting, as its flag is called.
        setting: &'static str,
        /// What was given.
        given: String,
    },
    /// The log filter does not parse.
    #[error("log {filter:?} is not a log filter ({reason}): use a level such as info or debug")]
    Log {
        /// The filter that was given.
        filter: String,
        /// The parser's words.
        reason: String,
    },
    /// A time or rate is none.
    #[error("{setting}: {reason}")]
    Value {
        /// The setting, as its flag is called.
        setting: &'static str,
        /// What would be right.
        reason: String,
    },
    /// No place for data could be derived.
    #[error("no home directory is known: give --data-dir")]
    NoDataDir,
}

impl Config {
    /// Merges `given` (flags over environment) over the file at `path`, fills in the defaults and
    /// checks the result.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, as [`ConfigError`].
    pub fn load(path: Option<&Path>, given: Settings) -> Result<Self, ConfigError> {
        let file = path.map(Settings::from_file).transpose()?.unwrap_or_default();
        Self::resolve(given.over(file), default_data_dir)
    }

    fn resolve(
        settings: Settings,
        default_dir: impl FnOnce() -> Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let copies = content::copies(&settings)?;
        let upkeep = content::upkeep(&settings)?;
        let mirror = mirror::mirror(&settings)?;
        let driver = driver::driver(&settings)?;
        let data_dir = settings.data_dir.or_else(default_dir).ok_or(ConfigError::NoDataDir)?;
        let registry_tls = match (settings.registry_tls_cert, settings.registry_tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfOfTls),
        };
        let config = Self {
            registry_tls,
            data_dir: std::path::absolute(data_dir).map_err(|_| ConfigError::NoDataDir)?,
            registry_listen: settings.registry_listen.unwrap_or(DEFAULT_REGISTRY),
            peer_listen: settings.peer_listen.unwrap_or(DEFAULT_PEERS),
            admin_listen: settings.admin_listen.unwrap_or(DEFAULT_ADMIN),
            peer_advertise: settings.peer_advertise,
            join: settings.join,
            bootstrap: bootstrap(settings.bootstrap.unwrap_or_default())?,
            bootstrap_dns: bootstrap_dns(settings.bootstrap_dns)?,
            mdns: settings.mdns.unwrap_or(true),
            zone: settings.zone.unwrap_or_default(),
            tags: TagRules {
                reads: match settings.tags.unwrap_or_default() {
                    Tags::Strict => TagReads::Strict,
                    Tags::StaleOk => TagReads::StaleOk,
                },
                immutable: content::tag_patterns(settings.immutable_tags.unwrap_or_default())?,
            },
            require_blobs: settings.registry.require_blobs.unwrap_or_default(),
            registry_hosts: hosts(settings.registry.hosts.unwrap_or_default())?,
            upkeep,
            bandwidth: Bandwidth {
                upload: limit("upload-limit", settings.upload_limit.as_deref())?,
                download: limit("download-limit", settings.download_limit.as_deref())?,
            },
            copies,
            mirror,
            driver,
            log: settings.log.unwrap_or_else(|| "info".into()),
            log_format: settings.log_format.unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        loopback("registry-listen", self.registry_listen, "the registry")?;
        loopback("admin-listen", self.admin_listen, "the admin API")?;
        if let Some(address) = self.peer_advertise
            && (address.ip().is_unspecified() || address.ip().is_multicast())
        {
            return Err(ConfigError::Advertise(address));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.zone.len() > MAX_ZONE_BYTES || !self.zone.chars().all(plain) {
            return Err(ConfigError::Zone(self.zone.clone()));
        }
        crate::telemetry::filter(&self.log).map(drop)
    }
}

fn bootstrap(places: Vec<String>) -> Result<Vec<Place>, ConfigError> {
    let wrong = |given| ConfigError::Bootstrap { setting: "bootstrap", given };
    if places.len() > MAX_STATIC {
        return Err(wrong(format!("{} places", places.len())));
    }
    places.into_iter().map(|place| place.parse().map_err(|_| wrong(place))).collect()
}

fn bootstrap_dns(name: Option<String>) -> Result<Option<DnsName>, ConfigError> {
    let wrong = |given| ConfigError::Bootstrap { setting: "bootstrap-dns", given };
    name.map(|name| name.parse().map_err(|_| wrong(name))).transpose()
}

/// The names in lower case and without the dot at the end, as requests are compared with them.
fn hosts(names: Vec<String>) -> Result<Vec<String>, ConfigError> {
    if names.len() > MAX_REGISTRY_HOSTS {
        return Err(ConfigError::Host(format!("{} names", names.len())));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let name = |name: String| {
        let bare = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
        let good = (1..=253).contains(&bare.len()) && bare.chars().all(plain);
        if good { Ok(bare) } else { Err(ConfigError::Host(name)) }
    };
    names.into_iter().map(name).collect()
}

/// A limit of bandwidth; `None` is none.
fn limit(setting: &'static str, text: Option<&str>) -> Result<Option<u64>, ConfigError> {
    let read = text.map(bandwidth_limit).transpose();
    read.map(Option::flatten).map_err(|reason| ConfigError::Value { setting, reason })
}

/// Reads bytes a second, at least [`MIN_RATE`]; 0 is no limit.
pub(crate) fn bandwidth_limit(text: &str) -> Result<Option<u64>, String> {
    match amount::rate_or_zero(text)? {
        0 => Ok(None),
        rate if rate < MIN_RATE => {
            Err(format!("{text:?} is less than {} KiB a second: use more, or 0", MIN_RATE / 1024))
        }
        rate => Ok(Some(rate)),
    }
}

/// Plain HTTP without authentication may only be reached from this machine (design decision 6).
fn loopback(
    setting: &'static str,
    address: SocketAddr,
    what: &'static str,
) -> Result<(), ConfigError> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(ConfigError::NotLoopback { setting, address, what })
}

fn default_data_dir() -> Option<PathBuf> {
    data_dir_for(
        rustix::process::geteuid().is_root(),
        std::env::var_os("XDG_DATA_HOME"),
        std::env::var_os("HOME"),
    )
}

/// `/var/lib/ddr` for root, else `ddr` in the XDG data directory (XDG base directory
/// specification 0.8: a relative `XDG_DATA_HOME` is ignored).
fn data_dir_for(root: bool, xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/ddr"));
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let xdg = xdg.map(PathBuf::from).filter(absolute);
    let home = home.map(PathBuf::from).filter(absolute).map(|h| h.join(".local/share"));
    xdg.or(home).map(|dir| dir.join("ddr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(settings: Settings) -> Result<Config, ConfigError> {
        Config::resolve(settings, || Some("/data".into()))
    }

    #[test]
    fn defaults_are_those_of_the_interface() {
        let config = resolve(Settings::default()).unwrap();
        assert_eq!(config.registry_listen.to_string(), "127.0.0.1:5000");
        assert_eq!(config.peer_listen.to_string(), "0.0.0.0:5001");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:5002");
        assert_eq!(config.data_dir, Path::new("/data"));
    }

    #[test]
    fn data_directory_follows_xdg() {
        let some = |s: &str| Some(OsString::from(s));
        assert_eq!(data_dir_for(true, some("/x"), some("/h")).unwrap(), Path::new("/var/lib/ddr"));
        assert_eq!(data_dir_for(false, some("/x"), some("/h")).unwrap(), Path::new("/x/ddr"));
        let home = data_dir_for(false, some("relative"), some("/h")).unwrap();
        assert_eq!(home, Path::new("/h/.local/share/ddr"));
        assert_eq!(data_dir_for(false, None, None), None);
    }

    #[test]
    fn rules_of_tags_are_read() {
        let config = resolve(Settings::default()).unwrap();
        assert_eq!(config.tags, TagRules::default());
        let given = |patterns: &[&str]| {
            let immutable_tags = Some(patterns.iter().map(ToString::to_string).collect());
            let tags = Some(Tags::StaleOk);
            resolve(Settings { immutable_tags, tags, ..Settings::default() })
        };
        let rules = given(&["v*", "team/app:release-*"]).unwrap().tags;
        assert_eq!((rules.reads, rules.immutable.len()), (TagReads::StaleOk, 2));
        let error = given(&["v*", "v[1]"]).unwrap_err().to_string();
        assert!(error.starts_with("immutable-tags \"v[1]\": the pattern of a tag"), "{error}");
        assert!(given(&["v*"; MAX_PATTERNS]).is_ok());
        assert!(given(&["v*"; MAX_PATTERNS + 1]).is_err());
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let (cert, key) = (Some(PathBuf::from("c")), Some(PathBuf::from("k")));
        let given = |registry_tls_cert, registry_tls_key| {
            resolve(Settings { registry_tls_cert, registry_tls_key, ..Settings::default() })
        };
        assert!(matches!(given(cert.clone(), None), Err(ConfigError::HalfOfTls)));
        assert!(matches!(given(None, key.clone()), Err(ConfigError::HalfOfTls)));
        assert_eq!(given(None, None).unwrap().registry_tls, None);
        assert!(given(cert, key).unwrap().registry_tls.is_some());
    }

    #[test]
    fn watermarks_are_in_order() {
        let given = |cache_high, cache_low, size: &str| {
            let cache_size = Some(size.to_owned());
            resolve(Settings { cache_high, cache_low, cache_size, ..Settings::default() })
        };
        let cache = given(None, None, "1GiB").unwrap().upkeep.cache;
        assert_eq!((cache.high, cache.low, cache.size), (80, 60, Some(1 << 30)));
        let cache = given(Some(40), None, "0").unwrap().upkeep.cache;
        assert_eq!((cache.high, cache.low, cache.size), (40, 39, None));
        for (high, low, size) in [(0, 0, "0"), (101, 50, "0"), (50, 50, "0"), (90, 50, "much")] {
            let refused = given(Some(high), Some(low), size);
            assert!(matches!(refused, Err(ConfigError::Value { .. })), "{high} {low} {size}");
        }
    }

    #[test]
    fn client_ports_stay_on_loopback() {
        for address in ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000", "[::ffff:192.0.2.1]:5000"] {
            let open = address.parse().ok();
            let registry = Settings { registry_listen: open, ..Settings::default() };
            let admin = Settings { admin_listen: open, ..Settings::default() };
            assert!(matches!(resolve(registry), Err(ConfigError::NotLoopback { .. })), "{address}");
            assert!(matches!(resolve(admin), Err(ConfigError::NotLoopback { .. })), "{address}");
        }
        for address in ["127.0.0.1:0", "127.8.9.1:5000", "[::1]:5000"] {
            let registry =
                Settings { registry_listen: address.parse().ok(), ..Settings::default() };
            assert!(resolve(registry).is_ok(), "{address}");
        }
    }

    #[test]
    fn zones_and_filters_and_advertised_addresses_are_checked() {
        let zone = |z: &str| resolve(Settings { zone: Some(z.into()), ..Settings::default() });
        assert!(zone("eu-1.rack_7").is_ok());
        assert!(matches!(zone(&"z".repeat(33)), Err(ConfigError::Zone(_))));
        assert!(matches!(zone("a b"), Err(ConfigError::Zone(_))));
        let hosts = |names: &[&str]| {
            let hosts = Some(names.iter().map(ToString::to_string).collect());
            let registry = RegistrySettings { hosts, ..RegistrySettings::default() };
            resolve(Settings { registry, ..Settings::default() })
        };
        let named = hosts(&["Registry.Example.", "ddr"]).unwrap();
        assert_eq!(named.registry_hosts, ["registry.example", "ddr"]);
        for bad in ["", ".", "a:5000", "a/b", "a b", "*"] {
            assert!(matches!(hosts(&[bad]), Err(ConfigError::Host(_))), "{bad}");
        }
        assert!(matches!(hosts(&["a"; MAX_REGISTRY_HOSTS + 1]), Err(ConfigError::Host(_))));
        let log = Settings { log: Some("a=b=c".into()), ..Settings::default() };
        assert!(matches!(resolve(log), Err(ConfigError::Log { .. })));
        let listed = |places: &[&str]| {
            let bootstrap = Some(places.iter().map(ToString::to_string).collect());
            resolve(Settings { bootstrap, ..Settings::default() })
        };
        assert_eq!(listed(&["a:1", "192.0.2.1"]).unwrap().bootstrap.len(), 2);
        for bad in ["", "a b", "a:0", "http://a"] {
            assert!(matches!(listed(&[bad]), Err(ConfigError::Bootstrap { .. })), "{bad}");
        }
        assert!(matches!(listed(&["a"; MAX_STATIC + 1]), Err(ConfigError::Bootstrap { .. })));
        let dns = |name: &str| {
            resolve(Settings { bootstrap_dns: Some(name.into()), ..Settings::default() })
        };
        assert!(dns("_ddr._tcp.example.org").is_ok() && dns("nodes.example.org").is_ok());
        assert!(matches!(dns("_ddr..org"), Err(ConfigError::Bootstrap { .. })));
        let any = Settings { peer_advertise: "0.0.0.0:1".parse().ok(), ..Settings::default() };
        assert!(matches!(resolve(any), Err(ConfigError::Advertise(_))));
    }
}
