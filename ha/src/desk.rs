//! The desk of a calling thread: encoded bodies, requests on their way, probes, silence (HA 4.1, 4.4).
use std::sync::Arc;

use prost::Message;
use spec::messages::{Call, Outcome, ReplyBody, ReplyHeader, RequestBody, RequestHeader};
use spec::platform::Moment;
use spec::seam::{Event, Fault, Outgoing, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use crate::cost::Cost;
use crate::group::Group;
use crate::member::Member;
use crate::view::View;

/// A member that has said nothing for so long while it owes a reply is probed, in milliseconds.
const SILENCE_MS: u64 = 300;
/// How long it may take until a waiting thread sees that the group is closed, in milliseconds.
const CLOSED_MS: u64 = 100;

/// An encoded request body, shared by all its sends (RULES 1.5).
#[derive(Clone)]
pub(crate) struct Body(pub(crate) Arc<Zeroizing<Vec<u8>>>, Cost);

impl Body {
    /// Encodes a call into a buffer of exactly its length, so that no copy of a secret is left behind by growth.
    pub(crate) fn encode(group: &[u8], generation: u64, ticket: &[u8], call: Call) -> Body {
        let cost = Cost::of(&call);
        let body =
            RequestBody { group: group.to_vec(), generation, ticket: ticket.to_vec(), call: Some(call) };
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.encoded_len()));
        body.encode(&mut *bytes).expect("a vector takes what is encoded");
        Body(Arc::new(bytes), cost)
    }

    /// Encodes a call for the group as it is known.
    pub(crate) fn of(view: &View, ticket: &[u8], call: Call) -> Body {
        Body::encode(view.group(), view.generation(), ticket, call)
    }
}

/// How one send ended.
#[allow(clippy::large_enum_variant, reason = "moved once or twice; a box would allocate for every request")]
pub(crate) enum End {
    /// A reply that could be read.
    Reply(ReplyHeader, ReplyBody),
    /// Not executed; the member asks for so many milliseconds of patience.
    Busy(u32),
    /// No byte left.
    NotSent,
    /// It may have been executed.
    Unknown,
}

/// One request on its way.
struct Open {
    tag: Tag,
    member: Arc<Member>,
    place: usize,
    /// When the link that took it came up, if one was.
    link: Option<Moment>,
    /// The member's incarnation and seq known when it was sent: its reply cannot be older (HA 1.5).
    floor: (u64, u64),
    sent: Moment,
    quiet_since: Moment,
    patience: Moment,
    deadline: Moment,
    is_probe: bool,
    cost: Cost,
}

/// The desk of one calling thread: its mailbox and its requests on their way. Dropping it cancels them.
pub(crate) struct Desk<'a> {
    group: &'a Group,
    waiter: Arc<Waiter>,
    open: Vec<Open>,
    trace: u64,
}

impl<'a> Desk<'a> {
    /// A desk with nothing on it.
    pub(crate) fn new(group: &'a Group) -> Self {
        let waiter = Waiter::new(&group.platform);
        Self {
            group,
            waiter,
            open: Vec::new(),
            trace: spec::trace::current().unwrap_or_else(|| group.number()),
        }
    }

    /// Sends a body to a member; its end is told with `place`. `attempt` is 0 unless an earlier send of this body
    /// may have been executed: a member yields to other writers only in a resend (HA 2.3).
    pub(crate) fn send(
        &mut self,
        member: &Arc<Member>,
        body: &Body,
        place: usize,
        attempt: usize,
        deadline: Moment,
    ) {
        member.load.begin();
        self.submit(member, body, place, u32::try_from(attempt).unwrap_or(u32::MAX), deadline, false);
    }

    fn submit(
        &mut self,
        member: &Arc<Member>,
        body: &Body,
        place: usize,
        attempt: u32,
        deadline: Moment,
        is_probe: bool,
    ) {
        let now = self.group.platform.now();
        let remaining_ms = u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX);
        let header = RequestHeader {
            partition: member.id.0,
            attempt,
            remaining_ms,
            group_epoch: self.group.view().manifest.as_ref().map_or(0, |manifest| manifest.epoch),
            trace: self.trace,
            ..RequestHeader::default()
        };
        let request = Outgoing { header, body: body.0.clone() };
        let link = match self.group.seam.standing(member.id) {
            Standing::Up { since, .. } => Some(since),
            Standing::Down { .. } => None,
        };
        let floor = member.position();
        let tag = self.group.seam.submit(&self.waiter, member.id, &request, deadline);
        let patience = if is_probe {
            now.after_ms(self.group.settings().probe_ms)
        } else {
            deadline.min(now.after_ms(self.group.settings().receive_timeout_ms))
        };
        self.open.push(Open {
            tag,
            member: member.clone(),
            place,
            link,
            floor,
            sent: now,
            quiet_since: now,
            patience,
            deadline,
            is_probe,
            cost: body.1,
        });
    }

    /// Whether requests are on their way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open.iter().any(|open| !open.is_probe)
    }

    /// Gives up everything on its way.
    pub(crate) fn clear(&mut self) {
        for open in self.open.drain(..) {
            self.group.seam.cancel(open.member.id, open.tag);
            if !open.is_probe {
                open.member.load.end();
            }
        }
    }

    /// The next request that ends, or `None` once the moment has come or the group is closed. Wakes by itself every
    /// 300 ms while requests are on their way, to look after silent members and to see a close.
    pub(crate) fn next(&mut self, until: Moment) -> Option<(usize, Arc<Member>, End)> {
        loop {
            if self.group.is_closed() {
                return None;
            }
            let wake = self.open.iter().map(|open| open.due()).fold(until, Moment::min);
            let wake = if self.open.is_empty() { wake.min(self.soon()) } else { wake };
            let (tag, end) = match self.group.seam.wait(&self.waiter, wake) {
                Event::Reply(tag, reply) => (tag, read_reply(reply.header, &reply.body)),
                Event::Busy(tag, ms) => (tag, End::Busy(ms)),
                Event::Fault(tag, Fault::NotSent) => (tag, End::NotSent),
                Event::Fault(tag, Fault::Unknown) => (tag, End::Unknown),
                Event::Progress(tag) => {
                    self.progress(tag);
                    continue;
                }
                Event::Woken => continue,
                Event::Deadline => match self.overdue() {
                    Some(ended) => return Some(ended),
                    None if self.group.platform.now() >= until => return None,
                    None => continue,
                },
            };
            if let Some(ended) = self.ended(tag, end) {
                return Some(ended);
            }
        }
    }

    /// Waits so many milliseconds, or until the group is closed; nothing may be on its way.
    pub(crate) fn pause(&mut self, ms: u64) {
        let until = self.group.platform.now().after_ms(ms);
        while self.group.platform.now() < until && !self.group.is_closed() {
            self.group.seam.wait(&self.waiter, until.min(self.soon()));
        }
    }

    fn soon(&self) -> Moment {
        self.group.platform.now().after_ms(CLOSED_MS)
    }

    fn progress(&mut self, tag: Tag) {
        let now = self.group.platform.now();
        if let Some(open) = self.open.iter_mut().find(|open| open.tag == tag) {
            open.quiet_since = now;
            open.patience = open.deadline.min(now.after_ms(self.group.settings().receive_timeout_ms));
        }
    }

    /// Takes an ended request off the desk; `None` for a probe and for what is no longer there.
    fn ended(&mut self, tag: Tag, end: End) -> Option<(usize, Arc<Member>, End)> {
        let at = self.open.iter().position(|open| open.tag == tag)?;
        let open = self.open.swap_remove(at);
        if let End::Reply(header, _) = &end {
            open.member.note(header, open.link, open.floor);
        }
        if open.is_probe {
            return None;
        }
        let now = self.group.platform.now();
        open.member.load.end();
        match &end {
            End::Reply(..) => open.member.load.answered(open.cost, now, open.sent),
            End::Busy(ms) => open.member.load.rest(now.after_ms(u64::from(*ms))),
            End::NotSent | End::Unknown => {}
        }
        Some((open.place, open.member, end))
    }

    /// Whether no probe is on its way to the member.
    fn probe_is_due(&self, member: &Member, now: Moment) -> bool {
        match self.group.seam.standing(member.id) {
            Standing::Up { heard, .. } => member.load.begin_probe(now, heard),
            Standing::Down { .. } => false,
        }
    }

    /// Acts on everything whose moment has come: gives up a request, starts a probe, abandons a link whose probe
    /// was not answered.
    fn overdue(&mut self) -> Option<(usize, Arc<Member>, End)> {
        let now = self.group.platform.now();
        let seam = self.group.seam.clone();
        for at in 0..self.open.len() {
            let open = &mut self.open[at];
            if open.due() > now {
                continue;
            }
            let (tag, member) = (open.tag, open.member.clone());
            if open.is_probe {
                let sent = open.sent;
                seam.cancel(member.id, tag);
                self.ended(tag, End::Unknown);
                if matches!(seam.standing(member.id), Standing::Up { heard, .. } if heard <= sent) {
                    let reason =
                        format!("a probe was not answered for {} ms", self.group.settings().probe_ms);
                    tracing::info!(member = %member.id, "{reason}: the link is given up");
                    seam.abandon(member.id, &reason);
                }
                return None;
            }
            if now >= open.patience {
                seam.cancel(member.id, tag);
                tracing::info!(member = %member.id, "no reply within the receive timeout: the request moves on");
                return self.ended(tag, End::Unknown);
            }
            open.quiet_since = match seam.standing(member.id) {
                Standing::Up { heard, .. } if heard.after_ms(SILENCE_MS) > now => heard,
                _ => now,
            };
            if open.quiet_since == now && self.probe_is_due(&member, now) {
                let probe = self.group.probe.clone();
                self.submit(&member, &probe, 0, 0, now.after_ms(self.group.settings().probe_ms), true);
                return None;
            }
        }
        None
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Open {
    /// The next moment at which something must be done about it.
    fn due(&self) -> Moment {
        if self.is_probe { self.patience } else { self.patience.min(self.quiet_since.after_ms(SILENCE_MS)) }
    }
}

/// A reply that cannot be read counts as a failure of the member.
fn read_reply(header: ReplyHeader, body: &[u8]) -> End {
    let body = ReplyBody::decode(body).unwrap_or_else(|error| ReplyBody {
        outcome: Outcome::FAILED.0,
        text: format!("its reply cannot be read ({error}): is it of a later release?"),
        ..ReplyBody::default()
    });
    End::Reply(header, body)
}
