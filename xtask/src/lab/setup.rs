//! How a lab comes about: the same steps as on real hosts, by the same tools.
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Lab, Member, Memory, Network, Wanted, proxied, reservation, spaces};
use crate::cargo::Programs;
use crate::problem::Problem;
use crate::process;

/// NTLS's port.
const PORT: u16 = 1792;
/// How many ports behind it are tried; they stay below those that outgoing connections take.
const PORTS: u16 = 1000;
/// The label of the group.
pub(crate) const LABEL: &str = "hatoki-lab";
/// The name of the client.
const CLIENT: &str = "lab-client";
/// The name of the domain.
const DOMAIN: &str = "lab";
/// Longest path of a Unix socket that Linux takes.
const SOCKET_BYTES_MAX: usize = 107;

pub(super) fn set_up(
    dir: &Path,
    wanted: &Wanted,
    programs: &Programs,
    say: &dyn Fn(&str),
) -> Result<Lab, Problem> {
    let block = match wanted.network {
        Network::Namespaces => Some(spaces::reserve(dir)?),
        Network::Loopback | Network::Proxied => None,
    };
    let proxy = wanted.network == Network::Proxied;
    let memory = Memory {
        label: LABEL.into(),
        so_pin: pin()?,
        co_pin: pin()?,
        programs: programs.folder().to_owned(),
        members: (1..=wanted.members)
            .map(|number| match block {
                Some(block) => place_apart(dir, number, block),
                None => place(dir, number, proxy, say),
            })
            .collect::<Result<_, _>>()?,
    };
    let mut lab = Lab { dir: dir.to_owned(), memory };
    // From here on the folder is a lab that can be taken down.
    lab.save()?;
    match build(&mut lab, say) {
        Ok(()) => {
            lab.save()?;
            Ok(lab)
        }
        Err(problem) => {
            lab.stop_all();
            proxied::stop(dir);
            // The first problem is the one to tell.
            let _ = spaces::remove(lab.members());
            // What is left explains the failure; the next `up` needs another folder or `down`.
            Err(problem)
        }
    }
}

/// The steps, on a lab whose folders are chosen.
fn build(lab: &mut Lab, say: &dyn Fn(&str)) -> Result<(), Problem> {
    if lab.has_namespaces() {
        say("making a network namespace for each appliance");
        spaces::make(lab.members())?;
    }
    for member in lab.memory.members.clone() {
        say(&format!("hsm{}: starting hsmd on {}:{}", member.number, member.address, member.port));
        make_folder(&member.data())?;
        let settings = format!("data_dir = \"data\"\nlisten = [\"{}:{}\"]\n", member.address, member.port);
        let path = member.configuration();
        fs::write(&path, settings).map_err(|error| Problem::at(&path, &error))?;
        member.spawn(&lab.programs().hsmd())?;
    }
    if lab.is_proxied() {
        say("starting a fault proxy before each appliance");
        proxied::start(lab)?;
    }
    for number in 1..=lab.memory.members.len() {
        lab.wait_ready(number)?;
    }
    move_domain(lab, say)?;
    for number in 1..=lab.memory.members.len() {
        say(&format!("hsm{number}: creating partition part{number}"));
        let name = format!("part{number}");
        let mut create = lab.hsm(number)?;
        let shown = process::json(create.args([
            "partition",
            "create",
            "-partition",
            &name,
            "-domain",
            DOMAIN,
            "--json",
        ]))?;
        lab.memory.members[number - 1].serial = serial(&shown)?;
    }
    exchange_certificates(lab, say)?;
    make_group(lab, say)
}

/// One domain on all appliances: made by the first, moved by request, export and import.
fn move_domain(lab: &Lab, say: &dyn Fn(&str)) -> Result<(), Problem> {
    say("hsm1: hsm init, which makes the domain");
    process::run(lab.hsm(1)?.args(["init", "-label", "hsm1", "-domain", DOMAIN]))?;
    let transfer = lab.dir.join("transfer");
    make_folder(&transfer)?;
    for number in 2..=lab.memory.members.len() {
        say(&format!("hsm{number}: hsm init, then the domain by export-request, export, import"));
        let (request, export) =
            (transfer.join(format!("hsm{number}.request")), transfer.join(format!("hsm{number}.export")));
        process::run(lab.hsm(number)?.args(["init", "-label", &format!("hsm{number}"), "-noDomain"]))?;
        process::run(
            lab.hsm(number)?.args(["domain", "export-request", "-domain", DOMAIN, "-out"]).arg(&request),
        )?;
        let mut exporting = lab.hsm(1)?;
        exporting
            .args(["domain", "export", "-domain", DOMAIN, "-request"])
            .arg(&request)
            .arg("-out")
            .arg(&export);
        process::run(&mut exporting)?;
        process::run(lab.hsm(number)?.args(["domain", "import", "-in"]).arg(&export))?;
        let fingerprint = |number| -> Result<Value, Problem> {
            process::json(lab.hsm(number)?.args(["domain", "fingerprint", "-domain", DOMAIN, "--json"]))
        };
        if fingerprint(1)? != fingerprint(number)? {
            return Err(Problem(format!("the domains of hsm1 and hsm{number} differ after the transfer")));
        }
    }
    fs::remove_dir_all(&transfer).map_err(|error| Problem::at(&transfer, &error))
}

/// The client's certificate on every appliance, every appliance's certificate at the client.
fn exchange_certificates(lab: &Lab, say: &dyn Fn(&str)) -> Result<(), Problem> {
    make_folder(&lab.configuration())?;
    say("client: vtl createCert");
    process::run(lab.vtl().args(["createCert", "-n", CLIENT]))?;
    let certificate = lab.configuration().join("cert/client").join(format!("{CLIENT}.pem"));
    for member in lab.members() {
        say(&format!("hsm{}: registering the client; client: vtl addServer", member.number));
        let mut register = lab.hsm(member.number)?;
        process::run(register.args(["client", "register", "-client", CLIENT, "-cert"]).arg(&certificate))?;
        let serial = member.serial.to_string();
        let mut assign = lab.hsm(member.number)?;
        process::run(assign.args(["client", "assignPartition", "-client", CLIENT, "-partition", &serial]))?;
        let (address, port) = (member.address.to_string(), member.client_port().to_string());
        let mut add = lab.vtl();
        process::run(add.args(["addServer", "-n", &address, "-p", &port, "-c"]).arg(member.certificate()))?;
    }
    Ok(())
}

fn make_group(lab: &Lab, say: &dyn Fn(&str)) -> Result<(), Problem> {
    for member in lab.members() {
        let serial = member.serial.to_string();
        let mut command: Command = lab.vtl();
        if member.number == 1 {
            say("client: vtl haAdmin newGroup");
            command.args(["haAdmin", "newGroup", "-serialNum", &serial, "-label", LABEL]);
        } else {
            say(&format!("client: vtl haAdmin addMember (hsm{})", member.number));
            command.args(["haAdmin", "addMember", "-group", LABEL, "-serialNum", &serial]);
        }
        process::run(&mut command)?;
    }
    Ok(())
}

/// Chooses folder, address and ports of an appliance.
fn place(dir: &Path, number: usize, proxy: bool, say: &dyn Fn(&str)) -> Result<Member, Problem> {
    let last = u8::try_from(number)
        .map_err(|_| Problem(format!("wanted at most 255 appliances, found {number}")))?;
    let address = Ipv4Addr::new(127, 0, 0, last);
    check_socket(dir, number)?;
    let port = free_port(dir, address, PORT)?;
    if port != PORT {
        say(&format!("hsm{number}: {address}:{PORT} is taken; using port {port}"));
    }
    // Clients use the front one: the one that a lab without proxies would have taken.
    let (front, port) = match proxy {
        true => (Some(port), free_port(dir, address, port.saturating_add(1))?),
        false => (None, port),
    };
    let dir = dir.join(format!("hsm{number}"));
    Ok(Member { number, dir, address, port, front, namespace: None, serial: 0 })
}

/// The place of an appliance that has a network of its own.
fn place_apart(dir: &Path, number: usize, block: u8) -> Result<Member, Problem> {
    check_socket(dir, number)?;
    let last = u8::try_from(number).ok().filter(|number| *number < 64);
    let last = last.ok_or_else(|| Problem(format!("wanted at most 63 appliances, found {number}")))?;
    let (address, _) = spaces::addresses(block, last);
    let (dir, namespace) = (dir.join(format!("hsm{number}")), Some(spaces::name(block, number)));
    Ok(Member { number, dir, address, port: PORT, front: None, namespace, serial: 0 })
}

/// Whether the appliance's folder is short enough for its Unix socket.
fn check_socket(dir: &Path, number: usize) -> Result<(), Problem> {
    let socket = dir.join(format!("hsm{number}/data/admin.sock"));
    if socket.as_os_str().len() > SOCKET_BYTES_MAX {
        return Err(Problem(format!(
            "wanted a folder short enough for the Unix socket {} ({SOCKET_BYTES_MAX} bytes); choose another --dir",
            socket.display()
        )));
    }
    Ok(())
}

/// Reserves the first free port from this one on.
fn free_port(dir: &Path, address: Ipv4Addr, first: u16) -> Result<u16, Problem> {
    for port in first..first.saturating_add(PORTS) {
        if TcpListener::bind((address, port)).is_ok() && reservation::reserve(address, port, dir)? {
            return Ok(port);
        }
    }
    Err(Problem(format!(
        "wanted a free port from {first} on {address}, found {PORTS} taken; take old labs down"
    )))
}

/// Makes a folder that only its owner may enter.
pub(crate) fn make_folder(path: &Path) -> Result<(), Problem> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Problem::at(path, &error))
}

fn serial(shown: &Value) -> Result<u64, Problem> {
    shown["serial"]
        .as_u64()
        .ok_or_else(|| Problem(format!("wanted a serial number of the partition, found {shown}")))
}

/// Twelve random digits and letters.
fn pin() -> Result<String, Problem> {
    use std::io::Read as _;
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut chance = [0; 12];
    let source = Path::new("/dev/urandom");
    fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut chance))
        .map_err(|error| Problem::at(source, &error))?;
    // 32 letters: five bits of each byte, all equally likely.
    Ok(chance.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_long_and_differ() {
        let (one, two) = (pin().unwrap(), pin().unwrap());
        assert_eq!(one.len(), 12);
        assert_ne!(one, two);
    }

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one_and_said() {
        let said = std::cell::RefCell::new(Vec::new());
        let say = |text: &str| said.borrow_mut().push(text.to_owned());
        // The address is of nobody else's lab: labs have 9 members at most.
        let _taken = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 99), PORT)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let member = place(dir.path(), 99, false, &say).unwrap();
        reservation::release(dir.path());
        assert_ne!(member.port, PORT);
        assert!(said.borrow()[0].contains("127.0.0.99:1792"), "{said:?}");
    }

    #[test]
    fn a_folder_too_deep_for_a_socket_is_refused() {
        let deep = Path::new("/tmp").join("x".repeat(120));
        assert!(place(&deep, 98, false, &|_| ()).unwrap_err().0.contains("choose another --dir"));
    }
}
