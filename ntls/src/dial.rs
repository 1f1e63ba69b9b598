//! One attempt to connect: the addresses of a server in turn, the handshake, Hello and its answer. Nothing here waits:
//! whoever drives it polls its stream and comes back.
//!
//! ```text
//! connecting --first byte taken--> shaking hands --> Hello said --HelloReply--> done
//!     | refused: the next address        | no TLS, not registered, ... : a sentence
//! ```
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use spec::messages::{Hello, HelloReply, WIRE_VERSION};
use spec::platform::{Moment, Platform, SocketAddr, Stream, Watched};

use crate::certificate::Identity;
use crate::channel::{Channel, Outgoing, READ_BYTES, ServerAddress, is_pause};
use crate::frame::{Frame, encode};
use crate::instance::InstanceKey;
use crate::reason;
use crate::tls::ServerTrust;

/// What is needed to open a connection.
pub(crate) struct Opening<'a> {
    pub(crate) platform: &'a Arc<dyn Platform>,
    pub(crate) server: &'a ServerAddress,
    pub(crate) identity: &'a Identity,
    pub(crate) trust: &'a Arc<ServerTrust>,
    pub(crate) software: &'a str,
    pub(crate) keep_alive: bool,
    /// The addresses of the server, at least one.
    pub(crate) addresses: Vec<SocketAddr>,
    /// How long the addresses may take, all together, each as long as the others.
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
}

/// A connection on its way up.
pub(crate) struct Dial {
    platform: Arc<dyn Platform>,
    software: String,
    keep_alive: bool,
    handshake_timeout: Duration,
    /// How long one address may take to connect.
    address_timeout: Duration,
    /// Those not tried yet.
    addresses: VecDeque<SocketAddr>,
    channel: Channel,
    stream: Arc<dyn Stream>,
    outgoing: Outgoing,
    /// Whether the peer has taken a byte.
    connected: bool,
    said: bool,
    until: Moment,
    buffer: Vec<u8>,
}

/// A connection after its handshake and Hello.
pub(crate) struct Opened {
    pub(crate) channel: Channel,
    pub(crate) stream: Arc<dyn Stream>,
    pub(crate) outgoing: Outgoing,
    pub(crate) hello: HelloReply,
}

impl Dial {
    /// Begins. The error is a sentence for the operator.
    pub(crate) fn begin(opening: Opening<'_>) -> Result<Self, String> {
        let server = opening.server;
        let channel = Channel::new(opening.platform, server, opening.identity, opening.trust)?;
        let mut addresses = VecDeque::from(opening.addresses);
        let many = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let address_timeout = opening.connect_timeout.checked_div(many).unwrap_or_default();
        let stream = next_stream(&**opening.platform, server, &mut addresses, opening.keep_alive)?;
        Ok(Self {
            platform: opening.platform.clone(),
            software: opening.software.to_owned(),
            keep_alive: opening.keep_alive,
            handshake_timeout: opening.handshake_timeout,
            addresses,
            channel,
            stream,
            outgoing: Outgoing::default(),
            connected: false,
            said: false,
            address_timeout,
            until: opening.platform.now().after(address_timeout),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// What to poll.
    pub(crate) fn watched(&self) -> Watched {
        let waits = !self.connected || self.outgoing.left() > 0 || self.channel.backlog() > 0;
        Watched::new(self.stream.clone(), waits)
    }

    /// When it is given up, or moves on to the next address.
    pub(crate) fn until(&self) -> Moment {
        self.until
    }

    /// Ends it.
    pub(crate) fn give_up(&self) {
        self.stream.shutdown();
    }

    /// Writes and reads what can be; true once the appliance has answered the Hello. The error is a sentence for the
    /// operator, and the connection is of no more use then.
    pub(crate) fn turn(&mut self, instance: &InstanceKey) -> Result<Option<HelloReply>, String> {
        let outcome = self.step(instance);
        if outcome.is_err() {
            // An alert that tells the peer is on its way at best.
            let _ = self.write();
            self.stream.shutdown();
        }
        outcome
    }

    fn step(&mut self, instance: &InstanceKey) -> Result<Option<HelloReply>, String> {
        let written = self.write();
        if let Err(error) = &written
            && !self.connected
        {
            let refused = reason::connect(self.channel.server(), error);
            return self.next_address(refused).map(|()| None);
        }
        loop {
            if let Some(reply) = self.greet(instance)? {
                return Ok(Some(reply));
            }
            if self.channel.has_ended() {
                return Err(self.channel.early_end(&ErrorKind::UnexpectedEof.into()));
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) => {
                    let error = written.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into());
                    return Err(self.channel.early_end(&error));
                }
                Ok(count) => self.channel.received(self.buffer.get(..count).unwrap_or_default())?,
                Err(error) if is_pause(&error) => return self.pause(),
                Err(error) if !self.connected => {
                    let refused = reason::connect(self.channel.server(), &error);
                    return self.next_address(refused).map(|()| None);
                }
                Err(error) => return Err(self.channel.early_end(&error)),
            }
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        loop {
            if self.outgoing.left() == 0 {
                self.channel.take(&mut self.outgoing);
            }
            let before = self.outgoing.left();
            let all = self.outgoing.write(&*self.stream)?;
            if self.outgoing.left() < before && !self.connected {
                self.connected = true;
                self.until = self.platform.now().after(self.handshake_timeout);
            }
            if !all || self.channel.backlog() == 0 {
                return Ok(());
            }
        }
    }

    fn pause(&mut self) -> Result<Option<HelloReply>, String> {
        // What the last bytes from the peer have made ready goes out now.
        self.write().map_err(|error| match self.connected {
            true => self.channel.early_end(&error),
            false => reason::connect(self.channel.server(), &error),
        })?;
        if self.platform.now() < self.until {
            return Ok(None);
        }
        let error = ErrorKind::TimedOut.into();
        match self.connected {
            true => Err(self.channel.early_end(&error)),
            false => self.next_address(reason::connect(self.channel.server(), &error)).map(|()| None),
        }
    }

    fn next_address(&mut self, refused: String) -> Result<(), String> {
        if self.addresses.is_empty() {
            return Err(refused);
        }
        let server = self.channel.server();
        let before = std::mem::replace(
            &mut self.stream,
            next_stream(&*self.platform, server, &mut self.addresses, self.keep_alive)?,
        );
        before.shutdown();
        self.until = self.platform.now().after(self.address_timeout);
        Ok(())
    }

    /// Says Hello once the handshake is done, and looks for the answer.
    fn greet(&mut self, instance: &InstanceKey) -> Result<Option<HelloReply>, String> {
        if self.channel.is_handshaking() {
            return Ok(None);
        }
        if !self.said {
            self.said = true;
            let hello = Hello {
                version: WIRE_VERSION,
                capabilities: 0,
                instance: instance.public().to_vec(),
                proof: instance.prove(&self.channel.exporter()?),
                software: self.software.clone(),
            };
            self.channel.queue(&[&encode(&Frame::Hello(hello))]);
            return Ok(None);
        }
        let server = self.channel.server().clone();
        match self.channel.next_frame() {
            None => Ok(None),
            Some(Frame::HelloReply(reply)) => check(&server, reply).map(Some),
            Some(Frame::Close(why)) => Err(format!("{server} closed the connection: {why}")),
            Some(other) => Err(format!("{server}: wanted a HelloReply, found a {:?} frame", other.kind())),
        }
    }

    /// The connection, after [`turn`](Self::turn) has answered this.
    pub(crate) fn into_opened(self, hello: HelloReply) -> Opened {
        Opened { channel: self.channel, stream: self.stream, outgoing: self.outgoing, hello }
    }
}

/// The first of the addresses to which a connection can be begun.
fn next_stream(
    platform: &dyn Platform,
    server: &ServerAddress,
    addresses: &mut VecDeque<SocketAddr>,
    keep_alive: bool,
) -> Result<Arc<dyn Stream>, String> {
    let mut refused = format!("{server} has no address");
    while let Some(address) = addresses.pop_front() {
        match platform.connect(address, keep_alive) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = reason::connect(server, &error),
        }
    }
    Err(refused)
}

fn check(server: &ServerAddress, reply: HelloReply) -> Result<HelloReply, String> {
    if !reply.refusal.is_empty() {
        return Err(format!("{server} refuses the link: {}", reply.refusal));
    }
    if reply.version == 0 || reply.version > WIRE_VERSION {
        return Err(format!(
            "{server} speaks wire version {}; wanted 1 to {WIRE_VERSION}: upgrade this client",
            reply.version
        ));
    }
    Ok(reply)
}
