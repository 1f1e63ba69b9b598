//! `hsm`, the operator's tool: reads a verb, asks `hsmd` on its Unix socket, shows the answer.
mod arguments;
mod connection;
mod normalise;
mod pins;
mod show;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches};
use serde_json::Value;

use crate::admin::protocol::{DomainFile, Verb};
use crate::data_dir::write_new;
use arguments::{Arguments, Client, Domain, Group, Ntls, Partition, Peer, Sysconf};

/// How the tool ends, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Not done: the appliance or this host refused.
    Failure = 1,
    /// The command line or a PIN prompt was not understood; nothing was asked.
    Usage = 2,
}

/// What is asked, and what becomes of the answer.
struct Task {
    verb: Verb,
    /// Where the text of a file in the answer goes.
    out: Option<std::path::PathBuf>,
}

/// Runs the tool on a command line (without the program's name) and answers its exit code.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Exit {
    let command = Arguments::command();
    let words = normalise::normalise(&command, words);
    let matches = match command.try_get_matches_from(std::iter::once("hsm".into()).chain(words)) {
        Ok(matches) => matches,
        Err(error) => {
            let shown = error.exit_code() == 0;
            // Nothing is left to say when standard output is closed.
            let _ = error.print();
            return if shown { Exit::Success } else { Exit::Usage };
        }
    };
    let arguments = Arguments::from_arg_matches(&matches).expect("matches of this very command");
    let json = arguments.json;
    let socket = arguments.socket();
    let outcome = match task(arguments.group) {
        Ok(task) => carry_out(&socket, &task).map_err(|text| (Exit::Failure, text)),
        Err((exit, text)) => Err((exit, text)),
    };
    match outcome {
        Ok((verb, value)) => {
            if json {
                println!("{value:#}");
            } else {
                print!("{}", show::answer(verb, value));
                println!("\nCommand Result : 0 (Success)");
            }
            Exit::Success
        }
        Err((exit, text)) => {
            if json {
                println!("{:#}", serde_json::json!({ "error": text }));
            } else {
                eprintln!("hsm: {text}");
                println!("\nCommand Result : {} (Failure)", exit as i32);
            }
            exit
        }
    }
}

/// Asks the server and writes the file, if the answer holds one.
fn carry_out(socket: &Path, task: &Task) -> Result<(show::Kind, Value), String> {
    let kind = show::kind(&task.verb);
    let mut value = connection::ask(socket, &task.verb)?;
    if let Some(out) = &task.out {
        let file: DomainFile = serde_json::from_value(value.clone()).map_err(|_| {
            "wanted a file in the answer, found none; are hsm and hsmd of one release?".to_owned()
        })?;
        write_new(out, file.text.as_bytes(), 0o600).map_err(|error| error.to_string())?;
        if let Some(object) = value.as_object_mut() {
            object.remove("text");
            object.insert("file".into(), Value::String(out.display().to_string()));
        }
    }
    Ok((kind, value))
}

fn task(group: Group) -> Result<Task, (Exit, String)> {
    let mut out_file = None;
    let verb = match group {
        Group::Init { label, domain, no_domain } => {
            Verb::Init { label, domain: (!no_domain).then_some(domain) }
        }
        Group::Show => Verb::Show,
        Group::Domain(Domain::ExportRequest { domain, out }) => {
            out_file = Some(absent(out)?);
            Verb::DomainExportRequest { domain }
        }
        Group::Domain(Domain::Export { domain, request, out, fingerprint }) => {
            out_file = Some(absent(out)?);
            Verb::DomainExport { domain, request: text_of(&request)?, fingerprint }
        }
        Group::Domain(Domain::Import { file }) => Verb::DomainImport { export: text_of(&file)? },
        Group::Domain(Domain::Fingerprint { domain }) => Verb::DomainFingerprint { domain },
        Group::Partition(Partition::Create { partition, domain, so_pin, co_pin }) => {
            let so_pin = pins::pin(so_pin, "HSM_SO_PIN", "PIN of the security officer")
                .map_err(|text| (Exit::Usage, text))?;
            let co_pin = pins::pin(co_pin, "HSM_CO_PIN", "PIN of the Crypto Officer")
                .map_err(|text| (Exit::Usage, text))?;
            Verb::PartitionCreate { partition, domain, so_pin, co_pin }
        }
        Group::Partition(Partition::List) => Verb::PartitionList,
        Group::Partition(Partition::Show { partition }) => Verb::PartitionShow { partition },
        Group::Partition(Partition::Adopt { partition }) => Verb::PartitionAdopt { partition },
        Group::Client(client) => client_verb(client)?,
        Group::Ntls(Ntls::Show) => Verb::NtlsShow,
        Group::Sysconf(Sysconf::Show) => Verb::SysconfShow,
        Group::Sysconf(Sysconf::RegenCert { csr: true, .. }) => Verb::SysconfRequestCert,
        Group::Sysconf(Sysconf::RegenCert { days, activate, csr: false }) => {
            Verb::SysconfRegenCert { days, activate }
        }
        Group::Sysconf(Sysconf::ActivateCert { cert }) => {
            Verb::SysconfActivateCert { certificate: cert.map(|cert| text_of(&cert)).transpose()? }
        }
        Group::Peer(Peer::Add { name, host, port, certificate, domain }) => {
            Verb::PeerAdd { peer: name, host, port, certificate: text_of(&certificate)?, domain }
        }
        Group::Peer(Peer::List) => Verb::PeerList,
        Group::Peer(Peer::Remove { name, fingerprint }) => Verb::PeerRemove { peer: name, fingerprint },
    };
    Ok(Task { verb, out: out_file })
}

fn client_verb(client: Client) -> Result<Verb, (Exit, String)> {
    Ok(match client {
        Client::Register { client, cert, ca, identity } => Verb::ClientRegister {
            client,
            certificate: cert.map(|cert| text_of(&cert)).transpose()?,
            authority: ca.map(|ca| text_of(&ca)).transpose()?,
            identity,
        },
        Client::AddCertificate { client, cert } => {
            Verb::ClientAddCertificate { client, certificate: text_of(&cert)? }
        }
        Client::RemoveCertificate { client, fingerprint } => {
            Verb::ClientRemoveCertificate { client, fingerprint }
        }
        Client::List => Verb::ClientList,
        Client::AssignPartition { client, partition } => Verb::ClientAssignPartition { client, partition },
    })
}

fn text_of(path: &Path) -> Result<String, (Exit, String)> {
    fs::read_to_string(path).map_err(|error| {
        (Exit::Failure, format!("{}: wanted a readable text file, found: {error}", path.display()))
    })
}

/// A path where a file may be made: checked before anything is asked, for an export uses nothing up but attention.
fn absent(path: std::path::PathBuf) -> Result<std::path::PathBuf, (Exit, String)> {
    if !path.exists() {
        return Ok(path);
    }
    Err((
        Exit::Failure,
        format!("{}: wanted a new file, found one there; remove it or choose another", path.display()),
    ))
}
