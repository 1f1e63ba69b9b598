//! AWS-LC with nothing around it: how fast the work can be done at all. What it has no counterpart for is not offered.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::digest::{Digest, SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
};
use tests::p11::{Failed, Outcome};

use crate::work::{Contestant, Work, Worker, prove};

/// Its keys.
pub struct Library {
    p256: EcdsaKeyPair,
    p256_public: ParsedPublicKey,
    rsa: RsaKeyPair,
    rsa_public: ParsedPublicKey,
    data: Vec<u8>,
}

/// What of it fails is told as its function.
fn told<T>(function: &'static str) -> impl Fn(Unspecified) -> Outcome<T> {
    move |_| Err(Failed { function, rv: cryptoki_sys::CKR_FUNCTION_FAILED })
}

impl Library {
    /// With new keys.
    ///
    /// # Errors
    /// When the library makes none.
    pub fn new() -> Outcome<Self> {
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).or_else(told("P-256 pair"))?;
        let p256_public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, p256.public_key().as_ref())
            .or_else(|_| told("P-256 public key")(Unspecified))?;
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).or_else(told("RSA pair"))?;
        let rsa_public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa.public_key().as_ref())
            .or_else(|_| told("RSA public key")(Unspecified))?;
        Ok(Self { p256, p256_public, rsa, rsa_public, data: vec![0x5a; 1 << 20] })
    }

    fn signing(&self) -> impl FnMut() -> Outcome<[u8; 256]> {
        let (random, mut output) = (SystemRandom::new(), [0; 256]);
        move || {
            let made = self.rsa.sign(&RSA_PKCS1_SHA256, &random, &self.data[..64], &mut output);
            made.or_else(told("RSA")).map(|()| output)
        }
    }

    fn encrypting(&self, bytes: usize) -> Outcome<Worker<'_>> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map(LessSafeKey::new).or_else(told("AES key"))?;
        let (data, mut output, mut sequence) = (&self.data[..bytes], vec![0; bytes], 0u64);
        Ok(Box::new(move || {
            sequence += 1;
            let mut iv = [0; NONCE_LEN];
            iv[4..].copy_from_slice(&sequence.to_be_bytes());
            output.copy_from_slice(data);
            let nonce = Nonce::assume_unique_for_key(iv);
            key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut output).map(drop).or_else(told("GCM"))
        }))
    }

    fn decrypting(&self, bytes: usize) -> Outcome<Worker<'_>> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map(LessSafeKey::new).or_else(told("AES key"))?;
        let nonce = || Nonce::assume_unique_for_key([7; NONCE_LEN]);
        let mut sealed = self.data[..bytes].to_vec();
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).or_else(told("GCM"))?;
        let mut output = sealed.clone();
        Ok(Box::new(move || {
            output.copy_from_slice(&sealed);
            let made = key.open_in_place(nonce(), Aad::empty(), &mut output).or_else(told("GCM"))?;
            prove(made.len() == bytes, "GCM")
        }))
    }

    /// CBC over so many pieces, each continued from the one before.
    fn chaining(&self, bytes: usize, pieces: usize) -> Outcome<Worker<'_>> {
        let key = UnboundCipherKey::new(&AES_256, &[7; 32]).and_then(EncryptingKey::cbc);
        let key = key.or_else(told("AES key"))?;
        let (data, mut output) = (&self.data[..bytes], vec![0; bytes]);
        Ok(Box::new(move || {
            let mut iv = [7; 16];
            for _ in 0..pieces {
                output.copy_from_slice(data);
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                key.less_safe_encrypt(&mut output, context).map(drop).or_else(told("CBC"))?;
                iv.copy_from_slice(&output[bytes - 16..]);
            }
            Ok(())
        }))
    }
}

impl Contestant for Library {
    fn worker(&self, work: Work, _number: usize) -> Result<Option<Worker<'_>>, Failed> {
        let hash = Digest::import_less_safe(&self.data[..32], &SHA256).or_else(told("digest"))?;
        Ok(match work {
            Work::P256Sign => {
                Some(Box::new(move || self.p256.sign_digest(&hash).map(drop).or_else(told("P-256"))))
            }
            Work::P256Verify => {
                let signature = self.p256.sign_digest(&hash).or_else(told("P-256"))?;
                Some(Box::new(move || {
                    let verified = self.p256_public.verify_digest_sig(&hash, signature.as_ref());
                    prove(verified.is_ok(), "P-256 verification")
                }))
            }
            Work::Rsa2048Sign => {
                let mut sign = self.signing();
                Some(Box::new(move || sign().map(drop)))
            }
            Work::Rsa2048Verify => {
                let signature = self.signing()()?;
                Some(Box::new(move || {
                    let verified = self.rsa_public.verify_sig(&self.data[..64], &signature);
                    prove(verified.is_ok(), "RSA verification")
                }))
            }
            Work::Hmac1k => {
                let key = hmac::Key::new(HMAC_SHA256, &[7; 32]);
                Some(Box::new(move || {
                    prove(hmac::sign(&key, &self.data[..1024]).as_ref().len() == 32, "HMAC")
                }))
            }
            Work::Hmac1kVerify => {
                let key = hmac::Key::new(HMAC_SHA256, &[7; 32]);
                let mac = hmac::sign(&key, &self.data[..1024]);
                Some(Box::new(move || {
                    prove(hmac::verify(&key, &self.data[..1024], mac.as_ref()).is_ok(), "HMAC verification")
                }))
            }
            Work::Gcm1k => Some(self.encrypting(1 << 10)?),
            Work::Gcm1kDecrypt => Some(self.decrypting(1 << 10)?),
            Work::Gcm1m => Some(self.encrypting(1 << 20)?),
            Work::Cbc1k => Some(self.chaining(1 << 10, 1)?),
            Work::Cbc1m | Work::Stream256m | Work::Stream1g => {
                Some(self.chaining(1 << 20, work.pieces().unwrap_or(1))?)
            }
            Work::Digest1k => Some(Box::new(move || {
                prove(digest(&SHA256, &self.data[..1024]).as_ref().len() == 32, "SHA-256")
            })),
            Work::Random => {
                let mut output = [0; 32];
                Some(Box::new(move || rand::fill(&mut output).or_else(told("random"))))
            }
            Work::Session | Work::Login | Work::Find | Work::Attributes | Work::RoundTrip => None,
        })
    }
}
