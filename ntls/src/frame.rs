//! The codec of frames: what travels inside the TLS connection, bounded and incremental.
//!
//! ```text
//! u32 length of what follows | u8 kind | fixed header of that kind | body          all numbers big-endian
//!
//!  1 Hello       -                              body: Hello (prost)
//!  2 HelloReply  -                              body: HelloReply (prost)
//!  3 Request     RequestHeader, 56 bytes        body: RequestBody (prost)
//!  4 Reply       ReplyHeader, 48 bytes          body: ReplyBody (prost)
//!  5 Progress    tag
//!  6 Busy        tag, u32 milliseconds
//!  7 Cancel      tag
//!  8 Ping        u64
//!  9 Pong        u64
//! 10 Close       -                              body: a sentence, UTF-8, at most 1 KiB
//! ```
use std::fmt;

use prost::Message as _;
use spec::long;
use spec::messages::{BODY_BYTES_MAX, Hello, HelloReply, ReplyHeader, RequestHeader};
use spec::wipe::{discard_written, discard_zeroizing, wipe_out};
use zeroize::Zeroizing;

/// Bytes of the length in front of every frame.
pub const LENGTH_BYTES: usize = 4;
/// The greatest value of that length: kind, the longest fixed header and the longest body.
pub const FRAME_BYTES_MAX: usize = BODY_BYTES_MAX + 64;
/// Bytes of an encoded [`RequestHeader`].
pub const REQUEST_HEADER_BYTES: usize = 56;
/// Bytes of an encoded [`ReplyHeader`].
pub const REPLY_HEADER_BYTES: usize = 48;
/// The longest Hello or HelloReply, in bytes.
pub const HELLO_BYTES_MAX: usize = 256 << 10;
/// The longest reason of a Close, in bytes.
pub const REASON_BYTES_MAX: usize = 1 << 10;
/// Bytes set aside for a body before any of it has come: a claimed length alone costs no memory.
const FIRST_BODY_BYTES: usize = 64 << 10;
/// When that is full, so many times as much is set aside for a body of anybody's.
const AHEAD: usize = 2;
/// The same for one of a member's, whom a client trusts with its keys: up to 2 MiB are moved once, with their first 64 KiB.
const AHEAD_OF_A_MEMBER: usize = 32;

/// What kind of frame it is: the byte behind the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// The client's first frame.
    Hello = 1,
    /// The appliance's first frame.
    HelloReply = 2,
    /// A call.
    Request = 3,
    /// The end of a call.
    Reply = 4,
    /// The member is still at work.
    Progress = 5,
    /// Not executed; try later.
    Busy = 6,
    /// The answer is no longer wanted.
    Cancel = 7,
    /// Are you there?
    Ping = 8,
    /// Yes.
    Pong = 9,
    /// No new requests on this connection; what is outstanding is still answered.
    Close = 10,
}

impl FrameKind {
    /// The kind of a byte.
    pub fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::HelloReply,
            3 => Self::Request,
            4 => Self::Reply,
            5 => Self::Progress,
            6 => Self::Busy,
            7 => Self::Cancel,
            8 => Self::Ping,
            9 => Self::Pong,
            10 => Self::Close,
            _ => return None,
        })
    }

    /// Bytes of the fixed header, and of the longest body behind it.
    fn bounds(self) -> (usize, usize) {
        match self {
            Self::Hello | Self::HelloReply => (0, HELLO_BYTES_MAX),
            Self::Request => (REQUEST_HEADER_BYTES, BODY_BYTES_MAX),
            Self::Reply => (REPLY_HEADER_BYTES, BODY_BYTES_MAX),
            Self::Progress | Self::Cancel | Self::Ping | Self::Pong => (8, 0),
            Self::Busy => (12, 0),
            Self::Close => (0, REASON_BYTES_MAX),
        }
    }
}

/// A frame. Bodies of requests and replies may hold secrets, so there is no `Debug` that shows them.
#[derive(Clone, PartialEq)]
pub enum Frame {
    /// The client's first frame.
    Hello(Hello),
    /// The appliance's first frame.
    HelloReply(HelloReply),
    /// A call: header and encoded [`RequestBody`](spec::messages::RequestBody).
    Request(RequestHeader, Zeroizing<Vec<u8>>),
    /// The end of a call: header and encoded [`ReplyBody`](spec::messages::ReplyBody).
    Reply(ReplyHeader, Zeroizing<Vec<u8>>),
    /// The member is still at work on the tag.
    Progress(u64),
    /// The tag was not executed; so many milliseconds of patience are asked for.
    Busy(u64, u32),
    /// The answer to the tag is no longer wanted.
    Cancel(u64),
    /// Are you there?
    Ping(u64),
    /// Yes, with the number of the Ping.
    Pong(u64),
    /// No new requests on this connection, for this reason.
    Close(String),
}

impl Frame {
    /// Its kind.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Hello(_) => FrameKind::Hello,
            Self::HelloReply(_) => FrameKind::HelloReply,
            Self::Request(..) => FrameKind::Request,
            Self::Reply(..) => FrameKind::Reply,
            Self::Progress(_) => FrameKind::Progress,
            Self::Busy(..) => FrameKind::Busy,
            Self::Cancel(_) => FrameKind::Cancel,
            Self::Ping(_) => FrameKind::Ping,
            Self::Pong(_) => FrameKind::Pong,
            Self::Close(_) => FrameKind::Close,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind())?;
        match self {
            Self::Hello(_) | Self::HelloReply(_) => Ok(()),
            Self::Request(header, body) => write!(f, "(tag {}, {} bytes)", header.tag, body.len()),
            Self::Reply(header, body) => write!(f, "(tag {}, {} bytes)", header.tag, body.len()),
            Self::Progress(tag) | Self::Cancel(tag) => write!(f, "(tag {tag})"),
            Self::Busy(tag, ms) => write!(f, "(tag {tag}, {ms} ms)"),
            Self::Ping(number) | Self::Pong(number) => write!(f, "({number})"),
            Self::Close(reason) => write!(f, "({reason:?})"),
        }
    }
}

/// Why bytes are not a frame. The connection cannot go on: the place of the next frame is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length in front is none that a frame may have.
    Length {
        /// The length found.
        found: usize,
    },
    /// No kind has this number.
    Kind {
        /// The byte found.
        found: u8,
    },
    /// The frame is shorter or longer than its kind allows.
    Bounds {
        /// The kind.
        kind: FrameKind,
        /// Bytes behind the kind.
        found: usize,
    },
    /// The body of a Hello, HelloReply or Close cannot be read.
    Body {
        /// The kind.
        kind: FrameKind,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found } => {
                write!(f, "wanted a frame of 1 to {FRAME_BYTES_MAX} bytes, found a length of {found}")
            }
            Self::Kind { found } => write!(f, "wanted a kind of frame from 1 to 10, found {found}"),
            Self::Bounds { kind, found } => {
                let (header, body) = kind.bounds();
                let most = header.saturating_add(body);
                write!(f, "wanted {header} to {most} bytes in a {kind:?} frame, found {found}")
            }
            Self::Body { kind } => write!(f, "the body of a {kind:?} frame cannot be read"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Bytes of everything of a Request frame in front of its body.
pub const REQUEST_HEAD_BYTES: usize = LENGTH_BYTES + 1 + REQUEST_HEADER_BYTES;
/// Bytes of everything of a Reply frame in front of its body.
pub const REPLY_HEAD_BYTES: usize = LENGTH_BYTES + 1 + REPLY_HEADER_BYTES;

/// Everything of a Request frame in front of a body of `body_bytes`.
pub fn request_head(header: &RequestHeader, body_bytes: usize) -> [u8; REQUEST_HEAD_BYTES] {
    let mut out = [0; REQUEST_HEAD_BYTES];
    let mut room = Room(&mut out);
    put_start(&mut room, FrameKind::Request, REQUEST_HEADER_BYTES, body_bytes);
    put_request(&mut room, header);
    out
}

/// Everything of a Reply frame in front of a body of `body_bytes`.
pub fn reply_head(header: &ReplyHeader, body_bytes: usize) -> [u8; REPLY_HEAD_BYTES] {
    let mut out = [0; REPLY_HEAD_BYTES];
    let mut room = Room(&mut out);
    put_start(&mut room, FrameKind::Reply, REPLY_HEADER_BYTES, body_bytes);
    put_reply(&mut room, header);
    out
}

/// Where a header is written.
trait Put {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The rest of an array of the right size.
struct Room<'a>(&'a mut [u8]);

impl Put for Room<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.0);
        if let Some((now, later)) = rest.split_at_mut_checked(bytes.len()) {
            now.copy_from_slice(bytes);
            self.0 = later;
        }
    }
}

/// A whole frame, in one allocation that is wiped when dropped.
pub fn encode(frame: &Frame) -> Zeroizing<Vec<u8>> {
    let kind = frame.kind();
    let mut out = match frame {
        Frame::Hello(hello) => with_body(kind, 0, &hello.encode_to_vec(), |_| ()),
        Frame::HelloReply(reply) => with_body(kind, 0, &reply.encode_to_vec(), |_| ()),
        Frame::Request(header, body) => {
            with_body(kind, REQUEST_HEADER_BYTES, body, |out| put_request(out, header))
        }
        Frame::Reply(header, body) => with_body(kind, REPLY_HEADER_BYTES, body, |out| put_reply(out, header)),
        Frame::Progress(number) | Frame::Cancel(number) | Frame::Ping(number) | Frame::Pong(number) => {
            with_body(kind, 8, &[], |out| out.extend_from_slice(&number.to_be_bytes()))
        }
        Frame::Busy(tag, ms) => with_body(kind, 12, &[], |out| {
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(&ms.to_be_bytes());
        }),
        Frame::Close(reason) => with_body(kind, 0, cut(reason).as_bytes(), |_| ()),
    };
    Zeroizing::new(std::mem::take(&mut out))
}

fn with_body(kind: FrameKind, header: usize, body: &[u8], put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = start(kind, header, body.len(), body.len());
    put(&mut out);
    out.extend_from_slice(body);
    out
}

/// Length and kind, in a buffer with room for the header and `room` bytes more.
fn start(kind: FrameKind, header: usize, body_bytes: usize, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.saturating_add(room).saturating_add(LENGTH_BYTES + 1));
    put_start(&mut out, kind, header, body_bytes);
    out
}

fn put_start(out: &mut impl Put, kind: FrameKind, header: usize, body_bytes: usize) {
    let length = header.saturating_add(body_bytes).saturating_add(1);
    // A longer body than u32 counts is refused by the peer as what it is: oversized.
    out.put(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out.put(&[kind as u8]);
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    reason.get(..end).unwrap_or_default()
}

fn put_request(out: &mut impl Put, header: &RequestHeader) {
    let RequestHeader { tag, partition, attempt, remaining_ms, group_epoch, incarnation, at_least, trace } =
        header;
    out.put(&tag.to_be_bytes());
    out.put(&partition.to_be_bytes());
    out.put(&attempt.to_be_bytes());
    out.put(&remaining_ms.to_be_bytes());
    out.put(&group_epoch.to_be_bytes());
    out.put(&incarnation.to_be_bytes());
    out.put(&at_least.to_be_bytes());
    out.put(&trace.to_be_bytes());
}

fn put_reply(out: &mut impl Put, header: &ReplyHeader) {
    let ReplyHeader { tag, incarnation, seq, credential_epoch, manifest_epoch, window, queue } = header;
    out.put(&tag.to_be_bytes());
    out.put(&incarnation.to_be_bytes());
    out.put(&seq.to_be_bytes());
    out.put(&credential_epoch.to_be_bytes());
    out.put(&manifest_epoch.to_be_bytes());
    out.put(&window.to_be_bytes());
    out.put(&queue.to_be_bytes());
}

/// Splits a stream of bytes into frames.
///
/// ```text
/// Head (4 + 1 + fixed header bytes) -> Body -> Head ...        any error is for ever
/// ```
pub struct FrameReader {
    /// Whether it reads what members send: whom a client trusts, and in memory that the client's threads keep.
    of_a_member: bool,
    head: Vec<u8>,
    body: Option<Zeroizing<Vec<u8>>>,
    spare: Vec<Zeroizing<Vec<u8>>>,
    failed: Option<FrameError>,
}

/// Most bodies that a reader keeps for later frames.
const SPARE_MAX: usize = 24;
/// A body that has taken more bytes is not kept: those of uses over a KiB of data are.
const SPARE_BYTES_MAX: usize = 1_280;

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

/// What has come of a body that was never whole is wiped; the memory that its length had claimed is not touched for that.
impl Drop for FrameReader {
    fn drop(&mut self) {
        self.body.take().into_iter().for_each(discard_written);
    }
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self { of_a_member: false, head: Vec::new(), body: None, spare: Vec::new(), failed: None }
    }

    /// One for what members send.
    pub fn of_a_member() -> Self {
        let mut reader = Self::new();
        reader.of_a_member = true;
        reader
    }

    /// Takes bytes from the front of `input` until a frame is whole or the input is used up. Call it again with
    /// the rest until it answers `None`.
    ///
    /// # Errors
    /// When the bytes are no frame; every later call gives the same error.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.step(input).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Gives back the memory of a body that is of no more use, for a later frame; what it held is wiped.
    pub fn lend(&mut self, mut body: Zeroizing<Vec<u8>>) {
        if self.spare.len() < SPARE_MAX && (1..=SPARE_BYTES_MAX).contains(&body.capacity()) {
            wipe_out(&mut body);
            self.spare.push(body);
        } else {
            discard_zeroizing(body);
        }
    }

    /// Whether the stream stands between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.head.is_empty() && self.body.is_none() && self.failed.is_none()
    }

    /// How much more than what has come is set aside.
    fn ahead(&self) -> usize {
        if self.of_a_member { AHEAD_OF_A_MEMBER } else { AHEAD }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.head.is_empty()
            && let Some(frame) = self.whole(input)?
        {
            return Ok(Some(frame));
        }
        if !fill(&mut self.head, LENGTH_BYTES + 1, input) {
            return Ok(None);
        }
        let (kind, body_bytes) = bounds(&self.head)?;
        let (header_bytes, _) = kind.bounds();
        if !fill(&mut self.head, header_bytes.saturating_add(LENGTH_BYTES + 1), input) {
            return Ok(None);
        }
        let (ahead, spare) = (self.ahead(), &mut self.spare);
        // Memory that is there already needs no second look at what a length claims.
        let kept = || if self.of_a_member { long::take(body_bytes) } else { None };
        let body = self.body.get_or_insert_with(|| kept().or_else(|| spare.pop()).unwrap_or_default());
        if !fill_wiped(body, body_bytes, ahead, input) {
            return Ok(None);
        }
        let body = self.body.take().unwrap_or_default();
        let frame = decode(kind, self.head.get(LENGTH_BYTES + 1..).unwrap_or_default(), body);
        self.head.clear();
        frame.map(Some)
    }

    /// A frame that has come in one piece, as most do: its header is read where it lies. Between two frames only.
    fn whole(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let Some(start) = input.get(..LENGTH_BYTES + 1) else { return Ok(None) };
        let (kind, body_bytes) = bounds(start)?;
        let (header_bytes, _) = kind.bounds();
        let Some((header, rest)) =
            input.get(LENGTH_BYTES + 1..).and_then(|rest| rest.split_at_checked(header_bytes))
        else {
            return Ok(None);
        };
        let Some((mut body, rest)) = rest.split_at_checked(body_bytes) else { return Ok(None) };
        let mut room =
            if body.is_empty() { Zeroizing::default() } else { self.spare.pop().unwrap_or_default() };
        fill_wiped(&mut room, body_bytes, self.ahead(), &mut body);
        *input = rest;
        decode(kind, header, room).map(Some)
    }
}

/// The kind and the length of the body, once length and kind have come.
fn bounds(head: &[u8]) -> Result<(FrameKind, usize), FrameError> {
    let mut fields = Fields(head);
    let length = fields.u32() as usize;
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(FrameError::Length { found: length });
    }
    let byte = fields.u8();
    let kind = FrameKind::of(byte).ok_or(FrameError::Kind { found: byte })?;
    let (header, most) = kind.bounds();
    let found = length.saturating_sub(1);
    match found.checked_sub(header) {
        Some(body) if body <= most => Ok((kind, body)),
        _ => Err(FrameError::Bounds { kind, found }),
    }
}

/// Moves bytes until `buffer` holds `wanted`; whether it does.
fn fill(buffer: &mut Vec<u8>, wanted: usize, input: &mut &[u8]) -> bool {
    let missing = wanted.saturating_sub(buffer.len());
    let (now, later) = input.split_at(missing.min(input.len()));
    buffer.extend_from_slice(now);
    *input = later;
    buffer.len() >= wanted
}

/// As [`fill`], growing towards what is wanted and wiping what it grows out of.
fn fill_wiped(buffer: &mut Zeroizing<Vec<u8>>, wanted: usize, ahead: usize, input: &mut &[u8]) -> bool {
    let needed = buffer.len().saturating_add(input.len()).min(wanted);
    if needed > buffer.capacity() || buffer.capacity() == 0 {
        let room = needed.max(buffer.capacity().saturating_mul(ahead)).max(FIRST_BODY_BYTES).min(wanted);
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(buffer);
        discard_written(std::mem::replace(buffer, larger));
    }
    fill(buffer, wanted, input)
}

fn decode(kind: FrameKind, header: &[u8], body: Zeroizing<Vec<u8>>) -> Result<Frame, FrameError> {
    let mut fields = Fields(header);
    let unreadable = FrameError::Body { kind };
    Ok(match kind {
        FrameKind::Hello => Frame::Hello(Hello::decode(body.as_slice()).map_err(|_| unreadable)?),
        FrameKind::HelloReply => {
            Frame::HelloReply(HelloReply::decode(body.as_slice()).map_err(|_| unreadable)?)
        }
        FrameKind::Request => Frame::Request(fields.request(), body),
        FrameKind::Reply => Frame::Reply(fields.reply(), body),
        FrameKind::Progress => Frame::Progress(fields.u64()),
        FrameKind::Busy => Frame::Busy(fields.u64(), fields.u32()),
        FrameKind::Cancel => Frame::Cancel(fields.u64()),
        FrameKind::Ping => Frame::Ping(fields.u64()),
        FrameKind::Pong => Frame::Pong(fields.u64()),
        FrameKind::Close => Frame::Close(String::from_utf8(body.to_vec()).map_err(|_| unreadable)?),
    })
}

/// Reads big-endian numbers from the front; what is missing reads as zero (lengths are checked before).
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => [0; N],
        }
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }

    fn request(&mut self) -> RequestHeader {
        RequestHeader {
            tag: self.u64(),
            partition: self.u64(),
            attempt: self.u32(),
            remaining_ms: self.u32(),
            group_epoch: self.u64(),
            incarnation: self.u64(),
            at_least: self.u64(),
            trace: self.u64(),
        }
    }

    fn reply(&mut self) -> ReplyHeader {
        ReplyHeader {
            tag: self.u64(),
            incarnation: self.u64(),
            seq: self.u64(),
            credential_epoch: self.u64(),
            manifest_epoch: self.u64(),
            window: self.u32(),
            queue: self.u32(),
        }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
