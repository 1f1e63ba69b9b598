//! Role calls: login on one member, everything else at the home (HA 2.7, 4.2).
use std::sync::Arc;

use prost::Message;
use spec::calls::{self, Class};
use spec::messages::{Answer, Call, Join, Login, Outcome, RequestBody, SetPin};
use spec::planted::{self, Bug};
use spec::platform::Moment;
use spec::seam::MemberId;

use crate::body::Body;
use crate::desk::{Desk, End};
use crate::errand::Errand;
use crate::error::Error;
use crate::group::Group;
use crate::meaning::Meaning;
use crate::member::Member;
use crate::ready::{Answered, Given};
use crate::view::View;

/// Before the same bytes go to the same member again, in milliseconds.
const AGAIN_MS: u64 = 20;
/// The numbers of `SetPin` and `Adopt`.
const SET_PIN: u32 = 12;
const ADOPT: u32 = 25;
/// `CKU_USER`: the Crypto Officer (RULES 2.5).
const CRYPTO_OFFICER: u64 = 1;

impl Group {
    /// Proves a PIN to one member and returns the sealed ticket (C_Login). A right PIN spends no try; a wrong one
    /// spends one, or two at most when a reply was lost. The tag is filled in here when it is empty.
    ///
    /// # Errors
    /// What the partition answered (`CKR_PIN_INCORRECT` ...): it is final. `OutcomeUnknown` when two members took
    /// the request and neither answered.
    pub fn login(&self, mut login: Login, ticket: &[u8]) -> Result<Vec<u8>, Error> {
        if login.tag.is_empty() {
            login.tag = self.random_tag();
        }
        let deadline = self.deadline();
        let mut desk = Desk::until(self, deadline);
        let view = arc_swap::Guard::into_inner(self.ready(&mut desk, deadline)?);
        let call = Call::Login(login);
        let errand = Errand::of(&call, deadline);
        let body = Body::of(&view, ticket, call);
        let answered = self.run(&mut desk, &body, errand, None)?.answered()?;
        match answered.answer {
            Answer::Login(answer) => Ok(answer.ticket),
            _ => Err(Error::Peer(format!("member {} answered a login with something else", answered.member))),
        }
    }

    /// Changes a PIN at the home member and spreads the sealed credentials to the minimum of copies (C_SetPIN,
    /// RULES 2.9). The tag is filled in here when it is empty.
    ///
    /// # Errors
    /// What the partition answered; `Home` when the home cannot be reached or went back to an older state;
    /// `BelowMinimum` before anything was changed; `OutcomeUnknown` when the PIN has changed at the home and the minimum did not acknowledge in time.
    pub fn set_pin(&self, mut set: SetPin, ticket: &[u8]) -> Result<(), Error> {
        if set.tag.is_empty() {
            set.tag = self.random_tag();
        }
        let deadline = self.deadline();
        self.ensure_minimum(deadline)?;
        // The new PIN proves the right to move the credentials when nobody is logged in.
        let login = (ticket.is_empty() && set.user == CRYPTO_OFFICER).then(|| Login {
            user: set.user,
            pin: set.new.clone(),
            tag: self.random_tag(),
        });
        let answered = self.at_home_until(Call::SetPin(set), ticket, deadline)?;
        let Answer::SetPin(changed) = answered.answer else {
            return Err(Error::Peer(format!(
                "member {} answered a PIN change with something else",
                answered.member
            )));
        };
        if self.view().seats.len() < 2 {
            return Ok(());
        }
        let mover = match (ticket.is_empty(), login) {
            (true, Some(login)) => match self.home_ticket(login, deadline) {
                None if self.view().copies_wanted() > 1 => {
                    let what =
                        "the PIN has changed at the home member, and no other one could be told in time";
                    tracing::error!("outcome unknown: {what}");
                    return Err(Error::OutcomeUnknown(what.to_owned()));
                }
                mover => mover,
            },
            (true, None) => self.repair_ticket().map(|ticket| ticket.to_vec()),
            (false, _) => Some(ticket.to_vec()),
        };
        let Some(mover) = mover else {
            tracing::warn!(
                "the PIN has changed at the home member only: the others take it over at the next repair"
            );
            return Ok(());
        };
        let join = Join { credentials: changed.credentials, ..Join::default() };
        self.join_others(answered.member, &[], join, &mover, deadline)
    }

    fn home_ticket(&self, login: Login, deadline: Moment) -> Option<Vec<u8>> {
        match self.at_home_until(Call::Login(login), &[], deadline).map(|answered| answered.answer) {
            Ok(Answer::Login(answer)) => Some(answer.ticket),
            _ => None,
        }
    }

    /// Runs a call at the home member, again and again with the same bytes while its outcome is unknown (HA 2.7).
    ///
    /// # Errors
    /// What the partition answered; `Home` when the home cannot be reached for `OutageWaitMs`.
    pub fn at_home(&self, call: Call, ticket: &[u8]) -> Result<Answered, Error> {
        self.at_home_until(call, ticket, self.deadline())
    }

    fn at_home_until(&self, call: Call, ticket: &[u8], deadline: Moment) -> Result<Answered, Error> {
        let mut desk = Desk::until(self, deadline);
        let mut view = arc_swap::Guard::into_inner(self.ready(&mut desk, deadline)?);
        loop {
            let member = self.home(&view)?;
            let body = Body::of(&view, ticket, call.clone());
            let answer = self.ask_member(&mut desk, &member, &body, deadline);
            if !matches!(answer, Err(Error::Home(_))) || self.platform.now() >= deadline {
                return answer;
            }
            // Nothing was carried out: if an operator has made another member the home meanwhile, that one is asked.
            self.look(&mut desk, true);
            view = arc_swap::Guard::into_inner(self.view());
            if self.home(&view)?.id == member.id {
                return answer;
            }
        }
    }

    /// The home member; the only one in the slot of a single partition.
    pub(crate) fn home(&self, view: &View) -> Result<Arc<Member>, Error> {
        let home = match (self.settings().serial, view.home()) {
            (Some(_), Some(home)) => home,
            _ => view.seats.first().map_or(MemberId(0), |seat| seat.member.id),
        };
        let missing = || Error::Home(format!("the home member {home} is not among the group's members"));
        view.member(home).cloned().ok_or_else(missing)
    }

    /// Runs a call on one named member of the group, without another choice; for tools and repair.
    ///
    /// # Errors
    /// What the partition answered; `Home` when it cannot be reached for `OutageWaitMs`.
    pub fn ask(&self, member: MemberId, call: Call, ticket: &[u8]) -> Result<Answered, Error> {
        let deadline = self.deadline();
        let mut desk = Desk::until(self, deadline);
        let view = arc_swap::Guard::into_inner(self.ready(&mut desk, deadline)?);
        let Some(asked) = view.member(member).cloned() else {
            return Err(Error::Peer(format!(
                "{member} is not a member of the group (vtl haAdmin show lists them)"
            )));
        };
        let body = Body::of(&view, ticket, call);
        self.ask_member(&mut desk, &asked, &body, deadline)
    }

    /// Fails a role call to a member whose store went back, or that knows of older credentials than another member: it
    /// would judge by a PIN that counts no more, or change what is void (HA 1.5, 2.7). A PIN is changed by nobody that has
    /// an older manifest than another member: an operator may have made another one the home. `Adopt` is how an operator makes
    /// such a member one of the group again, and the last member is never put out.
    fn ensure_trusted(&self, member: &Member, body: &Body) -> Result<(), Error> {
        let view = self.view();
        let is_role = calls::call(body.call).is_some_and(|row| row.class == Class::Role);
        if !is_role || body.call == ADOPT || view.seats.len() < 2 {
            return Ok(());
        }
        let (own, greatest) = (member.credential_epoch(), greatest_credentials(&view));
        let (manifest, newest) = (manifest_epoch(member), greatest_manifest(&view));
        let what = if member.is_rolled_back() {
            "went back to an older state".to_owned()
        } else if own < greatest {
            format!("holds credentials of version {own} and another one those of version {greatest}")
        } else if body.call == SET_PIN && manifest < newest {
            let ((.., own), (.., newest)) = (manifest, newest);
            format!("holds version {own} of the manifest and another one version {newest}")
        } else {
            return Ok(());
        };
        Err(Error::Home(format!(
            "member {} {what}, so it decides about no PIN and no role: let a process with the Crypto Officer logged in \
             repair it, or make another member the home (vtl haAdmin promote)",
            member.id
        )))
    }

    /// The same bytes for every send; only in a planted bug a resent PIN change has another tag (HA 4.2).
    fn renamed(&self, body: &Body, attempt: usize) -> Body {
        if attempt == 0 || !planted::is(Bug::FreshTagOnResend) {
            return body.clone();
        }
        match RequestBody::decode(body.bytes.as_slice()).map(|request| (request.ticket, request.call)) {
            Ok((ticket, Some(Call::SetPin(mut set)))) => {
                set.tag = self.random_tag();
                Body::of(&self.view(), &ticket, Call::SetPin(set))
            }
            _ => body.clone(),
        }
    }

    /// What a store says that turns out to have gone back is not believed. What others have said since may be news to the
    /// member only as it was when it answered: it is asked once more. `done` tells that the request may have been carried out.
    fn believe(
        &self,
        desk: &mut Desk<'_>,
        member: &Arc<Member>,
        body: &Body,
        done: bool,
    ) -> Result<(), Error> {
        if self.ensure_trusted(member, body).is_err() {
            self.ask_standing(desk, member);
        }
        let told = self.ensure_trusted(member, body).inspect_err(|error| tracing::error!("{error}"));
        told.map_err(|error| match done && !member.is_rolled_back() {
            true => Error::OutcomeUnknown(format!("it may have been done, and be void: {error}")),
            false => error,
        })
    }

    /// Sends a body to one member until it answers: NotSent and Busy as long as the time allows, at most members + 1
    /// sends that may have executed.
    pub(crate) fn ask_member(
        &self,
        desk: &mut Desk<'_>,
        member: &Arc<Member>,
        body: &Body,
        deadline: Moment,
    ) -> Result<Answered, Error> {
        let give_up = deadline.min(self.platform.now().after_ms(self.settings().outage_wait_ms));
        let sends_max = self.view().seats.len() + 1;
        let mut unknown = 0_usize;
        // What is known of it may be older than a change that another process has made there.
        if self.ensure_trusted(member, body).is_err() {
            self.ask_standing(desk, member);
        }
        loop {
            self.ensure_open()?;
            self.ensure_trusted(member, body).inspect_err(|error| tracing::error!("{error}")).map_err(
                |error| match unknown {
                    0 => error,
                    _ => Error::OutcomeUnknown(format!("a request was sent and not answered: {error}")),
                },
            )?;
            desk.send(member, &self.renamed(body, unknown), 0, unknown, deadline);
            let Some((_, _, end)) = desk.next(Moment::NEVER) else {
                desk.clear();
                return Err(Error::OutcomeUnknown(format!(
                    "the library was finalized while member {} had the request",
                    member.id
                )));
            };
            let pause_ms = match end {
                End::Reply(_, reply) if Meaning::of(Outcome(reply.outcome)) == Meaning::Later => AGAIN_MS,
                End::Reply(header, reply) => {
                    self.believe(desk, member, body, unknown > 0 || reply.outcome == Outcome::OK.0)?;
                    return match Error::of_reply(member.id, &reply) {
                        Some(error) => Err(error),
                        None => Given { member: member.id, header, reply }.answered(),
                    };
                }
                End::Busy(ms) => self.jitter_ms(u64::from(ms)).max(1),
                End::NotSent => AGAIN_MS,
                End::Unknown => {
                    unknown += 1;
                    AGAIN_MS
                }
            };
            if self.platform.now() >= give_up || unknown >= sends_max {
                let id = member.id;
                if unknown > 0 {
                    return Err(Error::OutcomeUnknown(format!(
                        "member {id} took the request and did not answer"
                    )));
                }
                let text = format!(
                    "member {id} cannot be reached and only it can do this: bring it back and repeat"
                );
                tracing::error!("{text}");
                return Err(Error::Home(text));
            }
            desk.pause(pause_ms);
        }
    }
}

/// The greatest version of the credentials that any member has named.
fn greatest_credentials(view: &View) -> u64 {
    view.seats.iter().map(|seat| seat.member.credential_epoch()).max().unwrap_or(0)
}

/// The generation and the epoch of the manifest that a member has named last.
fn manifest_epoch(member: &Member) -> (u64, u64) {
    let (generation, epoch, _) = member.manifest_age();
    (generation, epoch)
}

/// The newest manifest that any member has named, or this process holds.
fn greatest_manifest(view: &View) -> (u64, u64) {
    let held = view.manifest.as_ref().map(|manifest| (manifest.generation, manifest.epoch));
    view.seats.iter().map(|seat| manifest_epoch(&seat.member)).chain(held).max().unwrap_or_default()
}
