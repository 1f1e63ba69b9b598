//! Searches (HA 3.2): one member in pages, hedged (HA 4.3); all of them, merged, while contents are known to differ. A
//! member that fails, is busy or does not answer is left for another one; in a merged search it is asked again, for a result without a
//! member that can be read may lack what only that member holds.
mod pages;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::messages::{FindAnswer, Found};
use spec::planted::{self, Bug};
use spec::platform::Moment;
use spec::seam::MemberId;
use spec::{Ouid, Template};

use crate::avoid::Avoided;
use crate::cost::Cost;
use crate::desk::Desk;
use crate::error::Error;
use crate::group::Group;
use crate::member::Member;
use crate::verdict::{OPEN_AGAIN_MS, OPEN_MS_MAX};
use crate::view::View;
use pages::{Pages, Round};

/// An empty result is asked of all members for so long after a change of the read set, in milliseconds.
const FRESH_READ_SET_MS: u64 = 10_000;
/// Between two tries, in milliseconds.
const AGAIN_MS: u64 = 20;
/// The same at most while debts are waited for.
const DEBTS_AGAIN_MS_MAX: u64 = 1_000;

/// Whether members in debt are searched: only in a planted bug (HA 2.5).
fn on_debtor() -> bool {
    planted::is(Bug::SearchOnDebtor)
}

/// What is searched for.
struct Question<'a> {
    template: &'a Template,
    /// Empty for public objects.
    ticket: &'a [u8],
    /// The requests for its pages.
    pages: RefCell<Pages>,
}

/// A search of one member; of another one from the page on that this one gave as a hedge.
struct Search {
    member: Arc<Member>,
    /// What it owed this process when it was asked: of these objects it knows nothing (HA 2.5).
    owed: BTreeSet<Ouid>,
    /// Members that were asked for the same page and did not give it either.
    others: Vec<(Arc<Member>, SearchEnd)>,
    after: Vec<u8>,
    found: Vec<Found>,
    deleted: BTreeSet<Ouid>,
    end: SearchEnd,
}

/// Where a search of one member stands.
enum SearchEnd {
    Going,
    Complete,
    /// The request or its reply was lost.
    Lost {
        /// Whether the member may have executed it.
        maybe: bool,
    },
    /// The member asks for so many milliseconds of patience.
    Busy(u32),
    /// The member failed it, with this answer.
    Failed(Error),
    /// The member cannot serve now, with this answer.
    Unable(Error),
    /// The member is of another generation than the one that the search names.
    WrongGroup(Error),
    /// The partition decided: the template is wrong, the ticket is dead.
    Decided(Error),
}

impl SearchEnd {
    /// Why there is no result, for the operator.
    fn why(&self) -> String {
        match self {
            SearchEnd::Busy(_) => "is busy".to_owned(),
            SearchEnd::Going | SearchEnd::Complete | SearchEnd::Lost { .. } => {
                "did not answer a search".to_owned()
            }
            SearchEnd::Failed(error)
            | SearchEnd::Unable(error)
            | SearchEnd::WrongGroup(error)
            | SearchEnd::Decided(error) => format!("gave no result ({error})"),
        }
    }
}

impl Search {
    fn new(member: Arc<Member>) -> Self {
        let owed = if on_debtor() { BTreeSet::new() } else { member.owed() };
        let (others, found, deleted, end) = (Vec::new(), Vec::new(), BTreeSet::new(), SearchEnd::Going);
        Self { member, owed, others, after: Vec::new(), found, deleted, end }
    }

    fn take(&mut self, page: FindAnswer) {
        self.deleted.extend(page.deleted.iter().filter_map(|ouid| Ouid::from_bytes(ouid)));
        // A page ends where the member stopped looking, which may be behind the last match.
        let last = Some(&page.looked).filter(|looked| !looked.is_empty());
        // So does one of a release that does not tell: at a match or at a tombstone behind the last match.
        let last = last.or(page.found.last().map(|found| &found.ouid).max(page.deleted.last()));
        match last {
            Some(last) if page.more && *last > self.after => self.after.clone_from(last),
            _ => self.end = SearchEnd::Complete,
        }
        self.found.extend(page.found);
    }
}

/// What one call of `find` has learned of the members.
struct Tries {
    deadline: Moment,
    avoid: Avoided,
    busy_ms: Option<u32>,
    nobody_since: Option<Moment>,
    unanswered: usize,
    looked: bool,
    /// Since when debts are waited for.
    debts_since: Option<Moment>,
}

impl Tries {
    fn new(deadline: Moment) -> Self {
        let avoid = Avoided::default();
        Self {
            deadline,
            avoid,
            busy_ms: None,
            nobody_since: None,
            unanswered: 0,
            looked: false,
            debts_since: None,
        }
    }

    /// A member whose search broke is not searched again while there are others.
    fn learn(&mut self, search: &Search) {
        search.others.iter().for_each(|(member, end)| self.learn_of(member.id, end));
        self.learn_of(search.member.id, &search.end);
    }

    fn learn_of(&mut self, id: MemberId, end: &SearchEnd) {
        match end {
            SearchEnd::Going | SearchEnd::Complete | SearchEnd::Decided(_) => {}
            SearchEnd::Lost { maybe } => {
                self.unanswered += usize::from(*maybe);
                if *maybe {
                    self.nobody_since = None;
                }
                self.avoid.lost(id);
            }
            SearchEnd::Busy(ms) => {
                self.busy_ms = Some(self.busy_ms.map_or(*ms, |other| other.min(*ms)));
                self.avoid.lost(id);
            }
            SearchEnd::Failed(error) => self.avoid.failed(id, error.clone()),
            SearchEnd::Unable(error) => self.avoid.unable(id, error.clone()),
            SearchEnd::WrongGroup(error) if self.looked => self.avoid.failed(id, error.clone()),
            SearchEnd::WrongGroup(error) => self.avoid.unable(id, error.clone()),
        }
    }

    /// How many sends may still be lost: at most members + 1 may have executed (HA 4.2).
    fn room(&self, view: &View) -> usize {
        (view.seats.len() + 1).saturating_sub(self.unanswered)
    }

    /// Ends a search whose sends are used up.
    fn ensure_few(&self, view: &View) -> Result<(), Error> {
        if self.room(view) > 0 {
            return Ok(());
        }
        Err(Error::Peer(format!("a search was sent {} times and never answered", self.unanswered)))
    }
}

impl Group {
    /// Searches token objects; the matches in ouid order (C_FindObjectsInit). An empty ticket finds public ones.
    ///
    /// # Errors
    /// What the partition answered, the failure that every member answered, or `Outage`.
    pub fn find(&self, template: &Template, ticket: &[u8]) -> Result<Vec<Found>, Error> {
        let deadline = self.deadline();
        let mut desk = Desk::until(self, deadline);
        drop(self.ready(&mut desk, deadline)?);
        let mut tries = Tries::new(deadline);
        let question = Question { template, ticket, pages: RefCell::default() };
        loop {
            self.ensure_open()?;
            let now = self.platform.now();
            if now >= deadline {
                return Err(tries.avoid.last().unwrap_or(Error::Deadline));
            }
            let view = arc_swap::Guard::into_inner(self.view());
            let changed = self.read_set_changed(&view);
            let searchable = self.searchable(&view, &tries.avoid);
            if searchable.is_empty() {
                self.nobody_to_search(&mut desk, &mut tries)?;
                continue;
            }
            // Without replication contents differ by intention (HA 2.9).
            let differ = self.is_divergent() || !self.settings().synchronize;
            let one = self.searcher(&view, &searchable).filter(|_| !differ);
            let Some(member) = one else {
                return self.search_all(&mut desk, &question, &mut tries, Vec::new());
            };
            let round = Round { view: &view, question: &question, tries: &tries, is_lone: true };
            let search = self.search(&mut desk, &round, vec![member]).remove(0);
            tries.learn(&search);
            let fresh = now < changed.after_ms(FRESH_READ_SET_MS);
            match search.end {
                // It came to owe something between the choice and the question.
                SearchEnd::Complete if !search.owed.is_empty() => {
                    return self.search_all(&mut desk, &question, &mut tries, vec![search]);
                }
                SearchEnd::Complete if fresh && search.found.is_empty() => {
                    return self.search_all(&mut desk, &question, &mut tries, vec![search]);
                }
                SearchEnd::Complete => return Ok(merge(vec![search])),
                SearchEnd::Decided(error) => return Err(error),
                SearchEnd::Going
                | SearchEnd::Lost { .. }
                | SearchEnd::Busy(_)
                | SearchEnd::Failed(_)
                | SearchEnd::Unable(_)
                | SearchEnd::WrongGroup(_) => tries.ensure_few(&view)?,
            }
        }
    }

    /// Searches every member that can be read, but for those that are done, and merges. A member that gave no result and
    /// can still be read is asked again for a while: nothing is told without it (HA 3.2).
    fn search_all(
        &self,
        desk: &mut Desk<'_>,
        question: &Question<'_>,
        tries: &mut Tries,
        mut done: Vec<Search>,
    ) -> Result<Vec<Found>, Error> {
        let mut since = None;
        loop {
            self.ensure_open()?;
            if self.platform.now() >= tries.deadline {
                return Err(tries.avoid.last().unwrap_or(Error::Deadline));
            }
            let view = arc_swap::Guard::into_inner(self.view());
            let mut open = self.searchable(&view, &Avoided::default());
            open.retain(|member| !done.iter().any(|search| search.member.id == member.id));
            if open.is_empty() && !done.is_empty() {
                if !lacks_what_is_owed(&done) {
                    return Ok(merge(done));
                }
                done.clear();
                self.wait_for_debts(desk, tries)?;
                continue;
            }
            if open.is_empty() {
                self.nobody_to_search(desk, tries)?;
                continue;
            }
            // Of those that there is no more room for, each is asked when another one has answered.
            tries.ensure_few(&view)?;
            open.truncate(tries.room(&view));
            let mut left = Vec::new();
            let round = Round { view: &view, question, tries, is_lone: false };
            for search in self.search(desk, &round, open) {
                tries.learn(&search);
                match search.end {
                    SearchEnd::Complete => done.push(search),
                    SearchEnd::Decided(error) => return Err(error),
                    _ => left.push(search),
                }
            }
            left.retain(|search| search.member.is_readable(&*self.seam));
            if !left.is_empty() {
                tries.ensure_few(&view)?;
                let since = *since.get_or_insert(self.platform.now());
                self.search_again(desk, tries, &left, since)?;
            }
        }
    }

    /// Members that can be read gave no result: waits before they are asked again, or ends the search.
    fn search_again(
        &self,
        desk: &mut Desk<'_>,
        tries: &mut Tries,
        left: &[Search],
        since: Moment,
    ) -> Result<(), Error> {
        let outage_wait_ms = self.settings().outage_wait_ms;
        // A busy member is patiently waited for; one that fails is given less time.
        let (bound_ms, pause_ms) = match tries.busy_ms.take() {
            Some(ms) => (outage_wait_ms, u64::from(ms)),
            None => (OPEN_MS_MAX.min(outage_wait_ms), OPEN_AGAIN_MS),
        };
        let pause_ms = self.jitter_ms(pause_ms).max(1);
        let now = self.platform.now();
        if now >= since.after_ms(bound_ms) || now.after_ms(pause_ms) >= tries.deadline {
            let search = &left[0];
            return Err(Error::Peer(format!(
                "the members' contents may differ, and member {} {}: repair or remove it",
                search.member.id,
                search.end.why()
            )));
        }
        let other_group = left.iter().any(|search| matches!(search.end, SearchEnd::WrongGroup(_)));
        if other_group && !std::mem::replace(&mut tries.looked, true) {
            self.look(desk, true);
            return Ok(());
        }
        desk.pause(pause_ms);
        Ok(())
    }

    /// What one of the members owes was not found by searching the others, who owe it too: it is given to them first, for
    /// what this process has written must be found by it (HA 2.5, 3.4). Until then there is nobody to search.
    fn wait_for_debts(&self, desk: &mut Desk<'_>, tries: &mut Tries) -> Result<(), Error> {
        let now = self.platform.now();
        let since = *tries.debts_since.get_or_insert(now);
        if now >= since.after_ms(self.settings().outage_wait_ms).min(tries.deadline) {
            // Members answer: this is no outage, and must not be told as one.
            let text = "every member that can be searched lacks something that this process has written, and does not \
                        take it: make room on its appliance, or bring another member back";
            return Err(Error::Undecided(text.to_owned()));
        }
        self.pay_now(tries.deadline);
        desk.refresh();
        // All of them are searched anew after it: seldom, if it goes on.
        let waited_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        desk.pause(waited_ms.clamp(AGAIN_MS, DEBTS_AGAIN_MS_MAX));
        Ok(())
    }

    /// Every member that can be searched is passed over: ends the search when all have failed it, waits when one is
    /// busy, and else looks for members for `OutageWaitMs` at most.
    fn nobody_to_search(&self, desk: &mut Desk<'_>, tries: &mut Tries) -> Result<(), Error> {
        if let Some(ms) = tries.busy_ms.take() {
            tries.nobody_since = None;
            desk.pause(self.jitter_ms(u64::from(ms)).max(1));
            tries.avoid.forgive();
            return Ok(());
        }
        let now = self.platform.now();
        let since = *tries.nobody_since.get_or_insert(now);
        self.outage(since, now, tries.deadline).map_err(|outage| match outage {
            Error::Outage { .. } => tries.avoid.last().unwrap_or(outage),
            closed => closed,
        })?;
        // A member of another generation tells a thorough look which it is; once is enough.
        self.look(desk, !std::mem::replace(&mut tries.looked, true));
        let view = self.view();
        if let Some(failure) = tries.avoid.failed_by_all(self.readable(&view)) {
            return Err(failure);
        }
        desk.pause(AGAIN_MS);
        tries.avoid.forgive();
        Ok(())
    }

    /// Members of the read set without debt; with debt when there are no others (HA 2.5). Not those to be avoided.
    fn searchable(&self, view: &View, avoid: &Avoided) -> Vec<Arc<Member>> {
        let readable = view
            .seats
            .iter()
            .map(|seat| &seat.member)
            .filter(|member| member.is_readable(&*self.seam) && !avoid.contains(member.id));
        let clean: Vec<Arc<Member>> =
            readable.clone().filter(|member| member.debts() == 0 || on_debtor()).cloned().collect();
        if clean.is_empty() { readable.cloned().collect() } else { clean }
    }

    /// The member that searches go to: the same while it lives (HA 3.2).
    fn searcher(&self, view: &View, searchable: &[Arc<Member>]) -> Option<Arc<Member>> {
        let last = MemberId(self.searcher.load(Ordering::Relaxed));
        let now = self.platform.now();
        let doubted =
            |member: &Arc<Member>| member.load.is_doubted(member.id, &*self.seam, Cost::Search, now);
        let clean = |member: &&Arc<Member>| member.debts() == 0 || on_debtor();
        let same = |member: &&Arc<Member>| member.id == last && !doubted(member);
        if let Some(member) = searchable.iter().filter(clean).find(same) {
            return Some(member.clone());
        }
        // Debt makes a lone search doubtful: then all are asked and merged.
        let active = |member: &Arc<Member>| {
            view.seats
                .iter()
                .any(|seat| seat.member.id == member.id && seat.role == spec::record::MemberRole::Active)
        };
        let chosen = searchable
            .iter()
            .filter(clean)
            .find(|member| active(member) && !doubted(member))
            .or_else(|| searchable.iter().filter(clean).find(|member| !doubted(member)))
            .or_else(|| searchable.iter().find(clean))?;
        self.searcher.store(chosen.id.0, Ordering::Relaxed);
        Some(chosen.clone())
    }

    /// When the read set changed last, as searches see it.
    fn read_set_changed(&self, view: &View) -> Moment {
        let ids: Vec<MemberId> = view
            .seats
            .iter()
            .filter(|seat| seat.member.is_readable(&*self.seam))
            .map(|seat| seat.member.id)
            .collect();
        let mut read_set = self.read_set.lock();
        if read_set.ids != ids {
            read_set.ids = ids;
            read_set.changed = self.platform.now();
        }
        read_set.changed
    }
}

/// Whether some object is owed by every one of the members, so that none of them can tell about it (HA 2.5).
fn lacks_what_is_owed(searches: &[Search]) -> bool {
    let Some((first, others)) = searches.split_first() else { return false };
    first.owed.iter().any(|ouid| others.iter().all(|other| other.owed.contains(ouid)))
}

/// One match as two members know it: the least state that both can be asked for again is that of both.
fn join(match_: &mut Found, other: Found) {
    match_.version = match_.version.max(other.version);
    match (&mut match_.changed, other.changed) {
        (Some(own), Some(other)) => drop(own.join(&other)),
        (own @ None, other) => *own = other,
        (Some(_), None) => {}
    }
}

/// The union by ouid, of each member without what it owes, without what any member knows as deleted (HA 2.5, 3.2).
fn merge(searches: Vec<Search>) -> Vec<Found> {
    let mut merged: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
    let mut deleted = BTreeSet::new();
    for search in searches {
        deleted.extend(search.deleted);
        let owed =
            |found: &Found| Ouid::from_bytes(&found.ouid).is_some_and(|ouid| search.owed.contains(&ouid));
        for found in search.found.into_iter().filter(|found| !owed(found)) {
            match merged.get_mut(&found.ouid) {
                Some(other) => join(other, found),
                None => drop(merged.insert(found.ouid.clone(), found)),
            }
        }
    }
    merged.retain(|ouid, _| Ouid::from_bytes(ouid).is_none_or(|ouid| !deleted.contains(&ouid)));
    merged.into_values().collect()
}
