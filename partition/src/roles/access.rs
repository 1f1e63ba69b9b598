//! Tickets (RULES 2.6) and what their holder may do.
use prost::Message;
use spec::Rv;
use spec::messages::Outcome;
use spec::planted::{self, Bug};

use super::{Opened, Role};
use crate::contents::Contents;
use crate::error::Refusal;
use crate::partition::Caller;
use crate::random::{SystemRandom, bytes};
use crate::seal::{Context, Sealer, What};

/// What is inside a ticket's seal. On the wire stands the role's byte, then the envelope.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Ticket {
    /// 16 random bytes: names the login, for private session objects (RULES 2.2).
    #[prost(bytes = "vec", tag = "1")]
    login: Vec<u8>,
    #[prost(uint64, tag = "2")]
    revocation: u64,
}

/// A proved login. Only opening or minting a ticket makes one.
#[derive(Clone, Copy)]
pub(crate) struct LoggedIn {
    pub(crate) role: Role,
    pub(crate) login: [u8; 16],
}

/// Who asks: a client's instance, logged in or not.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) login: Option<LoggedIn>,
    /// Whether a peer asks (HA 4.7).
    pub(crate) replicator: bool,
}

impl Access<'_> {
    /// Whether private objects exist for this caller.
    pub(crate) fn sees_private(&self) -> bool {
        self.login.is_some_and(|login| matches!(login.role, Role::CryptoOfficer | Role::CryptoUser))
    }

    /// Whether this is the security officer.
    pub(crate) fn is_security_officer(&self) -> bool {
        self.login.is_some_and(|login| login.role == Role::SecurityOfficer)
    }

    /// The login of a Crypto Officer, for changes of what lasts (HA 2.8).
    pub(crate) fn officer(&self) -> Result<LoggedIn, Refusal> {
        self.login.filter(|login| login.role == Role::CryptoOfficer).ok_or_else(|| {
            Refusal::rv(
                Rv::USER_NOT_LOGGED_IN,
                "wanted a login as Crypto Officer, found none; log in as CKU_USER",
            )
        })
    }

    /// Who may move records for repair (RULES 3.3): a Crypto Officer, or a peer.
    pub(crate) fn repairer(&self) -> Result<(), Refusal> {
        if self.replicator { Ok(()) } else { self.officer().map(drop) }
    }

    /// Whether the caller may make, change or destroy token objects (HA 2.8): the Crypto Officer all of them, the
    /// security officer public ones.
    ///
    /// DEVIATION: docs/adr/0006-deviations.md, item 4: the standard asks for no login to write public token objects.
    pub(crate) fn writer(&self, private: bool) -> Result<LoggedIn, Refusal> {
        match self.login {
            Some(login) if login.role == Role::SecurityOfficer && !private => Ok(login),
            _ => self.officer(),
        }
    }
}

/// A ticket for a login that has just been proved.
pub(crate) fn mint(sealer: &Sealer, contents: &Contents, caller: &Caller, role: Role) -> Vec<u8> {
    let ticket = Ticket {
        login: bytes::<16>(&SystemRandom).to_vec(),
        revocation: contents.credentials.revocation(role),
    };
    let mut wire = vec![role.byte()];
    wire.extend_from_slice(&sealer.seal(&context(contents, caller, role), &ticket.encode_to_vec()));
    wire
}

/// Opens the ticket of a request, unless that was done lately; an empty one is no login.
pub(crate) fn open<'a>(
    sealer: &Sealer,
    opened: &Opened,
    contents: &Contents,
    caller: &'a Caller,
    wire: &[u8],
) -> Result<Access<'a>, Refusal> {
    let Some((byte, envelope)) = wire.split_first() else {
        return Ok(Access { caller, login: None, replicator: false });
    };
    let group = contents.group();
    let proved = opened.look_up(group, caller, wire).or_else(|| {
        let role = Role::of_byte(*byte)?;
        let plain = sealer.open(&context(contents, caller, role), envelope).ok()?;
        let ticket = Ticket::decode(plain.as_slice()).ok()?;
        let login = LoggedIn { role, login: ticket.login.as_slice().try_into().ok()? };
        opened.keep(group, caller, wire, (login, ticket.revocation));
        Some((login, ticket.revocation))
    });
    let is_current = |(login, revocation): &(LoggedIn, u64)| {
        *revocation >= contents.credentials.revocation(login.role) || planted::is(Bug::OldEpochTicket)
    };
    match proved.filter(is_current) {
        Some((login, _)) => Ok(Access { caller, login: Some(login), replicator: false }),
        None => Err(Refusal::new(
            Outcome::TICKET_DEAD,
            "wanted a ticket of this group, client, instance and revocation number, found another; log in again",
        )),
    }
}

fn context<'a>(contents: &Contents, caller: &'a Caller, role: Role) -> Context<'a> {
    let what = What::Ticket { client: &caller.client, instance: &caller.instance, role: role.byte() };
    Context { group: contents.group(), what }
}
