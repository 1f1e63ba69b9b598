//! The root key: 32 bytes from a file, the environment or a systemd credential, which wrap the domain secrets.
use std::env;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::config::RootKeySource;
use crate::data_dir::{read_private, write_new};
use crate::error::Error;

const TAG_BYTES: usize = 16;

/// Wraps and unwraps the appliance's secrets (AES-256-GCM, random 96-bit nonces, the purpose as associated data).
pub struct RootKey(RandomizedNonceKey);

impl RootKey {
    /// Takes the key from its source; a missing key *file* is made when `may_create` says so.
    ///
    /// # Errors
    /// When the key is missing, of another form, or readable by others.
    pub fn load(source: &RootKeySource, may_create: bool) -> Result<RootKey, Error> {
        let bytes = match source {
            RootKeySource::File(path) => from_file(path, may_create)?,
            RootKeySource::Env(name) => {
                let text = env::var(name).map(Zeroizing::new).map_err(|_| {
                    Error::environment(format!(
                        "root_key env:{name}: wanted 64 hexadecimal digits, found no variable"
                    ))
                })?;
                parse(text.as_bytes(), &format!("root_key env:{name}"))?
            }
            RootKeySource::Credential(name) => from_credential(name)?,
        };
        let key =
            RandomizedNonceKey::new(&AES_256_GCM, bytes.as_slice()).expect("an AES-256 key has 32 bytes");
        Ok(RootKey(key))
    }

    /// Encrypts a secret for one purpose: nonce, ciphertext and tag.
    pub fn wrap(&self, purpose: &str, secret: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(secret.len() + TAG_BYTES);
        sealed.extend_from_slice(secret);
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut sealed)
            .expect("AES-GCM takes inputs of less than 64 GiB");
        [nonce.as_ref().as_slice(), &sealed].concat()
    }

    /// Undoes [`RootKey::wrap`] for the same purpose.
    ///
    /// # Errors
    /// When the bytes were not wrapped by this root key for this purpose.
    pub fn unwrap(&self, purpose: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let wrong = || {
            Error::damaged(format!(
                "wanted {purpose} wrapped by this root key, found something else; is root_key the one that this \
                 data_dir was made with?"
            ))
        };
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let bytes = self
            .0
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), opened.as_mut_slice())
            .map_err(|_| wrong())?
            .len();
        opened.truncate(bytes);
        Ok(opened)
    }
}

fn from_file(path: &Path, may_create: bool) -> Result<Zeroizing<[u8; 32]>, Error> {
    if let Some(text) = read_private(path)? {
        return parse(&text, &format!("root key file {}", path.display()));
    }
    if !may_create {
        return Err(Error::environment(format!(
            "root key file {}: wanted the key that this data_dir was made with, found no file; bring it back from \
             where you keep its copy",
            path.display()
        )));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| Error::environment("the system gives no random bytes"))?;
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in bytes.iter() {
        text.push(hex_digit(byte >> 4));
        text.push(hex_digit(byte & 15));
    }
    text.push('\n');
    write_new(path, text.as_bytes(), 0o600)?;
    Ok(bytes)
}

fn from_credential(name: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let folder = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).ok_or_else(|| {
        Error::environment(format!(
            "root_key credential:{name}: wanted $CREDENTIALS_DIRECTORY, found none; start hsmd by systemd with \
             LoadCredential={name}:..."
        ))
    })?;
    let path = folder.join(name);
    let text = read_private(&path)?.ok_or_else(|| {
        Error::environment(format!(
            "root_key credential:{name}: wanted the credential, found no file {}",
            path.display()
        ))
    })?;
    match <[u8; 32]>::try_from(text.as_slice()) {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(_) => parse(&text, &format!("root_key credential:{name}")),
    }
}

fn parse(text: &[u8], place: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let digits = text.trim_ascii();
    let wrong = || {
        Error::environment(format!(
            "{place}: wanted 64 hexadecimal digits (32 bytes), found something else of {} bytes",
            text.len()
        ))
    };
    if digits.len() != 64 {
        return Err(wrong());
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (high, low) =
            pair.split_first().zip(pair.last()).map(|((h, _), l)| (*h, *l)).ok_or_else(wrong)?;
        *byte = digit(high).ok_or_else(wrong)? << 4 | digit(low).ok_or_else(wrong)?;
    }
    Ok(bytes)
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).expect("four bits are one digit")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_key_file_is_made_once_and_read_again() {
        let place = tempfile::tempdir().unwrap();
        let source = RootKeySource::File(place.path().join("root.key"));
        let wrapped =
            RootKey::load(&source, true).unwrap().wrap("domain a", b"thirty-two bytes of secret value");
        let again = RootKey::load(&source, false).unwrap();
        assert_eq!(
            again.unwrap("domain a", &wrapped).unwrap().as_slice(),
            b"thirty-two bytes of secret value"
        );
    }

    #[test]
    fn a_missing_key_file_of_a_used_folder_is_not_made_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("root.key");
        let error = RootKey::load(&RootKeySource::File(path.clone()), false).err().unwrap();
        assert!(error.to_string().contains("found no file") && !path.exists(), "{error}");
    }

    #[test]
    fn wrapped_secrets_open_only_for_their_purpose_and_key_and_unchanged() {
        let place = tempfile::tempdir().unwrap();
        let key = RootKey::load(&RootKeySource::File(place.path().join("a")), true).unwrap();
        let other = RootKey::load(&RootKeySource::File(place.path().join("b")), true).unwrap();
        let wrapped = key.wrap("domain a", b"secret");
        assert_ne!(wrapped, key.wrap("domain a", b"secret"));
        assert!(key.unwrap("domain b", &wrapped).is_err());
        assert!(other.unwrap("domain a", &wrapped).is_err());
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(key.unwrap("domain a", &changed).is_err(), "byte {at}");
        }
        for length in 0..wrapped.len() {
            assert!(key.unwrap("domain a", &wrapped[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_malformed_key_is_refused_without_showing_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("root.key");
        write_new(&path, b"not a key at all", 0o600).unwrap();
        let error = RootKey::load(&RootKeySource::File(path), true).err().unwrap().to_string();
        assert!(error.contains("64 hexadecimal digits") && !error.contains("not a key"), "{error}");
        let error =
            RootKey::load(&RootKeySource::Env("HATOKI_TEST_NO_SUCH_VARIABLE".into()), true).err().unwrap();
        assert!(error.to_string().contains("no variable"), "{error}");
    }
}
