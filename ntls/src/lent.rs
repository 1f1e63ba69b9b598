//! What a thread does that is lent to the links while it waits (HA 5), without any input or output: it leads those of its
//! links that nobody leads, does the background work if that falls to it, polls both, and parks only when it has neither.
//! So it can be checked (`tests` below, by `loom`: every run of few threads that are interrupted a few times).
//!
//! ```text
//! join (lists, tokens) -> mailbox -> poll or park -> read, flush, tick -> join ...      any exit leaves all lists
//! ```
use spec::platform::Moment;

/// How often a leader looks at deadlines and silence, in milliseconds.
const TICK_MS: u64 = 100;

/// A list whose first entry needs no memory of its own: most callers wait on one link.
pub(crate) struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Few<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, rest: Vec::new() }
    }

    pub(crate) fn push(&mut self, one: T) {
        match self.first {
            None => self.first = Some(one),
            Some(_) => self.rest.push(one),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.rest.pop().or_else(|| self.first.take())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len().saturating_add(usize::from(self.first.is_some()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    /// Keeps those for which `keep` says so, asked in their order.
    pub(crate) fn retain_mut(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.first.take_if(|one| !keep(one));
        self.rest.retain_mut(keep);
        if self.first.is_none() {
            self.first = self.rest.pop();
        }
    }
}

/// What a caller is on a link that it waits on.
pub(crate) enum Entered<R, L> {
    /// Its leader: the role is in the caller's hands.
    Leader(R),
    /// In its list.
    Listed(L),
    /// Nothing: there is no such link any more.
    Gone,
}

/// What a lent thread needs of the links and of the world around it.
pub(crate) trait Ground {
    /// What it waits for.
    type Event;
    /// The role of the leader of one link.
    type Role;
    /// A link in whose list it stands.
    type Listed;
    /// The background work.
    type Work;

    /// The next event of its mailbox.
    fn take(&self) -> Option<Self::Event>;
    /// Forgets a wake that has come before: of what it can have been for, nothing has been looked at yet.
    fn forget(&self);
    /// What it hears when its time has passed.
    fn late(&self) -> Self::Event;
    /// The clock.
    fn now(&self) -> Moment;
    /// One of the links with requests of its own, by number from 0.
    fn place(&self, index: usize) -> Option<u32>;
    /// Waits on the link from now on.
    fn enter(&self, place: u32) -> Entered<Self::Role, Self::Listed>;
    /// Takes the background work, if it falls to this thread; `for_news` when it waits for no request.
    fn work(&self, for_news: bool) -> Option<Self::Work>;
    /// Begins what of the work is due; answers when something will be.
    fn begin(&self, work: &mut Self::Work, now: Moment) -> Moment;
    /// Looks at deadlines and silence of a link that it leads.
    fn tick(&self, role: &Self::Role);
    /// Waits for a wake; only a thread without any role may.
    fn park(&self, until: Moment);
    /// Waits for a wake, for the links that it leads and for the work, and reads what has come. A role whose link is gone
    /// goes with it.
    fn poll(&self, roles: &mut Few<(u32, Self::Role)>, work: Option<&mut Self::Work>, until: Moment);
    /// Gives the role back.
    fn step_down(&self, role: Self::Role);
    /// Gives the work back, or leaves the list of those who would do it.
    fn leave_work(&self, work: Option<Self::Work>);
    /// Whether it stands in some list still: a leader takes those off whose requests have ended.
    fn is_listed(&self) -> bool;
    /// Leaves the list, and passes on a token that it was given.
    fn leave(&self, listed: Self::Listed);
}

/// A thread lent to the links. Dropping it gives back every role.
struct Lent<'a, G: Ground> {
    ground: &'a G,
    held: Few<(u32, G::Role)>,
    /// The links in whose lists the caller may stand. Its requests there may have ended meanwhile.
    entered: Few<(u32, G::Listed)>,
    work: Option<G::Work>,
}

/// The next event of a thread without one in its mailbox, or the late one once the moment has come.
pub(crate) fn lend<G: Ground>(ground: &G, until: Moment) -> G::Event {
    // Whoever reads the reply to a request of its own wakes itself, which would end its next wait at once.
    ground.forget();
    Lent { ground, held: Few::new(), entered: Few::new(), work: None }.run(until)
}

impl<G: Ground> Lent<'_, G> {
    fn run(&mut self, until: Moment) -> G::Event {
        let ground = self.ground;
        let mut begun = None;
        loop {
            self.join();
            if let Some(event) = ground.take() {
                return event;
            }
            let now = ground.now();
            if now >= until {
                return ground.late();
            }
            let ticked = begun.get_or_insert(now);
            if now >= ticked.after_ms(TICK_MS) {
                *ticked = now;
                self.held.iter().for_each(|(_, role)| ground.tick(role));
            }
            let mut next = until;
            if !self.held.is_empty() {
                next = next.min(ticked.after_ms(TICK_MS));
            }
            if let Some(work) = self.work.as_mut() {
                next = next.min(ground.begin(work, now));
            }
            if self.held.is_empty() && self.work.is_none() {
                ground.park(next);
            } else {
                ground.poll(&mut self.held, self.work.as_mut(), next);
            }
        }
    }

    /// Stands in the list of every link with requests of this caller, and takes the roles that fall to it.
    fn join(&mut self) {
        let mut index = 0;
        while let Some(place) = self.ground.place(index) {
            index = index.saturating_add(1);
            if self.held.iter().any(|(held, _)| *held == place) {
                continue;
            }
            match self.ground.enter(place) {
                Entered::Leader(role) => self.held.push((place, role)),
                Entered::Listed(listed) => {
                    if !self.entered.iter().any(|(entered, _)| *entered == place) {
                        self.entered.push((place, listed));
                    }
                }
                Entered::Gone => {}
            }
        }
        if self.work.is_none() {
            self.work = self.ground.work(index == 0);
        }
    }
}

impl<G: Ground> Drop for Lent<'_, G> {
    fn drop(&mut self) {
        while let Some((_, role)) = self.held.pop() {
            self.ground.step_down(role);
        }
        if let Some(work) = self.work.take() {
            self.ground.leave_work(Some(work));
        }
        // Whom a leader has taken off its list already is nowhere any more.
        if !self.ground.is_listed() {
            return;
        }
        while let Some((_, listed)) = self.entered.pop() {
            self.ground.leave(listed);
        }
        self.ground.leave_work(None);
    }
}

#[cfg(test)]
#[path = "lent_tests.rs"]
mod tests;
