//! The domain secret (RULES 3.2): 32 random bytes shared by the members of a group and by nobody else. Every sealing
//! key and the digest key come from it.
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

/// The secret of a domain. It has no `Debug`, is not cloned by accident and is wiped when dropped.
pub struct DomainSecret(Zeroizing<[u8; 32]>);

/// The length wanted from HKDF, in bytes.
struct Bytes(usize);

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl DomainSecret {
    /// Takes over the 32 bytes of a secret.
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    /// A public name of the domain, 16 bytes: equal on members of one domain, useless without the secret.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.derive(b"domain id", 0)[..16]);
        id
    }

    /// 32 bytes by HKDF-SHA-256 for one use and key epoch (RULES 3.1).
    pub(crate) fn derive(&self, purpose: &[u8], epoch: u32) -> Zeroizing<[u8; 32]> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"hatoki domain v1").extract(&*self.0);
        let mut key = Zeroizing::new([0; 32]);
        extracted
            .expand(&[purpose, &epoch.to_be_bytes()], Bytes(32))
            .and_then(|okm| okm.fill(&mut *key))
            .expect("HKDF-SHA-256 gives up to 8,160 bytes");
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_epochs_and_domains_have_keys_of_their_own() {
        let secret = |byte| DomainSecret::new(Zeroizing::new([byte; 32]));
        let derived = [
            *secret(1).derive(b"record", 1),
            *secret(1).derive(b"record", 2),
            *secret(1).derive(b"batch", 1),
            *secret(2).derive(b"record", 1),
        ];
        let unique: std::collections::HashSet<_> = derived.into_iter().collect();
        assert_eq!(unique.len(), 4);
        assert_ne!(secret(1).id(), secret(2).id());
    }
}
