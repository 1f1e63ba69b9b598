//! The server's own certificate and key: `server.pem` and `serverKey.pem`, made at the first start.
use std::net::IpAddr;
use std::path::PathBuf;

use ntls::certificate::{DAYS, Identity, Validity, Wanted, self_signed};

use crate::config::Config;
use crate::data_dir::{DataDir, read_private, write_new};
use crate::error::Error;
use crate::handler::now_ms;

const DAY_MS: u64 = 86_400_000;
/// A certificate that ends within so many days is warned about.
const WARN_DAYS: u64 = 30;

/// Where the certificate that clients pin is.
pub fn certificate_path(data: &DataDir) -> PathBuf {
    data.path().join("server.pem")
}

/// Reads the certificate and its key, or makes both.
///
/// # Errors
/// When one is missing, unreadable or does not belong to the other, or the certificate has expired.
pub fn load_or_make(data: &DataDir, config: &Config) -> Result<Identity, Error> {
    let (certificate, key) = (certificate_path(data), data.path().join("serverKey.pem"));
    match (certificate.exists(), key.exists()) {
        (false, false) => {
            let name = host_name();
            let hosts = hosts(&name, config);
            let wanted = |hosts| Wanted { name: &name, hosts, now_ms: now_ms(), days: DAYS };
            // A host's own name may be none that a certificate can hold; addresses always can.
            let made = self_signed(&wanted(&hosts))
                .or_else(|_| self_signed(&wanted(&hosts[1..])))
                .map_err(|error| Error::environment(error.to_string()))?;
            write_new(&key, made.key_pem.as_bytes(), 0o600)?;
            write_new(&certificate, made.certificate_pem.as_bytes(), 0o644)?;
        }
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
    // Refuses a key that others may read; the bytes are wiped when dropped.
    drop(read_private(&key)?);
    let identity =
        Identity::load(&certificate, &key).map_err(|error| Error::environment(error.to_string()))?;
    check_time(&identity)?;
    Ok(identity)
}

fn check_time(identity: &Identity) -> Result<(), Error> {
    let certificate = identity.certificate();
    let until = certificate.not_after_text();
    match certificate.validity(now_ms()) {
        Validity::Valid => {}
        Validity::NotYet => {
            let from = certificate.not_before_text();
            tracing::warn!(from, "the server's certificate is not yet valid: is this host's clock right?");
        }
        Validity::Expired => {
            return Err(Error::environment(format!(
                "the server's certificate expired on {until}: remove server.pem and serverKey.pem to get new ones at \
                 the next start; each client must then add the server again"
            )));
        }
    }
    if certificate.validity(now_ms() + WARN_DAYS * DAY_MS) == Validity::Expired {
        tracing::warn!(until, "the server's certificate ends soon");
    }
    Ok(())
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
    use std::path::Path;

    use super::*;

    fn place() -> (tempfile::TempDir, DataDir, Config) {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::open(&place.path().join("data")).unwrap();
        let text = "data_dir = \"data\"\nlisten = [\"127.0.0.7:1792\"]";
        let config = Config::parse(text, &place.path().join("hsmd.toml")).unwrap();
        (place, data, config)
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
        let first = load_or_make(&data, &config).unwrap().certificate().fingerprint();
        assert_eq!(load_or_make(&data, &config).unwrap().certificate().fingerprint(), first);
        let mode = std::fs::metadata(data.path().join("serverKey.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn half_an_identity_is_refused() {
        let (_place, data, config) = place();
        load_or_make(&data, &config).unwrap();
        std::fs::remove_file(data.path().join("serverKey.pem")).unwrap();
        let error = load_or_make(&data, &config).err().unwrap().to_string();
        assert!(error.contains("serverKey.pem beside"), "{error}");
    }

    #[test]
    fn an_expired_foreign_or_readable_identity_is_refused() {
        let (_place, data, config) = place();
        let (certificate, key) = (data.path().join("server.pem"), data.path().join("serverKey.pem"));
        let (old, old_key) = made("old", now_ms() - 9 * DAY_MS);
        put(&certificate, &old, 0o644);
        put(&key, &old_key, 0o600);
        assert!(load_or_make(&data, &config).err().unwrap().to_string().contains("expired"));
        let (_, other_key) = made("other", now_ms());
        put(&key, &other_key, 0o600);
        assert!(load_or_make(&data, &config).is_err());
        put(&key, &old_key, 0o644);
        assert!(load_or_make(&data, &config).err().unwrap().to_string().contains("chmod 600"));
    }
}
