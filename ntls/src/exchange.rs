//! Exchange: the blocking way to ask one appliance, for tools and tests (HA 4.1). One connection, one thread, one
//! request at a time.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use spec::messages::{Call, HelloReply, ReplyBody, ReplyHeader, RequestBody, RequestHeader};
use spec::platform::{Moment, Park, Platform, Stream, Watched};
use zeroize::Zeroizing;

use crate::certificate::Identity;
use crate::channel::{Channel, Outgoing, READ_BYTES, ServerAddress, is_pause};
use crate::dial::{Dial, Opened, Opening};
use crate::frame::{Frame, encode};
use crate::instance::InstanceKey;
use crate::names;
use crate::platform::System;
use crate::tls::ServerTrust;

/// Why an exchange failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeError {
    /// There is no connection: a sentence for the operator.
    NotConnected(String),
    /// The connection was lost; what was sent may have been executed.
    Lost(String),
    /// No answer within the time.
    Silent {
        /// How long it was waited.
        waited_ms: u64,
    },
    /// The appliance asks for patience; nothing was executed.
    Busy {
        /// How long to wait, in milliseconds.
        after_ms: u32,
    },
    /// What came is not the answer to what was asked.
    Unexpected(String),
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(reason) => f.write_str(reason),
            Self::Lost(reason) => write!(f, "{reason}; whether the request was carried out is not known"),
            Self::Silent { waited_ms } => write!(f, "no answer for {waited_ms} ms; look at the log of hsmd"),
            Self::Busy { after_ms } => write!(f, "the appliance is busy; try again in {after_ms} ms"),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ExchangeError {}

/// How to open a session.
pub struct Target<'a> {
    /// Where the appliance listens.
    pub server: ServerAddress,
    /// This client's certificate and key.
    pub identity: &'a Identity,
    /// The trusted server certificates.
    pub trust: &'a Arc<ServerTrust>,
    /// The application instance that tickets will be bound to.
    pub instance: &'a InstanceKey,
    /// This software and its release, for the appliance's log.
    pub software: &'a str,
    /// How long connecting and each answer may take, in milliseconds.
    pub timeout_ms: u64,
}

/// A connection to one appliance.
pub struct Session {
    platform: Arc<dyn Platform>,
    channel: Channel,
    stream: Arc<dyn Stream>,
    outgoing: Outgoing,
    park: Arc<dyn Park>,
    hello: HelloReply,
    timeout: Duration,
    group: Vec<u8>,
    generation: u64,
    next_tag: u64,
    cipher: Vec<u8>,
    last: ReplyHeader,
}

impl Session {
    /// Connects and says Hello.
    ///
    /// # Errors
    /// [`ExchangeError::NotConnected`] with the reason.
    pub fn open(target: &Target<'_>) -> Result<Self, ExchangeError> {
        let platform = System::shared();
        let timeout = Duration::from_millis(target.timeout_ms);
        let park = platform.parker();
        let addresses = names::look_up(&*platform, &target.server).map_err(ExchangeError::NotConnected)?;
        let mut dial = Dial::begin(Opening {
            platform: &platform,
            server: &target.server,
            addresses,
            identity: target.identity,
            trust: target.trust,
            software: target.software,
            keep_alive: true,
            connect_timeout: timeout,
            handshake_timeout: timeout,
        })
        .map_err(ExchangeError::NotConnected)?;
        let hello = loop {
            match dial.turn(target.instance).map_err(ExchangeError::NotConnected)? {
                Some(hello) => break hello,
                None => platform.poll(&mut [dial.watched()], &*park, dial.until()),
            }
        };
        let Opened { channel, stream, outgoing, hello } = dial.into_opened(hello);
        Ok(Self {
            platform,
            channel,
            stream,
            outgoing,
            park,
            hello,
            timeout,
            group: Vec::new(),
            generation: 0,
            next_tag: 1,
            cipher: vec![0; READ_BYTES],
            last: ReplyHeader::default(),
        })
    }

    /// What the appliance said first.
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// The key-exchange group, as IANA names it.
    pub fn negotiated_group(&self) -> Option<String> {
        self.channel.key_exchange_group()
    }

    /// The group and generation that later calls name; an empty group means "whatever the partition is in".
    pub fn in_group(&mut self, group: &[u8], generation: u64) {
        group.clone_into(&mut self.group);
        self.generation = generation;
    }

    /// The header of the last reply.
    pub fn last_header(&self) -> &ReplyHeader {
        &self.last
    }

    /// Asks a partition and waits for the answer; `ticket` is empty when there is none.
    ///
    /// # Errors
    /// When no readable answer comes. An answer whose outcome is not OK is no error here.
    pub fn call(&mut self, partition: u64, call: Call, ticket: &[u8]) -> Result<ReplyBody, ExchangeError> {
        let body = RequestBody {
            group: self.group.clone(),
            generation: self.generation,
            ticket: ticket.to_vec(),
            call: Some(call),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.encoded_len()));
        body.encode(&mut *bytes).expect("a buffer of the encoded length takes it");
        drop(body);
        self.call_bytes(partition, &bytes)
    }

    /// As [`call`](Self::call), with a body that the caller has encoded.
    ///
    /// # Errors
    /// When no readable answer comes.
    pub fn call_bytes(&mut self, partition: u64, body: &[u8]) -> Result<ReplyBody, ExchangeError> {
        let tag = self.next_tag;
        self.next_tag = tag.saturating_add(1);
        let remaining_ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        let header = RequestHeader { tag, partition, remaining_ms, ..RequestHeader::default() };
        self.send(&Frame::Request(header, Zeroizing::new(body.to_vec())))?;
        let mut until = self.deadline();
        loop {
            match self.receive_until(until)? {
                Frame::Reply(header, body) if header.tag == tag => {
                    self.last = header;
                    return ReplyBody::decode(body.as_slice()).map_err(|error| {
                        ExchangeError::Unexpected(format!("the reply cannot be read: {error}"))
                    });
                }
                Frame::Busy(busy, after_ms) if busy == tag => return Err(ExchangeError::Busy { after_ms }),
                Frame::Progress(busy) if busy == tag => until = self.deadline(),
                Frame::HelloReply(hello) => self.hello = hello,
                Frame::Close(reason) => return Err(ExchangeError::Lost(reason)),
                // Late answers to requests that were given up, and Pongs.
                Frame::Reply(..) | Frame::Busy(..) | Frame::Progress(_) | Frame::Pong(_) => {}
                other => {
                    return Err(ExchangeError::Unexpected(format!(
                        "wanted a reply, found a {:?} frame",
                        other.kind()
                    )));
                }
            }
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn send(&mut self, frame: &Frame) -> Result<(), ExchangeError> {
        self.send_bytes(&encode(frame))
    }

    /// Sends bytes inside the TLS connection as they are (for tests that send what is no frame).
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ExchangeError> {
        self.channel.queue(&[bytes]);
        let until = self.deadline();
        loop {
            if self.outgoing.left() == 0 {
                self.channel.take(&mut self.outgoing);
            }
            match self.outgoing.write(&*self.stream) {
                Ok(true) if self.channel.backlog() == 0 => return Ok(()),
                Ok(true) => {}
                Ok(false) if self.platform.now() < until => self.poll(true, until),
                Ok(false) => return Err(ExchangeError::Silent { waited_ms: self.timeout_ms() }),
                Err(error) => return Err(ExchangeError::Lost(format!("the connection broke: {error}"))),
            }
        }
    }

    fn poll(&self, for_writing: bool, until: Moment) {
        let mut watched = Watched::new(self.stream.clone(), for_writing);
        self.platform.poll(std::slice::from_mut(&mut watched), &*self.park, until);
    }

    /// The next frame. Pings are answered on the way.
    ///
    /// # Errors
    /// When none comes within the session's timeout or the connection ends.
    pub fn receive(&mut self) -> Result<Frame, ExchangeError> {
        self.receive_until(self.deadline())
    }

    fn receive_until(&mut self, until: Moment) -> Result<Frame, ExchangeError> {
        loop {
            match self.channel.next_frame() {
                Some(Frame::Ping(number)) => self.send(&Frame::Pong(number))?,
                Some(frame) => return Ok(frame),
                None => self.read_once(until)?,
            }
        }
    }

    fn read_once(&mut self, until: Moment) -> Result<(), ExchangeError> {
        let now = self.platform.now();
        if now >= until {
            return Err(ExchangeError::Silent { waited_ms: self.timeout_ms() });
        }
        if self.channel.has_ended() {
            return Err(ExchangeError::Lost("the appliance closed the connection".into()));
        }
        match self.stream.read(&mut self.cipher) {
            Ok(0) => Err(ExchangeError::Lost("the appliance closed the connection".into())),
            Ok(count) => {
                let bytes = self.cipher.get(..count).unwrap_or_default();
                self.channel.received(bytes).map_err(ExchangeError::Lost)
            }
            Err(error) if is_pause(&error) => {
                self.poll(false, until);
                Ok(())
            }
            Err(error) => Err(ExchangeError::Lost(format!("the connection broke: {error}"))),
        }
    }

    fn deadline(&self) -> Moment {
        self.platform.now().after(self.timeout)
    }

    fn timeout_ms(&self) -> u64 {
        u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.channel.say_goodbye("done");
        if self.outgoing.left() > 0 {
            let _ = self.outgoing.write(&*self.stream);
        }
        if self.outgoing.left() == 0 {
            self.channel.take(&mut self.outgoing);
            let _ = self.outgoing.write(&*self.stream);
        }
        self.stream.shutdown();
    }
}
