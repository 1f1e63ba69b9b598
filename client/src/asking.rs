//! One call's way to the members of its slot: the ticket goes along, and a dead ticket ends the login.
use std::sync::Arc;

use ha::{SentUse, Used};
use spec::Template;
use spec::messages::{
    Answer, Call, Found, Make, MakeAnswer, ObjectRef, SetAttributes, SetAttributesAnswer, SetPin, UseParts,
};

use crate::error::{Error, Result};
use crate::handles::{Object, State};
use crate::login::{self, LoggedIn};
use crate::process::Process;
use crate::slots::Slot;
use crate::world::with_group;

/// Nothing is looked up before something is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) process: &'a Process,
    pub(crate) slot: &'a Arc<Slot>,
}

impl Asking<'_> {
    /// One request to any member.
    pub(crate) fn any(&self, call: Call) -> Result<Answer> {
        self.heed(|group, ticket| group.any(call, ticket).map(|answered| answered.answer))
    }

    /// One use, by any member. What it has been sent with is told with an error after which it is asked for once more.
    pub(crate) fn use_key(&self, parts: &UseParts<'_>, sent: &mut Option<SentUse>) -> Result<Used> {
        self.heed(|group, ticket| group.use_key(parts, ticket, sent))
    }

    /// Makes objects.
    pub(crate) fn create(&self, make: Make) -> Result<MakeAnswer> {
        self.heed(|group, ticket| group.create(make, ticket))
    }

    /// Changes a token object.
    pub(crate) fn change(&self, change: SetAttributes) -> Result<SetAttributesAnswer> {
        self.heed(|group, ticket| group.change(change, ticket))
    }

    /// Destroys a token object.
    pub(crate) fn destroy(&self, object: ObjectRef) -> Result<()> {
        self.heed(|group, ticket| group.destroy(object, ticket))
    }

    /// Searches token objects.
    pub(crate) fn find(&self, template: Template) -> Result<Vec<Found>> {
        self.heed(|group, ticket| group.find(&template, ticket))
    }

    /// Changes a PIN.
    pub(crate) fn set_pin(&self, change: SetPin) -> Result<()> {
        self.heed(|group, ticket| group.set_pin(change, ticket))
    }

    fn heed<T>(&self, ask: impl FnOnce(&ha::Group, &[u8]) -> std::result::Result<T, ha::Error>) -> Result<T> {
        let login = self.slot.login.load();
        let ticket = login.as_ref().map_or(&[][..], |login| &login.ticket);
        match with_group(self.process, self.slot, |group| ask(group, ticket))? {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.heed_error(error.into(), login.as_ref())),
        }
    }

    #[cold]
    fn heed_error(&self, error: Error, login: Option<&Arc<LoggedIn>>) -> Error {
        let error = self.slot.judge(self.process, error);
        if let Error::TicketDead = error {
            tracing::warn!(
                slot = self.slot.id.0,
                "the login's ticket is dead: the application has to log in again"
            );
            // A late answer must not end a login that has taken the place of the one whose ticket was sent.
            if let Some(login) = login {
                login::end_this(self.process, self.slot, login);
            }
        }
        error
    }
}

/// Asks with the name of an object. When the one member that is left has an older state than was seen, that one is asked for
/// (HA 4.6).
pub(crate) fn naming<T>(
    object: Option<&Object>,
    ask: impl FnMut(Option<ObjectRef>) -> Result<T>,
) -> Result<T> {
    ask_naming(object, Object::reference, Object::forget, ask)
}

/// Asks with the name of a key that is to be used. When no member in reach has the state that was seen, the one that the
/// member has is asked for: it checks everything again.
pub(crate) fn naming_key<T>(key: &Object, ask: impl FnMut(Option<ObjectRef>) -> Result<T>) -> Result<T> {
    ask_naming(Some(key), Object::reference_to_use, Object::give_up, ask)
}

/// Without the blob of a session object, and again with it when a member wants it (RULES 2.2).
fn ask_naming<T>(
    object: Option<&Object>,
    reference: impl Fn(&Object, &State, bool) -> ObjectRef,
    settle_for_less: impl FnOnce(&Object, &Arc<State>),
    mut ask: impl FnMut(Option<ObjectRef>) -> Result<T>,
) -> Result<T> {
    let Some(object) = object else { return ask(None) };
    let state = object.state();
    match ask(Some(reference(object, &state, false))) {
        Err(Error::NeedBlob) => ask(Some(reference(object, &state, true))),
        Err(Error::OnlyOlder) => {
            settle_for_less(object, &state);
            ask(Some(reference(object, &object.state(), false)))
        }
        answer => answer,
    }
}

/// The error for an answer of another kind than the call's.
pub(crate) fn strange(call: &str) -> Error {
    Error::Protocol(format!("wanted an answer to {call} from a member, found one to another call"))
}
