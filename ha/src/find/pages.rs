//! The pages of a search: one request each, encoded once (RULES 1.5). That of a lone search is hedged when it is slow
//! (HA 4.3) and leaves a member that is silent or stuck (HA 4.4): a page begins behind an ouid, so any member may give it.
//!
//! ```text
//! asked --page--> taken --more--> asked for the next
//!   |--slower than it ever is, a clean member, budget--> asked of two: the first page counts, and goes on where it came from
//!   |--silent or stuck, another one heard--> lost
//!   '--refused, lost, busy, and nobody else is at it--> the end of this search
//! ```
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::messages::{Answer, Call, Find, FindAnswer, Outcome, ReplyBody};
use spec::meter::Moved;
use spec::platform::Moment;
use spec::record::MemberRole;
use spec::seam::MemberId;

use crate::attempts::HEARD_MS;
use crate::body::Body;
use crate::cost::Cost;
use crate::desk::{Desk, End, Heard};
use crate::error::Error;
use crate::find::{Question, Search, SearchEnd, Tries};
use crate::group::Group;
use crate::meaning::Meaning;
use crate::member::Member;
use crate::view::View;

/// Matches in one page.
const PAGE: u32 = 1_000;
/// A member that gives so many pages one after the other sooner, as a hedge, is searched from then on (HA 3.2).
const WON_MAX: u64 = 3;

/// The requests for the pages of one search, by where they begin.
#[derive(Default)]
pub(super) struct Pages {
    /// The group and generation that the bodies name.
    group: (Vec<u8>, u64),
    bodies: BTreeMap<Vec<u8>, Body>,
}

/// What members are searched for, at one time.
pub(super) struct Round<'a> {
    pub(super) view: &'a View,
    pub(super) question: &'a Question<'a>,
    pub(super) tries: &'a Tries,
    /// Whether any member's answer will do: a page may come from another one than was asked at first.
    pub(super) is_lone: bool,
}

impl Question<'_> {
    /// The request for the page behind this ouid: the same bytes, whoever is asked and however often (RULES 1.5).
    fn page(&self, view: &View, after: &[u8]) -> Body {
        let mut pages = self.pages.borrow_mut();
        let group = (view.group().to_vec(), view.generation());
        if pages.group != group {
            *pages = Pages { group, bodies: BTreeMap::new() };
        }
        let encode = || {
            let template = Some(self.template.clone());
            let find = Find { template, after: after.to_vec(), limit: PAGE };
            Body::of(view, self.ticket, Call::Find(find))
        };
        pages.bodies.entry(after.to_vec()).or_insert_with(encode).clone()
    }
}

impl Group {
    /// Searches the members in parallel, each to its end.
    pub(super) fn search(
        &self,
        desk: &mut Desk<'_>,
        round: &Round<'_>,
        members: Vec<Arc<Member>>,
    ) -> Vec<Search> {
        let mut searches: Vec<Search> = members.into_iter().map(Search::new).collect();
        for (place, search) in searches.iter().enumerate() {
            search.member.load.begin_trial(Cost::Search, self.platform.now());
            self.ask_page(desk, round, place, search);
        }
        while desk.is_waiting() {
            let (place, member, end) = match desk.hear(desk.next_hedge().min(round.tries.deadline)) {
                Some(Heard::Ended(place, member, end)) => (place, member, end),
                Some(Heard::Look) => {
                    if searches.len() == 1 {
                        self.leave_doubted(desk, &mut searches[0]);
                    }
                    continue;
                }
                None if self.hedge_page(desk, round, &searches[0]) => continue,
                None => break,
            };
            let search = &mut searches[place];
            match read_page(&member, end) {
                Ok(page) => {
                    self.note_winner(search.member.id, member.id);
                    desk.give_up(place);
                    search.member = member;
                    search.take(page);
                }
                Err(end @ SearchEnd::Decided(_)) => {
                    desk.give_up(place);
                    (search.member, search.end) = (member, end);
                }
                // The other member that was asked for the page may give it.
                Err(end) if desk.requests().any(|open| open.place == place) => {
                    search.others.push((member, end));
                }
                Err(end) => (search.member, search.end) = (member, end),
            }
            if matches!(search.end, SearchEnd::Going) && !desk.requests().any(|open| open.place == place) {
                self.ask_page(desk, round, place, &searches[place]);
            }
        }
        desk.clear();
        searches
    }

    fn ask_page(&self, desk: &mut Desk<'_>, round: &Round<'_>, place: usize, search: &Search) {
        let (load, body) = (&search.member.load, round.question.page(round.view, &search.after));
        desk.send(&search.member, &body, place, 0, round.tries.deadline);
        if !round.is_lone {
            return;
        }
        self.budget.earn(load.expected_ns(Cost::Search));
        if let Some(after) = load.hedge_after(Cost::Search) {
            desk.requests().for_each(|open| open.hedge_at = open.sent.after(after));
        }
    }

    /// Asks a second member for the page of a lone search too when it is slower than it ever is, within the budget
    /// (HA 4.3); whether the moment for it had come.
    fn hedge_page(&self, desk: &mut Desk<'_>, round: &Round<'_>, search: &Search) -> bool {
        let Round { view, question, tries, .. } = *round;
        let now = self.platform.now();
        if now >= tries.deadline || !desk.requests().any(|open| open.hedge_at <= now) {
            return false;
        }
        desk.requests().for_each(|open| open.hedge_at = Moment::NEVER);
        if desk.flights() > 1 || tries.room(view) < 2 {
            return true;
        }
        let may = |member: &&Arc<Member>| {
            let (load, window) = (&member.load, member.load.window());
            member.id != search.member.id
                && !tries.avoid.contains(member.id)
                && member.is_readable(&*self.seam)
                && member.debts() == 0
                && !member.is_rolled_back()
                && !load.is_doubted(member.id, &*self.seam, Cost::Search, now)
                && !load.is_resting(now)
                && (window == 0 || load.outstanding() < window)
        };
        let of_role = |role: MemberRole| view.seats.iter().filter(move |seat| seat.role == role);
        let seats = of_role(MemberRole::Active).chain(of_role(MemberRole::Standby));
        let Some(second) = seats.map(|seat| &seat.member).find(may) else { return true };
        if self.budget.take(second.load.expected_ns(Cost::Search)) {
            let body = question.page(view, &search.after);
            self.settings().meter.moved(search.member.id, second.id, body.call, Moved::Hedge);
            desk.send(second, &body, 0, 1, tries.deadline);
        }
        true
    }

    /// Searches stay with their member unless hedges are won again and again (HA 3.2).
    fn note_winner(&self, asked: MemberId, winner: MemberId) {
        if self.searcher.load(Ordering::Relaxed) != asked.0 {
            return;
        }
        if asked == winner {
            self.hedges_won.store(0, Ordering::Relaxed);
        } else if self.hedges_won.fetch_add(1, Ordering::Relaxed) + 1 >= WON_MAX {
            self.hedges_won.store(0, Ordering::Relaxed);
            self.searcher.store(winner.0, Ordering::Relaxed);
        }
    }

    /// Gives up a lone search when everybody who was asked is silent or stuck and another one was heard within the last
    /// second (HA 4.4); asks whether there is one otherwise.
    fn leave_doubted(&self, desk: &mut Desk<'_>, search: &mut Search) {
        let mut asked = Vec::new();
        for open in desk.requests() {
            if !open.wants_to_move() {
                return;
            }
            asked.push(open.member.clone());
        }
        let Some(last) = asked.pop() else { return };
        let lately = Moment(self.platform.now().0.saturating_sub(HEARD_MS * 1_000_000));
        if self.others_heard_since(last.id, lately) {
            desk.give_up(0);
            search.others.extend(asked.into_iter().map(|member| (member, SearchEnd::Lost { maybe: true })));
            (search.member, search.end) = (last, SearchEnd::Lost { maybe: true });
        } else {
            self.call_for_others(desk, lately);
        }
    }
}

/// The page of a reply, or why there is none.
fn read_page(member: &Member, end: End) -> Result<FindAnswer, SearchEnd> {
    let odd = |what: &str| Error::Peer(format!("member {} {what}", member.id));
    match end {
        End::Reply(..) if member.is_rolled_back() => {
            Err(SearchEnd::Unable(odd("went back to an older state")))
        }
        End::Reply(_, reply) => match (Error::of_reply(member.id, &reply), reply.body) {
            (None, ReplyBody { answer: Some(Answer::Find(page)), .. }) => Ok(page),
            (None, _) => Err(SearchEnd::Failed(odd("answered a search with something else"))),
            (Some(error), body) => Err(refused(Outcome(body.outcome), error, member)),
        },
        End::Busy(ms) => Err(SearchEnd::Busy(ms)),
        End::NotSent => Err(SearchEnd::Lost { maybe: false }),
        End::Unknown => Err(SearchEnd::Lost { maybe: true }),
    }
}

/// What a refusal means for the search of one member.
fn refused(outcome: Outcome, error: Error, member: &Member) -> SearchEnd {
    match Meaning::of(outcome) {
        Meaning::Recovering => {
            member.demote();
            SearchEnd::Unable(error)
        }
        Meaning::OtherGroup => SearchEnd::WrongGroup(error),
        Meaning::Behind | Meaning::Later | Meaning::Failed | Meaning::Missing | Meaning::Destroyed => {
            tracing::warn!(member = %member.id, "{error}: another member is searched");
            SearchEnd::Failed(error)
        }
        Meaning::Done | Meaning::Decided => SearchEnd::Decided(error),
    }
}
