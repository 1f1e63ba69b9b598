//! The exhaustive model of objects and writes (HA 1, 2): one batch, three members, a minimum of two, every order of
//! deliveries. Each deliberate break of a rule is found. The records are real, and so is their join.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod member;
mod properties;
mod records;
mod rules;
mod world;

use stateright::{Checker, HasDiscoveries, Model};

use crate::rules::{Break, EMPTY, Scope};
use crate::world::Rules;

/// A pair is created, its first object destroyed, a member lost.
const PAIR: Scope = Scope { objects: 2, destroyer: true, losses_max: 1, ..EMPTY };
/// One object is created, changed by a one-way write and destroyed.
const CHANGED: Scope = Scope { destroyer: true, hardener: true, ..EMPTY };
/// One object is created and changed by a one-way write, a member lost.
const CHANGED_AND_LOST: Scope = Scope { hardener: true, losses_max: 1, ..EMPTY };
/// Two writers change an object that exists, and somebody destroys it.
const WRITERS: Scope = Scope { exists: true, destroyer: true, hardener: true, labeller: true, ..EMPTY };
/// The same, and one writer writes a one-way attribute as it is.
const REPEATERS: Scope = Scope { repeats_extractable: true, ..WRITERS };

/// Visits every state of a scope; all properties hold.
fn holds(scope: Scope) {
    let checker = Rules::new(scope, None).checker().threads(2).spawn_bfs().join();
    eprintln!(
        "{} states, at most {} steps deep: {scope:?}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn ha_2_1_a_pair_is_created_destroyed_forgotten_and_repaired_in_every_order() {
    holds(PAIR);
}

#[test]
fn ha_2_2_a_key_is_created_changed_and_destroyed_in_every_order() {
    holds(CHANGED);
    holds(CHANGED_AND_LOST);
}

#[test]
fn ha_2_3_two_writers_and_a_destroyer_in_every_order() {
    holds(WRITERS);
}

#[test]
fn ha_1_3_a_writer_that_repeats_a_one_way_attribute_weakens_nothing() {
    holds(REPEATERS);
}

/// A member that was stopped with a first send unread executes it when it goes on, although the change was resent,
/// answered and overwritten meanwhile: the member cannot tell a late first send from a new call. HA 2.3 promises
/// nothing against it, and docs/simulation.md says so.
#[test]
fn ha_2_3_a_first_send_left_unread_in_a_stopped_member_may_bring_an_older_change_back() {
    let late = Scope { late_first_send: true, ..WRITERS };
    let checker =
        Rules::new(late, None).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let names: Vec<&str> = found.keys().copied().collect();
    assert_eq!(names, ["HA 2.3: an older change does not come back"]);
}

/// What the properties speak of does happen.
#[test]
fn the_worlds_reach_what_the_properties_speak_of() {
    for claim in properties::REACHED {
        assert!(is_reached(*claim), "{} is never reached", claim.0);
    }
}

#[test]
fn ha_2_1_a_pair_is_halved_only_when_it_was_not_answered_and_its_one_holder_is_lost_in_mid_repair() {
    assert!(is_reached(properties::HALVED));
}

fn is_reached(claim: properties::Claim) -> bool {
    let rules = Rules { reaches: Some(claim), ..Rules::new(PAIR, None) };
    let checker = rules.checker().finish_when(HasDiscoveries::Any).spawn_bfs().join();
    checker.discovery(claim.0).is_some()
}

/// The checker finds a break, by the property that it must violate.
fn is_found(broken: Break, scope: Scope) {
    let checker =
        Rules::new(scope, Some(broken)).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let wanted = properties::violated_by(broken);
    let found = checker.discoveries();
    let names: Vec<&str> = found.keys().copied().collect();
    assert!(
        wanted.iter().any(|name| names.contains(name)),
        "{broken:?}: wanted one of {wanted:?}, found {names:?}"
    );
    for (name, path) in found {
        eprintln!(
            "{broken:?} after {} states: {name}: {:?}",
            checker.unique_state_count(),
            path.into_actions()
        );
    }
}

macro_rules! breaks {
    ($($test:ident: $broken:ident in $scope:ident;)*) => {$(
        #[test]
        fn $test() {
            is_found(Break::$broken, $scope);
        }
    )*};
}

breaks! {
    a_tombstone_by_stamp_is_found: TombstoneByStamp in WRITERS;
    forgetting_by_tombstone_is_found: ForgettingIsTombstone in PAIR;
    success_before_the_minimum_commits_is_found: SuccessBeforeMinimumCommits in PAIR;
    a_tombstone_after_commit_is_found: TombstoneAfterCommit in PAIR;
    a_repair_that_decides_is_found: RepairDecidesProvisional in PAIR;
    a_join_that_replaces_is_found: JoinReplaces in PAIR;
    a_join_that_mints_a_stamp_is_found: JoinMintsStamp in WRITERS;
    extractable_by_the_last_writer_is_found: ExtractableByLastWriter in REPEATERS;
    a_resent_change_without_condition_is_found: UnconditionalResend in WRITERS;
    a_pair_stored_as_two_records_is_found: PairAsTwo in PAIR;
    a_commit_of_nothing_answered_as_done_is_found: CommitOfNothingIsDone in PAIR;
    a_store_over_a_tombstone_is_found: StoreOverTombstone in PAIR;
    a_tombstone_that_refuses_the_rest_of_its_batch_is_found: OneTombstoneRefusesTheBatch in PAIR;
    an_acknowledgement_before_it_is_durable_is_found: AcknowledgeBeforeDurable in PAIR;
    a_search_that_shows_provisional_objects_is_found: ProvisionalIsFound in PAIR;
}
