//! `createCert` and `createCSR`: make the client's key with a certificate, or with a request for one.

use std::fmt::Write;
use std::path::PathBuf;

use client::conf::options::{CLIENT_CERTIFICATE, CLIENT_PRIVATE_KEY};
use client::conf::write::replace;
use client::conf::{Configuration, Document};
use ntls::certificate::{Certificate, DAYS, Identity, Wanted, request, self_signed};
use ntls::platform::System;
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::arguments::{CreateCert, CreateCsr};
use crate::pem;
use crate::place::{self, Place, make_folder};

/// Mode of the private key's file: its owner alone.
const KEY_MODE: u32 = 0o600;
/// Longest name: the bound of a common name in X.509.
const NAME_BYTES_MAX: usize = 64;

/// Where key, certificate and request of a client's name stand.
pub(crate) struct Files {
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) request: PathBuf,
}

impl Files {
    /// Errs when the name cannot be part of a file's name or of a common name.
    pub(crate) fn of(place: &Place, name: &str) -> Result<Files, Failure> {
        let name = checked(name)?;
        let folder = place.join("cert/client");
        Ok(Files {
            key: folder.join(format!("{name}Key.pem")),
            certificate: folder.join(format!("{name}.pem")),
            request: folder.join(format!("{name}CSR.pem")),
        })
    }

    /// Names key and certificate in the configuration.
    pub(crate) fn enter(&self, document: &mut Document) -> Result<(), Failure> {
        let (key, certificate) = (place::text(&self.key)?, place::text(&self.certificate)?);
        document.set(CLIENT_PRIVATE_KEY.section, CLIENT_PRIVATE_KEY.key, key)?;
        document.set(CLIENT_CERTIFICATE.section, CLIENT_CERTIFICATE.key, certificate)?;
        Ok(())
    }

    /// Files that exist are left alone: appliances know the client by that very certificate.
    fn refuse_if_there(&self) -> Result<(), Failure> {
        for path in [&self.key, &self.certificate, &self.request] {
            if path.exists() {
                let action =
                    "choose another name, or move the file away and register the new certificate everywhere";
                return Err(Failure::new(format!("no file {}", path.display()), "one", action));
            }
        }
        make_folder(self.key.parent().unwrap_or(&self.key))
    }
}

/// Writes `cert/client/<name>Key.pem` and `cert/client/<name>.pem` beside the configuration, then names both there
/// unless a usable certificate is named already: that one stays in use until `useCert` changes over.
pub(crate) fn run(place: &Place, create: &CreateCert) -> Result<Answer, Failure> {
    let (name, files) = (create.n.as_str(), Files::of(place, &create.n)?);
    files.refuse_if_there()?;
    let mut file = place.editable()?;
    let configuration = Configuration::from_document(&file.document, &place.file())?;
    let in_use = in_use(&configuration);
    let now_ms = System::shared().wall_ms();
    let wanted = Wanted { name, hosts: &[], now_ms, days: create.days.unwrap_or(DAYS) };
    let created = self_signed(&wanted).map_err(|error| Failure(error.0))?;
    if in_use.is_none() {
        files.enter(&mut file.document)?;
    }
    replace(&files.key, created.key_pem.as_bytes(), KEY_MODE)?;
    replace(&files.certificate, created.certificate_pem.as_bytes(), pem::MODE)?;
    if in_use.is_none() {
        file.save()?;
    }
    let made = pem::certificates(&files.certificate)?;
    let fingerprint = made.first().map(Certificate::fingerprint_text).unwrap_or_default();
    let mut text = String::new();
    let _ = writeln!(text, "Private Key created and written to: {}", files.key.display());
    let _ = writeln!(text, "Certificate created and written to: {}", files.certificate.display());
    let _ = writeln!(text, "SHA-256 fingerprint: {fingerprint}");
    let _ = match &in_use {
        None => writeln!(
            text,
            "Register it on every appliance: hsm client register -client {name} -cert {name}.pem"
        ),
        Some(other) => writeln!(
            text,
            "The certificate {} stays in use. Add the new one to this client on every appliance: hsm client \
             addCertificate -client NAME -cert {name}.pem (NAME as hsm client list shows it); then: vtl useCert -n {name}",
            other.certificate().name()
        ),
    };
    let document = json!({
        "name": name, "private_key": files.key, "certificate": files.certificate, "in_use": in_use.is_none(),
        "fingerprint_sha256": fingerprint, "configuration": place.file(),
    });
    Ok(Answer::new(text, document))
}

/// Writes `cert/client/<name>Key.pem` and `cert/client/<name>CSR.pem` beside the configuration.
pub(crate) fn request_one(place: &Place, create: &CreateCsr) -> Result<Answer, Failure> {
    let (name, files) = (create.n.as_str(), Files::of(place, &create.n)?);
    files.refuse_if_there()?;
    let common_name = checked(create.common_name.as_deref().unwrap_or(name))?;
    let requested = request(common_name, &[]).map_err(|error| Failure(error.0))?;
    replace(&files.key, requested.key_pem.as_bytes(), KEY_MODE)?;
    replace(&files.request, requested.request_pem.as_bytes(), pem::MODE)?;
    let mut text = String::new();
    let _ = writeln!(text, "Private Key created and written to: {}", files.key.display());
    let _ = writeln!(text, "Certificate request created and written to: {}", files.request.display());
    let _ = writeln!(
        text,
        "Let an authority sign it, register the certificate on every appliance, then: vtl useCert -n {name} -cert FILE"
    );
    let document = json!({
        "name": name, "common_name": common_name, "private_key": files.key, "request": files.request,
    });
    Ok(Answer::new(text, document))
}

/// The certificate and key in use; `None` when there are none that can be read.
fn in_use(configuration: &Configuration) -> Option<Identity> {
    let certificate = configuration.client_certificate.as_ref()?;
    Identity::load(certificate, configuration.client_private_key.as_ref()?).ok()
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Folder;

    fn create(folder: &Folder, name: &str) -> Result<Answer, Failure> {
        run(&folder.place(), &CreateCert { n: name.to_owned(), days: None })
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
    fn a_second_certificate_is_made_beside_the_one_in_use() {
        let folder = Folder::new(1);
        assert_eq!(create(&folder, "app01").unwrap().document["in_use"], true);
        let before = folder.text();
        let answer = create(&folder, "app02").unwrap();
        assert_eq!((folder.text(), &answer.document["in_use"]), (before, &false.into()));
        assert!(answer.text.contains("The certificate app01 stays in use"), "{}", answer.text);
        let place = folder.place();
        Identity::load(&place.join("cert/client/app02.pem"), &place.join("cert/client/app02Key.pem"))
            .unwrap();
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_replaced_at_once() {
        let folder = Folder::new(1);
        create(&folder, "app01").unwrap();
        fs::remove_file(folder.place().join("cert/client/app01Key.pem")).unwrap();
        assert_eq!(create(&folder, "app02").unwrap().document["in_use"], true);
        assert!(folder.text().contains("app02Key.pem"));
    }

    #[test]
    fn a_request_is_written_with_its_key_and_the_configuration_stays() {
        let folder = Folder::new(1);
        let before = folder.text();
        let create = |name: &str, common_name: Option<&str>| {
            let create = CreateCsr { n: name.to_owned(), common_name: common_name.map(str::to_owned) };
            request_one(&folder.place(), &create)
        };
        assert_eq!(create("app", None).unwrap().document["common_name"], "app");
        let request = fs::read_to_string(folder.place().join("cert/client/appCSR.pem")).unwrap();
        assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        let key = fs::metadata(folder.place().join("cert/client/appKey.pem")).unwrap();
        assert_eq!((key.permissions().mode() & 0o7777, folder.text()), (0o600, before));
        let again = create("app", None).unwrap_err();
        assert!(again.0.contains("choose another name"), "{again}");
        // The next one of a client that its authority vouches for: other files, the same name.
        let next = create("app-next", Some("app")).unwrap();
        assert_eq!(next.document["common_name"], "app");
        assert!(folder.place().join("cert/client/app-nextCSR.pem").exists());
        assert!(
            create("x", Some("../app")).is_err() && !folder.place().join("cert/client/xKey.pem").exists()
        );
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
