//! `fingerprint` and `examineCert`: what certificates say.

use std::fmt::Write;
use std::path::PathBuf;

use ntls::certificate::Certificate;
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::arguments::CertificateFile;
use crate::expiry;
use crate::pem;
use crate::place::Place;

/// A file with what it is to this client.
struct Source {
    what: &'static str,
    file: PathBuf,
    certificates: Vec<Certificate>,
}

/// One line for each certificate.
pub(crate) fn fingerprint(place: &Place, given: &CertificateFile) -> Result<Answer, Failure> {
    let mut text = String::new();
    let sources = sources(place, given)?;
    for source in &sources {
        for certificate in &source.certificates {
            let name = certificate.name();
            let _ = writeln!(text, "{} {name}: SHA-256 {}", source.what, certificate.fingerprint_text());
        }
    }
    Ok(Answer::new(text, json!({ "certificates": documents(&sources) })))
}

/// Everything that a certificate says; `now_ms` is the wall clock.
pub(crate) fn examine(place: &Place, given: &CertificateFile, now_ms: u64) -> Result<Answer, Failure> {
    let mut text = String::new();
    let sources = sources(place, given)?;
    for source in &sources {
        for certificate in &source.certificates {
            let hosts = certificate.hosts().join(", ");
            let _ = writeln!(text, "{} ({})", source.what, source.file.display());
            for (name, value) in [
                ("Name", certificate.name().to_owned()),
                ("Issuer", certificate.issuer().to_owned()),
                ("Serial number", certificate.serial_number().to_owned()),
                ("Hosts", if hosts.is_empty() { "<none>".to_owned() } else { hosts }),
                ("Not before", certificate.not_before_text()),
                ("Not after", certificate.not_after_text()),
                ("State", expiry::standing(certificate, now_ms)),
                ("Authority", if certificate.is_authority() { "yes" } else { "no" }.to_owned()),
                ("SHA-256", certificate.fingerprint_text()),
            ] {
                let _ = writeln!(text, "    {:<15}{value}", format!("{name}:"));
            }
        }
    }
    Ok(Answer::new(text, json!({ "certificates": documents(&sources) })))
}

/// The file that was named, else the client's certificate and the trusted ones.
fn sources(place: &Place, given: &CertificateFile) -> Result<Vec<Source>, Failure> {
    if let Some(file) = &given.f {
        let certificates = pem::certificates(file)?;
        return Ok(vec![Source { what: "Certificate", file: file.clone(), certificates }]);
    }
    let configuration = place.configuration()?;
    let mut sources = Vec::new();
    if let Some(file) = configuration.client_certificate {
        sources.push(Source { what: "Client", certificates: pem::certificates(&file)?, file });
    }
    let trusted = pem::blocks_of(&configuration.server_ca)?;
    let certificates = trusted.into_iter().map(|block| block.certificate).collect();
    sources.push(Source { what: "Trusted", file: configuration.server_ca, certificates });
    if sources.iter().all(|source| source.certificates.is_empty()) {
        let wanted = format!("certificates in {}", configuration.file.display());
        return Err(Failure::new(wanted, "none", "name a file with -f, or make one with vtl createCert"));
    }
    Ok(sources)
}

fn documents(sources: &[Source]) -> Vec<Value> {
    let document = |source: &Source, certificate: &Certificate| {
        json!({
            "of": source.what.to_lowercase(), "file": source.file, "name": certificate.name(),
            "issuer": certificate.issuer(), "serial_number": certificate.serial_number(),
            "hosts": certificate.hosts(), "not_before": certificate.not_before_text(),
            "not_after": certificate.not_after_text(), "ends_ms": expiry::ends_ms(certificate),
            "authority": certificate.is_authority(), "fingerprint_sha256": certificate.fingerprint_text(),
        })
    };
    let of_source =
        |source: &Source| source.certificates.iter().map(|one| document(source, one)).collect::<Vec<_>>();
    sources.iter().flat_map(of_source).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::arguments::{AddServer, CreateCert};
    use crate::testing::{Folder, NOW_MS};
    use crate::verbs::{add_server, create_cert};

    #[test]
    fn own_and_trusted_certificates_are_shown_without_a_file() {
        let folder = Folder::new(0);
        let none = fingerprint(&folder.place(), &CertificateFile { f: None }).unwrap_err();
        assert!(none.0.contains("name a file with -f"), "{none}");
        let add = AddServer { n: "hsm-a".to_owned(), c: folder.certificate("a"), p: 1792 };
        add_server::run(&folder.place(), &add).unwrap();
        create_cert::run(&folder.place(), &CreateCert { n: "app".to_owned(), days: None }).unwrap();
        let answer = fingerprint(&folder.place(), &CertificateFile { f: None }).unwrap();
        let lines: Vec<&str> = answer.text.lines().collect();
        assert!(lines[0].starts_with("Client app: SHA-256 ") && lines[1].starts_with("Trusted a: SHA-256 "));
        assert_eq!(answer.document["certificates"][1]["of"], "trusted");
    }

    #[test]
    fn a_certificate_is_examined() {
        let folder = Folder::new(0);
        let file = folder.certificate("server-1");
        let answer = examine(&folder.place(), &CertificateFile { f: Some(file.clone()) }, NOW_MS).unwrap();
        for part in ["Name:          server-1", "Issuer:        CN=server-1", "State:         valid"] {
            assert!(answer.text.contains(part), "{part} in {}", answer.text);
        }
        let late = NOW_MS + 101 * 86_400_000;
        let answer = examine(&folder.place(), &CertificateFile { f: Some(file) }, late).unwrap();
        assert!(answer.text.contains("State:         expired"), "{}", answer.text);
        let absent = CertificateFile { f: Some(folder.place().join("absent.pem")) };
        assert!(examine(&folder.place(), &absent, 0).unwrap_err().0.contains("no such file"));
    }
}
