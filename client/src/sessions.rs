//! Sessions: opened, closed and described in the process alone; a member never hears of them (DESIGN 1).
//!
//! ```text
//! open -> (operations, one cell for each kind) -> close: its session objects go, operations are wiped;
//!                                                 with the last session of a slot the login ends
//! ```
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spec::flags::{mechanism as operation_flags, session as session_flags};
use spec::numbers::SessionState;
use spec::{HandleSession, Rv, SlotId, UserType};

use crate::crypto::KeyOperation;
use crate::digest::Digesting;
use crate::error::{Error, Result};
use crate::face::SessionInfo;
use crate::handles::Home;
use crate::login;
use crate::objects::Search;
use crate::operation::Cell;
use crate::process::Process;
use crate::slab::Entry;
use crate::slots::Slot;

/// A session.
pub(crate) struct Session {
    pub(crate) slot: Arc<Slot>,
    pub(crate) read_write: bool,
    /// How many session objects were made in it.
    pub(crate) objects: AtomicU64,
    pub(crate) find: Cell<Search>,
    pub(crate) digest: Cell<Digesting>,
    pub(crate) sign: Cell<KeyOperation>,
    pub(crate) verify: Cell<KeyOperation>,
    pub(crate) encrypt: Cell<KeyOperation>,
    pub(crate) decrypt: Cell<KeyOperation>,
}

/// C_OpenSession (PKCS #11 v3.1, 5.6.1).
pub(crate) fn open(process: &Process, id: SlotId, flags: u64) -> Result<HandleSession> {
    let slot = process.slot(id)?;
    if slot.is_gone() {
        return Err(Rv::TOKEN_NOT_PRESENT.into());
    }
    if flags & session_flags::SERIAL_SESSION == 0 {
        return Err(Rv::SESSION_PARALLEL_NOT_SUPPORTED.into());
    }
    if flags & session_flags::ASYNC_SESSION != 0 {
        return Err(Rv::SESSION_ASYNC_NOT_SUPPORTED.into());
    }
    let read_write = flags & session_flags::RW_SESSION != 0;
    let role = login::role(&slot);
    if !read_write && role == Some(UserType::SO) {
        return Err(Rv::SESSION_READ_WRITE_SO_EXISTS.into());
    }
    let session = |_| Session {
        slot: slot.clone(),
        read_write,
        objects: AtomicU64::new(0),
        find: Cell::default(),
        digest: Cell::default(),
        sign: Cell::default(),
        verify: Cell::default(),
        encrypt: Cell::default(),
        decrypt: Cell::default(),
    };
    let entry = process.sessions.insert(session).ok_or(Error::Rv(Rv::SESSION_COUNT))?;
    slot.sessions.fetch_add(1, Ordering::AcqRel);
    if !read_write {
        slot.read_only_sessions.fetch_add(1, Ordering::AcqRel);
    }
    Ok(HandleSession(entry.key))
}

/// What the standard says of a session before it says anything of a call (PKCS #11 v3.1, 5.1.2).
pub(crate) fn check(process: &Process, handle: HandleSession) -> Result<()> {
    // The usual case: every call with a session asks.
    if process.sessions.holds(handle.0) && !process.has_lost_a_slot() {
        return Ok(());
    }
    match process.sessions.look(handle.0, |session| session.slot.is_gone()) {
        Some(false) => Ok(()),
        Some(true) => Err(Rv::DEVICE_REMOVED.into()),
        None => Err(Rv::SESSION_HANDLE_INVALID.into()),
    }
}

/// C_CloseSession (PKCS #11 v3.1, 5.6.2).
pub(crate) fn close(process: &Process, handle: HandleSession) -> Result<()> {
    let session = process.sessions.remove(handle.0).ok_or(Rv::SESSION_HANDLE_INVALID)?;
    closed(process, &session);
    Ok(())
}

/// C_CloseAllSessions (PKCS #11 v3.1, 5.6.3).
pub(crate) fn close_all(process: &Process, id: SlotId) -> Result<()> {
    let slot = process.slot(id)?;
    for session in process.sessions.iter().filter(|session| session.slot.id == slot.id) {
        if let Some(session) = process.sessions.remove(session.key) {
            closed(process, &session);
        }
    }
    Ok(())
}

fn closed(process: &Process, session: &Entry<Session>) {
    if session.objects.load(Ordering::Acquire) > 0 {
        let own = Home::Session(session.key);
        process.handles.end_where(process.world().index(), |object| object.home == own);
    }
    let epoch = process.epoch();
    for cancel in [cancel_sign, cancel_verify, cancel_encrypt, cancel_decrypt, cancel_digest, cancel_find] {
        // An operation that another thread is in ends with that thread's call: the session is out of the slab.
        let _ = cancel(session, epoch);
    }
    let slot = &session.slot;
    if !session.read_write {
        slot.read_only_sessions.fetch_sub(1, Ordering::AcqRel);
    }
    if slot.sessions.fetch_sub(1, Ordering::SeqCst) == 1 {
        login::end(process, slot);
    }
}

/// C_GetSessionInfo (PKCS #11 v3.1, 5.6.5).
pub(crate) fn info(process: &Process, handle: HandleSession) -> Result<SessionInfo> {
    let session = process.session(handle)?;
    let state = match (login::role(&session.slot), session.read_write) {
        (Some(UserType::SO), _) => SessionState::RW_SO_FUNCTIONS,
        (Some(_), true) => SessionState::RW_USER_FUNCTIONS,
        (Some(_), false) => SessionState::RO_USER_FUNCTIONS,
        (None, true) => SessionState::RW_PUBLIC_SESSION,
        (None, false) => SessionState::RO_PUBLIC_SESSION,
    };
    let read_write = if session.read_write { session_flags::RW_SESSION } else { 0 };
    let flags = session_flags::SERIAL_SESSION | read_write;
    Ok(SessionInfo { slot: session.slot.id, state, flags, device_error: 0 })
}

/// C_SessionCancel (PKCS #11 v3.1, 5.6.6): ends the operations that the flags name; others are left.
pub(crate) fn cancel(process: &Process, handle: HandleSession, flags: u64) -> Result<()> {
    let session = process.session(handle)?;
    let rows: [(u64, Cancel); 6] = [
        (operation_flags::SIGN, cancel_sign),
        (operation_flags::VERIFY, cancel_verify),
        (operation_flags::ENCRYPT, cancel_encrypt),
        (operation_flags::DECRYPT, cancel_decrypt),
        (operation_flags::DIGEST, cancel_digest),
        (operation_flags::FIND_OBJECTS, cancel_find),
    ];
    for (flag, cancel) in rows {
        if flags & flag != 0 {
            cancel(&session, process.epoch())?;
        }
    }
    Ok(())
}

/// Ends one kind of operation of a session, in the process of a fork epoch.
type Cancel = fn(&Session, u64) -> Result<()>;

fn cancel_sign(session: &Session, epoch: u64) -> Result<()> {
    session.sign.cancel(epoch)
}

fn cancel_verify(session: &Session, epoch: u64) -> Result<()> {
    session.verify.cancel(epoch)
}

fn cancel_encrypt(session: &Session, epoch: u64) -> Result<()> {
    session.encrypt.cancel(epoch)
}

fn cancel_decrypt(session: &Session, epoch: u64) -> Result<()> {
    session.decrypt.cancel(epoch)
}

fn cancel_digest(session: &Session, epoch: u64) -> Result<()> {
    session.digest.cancel(epoch)
}

fn cancel_find(session: &Session, epoch: u64) -> Result<()> {
    session.find.cancel(epoch)
}
