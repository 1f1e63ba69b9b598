//! The module over a null link: everything that happens between the application's call and the link, and nothing behind it.
//! Partitions of this process answer whatever prepares a call; then a thread's calls are answered at once with a reply that was
//! recorded from them, and no cryptography is left in what is measured.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use cryptoki_sys::CKM_ECDSA;
use hatoki::Surroundings;
use spec::messages::ReplyHeader;
use spec::platform::Moment;
use spec::seam::{Event, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};
use tests::inside::{Group, LABEL, PIN};
use tests::p11::Outcome;

use crate::caller::{Mechanism, Session};
use crate::module::{self, Token};
use crate::work::{Contestant as _, Work, Worker};

/// What becomes of a request of the calling thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A partition answers.
    Real,
    /// A partition answers, and the reply is kept.
    Recorded,
    /// The kept reply is the answer.
    Null,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Real) };
}

/// So are the requests of the calling thread answered from now on.
fn set(mode: Mode) {
    MODE.with(|own| own.set(mode));
}

/// The number of the first request that the null link answers.
const FIRST: u64 = 1;

/// The seam.
struct NullLink {
    real: Arc<dyn Seam>,
    kept: RwLock<Option<(ReplyHeader, Vec<u8>)>>,
    /// Since when the partitions are up; all of them since the same moment.
    since: OnceLock<Moment>,
    next: AtomicU64,
}

thread_local! {
    /// The kept reply as the thread took it over, so that no lock is part of what is measured.
    static KEPT: OnceLock<(ReplyHeader, Vec<u8>)> = const { OnceLock::new() };
}

impl NullLink {
    fn replay(&self, waiter: &Arc<Waiter>, tag: Tag) {
        KEPT.with(|kept| {
            let (header, body) = kept.get_or_init(|| {
                let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
                kept.clone().expect("a reply was recorded first")
            });
            let mut copy = waiter.lend().unwrap_or_default();
            copy.extend_from_slice(body);
            let header = ReplyHeader { tag: tag.0, ..header.clone() };
            waiter.deliver(Event::Reply(tag, Reply { header, body: copy }));
        });
    }

    /// Keeps the reply that a partition has delivered already: the last body, under the first header for all threads. Headers of
    /// two partitions, given in turn as those of one member, would look like a store that is replaced with each call.
    fn record(&self, waiter: &Arc<Waiter>, until: Moment) {
        if let Event::Reply(tag, reply) = waiter.wait(until) {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            let header = kept.take().map_or_else(|| reply.header.clone(), |(header, _)| header);
            *kept = Some((header, reply.body.to_vec()));
            drop(kept);
            waiter.deliver(Event::Reply(tag, reply));
        }
    }
}

impl Seam for NullLink {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        match MODE.with(Cell::get) {
            Mode::Null => {
                // Far above the tags of the partitions.
                let tag = Tag(1 << 63 | self.next.fetch_add(1, Ordering::Relaxed));
                self.replay(waiter, tag);
                tag
            }
            mode => {
                let tag = self.real.submit(waiter, member, request, deadline);
                if mode == Mode::Recorded {
                    self.record(waiter, deadline);
                }
                tag
            }
        }
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        self.real.cancel(member, tag);
    }

    fn standing(&self, member: MemberId) -> Standing {
        match MODE.with(Cell::get) {
            // Heard this very moment, without a look at a clock or a lock: so a link tells it too.
            Mode::Null => Standing::Up { since: *self.since.wait(), heard: Moment::NEVER },
            _ => {
                let standing = self.real.standing(member);
                if let Standing::Up { since, .. } = standing {
                    self.since.get_or_init(|| since);
                }
                standing
            }
        }
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        self.real.abandon(member, reason);
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.real.subscribe(waiter);
    }
}

/// The module, alive over a null link before two partitions, with its keys.
pub struct Dispatch {
    token: Token,
    link: Arc<NullLink>,
}

impl Dispatch {
    /// Initialises the module of this process; once.
    ///
    /// # Errors
    /// What the module answers.
    pub fn new() -> Outcome<Self> {
        let group = Group::new(2);
        let real: Arc<dyn Seam> = group.seam.clone();
        let link = Arc::new(NullLink {
            real,
            kept: RwLock::default(),
            since: OnceLock::new(),
            next: AtomicU64::new(FIRST),
        });
        let seam = link.clone();
        hatoki::over(move || Surroundings { seam: seam.clone(), ..group.surroundings() });
        let p11 = module::linked();
        p11.initialize()?;
        let token = Token::of(p11, LABEL, PIN.to_owned(), true)?;
        Ok(Self { token, link })
    }

    /// How many requests the null link has answered.
    pub fn answered(&self) -> u64 {
        self.link.next.load(Ordering::Relaxed) - FIRST
    }

    /// A warm signer of the calling thread. Until it is dropped the requests of this thread are answered by the null link.
    ///
    /// # Errors
    /// What the module answers.
    pub fn signer(&self) -> Outcome<Signer<'_>> {
        set(Mode::Recorded);
        let mut signer = Signer { session: self.token.session()?, key: self.token.p256()?, output: [0; 128] };
        signer.sign()?;
        set(Mode::Null);
        // What is made once for a thread or a session is made now.
        (0..100).try_for_each(|_| signer.sign())?;
        Ok(signer)
    }

    /// A warm worker of the calling thread for an operation that a partition executes, with one request. A thread has one for
    /// its life: it keeps the reply that it takes over first. Until it is dropped the requests of this thread are answered by
    /// the null link.
    ///
    /// # Errors
    /// What the module answers.
    pub fn repeated(&self, work: Work) -> Outcome<Repeated<'_>> {
        set(Mode::Recorded);
        let worker = self.token.worker(work, 0)?.expect("a token does everything that one thread may do");
        let mut repeated = Repeated(worker);
        repeated.once()?;
        set(Mode::Null);
        (0..100).try_for_each(|_| repeated.once())?;
        Ok(repeated)
    }
}

/// Repeats an operation over the null link.
pub struct Repeated<'a>(Worker<'a>);

impl Repeated<'_> {
    /// The operation once: an Init function and the one that it is for.
    ///
    /// # Errors
    /// What the functions answer.
    pub fn once(&mut self) -> Outcome<()> {
        (self.0)()
    }
}

impl Drop for Repeated<'_> {
    fn drop(&mut self) {
        set(Mode::Real);
    }
}

/// Signs with P-256 over the null link.
pub struct Signer<'a> {
    session: Session<'a>,
    key: cryptoki_sys::CK_OBJECT_HANDLE,
    output: [u8; 128],
}

impl Signer<'_> {
    /// C_SignInit and C_Sign of 32 bytes.
    ///
    /// # Errors
    /// What the functions answer.
    #[inline(never)]
    pub fn sign(&mut self) -> Outcome<()> {
        let mut mechanism = Mechanism::Plain(CKM_ECDSA);
        let made = self.session.sign(&mut mechanism, self.key, &[0x5a; 32], &mut self.output)?;
        crate::work::prove(made == 64, "C_Sign")
    }
}

impl Drop for Signer<'_> {
    fn drop(&mut self) {
        set(Mode::Real);
    }
}
