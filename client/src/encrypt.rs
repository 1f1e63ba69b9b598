//! C_Encrypt* and C_Decrypt* (PKCS #11 v3.1, 5.8 and 5.10).
use spec::flags::mechanism::{DECRYPT, ENCRYPT};
use spec::messages::KeyFunction;
use spec::{HandleObject, HandleSession, Mechanism};

use crate::asking::Asking;
use crate::crypto::{self, KeyOperation};
use crate::error::Result;
use crate::face::{Produced, Room};
use crate::operation::Cell;
use crate::process::Process;
use crate::sessions::Session;

fn encrypt_cell(session: &Session) -> &Cell<KeyOperation> {
    &session.encrypt
}

fn decrypt_cell(session: &Session) -> &Cell<KeyOperation> {
    &session.decrypt
}

/// Update with an output: nothing is taken while only a length is wanted or the room is too small.
fn update(asking: &Asking<'_>, operation: &mut KeyOperation, part: &[u8], room: Room) -> Result<Produced> {
    match operation.expected_update(part).answer(room) {
        Some(answer) => Ok(answer),
        None => operation.update(asking, part).map(Produced::Bytes),
    }
}

pub(crate) fn encrypt_init(
    process: &Process,
    session: HandleSession,
    mechanism: Option<Mechanism>,
    key: HandleObject,
) -> Result<()> {
    crypto::init(process, session, encrypt_cell, (KeyFunction::ENCRYPT, ENCRYPT), mechanism, key)
}

pub(crate) fn encrypt(
    process: &Process,
    session: HandleSession,
    data: &[u8],
    room: Room,
) -> Result<Produced> {
    crypto::run(process, session, encrypt_cell, true, |asking, operation| operation.whole(asking, data, room))
}

pub(crate) fn encrypt_update(
    process: &Process,
    session: HandleSession,
    part: &[u8],
    room: Room,
) -> Result<Produced> {
    crypto::run(process, session, encrypt_cell, false, |asking, operation| {
        update(asking, operation, part, room)
    })
}

pub(crate) fn encrypt_final(process: &Process, session: HandleSession, room: Room) -> Result<Produced> {
    crypto::run(process, session, encrypt_cell, true, |asking, operation| operation.finish(asking, room))
}

pub(crate) fn decrypt_init(
    process: &Process,
    session: HandleSession,
    mechanism: Option<Mechanism>,
    key: HandleObject,
) -> Result<()> {
    crypto::init(process, session, decrypt_cell, (KeyFunction::DECRYPT, DECRYPT), mechanism, key)
}

pub(crate) fn decrypt(
    process: &Process,
    session: HandleSession,
    data: &[u8],
    room: Room,
) -> Result<Produced> {
    crypto::run(process, session, decrypt_cell, true, |asking, operation| operation.whole(asking, data, room))
}

pub(crate) fn decrypt_update(
    process: &Process,
    session: HandleSession,
    part: &[u8],
    room: Room,
) -> Result<Produced> {
    crypto::run(process, session, decrypt_cell, false, |asking, operation| {
        update(asking, operation, part, room)
    })
}

pub(crate) fn decrypt_final(process: &Process, session: HandleSession, room: Room) -> Result<Produced> {
    crypto::run(process, session, decrypt_cell, true, |asking, operation| operation.finish(asking, room))
}
