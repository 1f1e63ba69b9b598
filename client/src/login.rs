//! Login, logout and PIN change. The session rules are decided here before a try is spent (RULES 2.1); who is who is
//! decided by a member, and its ticket is kept for the slot (RULES 2.5, 2.6).
//!
//! ```text
//!               C_Login, right PIN                      C_Logout, last session closed, ticket dead
//! logged out ---------------------> logged in(role) ------------------------------------------> logged out
//!                                                   handles of private objects end
//! ```
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::messages::{Login, SetPin};
use spec::{HandleSession, Rv, UserType};
use zeroize::Zeroizing;

use crate::asking::Asking;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::sessions::Session;
use crate::slots::Slot;

/// Longest PIN that is sent, in bytes.
const PIN_BYTES_MAX: usize = 255;

/// A login: its role and its ticket. The PIN is not kept.
pub(crate) struct LoggedIn {
    pub(crate) role: UserType,
    pub(crate) ticket: Zeroizing<Vec<u8>>,
}

/// Who is logged in.
pub(crate) fn role(slot: &Slot) -> Option<UserType> {
    slot.login.load().as_ref().map(|login| login.role)
}

/// The table of RULES 2.1: whether a login may be tried.
///
/// # Errors
/// The standard's code (PKCS #11 v3.1, 5.6.8).
pub(crate) fn may_log_in(
    user: UserType,
    role: Option<UserType>,
    read_only_sessions: u64,
) -> std::result::Result<(), Rv> {
    match (user, role) {
        (UserType::SO | UserType::USER | UserType::CRYPTO_USER, Some(role)) if role == user => {
            Err(Rv::USER_ALREADY_LOGGED_IN)
        }
        (UserType::SO | UserType::USER | UserType::CRYPTO_USER, Some(_)) => {
            Err(Rv::USER_ANOTHER_ALREADY_LOGGED_IN)
        }
        (UserType::SO, None) if read_only_sessions > 0 => Err(Rv::SESSION_READ_ONLY_EXISTS),
        (UserType::SO | UserType::USER | UserType::CRYPTO_USER, None) => Ok(()),
        _ => Err(Rv::USER_TYPE_INVALID),
    }
}

/// C_Login (PKCS #11 v3.1, 5.6.8).
pub(crate) fn log_in(
    process: &Process,
    handle: HandleSession,
    user: UserType,
    pin: Option<&[u8]>,
) -> Result<()> {
    let session = process.session(handle)?;
    if user == UserType::CONTEXT_SPECIFIC {
        return Err(context(process, &session));
    }
    let slot = &session.slot;
    may_log_in(user, role(slot), slot.read_only_sessions.load(Ordering::Acquire))?;
    let pin = checked(pin)?;
    let tag = process.random::<16>().to_vec();
    let group = process.world().group(process, slot)?;
    let ticket = group.login(Login { user: user.0, pin: pin.to_vec(), tag }, &[]);
    let ticket = ticket.map_err(|error| slot.judge(process, error.into()))?;
    let login = Arc::new(LoggedIn { role: user, ticket: Zeroizing::new(ticket) });
    let previous = slot.login.compare_and_swap(&None::<Arc<LoggedIn>>, Some(login.clone()));
    if previous.is_some() {
        return Err(Rv::USER_ALREADY_LOGGED_IN.into());
    }
    // The last session may have been closed during the round trip, when there was no login to end yet. Either that close
    // sees this login or this look sees its count: both are sequentially consistent.
    if slot.sessions.load(Ordering::SeqCst) == 0 {
        end_this(process, slot, &login);
        return Err(Rv::SESSION_HANDLE_INVALID.into());
    }
    process.logins.change(process.platform.now());
    process.world().renew_repair_ticket(slot);
    Ok(())
}

/// The answer to a context login (RULES 2.7): without an operation there is nothing to log in to; with one, this
/// release has no key that demands it.
fn context(process: &Process, session: &Session) -> Error {
    let active =
        |cell: &crate::operation::Cell<_>| cell.take(process.epoch()).is_ok_and(|cell| cell.is_active());
    if active(&session.sign) || active(&session.decrypt) {
        Rv::FUNCTION_NOT_SUPPORTED.into()
    } else {
        Rv::OPERATION_NOT_INITIALIZED.into()
    }
}

/// C_Logout (PKCS #11 v3.1, 5.6.10). Nothing is sent: a child's logout never logs its parent out (RULES 2.14).
pub(crate) fn log_out(process: &Process, handle: HandleSession) -> Result<()> {
    let session = process.session(handle)?;
    if end(process, &session.slot) { Ok(()) } else { Err(Rv::USER_NOT_LOGGED_IN.into()) }
}

/// Ends the login of a slot with the handles of its private objects; false when there was none.
pub(crate) fn end(process: &Process, slot: &Slot) -> bool {
    let Some(_login) = slot.login.swap(None) else { return false };
    ended(process, slot);
    true
}

/// Ends this very login, not another one that has taken its place.
pub(crate) fn end_this(process: &Process, slot: &Slot, login: &Arc<LoggedIn>) {
    let previous = slot.login.compare_and_swap(login, None);
    if previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, login)) {
        ended(process, slot);
    }
}

fn ended(process: &Process, slot: &Slot) {
    let world = process.world();
    process.handles.end_where(world.index(), |object| object.slot == slot.id && object.private);
    process.logins.change(process.platform.now());
    world.renew_repair_ticket(slot);
}

/// C_SetPIN (PKCS #11 v3.1, 5.5.8): the PIN of the role that is logged in, of the Crypto Officer when none is.
pub(crate) fn set_pin(
    process: &Process,
    handle: HandleSession,
    old: Option<&[u8]>,
    new: Option<&[u8]>,
) -> Result<()> {
    let session = process.session(handle)?;
    if !session.read_write {
        return Err(Rv::SESSION_READ_ONLY.into());
    }
    let slot = &session.slot;
    let change = SetPin {
        user: role(slot).unwrap_or(UserType::USER).0,
        old: checked(old)?.to_vec(),
        new: checked(new)?.to_vec(),
        tag: process.random::<16>().to_vec(),
    };
    Asking { process, slot }.set_pin(change)
}

/// A PIN as it may be sent: given, since there is no protected authentication path, and not longer than any PIN.
fn checked(pin: Option<&[u8]>) -> Result<&[u8]> {
    let pin = pin.ok_or(Rv::ARGUMENTS_BAD)?;
    if pin.len() > PIN_BYTES_MAX { Err(Rv::PIN_LEN_RANGE.into()) } else { Ok(pin) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_a_login_may_be_tried_is_one_table() {
        const CO: UserType = UserType::USER;
        const SO: UserType = UserType::SO;
        const CU: UserType = UserType::CRYPTO_USER;
        let rows = [
            (CO, None, 0, Ok(())),
            (CO, None, 3, Ok(())),
            (CU, None, 3, Ok(())),
            (SO, None, 0, Ok(())),
            (SO, None, 1, Err(Rv::SESSION_READ_ONLY_EXISTS)),
            (CO, Some(CO), 0, Err(Rv::USER_ALREADY_LOGGED_IN)),
            (SO, Some(SO), 0, Err(Rv::USER_ALREADY_LOGGED_IN)),
            (SO, Some(CO), 0, Err(Rv::USER_ANOTHER_ALREADY_LOGGED_IN)),
            (CO, Some(SO), 0, Err(Rv::USER_ANOTHER_ALREADY_LOGGED_IN)),
            (CU, Some(CO), 0, Err(Rv::USER_ANOTHER_ALREADY_LOGGED_IN)),
            (UserType(9), None, 0, Err(Rv::USER_TYPE_INVALID)),
            (UserType::CONTEXT_SPECIFIC, None, 0, Err(Rv::USER_TYPE_INVALID)),
        ];
        for (user, role, read_only, answer) in rows {
            assert_eq!(may_log_in(user, role, read_only), answer, "{user} {role:?} {read_only}");
        }
    }
}
