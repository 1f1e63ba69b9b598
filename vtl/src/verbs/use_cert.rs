//! `useCert`: changes over to another client certificate, once the appliances accept it.
//!
//! ```text
//! createCert or createCSR -> hsm client addCertificate on every appliance -> useCert asks every appliance with both certificates
//!   -> the configuration names the new one -> running applications make their new links with it
//! ```

use std::fmt::Write;

use client::conf::write::replace;
use client::conf::{Configuration, Serial, Server};
use ntls::certificate::{Identity, Validity};
use serde_json::json;

use super::create_cert::Files;
use crate::answer::{Answer, Failure};
use crate::arguments::UseCert;
use crate::census::{Census, Network, address};
use crate::network::{self, Ntls};
use crate::pem;
use crate::place::Place;

/// Reads the new certificate, asks the appliances, changes the configuration.
pub(crate) fn run(place: &Place, switch: &UseCert) -> Result<Answer, Failure> {
    let configuration = place.configuration()?;
    let files = Files::of(place, &switch.n)?;
    let (identity, issued) = identity(&files, switch)?;
    let name = identity.certificate().name().to_owned();
    let old = match network::identity(&configuration) {
        Ok(old) => Some(Ntls::presenting(&configuration, old)?),
        Err(_) => None,
    };
    let new = Ntls::presenting(&configuration, identity)?;
    let old = old.as_ref().map(|old| old as &dyn Network);
    let objections = objections(old, &new, &configuration);
    if !objections.is_empty() && !switch.force {
        let action = "add it to this client there (hsm client addCertificate), or change over all the same with -force";
        let wanted = format!("every appliance to accept the certificate {name}");
        return Err(Failure::new(wanted, objections.join(" and "), action));
    }
    if let Some(pem) = issued {
        replace(&files.certificate, &pem, pem::MODE)?;
    }
    place.change(|_, document| files.enter(document))?;
    let mut text = String::new();
    let _ = writeln!(text, "The certificate {name} ({}) is in use.", files.certificate.display());
    let _ = writeln!(
        text,
        "Running applications make their new links with it; then the old one may go (hsm client removeCertificate)."
    );
    let document = json!({ "name": name, "certificate": files.certificate, "private_key": files.key });
    Ok(Answer { complaints: objections, ..Answer::new(text, document) })
}

/// The new certificate with its key, and its text when it is not in its place yet.
fn identity(files: &Files, switch: &UseCert) -> Result<(Identity, Option<Vec<u8>>), Failure> {
    let told = |error: ntls::certificate::CertificateError| {
        Failure(format!("{error}; make key and certificate with vtl createCert or createCSR"))
    };
    let (identity, issued) = match &switch.cert {
        None => (Identity::load(&files.certificate, &files.key).map_err(told)?, None),
        Some(file) => {
            let missing = || Failure::new(file.display(), "no such file", "name the certificate's file");
            let pem = pem::read(file)?.ok_or_else(missing)?;
            (Identity::load(file, &files.key).map_err(told)?, Some(pem))
        }
    };
    let certificate = identity.certificate();
    match certificate.validity(ntls::platform::System::shared().wall_ms()) {
        Validity::Valid => Ok((identity, issued)),
        Validity::NotYet | Validity::Expired => {
            let found =
                format!("one from {} to {}", certificate.not_before_text(), certificate.not_after_text());
            Err(Failure::new(
                "a certificate that is valid now",
                found,
                "make another one, or mend this host's clock",
            ))
        }
    }
}

/// What speaks against changing over: appliances that cannot be asked or that give less than before.
fn objections(old: Option<&dyn Network>, new: &dyn Network, configuration: &Configuration) -> Vec<String> {
    let offered = |census: &Census, server: &Server| -> Vec<u64> {
        let reached = census.reached.iter().filter(|reached| reached.server == *server);
        reached.flat_map(|reached| reached.partitions.iter().map(|name| name.serial)).collect()
    };
    let before = old.map(|old| Census::take(old, configuration));
    let after = Census::take(new, configuration);
    let mut objections: Vec<String> = after.unreachable.iter().map(|one| one.complaint()).collect();
    for reached in &after.reached {
        let now = offered(&after, &reached.server);
        let lacking: Vec<String> = before
            .iter()
            .flat_map(|before| offered(before, &reached.server))
            .filter(|serial| !now.contains(serial))
            .map(|serial| Serial(serial).to_string())
            .collect();
        if !lacking.is_empty() {
            objections.push(format!(
                "server {} does not give it the partitions {} (hsm client assignPartition)",
                address(&reached.server),
                lacking.join(", ")
            ));
        }
    }
    objections
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::arguments::{CreateCert, CreateCsr};
    use crate::testing::{FIRST, Folder, World, configuration};
    use crate::verbs::create_cert;

    fn create(folder: &Folder, name: &str) {
        create_cert::run(&folder.place(), &CreateCert { n: name.to_owned(), days: None }).unwrap();
    }

    fn switch(folder: &Folder, name: &str, cert: Option<std::path::PathBuf>) -> Result<Answer, Failure> {
        run(&folder.place(), &UseCert { n: name.to_owned(), cert, force: false })
    }

    #[test]
    fn the_configuration_names_the_new_certificate() {
        let folder = Folder::new(0);
        create(&folder, "app01");
        create(&folder, "app02");
        assert!(folder.configuration().client_certificate.unwrap().ends_with("cert/client/app01.pem"));
        switch(&folder, "app02", None).unwrap();
        assert!(folder.configuration().client_certificate.unwrap().ends_with("cert/client/app02.pem"));
        assert!(folder.configuration().client_private_key.unwrap().ends_with("cert/client/app02Key.pem"));
    }

    #[test]
    fn a_certificate_of_another_key_is_refused_and_the_configuration_stays() {
        let folder = Folder::new(0);
        create(&folder, "app01");
        create_cert::request_one(&folder.place(), &CreateCsr { n: "app02".to_owned(), common_name: None })
            .unwrap();
        let before = folder.text();
        let failure = switch(&folder, "app02", Some(folder.certificate("stranger"))).unwrap_err();
        assert!(failure.0.contains("is not the key of"), "{failure}");
        let failure = switch(&folder, "app03", None).unwrap_err();
        assert!(failure.0.contains("createCert or createCSR"), "{failure}");
        assert_eq!(folder.text(), before);
        assert!(!folder.place().join("cert/client/app02.pem").exists());
    }

    #[test]
    fn appliances_that_refuse_the_new_certificate_or_give_less_speak_against_it() {
        let (old, new) = (World::new(3, "pin"), World::new(3, "pin"));
        let configuration = configuration(3, "");
        assert!(objections(Some(&old), &new, &configuration).is_empty());
        new.stop("hsm1");
        new.assign_nothing(FIRST);
        let found = objections(Some(&old), &new, &configuration);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "server hsm1 cannot be reached: connection refused");
        assert!(found[1].contains(&format!("does not give it the partitions {FIRST}")), "{found:?}");
        assert_eq!(objections(None, &new, &configuration).len(), 1);
    }
}
