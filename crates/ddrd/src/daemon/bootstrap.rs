//! Where a node finds its swarm again.
//!
//! The node saves the peers that it met, but a process that is killed soon after its first start has
//! met nobody yet. A member that knows no address would take itself for the whole swarm, so the
//! addresses of the join token are kept, and are kept before the membership is.

use std::net::SocketAddr;

use ddr_store::Store;

/// Where the addresses lie in the store's settings.
const SETTING: &str = "ddrd.bootstrap";

/// Keeps the addresses for the next start. One small durable write.
pub(super) fn remember(store: &Store, addresses: &[SocketAddr]) {
    let saved = serde_json::to_vec(addresses).map_err(|error| error.to_string());
    let saved = saved
        .and_then(|bytes| store.set_setting(SETTING, &bytes).map_err(|error| error.to_string()));
    if let Err(error) = saved {
        // The addresses are in hand for this run, and the node saves its peers, too.
        tracing::warn!(%error, "the addresses in the join token could not be saved");
    }
}

/// The addresses that were kept last; none in a swarm that began here.
pub(super) fn remembered(store: &Store) -> Vec<SocketAddr> {
    let saved = store.get_setting(SETTING).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&saved).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ddr_store::StoreConfig;
    use ddr_store::disk::RealDisk;

    use super::*;

    fn open(root: &Path) -> Store {
        Store::open(StoreConfig { root: root.into(), disk: Arc::new(RealDisk) }).unwrap()
    }

    #[test]
    fn addresses_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let given: Vec<SocketAddr> = vec!["192.0.2.7:5001".parse().unwrap()];
        let store = open(dir.path());
        assert_eq!(remembered(&store), []);
        remember(&store, &given);
        drop(store);
        assert_eq!(remembered(&open(dir.path())), given);
    }
}
