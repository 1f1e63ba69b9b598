//! Certificates of the simulated clients and servers. Ed25519 alone, with one serial number and one time: a handshake takes
//! the same number of bytes in every run and on every host.
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ntls::certificate::{Certificate, Identity, fingerprint};
use ntls::tls::server_config;
use ntls::{ClientRegistry, Refusal, RegisteredClient};
use rustls::ServerConfig;
use tempfile::TempDir;

/// A certificate and its key in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new(name: &str) -> Self {
        let mut params =
            rcgen::CertificateParams::new(Vec::new()).expect("no host name is a good list of names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.serial_number = Some(rcgen::SerialNumber::from(vec![7; 8]));
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2120, 1, 1);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("aws-lc makes Ed25519 keys");
        let certificate = params.self_signed(&key).expect("a key signs its own certificate");
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn der(&self) -> Vec<u8> {
        let all = Certificate::all_from_pem(self.certificate.as_bytes(), "a simulated certificate");
        all.expect("rcgen writes PEM")[0].der().to_vec()
    }
}

/// All certificates of this process of the operating system.
struct Papers {
    clients: [Pair; 2],
    server: Pair,
    config: Arc<ServerConfig>,
}

/// Knows the simulated clients.
struct Registry(Vec<Vec<u8>>);

impl ClientRegistry for Registry {
    fn accept(&self, certificate_der: &[u8]) -> Result<RegisteredClient, Refusal> {
        match self.0.iter().any(|known| known == certificate_der) {
            true => Ok(RegisteredClient { name: "application".into(), id: fingerprint(certificate_der) }),
            false => Err(Refusal::NotRegistered),
        }
    }
}

fn papers() -> &'static Papers {
    static ALL: OnceLock<Papers> = OnceLock::new();
    ALL.get_or_init(|| {
        let clients = [Pair::new("client"), Pair::new("clienu")];
        let server = Pair::new("server");
        let identity = Identity::from_pem(server.certificate.as_bytes(), server.key.as_bytes());
        let identity = identity.expect("a certificate and its key belong together");
        let registry = Registry(clients.iter().map(Pair::der).collect());
        let config = server_config(&identity, Arc::new(registry)).expect("rustls takes Ed25519 keys");
        Papers { clients, server, config: Arc::new(config) }
    })
}

/// How the simulated servers speak TLS.
pub(crate) fn config() -> Arc<ServerConfig> {
    papers().config.clone()
}

/// The files of one application, where links look for them.
pub(crate) struct Files(TempDir);

impl Files {
    /// The files, with the first of the two certificates.
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("the host has room for a folder"));
        files.show(0);
        files.write("CAFile.pem", &papers().server.certificate);
        files
    }

    /// The application has this one of its two certificates from now on.
    pub(crate) fn show(&self, number: usize) {
        let pair = &papers().clients[number % 2];
        self.write("client.pem", &pair.certificate);
        self.write("clientKey.pem", &pair.key);
    }

    /// The application has the other certificate after `times` changes; whoever looks at the files sees that they are new.
    pub(crate) fn change(&self, times: usize) {
        let (pair, mark) = (&papers().clients[times % 2], "\n".repeat(times));
        self.write("client.pem", &format!("{}{mark}", pair.certificate));
        self.write("clientKey.pem", &format!("{}{mark}", pair.key));
    }

    /// Where a file is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::join(self.0.path(), name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the host has room for a file");
    }
}
