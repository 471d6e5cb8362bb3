//! The servers that DDR is compared with, on loopback, each with the configuration that its package
//! brings as far as a run beside others allows: its own directory and port, errors only in the log.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run;
use crate::tools::NGINX;
use crate::wire::Connection;

/// From start to an answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Clock ticks in a second (proc(5); the same on every Linux that Debian builds).
const TICKS: f64 = 100.0;

/// As Debian's package has it, without its password file, and quiet: a line of log for each request
/// would be measured as well.
const REGISTRY_CONFIG: &str = "\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: ROOT
  delete:
    enabled: true
http:
  addr: ADDRESS
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// One running server with its children. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Address and port.
    pub(crate) address: String,
    child: Child,
}

impl Server {
    /// A registry of the distribution project, which keeps its data in `dir/data`.
    pub(crate) fn registry(program: &Path, dir: &Path) -> Result<Self> {
        Self::registry_at(program, dir, free_address()?)
    }

    /// The same at an address with a port.
    pub(crate) fn registry_at(program: &Path, dir: &Path, address: String) -> Result<Self> {
        let config = REGISTRY_CONFIG
            .replace("ROOT", &dir.join("data").display().to_string())
            .replace("ADDRESS", &address);
        fs::create_dir_all(dir)?;
        let file = dir.join("config.yml");
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(file);
        // The exporter of traces that version 3 starts with has nobody to talk to here.
        command.env("OTEL_TRACES_EXPORTER", "none");
        Self::start(command, dir, address, "/v2/")
    }

    /// nginx with the files of `dir/files`: as Debian configures it, one worker for each processor
    /// and sendfile.
    pub(crate) fn nginx(dir: &Path) -> Result<Self> {
        let address = free_address()?;
        let at = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .collect();
        let config = format!(
            "daemon off;\nuser root;\nworker_processes auto;\npid {at}/pid;\nerror_log {at}/log;\n\
             events {{ worker_connections 768; }}\nhttp {{\nsendfile on;\ntcp_nopush on;\n\
             default_type application/octet-stream;\naccess_log off;\n{temporary}\
             server {{ listen {address}; root {at}/files; }}\n}}\n"
        );
        fs::create_dir_all(dir.join("files"))?;
        fs::write(dir.join("files/up"), "up")?;
        let file = dir.join("nginx.conf");
        fs::write(&file, config)?;
        let mut command = Command::new(NGINX);
        command.arg("-e").arg(dir.join("log")).arg("-c").arg(file);
        Self::start(command, dir, address, "/up")
    }

    /// Starts it and waits until it answers a GET of `target`.
    fn start(mut command: Command, dir: &Path, address: String, target: &str) -> Result<Self> {
        let log = File::create(dir.join("output"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", run::shown(&command)))?;
        let server = Self { address, child };
        run::wait_for(&run::shown(&command), START_LIMIT, || {
            let asked = Connection::open(&server.address);
            let answer = asked.and_then(|mut connection| connection.ask("GET", target, None));
            Ok(answer.is_ok_and(|a| a.head.status == 200).then_some(()))
        })
        .with_context(|| fs::read_to_string(dir.join("output")).unwrap_or_default())?;
        Ok(server)
    }

    /// Processor time of the process and its children. Seconds.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Ok(id) = name.parse::<u32>() else { continue };
            // One that has just ended has no file any more.
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            processes.extend(parse_stat(&stat).map(|found| (id, found)));
        }
        Ok(tree_ticks(&processes, self.child.id()) / TICKS)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // TERM, so that a master ends its workers; KILL for one that does not listen.
        let id = self.child.id().to_string();
        run::output(Command::new("kill").args(["-TERM", &id])).ok();
        let ended =
            run::wait_for("the end", Duration::from_secs(5), || Ok(self.child.try_wait()?));
        if ended.is_err() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Servers that cannot choose a port themselves get one that was free a moment ago.
pub(crate) fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Parent and processor time in ticks, that of ended children included.
fn parse_stat(stat: &str) -> Option<(u32, f64)> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().filter_map(|f| f.parse::<f64>().ok()).sum();
    Some((parent, ticks))
}

fn tree_ticks(processes: &BTreeMap<u32, (u32, f64)>, root: u32) -> f64 {
    let own = processes.get(&root).map_or(0.0, |(_, ticks)| *ticks);
    let children = processes.iter().filter(|(_, (parent, _))| *parent == root);
    own + children.map(|(id, _)| tree_ticks(processes, *id)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_the_whole_tree() {
        let stat = "7 (a) b) S 3 42 42 0 -1 4194560 1 0 0 0 10 5 2 1 20 0 1";
        assert_eq!(parse_stat(stat), Some((3, 18.0)));
        let processes =
            BTreeMap::from([(3, (1, 1.0)), (7, (3, 18.0)), (8, (7, 2.0)), (9, (1, 5.0))]);
        assert!((tree_ticks(&processes, 3) - 21.0).abs() < 1e-9);
    }
}
