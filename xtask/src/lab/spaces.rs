//! Appliances in network namespaces of their own, each behind one pair of virtual interfaces, so that faults are the
//! kernel's own.
//!
//! ```text
//! this host   hk7h1  198.18.7.5/30 ------ eth0 198.18.7.6/30   namespace hatoki-7-1: hsm1
//!             hk7h2  198.18.7.9/30 ------ eth0 198.18.7.10/30  namespace hatoki-7-2: hsm2
//! ```
//! 7 is the lab's block, reserved for its folder; what a lab that died has left under that number goes before the next
//! one uses it. The addresses are those of RFC 2544, which no network routes.
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Lab, Member, reservation};
use crate::problem::Problem;
use crate::process;

/// A hardware address that nobody has: what is sent to it is dropped by whoever receives it, and nobody is told.
const NOBODY: &str = "02:00:00:00:00:01";

/// Whether this process may make namespaces and the kernel has what they need.
///
/// # Errors
/// Why not.
pub(crate) fn available() -> Result<(), Problem> {
    if !rustix::process::geteuid().is_root() {
        return Err(Problem("network namespaces are made by root only".into()));
    }
    let name = format!("hatoki-try-{}", std::process::id());
    let interface = format!("hk{}t", std::process::id());
    ip(&["netns", "add", &name])?;
    let outcome = ip(&["link", "add", &interface, "type", "veth", "peer", "name", "eth0", "netns", &name]);
    // Takes the pair with it.
    ip(&["netns", "del", &name])?;
    outcome
}

/// Whether the kernel can delay and lose packets by itself.
pub(crate) fn has_netem(lab: &Lab) -> bool {
    let Some(name) = lab.members().first().and_then(|member| member.namespace.clone()) else { return false };
    let added = tc(&name, &["qdisc", "add", "dev", "eth0", "root", "netem", "delay", "1ms"]);
    added.and_then(|()| tc(&name, &["qdisc", "del", "dev", "eth0", "root"])).is_ok()
}

/// Reserves a block of addresses for the lab in `dir`.
pub(super) fn reserve(dir: &Path) -> Result<u8, Problem> {
    for block in 0..=u8::MAX {
        if reservation::reserve(Ipv4Addr::new(198, 18, block, 0), 0, dir)? {
            return Ok(block);
        }
    }
    Err(Problem(
        "wanted a free block of addresses in 198.18.0.0/16, found all taken; take old labs down".into(),
    ))
}

/// The name of a member's namespace.
pub(super) fn name(block: u8, number: usize) -> String {
    format!("hatoki-{block}-{number}")
}

/// The address of a member, and the host's on the other side of its pair.
pub(super) fn addresses(block: u8, number: u8) -> (Ipv4Addr, Ipv4Addr) {
    let first = number.saturating_mul(4);
    (Ipv4Addr::new(198, 18, block, first + 2), Ipv4Addr::new(198, 18, block, first + 1))
}

fn host_address(member: &Member) -> Ipv4Addr {
    Ipv4Addr::from_bits(member.address.to_bits() - 1)
}

fn host_interface(member: &Member) -> String {
    format!("hk{}h{}", member.address.octets()[2], member.number)
}

/// Makes the namespaces of a lab, and removes first what a lab that died has left under these names.
pub(super) fn make(members: &[Member]) -> Result<(), Problem> {
    remove(members)?;
    for member in members {
        let Some(name) = &member.namespace else { continue };
        let (outer, far, near) = (host_interface(member), member.address, host_address(member));
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["addr", "add", &format!("{near}/30"), "dev", &outer])?;
        ip(&["link", "set", &outer, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{far}/30"), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
    }
    Ok(())
}

/// Removes the namespaces, with whatever still runs in them.
pub(super) fn remove(members: &[Member]) -> Result<(), Problem> {
    for member in members {
        let Some(name) = &member.namespace else { continue };
        if !Path::new("/run/netns").join(name).exists() {
            continue;
        }
        for pid in process::text(Command::new("ip").args(["netns", "pids", name]))?.lines() {
            let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // One that has ended meanwhile need not be ended.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        ip(&["netns", "del", name])?;
        let outer = Path::new("/sys/class/net").join(host_interface(member));
        let begun = std::time::Instant::now();
        // The kernel takes the pair away in its own time.
        while outer.exists() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// The command that starts a member's program where its network is.
pub(super) fn command(member: &Member, program: &Path) -> Command {
    match &member.namespace {
        None => Command::new(program),
        // It becomes the program: the process is the same.
        Some(name) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name]).arg(program);
            command
        }
    }
}

/// Carries out a line of `lab fault`: a member or `all`, then `clear` or any of `blackhole` (its interface is down), `drop`
/// (packets vanish both ways), `oneway=up`, `oneway=down`, `delay=5ms`, `loss=5%`.
pub(super) fn fault(lab: &Lab, line: &str) -> Result<String, Problem> {
    let mut words = line.split_whitespace();
    let first = words.next().ok_or_else(|| Problem("wanted a member, found an empty line".into()))?;
    let members = match first {
        "all" => lab.members(),
        number => {
            let number = number.parse().map_err(|_| Problem(format!("wanted a member, found {number:?}")))?;
            std::slice::from_ref(lab.member(number)?)
        }
    };
    let words: Vec<&str> = words.collect();
    if words.is_empty() {
        return Err(Problem("wanted a fault, found none".into()));
    }
    for member in members {
        clear(member)?;
        words.iter().try_for_each(|word| set(member, word))?;
    }
    Ok("ok".into())
}

fn set(member: &Member, word: &str) -> Result<(), Problem> {
    let Some(name) = &member.namespace else { return Ok(()) };
    let netem = |what: &str, much: &str| {
        tc(name, &["qdisc", "add", "dev", "eth0", "root", "netem", what, much])?;
        tc_here(&["qdisc", "add", "dev", &host_interface(member), "root", "netem", what, much])
    };
    match word.split_once('=').unwrap_or((word, "")) {
        ("clear", "") => Ok(()),
        ("blackhole", "") => ip(&["-n", name, "link", "set", "eth0", "down"]),
        ("drop", "") if has_iptables() => {
            ["INPUT", "OUTPUT"].iter().try_for_each(|chain| iptables(name, &["-A", chain, "-j", "DROP"]))
        }
        ("drop", "") => {
            misdirect_up(member)?;
            misdirect_down(member, name)
        }
        ("oneway", "up") => misdirect_up(member),
        ("oneway", "down" | "") => misdirect_down(member, name),
        ("delay", much) => netem("delay", much),
        ("loss", much) => netem("loss", much),
        _ => Err(Problem(format!(
            "wanted clear, blackhole, drop, oneway=up|down, delay=Nms or loss=N%, found {word:?}; the proxies of --proxy \
             know more"
        ))),
    }
}

/// What we send to the member reaches its interface and is for nobody there.
fn misdirect_up(member: &Member) -> Result<(), Problem> {
    let (far, outer) = (member.address.to_string(), host_interface(member));
    ip(&["neigh", "replace", &far, "lladdr", NOBODY, "dev", &outer, "nud", "permanent"])
}

/// What the member sends to us reaches our interface and is for nobody here.
fn misdirect_down(member: &Member, name: &str) -> Result<(), Problem> {
    let near = host_address(member).to_string();
    ip(&["-n", name, "neigh", "replace", &near, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"])
}

fn clear(member: &Member) -> Result<(), Problem> {
    let Some(name) = &member.namespace else { return Ok(()) };
    let (far, near, outer) =
        (member.address.to_string(), host_address(member).to_string(), host_interface(member));
    // What is not there need not go.
    let _ = ip(&["neigh", "del", &far, "dev", &outer]);
    let _ = ip(&["-n", name, "neigh", "del", &near, "dev", "eth0"]);
    let _ = tc(name, &["qdisc", "del", "dev", "eth0", "root"]);
    let _ = tc_here(&["qdisc", "del", "dev", &outer, "root"]);
    if has_iptables() {
        let _ = iptables(name, &["-F"]);
    }
    ip(&["-n", name, "link", "set", "eth0", "up"])
}

/// Whether `iptables` is installed.
pub(crate) fn has_iptables() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("iptables").is_file())
}

fn ip(arguments: &[&str]) -> Result<(), Problem> {
    process::run(Command::new("ip").args(arguments)).map(drop)
}

fn tc(namespace: &str, arguments: &[&str]) -> Result<(), Problem> {
    process::run(Command::new("tc").args(["-n", namespace]).args(arguments)).map(drop)
}

fn tc_here(arguments: &[&str]) -> Result<(), Problem> {
    process::run(Command::new("tc").args(arguments)).map(drop)
}

fn iptables(namespace: &str, arguments: &[&str]) -> Result<(), Problem> {
    process::run(Command::new("ip").args(["netns", "exec", namespace, "iptables"]).args(arguments)).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn members_have_networks_of_four_addresses_that_do_not_overlap() {
        let all: Vec<_> = (1..=9).map(|number| addresses(7, number)).collect();
        assert_eq!(all[0], ("198.18.7.6".parse().unwrap(), "198.18.7.5".parse().unwrap()));
        let networks: std::collections::BTreeSet<u32> =
            all.iter().flat_map(|(far, near)| [far.to_bits() >> 2, near.to_bits() >> 2]).collect();
        assert_eq!(networks.len(), 9, "both sides of a pair in one network, no two pairs in the same");
    }
}
