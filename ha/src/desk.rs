//! The desk of a calling thread: requests on their way, probes, silence (HA 4.1, 4.4).
use spec::messages::{Call, Outcome, ReplyHeader, RequestHeader, SeenMember, Status};
use spec::meter::{Ended, News};
use spec::planted::{self, Bug};
use spec::platform::Moment;
use spec::seam::{Event, Fault, MemberId, Outgoing, Standing, Tag};
use zeroize::Zeroizing;

use std::ops::Deref;
use std::sync::Arc;

use crate::body::Body;
use crate::cost::Cost;
use crate::errand::{is_write, reads_objects};
use crate::group::Group;
use crate::kit::{Kit, spare_output};
use crate::meaning::Meaning;
use crate::member::Member;
use crate::open::{Doubt, Open};
use crate::reply::Reply;
use crate::settings::GroupSettings;
use crate::view::View;

/// How long it may take until a waiting thread sees that the group is closed, in milliseconds.
const CLOSED_MS: u64 = 100;

/// How one send ended.
pub(crate) enum End {
    /// A reply that could be read.
    Reply(ReplyHeader, Box<Reply>),
    /// Not executed; the member asks for so many milliseconds of patience.
    Busy(u32),
    /// No byte left.
    NotSent,
    /// It may have been executed.
    Unknown,
}

/// What a caller hears.
pub(crate) enum Heard {
    /// The request with this place ended.
    Ended(usize, Arc<Member>, End),
    /// A request is silent or stuck, or a probe was answered: worth a look.
    Look,
}

/// The settings of the moment at which a desk was taken.
enum Terms<'a> {
    /// Those of a view that the caller looks at.
    Lent(&'a GroupSettings),
    Own(Arc<GroupSettings>),
}

impl Deref for Terms<'_> {
    type Target = GroupSettings;

    #[inline]
    fn deref(&self) -> &GroupSettings {
        match self {
            Terms::Lent(settings) => settings,
            Terms::Own(settings) => settings,
        }
    }
}

/// The desk of one calling thread. Dropping it cancels what is on its way.
pub(crate) struct Desk<'a> {
    group: &'a Group,
    kit: Option<Box<Kit>>,
    settings: Terms<'a>,
    trace: u64,
    /// When the call must have ended.
    end: Moment,
    /// The clock as it was read since this desk last waited.
    now: Option<Moment>,
}

impl<'a> Desk<'a> {
    /// A desk with nothing on it, for work that nobody waits for or that is bounded by its requests' deadlines.
    pub(crate) fn new(group: &'a Group) -> Self {
        Self::until(group, Moment::NEVER)
    }

    /// A desk with nothing on it for a call that must have ended at this moment: its pauses and looks end then too (HA 4.2).
    pub(crate) fn until(group: &'a Group, end: Moment) -> Self {
        Self::under(Terms::Own(group.settings()), group, end)
    }

    /// A desk with nothing on it for a call that begins now, under this view, and must have ended when the time of calls is
    /// over.
    pub(crate) fn of_call(group: &'a Group, view: &'a View) -> Self {
        let mut desk = Self::under(Terms::Lent(&view.settings), group, Moment::NEVER);
        desk.end = desk.now().after_ms(desk.settings.call_ms_max);
        desk
    }

    fn under(settings: Terms<'a>, group: &'a Group, end: Moment) -> Self {
        let kit = Some(Kit::take(group.identity, &group.platform));
        let trace = spec::trace::current().unwrap_or_else(|| group.number());
        Self { group, kit, settings, trace, end, now: None }
    }

    /// The settings under which the call began.
    pub(crate) fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Time has passed elsewhere: the clock is read anew.
    pub(crate) fn refresh(&mut self) {
        self.now = None;
    }

    /// The clock, read once for whatever happens between two waits.
    pub(crate) fn now(&mut self) -> Moment {
        *self.now.get_or_insert_with(|| self.group.platform.now())
    }

    /// When the call must have ended.
    pub(crate) fn end(&self) -> Moment {
        self.end
    }

    /// The mailbox and the requests on their way.
    fn kit(&mut self) -> &mut Kit {
        let group = self.group;
        self.kit.get_or_insert_with(|| Kit::take(group.identity, &group.platform))
    }

    fn open(&self) -> &[Open] {
        self.kit.as_ref().map_or(&[], |kit| &kit.open)
    }

    /// Room for the body of a use.
    pub(crate) fn lend_body(&mut self) -> Arc<Zeroizing<Vec<u8>>> {
        self.kit().lend_body()
    }

    /// Takes back the room of a body that is sent no more.
    pub(crate) fn take_body(&mut self, body: Body) {
        self.kit().take_body(body.bytes);
    }

    /// Takes back the room of a reply of which nothing is left.
    pub(crate) fn take_reply(&mut self, reply: Box<Reply>) {
        self.kit().take_reply(reply);
    }

    /// Takes back a member of which a request has ended.
    pub(crate) fn take_member(&mut self, member: Arc<Member>) {
        self.kit().take_member(member);
    }

    /// The thread's mailbox.
    pub(crate) fn waiter(&mut self) -> Arc<spec::seam::Waiter> {
        self.kit().waiter.clone()
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

    /// Asks a member whether it is there, unless a probe is on its way to it (HA 4.4).
    pub(crate) fn probe(&mut self, member: &Arc<Member>) {
        let now = self.now();
        let Standing::Up { heard, .. } = self.group.seam.standing(member.id) else { return };
        if member.load.begin_probe(now, heard) {
            let until = now.after_ms(self.settings.probe_ms);
            let probe = self.group.probe.clone();
            self.submit(member, &probe, 0, 0, until, true);
        }
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
        let group = self.group;
        let now = self.now();
        let known = member.known();
        // A member must have reached the last write that it acknowledged to this process (HA 3.1).
        let at_least = if reads_objects(body.call) { known.acknowledged } else { 0 };
        let header = RequestHeader {
            tag: 0,
            partition: member.id.0,
            attempt,
            remaining_ms: u32::try_from(deadline.ms_since(now)).unwrap_or(u32::MAX),
            group_epoch: group.snapshot.epoch(),
            incarnation: if at_least > 0 { known.incarnation } else { 0 },
            at_least,
            trace: self.trace,
        };
        let request = Outgoing { header, body: body.bytes.clone() };
        let (link, heard) = match group.seam.standing(member.id) {
            Standing::Up { since, heard } => (Some(since), heard),
            Standing::Down { .. } => (None, now),
        };
        let (silence, stuck_after) = member.load.bounds(body.cost);
        let patience =
            if is_probe { deadline } else { deadline.min(now.after_ms(self.settings.receive_timeout_ms)) };
        let kit = self.kit();
        if let Some(spare) = spare_output() {
            kit.waiter.give_back(spare);
        }
        let tag = group.seam.submit(&kit.waiter, member.id, &request, deadline);
        let member = kit.lend_member(member);
        kit.open.push(Open {
            tag,
            member,
            place,
            link,
            floor: (known.incarnation, known.seq),
            sent: now,
            alive: now,
            patience,
            deadline,
            is_probe,
            call: body.call,
            cost: body.cost,
            silence,
            stuck_after,
            look_at: now.max(heard).after(silence),
            hedge_at: Moment::NEVER,
            doubt: None,
            moved: false,
        });
    }

    /// Whether requests are on their way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.flights() > 0
    }

    /// How many requests are on their way.
    pub(crate) fn flights(&self) -> usize {
        self.open().iter().filter(|open| !open.is_probe).count()
    }

    /// Whether a request is on its way to the member.
    pub(crate) fn is_asking(&self, member: MemberId) -> bool {
        self.open().iter().any(|open| !open.is_probe && open.member.id == member)
    }

    /// The requests on their way, to be looked after.
    pub(crate) fn requests(&mut self) -> impl Iterator<Item = &mut Open> {
        self.kit().open.iter_mut().filter(|open| !open.is_probe)
    }

    /// When the first request is slow enough for a hedge.
    pub(crate) fn next_hedge(&self) -> Moment {
        self.open().iter().map(|open| open.hedge_at).min().unwrap_or(Moment::NEVER)
    }

    /// Gives up the request with this place.
    pub(crate) fn give_up(&mut self, place: usize) {
        while let Some(at) = self.open().iter().position(|open| !open.is_probe && open.place == place) {
            let open = self.kit().open.swap_remove(at);
            self.cancel(&open);
        }
    }

    /// Gives up everything on its way. Probes are left to be answered: whatever is heard then ends a suspicion.
    pub(crate) fn clear(&mut self) {
        while let Some(open) = self.kit.as_mut().and_then(|kit| kit.open.pop()) {
            if !open.is_probe {
                self.cancel(&open);
            }
        }
    }

    /// Waits no more for what is on its way and lets it be answered: whatever is heard then shows that the member is there.
    pub(crate) fn leave(&mut self) {
        while let Some(open) = self.kit.as_mut().and_then(|kit| kit.open.pop()) {
            if !open.is_probe {
                open.member.load.end();
                self.group.line.wake_first();
                let took = self.group.platform.now().since(open.sent);
                self.settings.meter.ended(open.member.id, open.call, Ended::Cancelled, took);
            }
        }
    }

    fn cancel(&self, open: &Open) {
        let (group, now) = (self.group, self.group.platform.now());
        group.seam.cancel(open.member.id, open.tag);
        open.member.load.end();
        group.line.wake_first();
        let took = now.since(open.sent);
        // The loser of a hedge was at least so slow: without it a slow member would never look slow.
        if took.as_nanos() > u128::from(open.member.load.expected_ns(open.cost)) {
            open.member.load.took(open.cost, now, open.sent);
        }
        self.settings.meter.ended(open.member.id, open.call, Ended::Cancelled, took);
    }

    /// The next request that ends, or `None` once the moment has come or the group is closed.
    pub(crate) fn next(&mut self, until: Moment) -> Option<(usize, Arc<Member>, End)> {
        loop {
            match self.hear(until)? {
                Heard::Ended(place, member, end) => return Some((place, member, end)),
                Heard::Look => {}
            }
        }
    }

    /// What happens next, or `None` once the moment has come or the group is closed. Wakes by itself to look after
    /// silent members.
    pub(crate) fn hear(&mut self, until: Moment) -> Option<Heard> {
        loop {
            if self.group.is_closed() {
                return None;
            }
            let wake = self.open().iter().map(Open::due).fold(until, Moment::min).min(self.soon());
            let group = self.group;
            let event = group.seam.wait(&self.kit().waiter, wake);
            self.now = None;
            let (tag, end) = match event {
                Event::Reply(tag, reply) => {
                    let kit = self.kit();
                    let mut read = kit.lend_reply();
                    if let Some(spare) = read.read(reply.body) {
                        kit.waiter.give_back(spare);
                    }
                    (tag, End::Reply(reply.header, read))
                }
                Event::Busy(tag, ms) => (tag, End::Busy(ms)),
                Event::Fault(tag, Fault::NotSent) => (tag, End::NotSent),
                Event::Fault(tag, Fault::Unknown) => (tag, End::Unknown),
                Event::Progress(tag) => {
                    self.progress(tag);
                    continue;
                }
                Event::Woken => continue,
                Event::Deadline => match self.overdue() {
                    Some(heard) => return Some(heard),
                    None if self.now() >= until => return None,
                    None => continue,
                },
            };
            if let Some(heard) = self.ended(tag, end) {
                return Some(heard);
            }
        }
    }

    #[cold]
    fn progress(&mut self, tag: Tag) {
        let (now, ms) = (self.now(), self.settings.receive_timeout_ms);
        let of_tag = self.kit().open.iter_mut().filter(|open| open.tag == tag);
        of_tag.for_each(|open| open.progress(now, ms));
    }

    /// Waits so many milliseconds, or until the group is closed or the call must end; nothing may be on its way.
    pub(crate) fn pause(&mut self, ms: u64) {
        let until = self.now().after_ms(ms).min(self.end);
        while self.now() < until && !self.group.is_closed() {
            self.rest(until);
        }
    }

    /// Waits until somebody wakes the thread, at most until the moment; nothing may be on its way.
    pub(crate) fn rest(&mut self, until: Moment) {
        let until = until.min(self.soon());
        let group = self.group;
        group.seam.wait(&self.kit().waiter, until);
        self.now = None;
    }

    fn soon(&mut self) -> Moment {
        self.now().after_ms(CLOSED_MS)
    }

    /// Takes an ended request off the desk; `None` for what is no longer there.
    fn ended(&mut self, tag: Tag, end: End) -> Option<Heard> {
        let at = self.open().iter().position(|open| open.tag == tag)?;
        let open = self.kit().open.swap_remove(at);
        let (group, member) = (self.group, open.member);
        if let End::Reply(header, reply) = &end {
            let outcome = Outcome(reply.outcome);
            let acknowledges = is_write(open.call) && matches!(outcome, Outcome::OK | Outcome::DESTROYED);
            member.note(header, open.link, open.floor, acknowledges);
            group.snapshot.see_epoch(header.manifest_epoch);
        }
        if open.is_probe {
            return Some(Heard::Look);
        }
        let now = *self.now.get_or_insert_with(|| group.platform.now());
        member.load.end();
        group.line.wake_first();
        let ended = match &end {
            End::Reply(_, reply) => {
                member.load.answered(open.cost, now, open.sent);
                if Meaning::of(Outcome(reply.outcome)).is_final() { Ended::Answered } else { Ended::Declined }
            }
            End::Busy(ms) => {
                if !planted::is(Bug::BusyWithoutBound) {
                    member.load.rest(now.after_ms(u64::from(*ms)));
                }
                Ended::Busy
            }
            End::NotSent | End::Unknown => Ended::Lost,
        };
        self.settings.meter.ended(member.id, open.call, ended, now.since(open.sent));
        Some(Heard::Ended(open.place, member, end))
    }

    /// Acts on everything whose moment has come: gives up a request, doubts a member and sends it a probe, abandons a
    /// link whose probe was not answered.
    #[cold]
    fn overdue(&mut self) -> Option<Heard> {
        let group = self.group;
        let now = self.now();
        let mut doubted = None;
        for at in 0..self.open().len() {
            let open = &mut self.kit().open[at];
            if open.due() > now {
                continue;
            }
            let (tag, member) = (open.tag, open.member.clone());
            if open.is_probe {
                self.kit().open.swap_remove(at);
                group.judge_probe(&member, now);
                return Some(Heard::Look);
            }
            if now >= open.patience {
                group.seam.cancel(member.id, tag);
                tracing::info!(member = %member.id, "no reply within the receive timeout: the request moves on");
                return self.ended(tag, End::Unknown);
            }
            if let Some(doubt) = open.look(&*group.seam, now) {
                let cost = open.cost;
                group.doubt(&member, doubt, cost, now);
                doubted = Some(member);
            }
        }
        let member = doubted?;
        group.judge_probe(&member, now);
        self.probe(&member);
        Some(Heard::Look)
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        self.clear();
        if let Some(kit) = self.kit.take() {
            kit.keep();
        }
    }
}

impl Group {
    /// A member is silent, or its work of a class is stuck.
    fn doubt(&self, member: &Member, doubt: Doubt, cost: Cost, now: Moment) {
        let news = match (doubt, self.seam.standing(member.id)) {
            (Doubt::Silent, Standing::Up { heard, .. }) => {
                // When it is heard again, this work was still not done: a trial must show that it is done now.
                member.load.set_stuck(cost, now);
                member.load.set_suspect(now, heard)
            }
            (Doubt::Silent, Standing::Down { .. }) | (Doubt::Quiet, _) => false,
            (Doubt::Stuck, _) => member.load.set_stuck(cost, now),
        };
        if news {
            let what = match doubt {
                Doubt::Silent | Doubt::Quiet => "is silent",
                Doubt::Stuck => "answers, but its work is stuck",
            };
            tracing::info!(member = %member.id, "the member {what} for longer than it ever is: others are asked");
            self.settings().meter.news(&News::Suspected { member: member.id });
        }
    }

    /// Gives up the link of a member that has not answered a probe within `ProbeTimeout`, when another one was heard
    /// since; without that the fault may be ours, and `ReceiveTimeout` decides (HA 4.4).
    pub(crate) fn judge_probe(&self, member: &Member, now: Moment) {
        let Standing::Up { heard, .. } = self.seam.standing(member.id) else { return };
        let Some(probed) = member.load.unanswered_probe(heard) else { return };
        let settings = self.settings();
        let late_ms = if self.others_heard_since(member.id, probed) {
            settings.probe_ms
        } else {
            settings.receive_timeout_ms
        };
        if now >= probed.after_ms(late_ms) && !self.seam.has_unread(member.id) {
            let reason = format!("a probe was not answered for {late_ms} ms");
            tracing::info!(member = %member.id, "{reason}: the link is given up");
            self.seam.abandon(member.id, &reason);
        }
    }

    /// Whether another member was heard after this moment.
    pub(crate) fn others_heard_since(&self, member: MemberId, moment: Moment) -> bool {
        let heard = |id| matches!(self.seam.standing(id), Standing::Up { heard, .. } if heard > moment);
        self.view().seats.iter().any(|seat| seat.member.id != member && heard(seat.member.id))
    }
}

/// An encoded Status for whatever group the partition is in, and where its members were seen.
pub(crate) fn status_body(mechanisms: bool, seen: Vec<SeenMember>) -> Body {
    Body::encode(&[], 0, &[], &Call::Status(Status { mechanisms, seen }))
}
