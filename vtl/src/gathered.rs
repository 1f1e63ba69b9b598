//! A group at work in the tool: the code of `ha` over links to the members (HA 4.7), for verbs that change who the members
//! are and that compare and repair what they hold.

use std::sync::Arc;

use client::conf::{self, Configuration, Serial};
use ha::{Change, Changed, Error, Group, GroupSettings, MemberState, MemberStatus};
use spec::messages::Login;
use spec::numbers::{Rv, UserType};
use spec::record::Manifest;
use spec::seam::MemberId;
use zeroize::Zeroizing;

use crate::answer::Failure;
use crate::census::{Network, Opened};

/// How long a verb waits for a member, for a home, or for an answer.
const PATIENCE_MS: u64 = 10_000;
/// How long a verb that has ended sends what members owe that can take it at once (HA 2.5).
const LAST_MS: u64 = 1_000;
/// How long the members may differ before the tool gives up.
const REPAIR_MS: u64 = 60_000;

/// A group and the links to its members.
pub(crate) struct Gathered {
    group: Arc<Group>,
    label: String,
    opened: Opened,
}

impl Gathered {
    /// Connects to the members of a configured group. Errs when there are no links at all.
    pub(crate) fn new(
        network: &dyn Network,
        configuration: &Configuration,
        group: &conf::Group,
    ) -> Result<Gathered, Failure> {
        let members = group.members.clone();
        Gathered::of(network, configuration, &group.label, group.serial, &members)
    }

    /// The same for members and a serial number that the configuration does not name yet.
    pub(crate) fn of(
        network: &dyn Network,
        configuration: &Configuration,
        label: &str,
        serial: Serial,
        members: &[Serial],
    ) -> Result<Gathered, Failure> {
        let opened = network.links(configuration).map_err(|reason| {
            Failure::new(format!("links to the members of {label}"), reason, "run vtl verify")
        })?;
        let settings = GroupSettings {
            members: members.iter().map(|serial| MemberId(serial.0)).collect(),
            serial: Some(serial.0),
            outage_wait_ms: PATIENCE_MS,
            call_ms_max: REPAIR_MS,
            receive_timeout_ms: u64::from(configuration.receive_timeout_ms).min(PATIENCE_MS),
            ..GroupSettings::default()
        };
        let group = Group::new(opened.platform.clone(), opened.seam.clone(), settings);
        Ok(Gathered { group, label: label.to_owned(), opened })
    }

    /// The newest manifest among the members that answer. Errs when none does, or none has one of this group.
    pub(crate) fn manifest(&self) -> Result<Manifest, Failure> {
        self.group.refresh();
        self.group.manifest().ok_or_else(|| {
            let wanted = format!("a member of the group {} with the group's manifest", self.label);
            let found = match self.down().as_slice() {
                [] => "no member".to_owned(),
                down => down.join(", "),
            };
            Failure::new(
                wanted,
                found,
                "see that its servers run (vtl verify); a group is made with vtl haAdmin newGroup",
            )
        })
    }

    /// The members as they stand now.
    pub(crate) fn members(&self) -> Vec<MemberStatus> {
        self.group.status().members
    }

    /// Logs the Crypto Officer in.
    pub(crate) fn login(&self, password: &Zeroizing<String>) -> Result<Vec<u8>, Failure> {
        let login = Login { user: UserType::USER.0, pin: password.as_bytes().to_vec(), tag: Vec::new() };
        self.group.login(login, &[]).map_err(|error| self.failure("the Crypto Officer's login", &error))
    }

    /// Changes who the members are, at the home (HA 2.6).
    pub(crate) fn change(&self, change: &Change, ticket: &[u8]) -> Result<Changed, Failure> {
        self.group.change_members(change, ticket).map_err(|error| self.failure("the group to change", &error))
    }

    /// Makes a member the home (HA 2.7), also without the old one.
    pub(crate) fn promote(&self, home: Serial, ticket: &[u8]) -> Result<Changed, Failure> {
        let wanted = format!("member {home} to become the home");
        self.group.promote(MemberId(home.0), ticket).map_err(|error| self.failure(&wanted, &error))
    }

    /// What the members hold beside each other.
    pub(crate) fn compare(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<ha::Comparison, Failure> {
        self.group.compare(progress).map_err(|error| self.failure("to compare the members", &error))
    }

    /// Brings the members to one state, or counts what would be moved.
    pub(crate) fn synchronize(
        &self,
        ticket: &[u8],
        dry_run: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ha::Summary, Failure> {
        self.group
            .synchronize(ticket, dry_run, progress)
            .map_err(|error| self.failure("to synchronize the members", &error))
    }

    /// Works on the group until every member that can be reached is in use and holds what the others hold. Errs with the
    /// members that differ.
    pub(crate) fn equalise(&self, ticket: &[u8]) -> Result<(), String> {
        self.group.set_repair_ticket(Some(ticket));
        self.group.recover();
        let platform = &self.opened.platform;
        let (park, until) = (platform.parker(), platform.now().after_ms(REPAIR_MS));
        loop {
            let next = self.group.tend();
            self.group.refresh();
            let members = self.members();
            if are_equal(&members) {
                return Ok(());
            }
            if platform.now() >= until {
                return Err(difference(&members));
            }
            park.park(next.min(until));
        }
    }

    /// Lets so many milliseconds go by.
    pub(crate) fn pause(&self, ms: u64) {
        let platform = &self.opened.platform;
        let (park, until) = (platform.parker(), platform.now().after_ms(ms));
        while platform.now() < until {
            park.park(until);
        }
    }

    /// The members that cannot be used, each with the reason.
    pub(crate) fn down(&self) -> Vec<String> {
        let words = |member: &MemberStatus| match &member.state {
            MemberState::Down(reason) => Some(format!("member {} down ({reason})", member.id)),
            MemberState::Up | MemberState::Unverified | MemberState::Recovering => None,
        };
        self.members().iter().filter_map(words).collect()
    }

    fn failure(&self, wanted: &str, error: &Error) -> Failure {
        let mut found = error.to_string();
        if matches!(error, Error::Outage { .. } | Error::Home(_)) {
            for down in self.down() {
                found.push_str(&format!("; {down}"));
            }
        }
        Failure::new(format!("{wanted} (group {})", self.label), found, advice(error))
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.group.pay_last(self.opened.platform.now().after_ms(LAST_MS));
        self.group.close();
    }
}

fn advice(error: &Error) -> &'static str {
    match error {
        Error::Rv(Rv::PIN_INCORRECT) => {
            "give the Crypto Officer's password of the group; a wrong one counts as a try"
        }
        Error::Rv(Rv::PIN_LOCKED) => "wait as long as it says, then give the right password",
        Error::Rv(Rv::USER_PIN_NOT_INITIALIZED) => "give the group a Crypto Officer's PIN first",
        Error::Home(_) => {
            "let the group's home member run, or, when it is gone for good, make another one the home with vtl haAdmin promote"
        }
        Error::EpochChanged => "others change the group at the same time: run the command again",
        Error::Outage { .. } | Error::Deadline | Error::OutcomeUnknown(_) => {
            "see that the members' servers run (vtl verify), then run the command again"
        }
        Error::NoGroup(_) => "see vtl haAdmin show",
        Error::TicketDead => "run the command again",
        _ => "see the appliances' logs, and run the command again",
    }
}

/// Whether at least two members answer and all that answer are in use with the same digest.
fn are_equal(members: &[MemberStatus]) -> bool {
    let alive: Vec<_> =
        members.iter().filter(|member| !matches!(member.state, MemberState::Down(_))).collect();
    let root = |member: &MemberStatus| member.report.as_ref().map(|report| report.root.clone());
    let first = alive.first().and_then(|member| root(member));
    alive.len() >= 2
        && first.is_some()
        && alive.iter().all(|member| member.state == MemberState::Up && root(member) == first)
}

fn difference(members: &[MemberStatus]) -> String {
    let word = |member: &MemberStatus| match &member.state {
        MemberState::Up => format!("{} in use", member.id),
        MemberState::Unverified => format!("{} not compared", member.id),
        MemberState::Recovering => format!("{} recovering", member.id),
        MemberState::Down(reason) => format!("{} down ({reason})", member.id),
    };
    let words: Vec<String> = members.iter().map(word).collect();
    format!("the members still differ after {} s: {}", REPAIR_MS / 1000, words.join(", "))
}
