//! The application instance: an Ed25519 key made at `C_Initialize` and proved on every link by signing the TLS
//! exporter value (RULES 2.6).
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// The label of the exporter value that is signed (RFC 8446, 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-hatoki-instance";
/// Bytes of the exporter value.
pub const EXPORTER_BYTES: usize = 32;

/// The key of one application instance. It lives as long as the process and crosses a fork with its tickets.
pub struct InstanceKey(Ed25519KeyPair);

impl InstanceKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(Ed25519KeyPair::generate().expect("aws-lc makes Ed25519 keys once its generator runs"))
    }

    /// Its public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// The proof for a connection with this exporter value: 64 bytes.
    pub fn prove(&self, exporter: &[u8; EXPORTER_BYTES]) -> Vec<u8> {
        self.0.sign(exporter).as_ref().to_vec()
    }
}

/// Whether `proof` was made by the instance `public` for the connection with this exporter value.
pub fn is_proved(public: &[u8], proof: &[u8], exporter: &[u8; EXPORTER_BYTES]) -> bool {
    public.len() == 32 && UnparsedPublicKey::new(&ED25519, public).verify(exporter, proof).is_ok()
}

/// The exporter value of a server's connection, once its handshake is done.
///
/// # Errors
/// When the handshake is not done.
pub fn server_exporter(connection: &rustls::ServerConnection) -> Result<[u8; EXPORTER_BYTES], rustls::Error> {
    connection.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
}

pub(crate) fn client_exporter(
    connection: &rustls::ClientConnection,
) -> Result<[u8; EXPORTER_BYTES], rustls::Error> {
    connection.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_instance_and_connection_only() {
        let (key, other) = (InstanceKey::generate(), InstanceKey::generate());
        let exporter = [7; EXPORTER_BYTES];
        let proof = key.prove(&exporter);
        assert!(is_proved(&key.public(), &proof, &exporter));
        assert!(!is_proved(&other.public(), &proof, &exporter), "another instance");
        assert!(!is_proved(&key.public(), &proof, &[8; EXPORTER_BYTES]), "another connection");
        assert!(!is_proved(&[], &proof, &exporter), "no instance");
        assert!(!is_proved(&key.public(), &[], &exporter), "no proof");
    }
}
