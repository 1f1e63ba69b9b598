//! The words of the metrics page, written by several threads while a reader reads.
use std::path::PathBuf;
use std::sync::Arc as Shared;
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::Ordering;
use loom::thread;
use spec::calls;
use spec::meter::Ended;
use spec::seam::MemberId;
use spec::stats::{self, Birth, HISTOGRAM, Layout, State, bucket_of, call, member};

use super::flaws::{Flawed, InTwoSteps, Loose};
use crate::atoms::Word;
use crate::atoms::modelled::{Number, check};
use crate::page::{Mapping, Page};

/// A word of a page; those that nobody writes are none of the model.
enum InPage<W> {
    Still(u64),
    Written(W),
}

impl<W> InPage<W> {
    fn written(&self) -> &W {
        match self {
            Self::Still(_) => panic!("a word is written that the model does not know"),
            Self::Written(word) => word,
        }
    }
}

impl<W: Word> Word for InPage<W> {
    fn new(value: u64) -> Self {
        Self::Written(W::new(value))
    }

    fn load(&self, order: Ordering) -> u64 {
        match self {
            Self::Still(value) => *value,
            Self::Written(word) => word.load(order),
        }
    }

    fn store(&self, value: u64, order: Ordering) {
        self.written().store(value, order);
    }

    fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.written().fetch_add(value, order)
    }

    fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.written().fetch_max(value, order)
    }

    fn compare_exchange(&self, current: u64, new: u64, ok: Ordering, no: Ordering) -> Result<u64, u64> {
        self.written().compare_exchange(current, new, ok, no)
    }
}

/// The words of one page.
struct Words<W>(Shared<Vec<InPage<W>>>);

impl<W: Word> Mapping<InPage<W>> for Words<W> {
    fn words(&self) -> &[InPage<W>] {
        &self.0
    }
}

impl<W: Word> Words<W> {
    /// Takes the words from the first to the last, as a copy of the file does.
    fn read(&self) -> stats::Page {
        let words = self.0.iter().map(|word| word.load(Ordering::Acquire));
        let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        stats::read(&bytes).unwrap()
    }

    /// The one call of the one member.
    fn call(&self) -> Option<stats::Call> {
        self.read().members.first()?.calls.first().cloned()
    }
}

const MEMBER: MemberId = MemberId(1_001);
const SHORT: Duration = Duration::from_micros(3);
const LONG: Duration = Duration::from_micros(50);

/// The number of the first call.
fn sign() -> u32 {
    calls::CALLS[0].number
}

fn ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap()
}

/// A page with room for one member.
fn page<W: Word + 'static>() -> (Arc<Page<InPage<W>>>, Words<W>) {
    let layout = Layout::new(1);
    let birth = Birth { pid: 1, started_ticks: 2, created_ms: 3, serial: 11_001, label: "lab" };
    let in_call = [
        call::ANSWERED,
        call::LOST,
        call::SUM_NS,
        call::MAX_NS,
        HISTOGRAM + bucket_of(ns(SHORT)),
        HISTOGRAM + bucket_of(ns(LONG)),
    ];
    let in_member = [member::SERIAL, member::STATE, member::SINCE_MS];
    let written: Vec<usize> = in_member
        .map(|at| layout.member(0) + at)
        .into_iter()
        .chain(in_call.map(|at| layout.call(0, 0) + at))
        .collect();
    let word = |(at, value)| match written.contains(&at) {
        true => InPage::new(value),
        false => InPage::Still(value),
    };
    let words: Vec<_> = stats::new_page(&layout, &birth).into_iter().enumerate().map(word).collect();
    let words = Shared::new(words);
    let page = Page::over(Box::new(Words(words.clone())), layout, PathBuf::new());
    (Arc::new(page), Words(words))
}

/// Each thread has one send answered after so long, and one lost.
fn sends<W: Word + 'static>(threads: &'static [Duration]) {
    check(1, move || {
        let (page, words) = page::<W>();
        let writers = threads.iter().map(|took| {
            let page = page.clone();
            thread::spawn(move || {
                page.ended(MEMBER, sign(), Ended::Answered, *took);
                page.ended(MEMBER, sign(), Ended::Lost, *took);
            })
        });
        let writers: Vec<_> = writers.collect();
        if let Some(call) = words.call() {
            assert!(call.histogram.total() >= call.answered, "torn: a send without its time: {call:?}");
            assert!(call.sum_ns >= call.answered * ns(SHORT), "torn: a send without its time: {call:?}");
            assert!(call.answered == 0 || call.max_ns >= ns(SHORT), "torn: {call:?}");
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let call = words.call().unwrap();
        let all = (call.answered, call.lost, call.histogram.total(), call.sum_ns, call.max_ns);
        let count = threads.len() as u64;
        let (sum, longest) = (threads.iter().sum(), threads.iter().max().unwrap());
        assert_eq!(all, (count, count, count, ns(sum), ns(*longest)), "something was not counted");
    });
}

#[test]
fn no_count_is_lost_and_no_send_is_read_without_its_time() {
    sends::<Number>(&[SHORT, LONG]);
}

#[test]
#[should_panic(expected = "something was not counted")]
fn the_model_sees_a_count_that_another_one_overwrites() {
    sends::<Flawed<InTwoSteps>>(&[SHORT, LONG]);
}

#[test]
#[should_panic(expected = "torn")]
fn the_model_sees_counts_that_are_told_without_order() {
    sends::<Flawed<Loose>>(&[SHORT]);
}

fn a_member_that_is_lost_and_back<W: Word + 'static>() {
    check(2, || {
        let (page, words) = page::<W>();
        let writer = {
            let page = page.clone();
            thread::spawn(move || {
                page.set_state(MEMBER, State::Lost, 7);
                page.set_state(MEMBER, State::Up, 8);
            })
        };
        let look = || {
            let read = words.read();
            let Some(member) = read.members.first() else { return };
            let told_ms = match member.state {
                State::Lost => 7,
                State::Up => 8,
                _ => 0,
            };
            assert!(member.since_ms >= told_ms, "torn: {} since {}", member.state, member.since_ms);
        };
        look();
        writer.join().unwrap();
        let member = words.read().members.remove(0);
        assert_eq!((member.serial, member.state, member.since_ms), (MEMBER.0, State::Up, 8));
    });
}

#[test]
fn no_state_is_read_with_a_moment_before_it() {
    a_member_that_is_lost_and_back::<Number>();
}

#[test]
#[should_panic(expected = "torn")]
fn the_model_sees_a_state_that_is_told_without_order() {
    a_member_that_is_lost_and_back::<Flawed<Loose>>();
}
