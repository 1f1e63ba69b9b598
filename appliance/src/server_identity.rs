//! The server's own certificate and key: `server.pem` and `serverKey.pem`, made at the first start; and how they are
//! replaced with overlap, so that no link is lost.
//!
//! ```text
//! regenCert            server.next.pem, serverKey.next.pem are made (or put there by hand)
//!                      every client and peer adds server.next.pem to what it trusts; both are trusted meanwhile
//! regenCert -csr       serverKey.next.pem, server.next.csr.pem: an authority issues a certificate for the request
//! activateCert -cert F F -> server.next.pem, and then as below
//! activateCert         serverKey.next.pem -> serverKey.pem, then server.next.pem -> server.pem; new connections get it
//! ```
//! Links that are up go on. A start that finds `server.next.pem` without its key was interrupted between the two renames
//! and finishes the second; a prepared key without its certificate waits for one that an authority issues, or was never
//! finished, and is replaced by the next `regenCert`.
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ntls::certificate::{
    Certificate, CertificateError, DAYS, Identity, Validity, Wanted, request, self_signed,
};
use parking_lot::{Mutex, RwLock};

use crate::config::Config;
use crate::data_dir::{DataDir, read_private, replace, write_new};
use crate::error::Error;
use crate::handler::now_ms;
use crate::pem;

/// The server's certificate and key in their files.
pub struct ServerIdentity {
    folder: PathBuf,
    hosts: Vec<String>,
    current: RwLock<Arc<Identity>>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl ServerIdentity {
    /// Reads the certificate and its key, or makes both. An expired one is served all the same, with an error in the log:
    /// clients refuse it, and the operator can make a new one while the server runs.
    ///
    /// # Errors
    /// When one is missing, unreadable or does not belong to the other.
    pub fn load_or_make(data: &DataDir, config: &Config) -> Result<ServerIdentity, Error> {
        let folder = data.path().to_owned();
        let hosts = hosts(&host_name(), config);
        finish_activation(&folder)?;
        let (certificate, key) = (folder.join("server.pem"), folder.join("serverKey.pem"));
        match (certificate.exists(), key.exists()) {
            (false, false) => make(&hosts, DAYS, &certificate, &key)?,
            (true, true) => {}
            (found, _) => {
                let (there, missing) = if found { (&certificate, &key) } else { (&key, &certificate) };
                return Err(Error::environment(format!(
                    "wanted {} beside {}, found no file; bring it back, or remove both to get new ones (each client must \
                     then add the server again)",
                    missing.display(),
                    there.display()
                )));
            }
        }
        let identity = read(&certificate, &key)?;
        tell_time(identity.certificate());
        let current = RwLock::new(Arc::new(identity));
        Ok(ServerIdentity { folder, hosts, current, changing: Mutex::new(()) })
    }

    /// What new connections get.
    pub fn current(&self) -> Arc<Identity> {
        self.current.read().clone()
    }

    /// Where the certificate is that clients pin.
    pub fn certificate_path(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// Where the key is.
    pub fn key_path(&self) -> PathBuf {
        self.folder.join("serverKey.pem")
    }

    /// Where a prepared certificate is.
    pub fn next_path(&self) -> PathBuf {
        self.folder.join("server.next.pem")
    }

    fn next_key_path(&self) -> PathBuf {
        self.folder.join("serverKey.next.pem")
    }

    /// Where the request is whose certificate an authority is to issue.
    pub fn request_path(&self) -> PathBuf {
        self.folder.join("server.next.csr.pem")
    }

    /// Whether a request waits for its certificate.
    pub fn is_asked(&self) -> bool {
        self.request_path().exists() && self.next_key_path().exists()
    }

    /// The prepared certificate, if there is one with its key.
    pub fn next(&self) -> Option<Certificate> {
        if !self.next_key_path().exists() {
            return None;
        }
        let pem = std::fs::read(self.next_path()).ok()?;
        Certificate::all_from_pem(&pem, "server.next.pem").ok()?.into_iter().next()
    }

    /// Makes a new certificate and key beside those in service, in the place of others that were prepared.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn prepare(&self, days: u32) -> Result<Certificate, Error> {
        let _one_at_a_time = self.changing.lock();
        let (certificate, key) = (self.next_path(), self.next_key_path());
        self.forget_prepared()?;
        make(&self.hosts, days, &certificate, &key)?;
        Ok(read(&certificate, &key)?.certificate().clone())
    }

    /// Makes a new key beside the one in service and a request (PKCS #10) for its certificate, for an authority to sign,
    /// in the place of others that were prepared.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn ask(&self) -> Result<(), Error> {
        let _one_at_a_time = self.changing.lock();
        self.forget_prepared()?;
        let requested = named(&self.hosts, request)?;
        write_new(&self.next_key_path(), requested.key_pem.as_bytes(), 0o600)?;
        write_new(&self.request_path(), requested.request_pem.as_bytes(), 0o644)
    }

    fn forget_prepared(&self) -> Result<(), Error> {
        // The certificate goes first: without it a key is one that was never finished.
        [self.next_path(), self.request_path(), self.next_key_path()].iter().try_for_each(|path| remove(path))
    }

    /// Puts the prepared certificate into service: new connections get it from now on. One that an authority has issued
    /// for the prepared key is given here, in PEM with its chain.
    ///
    /// # Errors
    /// When none is prepared, or it cannot be used; then nothing has changed.
    pub fn activate(&self, issued: Option<&str>) -> Result<Arc<Identity>, Error> {
        let _one_at_a_time = self.changing.lock();
        let (certificate, key) = (self.next_path(), self.next_key_path());
        if !key.exists() || issued.is_none() && !certificate.exists() {
            let next = match (issued, self.is_asked()) {
                (Some(_), _) => "run `hsm sysconf regenCert -csr` and let the authority sign what it makes",
                (None, true) => "name what the authority has issued for server.next.csr.pem: `-cert FILE`",
                (None, false) => "run `hsm sysconf regenCert`",
            };
            return Err(Error::refused(format!(
                "wanted a prepared certificate {} with its key serverKey.next.pem, found none; {next}",
                certificate.display()
            )));
        }
        let identity = match issued {
            Some(issued) => {
                let key_pem = read_private(&key)?.unwrap_or_default();
                Identity::from_pem(issued.as_bytes(), &key_pem)
                    .map_err(|error| Error::refused(error.to_string()))?
            }
            None => read(&certificate, &key)?,
        };
        if identity.certificate().validity(now_ms()) != Validity::Valid {
            return Err(Error::refused(format!(
                "wanted a certificate that is valid now, found one from {} to {}; run `hsm sysconf regenCert`, or let \
                 the authority issue another",
                identity.certificate().not_before_text(),
                identity.certificate().not_after_text()
            )));
        }
        if let Some(issued) = issued {
            // The certificates alone: whatever else stood in the operator's file stays there.
            let chain = Certificate::all_from_pem(issued.as_bytes(), "the certificate")
                .map_err(|error| Error::refused(error.to_string()))?;
            let text: String = chain.iter().map(|one| pem::certificate(one.der())).collect();
            replace(&certificate, text.as_bytes(), 0o644)?;
        }
        rename(&key, &self.key_path())?;
        finish_activation(&self.folder)?;
        remove(&self.request_path())?;
        let identity = Arc::new(identity);
        *self.current.write() = identity.clone();
        Ok(identity)
    }
}

/// The second rename of an activation.
fn finish_activation(folder: &Path) -> Result<(), Error> {
    let (certificate, key) = (folder.join("server.next.pem"), folder.join("serverKey.next.pem"));
    if certificate.exists() && !key.exists() {
        rename(&certificate, &folder.join("server.pem"))?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    let renamed = || {
        std::fs::rename(from, to)?;
        std::fs::File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    renamed()
        .map_err(|error| Error::environment(format!("cannot move {} into place: {error}", from.display())))
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::environment(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn make(hosts: &[String], days: u32, certificate: &Path, key: &Path) -> Result<(), Error> {
    let made = named(hosts, |name, hosts| self_signed(&Wanted { name, hosts, now_ms: now_ms(), days }))?;
    write_new(key, made.key_pem.as_bytes(), 0o600)?;
    write_new(certificate, made.certificate_pem.as_bytes(), 0o644)
}

/// What a maker makes of the hosts, the first of which is the subject's name.
fn named<T>(
    hosts: &[String],
    maker: impl Fn(&str, &[String]) -> Result<T, CertificateError>,
) -> Result<T, Error> {
    let name = hosts.first().map_or("hsmd", String::as_str);
    // A host's own name may be none that a certificate can hold; addresses always can.
    maker(name, hosts)
        .or_else(|_| maker(name, hosts.get(1..).unwrap_or_default()))
        .map_err(|error| Error::environment(error.to_string()))
}

fn read(certificate: &Path, key: &Path) -> Result<Identity, Error> {
    // Refuses a key that others may read; the bytes are wiped when dropped.
    drop(read_private(key)?);
    Identity::load(certificate, key).map_err(|error| Error::environment(error.to_string()))
}

fn tell_time(certificate: &Certificate) {
    match certificate.validity(now_ms()) {
        Validity::Valid => {}
        Validity::NotYet => {
            let from = certificate.not_before_text();
            tracing::warn!(from, "the server's certificate is not yet valid: is this host's clock right?");
        }
        Validity::Expired => tracing::error!(
            until = certificate.not_after_text(),
            "the server's certificate has expired and every client refuses it: run `hsm sysconf regenCert -activate`, and \
             let each client add the server again"
        ),
    }
}
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "hsmd".to_owned() } else { name.to_owned() }
}

/// The names that the certificate speaks for: the host's first, then the addresses listened on.
fn hosts(name: &str, config: &Config) -> Vec<String> {
    let addresses = config.listen.iter().map(std::net::SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    let mut hosts = vec![name.to_owned()];
    for host in addresses.map(|ip: IpAddr| ip.to_string()).chain(["localhost".to_owned()]) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn place() -> (tempfile::TempDir, DataDir, Config) {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::open(&place.path().join("data")).unwrap();
        let text = "data_dir = \"data\"\nlisten = [\"127.0.0.7:1792\"]";
        let config = Config::parse(text, &place.path().join("hsmd.toml")).unwrap();
        (place, data, config)
    }

    fn load(data: &DataDir, config: &Config) -> Result<[u8; 32], Error> {
        Ok(ServerIdentity::load_or_make(data, config)?.current().certificate().fingerprint())
    }

    fn made(name: &str, now_ms: u64) -> (String, String) {
        let made = self_signed(&Wanted { name, hosts: &[], now_ms, days: 5 }).unwrap();
        (made.certificate_pem, made.key_pem.to_string())
    }

    fn put(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_certificate_is_made_once() {
        let (_place, data, config) = place();
        let first = load(&data, &config).unwrap();
        assert_eq!(load(&data, &config).unwrap(), first);
        let mode = std::fs::metadata(data.path().join("serverKey.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn half_an_identity_is_refused() {
        let (_place, data, config) = place();
        load(&data, &config).unwrap();
        std::fs::remove_file(data.path().join("serverKey.pem")).unwrap();
        let error = load(&data, &config).unwrap_err().to_string();
        assert!(error.contains("serverKey.pem beside"), "{error}");
    }

    #[test]
    fn an_expired_identity_can_be_replaced_and_a_foreign_or_readable_one_is_refused() {
        let (_place, data, config) = place();
        let (certificate, key) = (data.path().join("server.pem"), data.path().join("serverKey.pem"));
        let (old, old_key) = made("old", now_ms() - 9 * DAY_MS);
        put(&certificate, &old, 0o644);
        put(&key, &old_key, 0o600);
        let identity = ServerIdentity::load_or_make(&data, &config).unwrap();
        assert_eq!(identity.current().certificate().validity(now_ms()), Validity::Expired);
        identity.prepare(10).unwrap();
        identity.activate(None).unwrap();
        assert_eq!(identity.current().certificate().validity(now_ms()), Validity::Valid);
        let (_, other_key) = made("other", now_ms());
        put(&key, &other_key, 0o600);
        assert!(load(&data, &config).is_err());
        put(&key, &old_key, 0o644);
        assert!(load(&data, &config).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_prepared_certificate_is_activated_whole_even_when_it_is_interrupted() {
        let (_place, data, config) = place();
        let identity = ServerIdentity::load_or_make(&data, &config).unwrap();
        let first = identity.current().certificate().fingerprint();
        assert!(identity.activate(None).is_err_and(|error| error.to_string().contains("regenCert")));
        identity.prepare(10).unwrap();
        let prepared = identity.prepare(10).unwrap().fingerprint();
        assert_eq!(identity.next().map(|next| next.fingerprint()), Some(prepared), "the later one");
        assert_eq!(load(&data, &config).unwrap(), first, "prepared only");
        // The first rename happened, and then the power failed.
        std::fs::rename(identity.next_key_path(), identity.key_path()).unwrap();
        assert_eq!(load(&data, &config).unwrap(), prepared);
        assert!(!identity.next_path().exists());
        let next = identity.prepare(10).unwrap().fingerprint();
        assert_eq!(identity.activate(None).unwrap().certificate().fingerprint(), next);
        assert_eq!(load(&data, &config).unwrap(), next);
        assert!(identity.next().is_none());
    }

    #[test]
    fn what_an_authority_issues_for_a_request_is_activated_with_its_key_and_nothing_else() {
        let (_place, data, config) = place();
        let identity = ServerIdentity::load_or_make(&data, &config).unwrap();
        let first = identity.current().certificate().fingerprint();
        let (stranger, _) = made("stranger", now_ms());
        let nothing_asked = identity.activate(Some(&stranger)).err().unwrap().to_string();
        assert!(nothing_asked.contains("regenCert -csr"), "{nothing_asked}");
        identity.ask().unwrap();
        let request = std::fs::read_to_string(identity.request_path()).unwrap();
        assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{request}");
        let waits = identity.activate(None).err().unwrap().to_string();
        assert!(waits.contains("-cert FILE"), "{waits}");
        // A restart meanwhile changes nothing.
        assert_eq!(load(&data, &config).unwrap(), first);
        assert!(identity.is_asked() && identity.next().is_none());
        assert!(
            identity.activate(Some(&stranger)).is_err_and(|error| error.to_string().contains("not the key"))
        );
        assert_eq!(load(&data, &config).unwrap(), first);
        // The authority: what signs is of no matter here, the key of the request is.
        let key = std::fs::read_to_string(identity.next_key_path()).unwrap();
        let params = rcgen::CertificateParams::new(vec!["hsm-a".to_owned()]).unwrap();
        let issued = params.self_signed(&rcgen::KeyPair::from_pem(&key).unwrap()).unwrap().pem();
        let active = identity.activate(Some(&format!("{issued}{stranger}{key}"))).unwrap();
        assert_eq!(active.certificate().hosts(), ["hsm-a"]);
        let written = std::fs::read_to_string(identity.certificate_path()).unwrap();
        assert_eq!((written.matches("BEGIN CERTIFICATE").count(), written.matches("KEY").count()), (2, 0));
        assert_eq!(load(&data, &config).unwrap(), active.certificate().fingerprint());
        assert!(!identity.is_asked() && !identity.request_path().exists());
        // A request that is given up for a certificate of our own.
        identity.ask().unwrap();
        identity.prepare(10).unwrap();
        assert!(!identity.request_path().exists() && identity.next().is_some());
    }

    #[test]
    fn a_prepared_certificate_that_cannot_be_used_changes_nothing() {
        let (_place, data, config) = place();
        let identity = ServerIdentity::load_or_make(&data, &config).unwrap();
        let first = identity.current().certificate().fingerprint();
        let (old, old_key) = made("old", now_ms() - 9 * DAY_MS);
        put(&identity.next_path(), &old, 0o644);
        put(&identity.next_key_path(), &old_key, 0o600);
        assert!(identity.activate(None).is_err_and(|error| error.to_string().contains("valid now")));
        let (_, other_key) = made("other", now_ms());
        put(&identity.next_key_path(), &other_key, 0o600);
        assert!(identity.activate(None).is_err(), "not its key");
        assert_eq!(load(&data, &config).unwrap(), first);
    }
}
