//! The one function that seals (RULES 3.1).
//!
//! ```text
//! magic 4 | format 1 | purpose 1 | domain id 16 | key epoch 4 | nonce 24 | ciphertext | tag 16
//! '------------------------ associated data, then the context ----------'
//! ```
//! The context is built by the member from the request and the link, never from the envelope. There is no trial
//! decryption, and every reason for refusal has the one answer [`NotOpened`].
use aws_lc_rs::rand;
use zeroize::Zeroizing;

mod context;
#[cfg(test)]
mod tests;
mod xaes;

pub(crate) use context::{Context, Group, What};
use xaes::Xaes;

use crate::domain::DomainSecret;

/// What an envelope is for; each has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Record = 1,
    Batch = 2,
    Blob = 3,
    RunningState = 4,
    Ticket = 5,
    Credentials = 6,
    Manifest = 7,
}

impl Purpose {
    const ALL: [Purpose; 7] = [
        Purpose::Record,
        Purpose::Batch,
        Purpose::Blob,
        Purpose::RunningState,
        Purpose::Ticket,
        Purpose::Credentials,
        Purpose::Manifest,
    ];

    /// The name in the derivation of its key.
    const fn name(self) -> &'static [u8] {
        match self {
            Purpose::Record => b"record",
            Purpose::Batch => b"batch",
            Purpose::Blob => b"blob",
            Purpose::RunningState => b"running state",
            Purpose::Ticket => b"ticket",
            Purpose::Credentials => b"credentials",
            Purpose::Manifest => b"manifest",
        }
    }
}

/// It did not open: another context, another domain, damage or forgery. Nobody is told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotOpened;

const MAGIC: &[u8; 4] = b"HTKI";
const FORMAT: u8 = 1;
/// The only key epoch until `domain rotate` exists (RULES 3.2).
const EPOCH: u32 = 1;
const HEADER_BYTES: usize = 4 + 1 + 1 + 16 + 4;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// How much longer than its content an envelope is.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

/// Seals and opens under a domain.
pub(crate) struct Sealer {
    domain_id: [u8; 16],
    keys: Vec<Xaes>,
}

impl Sealer {
    pub(crate) fn new(domain: &DomainSecret) -> Self {
        let keys =
            Purpose::ALL.iter().map(|purpose| Xaes::new(&domain.derive(purpose.name(), EPOCH))).collect();
        Self { domain_id: domain.id(), keys }
    }

    fn key(&self, purpose: Purpose) -> &Xaes {
        &self.keys[purpose as usize - 1]
    }

    fn header(&self, purpose: Purpose) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[4] = FORMAT;
        header[5] = purpose as u8;
        header[6..22].copy_from_slice(&self.domain_id);
        header[22..].copy_from_slice(&EPOCH.to_be_bytes());
        header
    }

    /// Seals `plain` for a context; the envelope is [`OVERHEAD_BYTES`] longer.
    pub(crate) fn seal(&self, context: &Context<'_>, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).expect("the system's generator works, or no key is safe here");
        let purpose = context.what.purpose();
        let mut envelope = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        envelope.extend_from_slice(&self.header(purpose));
        envelope.extend_from_slice(&nonce);
        let associated = associated_data(&envelope, context);
        let mut body = Vec::with_capacity(plain.len() + TAG_BYTES);
        body.extend_from_slice(plain);
        self.key(purpose).seal(&nonce, &associated, &mut body);
        envelope.extend_from_slice(&body);
        envelope
    }

    /// Opens an envelope in the context that the caller expects.
    pub(crate) fn open(
        &self,
        context: &Context<'_>,
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        if envelope.len() < OVERHEAD_BYTES {
            return Err(NotOpened);
        }
        let (front, body) = envelope.split_at(HEADER_BYTES + NONCE_BYTES);
        let (header, nonce) = front.split_at(HEADER_BYTES);
        let purpose = context.what.purpose();
        if header != self.header(purpose) {
            return Err(NotOpened);
        }
        let nonce: &[u8; NONCE_BYTES] = nonce.try_into().map_err(|_| NotOpened)?;
        let associated = associated_data(front, context);
        self.key(purpose).open(nonce, &associated, body)
    }
}

fn associated_data(front: &[u8], context: &Context<'_>) -> Vec<u8> {
    let mut associated = front.to_vec();
    context.encode(&mut associated);
    associated
}
