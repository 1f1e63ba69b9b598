//! `addServer`: adds an appliance to the configuration and its certificate to the trusted ones.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use client::conf::document::indexed_key;
use client::conf::options::{SERVER_CA, SERVER_NAME, SERVER_PORT};
use client::conf::write::replace;
use client::conf::{Configuration, Server};
use ntls::certificate::Certificate;
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::arguments::AddServer;
use crate::census::address;
use crate::place::{Place, make_folder};

/// Largest file of certificates that is read.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Mode of the file of trusted certificates.
const CA_MODE: u32 = 0o644;

/// Appends the certificate to `ServerCAFile` unless it is there, then `ServerNameNN` and `ServerPortNN`; a server that
/// is in the configuration already keeps its number.
pub(crate) fn run(place: &Place, add: &AddServer) -> Result<Answer, Failure> {
    let server = Server { index: 0, name: checked(&add.n)?.to_owned(), port: add.p };
    let pem = read(&add.c)?.ok_or_else(|| {
        Failure::new(
            format!("a certificate in {}", add.c.display()),
            "no such file",
            "copy the server.pem of the appliance",
        )
    })?;
    let origin = add.c.display().to_string();
    let certificates = blocks(&pem, &origin).map_err(|error| {
        Failure(format!("{error}; copy the server.pem of the appliance, or the certificate of its authority"))
    })?;
    let mut file = place.editable()?;
    let configuration = Configuration::from_document(&file.document, &place.file())?;
    let known = configuration.servers.iter().any(|one| one.name == server.name && one.port == server.port);
    if !known {
        let index =
            file.document.next_index(SERVER_NAME.section, &[SERVER_NAME.key, SERVER_PORT.key, "ServerHtlNN"]);
        let index = index.ok_or_else(|| {
            Failure::new(
                "a free number for the server",
                "100 servers in the configuration",
                "remove one that is not used",
            )
        })?;
        let section = SERVER_NAME.section;
        file.document.set(section, &indexed_key(SERVER_NAME.key, index), &server.name)?;
        file.document.set(section, &indexed_key(SERVER_PORT.key, index), &server.port.to_string())?;
        file.document.set(section, &indexed_key("ServerHtlNN", index), "0")?;
    }
    let trusted = trusted_file(place, &mut file.document, &configuration)?;
    let added = trust(&trusted, &certificates)?;
    file.save()?;
    let (name, file_name) = (address(&server), trusted.display());
    let mut text = match known {
        true => format!("Server {name} is in the configuration already.\n"),
        false => format!("New server {name} successfully added to server list.\n"),
    };
    for (certificate, _) in &certificates {
        let what = if added.contains(certificate) { "added to" } else { "already in" };
        text.push_str(&format!("Certificate {} {what} {file_name}\n", certificate.fingerprint_text()));
    }
    let document = json!({
        "server": server.name, "port": server.port, "added": !known, "trusted": trusted,
        "certificates_added": added.iter().map(Certificate::fingerprint_text).collect::<Vec<_>>(),
    });
    Ok(Answer::new(text, document))
}

fn checked(name: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if (1..=253).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-') {
        return Ok(name);
    }
    Err(Failure::new(
        "a host name or an IP address",
        format!("{name:?}"),
        "give the appliance's name after -n",
    ))
}

/// The file of trusted certificates; the configuration names it afterwards, for other readers of the file.
fn trusted_file(
    place: &Place,
    document: &mut client::conf::Document,
    configuration: &Configuration,
) -> Result<PathBuf, Failure> {
    let given = document.value(SERVER_CA.section, SERVER_CA.key).is_some_and(|value| !value.is_empty());
    if given {
        return Ok(configuration.server_ca.clone());
    }
    let path = place.join(SERVER_CA.default);
    let text = path.to_str().ok_or_else(|| {
        Failure::new(
            "a folder whose name is UTF-8",
            path.display(),
            "choose another folder for the configuration",
        )
    })?;
    document.set(SERVER_CA.section, SERVER_CA.key, text)?;
    Ok(path)
}

/// Every certificate of a PEM text with its own block.
fn blocks(pem: &[u8], origin: &str) -> Result<Vec<(Certificate, String)>, Failure> {
    const END: &str = "-----END CERTIFICATE-----";
    let all = Certificate::all_from_pem(pem, origin).map_err(|error| Failure(error.0))?;
    let text = String::from_utf8_lossy(pem);
    let blocks: Vec<String> = text
        .split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(|block| block.split_once(END))
        .map(|(body, _)| format!("-----BEGIN CERTIFICATE-----{body}{END}\n"))
        .collect();
    if blocks.len() != all.len() {
        let found = format!("{} that can be read and {} of another form", all.len(), blocks.len());
        return Err(Failure(format!("{origin}: wanted certificates in PEM, found {found}")));
    }
    Ok(all.into_iter().zip(blocks).collect())
}

/// Appends what is not there yet and gives it.
fn trust(file: &Path, certificates: &[(Certificate, String)]) -> Result<Vec<Certificate>, Failure> {
    let mut text = read(file)?.unwrap_or_default();
    let there = match text.iter().all(u8::is_ascii_whitespace) {
        true => Vec::new(),
        false => Certificate::all_from_pem(&text, &file.display().to_string())
            .map_err(|error| Failure(format!("{}; repair or remove the file", error.0)))?,
    };
    let mut added: Vec<Certificate> = Vec::new();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    for (certificate, block) in certificates {
        if !there.contains(certificate) && !added.contains(certificate) {
            added.push(certificate.clone());
            text.extend(block.as_bytes());
        }
    }
    if added.is_empty() {
        return Ok(added);
    }
    make_folder(file.parent().unwrap_or(Path::new("")))?;
    replace(file, &text, CA_MODE)?;
    Ok(added)
}

/// The bytes of a file, None when there is none.
fn read(file: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |found: String| {
        Failure::new(format!("to read {}", file.display()), found, "name a readable PEM file")
    };
    let opened = match fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut bytes = Vec::new();
    opened.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= PEM_BYTES_MAX => Ok(Some(bytes)),
        _ => Err(failed(format!("more than {PEM_BYTES_MAX} bytes"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use ntls::certificate::{Wanted, self_signed};

    use super::*;
    use crate::testing::Folder;

    fn certificate(folder: &Folder, name: &str) -> PathBuf {
        let wanted = Wanted { name, hosts: &[], now_ms: 1_800_000_000_000, days: 1 };
        let path = folder.place().join(&format!("{name}.pem"));
        fs::write(&path, self_signed(&wanted).unwrap().certificate_pem).unwrap();
        path
    }

    fn add(folder: &Folder, host: &str, pem: &Path, port: u16) -> Result<Answer, Failure> {
        run(&folder.place(), &AddServer { n: host.to_owned(), c: pem.to_path_buf(), p: port })
    }

    fn trusted(folder: &Folder) -> Vec<String> {
        let file = folder.configuration().server_ca;
        let all = Certificate::all_from_pem(&fs::read(file).unwrap(), "x").unwrap();
        all.iter().map(|certificate| certificate.name().to_owned()).collect()
    }

    #[test]
    fn servers_get_the_next_number_and_their_certificates_are_trusted() {
        let folder = Folder::new(1);
        let (a, b) = (certificate(&folder, "a"), certificate(&folder, "b"));
        add(&folder, "hsm-a", &a, 1792).unwrap();
        let answer = add(&folder, "127.0.0.2", &b, 1793).unwrap();
        assert!(answer.text.starts_with("New server 127.0.0.2:1793 successfully added to server list.\n"));
        let servers = folder.configuration().servers;
        let seen: Vec<_> = servers.iter().map(|one| (one.index, one.name.as_str(), one.port)).collect();
        assert_eq!(seen, [(0, "hsm0", 1792), (1, "hsm-a", 1792), (2, "127.0.0.2", 1793)]);
        assert_eq!(trusted(&folder), ["a", "b"]);
        assert_eq!(folder.configuration().server_ca, folder.place().join("cert/server/CAFile.pem"));
        assert!(folder.text().contains("   ServerHtl02 = 0;\n"), "{}", folder.text());
    }

    #[test]
    fn a_server_added_again_with_a_new_certificate_keeps_its_entry_and_both_are_trusted() {
        let folder = Folder::new(0);
        let (old, new) = (certificate(&folder, "old"), certificate(&folder, "new"));
        add(&folder, "hsm-a", &old, 1792).unwrap();
        let text = folder.text();
        assert_eq!(add(&folder, "hsm-a", &new, 1792).unwrap().document["added"], false);
        add(&folder, "hsm-a", &new, 1792).unwrap();
        assert_eq!((folder.text(), trusted(&folder)), (text, vec!["old".to_owned(), "new".to_owned()]));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_and_nothing_changes() {
        let folder = Folder::new(1);
        let before = folder.text();
        let pem = folder.place().join("server.pem");
        let failure = add(&folder, "hsm-a", &pem, 1792).unwrap_err();
        assert!(failure.0.contains("found no such file; copy the server.pem"), "{failure}");
        fs::write(&pem, "hello").unwrap();
        let failure = add(&folder, "hsm-a", &pem, 1792).unwrap_err();
        assert!(failure.0.contains("server.pem: wanted at least one certificate"), "{failure}");
        assert_eq!(folder.text(), before);
        assert!(!folder.place().join("cert").exists());
    }

    #[test]
    fn a_name_that_is_no_host_is_refused() {
        let folder = Folder::new(1);
        let pem = certificate(&folder, "a");
        for name in ["", "a b", "a;b", "-n", "a/b"] {
            assert!(add(&folder, name, &pem, 1).unwrap_err().0.contains("wanted a host name"), "{name}");
        }
    }
}
