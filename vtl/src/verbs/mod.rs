//! One file for each verb, and the choice between them.

mod add_member;
mod add_server;
mod create_cert;
mod list_servers;
mod new_group;
mod show;
mod verify;

use crate::answer::{Answer, Failure};
use crate::arguments::{Arguments, HaVerb, Verb};
use crate::network::Ntls;
use crate::place::Place;

/// Runs the verb.
pub(crate) fn run(arguments: Arguments) -> Result<Answer, Failure> {
    let place = Place::new(arguments.config)?;
    match arguments.verb {
        Verb::CreateCert(create) => create_cert::run(&place, &create),
        Verb::AddServer(add) => add_server::run(&place, &add),
        Verb::ListServers => list_servers::run(&place),
        Verb::Verify => {
            let configuration = place.configuration()?;
            verify::run(&Ntls::new(&configuration)?, &configuration)
        }
        Verb::HaAdmin { verb: HaVerb::NewGroup(new) } => {
            let configuration = place.configuration()?;
            new_group::run(&place, &Ntls::new(&configuration)?, &configuration, new)
        }
        Verb::HaAdmin { verb: HaVerb::AddMember(add) } => {
            let configuration = place.configuration()?;
            add_member::run(&place, &Ntls::new(&configuration)?, &configuration, add)
        }
        Verb::HaAdmin { verb: HaVerb::Show } => {
            let configuration = place.configuration()?;
            show::run(&Ntls::new(&configuration)?, &configuration)
        }
    }
}
