//! `createCert`: makes the client's key and certificate and names them in the configuration.

use std::fmt::Write;
use std::path::Path;

use client::conf::options::{CLIENT_CERTIFICATE, CLIENT_PRIVATE_KEY};
use client::conf::write::replace;
use ntls::certificate::{Certificate, DAYS, Wanted, self_signed};
use ntls::platform::System;
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::arguments::CreateCert;
use crate::place::{Place, make_folder};

/// Mode of the private key's file: its owner alone.
const KEY_MODE: u32 = 0o600;
/// Mode of the certificate's file.
const CERTIFICATE_MODE: u32 = 0o644;
/// Longest name: the bound of a common name in X.509.
const NAME_BYTES_MAX: usize = 64;

/// Writes `cert/client/<name>Key.pem` and `cert/client/<name>.pem` beside the configuration, then names both there.
/// Files that exist are left alone: appliances know the client by that very certificate.
pub(crate) fn run(place: &Place, create: &CreateCert) -> Result<Answer, Failure> {
    let name = checked(&create.n)?;
    let mut file = place.editable()?;
    let folder = place.join("cert/client");
    let (key, certificate) = (folder.join(format!("{name}Key.pem")), folder.join(format!("{name}.pem")));
    for path in [&key, &certificate] {
        if path.exists() {
            let action =
                "choose another name, or move the file away and register the new certificate everywhere";
            return Err(Failure::new(format!("no file {}", path.display()), "one", action));
        }
    }
    file.document.set(CLIENT_PRIVATE_KEY.section, CLIENT_PRIVATE_KEY.key, text(&key)?)?;
    file.document.set(CLIENT_CERTIFICATE.section, CLIENT_CERTIFICATE.key, text(&certificate)?)?;
    let wanted = Wanted { name, hosts: &[], now_ms: System::shared().wall_ms(), days: DAYS };
    let created = self_signed(&wanted).map_err(|error| Failure(error.0))?;
    make_folder(&folder)?;
    replace(&key, created.key_pem.as_bytes(), KEY_MODE)?;
    replace(&certificate, created.certificate_pem.as_bytes(), CERTIFICATE_MODE)?;
    file.save()?;
    let origin = certificate.display().to_string();
    let made = Certificate::all_from_pem(created.certificate_pem.as_bytes(), &origin)
        .map_err(|error| Failure(error.0))?;
    let fingerprint = made.first().map(Certificate::fingerprint_text).unwrap_or_default();
    let mut text = String::new();
    let _ = writeln!(text, "Private Key created and written to: {}", key.display());
    let _ = writeln!(text, "Certificate created and written to: {}", certificate.display());
    let _ = writeln!(text, "SHA-256 fingerprint: {fingerprint}");
    let _ =
        writeln!(text, "Register it on every appliance: hsm client register -client {name} -cert {name}.pem");
    let document = json!({
        "name": name, "private_key": key, "certificate": certificate, "fingerprint_sha256": fingerprint,
        "configuration": place.file(),
    });
    Ok(Answer::new(text, document))
}

/// The name becomes part of file names and of a common name.
fn checked(name: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with(['.', '-']);
    if fits {
        return Ok(name);
    }
    let wanted =
        "a name of 1 to 64 letters, digits, dots, dashes and underscores that begins with none of . and -";
    Err(Failure::new(wanted, format!("{name:?}"), "choose another name"))
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| {
        Failure::new(
            "a folder whose name is UTF-8",
            path.display(),
            "choose another folder for the configuration",
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ntls::certificate::Identity;

    use super::*;
    use crate::testing::Folder;

    fn create(folder: &Folder, name: &str) -> Result<Answer, Failure> {
        run(&folder.place(), &CreateCert { n: name.to_owned() })
    }

    #[test]
    fn key_and_certificate_belong_together_and_stand_in_the_configuration() {
        let folder = Folder::new(1);
        let answer = create(&folder, "app01").unwrap();
        let configuration = folder.configuration();
        let (key, certificate) =
            (configuration.client_private_key.unwrap(), configuration.client_certificate.unwrap());
        assert_eq!(key, folder.place().join("cert/client/app01Key.pem"));
        let identity = Identity::load(&certificate, &key).unwrap();
        assert_eq!(identity.certificate().name(), "app01");
        assert_eq!(answer.document["fingerprint_sha256"], identity.certificate().fingerprint_text());
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&certificate).unwrap().permissions().mode() & 0o7777, 0o644);
        assert!(!answer.text.contains("BEGIN") && folder.text().starts_with("# kept\n"));
    }

    #[test]
    fn a_configuration_is_made_where_there_is_none() {
        let folder = Folder::new(0);
        fs::remove_file(folder.place().file()).unwrap();
        create(&folder, "app").unwrap();
        assert!(
            folder.text().starts_with("LunaSA Client = {\n   ClientPrivKeyFile = /"),
            "{}",
            folder.text()
        );
    }

    #[test]
    fn a_certificate_that_exists_is_left_alone() {
        let folder = Folder::new(1);
        create(&folder, "app").unwrap();
        let path = folder.place().join("cert/client/app.pem");
        let before = fs::read(&path).unwrap();
        let failure = create(&folder, "app").unwrap_err();
        assert!(
            failure.0.contains("wanted no file") && failure.0.contains("choose another name"),
            "{failure}"
        );
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        let folder = Folder::new(1);
        for name in ["", "../x", "a/b", ".x", "-x", "a b", "a;b", &"x".repeat(65)] {
            let failure = create(&folder, name).unwrap_err();
            assert!(failure.0.contains("choose another name"), "{name}: {failure}");
        }
        assert!(!folder.place().join("cert").exists());
    }
}
