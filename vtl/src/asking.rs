//! One partition asked: requests, answers, and what its refusals mean to the operator.

use client::conf::Serial;
use spec::messages::{
    Answer, Call, ChangeManifest, Export, ExportAnswer, Login, Outcome, ReplyBody, Status, StatusAnswer,
};
use spec::numbers::{Rv, UserType};
use spec::record::Manifest;
use zeroize::Zeroizing;

use crate::answer::Failure;
use crate::census::Appliance;

/// A partition behind a connection, and the ticket of a login to it.
pub(crate) struct Asking<'a> {
    appliance: &'a mut dyn Appliance,
    serial: Serial,
    ticket: Vec<u8>,
    seq: u64,
}

impl<'a> Asking<'a> {
    /// Nothing is sent yet.
    pub(crate) fn new(appliance: &'a mut dyn Appliance, serial: Serial) -> Asking<'a> {
        Asking { appliance, serial, ticket: Vec::new(), seq: 0 }
    }

    /// The same with a ticket from another member of the group (RULES 2.6).
    pub(crate) fn with_ticket(
        appliance: &'a mut dyn Appliance,
        serial: Serial,
        ticket: Vec<u8>,
    ) -> Asking<'a> {
        Asking { appliance, serial, ticket, seq: 0 }
    }

    /// The ticket of the last login.
    pub(crate) fn ticket(&self) -> Vec<u8> {
        self.ticket.clone()
    }

    /// Commits of the partition's store by its last answer (HA 1.5).
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The partition's standing.
    pub(crate) fn status(&mut self) -> Result<StatusAnswer, Failure> {
        self.standing(false)
    }

    /// The partition's standing and its mechanisms.
    pub(crate) fn abilities(&mut self) -> Result<StatusAnswer, Failure> {
        self.standing(true)
    }

    fn standing(&mut self, mechanisms: bool) -> Result<StatusAnswer, Failure> {
        match self.call(Call::Status(Status { mechanisms, seen: Vec::new() }))? {
            Answer::Status(status) => Ok(status),
            _ => Err(self.unfit()),
        }
    }

    /// Logs the Crypto Officer in; later calls carry the ticket.
    pub(crate) fn login(&mut self, password: &Zeroizing<String>, tag: Vec<u8>) -> Result<(), Failure> {
        let login = Login { user: UserType::USER.0, pin: password.as_bytes().to_vec(), tag };
        match self.call(Call::Login(login))? {
            Answer::Login(answer) => {
                self.ticket = answer.ticket;
                Ok(())
            }
            _ => Err(self.unfit()),
        }
    }

    /// Changes the manifest by compare-and-set (HA 2.6); gives it sealed.
    pub(crate) fn change_manifest(
        &mut self,
        expected_epoch: u64,
        manifest: Manifest,
        tag: Vec<u8>,
    ) -> Result<(Manifest, Vec<u8>), Failure> {
        let change = ChangeManifest { expected_epoch, manifest: Some(manifest), tag };
        match self.call(Call::ChangeManifest(change))? {
            Answer::ChangeManifest(answer) => match answer.manifest {
                Some(manifest) => Ok((manifest, answer.sealed)),
                None => Err(self.unfit()),
            },
            _ => Err(self.unfit()),
        }
    }

    /// Credentials and manifest, sealed for other members.
    pub(crate) fn export(&mut self) -> Result<ExportAnswer, Failure> {
        match self.call(Call::Export(Export { ouids: Vec::new(), credentials: true, manifest: true }))? {
            Answer::Export(answer) => Ok(answer),
            _ => Err(self.unfit()),
        }
    }

    /// One call. Errs when no answer came or the partition refused, saying what the operator can do.
    pub(crate) fn call(&mut self, call: Call) -> Result<Answer, Failure> {
        let (header, reply) = self.appliance.call(self.serial, &self.ticket, call).map_err(|reason| {
            let action = "see that its server runs, then run the command again";
            Failure::new(format!("an answer of partition {}", self.serial), reason, action)
        })?;
        self.seq = header.seq;
        match (Outcome(reply.outcome), &reply.answer) {
            (Outcome::OK, Some(answer)) => Ok(answer.clone()),
            (Outcome::OK, None) => Err(self.unfit()),
            _ => Err(self.refusal(&reply)),
        }
    }

    fn unfit(&self) -> Failure {
        let wanted = format!("an answer that fits the question from partition {}", self.serial);
        Failure::new(wanted, "another", "see that vtl and the appliance are of releases that work together")
    }

    fn refusal(&self, reply: &ReplyBody) -> Failure {
        let found = match Outcome(reply.outcome) {
            Outcome::RV => Rv(reply.rv).to_string(),
            _ => outcome_words(Outcome(reply.outcome)).to_owned(),
        };
        let said = if reply.text.is_empty() { String::new() } else { format!(" ({})", reply.text) };
        Failure::new(format!("partition {} to agree", self.serial), format!("{found}{said}"), advice(reply))
    }
}

fn advice(reply: &ReplyBody) -> &'static str {
    match Outcome(reply.outcome) {
        Outcome::RV => match Rv(reply.rv) {
            Rv::PIN_INCORRECT => {
                "give the Crypto Officer's password of that partition; a wrong one counts as a try"
            }
            Rv::PIN_LOCKED => "wait as long as it says, then give the right password",
            Rv::USER_PIN_NOT_INITIALIZED => "give the partition a Crypto Officer's PIN first",
            _ => "see the appliance's log",
        },
        Outcome::NOT_HOME => "see that the group's home member runs; groups change there alone",
        Outcome::NOT_OPENED => {
            "bring both appliances into one domain: hsm domain export-request, export, import"
        }
        Outcome::EPOCH_CHANGED => "somebody else changed the group at the same time: run the command again",
        Outcome::RECOVERING => "wait until the member has been repaired",
        Outcome::NO_PARTITION => "assign it to this client with hsm client assignPartition",
        Outcome::TICKET_DEAD | Outcome::EXPIRED => "run the command again",
        _ => "see the appliance's log",
    }
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::UNKNOWN => "that it holds no such object",
        Outcome::BEHIND => "that it is behind the others",
        Outcome::DESTROYED => "that the object is destroyed",
        Outcome::RECOVERING => "that it is being repaired",
        Outcome::EXPIRED => "that the time was over",
        Outcome::NOT_HOME => "that it is not the group's home",
        Outcome::WRONG_GROUP => "that it belongs to another group or generation",
        Outcome::TICKET_DEAD => "that the login is no longer valid",
        Outcome::EPOCH_CHANGED => "that the manifest has changed",
        Outcome::MALFORMED => "that it cannot read the request",
        Outcome::NOT_OPENED => "that it cannot open what another member has sealed",
        Outcome::NO_PARTITION => "that it is not assigned to this client",
        Outcome::FAILED => "that it cannot do it now",
        _ => "an answer of a newer release",
    }
}
