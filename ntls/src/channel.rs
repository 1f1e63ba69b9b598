//! One TLS connection that carries frames: encryption, splitting, and what of a request has left. It touches no socket
//! and decides nothing about requests; `dial`, `link` and `exchange` do.
//!
//! ```text
//! queue -> plain bytes of several callers -> one run of records -> Outgoing, written without any lock
//! ```
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead as _, ErrorKind, Write as _};
use std::sync::Arc;

use rustls::ClientConnection;
use rustls_pki_types::{CertificateDer, ServerName};
use spec::platform::{Platform, Stream};
use spec::wipe::wipe_out;
use zeroize::Zeroizing;

use crate::certificate::{Certificate, Identity};
use crate::frame::{Frame, FrameReader, encode};
use crate::instance::{EXPORTER_BYTES, client_exporter};
use crate::reason;
use crate::tls::{ServerTrust, client_config};

/// Where an appliance listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// Host name or address (`ServerNameNN`).
    pub host: String,
    /// TCP port (`ServerPortNN`).
    pub port: u16,
}

impl ServerAddress {
    /// As TLS wants it. The error is a sentence for the operator.
    pub(crate) fn name(&self) -> Result<ServerName<'static>, String> {
        ServerName::try_from(self.host.clone()).map_err(|_| {
            format!("wanted a host name or an address as ServerName, found {:?}: correct it", self.host)
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Bytes read from the socket at once.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Plaintext handed to TLS at once, so that a large body does not stand in memory three times.
const PIECE_BYTES: usize = 64 << 10;
/// Longer requests are encrypted from where they lie; shorter ones of several callers become one run of records.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// The memory of more encrypted bytes is not kept for the next long request.
const CIPHER_BYTES_KEPT: usize = 2 << 20;

/// Bytes of records that carry so many plain ones, at most: each of 16 KiB has 22 more, and those at the ends of pieces are
/// shorter.
fn sealed_bytes_max(plain_bytes: usize) -> usize {
    plain_bytes.saturating_add(plain_bytes >> 9).saturating_add(1 << 10)
}

/// A connection without its socket.
pub(crate) struct Channel {
    tls: ClientConnection,
    frames: FrameReader,
    inbox: VecDeque<Frame>,
    /// Queued and not yet encrypted.
    plain: Zeroizing<Vec<u8>>,
    /// Plain bytes queued since the start, those in `plain` included.
    queued: u64,
    /// Encrypted and not yet taken for writing.
    cipher: Vec<u8>,
    /// Encrypted bytes since the start, those in `cipher` included.
    encrypted: u64,
    /// Runs of records of which some byte has not left: where their plain bytes end and their encrypted ones begin and end.
    runs: VecDeque<Run>,
    /// Where the plain bytes end that have left as a whole: their runs are forgotten.
    gone: u64,
    has_ended: bool,
    own: Certificate,
    server: ServerAddress,
    first: Vec<u8>,
}

struct Run {
    plain_end: u64,
    start: u64,
    end: u64,
}

impl Channel {
    /// A connection whose first flight is ready to be written. The error is a sentence for the operator.
    pub(crate) fn new(
        platform: &Arc<dyn Platform>,
        server: &ServerAddress,
        identity: &Identity,
        trust: &Arc<ServerTrust>,
    ) -> Result<Self, String> {
        let name = server.name()?;
        let config = client_config(platform, identity, trust)
            .map_err(|error| format!("this client's certificate or key cannot be used for TLS: {error}"))?;
        let mut tls = ClientConnection::new(Arc::new(config), name)
            .map_err(|error| format!("no TLS connection to {server} can be begun: {error}"))?;
        // The bound on what waits is ours (HA 5 (4)).
        tls.set_buffer_limit(None);
        let mut channel = Self {
            tls,
            frames: FrameReader::of_a_member(),
            inbox: VecDeque::new(),
            plain: Zeroizing::default(),
            queued: 0,
            cipher: Vec::new(),
            encrypted: 0,
            runs: VecDeque::new(),
            gone: 0,
            has_ended: false,
            own: identity.certificate().clone(),
            server: server.clone(),
            first: Vec::new(),
        };
        channel.collect();
        Ok(channel)
    }

    pub(crate) fn server(&self) -> &ServerAddress {
        &self.server
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The exporter value that the instance signs (RULES 2.6).
    pub(crate) fn exporter(&self) -> Result<[u8; EXPORTER_BYTES], String> {
        client_exporter(&self.tls).map_err(|error| format!("no exporter value: {error}"))
    }

    /// The group of the key exchange, as IANA names it.
    pub(crate) fn key_exchange_group(&self) -> Option<String> {
        self.tls.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()))
    }

    /// What the server showed in the handshake: its own certificate first, then those that lead to an authority.
    pub(crate) fn peer(&self) -> Option<Vec<CertificateDer<'static>>> {
        Some(self.tls.peer_certificates()?.iter().map(|shown| shown.clone().into_owned()).collect())
    }

    /// How the connection ended before the appliance had said who it is.
    pub(crate) fn early_end(&self, error: &io::Error) -> String {
        reason::early_end(&self.server, error, &self.first)
    }

    /// Queues the parts as one run of bytes; answers where it begins in the stream of plain bytes.
    pub(crate) fn queue(&mut self, parts: &[&[u8]]) -> u64 {
        let start = self.queued;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.queued = self.queued.saturating_add(bytes as u64);
        if bytes <= COPIED_BYTES_MAX {
            self.append(parts, bytes);
            return start;
        }
        self.seal(start);
        self.cipher.reserve(sealed_bytes_max(bytes));
        for piece in parts.iter().flat_map(|part| part.chunks(PIECE_BYTES)) {
            self.encrypt(piece);
        }
        self.end_run(self.queued);
        start
    }

    /// Copies into the plain bytes, wiping what they grow out of.
    fn append(&mut self, parts: &[&[u8]], bytes: usize) {
        let wanted = self.plain.len().saturating_add(bytes);
        if wanted > self.plain.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(wanted.next_power_of_two().max(4 << 10)));
            larger.extend_from_slice(&self.plain);
            self.plain = larger;
        }
        for part in parts {
            self.plain.extend_from_slice(part);
        }
    }

    /// Encrypts what is queued, as one run that ends at `end` of the plain bytes.
    fn seal(&mut self, end: u64) {
        if self.plain.is_empty() {
            return;
        }
        let mut plain = std::mem::take(&mut self.plain);
        for piece in plain.chunks(PIECE_BYTES) {
            self.encrypt(piece);
        }
        self.end_run(end);
        wipe_out(&mut plain);
        self.plain = plain;
    }

    /// After the handshake rustls encrypts from the caller's memory into its own records; no plaintext is kept.
    fn encrypt(&mut self, piece: &[u8]) {
        // Writing to a buffer without a limit does not fail.
        let _ = self.tls.writer().write_all(piece);
        self.collect();
    }

    fn end_run(&mut self, plain_end: u64) {
        let start = self.runs.back().map_or(0, |run| run.end);
        self.runs.push_back(Run { plain_end, start, end: self.encrypted });
    }

    /// Moves encrypted records out of rustls.
    fn collect(&mut self) {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.cipher) {
                Ok(count) => self.encrypted = self.encrypted.saturating_add(count as u64),
                Err(_) => return,
            }
        }
    }

    /// Bytes that are queued or encrypted and not yet taken for writing.
    pub(crate) fn backlog(&self) -> usize {
        self.plain.len().saturating_add(self.cipher.len())
    }

    /// Encrypts what is queued and hands all of it over for writing; `outgoing` must be written out before.
    pub(crate) fn take(&mut self, outgoing: &mut Outgoing) {
        self.seal(self.queued);
        outgoing.bytes.clear();
        // What a long request has taken is there for the next one, if that comes at once.
        let is_long = self.cipher.len() > READ_BYTES;
        outgoing.bytes.shrink_to(if is_long { CIPHER_BYTES_KEPT } else { READ_BYTES });
        outgoing.written = 0;
        std::mem::swap(&mut self.cipher, &mut outgoing.bytes);
        outgoing.end = self.encrypted;
        let left = outgoing.start();
        while self.runs.front().is_some_and(|run| run.end <= left) && self.runs.len() > 1 {
            self.gone = self.runs.pop_front().map_or(self.gone, |run| run.plain_end);
        }
    }

    /// The link is idle: what long requests have taken is given back.
    pub(crate) fn shrink(&mut self, outgoing: &mut Outgoing) {
        self.cipher.shrink_to(READ_BYTES);
        if outgoing.left() == 0 {
            outgoing.bytes.clear();
            outgoing.written = 0;
            outgoing.bytes.shrink_to(READ_BYTES);
        }
    }

    /// Whether an encrypted byte of what was queued at `start` may have left, when the first `left` encrypted bytes
    /// may have.
    pub(crate) fn has_left(&self, start: u64, left: u64) -> bool {
        let sealed = self.queued.saturating_sub(self.plain.len() as u64);
        if start >= sealed {
            return false;
        }
        if start < self.gone {
            return true;
        }
        self.runs.iter().find(|run| run.plain_end > start).is_none_or(|run| run.start < left)
    }

    /// Whether the peer has ended the TLS stream: nothing more will come, though its socket may stay open.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes encrypted bytes from the socket; those behind the end of the TLS stream are nobody's. the frames are in [`Channel::next_frame`] afterwards. After an error an
    /// alert for the peer may wait to be written.
    pub(crate) fn received(&mut self, mut cipher: &[u8]) -> Result<(), String> {
        if self.first.len() < 2 {
            self.first.extend(cipher.iter().take(32));
        }
        while !cipher.is_empty() && !self.has_ended {
            self.tls.read_tls(&mut cipher).map_err(|error| self.broken(&error))?;
            let outcome = self.tls.process_new_packets();
            self.collect();
            match outcome {
                Ok(state) => self.has_ended = state.peer_has_closed(),
                Err(error) => return Err(self.refused(&error)),
            }
            self.split()?;
        }
        Ok(())
    }

    #[cold]
    fn broken(&self, error: &io::Error) -> String {
        format!("TLS with {}: {error}", self.server)
    }

    #[cold]
    fn refused(&self, error: &rustls::Error) -> String {
        reason::tls(&self.server, error, &self.first, &self.own)
    }

    fn split(&mut self) -> Result<(), String> {
        loop {
            let mut reader = self.tls.reader();
            let mut plain = match reader.fill_buf() {
                // The end of the TLS stream ([`Channel::has_ended`]).
                Ok([]) => return Ok(()),
                Ok(plain) => plain,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("TLS with {}: {error}", self.server)),
            };
            // From where it was decrypted into the bodies of its frames.
            let count = plain.len();
            while let Some(frame) = self
                .frames
                .take(&mut plain)
                .map_err(|error| format!("{} sent no frame: {error}", self.server))?
            {
                self.inbox.push_back(frame);
            }
            reader.consume(count);
        }
    }

    /// Gives the memory of a body for one of the frames to come.
    pub(crate) fn lend(&mut self, body: Zeroizing<Vec<u8>>) {
        self.frames.lend(body);
    }

    /// The next frame that has come.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        self.inbox.pop_front()
    }

    /// Queues a goodbye.
    pub(crate) fn say_goodbye(&mut self, why: &str) {
        self.queue(&[&encode(&Frame::Close(why.to_owned()))]);
        self.seal(self.queued);
        self.tls.send_close_notify();
        self.collect();
    }
}

/// Encrypted bytes in the hands of whoever writes.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    /// Where `bytes` end in the stream of encrypted bytes.
    end: u64,
}

impl Outgoing {
    /// Bytes that are not written yet.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.written)
    }

    /// Where the first of them stands in the stream of encrypted bytes.
    pub(crate) fn start(&self) -> u64 {
        self.end.saturating_sub(self.left() as u64)
    }

    /// Where they end in it.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Writes as much as the socket takes; whether all of it is gone.
    pub(crate) fn write(&mut self, stream: &dyn Stream) -> io::Result<bool> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written = self.written.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_pause(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Whether an error only says that nothing happened in time.
pub(crate) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "channel_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
