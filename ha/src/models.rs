//! The group snapshot and what is known of a member's store, checked over the interleavings of their threads and the orders that
//! the memory model allows, by `loom`. The same models over words without order, and over a turn that everybody has at once, fail:
//! they see what they are for.
#![allow(clippy::unwrap_used)]
use std::sync::Arc as Shared;

use loom::sync::atomic::Ordering;
use loom::sync::{Arc, Mutex};
use loom::thread;
use spec::messages::ReplyHeader;
use spec::platform::Moment;
use spec::record::{Manifest, ManifestMember, MemberRole};
use spec::seam::MemberId;

use crate::atoms::modelled::{Number, Shown, check};
use crate::atoms::{Turn, Word};
use crate::known::{Known, KnownCell};
use crate::settings::GroupSettings;
use crate::snapshot::Snapshot;
use crate::view::View;

type Of<W, T> = Snapshot<Shown<View>, W, T>;
type Modelled = Of<Number, Mutex<()>>;

/// A break: a word that tells nothing of what was done before it was written.
struct Loose(Number);

impl Word for Loose {
    fn new(value: u64) -> Self {
        Self(Number::new(value))
    }

    fn load(&self, _: Ordering) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn store(&self, value: u64, _: Ordering) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn swap(&self, value: u64, _: Ordering) -> u64 {
        self.0.swap(value, Ordering::Relaxed)
    }

    fn fetch_max(&self, value: u64, _: Ordering) -> u64 {
        self.0.fetch_max(value, Ordering::Relaxed)
    }
}

/// A break: a turn that everybody has at once.
struct Anyones;

impl Turn<()> for Anyones {
    type Held<'a> = Box<()>;

    fn new((): ()) -> Self {
        Self
    }

    fn take(&self) -> Box<()> {
        Box::default()
    }
}

/// The manifest of this epoch with these members.
fn manifest(epoch: u64, members: &[u64]) -> Manifest {
    let members =
        members.iter().map(|serial| ManifestMember { serial: *serial, weight: 100, ..Default::default() });
    Manifest { group: vec![7; 16], epoch, members: members.collect(), ..Manifest::default() }
}

/// A group of the members 1, 2 and 3, whose manifest of epoch 1 is known.
fn snapshot<W: Word, T: Turn<()>>() -> Arc<Of<W, T>> {
    let settings = GroupSettings {
        serial: Some(9),
        members: vec![MemberId(1), MemberId(2), MemberId(3)],
        ..GroupSettings::default()
    };
    let snapshot = Of::new(Shared::new(settings));
    snapshot.learn(&manifest(1, &[1, 2, 3]), |_, _| {});
    Arc::new(snapshot)
}

fn ids(view: &View) -> Vec<u64> {
    view.seats.iter().map(|seat| seat.member.id.0).collect()
}

/// What a reader holds the snapshot to, look after look.
struct Reader<W, T> {
    snapshot: Arc<Of<W, T>>,
    last: Shared<View>,
    epoch: u64,
}

impl<W: Word, T: Turn<()>> Reader<W, T> {
    fn of(snapshot: &Arc<Of<W, T>>) -> Self {
        Self { snapshot: snapshot.clone(), last: snapshot.view().clone(), epoch: 0 }
    }

    fn look(&mut self) {
        let epoch = self.snapshot.epoch();
        let view = self.snapshot.view().clone();
        assert!(view.epoch() >= epoch, "epoch {epoch} was read before its view: {}", view.epoch());
        assert!(epoch >= self.epoch, "the epoch went back to {epoch}");
        assert!(view.number >= self.last.number && view.epoch() >= self.last.epoch(), "the view went back");
        assert_eq!(ids(&view), members_of(view.epoch()), "a view is whole: who has left is no member");
        assert!(view.left_out() >= self.last.left_out(), "nobody has found the members to hold the same");
        let one = |view: &View| view.member(MemberId(1)).cloned().unwrap();
        assert!(
            Shared::ptr_eq(&one(&view), &one(&self.last)),
            "what is known of a member that stays is kept"
        );
        (self.last, self.epoch) = (view, epoch);
    }
}

/// Member 3 leaves with epoch 2, and member 2 with epoch 3.
fn members_of(epoch: u64) -> Vec<u64> {
    (1..=4 - epoch).collect()
}

fn readers_while_members_leave<W: Word + 'static, T: Turn<()> + 'static>() {
    check(2, || {
        let snapshot = snapshot::<W, T>();
        let writers = [2, 3].map(|epoch| {
            let snapshot = snapshot.clone();
            thread::spawn(move || snapshot.learn(&manifest(epoch, &members_of(epoch)), |_, _| {}))
        });
        let mut reader = Reader::of(&snapshot);
        (0..2).for_each(|_| reader.look());
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        reader.look();
        assert_eq!(
            (reader.epoch, ids(&reader.last)),
            (3, vec![1]),
            "the newest, in whatever order they came"
        );
    });
}

#[test]
fn ha_2_6_no_reader_finds_an_epoch_without_its_view_and_nothing_goes_back() {
    readers_while_members_leave::<Number, Mutex<()>>();
}

#[test]
#[should_panic(expected = "was read before its view")]
fn the_model_sees_an_epoch_that_is_told_without_order() {
    readers_while_members_leave::<Loose, Mutex<()>>();
}

#[test]
#[should_panic(expected = "the newest")]
fn the_model_sees_an_older_manifest_put_in_place_of_a_newer_one() {
    readers_while_members_leave::<Number, Anyones>();
}

#[test]
fn ha_2_6_other_settings_and_another_manifest_at_once_are_both_in_force() {
    check(3, || {
        let snapshot: Arc<Modelled> = snapshot();
        let other = {
            let snapshot = snapshot.clone();
            thread::spawn(move || snapshot.learn(&manifest(2, &members_of(2)), |_, _| {}))
        };
        snapshot.configure(|old| GroupSettings { standby: vec![MemberId(2)], ..old.clone() }, |_, _| {});
        assert_eq!(snapshot.view().settings.standby, [MemberId(2)]);
        other.join().unwrap();
        let view = snapshot.view().clone();
        assert_eq!((view.epoch(), ids(&view)), (2, members_of(2)));
        let standby: Vec<u64> = view
            .seats
            .iter()
            .filter(|seat| seat.role == MemberRole::Standby)
            .map(|seat| seat.member.id.0)
            .collect();
        assert_eq!(standby, [2], "the manifest did not bring the old settings back");
    });
}

#[test]
fn ha_2_6_an_epoch_that_a_reply_names_is_known_or_asked_for() {
    check(3, || {
        let snapshot: Arc<Modelled> = snapshot();
        let replies = [2, 3].map(|epoch| {
            let snapshot = snapshot.clone();
            thread::spawn(move || snapshot.see_epoch(epoch))
        });
        // Somebody goes for it meanwhile, and finds what the member had then.
        let went = snapshot.takes_newer();
        if went {
            snapshot.learn(&manifest(2, &members_of(2)), |_, _| {});
        }
        replies.into_iter().for_each(|reply| reply.join().unwrap());
        assert!(went || snapshot.has_newer(), "nobody goes for the epoch that a reply has named");
        let asked = snapshot.takes_newer();
        assert!(!snapshot.takes_newer(), "and nobody twice");
        if asked {
            snapshot.learn(&manifest(3, &members_of(3)), |_, _| {});
        }
        snapshot.see_epoch(3);
        assert!(!snapshot.has_newer(), "a known one is not asked for");
    });
}

fn a_round_while_a_member_leaves<T: Turn<()> + 'static>() {
    check(3, || {
        let snapshot = snapshot::<Number, T>();
        let round = snapshot.view().number;
        assert_eq!(snapshot.view().left_out(), 1, "two of three acknowledge a write");
        let other = {
            let snapshot = snapshot.clone();
            thread::spawn(move || snapshot.learn(&manifest(2, &members_of(2)), |_, _| {}))
        };
        snapshot.all_hold_the_same(round);
        other.join().unwrap();
        let view = snapshot.view().clone();
        assert_eq!((view.epoch(), view.left_out()), (2, 1), "member 3 may have left with the second copy");
        snapshot.all_hold_the_same(round);
        assert_eq!(snapshot.view().left_out(), 1);
        snapshot.all_hold_the_same(view.number);
        assert_eq!(snapshot.view().left_out(), 0, "both were asked and hold the same");
    });
}

#[test]
fn ha_3_1_what_is_said_of_the_members_of_one_view_is_not_believed_of_another() {
    a_round_while_a_member_leaves::<Mutex<()>>();
}

#[test]
#[should_panic(expected = "member 3")]
fn the_model_sees_a_round_that_undoes_a_change_of_the_members() {
    a_round_while_a_member_leaves::<Anyones>();
}

/// What the writer of number `n` says: every word of it has `n` in it.
fn said(n: u64) -> ReplyHeader {
    ReplyHeader { incarnation: n, seq: n, credential_epoch: n, manifest_epoch: n, ..ReplyHeader::default() }
}

fn is_of_one_writer(known: &Known) -> bool {
    let words = [known.seq, known.credential_epoch, known.manifest_epoch];
    words.iter().all(|word| *word == known.incarnation)
}

fn replies_of_one_store<W: Word + 'static, T: Turn<()> + 'static>() {
    check(1, || {
        let cell = Arc::new(KnownCell::<W, T>::default());
        cell.note(&said(1), Some(Moment(1)), (0, 0), false);
        let note = |cell: &KnownCell<W, T>, n| {
            cell.note(&said(n), Some(Moment(n)), (0, 0), false);
        };
        let other = {
            let cell = cell.clone();
            thread::spawn(move || note(&cell, 3))
        };
        let (first, second) = (cell.get(), cell.get());
        assert!(is_of_one_writer(&first) && is_of_one_writer(&second), "torn: {first:?} {second:?}");
        assert!(second.seq >= first.seq, "what was read of a younger link went back");
        note(&cell, 2);
        other.join().unwrap();
        let last = cell.get();
        assert!(is_of_one_writer(&last) && last.seq == 3, "torn or of an older link: {last:?}");
    });
}

#[test]
fn ha_1_5_what_is_read_of_a_store_was_said_by_one_reply() {
    replies_of_one_store::<Number, Mutex<()>>();
}

#[test]
#[should_panic(expected = "torn")]
fn the_model_sees_words_that_are_read_without_order() {
    replies_of_one_store::<Loose, Mutex<()>>();
}

#[test]
#[should_panic(expected = "torn")]
fn the_model_sees_two_replies_noted_at_once() {
    replies_of_one_store::<Number, Anyones>();
}
