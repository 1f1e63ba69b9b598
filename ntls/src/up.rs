//! A link that is up: what it is waiting for, who leads it, and what its frames mean (HA 5). All of it changes under the
//! lock of the link.
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::messages::ReplyHeader;
use spec::planted::{self, Bug};
use spec::platform::{Moment, Stream};
use spec::seam::{Event, Tag, Waiter};
use zeroize::Zeroizing;

use crate::channel::{Channel, Outgoing};
use crate::frame::{Frame, encode};
use crate::lead::{Lead, Left};
use crate::link::{BACKLOG_BYTES_MAX, Reader};

/// See the head of this file.
pub(crate) struct Up {
    pub(crate) life: u64,
    pub(crate) channel: Channel,
    pub(crate) stream: Arc<dyn Stream>,
    pub(crate) lead: Lead<Arc<Waiter>>,
    /// Here while nobody leads.
    pub(crate) reader: Option<Box<Reader>>,
    /// Here while nobody writes.
    pub(crate) pen: Option<Pen>,
    /// Encrypted bytes that a writer has had in its hands.
    pub(crate) handed: u64,
    pub(crate) outstanding: Outstanding,
    /// How many of them are long.
    pub(crate) long: u32,
    /// How many requests have ended since the last write: their callers are about to ask again.
    pub(crate) woken: u32,
    pub(crate) since: Moment,
    pub(crate) heard: Moment,
    /// When the peer was asked whether it is there, if nothing has come since.
    pub(crate) pinged: Option<Moment>,
    /// Its silence was once forgiven, and nothing has been read since.
    pub(crate) forgiven: bool,
    /// Since when the socket takes nothing, and where in the stream of encrypted bytes.
    pub(crate) stuck: Option<(Moment, u64)>,
    /// Why it takes no new requests, when it does not.
    pub(crate) draining: Option<String>,
    /// A goodbye is queued: whoever writes the last of it ends the connection, for this reason.
    pub(crate) goodbye: Option<String>,
}

/// The right to write, with the bytes that are being written and the socket that takes them.
pub(crate) struct Pen {
    /// That of the connection.
    pub(crate) life: u64,
    pub(crate) stream: Arc<dyn Stream>,
    pub(crate) outgoing: Outgoing,
}

/// The requests that have not ended.
pub(crate) type Outstanding = HashMap<Tag, Pending, BuildHasherDefault<TagHasher>>;

/// Spreads tags, which this process numbers itself: nobody outside can choose them so that they collide.
#[derive(Default)]
pub(crate) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: the upper bits choose the place, the lower ones are those of the link.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
}

/// A request that has not ended.
pub(crate) struct Pending {
    pub(crate) waiter: Arc<Waiter>,
    /// Where the request begins among the plain bytes.
    pub(crate) start: u64,
    pub(crate) deadline: Moment,
    pub(crate) since: Moment,
    /// Whether others would wait behind it (`Server::pick`).
    pub(crate) is_long: bool,
}

/// What is told once the lock is free again.
pub(crate) enum News {
    /// The end of a request.
    End(Arc<Waiter>, Event),
    /// Something on the way to it.
    Progress(Arc<Waiter>, Event),
    /// A token has been given.
    Token(Arc<Waiter>),
    /// The server offers other partitions.
    Offer(Vec<spec::messages::PartitionName>),
    /// The server closes.
    Draining(String),
}

impl Up {
    /// Takes a waiter whose requests have ended off the list, unless it leads: then it sees by itself.
    pub(crate) fn withdraw(&mut self, waiter: &Arc<Waiter>, news: &mut Vec<News>) {
        if self.lead.is_led_by(waiter) && self.reader.is_none() {
            return;
        }
        let left = self.lead.leave(waiter);
        unlist(waiter, &left);
        news.extend(left.token.map(News::Token));
    }

    /// A request is outstanding from now on.
    pub(crate) fn begin(&mut self, tag: Tag, pending: Pending) {
        self.long = self.long.saturating_add(u32::from(pending.is_long));
        self.outstanding.insert(tag, pending);
    }

    /// A request is outstanding no more.
    pub(crate) fn take(&mut self, tag: Tag) -> Option<Pending> {
        let pending = self.outstanding.remove(&tag)?;
        self.long = self.long.saturating_sub(u32::from(pending.is_long));
        Some(pending)
    }

    /// Takes an ended request out.
    pub(crate) fn end(&mut self, tag: Tag, event: impl FnOnce() -> Event, news: &mut Vec<News>) {
        if let Some(pending) = self.take(tag) {
            self.woken = self.woken.saturating_add(1);
            self.withdraw(&pending.waiter, news);
            news.push(News::End(pending.waiter, event()));
        }
    }

    /// The request that a reply belongs to: tags are never used again.
    fn place_of(&self, tag: Tag) -> Tag {
        let same = |other: &Tag| other.0 >> 16 & 7 == tag.0 >> 16 & 7;
        match planted::is(Bug::TagWithoutGeneration) {
            true => self.outstanding.keys().copied().filter(same).min_by_key(|tag| tag.0).unwrap_or(tag),
            false => tag,
        }
    }

    pub(crate) fn takes_requests(&self) -> bool {
        self.draining.is_none()
    }

    pub(crate) fn backlog(&self) -> usize {
        self.channel.backlog().saturating_add(self.pen.as_ref().map_or(0, |pen| pen.outgoing.left()))
    }

    /// Acts on the frames that have come; an error ends the connection.
    pub(crate) fn take_frames(&mut self, news: &mut Vec<News>) -> Result<(), String> {
        while let Some(frame) = self.channel.next_frame() {
            match frame {
                Frame::Reply(header, body) => self.answered(header, body, news),
                frame => self.take_any(frame, news)?,
            }
        }
        Ok(())
    }

    fn answered(&mut self, header: ReplyHeader, body: Zeroizing<Vec<u8>>, news: &mut Vec<News>) {
        let tag = self.place_of(Tag(header.tag));
        self.end(tag, || Event::Reply(tag, spec::seam::Reply { header, body }), news);
    }

    /// Acts on any frame. It stands apart from what most of them are.
    #[cold]
    fn take_any(&mut self, frame: Frame, news: &mut Vec<News>) -> Result<(), String> {
        match frame {
            Frame::Reply(header, body) => self.answered(header, body, news),
            Frame::Busy(tag, ms) => self.end(Tag(tag), || Event::Busy(Tag(tag), ms), news),
            Frame::Progress(tag) => {
                if let Some(pending) = self.outstanding.get(&Tag(tag)) {
                    news.push(News::Progress(pending.waiter.clone(), Event::Progress(Tag(tag))));
                }
            }
            // A peer that asks and does not read is answered once it reads (HA 5 (4)).
            Frame::Ping(_) if self.backlog() > BACKLOG_BYTES_MAX => {}
            Frame::Ping(number) => {
                self.channel.queue(&[&encode(&Frame::Pong(number))]);
            }
            Frame::Pong(_) => {}
            // The appliance says anew what it offers, after an assignment has changed.
            Frame::HelloReply(reply) => news.push(News::Offer(reply.partitions)),
            Frame::Close(reason) => {
                let reason = format!("the appliance is closing the link: {reason}");
                self.draining = Some(reason.clone());
                news.push(News::Draining(reason));
            }
            Frame::Hello(_) | Frame::Request(..) | Frame::Cancel(_) => {
                return Err(format!("wanted a frame of an appliance, found a {:?} frame", frame.kind()));
            }
        }
        Ok(())
    }
}

pub(crate) fn unlist(waiter: &Waiter, left: &Left<Arc<Waiter>>) {
    if left.was_there {
        waiter.listed().fetch_sub(1, Ordering::AcqRel);
    }
}
