//! Every refusal, tried by a raw wire client that skips the library.
//!
//! ```text
//! link    certificates, frames, key exchange        bodies  what is no request, bounds, groups of others
//! roles   logins, tries, tickets                    order   make, store, commit; positions; leases
//! keys    what a key permits, templates             seals   each sealed thing in each wrong context
//! peers   what only the home does, what members take from one another
//! ```
#![allow(clippy::unwrap_used)]

mod bodies;
mod keys;
mod link;
mod order;
mod peers;
mod roles;
mod seals;

use spec::messages::{How, Outcome, ReplyBody};
use spec::{MechanismType, Rv};
use tests::lab::Lab;
use tests::wire::{Client, Wire};

/// The code of the standard that a call was refused with.
#[track_caller]
fn rv(reply: &ReplyBody) -> Rv {
    assert_eq!(
        Outcome(reply.outcome),
        Outcome::RV,
        "wanted a code of the standard: outcome {} {}",
        reply.outcome,
        reply.text
    );
    Rv(reply.rv)
}

fn outcome(reply: &ReplyBody) -> Outcome {
    Outcome(reply.outcome)
}

/// A connection with the Crypto Officer logged in.
fn officer(client: &Client, lab: &Lab) -> Wire {
    let mut wire = Wire::open(client);
    wire.login(lab.value("P11_PIN"));
    wire
}

#[test]
fn the_wire_refuses_what_the_library_would_never_send() {
    let lab = Lab::up(2);
    let client = Client::of(&lab);
    link::key_exchange_is_hybrid(&client);
    roles::without_login(&client, &lab);
    roles::the_security_officer_is_no_crypto_officer(&client, &lab);
    roles::pins_and_roles(&client, &lab);
    roles::failures_bring_a_delay_that_spends_no_try(&client, &lab);
    roles::tickets_of_others(&client, &lab);
    order::order_is_kept(&client, &lab);
    order::batches_and_tombstones(&client, &lab);
    order::positions_that_are_not_reached(&client, &lab);
    order::leases(&client, &lab);
    keys::keys_keep_to_what_they_permit(&client, &lab);
    keys::keys_that_always_authenticate(&client, &lab);
    keys::templates(&client, &lab);
    keys::attributes_go_one_way(&client, &lab);
    keys::copies_are_never_weaker(&client, &lab);
    keys::uses_that_do_not_fit(&client, &lab);
    seals::sealed_things_open_in_their_own_context_only(&client, &lab);
    seals::running_states(&client, &lab);
    seals::session_objects(&client, &lab);
    peers::records_under_another_name(&client, &lab);
    peers::only_the_home(&client, &lab);
    peers::manifests_that_cannot_be(&client, &lab);
    bodies::groups_and_partitions_of_others(&client, &lab);
    bodies::bounds(&client, &lab);
    bodies::what_is_no_request(&client, &lab);
    bodies::calls_without_their_parts(&client, &lab);
    link::frames_that_are_none(&client);
    link::certificates_that_are_not_registered(&client);
    // After all that the appliance still serves.
    let mut wire = officer(&client, &lab);
    let (_, private) = wire.pair(Vec::new());
    assert_eq!(outcome(&wire.sign(MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32])), Outcome::OK);
}
