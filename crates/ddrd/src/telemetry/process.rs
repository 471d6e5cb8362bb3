//! What Linux says about this process, under the names that Prometheus clients use.

use std::fs;

/// Bytes in a unit of `/proc/self/status`.
const KIB: f64 = 1024.0;

/// Reads `/proc/self` and sets the gauges; what cannot be read keeps its last figure.
pub(super) fn record() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = field(&status, "VmRSS:") {
        metrics::gauge!("process_resident_memory_bytes").set(kib * KIB);
    }
    if let Some(threads) = field(&status, "Threads:") {
        metrics::gauge!("process_threads").set(threads);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(entries.count() as f64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(files) = limit.current {
        metrics::gauge!("process_max_fds").set(files as f64);
    }
}

fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_is_found_by_its_name() {
        let status = "Name:\tddrd\nVmRSS:\t   20480 kB\nThreads:\t5\n";
        assert_eq!(field(status, "VmRSS:"), Some(20480.0));
        assert_eq!(field(status, "Threads:"), Some(5.0));
        assert_eq!(field(status, "VmSwap:"), None);
    }
}
