//! C_Sign* and C_Verify* (PKCS #11 v3.1, 5.13 and 5.15).
use spec::flags::mechanism::{SIGN, VERIFY};
use spec::messages::KeyFunction;
use spec::{HandleObject, HandleSession, Mechanism};

use crate::crypto::{self, KeyOperation};
use crate::error::Result;
use crate::face::{Produced, Room};
use crate::operation::Cell;
use crate::process::Process;
use crate::sessions::Session;

fn sign_cell(session: &Session) -> &Cell<KeyOperation> {
    &session.sign
}

fn verify_cell(session: &Session) -> &Cell<KeyOperation> {
    &session.verify
}

pub(crate) fn sign_init(
    process: &Process,
    session: HandleSession,
    mechanism: Option<Mechanism>,
    key: HandleObject,
) -> Result<()> {
    crypto::init(process, session, sign_cell, (KeyFunction::SIGN, SIGN), mechanism, key)
}

pub(crate) fn sign(process: &Process, session: HandleSession, data: &[u8], room: Room) -> Result<Produced> {
    crypto::run(process, session, sign_cell, true, |asking, operation| operation.whole(asking, data, room))
}

pub(crate) fn sign_update(process: &Process, session: HandleSession, part: &[u8]) -> Result<()> {
    crypto::run(process, session, sign_cell, false, |asking, operation| {
        operation.update(asking, part).map(drop)
    })
}

pub(crate) fn sign_final(process: &Process, session: HandleSession, room: Room) -> Result<Produced> {
    crypto::run(process, session, sign_cell, true, |asking, operation| operation.finish(asking, room))
}

pub(crate) fn verify_init(
    process: &Process,
    session: HandleSession,
    mechanism: Option<Mechanism>,
    key: HandleObject,
) -> Result<()> {
    crypto::init(process, session, verify_cell, (KeyFunction::VERIFY, VERIFY), mechanism, key)
}

pub(crate) fn verify(process: &Process, session: HandleSession, data: &[u8], signature: &[u8]) -> Result<()> {
    crypto::run(process, session, verify_cell, true, |asking, operation| {
        operation.verify(asking, data, signature)
    })
}

pub(crate) fn verify_update(process: &Process, session: HandleSession, part: &[u8]) -> Result<()> {
    crypto::run(process, session, verify_cell, false, |asking, operation| {
        operation.update(asking, part).map(drop)
    })
}

pub(crate) fn verify_final(process: &Process, session: HandleSession, signature: &[u8]) -> Result<()> {
    crypto::run(process, session, verify_cell, true, |asking, operation| {
        operation.finish_verify(asking, signature)
    })
}
