//! `listServers`: the appliances of the configuration, without asking them.

use std::fmt::Write;

use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::census::address;
use crate::place::Place;

/// Lists the servers in the order of their numbers.
pub(crate) fn run(place: &Place) -> Result<Answer, Failure> {
    let configuration = place.configuration()?;
    let mut text = String::new();
    let mut list = Vec::new();
    for server in &configuration.servers {
        let _ = writeln!(text, "Server: {}", address(server));
        list.push(json!({ "server": server.name, "port": server.port }));
    }
    let mut answer = Answer::new(text, json!({ "servers": list }));
    if configuration.servers.is_empty() {
        answer
            .complaints
            .push("there is no server in the configuration; add one with vtl addServer".to_owned());
    }
    Ok(answer)
}
