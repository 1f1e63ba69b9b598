//! The proxies of a lab: one process before all appliances, under the lab's control socket.
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{Lab, Member, started};
use crate::problem::Problem;
use crate::proxy::{Proxy, control};

/// How long the process may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The control socket of a lab's proxies.
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("proxy.sock")
}

fn ways(members: &[Member]) -> Vec<(SocketAddr, SocketAddr)> {
    let way = |member: &Member| {
        let front = member.front?;
        Some(((member.address, front).into(), (member.address, member.port).into()))
    };
    members.iter().filter_map(way).collect()
}

/// Runs the proxies of the lab in `dir` until the process is ended.
///
/// # Errors
/// When there is no such lab or an address cannot be listened on.
pub fn serve(dir: &Path) -> Result<(), Problem> {
    let lab = Lab::open(dir)?;
    let proxy = Proxy::start(&ways(lab.members()))?;
    control::serve(&proxy, &socket(lab.dir()))
}

/// Starts the process and waits until it listens.
pub(super) fn start(lab: &Lab) -> Result<(), Problem> {
    let own =
        std::env::current_exe().map_err(|error| Problem(format!("our own program is not known: {error}")))?;
    let path = lab.dir.join("proxy.log");
    let log = File::create(&path).map_err(|error| Problem::at(&path, &error))?;
    let mut command = Command::new(own);
    command.arg("lab-proxy").arg("--dir").arg(&lab.dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let mut child = command.spawn().map_err(|error| Problem(format!("the proxies: {error}")))?;
    started::write(&lab.dir.join("proxy.pid"), child.id())?;
    let begun = Instant::now();
    while control::tell(&socket(&lab.dir), "fired").is_err() {
        let ended = child.try_wait().is_ok_and(|ended| ended.is_some());
        if ended || begun.elapsed() > PATIENCE {
            let said = fs::read_to_string(lab.dir.join("proxy.log")).unwrap_or_default();
            return Err(Problem(format!("the proxies do not come up: {}", said.trim_end())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Collects the process when it ends, should we still be here.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Ends the process, if it runs.
pub(super) fn stop(dir: &Path) {
    if let Some(pid) = process(dir) {
        // It holds nothing that must be put away.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let begun = Instant::now();
        while process(dir).is_some() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for name in ["proxy.pid", "proxy.sock", "proxy.log"] {
        // What is not there need not go.
        let _ = fs::remove_file(dir.join(name));
    }
}

/// The process, if it runs: the one that has our folder on its command line.
pub(super) fn process(dir: &Path) -> Option<Pid> {
    started::read(&dir.join("proxy.pid"))
}
