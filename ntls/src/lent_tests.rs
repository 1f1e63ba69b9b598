//! Threads lent to links, checked over the interleavings by `loom`: leadership of several links, hand-over, time-outs that
//! pass a token on, the background work. The loop and the lists are the real ones; sockets, parkers and mailboxes are those
//! of the model.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::lead::Lead;

/// When the time of every caller has passed; before that it is 0.
const UNTIL: Moment = Moment(1);

/// What a caller hears.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Reply,
    Late,
}

/// What the kernel does: replies in the sockets of the links, tokens of parked or polling threads.
struct Kernel {
    /// By link, the callers whose replies have come and have not been read.
    sockets: Vec<Vec<usize>>,
    tokens: Vec<bool>,
    timed_out: Vec<bool>,
}

/// The state of a link: who leads, who is listed, and whether the right to read lies in it.
struct Link {
    lead: Lead<usize>,
    has_reader: bool,
}

/// A mailbox: replies, and the links with requests that have not ended.
#[derive(Default)]
struct Mail {
    replies: usize,
    places: Vec<u32>,
}

/// The background work while nobody does it.
struct Seat {
    lead: Lead<usize>,
    has_work: bool,
}

struct World {
    links: Vec<Mutex<Link>>,
    seat: Mutex<Seat>,
    kernel: Mutex<Kernel>,
    changed: Condvar,
    mail: Vec<Mutex<Mail>>,
    listed: Vec<AtomicUsize>,
    /// Whether callers do the background work.
    works: bool,
    /// Set when a leader hands over to whom it saw when it came, without reading the list again: to whether that left
    /// somebody behind in any run. What is left behind is taken up again, so that the run ends.
    broken: Option<std::sync::Arc<AtomicBool>>,
}

impl World {
    /// By caller, the links that its requests are on.
    fn new(places: &[&[u32]], works: bool, broken: Option<std::sync::Arc<AtomicBool>>) -> Arc<Self> {
        let callers = places.len();
        let links = places.iter().flat_map(|places| places.iter()).max().map_or(0, |most| *most as usize + 1);
        Arc::new(Self {
            links: (0..links).map(|_| Mutex::new(Link { lead: Lead::new(), has_reader: true })).collect(),
            seat: Mutex::new(Seat { lead: Lead::new(), has_work: true }),
            kernel: Mutex::new(Kernel {
                sockets: vec![Vec::new(); links],
                tokens: vec![false; callers],
                timed_out: vec![false; callers],
            }),
            changed: Condvar::new(),
            mail: places
                .iter()
                .map(|places| Mutex::new(Mail { replies: 0, places: places.to_vec() }))
                .collect(),
            listed: (0..callers).map(|_| AtomicUsize::new(0)).collect(),
            works,
            broken,
        })
    }

    /// The caller waits, as long as it has the time.
    fn wait(&self, caller: usize) -> Heard {
        lend(&Caller { world: self, number: caller, seen: Cell::new(None) }, UNTIL)
    }

    /// The appliance answers on the link.
    fn answer(&self, link: usize, caller: usize) {
        self.kernel.lock().unwrap().sockets[link].push(caller);
        self.changed.notify_all();
    }

    fn time_out(&self, caller: usize) {
        self.kernel.lock().unwrap().timed_out[caller] = true;
        self.changed.notify_all();
    }

    fn unpark(&self, caller: usize) {
        self.kernel.lock().unwrap().tokens[caller] = true;
        self.changed.notify_all();
    }

    /// As `link::unlist`.
    fn unlist(&self, caller: usize, was_there: bool) {
        if was_there {
            self.listed[caller].fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// A leader has read the reply of the caller (`up::Up::end`, `seam::Waiter::settle`).
    fn end(&self, link: usize, caller: usize) {
        let token = {
            let mut state = self.links[link].lock().unwrap();
            if state.lead.is_led_by(&caller) && !state.has_reader {
                None
            } else {
                let left = state.lead.leave(&caller);
                self.unlist(caller, left.was_there);
                left.token
            }
        };
        self.mail[caller].lock().unwrap().replies += 1;
        // The caller may take the reply, and even come back, before its place is gone.
        self.mail[caller].lock().unwrap().places.retain(|place| *place as usize != link);
        self.unpark(caller);
        token.into_iter().for_each(|next| self.unpark(next));
    }

    /// Nobody is left behind, and every role is where it belongs.
    fn is_at_rest(&self) {
        for link in &self.links {
            let mut link = link.lock().unwrap();
            let lead = std::mem::replace(&mut link.lead, Lead::new());
            assert!(link.has_reader && lead.into_all().count() == 0, "HA 5 (2)");
        }
        let mut seat = self.seat.lock().unwrap();
        let lead = std::mem::replace(&mut seat.lead, Lead::new());
        assert!(seat.has_work && lead.into_all().count() == 0);
        assert!(self.listed.iter().all(|listed| listed.load(Ordering::Acquire) == 0));
    }
}

/// A calling thread.
struct Caller<'a> {
    world: &'a World,
    number: usize,
    /// Whom it saw in the list when it took the role.
    seen: Cell<Option<usize>>,
}

impl Ground for Caller<'_> {
    type Event = Heard;
    type Role = usize;
    type Listed = usize;
    type Work = ();

    fn take(&self) -> Option<Heard> {
        let mut mail = self.world.mail[self.number].lock().unwrap();
        mail.replies = mail.replies.checked_sub(1)?;
        Some(Heard::Reply)
    }

    fn forget(&self) {
        self.world.kernel.lock().unwrap().tokens[self.number] = false;
    }

    fn late(&self) -> Heard {
        Heard::Late
    }

    fn now(&self) -> Moment {
        if self.world.kernel.lock().unwrap().timed_out[self.number] { UNTIL } else { Moment(0) }
    }

    fn place(&self, index: usize) -> Option<u32> {
        self.world.mail[self.number].lock().unwrap().places.get(index).copied()
    }

    fn enter(&self, place: u32) -> Entered<usize, usize> {
        let place = place as usize;
        let mut link = self.world.links[place].lock().unwrap();
        let (leads, is_new) = link.lead.enter(&self.number);
        if is_new {
            self.world.listed[self.number].fetch_add(1, Ordering::AcqRel);
        }
        if leads && std::mem::take(&mut link.has_reader) {
            self.seen.set(link.lead.last());
            return Entered::Leader(place);
        }
        Entered::Listed(place)
    }

    fn work(&self, _for_news: bool) -> Option<()> {
        if !self.world.works {
            return None;
        }
        let mut seat = self.world.seat.lock().unwrap();
        let (leads, is_new) = seat.lead.enter(&self.number);
        if is_new {
            self.world.listed[self.number].fetch_add(1, Ordering::AcqRel);
        }
        (leads && std::mem::take(&mut seat.has_work)).then_some(())
    }

    fn begin(&self, (): &mut (), _now: Moment) -> Moment {
        Moment::NEVER
    }

    fn tick(&self, _role: &usize) {}

    fn park(&self, _until: Moment) {
        let mut kernel = self.world.kernel.lock().unwrap();
        while !std::mem::take(&mut kernel.tokens[self.number]) && !kernel.timed_out[self.number] {
            kernel = self.world.changed.wait(kernel).unwrap();
        }
    }

    fn poll(&self, roles: &mut Few<(u32, usize)>, _work: Option<&mut ()>, _until: Moment) {
        let mut read: Vec<(usize, usize)> = Vec::new();
        {
            let mut kernel = self.world.kernel.lock().unwrap();
            loop {
                for (_, link) in roles.iter() {
                    read.extend(std::mem::take(&mut kernel.sockets[*link]).into_iter().map(|to| (*link, to)));
                }
                let token = std::mem::take(&mut kernel.tokens[self.number]);
                if !read.is_empty() || token || kernel.timed_out[self.number] {
                    break;
                }
                kernel = self.world.changed.wait(kernel).unwrap();
            }
        }
        read.into_iter().for_each(|(link, to)| self.world.end(link, to));
    }

    fn step_down(&self, link: usize) {
        let token = {
            let mut state = self.world.links[link].lock().unwrap();
            state.has_reader = true;
            match &self.world.broken {
                Some(found) => {
                    self.world.unlist(self.number, true);
                    if state.lead.leave_to(self.seen.get()).is_none() && state.lead.last().is_some() {
                        found.store(true, std::sync::atomic::Ordering::SeqCst);
                        let left = state.lead.last();
                        state.lead.leave_to(left);
                    }
                    state.lead.leader().copied()
                }
                None => {
                    let left = state.lead.leave(&self.number);
                    self.world.unlist(self.number, left.was_there);
                    left.token
                }
            }
        };
        token.into_iter().for_each(|next| self.world.unpark(next));
    }

    fn leave_work(&self, work: Option<()>) {
        let left = {
            let mut seat = self.world.seat.lock().unwrap();
            seat.has_work |= work.is_some();
            seat.lead.leave(&self.number)
        };
        self.world.unlist(self.number, left.was_there);
        left.token.into_iter().for_each(|next| self.world.unpark(next));
    }

    fn is_listed(&self) -> bool {
        self.world.listed[self.number].load(Ordering::Acquire) > 0
    }

    fn leave(&self, link: usize) {
        let left = {
            let mut state = self.world.links[link].lock().unwrap();
            let left = state.lead.leave(&self.number);
            self.world.unlist(self.number, left.was_there);
            left
        };
        left.token.into_iter().for_each(|next| self.world.unpark(next));
    }
}

/// Every run of the threads of a model that are interrupted at most so often.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Starts a thread that waits for its reply.
fn asks(world: &Arc<World>, caller: usize) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || assert_eq!(world.wait(caller), Heard::Reply))
}

#[test]
fn ha_5_every_caller_of_a_link_gets_its_reply_and_leaves_nothing_behind() {
    check(3, || {
        let world = World::new(&[&[0], &[0]], false, None);
        let other = asks(&world, 1);
        world.answer(0, 1);
        world.answer(0, 0);
        assert_eq!(world.wait(0), Heard::Reply);
        other.join().unwrap();
        world.is_at_rest();
    });
}

#[test]
fn ha_5_a_caller_on_two_links_leads_both_and_gives_both_back() {
    check(2, || {
        let world = World::new(&[&[0, 1], &[1]], false, None);
        let other = asks(&world, 1);
        world.answer(1, 1);
        world.answer(1, 0);
        world.answer(0, 0);
        assert_eq!(world.wait(0), Heard::Reply);
        assert_eq!(world.wait(0), Heard::Reply);
        other.join().unwrap();
        world.is_at_rest();
    });
}

#[test]
fn ha_5_a_caller_that_times_out_leaves_its_list_and_passes_its_token_on() {
    check(2, || {
        let world = World::new(&[&[0], &[0], &[0]], false, None);
        let leader = asks(&world, 0);
        let late = {
            let world = world.clone();
            // Its reply never comes: it is late, leading, listed, or with a token in its hands.
            thread::spawn(move || assert_eq!(world.wait(1), Heard::Late))
        };
        world.answer(0, 0);
        world.time_out(1);
        world.answer(0, 2);
        assert_eq!(world.wait(2), Heard::Reply);
        leader.join().unwrap();
        late.join().unwrap();
        world.is_at_rest();
    });
}

#[test]
fn ha_5_the_background_work_is_never_lost_between_callers() {
    check(2, || {
        let world = World::new(&[&[0], &[0]], true, None);
        let other = asks(&world, 1);
        world.answer(0, 0);
        world.answer(0, 1);
        assert_eq!(world.wait(0), Heard::Reply);
        other.join().unwrap();
        world.is_at_rest();
    });
}

#[test]
fn a_hand_over_that_does_not_read_the_list_again_is_found() {
    let found = std::sync::Arc::new(AtomicBool::new(false));
    let told = found.clone();
    check(2, move || {
        let world = World::new(&[&[0], &[0]], false, Some(told.clone()));
        let other = asks(&world, 1);
        world.answer(0, 0);
        assert_eq!(world.wait(0), Heard::Reply);
        world.answer(0, 1);
        other.join().unwrap();
    });
    assert!(found.load(std::sync::atomic::Ordering::SeqCst), "the planted break shows in some interleaving");
}

#[test]
fn a_short_list_keeps_its_order_and_loses_nobody() {
    let mut few = Few::new();
    assert!(few.is_empty());
    (0..5).for_each(|number| few.push(number));
    assert_eq!((few.len(), few.iter().copied().collect::<Vec<_>>()), (5, vec![0, 1, 2, 3, 4]));
    let mut asked = Vec::new();
    few.retain_mut(|number| {
        asked.push(*number);
        *number % 2 == 1
    });
    assert_eq!(asked, [0, 1, 2, 3, 4]);
    let mut left: Vec<i32> = std::iter::from_fn(|| few.pop()).collect();
    left.sort_unstable();
    assert_eq!((left, few.len()), (vec![1, 3], 0));
}
