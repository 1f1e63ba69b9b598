//! TLS 1.3 with certificates on both sides: whom a client trusts, whom an appliance accepts.
//!
//! A client trusts a server certificate that stands byte for byte in `ServerCAFile` (pinned: its name is not
//! looked at, its time is), or that chains to a CA certificate there, whose time is looked at too, and names the server. An appliance accepts a
//! client certificate that its registry knows.
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as TlsCertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spec::platform::Platform;

use crate::certificate::{Certificate, CertificateError, Identity, Validity, provider};

/// The server certificates and authorities that a client trusts.
pub struct ServerTrust {
    file: String,
    pinned: Vec<Certificate>,
    authorities: Vec<Authority>,
}

/// A CA certificate, and what verifies chains to it alone.
struct Authority {
    certificate: Certificate,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerTrust {
    /// Reads `ServerCAFile`.
    ///
    /// # Errors
    /// When it is missing, unreadable, or holds no certificate.
    pub fn load(path: &Path) -> Result<Self, CertificateError> {
        let file = path.display().to_string();
        let pem = std::fs::read(path).map_err(|error| {
            CertificateError(format!(
                "wanted the certificates of the servers in ServerCAFile {file}, found: {error}; run `vtl addServer`"
            ))
        })?;
        Self::from_pem(&pem, &file)
    }

    /// Reads trusted certificates from PEM; `origin` names them in messages.
    ///
    /// # Errors
    /// When they cannot be read or there is none.
    pub fn from_pem(pem: &[u8], origin: &str) -> Result<Self, CertificateError> {
        let pinned = Certificate::all_from_pem(pem, origin)?;
        // Only authorities: webpki asks no basic constraints of an anchor, so a pinned leaf must not become one.
        let authorities = pinned.iter().filter(|certificate| certificate.is_authority());
        let authorities =
            authorities.map(|certificate| Authority::new(certificate, origin)).collect::<Result<_, _>>()?;
        Ok(Self { file: origin.to_owned(), pinned, authorities })
    }

    /// Whether an authority whose own time is now vouches for this chain; else why not, told of the one that came nearest.
    fn check_chain(
        &self,
        found: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), String> {
        let unknown = || Error::InvalidCertificate(TlsCertificateError::UnknownIssuer);
        let mut refusal = match self.authorities.is_empty() {
            true => "does not stand in it".to_owned(),
            false => "neither stands in it nor was issued by a CA in it".to_owned(),
        };
        for Authority { certificate, chain } in &self.authorities {
            match chain.verify_server_cert(found, intermediates, name, &[], now) {
                // webpki asks no anchor for its time.
                Ok(_) if certificate.validity(now.as_secs().saturating_mul(1000)) == Validity::Valid => {
                    return Ok(());
                }
                Ok(_) => {
                    refusal = format!(
                        "was issued by the CA {:?} in it, whose own certificate is valid from {} to {}",
                        certificate.name(),
                        certificate.not_before_text(),
                        certificate.not_after_text()
                    );
                }
                Err(error) if error == unknown() => {}
                Err(error) => refusal = format!("does not stand in it, and against the CAs in it: {error}"),
            }
        }
        Err(refusal)
    }
}

impl Authority {
    fn new(certificate: &Certificate, origin: &str) -> Result<Self, CertificateError> {
        let mut root = RootCertStore::empty();
        root.add(CertificateDer::from(certificate.der().to_vec())).map_err(|error| {
            CertificateError(format!("{origin}: the CA certificate of {:?}: {error}", certificate.name()))
        })?;
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(root), Arc::new(provider()));
        let chain = builder.build().map_err(|error| CertificateError(format!("{origin}: {error}")))?;
        Ok(Self { certificate: certificate.clone(), chain })
    }
}

impl ServerTrust {
    /// Whether a server that showed these certificates, its own first, would be trusted now; `host` is its ServerName.
    pub(crate) fn vouches_for(&self, shown: &[CertificateDer<'_>], host: &str, now_ms: u64) -> bool {
        let Some((found, intermediates)) = shown.split_first() else { return false };
        if self.pinned.iter().any(|pinned| pinned.der() == found.as_ref()) {
            return true;
        }
        let Ok(name) = ServerName::try_from(host.to_owned()) else { return false };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now_ms));
        self.check_chain(found, intermediates, &name, now).is_ok()
    }
}

/// What is wrong with a server's certificate, as a sentence.
#[derive(Debug)]
struct Distrust(String);

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Distrust {}

fn distrust(sentence: String) -> Error {
    Error::InvalidCertificate(TlsCertificateError::Other(OtherError(Arc::new(Distrust(sentence)))))
}

struct ServerVerifier {
    trust: Arc<ServerTrust>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerVerifier")
    }
}

impl ServerVerifier {
    fn check_time(found: &Certificate, now: UnixTime) -> Result<(), Error> {
        let (name, fingerprint) = (found.name(), found.fingerprint_text());
        match found.validity(now.as_secs().saturating_mul(1000)) {
            Validity::Valid => Ok(()),
            Validity::Expired => Err(distrust(format!(
                "the server's certificate (CN {name}, SHA-256 {fingerprint}) expired on {}; give the appliance a new \
                 one and run `vtl addServer` with it",
                found.not_after_text()
            ))),
            Validity::NotYet => Err(distrust(format!(
                "the server's certificate (CN {name}, SHA-256 {fingerprint}) is valid only from {}; compare the clocks",
                found.not_before_text()
            ))),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Certificate::from_der(end_entity).map_err(|error| distrust(error.0))?;
        Self::check_time(&found, now)?;
        if self.trust.pinned.iter().any(|pinned| pinned.der() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        let Err(refusal) = self.trust.check_chain(end_entity, intermediates, server_name, now) else {
            return Ok(ServerCertVerified::assertion());
        };
        Err(distrust(format!(
            "wanted a certificate that ServerCAFile {} vouches for, found CN {}, SHA-256 {}, which {refusal}; compare \
             the fingerprint with `hsm ntls show` on the appliance and run `vtl addServer`",
            self.trust.file,
            found.name(),
            found.fingerprint_text()
        )))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn only_tls13() -> Error {
    Error::General("TLS 1.3 only".into())
}

/// Wall time of the platform for the checks of certificates.
struct WallTime(Arc<dyn Platform>);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl rustls::time_provider::TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0.wall_ms())))
    }
}

/// The client's side: TLS 1.3 only, X25519MLKEM768 first, no session tickets, no early data.
///
/// # Errors
/// When the library refuses the key.
pub fn client_config(
    platform: &Arc<dyn Platform>,
    identity: &Identity,
    trust: &Arc<ServerTrust>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(provider());
    let verifier = ServerVerifier { trust: trust.clone(), provider: provider.clone() };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallTime(platform.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(identity.shown());
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// A client as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredClient {
    /// The name it was registered under.
    pub name: String,
    /// What seals and tickets bind to: the fingerprint of its certificate, or the hash of its registered name.
    pub id: [u8; 32],
}

/// Why a registry does not accept a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No client is registered with exactly this certificate, whatever its name says.
    NotRegistered,
    /// Registered, and its time has passed or not come.
    OutOfTime,
}

/// Knows the clients of an appliance.
pub trait ClientRegistry: Send + Sync + 'static {
    /// Whose certificate this is.
    ///
    /// # Errors
    /// The refusal that the client's operator will read about.
    fn accept(&self, certificate_der: &[u8]) -> Result<RegisteredClient, Refusal>;

    /// As [`accept`](Self::accept), with what the client sent along to lead to an authority. A registry that knows
    /// authorities carries it out.
    ///
    /// # Errors
    /// As for `accept`.
    fn accept_chain(
        &self,
        certificate_der: &[u8],
        intermediates: &[CertificateDer<'_>],
    ) -> Result<RegisteredClient, Refusal> {
        let _ = intermediates;
        self.accept(certificate_der)
    }
}

struct ClientVerifier {
    registry: Arc<dyn ClientRegistry>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let out_of_time = Error::InvalidCertificate(TlsCertificateError::Expired);
        match self.registry.accept_chain(end_entity, intermediates) {
            Ok(_) => {}
            // The alert is access_denied: the client's side turns it into "register this certificate".
            Err(Refusal::NotRegistered) => {
                return Err(Error::InvalidCertificate(TlsCertificateError::ApplicationVerificationFailure));
            }
            Err(Refusal::OutOfTime) => return Err(out_of_time),
        }
        let certificate = Certificate::from_der(end_entity)
            .map_err(|_| Error::InvalidCertificate(TlsCertificateError::BadEncoding))?;
        match certificate.validity(now.as_secs().saturating_mul(1000)) {
            Validity::Valid => Ok(ClientCertVerified::assertion()),
            Validity::NotYet | Validity::Expired => Err(out_of_time),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The appliance's side: TLS 1.3 only, a registered client certificate demanded, no tickets, no early data.
/// Ask the registry again after the handshake, with the certificate that the connection carries, for the name.
///
/// # Errors
/// When the library refuses the key.
pub fn server_config(identity: &Identity, registry: Arc<dyn ClientRegistry>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(provider());
    let verifier = ClientVerifier { registry, provider: provider.clone() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(identity.shown());
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}
