//! Domain secrets: made by the first appliance, wrapped by the root key at rest, moved to another appliance by HPKE
//! to a key which that one made (RULES 3.2).
//!
//! ```text
//! new appliance:  export-request -> request file          (its private key stays behind, wrapped)
//! old appliance:  export request file -> export file      (fingerprints shown on both sides)
//! new appliance:  import export file                      (the request is used up)
//! ```
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rand;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::book::{Book, DomainRow, RequestRow};
use crate::error::Error;
use crate::hex;
use crate::root_key::RootKey;

const INFO: &[u8] = b"hatoki domain transfer 1";
const REQUEST_KIND: &str = "hatoki domain request";
const EXPORT_KIND: &str = "hatoki domain export";
const NAME_BYTES_MAX: usize = 64;

/// What a new appliance asks with; public.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    kind: String,
    format: u32,
    domain: String,
    public_key: String,
}

/// The domain secret, sealed to the key of one request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    kind: String,
    format: u32,
    domain: String,
    request: String,
    fingerprint: String,
    encapsulated: String,
    sealed: String,
}

/// A file of the procedure and the fingerprint that both sides compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The domain's name.
    pub domain: String,
    /// The file's text.
    pub text: String,
    /// SHA-256 of the request's key and domain name.
    pub request: [u8; 32],
}

/// The domains of one appliance.
pub struct Domains {
    book: Arc<Book>,
    root: Arc<RootKey>,
}

impl Domains {
    /// The domains kept in a database, wrapped by a root key.
    pub fn new(book: Arc<Book>, root: Arc<RootKey>) -> Self {
        Self { book, root }
    }

    /// Makes a domain of 32 random bytes and answers its fingerprint.
    ///
    /// # Errors
    /// When the name is taken or malformed.
    pub fn create(&self, name: &str) -> Result<[u8; 32], Error> {
        check_name(name)?;
        let mut secret = Zeroizing::new([0; 32]);
        rand::fill(secret.as_mut_slice())
            .map_err(|_| Error::environment("the system gives no random bytes"))?;
        self.keep(name, &secret)
    }

    /// The secret of a domain.
    ///
    /// # Errors
    /// When there is no such domain here, or the root key is another one.
    pub fn secret(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
        let row = self.row(name)?;
        let opened = self.root.unwrap(&purpose(name), &row.wrapped)?;
        let secret = <[u8; 32]>::try_from(opened.as_slice()).map(Zeroizing::new).map_err(|_| {
            Error::damaged(format!("domain {name}: wanted a secret of 32 bytes, found another length"))
        })?;
        if fingerprint(&secret).as_slice() != row.fingerprint {
            return Err(Error::damaged(format!(
                "domain {name}: its secret and its fingerprint do not belong together"
            )));
        }
        Ok(secret)
    }

    /// Names and fingerprints of all domains here.
    ///
    /// # Errors
    /// Those of the database.
    pub fn list(&self) -> Result<Vec<DomainRow>, Error> {
        self.book.domains()
    }

    /// Makes a key pair for this appliance and the request file that carries its public half.
    ///
    /// # Errors
    /// When the domain is here already, or its name is malformed.
    pub fn export_request(&self, name: &str) -> Result<Written, Error> {
        check_name(name)?;
        if self.row(name).is_ok() {
            return Err(Error::refused(format!(
                "domain {name}: wanted a domain to ask for, found it here already"
            )));
        }
        let (public, private) =
            SUITE.generate_key_pair().map_err(|_| Error::environment("the system makes no HPKE key pair"))?;
        let wrapped = self.root.wrap(&request_purpose(name), private.secret_bytes());
        self.book.set_request(name, &public.0, &wrapped)?;
        let request = Request {
            kind: REQUEST_KIND.into(),
            format: 1,
            domain: name.to_owned(),
            public_key: hex::encode(&public.0),
        };
        Ok(Written {
            domain: name.to_owned(),
            text: pretty(&request),
            request: request_fingerprint(name, &public.0),
        })
    }

    /// Seals a domain's secret to the key of a request.
    ///
    /// # Errors
    /// When the request is malformed, asks for another domain, or the domain is not here.
    pub fn export(&self, name: &str, request: &str) -> Result<Written, Error> {
        let request: Request = read(request, REQUEST_KIND, |r: &Request| (r.kind.clone(), r.format))?;
        if request.domain != name {
            return Err(Error::refused(format!(
                "request: wanted one for domain {name}, found one for domain {}; give -domain {} if that is meant",
                printable(&request.domain),
                printable(&request.domain)
            )));
        }
        let public = hex::decode(&request.public_key).filter(|key| key.len() == 32).ok_or_else(|| {
            Error::refused("request: wanted a public key of 32 bytes, found something else")
        })?;
        let secret = self.secret(name)?;
        let (asked, shown) = (request_fingerprint(name, &public), fingerprint(&secret));
        let aad = bind(name, &asked, &shown);
        let (encapsulated, sealed) = SUITE
            .seal(INFO, &aad, secret.as_slice(), &HpkePublicKey(public))
            .map_err(|_| Error::refused("request: its public key cannot be used; make a new request"))?;
        let export = Export {
            kind: EXPORT_KIND.into(),
            format: 1,
            domain: name.to_owned(),
            request: hex::encode(&asked),
            fingerprint: hex::encode(&shown),
            encapsulated: hex::encode(&encapsulated.0),
            sealed: hex::encode(&sealed),
        };
        Ok(Written { domain: name.to_owned(), text: pretty(&export), request: asked })
    }

    /// Takes a domain that was sealed to this appliance's pending request; answers its name and fingerprint.
    ///
    /// # Errors
    /// When no such request is pending, or the file was made for another one or changed.
    pub fn import(&self, export: &str) -> Result<(String, [u8; 32]), Error> {
        let export: Export = read(export, EXPORT_KIND, |e: &Export| (e.kind.clone(), e.format))?;
        let name = export.domain.as_str();
        check_name(name)?;
        let RequestRow { public, wrapped } = self.book.request(name)?.ok_or_else(|| {
            Error::refused(format!(
                "domain {name}: wanted a pending request of this appliance, found none; run `hsm domain export-request` \
                 and export again"
            ))
        })?;
        let asked = request_fingerprint(name, &public);
        if hex::decode(&export.request).as_deref() != Some(asked.as_slice()) {
            return Err(Error::refused(format!(
                "export: wanted one made for the pending request {}, found one made for another; export again with the \
                 last request file",
                hex::grouped(&asked)
            )));
        }
        let unreadable =
            || Error::refused("export: it does not open with the key of the pending request; export again");
        let private = self.root.unwrap(&request_purpose(name), &wrapped)?;
        let shown = hex::decode(&export.fingerprint).ok_or_else(unreadable)?;
        let encapsulated = EncapsulatedSecret(hex::decode(&export.encapsulated).ok_or_else(unreadable)?);
        let sealed = hex::decode(&export.sealed).ok_or_else(unreadable)?;
        let aad = bind(name, &asked, &shown);
        let opened = SUITE
            .open(&encapsulated, INFO, &aad, &sealed, &HpkePrivateKey::from(private.to_vec()))
            .map(Zeroizing::new)
            .map_err(|_| unreadable())?;
        let secret = <[u8; 32]>::try_from(opened.as_slice()).map(Zeroizing::new).map_err(|_| unreadable())?;
        if fingerprint(&secret).as_slice() != shown {
            return Err(unreadable());
        }
        let shown = self.keep(name, &secret)?;
        Ok((name.to_owned(), shown))
    }

    fn keep(&self, name: &str, secret: &[u8; 32]) -> Result<[u8; 32], Error> {
        let shown = fingerprint(secret);
        let wrapped = self.root.wrap(&purpose(name), secret);
        self.book.add_domain(&DomainRow { name: name.to_owned(), wrapped, fingerprint: shown.to_vec() })?;
        Ok(shown)
    }

    fn row(&self, name: &str) -> Result<DomainRow, Error> {
        self.book.domains()?.into_iter().find(|row| row.name == name).ok_or_else(|| {
            Error::refused(format!(
                "domain {}: wanted a domain of this appliance, found none of that name; see `hsm domain fingerprint`",
                printable(name)
            ))
        })
    }
}

fn purpose(name: &str) -> String {
    format!("domain secret {name}")
}

fn request_purpose(name: &str) -> String {
    format!("domain request key {name}")
}

/// The hash by which people compare domain secrets.
fn fingerprint(secret: &[u8; 32]) -> [u8; 32] {
    hash(&[b"hatoki domain fingerprint 1", secret])
}

fn request_fingerprint(name: &str, public: &[u8]) -> [u8; 32] {
    hash(&[b"hatoki domain request 1", name.as_bytes(), public])
}

/// Everything that the two sides must agree on, each part with its length.
fn bind(name: &str, request: &[u8], fingerprint: &[u8]) -> [u8; 32] {
    hash(&[b"hatoki domain export 1", name.as_bytes(), request, fingerprint])
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&u64::try_from(part.len()).expect("a length fits 64 bits").to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(good) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "domain name: wanted 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes or underscores, found {}",
        printable(name)
    )))
}

/// A foreign text fit for a message: bounded and escaped.
fn printable(text: &str) -> String {
    format!("{:?}", text.chars().take(NAME_BYTES_MAX).collect::<String>())
}

fn pretty<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("strings and numbers are always JSON");
    text.push('\n');
    text
}

fn read<T: for<'a> Deserialize<'a>>(
    text: &str,
    kind: &str,
    facts: impl Fn(&T) -> (String, u32),
) -> Result<T, Error> {
    let value: T = serde_json::from_str(text).map_err(|error| {
        Error::refused(format!(
            "wanted a file of kind {kind:?}, found something else (line {})",
            error.line()
        ))
    })?;
    match facts(&value) {
        (found, 1) if found == kind => Ok(value),
        (found, format) => Err(Error::refused(format!(
            "wanted a file of kind {kind:?} and format 1, found {} and format {format}",
            printable(&found)
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::RootKeySource;

    fn appliance() -> (tempfile::TempDir, Domains) {
        let place = tempfile::tempdir().unwrap();
        let (book, _) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
        let root = RootKey::load(&RootKeySource::File(place.path().join("root.key")), true).unwrap();
        let domains = Domains::new(Arc::new(book), Arc::new(root));
        (place, domains)
    }

    #[test]
    fn a_domain_moves_by_request_export_and_import() {
        let ((_a, old), (_b, new)) = (appliance(), appliance());
        let shown = old.create("default").unwrap();
        let request = new.export_request("default").unwrap();
        let export = old.export("default", &request.text).unwrap();
        assert_eq!(request.request, export.request, "both sides show one fingerprint");
        assert_eq!(new.import(&export.text).unwrap(), ("default".to_owned(), shown));
        assert_eq!(new.secret("default").unwrap(), old.secret("default").unwrap());
        let secret = hex::encode(old.secret("default").unwrap().as_slice());
        assert!(!export.text.contains(&secret) && !request.text.contains(&secret));
        assert!(new.import(&export.text).is_err(), "a request is used up");
    }

    #[test]
    fn an_export_for_another_request_is_refused() {
        let ((_a, old), (_b, new), (_c, third)) = (appliance(), appliance(), appliance());
        old.create("default").unwrap();
        new.export_request("default").unwrap();
        let other = third.export_request("default").unwrap();
        let export = old.export("default", &other.text).unwrap();
        let error = new.import(&export.text).unwrap_err().to_string();
        assert!(error.contains("made for another"), "{error}");
        let (_d, fresh) = appliance();
        assert!(fresh.import(&export.text).unwrap_err().to_string().contains("export-request"));
    }

    #[test]
    fn a_request_for_another_domain_or_of_another_kind_is_refused() {
        let ((_a, old), (_b, new)) = (appliance(), appliance());
        old.create("default").unwrap();
        let request = new.export_request("other").unwrap();
        assert!(old.export("default", &request.text).unwrap_err().to_string().contains("other"));
        assert!(old.export("other", &request.text).is_err());
        let request = new.export_request("default").unwrap();
        let export = old.export("default", &request.text).unwrap();
        assert!(old.export("default", &export.text).is_err());
        assert!(new.import(&request.text).is_err());
        assert!(new.import("").is_err() && new.import("{}").is_err());
    }

    #[test]
    fn every_change_to_an_export_is_refused() {
        let ((_a, old), (_b, new)) = (appliance(), appliance());
        old.create("default").unwrap();
        let request = new.export_request("default").unwrap();
        let export = old.export("default", &request.text).unwrap().text;
        for (at, byte) in export.bytes().enumerate() {
            if !byte.is_ascii_hexdigit() {
                continue;
            }
            let mut changed = export.clone().into_bytes();
            changed[at] = if byte == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(new.import(&changed).is_err(), "byte {at} of {export}");
        }
        new.import(&export).unwrap();
    }

    #[test]
    fn an_appliance_never_asks_for_or_takes_a_domain_it_has() {
        let ((_a, old), (_b, new)) = (appliance(), appliance());
        old.create("default").unwrap();
        let request = new.export_request("default").unwrap();
        let export = old.export("default", &request.text).unwrap();
        let made = new.create("default").unwrap();
        assert!(new.import(&export.text).is_err());
        assert_eq!(hex::encode(&made), hex::encode(&new.list().unwrap()[0].fingerprint));
        assert!(new.export_request("default").is_err());
        for name in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(new.create(name).is_err(), "{name}");
        }
    }
}
