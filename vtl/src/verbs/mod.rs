//! One file for each verb, and the choice between them.

pub(crate) mod add_member;
mod add_server;
mod certificates;
mod compare;
mod create_cert;
mod delete_group;
mod delete_server;
mod list_servers;
mod list_slots;
mod membership;
pub(crate) mod new_group;
mod replace_member;
mod settings;
mod show;
mod stats;
mod use_cert;
mod verify;

use client::conf::Configuration;
use ntls::platform::System;

use crate::answer::{Answer, Failure};
use crate::arguments::{Arguments, HaVerb, Standby, Verb};
use crate::network::Ntls;
use crate::place::Place;
use crate::turn::Turn;

/// Runs the verb. Beside what it answers stands what is amiss in the configuration that it leaves.
pub(crate) fn run(arguments: Arguments) -> (Result<Answer, Failure>, Vec<String>) {
    let place = match Place::new(arguments.config.clone()) {
        Ok(place) => place,
        Err(failure) => return (Err(failure), Vec::new()),
    };
    let result = run_at(&place, arguments);
    (result, place.complaints())
}

fn run_at(place: &Place, arguments: Arguments) -> Result<Answer, Failure> {
    let _turn = if changes_files(&arguments.verb) { Some(Turn::take(place)?) } else { None };
    match arguments.verb {
        Verb::CreateCert(create) => create_cert::run(place, &create),
        Verb::CreateCsr(create) => create_cert::request_one(place, &create),
        Verb::UseCert(switch) => use_cert::run(place, &switch),
        Verb::AddServer(add) => add_server::run(place, &add),
        Verb::DeleteServer(delete) => delete_server::delete(place, &delete),
        Verb::ReplaceServer(replace) => delete_server::replace(place, &replace),
        Verb::ListServers => list_servers::run(place),
        Verb::ListSlots => online(place, |network, conf| list_slots::run(network, conf)),
        Verb::Verify => online(place, |network, conf| verify::run(network, conf)),
        Verb::Fingerprint(file) => certificates::fingerprint(place, &file),
        Verb::ExamineCert(file) => certificates::examine(place, &file, System::shared().wall_ms()),
        Verb::Stats(given) => stats::run(place, &given, arguments.json),
        Verb::HaAdmin { verb } => ha_admin(place, verb, arguments.json),
    }
}

/// Whether a verb may write to the folder of the configuration: before it reads anything there it waits for its turn.
fn changes_files(verb: &Verb) -> bool {
    match verb {
        Verb::CreateCert(_) | Verb::CreateCsr(_) | Verb::UseCert(_) => true,
        Verb::AddServer(_) | Verb::DeleteServer(_) | Verb::ReplaceServer(_) => true,
        Verb::ListServers | Verb::ListSlots | Verb::Verify => false,
        Verb::Fingerprint(_) | Verb::ExamineCert(_) | Verb::Stats(_) => false,
        Verb::HaAdmin { verb } => match verb {
            HaVerb::NewGroup(_) | HaVerb::AddMember(_) => true,
            HaVerb::RemoveMember(_) | HaVerb::ReplaceMember(_) => true,
            HaVerb::AddStandby(_) | HaVerb::RemoveStandby(_) | HaVerb::StandbyMembers(_) => true,
            HaVerb::Synchronize(given) => given.enable || given.disable,
            HaVerb::Recover(_) | HaVerb::Policy(_) | HaVerb::DeleteGroup(_) => true,
            HaVerb::AutoRecovery(_) | HaVerb::HaOnly(_) | HaVerb::HaLog(_) => true,
            HaVerb::Promote(_) | HaVerb::Drain(_) | HaVerb::Weight(_) => false,
            HaVerb::Compare(_) | HaVerb::Stats(_) | HaVerb::Show => false,
        },
    }
}

/// With `json` there are no progress bars.
fn ha_admin(place: &Place, verb: HaVerb, json: bool) -> Result<Answer, Failure> {
    match verb {
        HaVerb::NewGroup(new) => online(place, |network, conf| new_group::run(place, network, conf, new)),
        HaVerb::AddMember(add) => online(place, |network, conf| add_member::run(place, network, conf, add)),
        HaVerb::RemoveMember(gone) => {
            online(place, |network, conf| membership::remove(place, network, conf, gone))
        }
        HaVerb::ReplaceMember(given) => {
            online(place, |network, conf| replace_member::run(place, network, conf, given))
        }
        HaVerb::Promote(promote) => {
            online(place, |network, conf| membership::promote(network, conf, promote))
        }
        HaVerb::Drain(drain) => online(place, |network, conf| membership::drain(network, conf, drain)),
        HaVerb::Weight(weight) => online(place, |network, conf| membership::weight(network, conf, weight)),
        HaVerb::AddStandby(standby) => set_standby(place, standby, true),
        HaVerb::RemoveStandby(standby) => set_standby(place, standby, false),
        HaVerb::StandbyMembers(members) => set_standby(place, members.standby, members.set),
        HaVerb::Compare(given) => {
            online(place, |network, conf| compare::compare(network, conf, &given, json))
        }
        HaVerb::Synchronize(given) if given.enable || given.disable => {
            settings::synchronization(place, &given)
        }
        HaVerb::Synchronize(given) => {
            online(place, |network, conf| compare::synchronize(network, conf, given, json))
        }
        HaVerb::Recover(recover) => {
            online(place, |network, conf| compare::recover(place, network, conf, recover))
        }
        HaVerb::Stats(given) => stats::run(place, &given, json),
        HaVerb::Policy(given) => settings::policy_of_routing(place, &given),
        HaVerb::DeleteGroup(delete) => delete_group::run(place, &delete),
        HaVerb::AutoRecovery(given) => settings::auto_recovery(place, &given),
        HaVerb::HaOnly(given) => settings::ha_only(place, &given),
        HaVerb::HaLog(given) => settings::ha_log(place, &given),
        HaVerb::Show => online(place, |network, conf| show::run(network, conf)),
    }
}

fn set_standby(place: &Place, given: Standby, standby: bool) -> Result<Answer, Failure> {
    let configuration = place.configuration()?;
    if !given.everywhere {
        return membership::standby(place, None, &configuration, given, standby);
    }
    let network = Ntls::new(&configuration)?;
    membership::standby(place, Some(&network), &configuration, given, standby)
}

/// A verb that asks appliances.
fn online(
    place: &Place,
    verb: impl FnOnce(&Ntls, &Configuration) -> Result<Answer, Failure>,
) -> Result<Answer, Failure> {
    let configuration = place.configuration()?;
    verb(&Ntls::new(&configuration)?, &configuration)
}
