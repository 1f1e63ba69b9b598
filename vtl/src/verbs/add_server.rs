//! `addServer`: adds an appliance to the configuration and its certificate to the trusted ones.

use std::path::Path;

use client::conf::document::indexed_key;
use client::conf::options::{SERVER_NAME, SERVER_PORT};
use client::conf::{Configuration, Server};
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::arguments::AddServer;
use crate::census::address;
use crate::pem::{self, Block};
use crate::place::Place;
use crate::trusted;

/// The key of a server that the vendor's tools write beside name and port.
pub(crate) const HTL: &str = "ServerHtlNN";

/// Appends the certificate to `ServerCAFile` unless it is there, then `ServerNameNN` and `ServerPortNN`; a server that
/// is in the configuration already keeps its number.
pub(crate) fn run(place: &Place, add: &AddServer) -> Result<Answer, Failure> {
    let server = Server { index: 0, name: checked(&add.n)?.to_owned(), port: add.p };
    let blocks = given(&add.c)?;
    let mut file = place.editable()?;
    let configuration = Configuration::from_document(&file.document, &place.file())?;
    let known = configuration.servers.iter().any(|one| one.name == server.name && one.port == server.port);
    if !known {
        let index = file.document.next_index(SERVER_NAME.section, &[SERVER_NAME.key, SERVER_PORT.key, HTL]);
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
        file.document.set(section, &indexed_key(HTL, index), "0")?;
    }
    let trusted = trusted::file(place, &mut file.document, &configuration)?;
    let added = trusted::add(place, &trusted, &server, &blocks)?;
    file.save()?;
    let name = address(&server);
    let mut text = match known {
        true => format!("Server {name} is in the configuration already.\n"),
        false => format!("New server {name} successfully added to server list.\n"),
    };
    for block in &blocks {
        let fingerprint = block.certificate.fingerprint_text();
        let what = if added.contains(&fingerprint) { "added to" } else { "already in" };
        text.push_str(&format!("Certificate {fingerprint} {what} {}\n", trusted.display()));
    }
    let document = json!({
        "server": server.name, "port": server.port, "added": !known, "trusted": trusted,
        "certificates_added": added,
    });
    Ok(Answer::new(text, document))
}

/// The certificates in a file that the operator names for an appliance.
pub(crate) fn given(file: &Path) -> Result<Vec<Block>, Failure> {
    let pem = pem::read(file)?.ok_or_else(|| {
        Failure::new(
            format!("a certificate in {}", file.display()),
            "no such file",
            "copy the server.pem of the appliance",
        )
    })?;
    pem::blocks(&pem, &file.display().to_string()).map_err(|error| {
        Failure(format!("{error}; copy the server.pem of the appliance, or the certificate of its authority"))
    })
}

/// A name that can be an appliance's.
pub(crate) fn checked(name: &str) -> Result<&str, Failure> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::Folder;

    fn add(folder: &Folder, host: &str, pem: &Path, port: u16) -> Result<Answer, Failure> {
        run(&folder.place(), &AddServer { n: host.to_owned(), c: pem.to_path_buf(), p: port })
    }

    #[test]
    fn servers_get_the_next_number_and_their_certificates_are_trusted() {
        let folder = Folder::new(1);
        let (a, b) = (folder.certificate("a"), folder.certificate("b"));
        add(&folder, "hsm-a", &a, 1792).unwrap();
        let answer = add(&folder, "127.0.0.2", &b, 1793).unwrap();
        assert!(answer.text.starts_with("New server 127.0.0.2:1793 successfully added to server list.\n"));
        let servers = folder.configuration().servers;
        let seen: Vec<_> = servers.iter().map(|one| (one.index, one.name.as_str(), one.port)).collect();
        assert_eq!(seen, [(0, "hsm0", 1792), (1, "hsm-a", 1792), (2, "127.0.0.2", 1793)]);
        assert_eq!(folder.trusted(), ["a", "b"]);
        assert_eq!(folder.configuration().server_ca, folder.place().join("cert/server/CAFile.pem"));
        assert!(folder.text().contains("   ServerHtl02 = 0;\n"), "{}", folder.text());
    }

    #[test]
    fn a_server_added_again_with_a_new_certificate_keeps_its_entry_and_both_are_trusted() {
        let folder = Folder::new(0);
        let (old, new) = (folder.certificate("old"), folder.certificate("new"));
        add(&folder, "hsm-a", &old, 1792).unwrap();
        let text = folder.text();
        assert_eq!(add(&folder, "hsm-a", &new, 1792).unwrap().document["added"], false);
        add(&folder, "hsm-a", &new, 1792).unwrap();
        assert_eq!((folder.text(), folder.trusted()), (text, vec!["old".to_owned(), "new".to_owned()]));
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
        let pem = folder.certificate("a");
        for name in ["", "a b", "a;b", "-n", "a/b"] {
            assert!(add(&folder, name, &pem, 1).unwrap_err().0.contains("wanted a host name"), "{name}");
        }
    }
}
