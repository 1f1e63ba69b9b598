//! Certificates: identities in files, the facts that messages and pins need, and self-signed ones for NTLS.
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, FromDer as _, GeneralName, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

/// Why a certificate or key cannot be used: what was wanted, what was found, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError(pub String);

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateError {}

/// An X.509 certificate that has been parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    name: String,
    issuer: String,
    serial_number: String,
    hosts: Vec<String>,
    not_before_s: i64,
    not_after_s: i64,
    is_authority: bool,
}

/// Whether a moment is within a certificate's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is.
    Valid,
    /// The certificate begins later.
    NotYet,
    /// The certificate has ended.
    Expired,
}

impl Certificate {
    /// Parses a certificate from DER.
    ///
    /// # Errors
    /// When the bytes are no X.509 certificate or carry more behind it.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = || CertificateError("wanted an X.509 certificate, found bytes that are none".into());
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
        if !rest.is_empty() {
            return Err(unreadable());
        }
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            der: CertificateDer::from(der.to_vec()),
            name: name.unwrap_or_default().to_owned(),
            issuer: parsed.issuer().to_string(),
            serial_number: parsed.raw_serial_as_string().to_uppercase(),
            hosts: hosts(&parsed),
            not_before_s: parsed.validity().not_before.timestamp(),
            not_after_s: parsed.validity().not_after.timestamp(),
            is_authority: parsed.is_ca(),
        })
    }

    /// All certificates of a PEM text, in order; other blocks are passed over.
    ///
    /// # Errors
    /// When a block cannot be read or there is no certificate at all; `origin` names the text in the message.
    pub fn all_from_pem(pem: &[u8], origin: &str) -> Result<Vec<Self>, CertificateError> {
        let mut all = Vec::new();
        for (index, der) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let number = index.saturating_add(1);
            let der = der.map_err(|error| {
                CertificateError(format!("{origin}: wanted PEM, found at certificate {number}: {error}"))
            })?;
            let certificate = Self::from_der(&der)
                .map_err(|error| CertificateError(format!("{origin}, certificate {number}: {error}")))?;
            all.push(certificate);
        }
        if all.is_empty() {
            return Err(CertificateError(format!(
                "{origin}: wanted at least one certificate in PEM (BEGIN CERTIFICATE), found none"
            )));
        }
        Ok(all)
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject's common name; empty when there is none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who has issued it, for people: the issuer's distinguished name.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The serial number that the issuer gave it, in upper-case hex pairs with colons.
    pub fn serial_number(&self) -> &str {
        &self.serial_number
    }

    /// Host names and addresses that it speaks for (subject alternative names).
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// SHA-256 of the DER: what registries pin.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.der)
    }

    /// The fingerprint in upper-case hex pairs with colons, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint_text(&self) -> String {
        fingerprint_text(&self.fingerprint())
    }

    /// Whether the certificate may issue others (basic constraints).
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// Whether `now_ms` (milliseconds since 1970) is within the certificate's time.
    pub fn validity(&self, now_ms: u64) -> Validity {
        let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        if now_s < self.not_before_s {
            Validity::NotYet
        } else if now_s > self.not_after_s {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }

    /// A moment in milliseconds since 1970, for people.
    pub fn time_text(ms: u64) -> String {
        time_text(i64::try_from(ms / 1000).unwrap_or(i64::MAX))
    }

    /// The first moment of its time, for people.
    pub fn not_before_text(&self) -> String {
        time_text(self.not_before_s)
    }

    /// The last moment of its time, for people.
    pub fn not_after_text(&self) -> String {
        time_text(self.not_after_s)
    }

    /// The last second of its time, since 1970.
    pub fn not_after_s(&self) -> i64 {
        self.not_after_s
    }
}

/// SHA-256 of a certificate in DER.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

/// A fingerprint in upper-case hex pairs with colons.
pub fn fingerprint_text(fingerprint: &[u8]) -> String {
    let pairs: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

fn time_text(seconds: i64) -> String {
    ASN1Time::from_timestamp(seconds)
        .map_or_else(|_| format!("{seconds} s since 1970"), |time| time.to_string())
}

/// The subject alternative names that are host names or addresses, for people.
fn hosts(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let six = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            four.or(six).ok().map(|address| address.to_string())
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// A certificate chain and the private key of its first certificate.
pub struct Identity {
    certificates: Vec<Certificate>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads the chain and the key from PEM files.
    ///
    /// # Errors
    /// When a file is missing or unreadable, or the key does not belong to the certificate.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let certificate_pem = read(certificate, "certificate")?;
        let key_pem = read(key, "private key")?;
        Self::assemble(
            &certificate_pem,
            &certificate.display().to_string(),
            &key_pem,
            &key.display().to_string(),
        )
    }

    /// Reads the chain and the key from PEM texts.
    ///
    /// # Errors
    /// When one cannot be read, or the key does not belong to the certificate.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, CertificateError> {
        Self::assemble(certificate_pem, "the certificate", key_pem, "the private key")
    }

    fn assemble(
        certificate_pem: &[u8],
        certificate_origin: &str,
        key_pem: &[u8],
        key_origin: &str,
    ) -> Result<Self, CertificateError> {
        let certificates = Certificate::all_from_pem(certificate_pem, certificate_origin)?;
        let mut der = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| {
            CertificateError(format!("{key_origin}: wanted a private key in PEM, found: {error}"))
        })?;
        let key = pair(&certificates, &der);
        der.zeroize();
        let key = key.map_err(|problem| {
            CertificateError(format!("{key_origin} is not the key of {certificate_origin}: {problem}"))
        })?;
        Ok(Self { certificates, key: Arc::new(key) })
    }

    /// The certificate that the key belongs to.
    pub fn certificate(&self) -> &Certificate {
        self.certificates.first().expect("an identity has at least one certificate")
    }

    /// What TLS shows and signs with: the same chain and key for every peer.
    pub(crate) fn shown(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(self.key.clone()))
    }
}

/// The chain with its key, which the library holds in memory of its own and wipes.
fn pair(certificates: &[Certificate], key: &PrivateKeyDer<'_>) -> Result<CertifiedKey, rustls::Error> {
    let chain = certificates.iter().map(|certificate| certificate.der.clone()).collect();
    let pair = CertifiedKey::new(chain, any_supported_type(key)?);
    match pair.keys_match() {
        // A key whose public half cannot be computed is found out by the handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(error) => Err(error),
    }
}

/// The cryptography of every handshake: aws-lc-rs, X25519MLKEM768 first.
pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn read(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| CertificateError(format!("wanted a {what} in {}, found: {error}", path.display())))
}

/// A new self-signed certificate and its key, both in PEM.
pub struct Created {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: Zeroizing<String>,
}

/// What a new certificate says.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The subject's common name.
    pub name: &'a str,
    /// Host names and addresses that it speaks for.
    pub hosts: &'a [String],
    /// The present, in milliseconds since 1970.
    pub now_ms: u64,
    /// How many days it lives.
    pub days: u32,
}

/// Makes a P-256 key and a certificate that signs itself.
///
/// # Errors
/// When the name is empty or a host name cannot stand in a certificate.
#[allow(clippy::arithmetic_side_effects, reason = "days of u32 after a date of this era are within the type")]
pub fn self_signed(wanted: &Wanted<'_>) -> Result<Created, CertificateError> {
    if wanted.name.is_empty() {
        return Err(CertificateError("wanted a name for the certificate, found an empty one".into()));
    }
    let refused = |error: rcgen::Error| {
        CertificateError(format!("no certificate can be made for {:?}: {error}", wanted.name))
    };
    let mut params = rcgen::CertificateParams::new(wanted.hosts).map_err(refused)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, wanted.name);
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let day = 86_400;
    let start = rcgen::date_time_ymd(1970, 1, 1);
    let now_s = wanted.now_ms / 1000;
    // An hour back, for hosts whose clocks differ.
    params.not_before = start + Duration::from_secs(now_s.saturating_sub(3600));
    params.not_after = start + Duration::from_secs(now_s.saturating_add(day * u64::from(wanted.days)));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(refused)?;
    let certificate = params.self_signed(&key).map_err(refused)?;
    Ok(Created { certificate_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
}

/// A new key and a request for a certificate (PKCS #10), both in PEM.
pub struct Requested {
    /// The request.
    pub request_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: Zeroizing<String>,
}

/// Makes a P-256 key and asks for a certificate of this common name that speaks for these host names and addresses, for
/// an authority to sign.
///
/// # Errors
/// When the name is empty or a host name cannot stand in a certificate.
pub fn request(name: &str, hosts: &[String]) -> Result<Requested, CertificateError> {
    if name.is_empty() {
        return Err(CertificateError("wanted a name for the certificate, found an empty one".into()));
    }
    let refused = |error: rcgen::Error| {
        CertificateError(format!("no request for a certificate can be made for {name:?}: {error}"))
    };
    let mut params = rcgen::CertificateParams::new(hosts).map_err(refused)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(refused)?;
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(refused)?;
    Ok(Requested { request_pem: request, key_pem: Zeroizing::new(key.serialize_pem()) })
}

/// Days of a certificate made by our tools: ten years.
pub const DAYS: u32 = 3652;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn created(name: &str) -> Created {
        self_signed(&Wanted { name, hosts: &["127.0.0.1".into()], now_ms: NOW_MS, days: 10 }).unwrap()
    }

    #[test]
    fn a_new_identity_reads_back_with_its_name_and_time() {
        let created = created("client-1");
        let identity =
            Identity::from_pem(created.certificate_pem.as_bytes(), created.key_pem.as_bytes()).unwrap();
        let certificate = identity.certificate();
        assert_eq!(certificate.name(), "client-1");
        assert!(!certificate.is_authority());
        let day_ms = 86_400_000;
        assert_eq!(certificate.validity(NOW_MS), Validity::Valid);
        assert_eq!(certificate.validity(NOW_MS - day_ms), Validity::NotYet);
        assert_eq!(certificate.validity(NOW_MS + 11 * day_ms), Validity::Expired);
        assert_eq!(certificate.fingerprint_text().len(), 32 * 3 - 1);
    }

    #[test]
    fn a_certificate_tells_its_issuer_and_hosts() {
        let pem = created("client-1").certificate_pem;
        let certificate = &Certificate::all_from_pem(pem.as_bytes(), "x").unwrap()[0];
        assert_eq!((certificate.issuer(), certificate.hosts()), ("CN=client-1", &["127.0.0.1".into()][..]));
        assert!(certificate.serial_number().len() > 2);
        assert!(Certificate::time_text(NOW_MS).contains("2027"), "{}", Certificate::time_text(NOW_MS));
    }

    #[test]
    fn a_request_names_subject_hosts_and_the_public_half_of_its_key() {
        use rcgen::PublicKeyData as _;
        let requested = request("client-1", &["hsm-a".into(), "127.0.0.1".into()]).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(requested.request_pem.as_bytes()).unwrap();
        let (_, parsed) =
            x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).unwrap();
        let asked = &parsed.certification_request_info;
        let key = rcgen::KeyPair::from_pem(&requested.key_pem).unwrap();
        assert_eq!(asked.subject.to_string(), "CN=client-1");
        assert_eq!(asked.subject_pki.raw, key.subject_public_key_info());
        let asked_for = parsed.requested_extensions().unwrap().find_map(|extension| match extension {
            x509_parser::extensions::ParsedExtension::SubjectAlternativeName(names) => Some(names),
            _ => None,
        });
        let hosts = [GeneralName::DNSName("hsm-a"), GeneralName::IPAddress(&[127, 0, 0, 1])];
        assert_eq!(asked_for.unwrap().general_names, hosts);
        assert!(request("", &[]).is_err() && request("x", &["höst".into()]).is_err());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, two) = (created("one"), created("two"));
        let error = Identity::from_pem(one.certificate_pem.as_bytes(), two.key_pem.as_bytes()).err().unwrap();
        assert!(error.0.contains("is not the key of"), "{error}");
    }

    #[test]
    fn missing_and_empty_files_say_what_was_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let error = Identity::load(&certificate, &key).err().unwrap();
        assert!(error.0.contains("c.pem") && error.0.contains("No such file"), "{error}");
        std::fs::write(&certificate, "nothing").unwrap();
        std::fs::write(&key, "nothing").unwrap();
        let error = Identity::load(&certificate, &key).err().unwrap();
        assert!(error.0.contains("BEGIN CERTIFICATE"), "{error}");
        std::fs::write(&certificate, created("x").certificate_pem).unwrap();
        let error = Identity::load(&certificate, &key).err().unwrap();
        assert!(error.0.contains("k.pem") && error.0.contains("private key"), "{error}");
    }

    #[test]
    fn a_certificate_needs_a_name() {
        assert!(self_signed(&Wanted { name: "", hosts: &[], now_ms: NOW_MS, days: 1 }).is_err());
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert!(Certificate::from_der(&[0x30, 0x03, 1, 2, 3]).is_err());
        let mut der = Certificate::all_from_pem(created("x").certificate_pem.as_bytes(), "x").unwrap()[0]
            .der()
            .to_vec();
        der.push(0);
        assert!(Certificate::from_der(&der).is_err(), "a byte behind it");
    }
}
