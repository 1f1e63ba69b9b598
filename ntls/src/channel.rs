//! One TLS connection that carries frames: handshake, Hello, encryption and splitting. It decides nothing about
//! requests; `links` and `exchange` do.
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use spec::messages::{Hello, HelloReply, WIRE_VERSION};
use spec::platform::{Moment, Platform, Stream};
use zeroize::{Zeroize as _, Zeroizing};

use crate::certificate::{Certificate, Identity};
use crate::frame::{Frame, FrameReader, encode};
use crate::instance::{InstanceKey, client_exporter};
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
/// How long one wait within a handshake lasts before `stop` is asked again.
const TURN: Duration = Duration::from_millis(100);

/// What is needed to open a connection.
pub(crate) struct Opening<'a> {
    pub(crate) platform: &'a Arc<dyn Platform>,
    pub(crate) server: &'a ServerAddress,
    pub(crate) identity: &'a Identity,
    pub(crate) trust: &'a Arc<ServerTrust>,
    pub(crate) instance: &'a InstanceKey,
    pub(crate) software: &'a str,
    pub(crate) keep_alive: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    /// Whether to give up early.
    pub(crate) stop: &'a dyn Fn() -> bool,
}

/// A connection after its handshake and Hello.
pub(crate) struct Channel {
    tls: ClientConnection,
    stream: Arc<dyn Stream>,
    frames: FrameReader,
    inbox: VecDeque<Frame>,
    /// Encrypted bytes that are not written yet, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    /// Encrypted bytes written since the start.
    sent: u64,
    plain: Zeroizing<Vec<u8>>,
    own: Certificate,
    server: ServerAddress,
    first: Vec<u8>,
}

impl Channel {
    /// Connects, shakes hands, says Hello and reads the answer. The error is a sentence for the operator.
    pub(crate) fn open(opening: &Opening<'_>) -> Result<(Self, HelloReply), String> {
        let server = opening.server;
        let name = ServerName::try_from(server.host.clone()).map_err(|_| {
            format!("wanted a host name or an address as ServerName, found {:?}: correct it", server.host)
        })?;
        let config = client_config(opening.platform, opening.identity, opening.trust)
            .map_err(|error| format!("this client's certificate or key cannot be used for TLS: {error}"))?;
        let mut tls = ClientConnection::new(Arc::new(config), name)
            .map_err(|error| format!("no TLS connection to {server} can be begun: {error}"))?;
        // The bound on what waits is ours (HA 5 (4)).
        tls.set_buffer_limit(None);
        let stream = opening
            .platform
            .connect(&server.host, server.port, opening.connect_timeout, opening.keep_alive)
            .map_err(|error| reason::connect(server, &error))?;
        let mut channel = Self {
            tls,
            stream: Arc::from(stream),
            frames: FrameReader::new(),
            inbox: VecDeque::new(),
            outgoing: Vec::new(),
            written: 0,
            sent: 0,
            plain: Zeroizing::new(vec![0; READ_BYTES]),
            own: opening.identity.certificate().clone(),
            server: server.clone(),
            first: Vec::new(),
        };
        let reply = channel.greet(opening).inspect_err(|_| channel.stream.shutdown())?;
        Ok((channel, reply))
    }

    fn greet(&mut self, opening: &Opening<'_>) -> Result<HelloReply, String> {
        let until = opening.platform.now().after(opening.handshake_timeout);
        self.collect();
        while self.tls.is_handshaking() {
            self.turn(opening, until)?;
        }
        let exporter = client_exporter(&self.tls).map_err(|error| format!("no exporter value: {error}"))?;
        let hello = Hello {
            version: WIRE_VERSION,
            capabilities: 0,
            instance: opening.instance.public().to_vec(),
            proof: opening.instance.prove(&exporter),
            software: opening.software.to_owned(),
        };
        self.queue(&[&encode(&Frame::Hello(hello))]);
        loop {
            match self.inbox.pop_front() {
                Some(Frame::HelloReply(reply)) => return self.check(reply),
                Some(Frame::Close(why)) => {
                    return Err(format!("{} closed the connection: {why}", self.server));
                }
                Some(other) => {
                    return Err(format!(
                        "{}: wanted a HelloReply, found a {:?} frame",
                        self.server,
                        other.kind()
                    ));
                }
                None => self.turn(opening, until)?,
            }
        }
    }

    fn check(&self, reply: HelloReply) -> Result<HelloReply, String> {
        if !reply.refusal.is_empty() {
            return Err(format!("{} refuses the link: {}", self.server, reply.refusal));
        }
        if reply.version == 0 || reply.version > WIRE_VERSION {
            return Err(format!(
                "{} speaks wire version {}; wanted 1 to {WIRE_VERSION}: upgrade this client",
                self.server, reply.version
            ));
        }
        Ok(reply)
    }

    /// Writes what waits and reads once.
    fn turn(&mut self, opening: &Opening<'_>, until: Moment) -> Result<(), String> {
        // An error of the write is not yet the reason: an alert may wait to be read.
        let wrote = self.flush(TURN);
        let mut cipher = vec![0; READ_BYTES];
        match self.stream.read(&mut cipher, TURN) {
            Ok(0) => {
                let error = wrote.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into());
                Err(reason::early_end(&self.server, &error, &self.first))
            }
            Ok(count) => self.received(cipher.get(..count).unwrap_or_default()),
            Err(error) if is_pause(&error) => {
                if (opening.stop)() {
                    return Err("the client is stopping".into());
                }
                if opening.platform.now() >= until {
                    return Err(reason::early_end(&self.server, &ErrorKind::TimedOut.into(), &self.first));
                }
                Ok(())
            }
            Err(error) => Err(reason::early_end(&self.server, &error, &self.first)),
        }
    }

    /// The two directions' socket, for the thread that reads.
    pub(crate) fn stream(&self) -> Arc<dyn Stream> {
        self.stream.clone()
    }

    /// The group of the key exchange, as IANA names it.
    pub(crate) fn key_exchange_group(&self) -> Option<String> {
        self.tls.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()))
    }

    /// Encrypts the parts as one run of bytes and answers where it begins in the stream of encrypted bytes.
    ///
    /// After the handshake rustls encrypts from the caller's memory into its own records; no plaintext is kept.
    pub(crate) fn queue(&mut self, parts: &[&[u8]]) -> u64 {
        let start = self.sent.saturating_add(self.backlog() as u64);
        self.outgoing.drain(..self.written);
        self.written = 0;
        for piece in parts.iter().flat_map(|part| part.chunks(PIECE_BYTES)) {
            // Writing to a buffer without a limit does not fail.
            let _ = self.tls.writer().write_all(piece);
            self.collect();
        }
        start
    }

    /// Moves encrypted records out of rustls.
    fn collect(&mut self) {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.outgoing).is_err() {
                return;
            }
        }
    }

    /// Encrypted bytes that are not written yet.
    pub(crate) fn backlog(&self) -> usize {
        self.outgoing.len().saturating_sub(self.written)
    }

    /// Encrypted bytes written so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Writes what waits, as far as the socket takes it in one `timeout`; whether all of it is gone.
    pub(crate) fn flush(&mut self, timeout: Duration) -> io::Result<bool> {
        let Some(rest) = self.outgoing.get(self.written..).filter(|rest| !rest.is_empty()) else {
            return Ok(true);
        };
        match self.stream.write(rest, timeout) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.written = self.written.saturating_add(count);
                self.sent = self.sent.saturating_add(count as u64);
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
        // A write that took less than all has used up its time: no second one in this turn.
        if self.backlog() > 0 {
            return Ok(false);
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(READ_BYTES);
        self.written = 0;
        Ok(true)
    }

    /// Takes encrypted bytes from the socket; the frames are in [`Channel::next_frame`] afterwards.
    pub(crate) fn received(&mut self, mut cipher: &[u8]) -> Result<(), String> {
        if self.first.len() < 2 {
            self.first.extend(cipher.iter().take(32));
        }
        while !cipher.is_empty() {
            self.tls.read_tls(&mut cipher).map_err(|error| format!("TLS with {}: {error}", self.server))?;
            let outcome = self.tls.process_new_packets();
            self.collect();
            if let Err(error) = outcome {
                // The alert that tells the peer is on its way at best.
                let _ = self.flush(Duration::from_millis(1));
                return Err(reason::tls(&self.server, &error, &self.first, &self.own));
            }
            self.split()?;
        }
        Ok(())
    }

    fn split(&mut self) -> Result<(), String> {
        loop {
            let count = match self.tls.reader().read(&mut self.plain) {
                // The end of the TLS stream; the end of the socket follows and is seen there.
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("TLS with {}: {error}", self.server)),
            };
            let mut plain = self.plain.get(..count).unwrap_or_default();
            while let Some(frame) = self
                .frames
                .take(&mut plain)
                .map_err(|error| format!("{} sent no frame: {error}", self.server))?
            {
                self.inbox.push_back(frame);
            }
            self.plain.get_mut(..count).unwrap_or_default().zeroize();
        }
    }

    /// The next frame that has come.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        self.inbox.pop_front()
    }

    /// Says goodbye as far as that goes at once, and ends the connection.
    pub(crate) fn close(&mut self, why: &str) {
        self.queue(&[&encode(&Frame::Close(why.to_owned()))]);
        self.tls.send_close_notify();
        self.collect();
        let _ = self.flush(Duration::from_millis(1));
        self.stream.shutdown();
    }
}

/// Whether an error only says that nothing happened in time.
pub(crate) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
