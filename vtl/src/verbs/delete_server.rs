//! `deleteServer` and `replaceServer`: an appliance leaves the configuration, or another one takes its place.

use client::conf::document::indexed_key;
use client::conf::options::{SERVER_NAME, SERVER_PORT};
use client::conf::{Configuration, Server};
use serde_json::json;

use super::add_server::{HTL, checked, given};
use crate::answer::{Answer, Failure};
use crate::arguments::{DeleteServer, ReplaceServer};
use crate::census::address;
use crate::place::Place;
use crate::trusted;

/// Takes the server out of the configuration, then ends the trust in its certificates, so that a run that was cut off
/// between the two leaves no server without trust; the trust that is left over then can be ended by adding the server
/// and deleting it again.
pub(crate) fn delete(place: &Place, delete: &DeleteServer) -> Result<Answer, Failure> {
    let configuration = place.configuration()?;
    let server = find(&configuration, &delete.n, delete.p)?.clone();
    let others: Vec<Server> = configuration.servers.iter().filter(|one| **one != server).cloned().collect();
    place.change(|_, document| {
        for key in [SERVER_NAME.key, SERVER_PORT.key, HTL] {
            document.remove(SERVER_NAME.section, &indexed_key(key, server.index));
        }
        Ok(())
    })?;
    let noted = trusted::is_noted(place, &server);
    let removed = trusted::remove(place, &configuration.server_ca, &server, &others)?;
    let name = address(&server);
    let mut text = format!("Server {name} successfully removed from server list.\n");
    for fingerprint in &removed {
        text.push_str(&format!("Certificate {fingerprint} is trusted no more.\n"));
    }
    let document = json!({ "server": server.name, "port": server.port, "removed": true, "certificates_removed": removed });
    let mut answer = Answer::new(text, document);
    if !noted {
        answer.complaints.push(format!(
            "nothing says which certificates of {} were those of {name}: they stay trusted; take them out of the file yourself",
            configuration.server_ca.display()
        ));
    }
    Ok(answer)
}

/// Gives the place of one server to another one, or another certificate to the same one. Whatever the configuration names
/// is trusted at each moment: another server's certificate is trusted first, then the configuration changes, then the trust
/// in what was there ends; another certificate of the same server takes the old one's place in one write.
pub(crate) fn replace(place: &Place, replace: &ReplaceServer) -> Result<Answer, Failure> {
    let configuration = place.configuration()?;
    let old = find(&configuration, replace.o.as_deref().unwrap_or(&replace.n), None)?.clone();
    let name = checked(&replace.n)?.to_owned();
    let new = Server { index: old.index, name, port: replace.p.unwrap_or(old.port) };
    if let Some(other) = configuration
        .servers
        .iter()
        .find(|one| one.index != old.index && (&one.name, one.port) == (&new.name, new.port))
    {
        let found = format!("{} as server number {:02}", address(other), other.index);
        return Err(Failure::new(
            "a server that is not in the configuration",
            found,
            "delete one of the two",
        ));
    }
    let blocks = given(&replace.c)?;
    let fingerprints: Vec<String> = blocks.iter().map(|block| block.certificate.fingerprint_text()).collect();
    let others: Vec<Server> = configuration.servers.iter().filter(|one| **one != old).cloned().collect();
    let mut file = place.editable()?;
    let trusted = trusted::file(place, &mut file.document, &configuration)?;
    let section = SERVER_NAME.section;
    file.document.set(section, &indexed_key(SERVER_NAME.key, old.index), &new.name)?;
    file.document.set(section, &indexed_key(SERVER_PORT.key, old.index), &new.port.to_string())?;
    let noted = trusted::is_noted(place, &old);
    let same = (&old.name, old.port) == (&new.name, new.port);
    if !same {
        // The new one's note tells of both until the trust in the old one has ended, so that running this again, without
        // -o, or deleting the new one ends it even if this is cut off.
        let both = [blocks.clone(), trusted::noted(place, &old)?].concat();
        trusted::add(place, &trusted, &new, &both)?;
        file.save()?;
    }
    let removed = trusted::exchange(place, &trusted, &new, &others, &blocks)?;
    if same {
        file.save()?;
    } else {
        trusted::forget(place, &old)?;
    }
    let mut text = format!("Server {} has the place of {}.\n", address(&new), address(&old));
    for (fingerprints, what) in [(&fingerprints, "trusted"), (&removed, "trusted no more")] {
        for fingerprint in fingerprints {
            text.push_str(&format!("Certificate {fingerprint} is {what}.\n"));
        }
    }
    let document = json!({
        "server": new.name, "port": new.port, "replaced": old.name, "replaced_port": old.port,
        "certificates": fingerprints, "certificates_removed": removed,
    });
    let mut answer = Answer::new(text, document);
    if !noted {
        answer.complaints.push(format!(
            "nothing says which certificates of {} were those of {}: they stay trusted; take them out of the file yourself",
            trusted.display(),
            address(&old)
        ));
    }
    Ok(answer)
}

/// The server of a name, and of a port when one is given. Errs when there is none, or several to choose from.
fn find<'a>(configuration: &'a Configuration, name: &str, port: Option<u16>) -> Result<&'a Server, Failure> {
    let fits = |one: &&Server| one.name == name && port.is_none_or(|port| one.port == port);
    let found: Vec<&Server> = configuration.servers.iter().filter(fits).collect();
    if let [server] = found.as_slice() {
        return Ok(server);
    }
    let list = |servers: &[&Server]| servers.iter().map(|one| address(one)).collect::<Vec<_>>().join(", ");
    let all: Vec<&Server> = configuration.servers.iter().collect();
    let (found, action) = match (found.as_slice(), all.as_slice()) {
        ([], []) => ("no server at all".to_owned(), "see vtl listServers"),
        ([], all) => (list(all), "name one of them"),
        (several, _) => (list(several), "say which one with -p"),
    };
    Err(Failure::new(format!("one server {name} in {}", configuration.file.display()), found, action))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::arguments::AddServer;
    use crate::testing::Folder;
    use crate::verbs::add_server;

    fn add(folder: &Folder, host: &str, certificate: &str, port: u16) {
        let add = AddServer { n: host.to_owned(), c: folder.certificate(certificate), p: port };
        add_server::run(&folder.place(), &add).unwrap();
    }

    fn delete_of(folder: &Folder, host: &str, port: Option<u16>) -> Result<Answer, Failure> {
        delete(&folder.place(), &DeleteServer { n: host.to_owned(), p: port })
    }

    fn replace_of(
        folder: &Folder,
        old: Option<&str>,
        new: &str,
        certificate: &str,
    ) -> Result<Answer, Failure> {
        let c = folder.certificate(certificate);
        replace(&folder.place(), &ReplaceServer { o: old.map(str::to_owned), n: new.to_owned(), c, p: None })
    }

    fn servers(folder: &Folder) -> Vec<(u8, String)> {
        folder.configuration().servers.iter().map(|one| (one.index, one.name.clone())).collect()
    }

    #[test]
    fn a_server_goes_with_its_certificate_and_the_others_keep_number_and_trust() {
        let folder = Folder::new(0);
        add(&folder, "hsm-a", "a", 1792);
        add(&folder, "hsm-b", "b", 1793);
        let answer = delete_of(&folder, "hsm-a", None).unwrap();
        assert!(answer.good() && answer.complaints.is_empty(), "{answer:?}");
        assert_eq!(
            (servers(&folder), folder.trusted()),
            (vec![(1, "hsm-b".to_owned())], vec!["b".to_owned()])
        );
        assert_eq!(answer.document["certificates_removed"].as_array().unwrap().len(), 1);
        let failure = delete_of(&folder, "hsm-a", None).unwrap_err();
        assert!(failure.0.contains("found hsm-b:1793; name one of them"), "{failure}");
        assert!(folder.text().starts_with("# kept\n"));
    }

    #[test]
    fn a_certificate_that_another_server_has_too_stays_trusted() {
        let folder = Folder::new(0);
        let shared = folder.certificate("authority");
        for host in ["hsm-a", "hsm-b"] {
            let add = AddServer { n: host.to_owned(), c: shared.clone(), p: 1792 };
            add_server::run(&folder.place(), &add).unwrap();
        }
        delete_of(&folder, "hsm-a", None).unwrap();
        assert_eq!(folder.trusted(), ["authority"]);
        delete_of(&folder, "hsm-b", None).unwrap();
        assert!(folder.trusted().is_empty());
    }

    #[test]
    fn one_of_several_servers_of_a_host_must_be_said() {
        let folder = Folder::new(0);
        add(&folder, "127.0.0.1", "a", 1792);
        add(&folder, "127.0.0.1", "b", 1793);
        let failure = delete_of(&folder, "127.0.0.1", None).unwrap_err();
        assert!(failure.0.contains("127.0.0.1, 127.0.0.1:1793; say which one with -p"), "{failure}");
        delete_of(&folder, "127.0.0.1", Some(1793)).unwrap();
        assert_eq!(folder.trusted(), ["a"]);
    }

    #[test]
    fn a_server_whose_certificates_were_not_noted_goes_with_a_complaint() {
        let folder = Folder::new(1);
        let answer = delete_of(&folder, "hsm0", None).unwrap();
        assert!(answer.complaints[0].contains("they stay trusted"), "{answer:?}");
        assert!(servers(&folder).is_empty());
    }

    #[test]
    fn another_server_takes_the_place_and_the_trust() {
        let folder = Folder::new(0);
        add(&folder, "hsm-a", "a", 1792);
        add(&folder, "hsm-b", "b", 1792);
        let answer = replace_of(&folder, Some("hsm-a"), "hsm-c", "c").unwrap();
        assert!(answer.complaints.is_empty(), "{answer:?}");
        assert_eq!(servers(&folder), [(0, "hsm-c".to_owned()), (1, "hsm-b".to_owned())]);
        assert_eq!(folder.trusted(), ["b", "c"]);
        let failure = replace_of(&folder, Some("hsm-c"), "hsm-b", "d").unwrap_err();
        assert!(failure.0.contains("found hsm-b as server number 01"), "{failure}");
    }

    #[test]
    fn at_each_moment_of_a_replacement_the_old_or_the_new_certificate_is_trusted() {
        let folder = Folder::new(0);
        add(&folder, "hsm-a", "odd", 1792);
        let file = folder.configuration().server_ca;
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..30 {
                    replace_of(&folder, None, "hsm-a", if round % 2 == 0 { "even" } else { "odd" }).unwrap();
                }
                ended.store(true, std::sync::atomic::Ordering::Release);
            });
            while !ended.load(std::sync::atomic::Ordering::Acquire) {
                assert_eq!(crate::pem::blocks_of(&file).unwrap().len(), 1);
            }
        });
        assert_eq!(folder.trusted(), ["odd"]);
    }

    #[test]
    fn a_replacement_that_was_cut_off_is_finished_by_the_next_one() {
        let folder = Folder::new(0);
        add(&folder, "hsm-a", "old", 1792);
        add(&folder, "hsm-b", "b", 1792);
        let place = folder.place();
        let (note, file) = (place.join("cert/server/hsm-aCert.pem"), folder.configuration().server_ca);
        let blocks = |name: &str| given(&folder.certificate(name)).unwrap();
        let (old, new, b) = (blocks("old"), blocks("new"), blocks("b"));
        let both = [old.clone(), new.clone()].concat();
        // After the note has been widened; after the trust has changed.
        for trusted in [[old, b.clone()].concat(), [b, new].concat()] {
            crate::pem::write(&note, &both).unwrap();
            crate::pem::write(&file, &trusted).unwrap();
            replace_of(&folder, None, "hsm-a", "new").unwrap();
            assert_eq!(folder.trusted(), ["b", "new"]);
            assert_eq!(crate::pem::blocks_of(&note).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_change_of_servers_that_was_cut_off_leaves_a_note_by_which_the_old_trust_ends() {
        let folder = Folder::new(0);
        add(&folder, "hsm-a", "old", 1792);
        let place = folder.place();
        let server = |name: &str| Server { index: 0, name: name.to_owned(), port: 1792 };
        // As far as the configuration: the new one is in it, the old one's certificate is trusted still.
        let both =
            [given(&folder.certificate("new")).unwrap(), trusted::noted(&place, &server("hsm-a")).unwrap()];
        trusted::add(&place, &folder.configuration().server_ca, &server("hsm-c"), &both.concat()).unwrap();
        place.change(|_, document| Ok(document.set("LunaSA Client", "ServerName00", "hsm-c")?)).unwrap();
        assert_eq!(folder.trusted(), ["old", "new"]);
        replace_of(&folder, None, "hsm-c", "new").unwrap();
        assert_eq!(
            (servers(&folder), folder.trusted()),
            (vec![(0, "hsm-c".to_owned())], vec!["new".to_owned()])
        );
    }

    #[test]
    fn the_same_server_gets_another_certificate_and_the_old_one_is_trusted_no_more() {
        let folder = Folder::new(0);
        add(&folder, "hsm-a", "old", 1792);
        let answer = replace_of(&folder, None, "hsm-a", "new").unwrap();
        assert_eq!((servers(&folder).len(), folder.trusted()), (1, vec!["new".to_owned()]));
        assert_eq!(answer.document["certificates_removed"].as_array().unwrap().len(), 1);
    }
}
